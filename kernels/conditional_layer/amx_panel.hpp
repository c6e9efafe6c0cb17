// Sums of products of int8 weights on AMX tiles: 16 rows by 16 outputs by 64 inputs an instruction, the same exact integers.
//
// A tile of weights is 16 quads of inputs by 16 outputs, which is how a panel lies already; a tile of inputs is 16 rows of 64 bytes, so rows
// are quantised into such tiles in place of the blocks of integer_rows.hpp.
#pragma once

#include <immintrin.h>

#include "conditional_layer/integer_rows.hpp"

namespace fusedx::FUSEDX_ISA {
namespace {

constexpr int kTileRows = 16, kTileInputs = 64, kTileBytes = kTileRows * kTileInputs;
constexpr int kTileQuads = kTileInputs / kQuad, kTileOutputs = 16;
constexpr int64_t kLeastTiledRows = 5;  // a tile takes the time of 16 rows, however few there are

inline bool tiled(const Layer& layer, int64_t rows) { return layer.weights.format == WeightFormat::int8 && rows >= kLeastTiledRows; }

// Inputs of the rows in tiles [ceil(rows / 16), ceil(K / 64), 16, 64], in the same workspace after the rows' steps and zeros.
class TiledView {
public:
    TiledView(const Layer& layer, const RowsView& rows)
        : rows(rows), tiles((rows.rows + kTileRows - 1) / kTileRows), steps((layer.inputs + kTileInputs - 1) / kTileInputs), base_(rows.x(0)) {}

    const RowsView& rows;
    const int64_t tiles, steps;
    uint8_t* tile(int64_t t, int64_t step) const { return base_ + (t * steps + step) * kTileBytes; }

    static int64_t bytes(const Layer& layer, int64_t rows) {
        return 2 * in_lines(rows * 4) + (rows + kTileRows - 1) / kTileRows * ((layer.inputs + kTileInputs - 1) / kTileInputs) * kTileBytes;
    }

private:
    uint8_t* const base_;
};

inline void quantize_tiled_row(const Layer& layer, int64_t first_row, int64_t row, const TiledView& view) {
    const float* const u = layer.u + (first_row + row) * layer.u_stride;
    const RowQuantizer quantizer(u, layer.inputs);
    for (int64_t step = 0; step < view.steps; ++step) {
        const int64_t k = step * kTileInputs, real = layer.inputs - k < kTileInputs ? layer.inputs - k : kTileInputs;
        uint8_t* const x = view.tile(row / kTileRows, step) + row % kTileRows * kTileInputs;
        quantizer.quantize(u + k, real, 0, x);
        std::memset(x + real, quantizer.zero(), kTileInputs - real);
    }
    view.rows.step()[row] = quantizer.step();
    view.rows.zero()[row] = quantizer.zero();
}

// All 8 tiles of 16 rows of 64 bytes, until _tile_release(); nothing in between throws.
inline void configure_tiles() {
    struct alignas(64) { uint8_t palette = 1, start_row = 0, reserved[14] = {}; uint16_t row_bytes[16] = {}; uint8_t rows[16] = {}; } c;
    for (int i = 0; i < 8; ++i) c.row_bytes[i] = kTileInputs, c.rows[i] = kTileRows;
    _tile_loadconfig(&c);
}

constexpr int64_t kOutputBytes = kTileOutputs * kQuad;               // from one tile of outputs to the next, in a quad of a panel
constexpr int64_t kTotalBytes = kWidePanel * sizeof(int32_t);        // from row to row of the totals

// Step `step` of a panel's weights: 16 quads; `edge` stands for the last ones where there are fewer.
struct PanelSteps {
    const char *w, *edge;
    int64_t whole;
    const char* at(int64_t step) const { return step < whole ? w + step * kTileQuads * kPanelBytes : edge; }
};

// Two tiles of rows by outputs [32 half, 32 half + 32): total at the first row.
inline void add_two_tiles(const TiledView& x, int64_t t, const PanelSteps& w, int half, int32_t* total) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t step = 0; step < x.steps; ++step) {
        const char* const b = w.at(step) + 2 * half * kOutputBytes;
        _tile_loadd(4, x.tile(t, step), kTileInputs);
        _tile_loadd(5, x.tile(t + 1, step), kTileInputs);
        _tile_loadd(6, b, kPanelBytes);
        _tile_loadd(7, b + kOutputBytes, kPanelBytes);
        _tile_dpbusd(0, 4, 6);
        _tile_dpbusd(1, 4, 7);
        _tile_dpbusd(2, 5, 6);
        _tile_dpbusd(3, 5, 7);
    }
    int32_t* const to = total + 2 * half * kTileOutputs;
    _tile_stored(0, to, kTotalBytes);
    _tile_stored(1, to + kTileOutputs, kTotalBytes);
    _tile_stored(2, to + kTileRows * kWidePanel, kTotalBytes);
    _tile_stored(3, to + kTileRows * kWidePanel + kTileOutputs, kTotalBytes);
}

// One tile of rows by all 64 outputs.
inline void add_one_tile(const TiledView& x, int64_t t, const PanelSteps& w, int32_t* total) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t step = 0; step < x.steps; ++step) {
        const char* const b = w.at(step);
        _tile_loadd(4, x.tile(t, step), kTileInputs);
        _tile_loadd(5, b, kPanelBytes);
        _tile_loadd(6, b + kOutputBytes, kPanelBytes);
        _tile_dpbusd(0, 4, 5);
        _tile_loadd(7, b + 2 * kOutputBytes, kPanelBytes);
        _tile_dpbusd(1, 4, 6);
        _tile_loadd(5, b + 3 * kOutputBytes, kPanelBytes);
        _tile_dpbusd(2, 4, 7);
        _tile_dpbusd(3, 4, 5);
    }
    _tile_stored(0, total, kTotalBytes);
    _tile_stored(1, total + kTileOutputs, kTotalBytes);
    _tile_stored(2, total + 2 * kTileOutputs, kTotalBytes);
    _tile_stored(3, total + 3 * kTileOutputs, kTotalBytes);
}

// One panel of all rows: total [rows rounded up to 16, 64] = sums of x * q.
inline void tiled_sums(const TiledView& view, const char* w, int32_t* total) {
    alignas(64) char edge[kTileQuads * kPanelBytes];
    const int64_t whole = view.rows.quads() / kTileQuads, left = view.rows.quads() % kTileQuads;
    if (left) {
        std::memcpy(edge, w + whole * kTileQuads * kPanelBytes, left * kPanelBytes);
        std::memset(edge + left * kPanelBytes, 0, (kTileQuads - left) * kPanelBytes);
    }
    const PanelSteps steps{w, edge, whole};
    for (int64_t t = 0; t < view.tiles; t += 2) {
        int32_t* const to = total + t * kTileRows * kWidePanel;
        if (t + 1 == view.tiles)
            add_one_tile(view, t, steps, to);
        else
            add_two_tiles(view, t, steps, 0, to), add_two_tiles(view, t, steps, 1, to);
    }
}

}  // namespace
}  // namespace fusedx::FUSEDX_ISA
