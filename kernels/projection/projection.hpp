// The denoiser's last layer: eps[r, c] = sum_n W4[c, n] u[r, n] + b4[c], summed in double precision.
#pragma once

#include <cstdint>

#include "isa.hpp"

namespace fusedx {

struct Projection {
    int64_t rows, inputs, outputs;  // R, N, C
    const float* u;                 // [R, N], u_stride floats from row to row
    const float* weight;            // [C, N], weight_stride floats from row to row
    const double* bias;             // [C]
    double* out;                    // [R, C]
    int64_t u_stride, weight_stride;
};

void project(const Projection& projection, Isa isa);

// Rows [begin, end), compiled once per instruction set.
namespace avx512 { void project_rows(const Projection&, int64_t begin, int64_t end); }
namespace avx2 { void project_rows(const Projection&, int64_t begin, int64_t end); }
namespace baseline { void project_rows(const Projection&, int64_t begin, int64_t end); }

}  // namespace fusedx
