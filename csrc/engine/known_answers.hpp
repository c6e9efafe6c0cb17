// Known answers of the operations whose bits results rest on: does this library, as built and on this processor, still compute them?
#pragma once

namespace fusedx::known_answers {

bool sha256();   // FIPS 180-4's examples
bool philox();   // Random123's vectors; normal and uniform numbers of kernels/philox/reference.py
bool resize();   // kernels/resize/reference.py, shrinking and growing
bool softmax();  // kernels/softmax/reference.py

}  // namespace fusedx::known_answers
