#include "engine/chain.hpp"

#include <algorithm>
#include <cstring>
#include <string>

#include "conditional_layer/conditional_layer.hpp"
#include "conditional_layer/weights.hpp"
#include "error.hpp"
#include "runtime/memory.hpp"
#include "runtime/thread_pool.hpp"
#include "step/step.hpp"

namespace fusedx {
namespace {

// Rows that go through a step together.  Layers share each read of the weights between 64 rows, so more of them gain nothing, while their
// activations [rows, F] leave the cache.
constexpr int64_t kBlockRows = 256;

constexpr int64_t kPointCounts[kMapPoints] = {6, 10, 8, 6, 4, 2};  // how many of the 36 points of the map have each |i - j|

// [C], [C] -> [6, C]: (1 - d) a + d b for d = 0, 1/5 .. 1; d and 1 - d are float32 values, as published.
void dense_points(const double* at_zero, const double* at_one, int64_t classes, double* points) {
    for (int64_t p = 0; p < kMapPoints; ++p) {
        const float d = static_cast<float>(p) / static_cast<float>(kMapPoints - 1);
        const double near = 1.0f - d, far = d;
        for (int64_t c = 0; c < classes; ++c) points[p * classes + c] = near * at_zero[c] + far * at_one[c];
    }
}

// [6, C] -> [C]: the mean over the 36 points of the map, summed in a fixed order.
void map_mean(const double* points, int64_t classes, double* mean) {
    for (int64_t c = 0; c < classes; ++c) {
        double total = 0;
        for (int64_t p = 0; p < kMapPoints; ++p) total = total + static_cast<double>(kPointCounts[p]) * points[p * classes + c];
        mean[c] = total / 36.0;
    }
}

}  // namespace

// E entries: what stays constant along a chain, one for each image (ddim: for each image and map point).
struct Condition {
    int64_t entries;
    Buffer prior, constant, feature;  // double [E, C]; float [E, F]: W1_p p; float [E, F], empty where the caller's serves
    const float* features;
};

// State and activations of a block of rows.
struct Workspace {
    int64_t rows;
    Buffer y, eps, narrow, first, second, step, entry;

    Workspace(int64_t rows, int64_t classes, int64_t features)
        : rows(rows), y(rows * classes * 8), eps(rows * classes * 8), narrow(rows * classes * 4), first(rows * features * 4),
          second(rows * features * 4), step(rows * 4), entry(rows * 4) {}
    static int64_t bytes(int64_t rows, int64_t classes, int64_t features) { return rows * (classes * 20 + features * 8 + 8); }
};

struct Chain::Parts {
    DenoiserView view;
    Isa isa;
    Weights weights[3];
    Buffer panels4, bias4;

    int64_t points() const { return view.family == Family::ddim ? kMapPoints : 1; }
    int64_t block_samples(int64_t samples) const;
    Condition condition(const EncodedView& encoded) const;
    void denoise(const Condition& condition, int64_t step, Workspace& w) const;
    void run_block(const Condition& condition, const double* noise, int64_t samples, int64_t first, int64_t count, double* scores,
                   const RunOptions& options, Workspace& w) const;
    void start(const Condition& condition, const double* noise, int64_t samples, int64_t first, Workspace& w) const;
    void update(const Condition& condition, const double* noise, int64_t step, Workspace& w) const;
};

Chain::Chain(const DenoiserView& denoiser, const std::string& isa) : parts_(new Parts{denoiser, choose_isa(isa), {}, {}, {}}) {
    const int64_t f = denoiser.features, c = denoiser.classes;
    parts_->weights[0] = Weights({WeightFormat::fp32, f, c, denoiser.weight_y, nullptr, c});
    parts_->weights[1] = Weights(denoiser.weight2);
    parts_->weights[2] = Weights(denoiser.weight3);
    parts_->panels4 = pack_projection(denoiser.weight4, c, f);
    parts_->bias4 = Buffer(c * sizeof(double));
    std::copy_n(denoiser.bias4, c, parts_->bias4.as<double>());
}

Chain::~Chain() = default;

Isa Chain::isa() const { return parts_->isa; }

int64_t Chain::weight_bytes() const {
    int64_t total = parts_->panels4.bytes() + parts_->bias4.bytes();
    for (const Weights& weights : parts_->weights) total += weights.bytes();
    return total;
}

int64_t Chain::workspace_bytes(int64_t images, int64_t draws) const {
    const DenoiserView& v = parts_->view;
    const int64_t entries = images * parts_->points(), rows = parts_->block_samples(images * draws) * parts_->points();
    const int64_t layer = 64 * (v.features * 4 + (v.features + 31) / 32 * padded_classes(v.classes) * 8);  // conditional_layer's own
    return entries * (v.classes * 8 + v.features * 8) + Workspace::bytes(rows, v.classes, v.features) + layer;
}

// Equal blocks, none above kBlockRows but for one sample.
int64_t Chain::Parts::block_samples(int64_t samples) const {
    const int64_t most = std::max<int64_t>(1, kBlockRows / points()), blocks = (samples + most - 1) / most;
    return (samples + blocks - 1) / blocks;
}

// W1_p p is summed class by class in double, as fusedx.engine.backends.constant_half does.
Condition Chain::Parts::condition(const EncodedView& encoded) const {
    const int64_t classes = view.classes, features = view.features;
    Condition to{encoded.images * points(), Buffer(encoded.images * points() * classes * 8), {}, {}, encoded.feature};
    to.constant = Buffer(to.entries * features * 4);
    double* const prior = to.prior.as<double>();
    if (view.family == Family::ddim) {
        to.feature = Buffer(to.entries * features * 4);
        to.features = to.feature.as<float>();
        for (int64_t i = 0; i < encoded.images; ++i)
            dense_points(encoded.y_global + i * classes, encoded.y_local + i * classes, classes, prior + i * kMapPoints * classes);
        for (int64_t e = 0; e < to.entries; ++e)
            std::memcpy(to.feature.as<float>() + e * features, encoded.feature + e / kMapPoints * features, features * 4);
    } else {
        std::copy_n(encoded.prior, to.entries * classes, prior);
    }
    parallel_for(to.entries * features, to.entries * features * classes, [&](int64_t begin, int64_t end) {
        for (int64_t at = begin; at < end; ++at) {
            const double* const p = prior + at / features * classes;
            const float* const w = view.weight_p + at % features * classes;
            double total = 0;
            for (int64_t c = 0; c < classes; ++c) total += p[c] * static_cast<double>(w[c]);
            to.constant.as<float>()[at] = static_cast<float>(total);
        }
    });
    return to;
}

// w.y -> w.eps, all rows at row `step` of the tables.  Layer 4 rides in layer 3's epilogue, so layer 3's output is never written.
void Chain::Parts::denoise(const Condition& condition, int64_t step, Workspace& w) const {
    const int64_t features = view.features, classes = view.classes;
    float* const narrow = w.narrow.as<float>();
    for (int64_t i = 0; i < w.rows * classes; ++i) narrow[i] = static_cast<float>(w.y.as<double>()[i]);
    std::fill_n(w.step.as<int32_t>(), w.rows, static_cast<int32_t>(step));

    Layer layer{};
    layer.rows = w.rows, layer.outputs = features, layer.t = w.step.as<int32_t>();
    layer.a_stride = layer.c_stride = layer.h_stride = layer.f_stride = layer.out_stride = features;
    const auto run = [&](int k, const float* from, int64_t inputs, float* to) {
        layer.u = from, layer.inputs = layer.u_stride = inputs, layer.weights = weights[k].view();
        layer.a = view.scale[k], layer.c = view.shift[k], layer.out = to;
        conditional_layer(layer, isa);
    };
    layer.h = condition.constant.as<float>(), layer.f = condition.features, layer.image = w.entry.as<int32_t>();
    run(0, narrow, classes, w.first.as<float>());
    layer.h = layer.f = nullptr, layer.image = nullptr;
    run(1, w.first.as<float>(), features, w.second.as<float>());
    layer.eps = w.eps.as<double>(), layer.classes = classes;
    layer.panels4 = panels4.as<float>(), layer.bias4 = bias4.as<double>();
    run(2, w.second.as<float>(), features, nullptr);
}

// The state that chains begin with, of the block's samples first, first + 1, ...
void Chain::Parts::start(const Condition& condition, const double* noise, int64_t samples, int64_t first, Workspace& w) const {
    const int64_t classes = view.classes;
    double* const y = w.y.as<double>();
    for (int64_t row = 0; row < w.rows; ++row)
        w.entry.as<int32_t>()[row] = static_cast<int32_t>((first * points() + row) % condition.entries);
    if (view.family == Family::ddim) {
        const double* const far = noise + samples * classes;
        for (int64_t at = first; at < first + w.rows / kMapPoints; ++at)
            dense_points(noise + at * classes, far + at * classes, classes, y + (at - first) * kMapPoints * classes);
        return;
    }
    const double* const z = noise + first * classes;
    for (int64_t row = 0; row < w.rows; ++row)
        for (int64_t c = 0; c < classes; ++c) {
            const double mean = view.noise_prior ? 0.0 : condition.prior.as<double>()[w.entry.as<int32_t>()[row] * classes + c];
            y[row * classes + c] = mean + z[row * classes + c];
        }
}

// w.y, w.eps -> the next w.y.  noise: the block's rows of this step's [rows, C].
void Chain::Parts::update(const Condition& condition, const double* noise, int64_t step, Workspace& w) const {
    const int64_t classes = view.classes;
    const double* const k = view.coefficients + step * kCoefficients[static_cast<int>(view.family)];
    double *const y = w.y.as<double>(), *const eps = w.eps.as<double>();
    if (view.family == Family::ddim) {
        for (int64_t i = 0; i < w.rows * classes; ++i) y[i] = ddim_step(k, y[i], eps[i]);
        return;
    }
    for (int64_t row = 0; row < w.rows; ++row) {
        const double* const prior = condition.prior.as<double>() + w.entry.as<int32_t>()[row] * classes;
        for (int64_t c = 0; c < classes; ++c) {
            const int64_t i = row * classes + c;
            const double mean = view.noise_prior ? 0.0 : prior[c];
            y[i] = step > 0 ? posterior_step(k, y[i], eps[i], mean, noise[i]) : posterior_last_step(k, y[i], eps[i], mean);
        }
    }
}

void Chain::Parts::run_block(const Condition& condition, const double* noise, int64_t samples, int64_t first, int64_t count,
                             double* scores, const RunOptions& options, Workspace& w) const {
    const int64_t classes = view.classes, steps = view.steps, wide = points() * classes;
    const auto keep = [&](int64_t slot) {
        if (options.states) std::copy_n(w.y.as<double>(), count * wide, options.states + (slot * samples + first) * wide);
    };
    w.rows = count * points();
    start(condition, noise, samples, first, w);
    keep(0);
    for (int64_t i = 0; i < steps; ++i) {  // DiffMIC's chain goes down the table from its last row, DiffMIC-v2's is in the order of its steps
        if (options.cancelled && options.cancelled->load(std::memory_order_relaxed))
            throw Error(Status::cancelled, "cancelled before step " + std::to_string(i + 1) + " of " + std::to_string(steps));
        if (options.poll) options.poll(options.poll_context);
        const int64_t step = view.family == Family::ddim ? i : steps - 1 - i;
        denoise(condition, step, w);
        const bool noisy = view.family == Family::posterior && step > 0;
        update(condition, noisy ? noise + ((i + 1) * samples + first) * classes : nullptr, step, w);
        if (!options.ends_only || i + 1 == steps) keep(options.ends_only ? 1 : i + 1);
    }
    if (view.family == Family::posterior)
        std::copy_n(w.y.as<double>(), count * classes, scores + first * classes);
    else
        for (int64_t s = 0; s < count; ++s) map_mean(w.y.as<double>() + s * wide, classes, scores + (first + s) * classes);
}

void Chain::run(const EncodedView& encoded, const double* noise, int64_t draws, double* scores, const RunOptions& options) const {
    const int64_t samples = draws * encoded.images;
    if (samples == 0) return;
    const Condition condition = parts_->condition(encoded);
    const int64_t block = parts_->block_samples(samples);
    Workspace workspace(block * parts_->points(), parts_->view.classes, parts_->view.features);
    for (int64_t first = 0; first < samples; first += block)
        parts_->run_block(condition, noise, samples, first, std::min(block, samples - first), scores, options, workspace);
}

void Chain::eps(const EncodedView& encoded, const double* y, int64_t step, double* eps) const {
    const int64_t points = parts_->points(), wide = points * parts_->view.classes;
    if (encoded.images == 0) return;
    const Condition condition = parts_->condition(encoded);
    const int64_t block = parts_->block_samples(encoded.images);
    Workspace w(block * points, parts_->view.classes, parts_->view.features);
    for (int64_t first = 0; first < encoded.images; first += block) {
        const int64_t count = std::min(block, encoded.images - first);
        w.rows = count * points;
        for (int64_t row = 0; row < w.rows; ++row) w.entry.as<int32_t>()[row] = static_cast<int32_t>(first * points + row);
        std::copy_n(y + first * wide, count * wide, w.y.as<double>());
        parts_->denoise(condition, step, w);
        std::copy_n(w.eps.as<double>(), count * wide, eps + first * wide);
    }
}

}  // namespace fusedx
