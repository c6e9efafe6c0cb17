// Sums of products of int4 weights, two in a byte, with a scale for each group of 64 inputs.
//
// Within a group sums of x * (q - 8) are exact integers; groups are then added in ascending order, total = fma(scale, sum, total) in float.
#pragma once

#include "conditional_layer/dot.hpp"
#include "conditional_layer/int8_panel.hpp"
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
                if constexpr (AHEAD > 0)
                    if (part == 0)
#pragma GCC unroll 4
                        for (int i = 0; i < AHEAD; ++i) __builtin_prefetch(ahead + (step * AHEAD + i) * 64, 0, 3);
                NibbleWeights low[V], high[V];
#pragma GCC unroll 8
                for (int v = 0; v < V; ++v) {
                    const ivec both = load_bytes(w + step * kPanelBytes + (part + v) * kBytes);
                    low[v] = nibble_weights(both & all(0x0f0f0f0f));
                    high[v] = nibble_weights((both >> 4) & all(0x0f0f0f0f));
                }
                const uint8_t* const first = x + (g * 2 * kGroupSteps + j) * ROWS * kQuad;
#pragma GCC unroll 8
                for (int r = 0; r < ROWS; ++r) {
                    const NibbleInputs input = nibble_inputs(broadcast_quad(first + r * kQuad));
#pragma GCC unroll 8
                    for (int v = 0; v < V; ++v) sum[r][v] = dot4_nibbles(sum[r][v], input, low[v]);
                }
#pragma GCC unroll 8
                for (int r = 0; r < ROWS; ++r) {
                    const NibbleInputs input = nibble_inputs(broadcast_quad(first + (kGroupSteps * ROWS + r) * kQuad));
#pragma GCC unroll 8
                    for (int v = 0; v < V; ++v) sum[r][v] = dot4_nibbles(sum[r][v], input, high[v]);
                }
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
template <int AHEAD>
AddGroups add_groups_for(int64_t rows) {
    switch (rows) {
        case 1: return add_groups<1, AHEAD>;
        case 2: return add_groups<2, AHEAD>;
        case 3: return add_groups<3, AHEAD>;
        case 4: return add_groups<4, AHEAD>;
        case 5: return add_groups<kRows < 5 ? kRows : 5, AHEAD>;
        default: return add_groups<kRows < 6 ? kRows : 6, AHEAD>;
    }
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
            const uint8_t* const x = view.x(first) + g * kGroup * rows;
            const int32_t* const sums = view.group_sums(first) + g * rows;
            const int64_t lines = view.blocks == 1 ? 4 : block < 2 ? 2 : 0;
            const auto add = lines == 4 ? add_groups_for<4>(rows) : lines == 2 ? add_groups_for<2>(rows) : add_groups_for<0>(rows);
            add(x, sums, here, scale + g * kWidePanel, length, ahead, total + first * kWidePanel);
            ahead += lines * 64 * length * kGroupSteps;
        }
    }
}

}  // namespace
}  // namespace fusedx::FUSEDX_ISA
