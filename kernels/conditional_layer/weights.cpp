#include "conditional_layer/weights.hpp"

#include <algorithm>
#include <cstring>
#include <functional>
#include <numeric>

#include "conditional_layer/packed_shapes.hpp"
#include "runtime/thread_pool.hpp"

namespace fusedx {
namespace {

// weight [N, K], `stride` floats from row to row -> panels [begin, end) of [ceil(N / 32), K, 32].
void pack_panels(const PackedView& from, int64_t begin, int64_t end, float* panels) {
    constexpr int64_t kTile = 16;  // one cache line of each of 32 source rows, written as 16 lines in a row
    const float* const weight = static_cast<const float*>(from.panels);
    for (int64_t panel = begin; panel < end; ++panel) {
        const int64_t valid = std::min<int64_t>(kPanel, from.outputs - panel * kPanel);
        const float* const source = weight + panel * kPanel * from.stride;
        float* const to = panels + panel * from.inputs * kPanel;
        for (int64_t k0 = 0; k0 < from.inputs; k0 += kTile)
            for (int64_t k = k0; k < std::min(k0 + kTile, from.inputs); ++k) {
                for (int64_t j = 0; j < valid; ++j) to[k * kPanel + j] = source[j * from.stride + k];
                for (int64_t j = valid; j < kPanel; ++j) to[k * kPanel + j] = 0.0f;
            }
    }
}

// All panels are of one size; fp32's are made here, [ceil(N / 32), K, 32].
int64_t panel_bytes(const PackedView& from) {
    if (from.format == WeightFormat::fp32) return from.inputs * kPanel * 4;
    const std::vector<int64_t> shape = packed_shapes(from.format, from.outputs, from.inputs).panels;
    return std::accumulate(shape.begin() + 1, shape.end(), int64_t{is_integer(from.format) ? 1 : 2}, std::multiplies<>());
}

}  // namespace

Weights::Weights(const PackedView& from) : format_(from.format), outputs_(from.outputs), inputs_(from.inputs) {
    const bool integer = is_integer(from.format);
    const int64_t count = whole_parts(from.outputs, integer ? kWidePanel : kPanel), each = panel_bytes(from);
    panels_ = Buffer(count * each);
    if (integer) sums_ = Buffer(count * kWidePanel * 4);
    if (from.format == WeightFormat::int8) {
        scale_ = Buffer(count * kWidePanel * 4);
        std::memcpy(scale_.as<float>(), from.scale, from.outputs * 4);
    } else if (from.format == WeightFormat::int4) {
        scale_ = Buffer(count * whole_parts(from.inputs, 64) * kWidePanel * 2);
        std::memcpy(scale_.as<char>(), from.scale, scale_.bytes());
    }
    // The work of one row, as in conditional_layer(): it decides the shares of the threads.
    parallel_for(count, from.outputs * from.inputs / (integer ? 4 : 1), [&](int64_t begin, int64_t end) {
        char* const to = panels_.as<char>();
        if (from.format == WeightFormat::fp32)
            pack_panels(from, begin, end, panels_.as<float>());
        else
            std::memcpy(to + begin * each, static_cast<const char*>(from.panels) + begin * each, (end - begin) * each);
        if (integer) integer_sums(from.format, from.inputs, to, scale_.as<void>(), begin, end, sums_.as<void>());
    });
}

Buffer pack_projection(const float* weight4, int64_t classes, int64_t inputs) {
    const int64_t groups = whole_parts(classes, kClasses);
    Buffer packed(whole_parts(inputs, kPanel) * groups * kPanel * kClasses * sizeof(float));
    for (int64_t c = 0; c < classes; ++c)
        for (int64_t n = 0; n < inputs; ++n)
            packed.as<float>()[((n / kPanel * groups + c / kClasses) * kPanel + n % kPanel) * kClasses + c % kClasses] = weight4[c * inputs + n];
    return packed;
}

}  // namespace fusedx
