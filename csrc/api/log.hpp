// The caller's log.
#pragma once

#include <cstdint>
#include <string>

#include "fusedx/fusedx.h"

namespace fusedx::api {

bool log_wanted(int32_t level) noexcept;
void log(int32_t level, const char* text) noexcept;

// False when it is called from inside the callback.
bool set_log(fx_log_callback callback, int32_t level, void* user);

}  // namespace fusedx::api
