#include "engine/chain.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "conditional_layer/conditional_layer.hpp"
#include "conditional_layer/weights.hpp"
#include "engine/process.hpp"
#include "engine/speculation.hpp"
#include "error.hpp"
#include "runtime/memory.hpp"
#include "runtime/thread_pool.hpp"

namespace fusedx {
namespace {

// Rows that go through a step together.  Layers share each read of the weights between 64 rows, so more of them gain nothing, while their
// activations [rows, F] leave the cache.
constexpr int64_t kBlockRows = 256;

// Of `rows` a sweep, those that so many chains can have.
int64_t useful_rows(int64_t rows, int64_t chains, int64_t steps) { return std::clamp(rows, chains, chains * steps); }

}  // namespace

// E entries: what stays constant along a chain, one for each image (ddim: for each image and map point).
struct Condition {
    int64_t entries;
    Buffer prior, constant, feature;  // double [E, C]; float [E, F]: W1_p p; float [E, F], empty where the caller's serves
    Buffer mean;                      // double [E, C] of zeros, where the prior is not the chain's mean
    const float* features;
};

// Rows that the denoiser evaluates together.
struct Workspace {
    int64_t rows;
    Buffer y, eps, first, second, step, entry;  // float [rows, C], double [rows, C]; float [rows, F] twice; int32 [rows]

    Workspace(int64_t rows, int64_t classes, int64_t features)
        : rows(rows), y(rows * classes * 4), eps(rows * classes * 8), first(rows * features * 4), second(rows * features * 4),
          step(rows * 4), entry(rows * 4) {}
    static int64_t bytes(int64_t rows, int64_t classes, int64_t features) { return rows * (classes * 12 + features * 8 + 8); }
};

// A part of a run's chains that run together, and their states [chains, C].
struct Chain::Block {
    const Process& process;
    int64_t first, chains;
    double* state;
    KeptStates kept;
};

struct Chain::Parts {
    DenoiserView view;
    Isa isa;
    Weights weights[3];
    Buffer panels4, bias4;

    int64_t points() const { return points_of(view.family); }
    int bits() const { return state_bits(view.weight2.format); }
    int64_t block_samples(int64_t samples) const;
    Condition condition(const EncodedView& encoded) const;
    void denoise(const float* constant, const float* feature, Workspace& w, int64_t tangents = 0) const;
    void run_steps(const Block& block, const Condition& condition, const RunOptions& options, Workspace& w) const;
    void run_sweeps(const Block& block, const Condition& condition, const RunOptions& options, Workspace& w) const;
};

Chain::Chain(const DenoiserView& denoiser, const std::string& isa, const std::function<void()>& copied)
    : parts_(new Parts{denoiser, choose_isa(isa), {}, {}, {}}) {
    const int64_t f = denoiser.features, c = denoiser.classes;
    parts_->weights[0] = Weights({WeightFormat::fp32, f, c, denoiser.weight_y, nullptr, c});
    parts_->weights[1] = Weights(denoiser.weight2);
    if (copied) copied();
    parts_->weights[2] = Weights(denoiser.weight3);
    if (copied) copied();
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

int64_t Chain::chains_together(int64_t images, int64_t draws) const { return parts_->block_samples(images * draws) * parts_->points(); }

int64_t Chain::workspace_bytes(int64_t images, int64_t draws, int64_t rows) const {
    const DenoiserView& v = parts_->view;
    const int64_t entries = images * parts_->points(), chains = chains_together(images, draws);
    const int64_t layer = 64 * (v.features * 4 + (v.features + 31) / 32 * padded_classes(v.classes) * 8);  // conditional_layer's own
    const int64_t most = useful_rows(rows, chains, v.steps);
    const int64_t sweeps = most > chains ? Speculation::bytes(v.classes, v.steps, chains, most) : 0;
    return entries * (v.classes * (v.noise_prior ? 16 : 8) + v.features * 8) + chains * v.classes * 8 + sweeps +
           Workspace::bytes(most, v.classes, v.features) + layer;
}

// Equal blocks, none above kBlockRows but for one sample.
int64_t Chain::Parts::block_samples(int64_t samples) const {
    const int64_t most = std::max<int64_t>(1, kBlockRows / points()), blocks = (samples + most - 1) / most;
    return (samples + blocks - 1) / blocks;
}

// W1_p p is summed class by class in double, as fusedx.engine.backends.constant_half does.
Condition Chain::Parts::condition(const EncodedView& encoded) const {
    const int64_t classes = view.classes, features = view.features;
    Condition to{encoded.images * points(), Buffer(encoded.images * points() * classes * 8), {}, {}, {}, encoded.feature};
    if (view.noise_prior) to.mean = Buffer(to.entries * classes * 8);
    to.constant = Buffer(to.entries * features * 4);
    double* const prior = to.prior.as<double>();
    if (view.family == Family::ddim) {
        to.feature = Buffer(to.entries * features * 4);
        to.features = to.feature.as<float>();
        for (int64_t e = 0; e < to.entries; ++e) {
            const int64_t ends = e / kMapPoints * classes;
            dense_point(encoded.y_global + ends, encoded.y_local + ends, classes, e % kMapPoints, prior + e * classes);
        }
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

// w.y, w.step, w.entry -> w.eps.  Layer 4 rides in layer 3's epilogue, so layer 3's output is never written.  With tangents, rows come in
// groups as in conditional_layer.hpp.
void Chain::Parts::denoise(const float* constant, const float* feature, Workspace& w, int64_t tangents) const {
    const int64_t features = view.features, classes = view.classes;
    Layer layer{};
    layer.rows = w.rows, layer.tangents = tangents, layer.outputs = features, layer.t = w.step.as<int32_t>();
    layer.a_stride = layer.c_stride = layer.h_stride = layer.f_stride = layer.out_stride = features;
    const auto run = [&](int k, const float* from, int64_t inputs, float* to) {
        layer.u = from, layer.inputs = layer.u_stride = inputs, layer.weights = weights[k].view();
        layer.a = view.scale[k], layer.c = view.shift[k], layer.out = to;
        conditional_layer(layer, isa);
    };
    layer.h = constant, layer.f = feature, layer.image = w.entry.as<int32_t>();
    run(0, w.y.as<float>(), classes, w.first.as<float>());
    layer.h = layer.f = nullptr, layer.image = nullptr;
    run(1, w.first.as<float>(), features, w.second.as<float>());
    layer.eps = w.eps.as<double>(), layer.classes = classes;
    layer.panels4 = panels4.as<float>(), layer.bias4 = bias4.as<double>();
    run(2, w.second.as<float>(), features, nullptr);
}

namespace {

// Before each step or sweep.  `at`: steps that every chain has behind it.
void look_around(const RunOptions& options, int64_t at, int64_t steps) {
    if (options.cancelled && options.cancelled->load(std::memory_order_relaxed))
        throw Error(Status::cancelled, "cancelled before step " + std::to_string(at + 1) + " of " + std::to_string(steps));
    if (options.poll) options.poll(options.poll_context);
}

}  // namespace

// All chains of a block a step at a time.
void Chain::Parts::run_steps(const Block& block, const Condition& condition, const RunOptions& options, Workspace& w) const {
    const Process& process = block.process;
    const int64_t classes = view.classes;
    float* const y = w.y.as<float>();
    w.rows = block.chains;
    for (int64_t row = 0; row < w.rows; ++row) w.entry.as<int32_t>()[row] = static_cast<int32_t>(process.entry(block.first + row));
    for (int64_t i = 0; i < view.steps; ++i) {
        look_around(options, i, view.steps);
        for (int64_t at = 0; at < w.rows * classes; ++at) y[at] = static_cast<float>(on_grid(block.state[at], bits()));
        std::fill_n(w.step.as<int32_t>(), w.rows, static_cast<int32_t>(process.table_row(i)));
        denoise(condition.constant.as<float>(), condition.features, w);
        for (int64_t row = 0; row < w.rows; ++row) {
            double* const state = block.state + row * classes;
            process.update(block.first + row, i, state, w.eps.as<double>() + row * classes, state);
            block.kept.put(process, i + 1, block.first + row, state);
        }
    }
}

// The same chains and bits, many steps at a time.
void Chain::Parts::run_sweeps(const Block& block, const Condition& condition, const RunOptions& options, Workspace& w) const {
    const int64_t most = useful_rows(options.rows, block.chains, view.steps);
    Speculation speculation(block.process, bits(), block.first, block.chains, block.state, most, options.least_gain, block.kept);
    const SweepRows rows{w.y.as<float>(), w.step.as<int32_t>(), w.entry.as<int32_t>()};
    while ((w.rows = speculation.gather(rows)) > 0) {
        look_around(options, speculation.slowest(), view.steps);
        denoise(condition.constant.as<float>(), condition.features, w);
        speculation.scatter(rows, w.eps.as<double>());
    }
    for (int64_t chain = 0; options.report && chain < block.chains; ++chain) {
        SampleReport& report = options.report[(block.first + chain) / points()];
        const Speculation::Counts& counts = speculation.counts(chain);
        report.sweeps = std::max(report.sweeps, counts.sweeps);
        report.evaluations += counts.evaluations;
        report.sequential_steps += counts.sequential_steps;
    }
}

void Chain::run(const EncodedView& encoded, const double* noise, int64_t draws, double* scores, const RunOptions& options) const {
    const DenoiserView& view = parts_->view;
    const int64_t samples = draws * encoded.images, points = parts_->points(), classes = view.classes;
    if (samples == 0) return;
    const Condition condition = parts_->condition(encoded);
    const double* const mean = (view.noise_prior ? condition.mean : condition.prior).as<double>();
    const Process process{view.family, classes, view.steps, view.coefficients, mean, noise, samples, condition.entries};
    const KeptStates kept{options.states, samples * points, options.ends_only};
    const int64_t together = parts_->block_samples(samples);
    Buffer state(together * points * classes * 8);
    Workspace workspace(useful_rows(options.rows, together * points, view.steps), classes, view.features);
    for (int64_t first = 0; first < samples; first += together) {
        const int64_t count = std::min(together, samples - first);
        const Block block{process, first * points, count * points, state.as<double>(), kept};
        for (int64_t chain = 0; chain < block.chains; ++chain) {
            process.start(block.first + chain, block.state + chain * classes);
            kept.put(process, 0, block.first + chain, block.state + chain * classes);
        }
        const bool sweeps = useful_rows(options.rows, block.chains, view.steps) > block.chains;  // else each chain would have one
        if (options.report) {
            const int32_t steps = static_cast<int32_t>(view.steps), all = static_cast<int32_t>(view.steps * points);
            std::fill_n(options.report + first, count, sweeps ? SampleReport{} : SampleReport{steps, all, all});
        }
        sweeps ? parts_->run_sweeps(block, condition, options, workspace) : parts_->run_steps(block, condition, options, workspace);
        if (view.family == Family::posterior)
            std::copy_n(block.state, count * classes, scores + first * classes);
        else
            for (int64_t s = 0; s < count; ++s) map_mean(block.state + s * points * classes, classes, scores + (first + s) * classes);
    }
}

void Chain::eps(const EncodedView& encoded, const double* y, int64_t step, double* eps) const {
    const int64_t rows = encoded.images * parts_->points();
    if (rows == 0) return;
    const Condition condition = parts_->condition(encoded);
    std::vector<int32_t> steps(rows, static_cast<int32_t>(step)), entries(rows);
    std::iota(entries.begin(), entries.end(), 0);
    this->eps({rows, condition.constant.as<float>(), condition.features}, y, steps.data(), entries.data(), rows, eps);
}

void Chain::eps(const ConditionView& condition, const double* y, const int32_t* step, const int32_t* entry, int64_t rows,
                double* eps) const {
    const int64_t classes = parts_->view.classes, block = std::min(rows, kBlockRows);
    Workspace w(block, classes, parts_->view.features);
    for (int64_t first = 0; first < rows; first += block) {
        w.rows = std::min(block, rows - first);
        for (int64_t at = 0; at < w.rows * classes; ++at) w.y.as<float>()[at] = static_cast<float>(y[first * classes + at]);
        std::copy_n(step + first, w.rows, w.step.as<int32_t>());
        std::copy_n(entry + first, w.rows, w.entry.as<int32_t>());
        parts_->denoise(condition.constant, condition.feature, w);
        std::copy_n(w.eps.as<double>(), w.rows * classes, eps + first * classes);
    }
}

// The unit vectors of the state go through the layers beside it, as many as a group may have.
void Chain::eps_and_jacobian(const ConditionView& condition, const double* y, const int32_t* step, const int32_t* entry, int64_t rows,
                             double* eps, double* jacobian) const {
    const int64_t classes = parts_->view.classes, most = std::min<int64_t>(classes, kMostTangents);
    const int64_t block = std::min(rows, std::max<int64_t>(1, kBlockRows / (1 + most)));
    Workspace w(block * (1 + most), classes, parts_->view.features);
    for (int64_t first = 0; first < rows; first += block)
        for (int64_t begin = 0; begin < classes; begin += most) {
            const int64_t count = std::min(block, rows - first), tangents = std::min(most, classes - begin), unit = 1 + tangents;
            w.rows = count * unit;
            std::fill_n(w.y.as<float>(), w.rows * classes, 0.0f);
            for (int64_t at = 0; at < count; ++at) {
                float* const group = w.y.as<float>() + at * unit * classes;
                for (int64_t c = 0; c < classes; ++c) group[c] = static_cast<float>(y[(first + at) * classes + c]);
                for (int64_t d = 0; d < tangents; ++d) group[(1 + d) * classes + begin + d] = 1.0f;
                std::fill_n(w.step.as<int32_t>() + at * unit, unit, step[first + at]);
                std::fill_n(w.entry.as<int32_t>() + at * unit, unit, entry[first + at]);
            }
            parts_->denoise(condition.constant, condition.feature, w, tangents);
            for (int64_t at = 0; at < count; ++at) {
                const double* const group = w.eps.as<double>() + at * unit * classes;
                std::copy_n(group, classes, eps + (first + at) * classes);
                double* const to = jacobian + (first + at) * classes * classes + begin;
                for (int64_t d = 0; d < tangents; ++d)
                    for (int64_t c = 0; c < classes; ++c) to[c * classes + d] = group[(1 + d) * classes + c];
            }
        }
}

}  // namespace fusedx
