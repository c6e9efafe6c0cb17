// A fuzzer's input in memory of exactly its size, aligned as the library's own, so that AddressSanitizer sees the first byte past it.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "model/file_bytes.hpp"

namespace fusedx::fuzz {

class ExactCopy {
public:
    ExactCopy(const uint8_t* data, size_t size) : memory_(std::malloc(size ? size : 1), &std::free), size_(size) {
        if (size) std::memcpy(memory_.get(), data, size);
    }
    Bytes bytes() const { return {static_cast<const uint8_t*>(memory_.get()), size_}; }

private:
    std::unique_ptr<void, decltype(&std::free)> memory_;
    size_t size_;
};

}  // namespace fusedx::fuzz
