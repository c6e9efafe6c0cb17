// SHA-256's compression function, once for each kind of processor; sha256.cpp chooses.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fusedx {

extern const uint32_t kSha256Round[64];  // fractional parts of the cube roots of the first 64 primes

// state [8] <- compress(state, block) for each of `blocks` blocks of 64 bytes.
using Sha256Blocks = void (*)(uint32_t* state, const uint8_t* data, size_t blocks);

void sha256_blocks_portable(uint32_t* state, const uint8_t* data, size_t blocks);

// The fast form, or null where this build or this processor has none.
Sha256Blocks sha256_blocks_x86();
Sha256Blocks sha256_blocks_armv8();

}  // namespace fusedx
