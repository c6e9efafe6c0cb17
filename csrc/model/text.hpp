// Text that comes from a file, and how it may appear in a message.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace fusedx {

// What is wrong with a file's contents; caught where the file has a name, and turned into an Error that says it.
class Malformed : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

// One code point of UTF-8 at `at`, which moves behind it; -1 (and `at` stays) for an overlong form, a surrogate or a stray byte.
int32_t next_code_point(std::string_view text, size_t& at);

bool is_utf8(std::string_view text);

void append_utf8(std::string& text, uint32_t code_point);

// As Python's str.isprintable: no control, format, private, unassigned or separating character but the space.
bool is_printable(uint32_t code_point);

// 'text' for a message: at most `limit` bytes of it, everything but printable characters escaped.
std::string quoted(std::string_view text, size_t limit = 80);

std::string joined(const std::vector<std::string>& texts, size_t limit = 300);

// "; did you mean 'nearest'?" where one of `known` is near enough, else "".
std::string suggestion(std::string_view text, const std::vector<std::string>& known);

}  // namespace fusedx
