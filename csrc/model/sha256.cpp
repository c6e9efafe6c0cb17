#include "model/sha256.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

#include "model/sha256_blocks.hpp"

namespace fusedx {

alignas(64) const uint32_t kSha256Round[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be,
    0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa,
    0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
    0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
    0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
    0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

void sha256_blocks_portable(uint32_t* state, const uint8_t* data, size_t blocks) {
    using std::rotr;
    for (; blocks; --blocks, data += 64) {
        uint32_t w[64];
        for (int i = 0; i < 16; ++i)
            w[i] = uint32_t(data[4 * i]) << 24 | uint32_t(data[4 * i + 1]) << 16 | uint32_t(data[4 * i + 2]) << 8 | data[4 * i + 3];
        for (int i = 16; i < 64; ++i) {
            const uint32_t s0 = rotr(w[i - 15], 7) ^ rotr(w[i - 15], 18) ^ w[i - 15] >> 3;
            const uint32_t s1 = rotr(w[i - 2], 17) ^ rotr(w[i - 2], 19) ^ w[i - 2] >> 10;
            w[i] = w[i - 16] + s0 + w[i - 7] + s1;
        }
        uint32_t v[8];  // a .. h
        std::copy_n(state, 8, v);
        for (int i = 0; i < 64; ++i) {
            const uint32_t s1 = rotr(v[4], 6) ^ rotr(v[4], 11) ^ rotr(v[4], 25), choice = (v[4] & v[5]) ^ (~v[4] & v[6]);
            const uint32_t s0 = rotr(v[0], 2) ^ rotr(v[0], 13) ^ rotr(v[0], 22), most = (v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]);
            const uint32_t t = v[7] + s1 + choice + kSha256Round[i] + w[i];
            std::copy_backward(v, v + 7, v + 8);
            v[4] += t;
            v[0] = t + s0 + most;
        }
        for (int i = 0; i < 8; ++i) state[i] += v[i];
    }
}

namespace {

struct Choice {
    Sha256Blocks blocks;
    const char* name;
};

const Choice& choice() {
    static const Choice chosen = [] {
        if (Sha256Blocks x86 = sha256_blocks_x86()) return Choice{x86, "x86 SHA"};
        if (Sha256Blocks arm = sha256_blocks_armv8()) return Choice{arm, "armv8 SHA2"};
        return Choice{sha256_blocks_portable, "portable"};
    }();
    return chosen;
}

}  // namespace

void Sha256::update(const void* data, size_t size) {
    const auto* bytes = static_cast<const uint8_t*>(data);
    const size_t held = total_ % 64;
    total_ += size;
    if (held) {
        const size_t taken = std::min(size, 64 - held);
        std::memcpy(block_.data() + held, bytes, taken);
        if (held + taken < 64) return;
        choice().blocks(state_.data(), block_.data(), 1);
        bytes += taken;
        size -= taken;
    }
    choice().blocks(state_.data(), bytes, size / 64);
    if (size % 64) std::memcpy(block_.data(), bytes + size / 64 * 64, size % 64);
}

Digest Sha256::finish() {
    const uint64_t bits = total_ * 8;
    uint8_t tail[72] = {0x80};  // a one bit, zeros up to 8 bytes before the end of a block, the length in bits
    const size_t padding = 1 + (119 - total_ % 64) % 64;
    for (int i = 0; i < 8; ++i) tail[padding + size_t(i)] = uint8_t(bits >> (56 - 8 * i));
    update(tail, padding + 8);
    Digest digest;
    for (size_t i = 0; i < 32; ++i) digest[i] = uint8_t(state_[i / 4] >> (24 - 8 * (i % 4)));
    return digest;
}

Digest sha256(const void* data, size_t size) {
    Sha256 hash;
    hash.update(data, size);
    return hash.finish();
}

std::string hexadecimal(const Digest& digest) {
    std::string text;
    for (uint8_t byte : digest) text += {"0123456789abcdef"[byte >> 4], "0123456789abcdef"[byte & 15]};
    return text;
}

const char* sha256_instructions() { return choice().name; }

}  // namespace fusedx
