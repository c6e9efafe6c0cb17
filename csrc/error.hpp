// What the library throws on purpose; the C interface turns it into a status and a message, the Python module into an exception.
#pragma once

#include <stdexcept>
#include <string>

namespace fusedx {

// Numbered as fx_status in include/fusedx/fusedx.h; never renumbered.
enum class Status {
    ok = 0,
    bad_argument = 1,   // a setting has an impossible value
    bad_model = 2,      // a compiled model is damaged, tampered with, incomplete or newer
    bad_image = 3,      // one image cannot be used
    unavailable = 4,    // an instruction set, encoder or format cannot run here
    out_of_memory = 5,  // the system's memory, or the caller's budget
    cancelled = 6,
    internal = 7,       // a bug in fusedx, or in a library below it
};

// The text says what was expected, what was found, and what to do about it.
class Error : public std::runtime_error {
public:
    Error(Status status, const std::string& text) : std::runtime_error(text), status(status) {}
    const Status status;
};

}  // namespace fusedx
