// Which instruction sets this build holds and this machine runs, and the choice between them.
#pragma once

#include <string>
#include <vector>

namespace fusedx {

enum class Isa { baseline, avx2, avx512 };

const char* name(Isa isa);

// Compiled in and runnable here, best first; never empty, since baseline is always there.
std::vector<Isa> available_isas();

// `wanted` by name; empty means the environment's FUSEDX_ISA (read once), else the best available.
// Throws std::invalid_argument that lists what is available.
Isa choose_isa(const std::string& wanted = "");

}  // namespace fusedx
