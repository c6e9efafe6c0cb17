// How a batch is cut into parts that run together: a pure function of sizes, since results never depend on it.
#pragma once

#include <algorithm>
#include <cstdint>

namespace fusedx {

struct BatchSizes {
    int64_t images, draws;
    int64_t rows_per_chain;  // rows of the denoiser for one draw of one image
    int64_t noise_rows;      // numbers of noise per class of one chain
    int64_t classes, features;
};

struct Block { int64_t images, draws; };

constexpr int64_t kMostRows = 1024;             // of the denoiser evaluated together, about; more is no faster
constexpr int64_t kMostNoise = int64_t{64} << 20;  // bytes

// Bytes that a block's own arrays take: noise, final states, encoder's outputs, labels of all draws.  The chain's workspace comes on top.
inline int64_t block_bytes(const BatchSizes& s, const Block& b) {
    const int64_t chains = b.images * b.draws;
    return 8 * chains * s.classes * (s.noise_rows + 1) + b.images * (4 * s.features + 4 * 8 * s.classes + 4 * s.draws);
}

// most_images: the caller's wish, 0 for none.  `bytes_of(block)` <= `bytes` is kept if a block of one image and one draw does.
template <class BytesOf>
Block choose_block(const BatchSizes& s, int64_t most_images, int64_t bytes, const BytesOf& bytes_of) {
    const int64_t rows = kMostRows / s.rows_per_chain;
    const int64_t chains = std::clamp<int64_t>(kMostNoise / (8 * s.classes * s.noise_rows), 1, rows);
    Block block{std::min({s.images, chains, most_images > 0 ? most_images : chains}), 1};
    block.draws = std::clamp<int64_t>(chains / block.images, 1, s.draws);
    while (bytes_of(block) > bytes && block.draws > 1) block.draws = (block.draws + 1) / 2;
    while (bytes_of(block) > bytes && block.images > 1) block.images = (block.images + 1) / 2;
    return block;
}

}  // namespace fusedx
