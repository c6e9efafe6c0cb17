// A compiled model, ready to run: images in, predictions out.
//
//     pixels -> encoder (once an image) -> noise -> chain (all images, draws and steps) -> prediction
//
// The same computation as engine/engine.py.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/blocks.hpp"
#include "engine/chain.hpp"
#include "engine/encoder.hpp"
#include "engine/image.hpp"
#include "engine/memory_budget.hpp"
#include "engine/preprocess.hpp"
#include "engine/sampler_choice.hpp"
#include "error.hpp"
#include "model/manifest.hpp"

namespace fusedx {

struct ModelOptions {
    int threads = 0;            // 0: as many as the pool has
    bool verify = true;
    int64_t memory_budget = 0;  // bytes; 0: no limit
    std::string isa;
};

struct ClassifyOptions {
    uint64_t seed = 0;
    int64_t draws = 1;  // 1 to 65536: whoever reads it from outside has looked
    int64_t batch = 0;  // images a block at most; 0: chosen
    ImageLimits limits;
    SamplerWish sampler;
    const std::atomic<bool>* cancelled = nullptr;
};

// One image.  Pointers are the caller's arrays, null where they are not wanted.
struct ImageResult {
    double *probabilities = nullptr, *scores = nullptr, *prior = nullptr;  // [C]
    double* draw_scores = nullptr;   // [D, C]
    int32_t* draw_labels = nullptr;  // [D]

    Reason reason = Reason::none;  // anything else: there is no result, and `fault` says why
    std::string fault;
    int32_t index = -1;
    double stability = 0.0;
    Digest sha256{};
    int32_t patch_locations[6][2] = {};
    // Of its chains, as in SampleReport: the most sweeps, and the sums of the rest over all draws.
    int64_t sweeps = 0, evaluations = 0, sequential_steps = 0;
    double preprocess_seconds = 0.0, encoder_seconds = 0.0, chain_seconds = 0.0;
};

// What the model's files say of it.
struct ModelFacts {
    Manifest manifest;
    std::string text, digest;  // of manifest.json

    Family family() const { return manifest.network.is_v2() ? Family::ddim : Family::posterior; }
    int64_t classes() const { return manifest.network.num_classes; }
    int64_t features() const { return manifest.network.feature_dim; }
    SamplerKind default_sampler() const {
        const std::string& name = manifest.default_sampler;
        return name == "sequential" ? SamplerKind::sequential : name == "parallel" ? SamplerKind::parallel : SamplerKind::automatic;
    }
};

// May be used from any number of threads at a time.
class Model {
public:
    // Throws Error (bad_model, unavailable, out_of_memory, bad_argument).
    static std::unique_ptr<Model> open(const std::string& path, const ModelOptions& options);

    // Of parts.  tables: what the chain has views of.
    Model(ModelFacts facts, std::unique_ptr<Encoder> encoder, std::unique_ptr<Chain> chain, const ModelOptions& options,
          std::shared_ptr<const void> tables);

    // Fills results[i] for images[i]; an image that cannot be used gets a reason and disturbs nothing.
    // Throws Error (cancelled, out_of_memory, unavailable, internal); results are then of no meaning.
    void classify(std::span<const ImageView> images, const ClassifyOptions& options, std::span<ImageResult> results) const;

    // Runs the procedural image as a batch of `images`, or of as many as run together where that is fewer.
    void warm_up(int64_t images) const;

    // Whether the model still answers as when it was compiled; only where its manifest has a self_test.
    bool self_test() const;

    const ModelFacts& facts() const { return facts_; }
    const Chain& chain() const { return *chain_; }
    const Encoder& encoder() const { return *encoder_; }
    int threads() const;  // that one call may use
    bool of_this_process() const;  // false after a fork: the encoder's threads did not come along

private:
    struct Encoded;
    BatchSizes sizes(int64_t images, int64_t draws) const;
    SamplerPlan plan(const SamplerWish& wish, int64_t images, int64_t draws) const;
    Encoded encode(std::span<const ImageView> images, std::span<ImageResult*> results, const ClassifyOptions& options) const;
    void run_chains(const Encoded& block, std::span<ImageResult*> results, const ClassifyOptions& options, int64_t draws_together) const;

    const ModelFacts facts_;
    const ModelOptions options_;
    const int64_t process_;
    const std::shared_ptr<const void> tables_;
    std::unique_ptr<Encoder> encoder_;
    std::unique_ptr<Chain> chain_;
    mutable MemoryBudget budget_;
};

// uint8 [224, 224, 3], value (3 row + 5 column + 40 channel + (row * column >> 4)) & 255: the picture of self-tests and warm-ups.
std::vector<uint8_t> procedural_image();

}  // namespace fusedx
