// One layer of the denoiser for R rows, each with its own time step and image:
//
//   out[r, n] = softplus(a[t_r, n] * (sum_k W[n, k] u[r, k] + h[i_r, n]) + c[t_r, n]) * f[i_r, n]
//
// and, in place of writing it, the denoiser's last layer: eps[r, c] = sum_n W4[c, n] out[r, n] + b4[c], in double precision.
//
// With tangents, rows come in groups of 1 + tangents: a value row as above, then directions du along which the layer is differentiated at
// that value (forward mode), so that one read of the weights serves both.  With z = a (W u + h) + c of the value,
//
//   out[du, n] = a[t, n] sigmoid(z[n]) (sum_k W[n, k] du[k]) f[i, n]          and eps likewise, without b4
//
// A value row has the bits that it has without tangents.  Integer formats round a direction to 8 bits like any row; what they compute is
// piecewise constant, so this is an approximate derivative of the smooth layer that it stands for.
#pragma once

#include <cstdint>

#include "conditional_layer/packed_weights.hpp"
#include "runtime/isa.hpp"

namespace fusedx {

constexpr int kPanel = 32;      // outputs side by side in a panel of float weights and in every epilogue: two AVX-512 vectors
constexpr int kWidePanel = 64;  // outputs side by side in a panel of integer weights
constexpr int kClasses = 8;     // classes side by side in packed W4: one AVX-512 vector of doubles
constexpr int kMostTangents = 63;  // a group shares one read of the weights: kMostRows of RowBlocks, and of IntegerRows

static inline int64_t padded_classes(int64_t classes) { return (classes + kClasses - 1) / kClasses * kClasses; }

// W [N, K] as the kernels read it; class Weights (weights.hpp) makes one.  Layouts as in packed_weights.hpp, all formats in panels.
struct WeightView {
    WeightFormat format;
    const void* panels;
    const void* scale;  // int8: float [N rounded up to 64], zeros past N; int4: as stored; else null
    const void* sums;   // int8, int4: what `integer_sums` wrote, 4 bytes each [N rounded up to 64]; else null
};

struct Layer {
    int64_t rows, inputs, outputs;    // R, K, N
    const float* u;                   // [R, K], u_stride floats from row to row (so below)
    WeightView weights;               // [N, K]
    const float *a, *c;               // [T, N]
    const int32_t* t;                 // [R], row of a and c
    const float *h, *f;               // [I, N], each may be null
    const int32_t* image;             // [R], row of h and f; unused when both are null
    float* out;                       // [R, N], or null for eps
    double* eps;                      // [R, C], when out is null
    int64_t classes;                  // C
    const float* panels4;             // [ceil(N / 32), ceil(C / 8), 32, 8]: W4[c, n] at [n / 32, c / 8, n % 32, c % 8], else zero
    const double* bias4;              // [C]
    int64_t u_stride, a_stride, c_stride, h_stride, f_stride, out_stride;
    int64_t tangents;                 // of a group, 0 to kMostTangents; R is whole groups, whose t and image are those of their value row
};

void conditional_layer(const Layer& layer, Isa isa);

// What each instruction set provides.
//
// Functions here are static: this header is compiled for several instruction sets, and of an inline function with a shared
// name the linker would keep any one copy.

// Float formats.  Rows arrive in blocks of at most max_rows, interleaved: block b holds rows
// [first_of(b), first_of(b + 1)) as [K][rows of b], starting at interleaved + first_of(b) * K.
struct RowBlocks {
    int64_t first_row, rows, blocks;
    const float* interleaved;
    double* partial;  // [panels of 32][rows][padded_classes(C)], each panel's part of eps; null for out
};
static inline int64_t first_of(const RowBlocks& b, int64_t block) { return b.rows * block / b.blocks; }
constexpr int kMostRows = 64;  // rows of one RowBlocks: their running totals stay in the first-level cache

struct FloatKernel {
    int max_rows;
    void (*panels)(const Layer& layer, const RowBlocks& blocks, int64_t begin, int64_t end);  // panels [begin, end)
};

// Integer formats.  Rows are quantised first, as the kernel likes them, in a workspace that it shares with nobody.
struct IntegerRows {
    int64_t first_row, rows;
    void* workspace;  // workspace_bytes(layer, rows), 64-byte aligned: quantised inputs, each row's step and zero
    double* partial;  // as in RowBlocks
};

struct IntegerKernel {
    int most_rows;  // rows of one IntegerRows, which share one read of the weights
    int64_t (*workspace_bytes)(const Layer& layer, int64_t rows);
    void (*quantize)(const Layer& layer, const IntegerRows& rows, int64_t begin, int64_t end);  // rows [begin, end) of these
    void (*panels)(const Layer& layer, const IntegerRows& rows, int64_t begin, int64_t end);    // panels of 64 outputs [begin, end)
};

// What the integer kernels need to know of the weights beside them, written once when weights are loaded: 4 bytes for each output of
// panels of 64 [begin, end), at sums + 4 * 64 * begin.  `panels` are in their final place.
void integer_sums(WeightFormat format, int64_t inputs, const void* panels, const void* scale, int64_t begin, int64_t end, void* sums);

namespace baseline { extern const FloatKernel float_kernel; extern const IntegerKernel integer_kernel; }
namespace avx2 { extern const FloatKernel float_kernel; extern const IntegerKernel integer_kernel; }
namespace avxvnni { extern const IntegerKernel integer_kernel; }
namespace avx512 { extern const FloatKernel float_kernel; extern const IntegerKernel integer_kernel; }
namespace avx512vnni { extern const IntegerKernel integer_kernel; }
namespace amx { extern const IntegerKernel integer_kernel; }
namespace neon { extern const FloatKernel float_kernel; extern const IntegerKernel integer_kernel; }
namespace neondot { extern const IntegerKernel integer_kernel; }

}  // namespace fusedx
