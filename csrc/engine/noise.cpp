#include "noise.hpp"

#include <cstring>
#include <vector>

#include "model/sha256.hpp"
#include "philox/philox.hpp"
#include "runtime/thread_pool.hpp"

namespace fusedx {

NoiseKey noise_key(uint64_t seed, const Digest& image) {
    uint8_t bytes[14 + 8 + 32];
    std::memcpy(bytes, "fusedx-noise-1", 14);
    for (int i = 0; i < 8; ++i) bytes[14 + i] = static_cast<uint8_t>(seed >> (8 * i));
    std::memcpy(bytes + 22, image.data(), 32);
    const Digest digest = sha256(bytes, sizeof bytes);
    NoiseKey key{};
    for (int i = 0; i < 8; ++i) key.word[i / 4] |= uint32_t{digest[i]} << (8 * (i % 4));
    return key;
}

void draw_noise(const NoiseKey& key, bool uniform, const NoiseShape& shape, int64_t first_draw, int64_t image, double* out) {
    constexpr int64_t kWork = 64;  // multiply-adds that one number is worth, about
    parallel_for(shape.rows, shape.rows * shape.draws * shape.classes * kWork, [&](int64_t begin, int64_t end) {
        std::vector<uint32_t> counters(4 * shape.classes);
        for (int64_t c = 0; c < shape.classes; ++c) counters[4 * c + 2] = static_cast<uint32_t>(c);
        for (int64_t row = begin; row < end; ++row)
            for (int64_t d = 0; d < shape.draws; ++d) {
                for (int64_t c = 0; c < shape.classes; ++c) {
                    counters[4 * c] = static_cast<uint32_t>(first_draw + d);
                    counters[4 * c + 1] = static_cast<uint32_t>(row);
                }
                double* to = out + ((row * shape.draws + d) * shape.images + image) * shape.classes;
                (uniform ? philox_uniform : philox_normal)(key.word, counters.data(), shape.classes, to);
            }
    });
}

}  // namespace fusedx
