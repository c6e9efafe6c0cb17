// A weight matrix W [N, K] (N outputs, K inputs) as it lies in denoiser.safetensors and as the kernels read it.
//
// packed.py defines each format's bytes, writes them when a model is compiled, and reads them back as float32.  Lanes run over outputs,
// so that what a row computes never depends on its neighbours and a single row still reads the weights as one stream.
//
//   fp32        a file holds the plain matrix [N, K]; packed into panels [ceil(N / 32), K, 32] when it is loaded
//   bf16, fp16  panels [ceil(N / 32), K, 32] of 16-bit elements; products and sums in float32, inputs not rounded
//   int8        panels [ceil(N / 64), ceil(K / 4), 64, 4] int8, w = scale[n] * q, q in [-127, 127]; scale [N] float32
//   int4        panels [ceil(N / 64), ceil(K / 64), 8, 64, 4] uint8, two inputs a byte, w = scale[group, n] * (q - 8), q in [0, 15];
//               scale [ceil(N / 64), ceil(K / 64), 64] fp16.  Byte (j, n, b) of a group of 64 inputs holds input 4 j + b in its low
//               half and input 32 + 4 j + b in its high half.
//
// For int8 and int4 a row of inputs u is rounded when it arrives: u = step * (x - zero), x in [0, 255], with step and zero from the row's
// own least and greatest element; sums of products are exact integers.  Outputs past N and inputs past K are zero weights
// (int4: q = 8).
#pragma once

#include <cstdint>

namespace fusedx {

enum class WeightFormat : int32_t { fp32 = 0, bf16 = 1, fp16 = 2, int8 = 3, int4 = 4 };
constexpr const char* kWeightFormats[] = {"fp32", "bf16", "fp16", "int8", "int4"};  // their names, in that order; FORMATS of packed.py

static constexpr bool is_integer(WeightFormat format) { return format == WeightFormat::int8 || format == WeightFormat::int4; }

// Of int8 and int4: 255 * 128 * 65536, the greatest sum of products, fits 32 bits.
constexpr int64_t kMostIntegerInputs = 65536;

struct PackedView {
    WeightFormat format;
    int64_t outputs, inputs;  // N, K
    const void* panels;       // fp32: the plain matrix, `stride` floats from row to row
    const void* scale;        // int8: float [N]; int4: fp16 bits; else null
    int64_t stride;           // fp32 alone
};

}  // namespace fusedx
