// Philox4x32-10 and the numbers made from its words; see reference.py for the formulas, which this follows step by step.
#pragma once

#include <cstdint>

namespace fusedx {

// counters [count, 4], key [2] -> words [count, 4]
void philox_words(const uint32_t* key, const uint32_t* counters, int64_t count, uint32_t* words);
// counters [count, 4], key [2] -> [count], uniform in [0, 1)
void philox_uniform(const uint32_t* key, const uint32_t* counters, int64_t count, double* out);
// counters [count, 4], key [2] -> [count], standard normal
void philox_normal(const uint32_t* key, const uint32_t* counters, int64_t count, double* out);

}  // namespace fusedx
