// How each weight format multiplies one chunk: 512 bytes of weights, 16 a lane, by the activations of every row.
//
// Activations lie in units of 32 bytes a (unit, row): [K / kUnit][R][kUnit], 8 floats or 16 16-bit numbers of one row, natural
// order.  Rows beyond R take no memory and count as zero.  A row's sums never depend on another row's numbers.
//
//   Format::Sums        one lane's part of a tile's sums, 16 outputs by 8 rows over the warp
//   Format::multiply    sums += chunk * activations; `u` points at the chunk's first unit
//   Format::store       the warp's sums of a tile to sums[row][16 outputs]
//   Format::write       one activation, or four whose k is a multiple of 4
#pragma once

#include "device.cuh"
#include "params.cuh"

namespace fusedx {

constexpr int kUnitBytes = 32;

// Element index of activation k of a row among R rows.
template <class Format>
FUSEDX_DEVICE int activation_index(int k, int row, int rows) {
    return (k / Format::kUnit * rows + row) * Format::kUnit + k % Format::kUnit;
}

// Plain fused multiply-adds.  Lane l has inputs 4 (l % 2) .. + 3 of output l / 2; its two halves meet in store().
struct Fp32 {
    using Activation = float;
    static constexpr int kUnit = 8, kUnitsAChunk = 1;

    struct Sums {
        float row[kMaxRows];
    };

    FUSEDX_DEVICE static void multiply(Sums& sums, uint4 chunk, const char* u, int rows, int lane) {
        const float w[4] = {device::from_bits(chunk.x), device::from_bits(chunk.y), device::from_bits(chunk.z), device::from_bits(chunk.w)};
        const float4* x = reinterpret_cast<const float4*>(u) + lane % 2;
        FUSEDX_UNROLL
        for (int r = 0; r < kMaxRows; ++r) {
            if (r >= rows) break;
            const float4 v = x[r * 2];
            const float first = device::fma(w[1], v.y, device::fma(w[0], v.x, sums.row[r]));
            sums.row[r] = device::fma(w[3], v.w, device::fma(w[2], v.z, first));
        }
    }

    FUSEDX_DEVICE static void store(const Sums& sums, float* out, int rows, int lane) {
        FUSEDX_UNROLL
        for (int r = 0; r < kMaxRows; ++r) {
            if (r >= rows) break;  // the same for all lanes, as the shuffle requires
            const float other = device::shuffle_xor(sums.row[r], 1);
            if (lane % 2 == 0) out[r * kTile + lane / 2] = sums.row[r] + other;
        }
    }

    FUSEDX_DEVICE static void write(Activation* at, float x) { *at = x; }
    FUSEDX_DEVICE static void write(Activation* at, const float (&x)[4]) {
        *reinterpret_cast<float4*>(at) = float4{x[0], x[1], x[2], x[3]};
    }
};

// What the tensor core formats share.  Weights are the A operand, rows the eight columns of B.  A step of 16 inputs may be summed
// in any order, so lane (g, q) = (l / 4, l % 4) holds inputs 4q .. 4q + 3 in its two register pairs instead of 2q, 2q + 1, 2q + 8
// and 2q + 9: activations then stay in natural order and load as one 8-byte word.
struct TensorCore {
    using Activation = uint16_t;
    static constexpr int kUnit = 16;

    struct Sums {
        float d[4];  // outputs g, g, g + 8, g + 8 of rows 2q, 2q + 1, 2q, 2q + 1
    };

    FUSEDX_DEVICE static uint2 activations(const char* u, int rows, int lane) {
        return lane / 4 < rows ? *reinterpret_cast<const uint2*>(u + lane * 8) : uint2{0u, 0u};
    }

    FUSEDX_DEVICE static void store(const Sums& sums, float* out, int rows, int lane) {
        const int g = lane / 4, row = lane % 4 * 2;
        FUSEDX_UNROLL
        for (int i = 0; i < 4; ++i) {
            if (row + i % 2 < rows) out[(row + i % 2) * kTile + g + i / 2 * 8] = sums.d[i];
        }
    }
};

struct Bf16 : TensorCore {
    static constexpr int kUnitsAChunk = 1;

    FUSEDX_DEVICE static void multiply(Sums& sums, uint4 a, const char* u, int rows, int lane) {
        const uint2 b = activations(u, rows, lane);
        device::mma_bf16(sums.d, a.x, a.y, a.z, a.w, b.x, b.y);
    }

    FUSEDX_DEVICE static void write(Activation* at, float x) { *at = static_cast<uint16_t>(device::to_bf16x2(x, 0.0f)); }
    FUSEDX_DEVICE static void write(Activation* at, const float (&x)[4]) {
        *reinterpret_cast<uint2*>(at) = uint2{device::to_bf16x2(x[0], x[1]), device::to_bf16x2(x[2], x[3])};
    }
};

struct Fp16 : TensorCore {
    static constexpr int kUnitsAChunk = 1;

    FUSEDX_DEVICE static void multiply(Sums& sums, uint4 a, const char* u, int rows, int lane) {
        const uint2 b = activations(u, rows, lane);
        device::mma_fp16(sums.d, a.x, a.y, a.z, a.w, b.x, b.y);
    }

    FUSEDX_DEVICE static void write(Activation* at, float x) { *at = static_cast<uint16_t>(device::to_fp16x2(x, 0.0f)); }
    FUSEDX_DEVICE static void write(Activation* at, const float (&x)[4]) {
        *reinterpret_cast<uint2*>(at) = uint2{device::to_fp16x2(x[0], x[1]), device::to_fp16x2(x[2], x[3])};
    }
};

// e4m3 weights, fp16 activations.  An e4m3 number's bits, its exponent and mantissa moved down by one from the top of a half, are
// that number times 2^-8 in fp16, exactly, subnormal ones included.  The 2^8 is a factor of the layer's scale table.
// The code for not-a-number would decode to 1.875: pack.py refuses it.
struct Fp8 : Fp16 {
    static constexpr int kUnitsAChunk = 2;

    FUSEDX_DEVICE static uint32_t decode(uint32_t spread) { return (spread & 0x80008000u) | ((spread >> 1) & 0x3f803f80u); }

    FUSEDX_DEVICE static void multiply(Sums& sums, uint4 a, const char* u, int rows, int lane) {
        half_chunk(sums, a.x, a.y, activations(u, rows, lane));
        half_chunk(sums, a.z, a.w, activations(u + rows * kUnitBytes, rows, lane));
    }

    // Four weights of output g in `low`, of output g + 8 in `high`.
    FUSEDX_DEVICE static void half_chunk(Sums& sums, uint32_t low, uint32_t high, uint2 b) {
        device::mma_fp16(sums.d, decode(device::spread_low(low)), decode(device::spread_low(high)), decode(device::spread_high(low)),
                         decode(device::spread_high(high)), b.x, b.y);
    }
};

}  // namespace fusedx
