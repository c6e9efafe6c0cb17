// Softmax and sigmoid with the same bits everywhere; see reference.py, which this follows step by step.
#pragma once

#include <cstdint>

namespace fusedx {

// scores [classes] -> out [classes], classes >= 1; may be the same array.  All NaN where a score is NaN or +inf.
void softmax(const double* scores, int64_t classes, double* out);
double sigmoid(double x);

}  // namespace fusedx
