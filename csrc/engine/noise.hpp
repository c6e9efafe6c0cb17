// The noise of a chain: a pure function of (seed, image, draw, step, class), with the bits of engine/noise.py.
#pragma once

#include <cstdint>

#include "engine/preprocess.hpp"

namespace fusedx {

struct NoiseKey { uint32_t word[2]; };

// The first 8 bytes of SHA-256("fusedx-noise-1" | seed, 8 bytes little-endian | image digest, 32 bytes).
NoiseKey noise_key(uint64_t seed, const Digest& image);

// One image's part of noise [rows, draws, images, classes], as Chain::run takes it: out[row][d][image][c] is number (first_draw + d,
// row, c) of the image's stream.  Standard normal, or uniform in [0, 1).
struct NoiseShape { int64_t rows, draws, images, classes; };
void draw_noise(const NoiseKey& key, bool uniform, const NoiseShape& shape, int64_t first_draw, int64_t image, double* out);

}  // namespace fusedx
