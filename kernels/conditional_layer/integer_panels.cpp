// The layer with int8 and int4 weights; compiled once per instruction set.
//
// Inputs become 8 bits a row (quantize_row.hpp), sums of products are exact integers (int4: within a group), and then in float, each
// operation rounded as written, the same on every instruction set:
//   int8   product = (step * scale[n]) * float(sum_k x[k] q[n, k] - zero * sum_k q[n, k])
//   int4   product = step * fma(-zero, sum_k w[n, k], sum_k x[k] w[n, k])        groups of 64 inputs in ascending order
// What follows a product is every format's (epilogue.hpp).
#include "conditional_layer/epilogue.hpp"
#include "conditional_layer/int4_panel.hpp"
#include "conditional_layer/int8_panel.hpp"
#include "conditional_layer/integer_rows.hpp"
#if defined(__AMX_INT8__)
#include "conditional_layer/amx_panel.hpp"
#endif

namespace fusedx::FUSEDX_ISA {
namespace {

// total [rows, 64], sums and scale of the panel -> product [rows, 32] of its first or second 32 outputs.
void int8_products(const RowsView& view, const int32_t* total, const int32_t* sums, const float* scale, int half, float* product) {
    for (int64_t r = 0; r < view.rows; ++r) {
        const vec step = all(view.step()[r]);
        const ivec zero = all(view.zero()[r] - kInputOffset);
        for (int v = 0; v < kPanel; v += kLanes) {
            const int at = half * kPanel + v;
            const ivec sum = load_bytes(total + r * kWidePanel + at) - zero * load_bytes(sums + at);
            store(product + r * kPanel + v, (step * load(scale + at)) * __builtin_convertvector(sum, vec));
        }
    }
}

void int4_products(const RowsView& view, const float* total, const float* sums, int half, float* product) {
    for (int64_t r = 0; r < view.rows; ++r) {
        const vec step = all(view.step()[r]), zero = all(static_cast<float>(-view.zero()[r]));
        for (int v = 0; v < kPanel; v += kLanes) {
            const int at = half * kPanel + v;
            store(product + r * kPanel + v, step * fma(zero, load(sums + at), load(total + r * kWidePanel + at)));
        }
    }
}

template <class Products>
void finish(const Layer& layer, const IntegerRows& rows, int64_t panel, Products&& products) {
    alignas(64) float product[kMostIntegerRows * kPanel];
    for (int half = 0; half < 2 && (2 * panel + half) * kPanel < layer.outputs; ++half) {
        products(half, product);
        finish_panel(layer, rows.first_row, rows.rows, rows.partial, 2 * panel + half, product);
    }
}

// sums_of(view, a panel's weights, total) differs with how rows are laid out.
template <class Sums>
void run_int8(const Layer& layer, const IntegerRows& rows, int64_t begin, int64_t end, Sums&& sums_of) {
    alignas(64) int32_t total[kMostIntegerRows * kWidePanel];
    const RowsView view(layer, rows);
    const auto* const w = static_cast<const char*>(layer.weights.panels);
    const auto* const scale = static_cast<const float*>(layer.weights.scale);
    const auto* const sums = static_cast<const int32_t*>(layer.weights.sums);
    for (int64_t panel = begin; panel < end; ++panel) {
        prefetch_tables(layer, rows.first_row, rows.rows, 2 * panel);
        prefetch_tables(layer, rows.first_row, rows.rows, 2 * panel + 1);
        sums_of(view, w + panel * view.quads() * kPanelBytes, total);
        finish(layer, rows, panel, [&](int half, float* product) {
            int8_products(view, total, sums + panel * kWidePanel, scale + panel * kWidePanel, half, product);
        });
    }
}

void run_int4(const Layer& layer, const IntegerRows& rows, int64_t begin, int64_t end) {
    alignas(64) float total[kMostIntegerRows * kWidePanel];
    const RowsView view(layer, rows);
    const auto* const w = static_cast<const char*>(layer.weights.panels);
    const auto* const scale = static_cast<const fp16*>(layer.weights.scale);
    const auto* const sums = static_cast<const float*>(layer.weights.sums);
    for (int64_t panel = begin; panel < end; ++panel) {
        prefetch_tables(layer, rows.first_row, rows.rows, 2 * panel);
        prefetch_tables(layer, rows.first_row, rows.rows, 2 * panel + 1);
        int4_sums(view, w + panel * view.groups() * kGroupSteps * kPanelBytes, scale + panel * view.groups() * kWidePanel, total);
        finish(layer, rows, panel, [&](int half, float* product) {
            int4_products(view, total, sums + panel * kWidePanel, half, product);
        });
    }
}

#if defined(__AMX_INT8__)
int64_t workspace_bytes(const Layer& layer, int64_t rows) {
    const int64_t blocks = RowsView::bytes(layer, rows), tiles = TiledView::bytes(layer, rows);  // fewer rows of one call may take either
    return blocks < tiles ? tiles : blocks;
}

void quantize(const Layer& layer, const IntegerRows& rows, int64_t begin, int64_t end) {
    const RowsView view(layer, rows);
    const TiledView tiles(layer, view);
    for (int64_t row = begin; row < end; ++row)
        tiled(layer, rows.rows) ? quantize_tiled_row(layer, rows.first_row, row, tiles) : quantize_row(layer, rows.first_row, row, view);
}

void run_panels(const Layer& layer, const IntegerRows& rows, int64_t begin, int64_t end) {
    if (layer.weights.format == WeightFormat::int4) return run_int4(layer, rows, begin, end);
    if (!tiled(layer, rows.rows)) return run_int8(layer, rows, begin, end, int8_sums);
    configure_tiles();
    run_int8(layer, rows, begin, end, [&](const RowsView& view, const char* w, int32_t* total) { tiled_sums(TiledView(layer, view), w, total); });
    _tile_release();
}
#else
int64_t workspace_bytes(const Layer& layer, int64_t rows) { return RowsView::bytes(layer, rows); }

void quantize(const Layer& layer, const IntegerRows& rows, int64_t begin, int64_t end) {
    const RowsView view(layer, rows);
    for (int64_t row = begin; row < end; ++row) quantize_row(layer, rows.first_row, row, view);
}

void run_panels(const Layer& layer, const IntegerRows& rows, int64_t begin, int64_t end) {
    if (layer.weights.format == WeightFormat::int4) return run_int4(layer, rows, begin, end);
    run_int8(layer, rows, begin, end, int8_sums);
}
#endif

}  // namespace

extern const IntegerKernel integer_kernel{kMostIntegerRows, workspace_bytes, quantize, run_panels};

}  // namespace fusedx::FUSEDX_ISA
