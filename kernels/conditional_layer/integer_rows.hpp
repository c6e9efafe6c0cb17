// The rows of a layer as the integer kernels read them: bytes, cut into blocks of rows whose sums fit the registers.
#pragma once

#include "conditional_layer/conditional_layer.hpp"
#include "conditional_layer/dot.hpp"
#include "conditional_layer/quantize_row.hpp"

namespace fusedx::FUSEDX_ISA {
namespace {

constexpr int kQuad = 4, kGroup = 64;       // inputs side by side under an output; inputs that share a scale of int4
constexpr int kMostIntegerRows = 64;        // their sums, 64 by 64 in 32 bits, take half of a first-level cache of 32 KB
constexpr int kPanelBytes = kWidePanel * 4; // of 4 inputs of int8, of 8 inputs of int4
constexpr int kRows = kFewRegistersPerRow ? 6 : 4;  // rows of a block

inline int64_t quads_of(const Layer& layer) {
    if (layer.weights.format == WeightFormat::int8) return (layer.inputs + kQuad - 1) / kQuad;
    return (layer.inputs + kGroup - 1) / kGroup * (kGroup / kQuad);
}
inline int64_t in_lines(int64_t bytes) { return (bytes + 63) / 64 * 64; }

// Where things are in the workspace of an IntegerRows.
class RowsView {
public:
    RowsView(const Layer& layer, const IntegerRows& r)
        : rows(r.rows), blocks((r.rows + kRows - 1) / kRows), quads_(quads_of(layer)), base_(static_cast<char*>(r.workspace)) {}

    const int64_t rows, blocks;
    int64_t first(int64_t block) const { return rows * block / blocks; }
    int64_t block_of(int64_t row) const {
        int64_t block = row * blocks / rows;
        while (first(block + 1) <= row) ++block;
        return block;
    }

    float* step() const { return reinterpret_cast<float*>(base_); }                              // [rows]
    int32_t* zero() const { return reinterpret_cast<int32_t*>(base_ + in_lines(rows * 4)); }     // [rows]
    uint8_t* x(int64_t first_row) const { return reinterpret_cast<uint8_t*>(base_ + 2 * in_lines(rows * 4)) + first_row * quads_ * kQuad; }
    int32_t* group_sums(int64_t first_row) const { return reinterpret_cast<int32_t*>(x(0) + in_lines(rows * quads_ * kQuad)) + first_row * groups(); }
    int64_t groups() const { return quads_ * kQuad / kGroup; }
    int64_t quads() const { return quads_; }

    static int64_t bytes(const Layer& layer, int64_t rows) {
        const int64_t inputs = quads_of(layer) * kQuad;
        return 2 * in_lines(rows * 4) + in_lines(rows * inputs) + rows * inputs / kGroup * 4;
    }

private:
    const int64_t quads_;
    char* const base_;
};

// One row of layer.u: its bytes at x, quad by quad `stride` quads apart; int4: the sum of each group's bytes, `stride` apart, too.
inline void quantize_row(const Layer& layer, int64_t first_row, int64_t row, const RowsView& view) {
    constexpr int64_t kPiece = 16 * kGroup;
    const bool int4 = layer.weights.format == WeightFormat::int4;
    const int64_t block = view.block_of(row), first = view.first(block), stride = view.first(block + 1) - first, place = row - first;
    const float* const u = layer.u + (first_row + row) * layer.u_stride;
    uint8_t* const x = view.x(first) + place * kQuad;
    int32_t* const sums = view.group_sums(first) + place;
    const RowQuantizer quantizer(u, layer.inputs);
    const int offset = int4 ? 0 : kInputOffset;
    alignas(64) uint8_t piece[kPiece];
    for (int64_t k = 0; k < view.quads() * kQuad; k += kPiece) {
        const int64_t here = view.quads() * kQuad - k < kPiece ? view.quads() * kQuad - k : kPiece;
        const int64_t real = layer.inputs - k < here ? layer.inputs - k : here;
        quantizer.quantize(u + k, real, offset, piece);
        std::memset(piece + real, quantizer.zero() - offset, here - real);  // inputs of 0, worth nothing whatever a file has as their weights
        for (int64_t q = 0; q < here / kQuad; ++q) std::memcpy(x + (k / kQuad + q) * stride * kQuad, piece + q * kQuad, kQuad);
        for (int64_t g = 0; int4 && g < here / kGroup; ++g) {
            int32_t sum = 0;
            for (int i = 0; i < kGroup; ++i) sum += piece[g * kGroup + i];
            sums[(k / kGroup + g) * stride] = sum;
        }
    }
    view.step()[row] = quantizer.step();
    view.zero()[row] = quantizer.zero();
}

}  // namespace
}  // namespace fusedx::FUSEDX_ISA
