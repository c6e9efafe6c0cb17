// Which instruction sets this build holds and this machine runs, and the choice between them.
#pragma once

#include <string>
#include <vector>

namespace fusedx {

// avxvnni shares avx2's float kernels, avx512vnni and amx share avx512's, neondot shares neon's: they differ in integer products.
// x86 and unknown processors have baseline, aarch64 has neon in its place.
enum class Isa { baseline, avx2, avxvnni, avx512, avx512vnni, amx, neon, neondot };

const char* name(Isa isa);

// Compiled in and runnable here, best first; never empty.
std::vector<Isa> available_isas();

// `wanted` by name; empty means the environment's FUSEDX_ISA (read once), else the best available.
// Throws Error(unavailable) that lists what is available.
Isa choose_isa(const std::string& wanted = "");

}  // namespace fusedx
