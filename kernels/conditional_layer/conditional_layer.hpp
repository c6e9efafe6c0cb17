// One layer of the denoiser for R rows, each with its own time step and image:
//
//   out[r, n] = softplus(a[t_r, n] * (sum_k W[n, k] u[r, k] + h[i_r, n]) + c[t_r, n]) * f[i_r, n]
//
// and, in place of writing it, the denoiser's last layer: eps[r, c] = sum_n W4[c, n] out[r, n] + b4[c], in double precision.
#pragma once

#include <cstdint>

#include "runtime/isa.hpp"

namespace fusedx {

constexpr int kPanel = 32;   // outputs side by side in a panel of packed weights: two AVX-512 vectors
constexpr int kClasses = 8;  // classes side by side in packed W4: one AVX-512 vector of doubles
constexpr int kChunk = 256;  // inputs summed in registers before joining the running total; 32 KB of packed weights

static inline int64_t padded_classes(int64_t classes) { return (classes + kClasses - 1) / kClasses * kClasses; }

struct Layer {
    int64_t rows, inputs, outputs;    // R, K, N
    const float* u;                   // [R, K], u_stride floats from row to row (so below)
    const float* panels;              // [ceil(N / 32), K, 32], outputs past N are zero
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
};

void conditional_layer(const Layer& layer, Isa isa);

// weight [N, K] with `stride` floats from row to row -> panels [ceil(N / 32), K, 32].
void pack_panels(const float* weight, int64_t stride, int64_t outputs, int64_t inputs, float* panels);

// What each instruction set provides.  Rows arrive in blocks of at most max_rows, interleaved: block b holds rows
// [first_of(b), first_of(b + 1)) as [K][rows of b], starting at interleaved + first_of(b) * K.
//
// Functions here are static: this header is compiled for several instruction sets, and of an inline function with a shared
// name the linker would keep any one copy.
struct RowBlocks {
    int64_t first_row, rows, blocks;
    const float* interleaved;
    double* partial;  // [panels][rows][padded_classes(C)], each panel's part of eps; null for out
};
static inline int64_t first_of(const RowBlocks& b, int64_t block) { return b.rows * block / b.blocks; }
constexpr int kMostRows = 64;  // rows of one RowBlocks: their running totals stay in the first-level cache

struct LayerKernel {
    int max_rows;
    void (*panels)(const Layer& layer, const RowBlocks& blocks, int64_t begin, int64_t end);  // panels [begin, end)
};
namespace avx512 { extern const LayerKernel layer_kernel; }
namespace avx2 { extern const LayerKernel layer_kernel; }
namespace baseline { extern const LayerKernel layer_kernel; }

}  // namespace fusedx
