// Dot products of float vectors in double precision, with the same bits on every instruction set: sixteen partial sums,
// number l over n = l, l + 16, l + 32, ..., then halves added until one is left.  The product of two floats is exact
// in double, so only the additions round, and their order is fixed.
#include "projection.hpp"
#include "vec.hpp"

namespace fusedx::FUSEDX_ISA {
namespace {

constexpr int kPartial = 16, kVectors = kPartial / kDoubles;

void add_sixteen(const float* x, const float* y, dvec (&sum)[kVectors]) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v)
        sum[v] = sum[v] + load_as_double(x + v * kDoubles) * load_as_double(y + v * kDoubles);
}

double dot(const float* x, const float* y, int64_t length) {
    dvec sum[kVectors] = {};
    int64_t n = 0;
    for (; n + kPartial <= length; n += kPartial) add_sixteen(x + n, y + n, sum);
    if (n < length) {
        float x_end[kPartial] = {}, y_end[kPartial] = {};
        std::memcpy(x_end, x + n, (length - n) * sizeof(float));
        std::memcpy(y_end, y + n, (length - n) * sizeof(float));
        add_sixteen(x_end, y_end, sum);
    }
    double partial[kPartial];
    std::memcpy(partial, sum, sizeof partial);
    for (int half = kPartial / 2; half > 0; half /= 2)
        for (int l = 0; l < half; ++l) partial[l] += partial[l + half];
    return partial[0];
}

}  // namespace

void project_rows(const Projection& p, int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
        for (int64_t c = 0; c < p.outputs; ++c)
            p.out[r * p.outputs + c] = dot(p.u + r * p.u_stride, p.weight + c * p.weight_stride, p.inputs) + p.bias[c];
}

}  // namespace fusedx::FUSEDX_ISA
