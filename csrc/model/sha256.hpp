// SHA-256 (FIPS 180-4), by the processor's own instructions where it has them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace fusedx {

using Digest = std::array<uint8_t, 32>;

// A message in pieces.  Not thread-safe; different objects are independent.
class Sha256 {
public:
    void update(const void* data, size_t size);
    Digest finish();  // once; the object is of no use after it

private:
    std::array<uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    std::array<uint8_t, 64> block_{};
    uint64_t total_ = 0;  // bytes so far; block_ holds the last total_ % 64 of them
};

Digest sha256(const void* data, size_t size);

// 64 lower-case digits.
std::string hexadecimal(const Digest& digest);

// Which instructions `Sha256` uses here: "x86 SHA", "armv8 SHA2" or "portable".
const char* sha256_instructions();

}  // namespace fusedx
