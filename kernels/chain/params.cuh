// What one launch of the chain is told: pointers to device memory, sizes, and the plan's numbers (plan.py).
// params.py mirrors this struct field by field; a test compares sizes and offsets.
//
// F = feature_dim, K = F padded with zeros to whole stages, C = classes (1..15), R = rows (1..8), T = steps,
// M = conditions, tiles = ceil(F / 16).  Tables have row stride K and zeros beyond F.
#pragma once

#include <cstdint>

namespace fusedx {

constexpr int kThreads = 256;       // of a block; one block a multiprocessor
constexpr int kWarps = 8;           // each owns one eighth of every sum over K
constexpr int kMaxRows = 8;         // columns of the tensor core's B operand
constexpr int kMaxClasses = 15;
constexpr int kTile = 16;           // outputs of a tile: rows of the tensor core's A operand
constexpr int kChunkBytes = 512;    // 16 bytes a lane: 16 outputs by 8 (fp32), 16 (bf16, fp16) or 32 (fp8) inputs
constexpr int kStageChunks = 4;     // chunks that a warp copies and waits for together
constexpr int kStageBytes = kStageChunks * kChunkBytes;
constexpr int kMaxStages = 8;       // of a warp's ring
constexpr int kTilesAFlush = 4;     // tiles whose sums wait in shared memory for one joint epilogue

enum Family : int32_t { kPosterior = 0, kDdim = 1 };

// Shared by all blocks of a launch; the host clears it before each launch and reads `status` after it.
struct ChainControl {
    uint32_t arrived;  // grid barrier: arrivals since the launch, never reset by the kernel
    uint32_t unused;
    uint64_t status;   // 0, or the first failure: code << 56 | barrier << 48 | block << 32 | step
};

constexpr uint64_t kTimedOut = 1;  // the only status code: a barrier was not completed within watchdog_ns

struct ChainParams {
    const void* weight[2];      // layers 2 and 3, packed by pack.py: [8 warps][tiles][stages a tile][2048 bytes]
    const float* scale[3];      // a of layers 1..3, [table rows][K]
    const float* shift[3];      // c of layers 1..3, [table rows][K]
    const float* weight_y;      // [C][K]: the half of W1 that multiplies the state, transposed
    const float* constant;      // [M][K]: h = W1_p p
    const float* feature;       // [M][K]: f
    const float* weight4;       // [C][K]
    const double* bias4;        // [C]
    const int32_t* entry;       // [R]: the row's condition
    const int32_t* table_row;   // [T]: which row of scale, shift and coefficients each step uses
    const double* coefficients; // [table rows][6]: q, s, g0, g1, g2, sigma; DDIM: sqrt_alpha_bar, sqrt_one_minus, both of the
                                // step before, 0, 0
    const double* mean;         // [M][C]: prior mean of the posterior step; null: zero
    const double* noise;        // [T][R][C]: noise[i + 1] is added by step i; noise[0] is part of the start already.  Null for DDIM
    double* states;             // [T + 1][R][C]: states[0] is the start, written by the host; the kernel writes the rest
    void* hidden;               // u2, R * K activations: scratch, any content
    float* partial;             // [R][C][tiles]: scratch, any content
    ChainControl* control;
    uint64_t watchdog_ns;       // longest wait at a barrier
    int32_t family;
    int32_t steps;
    int32_t rows;
    int32_t classes;
    int32_t k;                  // K
    int32_t tiles;
    int32_t stages_a_tile;      // of one warp: K / 8 / inputs of a stage
    int32_t ring_stages;        // 2..8
    int32_t resident[2];        // leading stages a warp of layers 2 and 3 that stay in shared memory for the whole chain
    int32_t kept[2];            // stages a warp after those that the L2 cache is asked to keep; the rest is asked to leave it first
};

}  // namespace fusedx
