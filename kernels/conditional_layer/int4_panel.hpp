// Sums of products of int4 weights, two in a byte, with a scale for each group of 64 inputs.
//
// Within a group sums of x * (q - 8) are exact integers; groups are then added in ascending order, total = fma(scale, sum, total) in float.
#pragma once

#include "conditional_layer/dot.hpp"
#include "conditional_layer/integer_blocks.hpp"
#include "conditional_layer/integer_rows.hpp"

namespace fusedx::FUSEDX_ISA {
namespace {

constexpr int kGroupSteps = kGroup / (2 * kQuad);  // of two quads, each in 64 outputs' halves of a byte
constexpr int kChunkGroups = 4;                    // 8 KB of weights

// total[r, 0:64] += ...  x [groups, 16, ROWS, 4], sums [groups, ROWS] of x, w [groups, 8, 64, 4], scale [groups, 64], total [ROWS, 64].
template <int ROWS, int AHEAD>
void add_groups(const uint8_t* x, const int32_t* sums, const char* w, const fp16* scale, int64_t groups, const char* ahead, float* total) {
    constexpr int V = vectors_for(ROWS);
    for (int part = 0; part < kVectors; part += V)
        for (int64_t g = 0; g < groups; ++g) {
            ivec sum[ROWS][V];
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 8
                for (int v = 0; v < V; ++v) sum[r][v] = all(-8 * sums[g * ROWS + r]);
            for (int64_t j = 0; j < kGroupSteps; ++j) {
                const int64_t step = g * kGroupSteps + j;
                if (part == 0) prefetch<AHEAD>(ahead, step);
                const char* const bytes = w + step * kPanelBytes + part * kBytes;
                const uint8_t* const quads = x + (g * 2 * kGroupSteps + j) * ROWS * kQuad;
                const auto multiply = [&](const uint8_t* quad, auto&& half) __attribute__((always_inline)) {
                    NibbleWeights weight[V];
#pragma GCC unroll 8
                    for (int v = 0; v < V; ++v) weight[v] = nibble_weights(half(load_bytes(bytes + v * kBytes)) & all(0x0f0f0f0f));
#pragma GCC unroll 8
                    for (int r = 0; r < ROWS; ++r) {
                        const NibbleInputs input = nibble_inputs(broadcast_quad(quad + r * kQuad));
#pragma GCC unroll 8
                        for (int v = 0; v < V; ++v) sum[r][v] = dot4_nibbles(sum[r][v], input, weight[v]);
                    }
                };
                multiply(quads, [](ivec both) { return both; });
                if constexpr (ROWS > 4) asm volatile("" ::: "memory");  // read the weights again: both halves at a time are too many for the registers
                multiply(quads + kGroupSteps * ROWS * kQuad, [](ivec both) { return both >> 4; });
            }
#pragma GCC unroll 8
            for (int v = 0; v < V; ++v) {
                const vec s = load_wide(scale + g * kWidePanel + (part + v) * kLanes);
#pragma GCC unroll 8
                for (int r = 0; r < ROWS; ++r) {
                    float* const at = total + r * kWidePanel + (part + v) * kLanes;
                    store(at, fma(s, __builtin_convertvector(sum[r][v], vec), load(at)));
                }
            }
        }
}

using AddGroups = void (*)(const uint8_t*, const int32_t*, const char*, const fp16*, int64_t, const char*, float*);
inline AddGroups add_groups_for(int64_t rows, int lines) {
    static constexpr AddGroups kForms[][5] = FUSEDX_BLOCK_FORMS(add_groups);
    return kForms[rows - 1][lines];
}

// One panel of all rows: total [rows, 64] = sums of x * w over all inputs, w with its scales.
inline void int4_sums(const RowsView& view, const char* w, const fp16* scale, float* total) {
    std::memset(total, 0, sizeof(float) * view.rows * kWidePanel);
    for (int64_t g = 0; g < view.groups(); g += kChunkGroups) {
        const int64_t length = view.groups() - g < kChunkGroups ? view.groups() - g : kChunkGroups;
        const char* const here = w + g * kGroupSteps * kPanelBytes;
        const char* ahead = here + length * kGroupSteps * kPanelBytes;
        for (int64_t block = 0; block < view.blocks; ++block) {
            const int64_t first = view.first(block), rows = view.first(block + 1) - first;
            const int lines = lines_ahead(block, view.blocks, rows);
            add_groups_for(rows, lines)(view.x(first) + g * kGroup * rows, view.group_sums(first) + g * rows, here, scale + g * kWidePanel, length,
                                        ahead, total + first * kWidePanel);
            ahead += lines * 64 * length * kGroupSteps;
        }
    }
}

}  // namespace
}  // namespace fusedx::FUSEDX_ISA
