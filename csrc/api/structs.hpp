// Structures of the caller, which may be of an older version of the header: shorter, never longer.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>

#include "api/outcome.hpp"
#include "fusedx/fusedx.h"

namespace fusedx::api {

// The least size that any version of a structure has had; version 0.1 is the first, and these two have grown since.
template <class Struct>
constexpr size_t kLeastSize = sizeof(Struct);
template <>
inline constexpr size_t kLeastSize<fx_classify_options> = offsetof(fx_classify_options, sampler);
template <>
inline constexpr size_t kLeastSize<fx_result> = offsetof(fx_result, sweeps);

template <class Struct>
void check_size(size_t size, const char* name) {
    if (size < kLeastSize<Struct> || size % alignof(Struct) != 0 || size > (size_t{1} << 16))
        refuse(std::string(name) + ".struct_size is " + std::to_string(size) + "; set it to sizeof(" + name + "), which is "
               + std::to_string(sizeof(Struct)) + " in this library");
}

// What the library knows of the caller's structure; fields that the caller's version lacks are as in `defaults`.
template <class Struct>
Struct taken(const Struct* from, const Struct& defaults, const char* name) {
    static_assert(std::is_trivially_copyable_v<Struct>);
    if (from == nullptr) return defaults;
    size_t size;
    std::memcpy(&size, from, sizeof size);
    check_size<Struct>(size, name);
    Struct own = defaults;
    std::memcpy(&own, from, std::min(size, sizeof own));
    own.struct_size = size;
    return own;
}

// Fills in what the caller's version has; the rest of a newer one becomes zero.
template <class Struct>
void give(Struct own, Struct* to, size_t size, const char* name) {
    if (to == nullptr) refuse(std::string(name) + ": a pointer to it is needed, not NULL");
    check_size<Struct>(size, name);
    own.struct_size = size;
    std::memset(static_cast<void*>(to), 0, size);
    std::memcpy(to, &own, std::min(size, sizeof own));
}

// Element i of an array whose elements the caller's version sizes.
template <class Struct>
Struct* element(Struct* first, size_t size, int64_t i) {
    using Byte = std::conditional_t<std::is_const_v<Struct>, const char, char>;
    return reinterpret_cast<Struct*>(reinterpret_cast<Byte*>(first) + size * static_cast<size_t>(i));
}

}  // namespace fusedx::api
