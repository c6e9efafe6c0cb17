#pragma once

#include <string>

namespace fusedx::test {
extern std::string model_folder;  // of a compiled model, or empty
}
