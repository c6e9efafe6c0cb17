// JSON as RFC 8259 means it, and as engine/manifest.py::parse_json reads it: no NaN or Infinity, no key twice, no lone surrogate, UTF-8
// alone, and nothing nested beyond reason.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace fusedx::json {

constexpr int kMaxNesting = 32;      // values one inside another
constexpr size_t kMaxDigits = 4300;  // of an integer, as Python's own limit

struct Value;
struct Member;
using Array = std::vector<Value>;
using Object = std::vector<Member>;  // in the file's order
using Null = std::monostate;

// A whole number without fraction or exponent; `wide` where its magnitude needs more than 64 bits.
struct Integer {
    uint64_t magnitude = 0;
    bool negative = false;
    bool wide = false;

    bool within(uint64_t low, uint64_t high) const {
        return !wide && (!negative || magnitude == 0) && low <= magnitude && magnitude <= high;
    }
};

struct Value {
    std::variant<Null, bool, Integer, double, std::string, Array, Object> is;

    template <class T>
    const T* get() const { return std::get_if<T>(&is); }
    const Value* find(std::string_view key) const;  // null where it is no object, or has no such key
    const char* type() const;                       // as Python names it, for messages
};

struct Member {
    std::string key;
    Value value;
};

// Throws Malformed, which names the place by its byte.
Value parse(std::string_view text);

// A value for a message: short, and printable.
std::string shown(const Value& value);

}  // namespace fusedx::json
