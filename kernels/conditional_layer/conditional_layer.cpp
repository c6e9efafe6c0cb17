// Cuts a layer into blocks of rows and shares of panels; the arithmetic is in panels.cpp.
#include "conditional_layer.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

#include "runtime/thread_pool.hpp"

namespace fusedx {
namespace {

const LayerKernel& kernel_for(Isa isa) {
#if defined(FUSEDX_HAS_X86)
    if (isa == Isa::avx512) return avx512::layer_kernel;
    if (isa == Isa::avx2) return avx2::layer_kernel;
#endif
    (void)isa;
    return baseline::layer_kernel;
}

// A row of K floats apart by a power of two would put all rows of a block in one cache set; side by side they stream.
void interleave(const Layer& layer, const RowBlocks& blocks, int64_t block, float* to) {
    const int64_t begin = first_of(blocks, block), count = first_of(blocks, block + 1) - begin;
    const float* from = layer.u + (blocks.first_row + begin) * layer.u_stride;
    to += begin * layer.inputs;
    if (count == 1) {
        std::memcpy(to, from, layer.inputs * sizeof(float));
        return;
    }
    for (int64_t k = 0; k < layer.inputs; ++k)
        for (int64_t r = 0; r < count; ++r) to[k * count + r] = from[r * layer.u_stride + k];
}

constexpr int64_t kMostPartials = int64_t{4} << 20;  // 32 MB of doubles; up to 16 classes never reach it

int64_t most_rows(const Layer& layer, int64_t panels, const LayerKernel& kernel) {
    if (layer.out) return kMostRows;
    return std::clamp<int64_t>(kMostPartials / (panels * padded_classes(layer.classes)), kernel.max_rows, kMostRows);
}

// eps = each panel's part, in ascending order whoever computed it and whatever else was computed, then the bias.
void add_partials(const Layer& layer, const RowBlocks& blocks, int64_t panels, int64_t begin, int64_t end) {
    const int64_t wide = padded_classes(layer.classes);
    for (int64_t row = begin; row < end; ++row) {
        double* const eps = layer.eps + (blocks.first_row + row) * layer.classes;
        const double* part = blocks.partial + row * wide;
        std::memcpy(eps, part, layer.classes * sizeof(double));
        for (int64_t panel = 1; panel < panels; ++panel) {
            part += blocks.rows * wide;
            for (int64_t c = 0; c < layer.classes; ++c) eps[c] += part[c];
        }
        for (int64_t c = 0; c < layer.classes; ++c) eps[c] += layer.bias4[c];
    }
}

}  // namespace

void conditional_layer(const Layer& layer, Isa isa) {
    const LayerKernel& kernel = kernel_for(isa);
    const int64_t panels = (layer.outputs + kPanel - 1) / kPanel;
    const int64_t most = most_rows(layer, panels, kernel), groups = (layer.rows + most - 1) / most;
    const int64_t partials = layer.out ? 0 : panels * padded_classes(layer.classes);  // a row
    thread_local std::vector<float> scratch;
    thread_local std::vector<double> partial;
    for (int64_t group = 0; group < groups; ++group) {
        const int64_t first = layer.rows * group / groups, rows = layer.rows * (group + 1) / groups - first;
        scratch.resize(std::max<size_t>(scratch.size(), rows * layer.inputs));
        partial.resize(std::max<size_t>(partial.size(), rows * partials));
        float* const interleaved = scratch.data();
        const RowBlocks blocks{first, rows, (rows + kernel.max_rows - 1) / kernel.max_rows, interleaved, partial.data()};
        parallel_for(blocks.blocks, rows * layer.inputs, [&](int64_t begin, int64_t end) {
            for (int64_t block = begin; block < end; ++block) interleave(layer, blocks, block, interleaved);
        });
        parallel_for(panels, rows * layer.outputs * (layer.inputs + layer.classes),
                     [&](int64_t begin, int64_t end) { kernel.panels(layer, blocks, begin, end); });
        if (!layer.out)
            parallel_for(rows, rows * partials, [&](int64_t begin, int64_t end) { add_partials(layer, blocks, panels, begin, end); });
    }
}

void pack_panels(const float* weight, int64_t stride, int64_t outputs, int64_t inputs, float* panels) {
    constexpr int64_t kTile = 16;  // one cache line of each of 32 source rows, written as 16 lines in a row
    parallel_for((outputs + kPanel - 1) / kPanel, inputs * outputs, [&](int64_t begin, int64_t end) {
        for (int64_t panel = begin; panel < end; ++panel) {
            const int64_t valid = std::min<int64_t>(kPanel, outputs - panel * kPanel);
            const float* from = weight + panel * kPanel * stride;
            float* to = panels + panel * inputs * kPanel;
            for (int64_t k0 = 0; k0 < inputs; k0 += kTile)
                for (int64_t k = k0; k < std::min(k0 + kTile, inputs); ++k) {
                    for (int64_t j = 0; j < valid; ++j) to[k * kPanel + j] = from[j * stride + k];
                    for (int64_t j = valid; j < kPanel; ++j) to[k * kPanel + j] = 0.0f;
                }
        }
    });
}

}  // namespace fusedx
