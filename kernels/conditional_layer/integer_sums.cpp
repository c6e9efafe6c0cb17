#include <string>

#include "conditional_layer/conditional_layer.hpp"
#include "error.hpp"

namespace fusedx {
namespace {

constexpr int64_t kGroup = 64;

// IEEE half precision, exactly.
double widened(uint16_t half) {
    const int exponent = half >> 10 & 31;
    const double mantissa = (half & 1023) + (exponent ? 1024 : 0);
    double unit = 1.0 / (int64_t{1} << 24);
    for (int e = 1; e < exponent; ++e) unit *= 2;
    return (half & 0x8000 ? -mantissa : mantissa) * unit;
}

// q [quads, 64, 4] -> sums[n] = sum over k of q[n, k].
void int8_sums(int64_t quads, const int8_t* q, int32_t* sums) {
    for (int64_t n = 0; n < kWidePanel; ++n) sums[n] = 0;
    for (int64_t k = 0; k < quads; ++k, q += kWidePanel * 4)
        for (int64_t n = 0; n < kWidePanel; ++n) sums[n] += q[n * 4] + q[n * 4 + 1] + q[n * 4 + 2] + q[n * 4 + 3];
}

// q [groups, 8, 64, 4], two in a byte, scale [groups, 64] -> sums[n] = sum over k of scale[g, n] (q[n, k] - 8), in double, rounded once.
void int4_sums(int64_t groups, const uint8_t* q, const uint16_t* scale, float* sums) {
    double total[kWidePanel] = {};
    for (int64_t g = 0; g < groups; ++g, scale += kWidePanel) {
        int32_t sum[kWidePanel] = {};
        for (int j = 0; j < 8; ++j, q += kWidePanel * 4)
            for (int64_t n = 0; n < kWidePanel; ++n)
                for (int i = 0; i < 4; ++i) sum[n] += (q[n * 4 + i] & 15) + (q[n * 4 + i] >> 4) - 16;
        for (int64_t n = 0; n < kWidePanel; ++n) total[n] += widened(scale[n]) * sum[n];
    }
    for (int64_t n = 0; n < kWidePanel; ++n) sums[n] = static_cast<float>(total[n]);
}

}  // namespace

void integer_sums(WeightFormat format, int64_t inputs, const void* panels, const void* scale, int64_t begin, int64_t end, void* sums) {
    if (inputs > kMostIntegerInputs)
        throw Error(Status::unavailable, "int8 and int4 weights: expected at most " + std::to_string(kMostIntegerInputs) +
                                             " inputs, whose sums fit 32 bits, got " + std::to_string(inputs) + "; compile the model at fp32, bf16 or fp16");
    const int64_t quads = (inputs + 3) / 4, groups = (inputs + kGroup - 1) / kGroup;
    for (int64_t panel = begin; panel < end; ++panel) {
        if (format == WeightFormat::int8)
            int8_sums(quads, static_cast<const int8_t*>(panels) + panel * quads * kWidePanel * 4, static_cast<int32_t*>(sums) + panel * kWidePanel);
        else
            int4_sums(groups, static_cast<const uint8_t*>(panels) + panel * groups * kWidePanel * kGroup / 2,
                      static_cast<const uint16_t*>(scale) + panel * groups * kWidePanel, static_cast<float*>(sums) + panel * kWidePanel);
    }
}

}  // namespace fusedx
