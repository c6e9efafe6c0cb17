// Cuts a layer into blocks of rows and shares of panels; the arithmetic is in panels.cpp and integer_panels.cpp.
#include "conditional_layer/conditional_layer.hpp"

#include <algorithm>
#include <cstring>

#include "runtime/memory.hpp"
#include "runtime/thread_pool.hpp"

namespace fusedx {
namespace {

const FloatKernel& float_kernel_for(Isa isa) {
    switch (isa) {
#if defined(FUSEDX_HAS_avx512)
        case Isa::avx512:
        case Isa::avx512vnni:
        case Isa::amx: return avx512::float_kernel;
#endif
#if defined(FUSEDX_HAS_avx2)
        case Isa::avx2:
        case Isa::avxvnni: return avx2::float_kernel;
#endif
#if defined(FUSEDX_HAS_neon)
        default: return neon::float_kernel;
#else
        default: return baseline::float_kernel;
#endif
    }
}

const IntegerKernel& integer_kernel_for(Isa isa) {
    switch (isa) {
#if defined(FUSEDX_HAS_amx)
        case Isa::amx: return amx::integer_kernel;
#endif
#if defined(FUSEDX_HAS_avx512vnni)
        case Isa::avx512vnni: return avx512vnni::integer_kernel;
#endif
#if defined(FUSEDX_HAS_avx512)
        case Isa::avx512: return avx512::integer_kernel;
#endif
#if defined(FUSEDX_HAS_avxvnni)
        case Isa::avxvnni: return avxvnni::integer_kernel;
#endif
#if defined(FUSEDX_HAS_avx2)
        case Isa::avx2: return avx2::integer_kernel;
#endif
#if defined(FUSEDX_HAS_neondot)
        case Isa::neondot: return neondot::integer_kernel;
#endif
#if defined(FUSEDX_HAS_neon)
        default: return neon::integer_kernel;
#else
        default: return baseline::integer_kernel;
#endif
    }
}

// A row of K floats apart by a power of two would put all rows of a block in one cache set; side by side they stream.
// Inputs [begin, end) of all rows.
void interleave(const Layer& layer, const RowBlocks& blocks, int64_t begin, int64_t end, float* to) {
    constexpr int64_t kTile = 16;  // inputs: a cache line of each row is read at once
    for (int64_t block = 0; block < blocks.blocks; ++block) {
        const int64_t first = first_of(blocks, block), count = first_of(blocks, block + 1) - first;
        const float* const from = layer.u + (blocks.first_row + first) * layer.u_stride;
        float* const own = to + first * layer.inputs;
        if (count == 1) {
            std::memcpy(own + begin, from + begin, (end - begin) * sizeof(float));
            continue;
        }
        for (int64_t k = begin; k < end; k += kTile)
            for (int64_t r = 0, last = std::min(end, k + kTile); r < count; ++r)
                for (int64_t i = k; i < last; ++i) own[i * count + r] = from[r * layer.u_stride + i];
    }
}

constexpr int64_t kMostPartials = int64_t{4} << 20;  // 32 MB of doubles; up to 16 classes never reach it

// Rows that share one read of the weights.
int64_t most_rows(const Layer& layer, int64_t panels, int64_t least, int64_t most) {
    if (layer.out) return most;
    return std::clamp<int64_t>(kMostPartials / (panels * padded_classes(layer.classes)), std::min(least, most), most);
}

// The layer's rows in equal parts of at most `most`, a value and its tangents always in one.
struct RowParts {
    int64_t unit, units, count;

    RowParts(const Layer& layer, int64_t most) : unit(1 + layer.tangents), units(layer.rows / unit) {
        const int64_t each = std::max<int64_t>(1, most / unit);
        count = (units + each - 1) / each;
    }
    int64_t first(int64_t part) const { return units * part / count * unit; }
    int64_t widest() const { return (units + count - 1) / count * unit; }
};

// eps = each panel's part, in ascending order whoever computed it and whatever else was computed, then the bias.
void add_partials(const Layer& layer, const double* partial, int64_t first_row, int64_t rows, int64_t panels) {
    if (layer.out) return;
    const int64_t wide = padded_classes(layer.classes);
    parallel_for(rows, rows * panels * wide, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
            double* const eps = layer.eps + (first_row + row) * layer.classes;
            const double* part = partial + row * wide;
            std::memcpy(eps, part, layer.classes * sizeof(double));
            for (int64_t panel = 1; panel < panels; ++panel) {
                part += rows * wide;
                for (int64_t c = 0; c < layer.classes; ++c) eps[c] += part[c];
            }
            if ((first_row + row) % (1 + layer.tangents)) continue;  // a derivative knows no bias
            for (int64_t c = 0; c < layer.classes; ++c) eps[c] += layer.bias4[c];
        }
    });
}

// Memory of the calling thread's own, which grows to the largest layer that it has computed.
template <class T>
T* scratch(Buffer& buffer, int64_t count) {
    if (buffer.bytes() < count * sizeof(T)) {
        buffer = Buffer();  // the old one first
        buffer = Buffer(count * sizeof(T));
    }
    return buffer.as<T>();
}

thread_local Buffer input_scratch, partial_scratch;

void float_layer(const Layer& layer, const FloatKernel& kernel) {
    const int64_t panels = (layer.outputs + kPanel - 1) / kPanel;
    const RowParts parts(layer, most_rows(layer, panels, kernel.max_rows, kMostRows));
    const int64_t widest = parts.widest();
    float* const interleaved = scratch<float>(input_scratch, widest * layer.inputs);
    double* const partial = layer.out ? nullptr : scratch<double>(partial_scratch, widest * panels * padded_classes(layer.classes));
    for (int64_t part = 0; part < parts.count; ++part) {
        const int64_t first = parts.first(part), rows = parts.first(part + 1) - first;
        const RowBlocks blocks{first, rows, (rows + kernel.max_rows - 1) / kernel.max_rows, interleaved, partial};
        // Moving a number takes the time of several multiply-adds.
        parallel_for(layer.inputs, rows * layer.inputs * 8,
                     [&](int64_t begin, int64_t end) { interleave(layer, blocks, begin, end, interleaved); });
        parallel_for(panels, rows * layer.outputs * (layer.inputs + layer.classes),
                     [&](int64_t begin, int64_t end) { kernel.panels(layer, blocks, begin, end); });
        add_partials(layer, partial, first, rows, panels);
    }
}

void integer_layer(const Layer& layer, const IntegerKernel& kernel) {
    const int64_t panels = (layer.outputs + kPanel - 1) / kPanel, wide_panels = (layer.outputs + kWidePanel - 1) / kWidePanel;
    const RowParts parts(layer, most_rows(layer, panels, 8, kernel.most_rows));
    const int64_t widest = parts.widest();
    void* const workspace = scratch<char>(input_scratch, kernel.workspace_bytes(layer, widest));
    double* const partial = layer.out ? nullptr : scratch<double>(partial_scratch, widest * panels * padded_classes(layer.classes));
    for (int64_t part = 0; part < parts.count; ++part) {
        const int64_t first = parts.first(part), rows = parts.first(part + 1) - first;
        const IntegerRows these{first, rows, workspace, partial};
        // A multiply-add of int8 takes about a quarter of the time of a float one.
        parallel_for(rows, rows * layer.inputs, [&](int64_t begin, int64_t end) { kernel.quantize(layer, these, begin, end); });
        parallel_for(wide_panels, rows * layer.outputs * (layer.inputs + layer.classes) / 4,
                     [&](int64_t begin, int64_t end) { kernel.panels(layer, these, begin, end); });
        add_partials(layer, partial, first, rows, panels);
    }
}

}  // namespace

void conditional_layer(const Layer& layer, Isa isa) {
    if (layer.rows == 0) return;
    if (is_integer(layer.weights.format))
        integer_layer(layer, integer_kernel_for(isa));
    else
        float_layer(layer, float_kernel_for(isa));
}

}  // namespace fusedx
