#include "model.hpp"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>

#include "engine/noise.hpp"
#include "runtime/thread_pool.hpp"
#include "softmax/softmax.hpp"

namespace fusedx {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kMegabyte = 1 << 20;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

void stop_if(const std::atomic<bool>* cancelled) {
    if (cancelled != nullptr && cancelled->load(std::memory_order_relaxed)) throw Error(Status::cancelled, "cancelled by the caller");
}

int32_t largest(const double* values, int64_t count) { return static_cast<int32_t>(std::max_element(values, values + count) - values); }

bool all_finite(const double* values, int64_t count) {
    return std::all_of(values, values + count, [](double v) { return std::isfinite(v); });
}

std::string megabytes(int64_t bytes) { return std::to_string((bytes + kMegabyte - 1) / kMegabyte) + " MiB"; }

ImageView view_of(const std::vector<uint8_t>& procedural) { return {procedural.data(), kImageSize, kImageSize, 0, PixelFormat::rgb8}; }

MemoryBudget working_memory(const ModelOptions& options, int64_t held) {
    if (options.memory_budget > 0 && options.memory_budget <= held)
        throw Error(Status::out_of_memory, "memory_budget is " + megabytes(options.memory_budget) + "; this model's weights alone take "
                                               + megabytes(held) + ", and working memory comes on top");
    return MemoryBudget(options.memory_budget > 0 ? options.memory_budget - held : 0);
}

}  // namespace

// What the encoder made of B images; see EncodedView.
struct Model::Encoded {
    std::vector<double> prior, y_global, y_local;  // [B, C]
    std::vector<float> feature;                    // [B, F]
    std::vector<NoiseKey> keys;
    std::vector<uint8_t> usable;  // 0: not finite
};

Model::Model(ModelFacts facts, std::unique_ptr<Encoder> encoder, std::unique_ptr<Chain> chain, const ModelOptions& options,
             std::shared_ptr<const void> tables)
    : facts_(std::move(facts)), options_(options), process_(getpid()), tables_(std::move(tables)), encoder_(std::move(encoder)),
      chain_(std::move(chain)), budget_(working_memory(options, chain_->weight_bytes() + encoder_->weight_bytes())) {}

int Model::threads() const { return options_.threads > 0 ? std::min(options_.threads, pool_threads()) : pool_threads(); }

bool Model::of_this_process() const { return process_ == getpid(); }

BatchSizes Model::sizes(int64_t images, int64_t draws) const {
    const bool ddim = facts_.family() == Family::ddim;
    return {images, draws, ddim ? kMapPoints : 1, ddim ? 2 : facts_.manifest.schedule.steps, facts_.classes(), facts_.features()};
}

void Model::classify(std::span<const ImageView> images, const ClassifyOptions& options, std::span<ImageResult> results) const {
    if (!of_this_process())
        throw Error(Status::unavailable, "this model was opened before a fork, and its threads did not come along: open it in the child process");
    const ThreadBudget budget(threads());

    std::vector<ImageView> usable;
    std::vector<ImageResult*> wanted;
    int64_t largest_copy = 0;  // images are prepared one at a time
    for (size_t i = 0; i < images.size(); ++i) {
        ImageFault fault = check(images[i], options.limits);
        results[i].reason = fault.reason, results[i].fault = std::move(fault.text);
        if (fault.reason != Reason::none) continue;
        usable.push_back(images[i]), wanted.push_back(&results[i]);
        largest_copy = std::max(largest_copy, preprocess_bytes(images[i]));
    }

    const int64_t count = static_cast<int64_t>(usable.size());
    const BatchSizes whole = sizes(std::max<int64_t>(1, count), options.draws);
    const auto bytes_of = [&](const Block& b) {
        const auto workspace = [&](const Block& of) {
            return chain_->workspace_bytes(of.images, of.draws, plan(options.sampler, of.images, of.draws).rows);
        };
        return block_bytes(whole, b) + std::max(workspace(b), workspace({1, 1})) + largest_copy;  // the last block may be that small
    };
    const int64_t least = bytes_of({1, 1});
    if (budget_.limited() && least > budget_.limit())
        throw Error(Status::out_of_memory, "memory_budget leaves " + megabytes(budget_.limit()) + " beside the weights; one image needs "
                                               + megabytes(least) + " of working memory");
    for (int64_t first = 0; first < count;) {
        const int64_t most = bytes_of(choose_block(whole, options.batch, INT64_MAX, bytes_of));
        const MemoryBudget::Share memory = budget_.take(most, least, [&] { stop_if(options.cancelled); });
        const Block block = choose_block(whole, options.batch, memory.bytes, bytes_of);
        const int64_t now = std::min(block.images, count - first);
        const std::span<ImageResult*> part(wanted.data() + first, now);
        run_chains(encode({usable.data() + first, static_cast<size_t>(now)}, part, options), part, options, block.draws);
        first += now;
    }
}

SamplerPlan Model::plan(const SamplerWish& wish, int64_t images, int64_t draws) const {
    const int64_t chains = chain_->chains_together(images, draws);
    return choose_sampler(wish, facts_.manifest.weights, chain_->isa(), facts_.manifest.schedule.steps, chains);
}

Model::Encoded Model::encode(std::span<const ImageView> images, std::span<ImageResult*> results, const ClassifyOptions& options) const {
    const int64_t count = static_cast<int64_t>(images.size()), classes = facts_.classes(), features = facts_.features();
    const bool multilabel = facts_.manifest.task == "multilabel";
    Encoded block;
    block.prior.resize(count * classes), block.y_global.resize(count * classes), block.y_local.resize(count * classes);
    block.feature.resize(count * features), block.keys.resize(count), block.usable.resize(count);

    const auto started = Clock::now();
    double preparing = 0.0;
    const auto fill = [&](int64_t i, float* input) {
        stop_if(options.cancelled);
        const auto start = Clock::now();
        ImageResult& result = *results[i];
        result.sha256 = preprocess(images[i], input);
        block.keys[i] = noise_key(options.seed, result.sha256);
        preparing += result.preprocess_seconds = seconds_since(start);
    };
    const auto take = [&](int64_t i, const EncoderOutputs& outputs) {
        ImageResult& result = *results[i];
        block.usable[i] = outputs.finite;
        if (!outputs.finite) return;  // its rows of the chain run on zeros, and what comes out is not used
        std::copy_n(outputs.prior, classes, &block.prior[i * classes]);
        std::copy_n(outputs.y_global, classes, &block.y_global[i * classes]);
        std::copy_n(outputs.y_local, classes, &block.y_local[i * classes]);
        std::copy_n(outputs.feature, features, &block.feature[i * features]);
        std::copy_n(outputs.patch_locations, 12, &result.patch_locations[0][0]);
        for (int64_t c = 0; result.prior != nullptr && c < classes; ++c)
            result.prior[c] = multilabel ? sigmoid(outputs.y_fusion[c]) : static_cast<double>(outputs.prior[c]);
    };
    encoder_->run(count, fill, take);
    const double share = std::max(0.0, seconds_since(started) - preparing) / static_cast<double>(count);
    for (ImageResult* result : results) result->encoder_seconds = share;
    return block;
}

void Model::run_chains(const Encoded& block, std::span<ImageResult*> results, const ClassifyOptions& options, int64_t draws_together) const {
    const auto started = Clock::now();
    const int64_t count = static_cast<int64_t>(results.size()), classes = facts_.classes();
    const bool multilabel = facts_.manifest.task == "multilabel";
    const EncodedView encoded{count, block.prior.data(), block.y_global.data(), block.y_local.data(), block.feature.data()};
    const int64_t noise_rows = sizes(count, options.draws).noise_rows, most = std::min(draws_together, options.draws);
    const auto noise = std::make_unique_for_overwrite<double[]>(noise_rows * most * count * classes);
    std::vector<double> draw_scores(most * count * classes), sum(count * classes);
    std::vector<int32_t> labels(options.draws * count);
    std::vector<uint8_t> finite(block.usable);

    std::vector<SampleReport> reports(most * count);
    RunOptions run;
    run.cancelled = options.cancelled, run.report = reports.data();
    for (int64_t first = 0; first < options.draws; first += most) {
        stop_if(options.cancelled);
        const int64_t draws = std::min(most, options.draws - first);
        const SamplerPlan sampler = plan(options.sampler, count, draws);
        run.rows = sampler.rows, run.least_gain = sampler.least_gain;
        const NoiseShape shape{noise_rows, draws, count, classes};
        for (int64_t i = 0; i < count; ++i) draw_noise(block.keys[i], facts_.family() == Family::ddim, shape, first, i, noise.get());
        chain_->run(encoded, noise.get(), draws, draw_scores.data(), run);
        for (int64_t d = 0; d < draws; ++d)  // added in order of draws, so that blocks do not show
            for (int64_t i = 0; i < count; ++i) {
                const double* own = &draw_scores[(d * count + i) * classes];
                for (int64_t c = 0; c < classes; ++c) sum[i * classes + c] = first + d == 0 ? own[c] : sum[i * classes + c] + own[c];
                const SampleReport& report = reports[d * count + i];
                results[i]->sweeps = std::max<int64_t>(results[i]->sweeps, report.sweeps);
                results[i]->evaluations += report.evaluations, results[i]->sequential_steps += report.sequential_steps;
                finite[i] = finite[i] && all_finite(own, classes);
                labels[i * options.draws + first + d] = largest(own, classes);
                if (results[i]->draw_scores != nullptr) std::copy_n(own, classes, results[i]->draw_scores + (first + d) * classes);
            }
    }

    const double share = seconds_since(started) / static_cast<double>(count);
    std::vector<double> probabilities(classes);
    for (int64_t i = 0; i < count; ++i) {
        ImageResult& result = *results[i];
        double* scores = &sum[i * classes];
        for (int64_t c = 0; c < classes; ++c) scores[c] = scores[c] / static_cast<double>(options.draws);
        result.chain_seconds = share;
        if (!finite[i]) {
            result.reason = Reason::not_finite, result.fault = "the model's weights overflow on this image; there is no result";
            continue;
        }
        if (multilabel)
            std::transform(scores, scores + classes, probabilities.begin(), [](double s) { return std::clamp(s, 0.0, 1.0); });
        else
            softmax(scores, classes, probabilities.data());
        if (result.probabilities != nullptr) std::copy(probabilities.begin(), probabilities.end(), result.probabilities);
        if (result.scores != nullptr) std::copy_n(scores, classes, result.scores);
        const int32_t* own = &labels[i * options.draws];
        result.index = largest(scores, classes);
        result.stability = static_cast<double>(std::count(own, own + options.draws, result.index)) / static_cast<double>(options.draws);
        if (result.draw_labels != nullptr) std::copy_n(own, options.draws, result.draw_labels);
    }
}

void Model::warm_up(int64_t images) const {
    const std::vector<uint8_t> pixels = procedural_image();
    // More than go together would only be the same again, and records of a million images pass any budget.
    const int64_t together = choose_block(sizes(images, 1), 0, INT64_MAX, [](const Block&) { return int64_t{0}; }).images;
    const std::vector<ImageView> batch(together, view_of(pixels));
    std::vector<ImageResult> results(together);
    classify(batch, {}, results);
}

bool Model::self_test() const {
    const SelfTest& expected = facts_.manifest.self_test.value();
    const std::vector<uint8_t> pixels = procedural_image();
    const ImageView image = view_of(pixels);
    std::vector<double> probabilities(facts_.classes());
    ImageResult result;
    result.probabilities = probabilities.data();
    ClassifyOptions options;
    options.seed = expected.seed, options.draws = expected.draws;
    classify({&image, 1}, options, {&result, 1});
    const auto near = [&](double a, double b) { return std::fabs(a - b) <= expected.tolerance; };
    return result.reason == Reason::none && std::equal(probabilities.begin(), probabilities.end(), expected.probabilities.begin(), near);
}

std::vector<uint8_t> procedural_image() {
    std::vector<uint8_t> pixels(kImageElements);
    for (int64_t r = 0; r < kImageSize; ++r)
        for (int64_t c = 0; c < kImageSize; ++c)
            for (int64_t channel = 0; channel < 3; ++channel)
                pixels[(r * kImageSize + c) * 3 + channel] = static_cast<uint8_t>(3 * r + 5 * c + 40 * channel + (r * c >> 4));
    return pixels;
}

}  // namespace fusedx
