#include <algorithm>
#include <limits>
#include <vector>

#include "api/log.hpp"
#include "api/models.hpp"
#include "api/outcome.hpp"
#include "api/structs.hpp"

namespace fusedx::api {
namespace {

fx_classify_options defaults(const Model* model) {
    const ImageLimits limits;
    fx_classify_options o{};
    o.struct_size = sizeof o, o.draws = 1, o.max_pixels = limits.max_pixels, o.min_side = static_cast<int32_t>(limits.min_side);
    if (model != nullptr) {
        o.seed = model->facts().manifest.default_seed;
        o.draws = static_cast<int32_t>(model->facts().manifest.default_draws);
    }
    return o;
}

ClassifyOptions checked(const fx_classify_options& o, const Model& model) {
    if (o.draws < 1 || o.draws > 1 << 16) refuse("draws must be from 1 to 65536, got " + std::to_string(o.draws));
    if (o.batch < 0) refuse("batch must be a number of images, or 0 to let the library choose; got " + std::to_string(o.batch));
    if (o.max_pixels < 1) refuse("max_pixels must be at least 1, got " + std::to_string(o.max_pixels));
    if (o.min_side < 1) refuse("min_side must be at least 1, got " + std::to_string(o.min_side));
    if (o.reserved != 0) refuse("fx_classify_options.reserved must be 0");
    if (o.sampler < FX_SAMPLER_DEFAULT || o.sampler > FX_SAMPLER_AUTO)
        refuse("sampler must be FX_SAMPLER_DEFAULT, _SEQUENTIAL, _PARALLEL or _AUTO (0 to 3), got " + std::to_string(o.sampler));
    if (o.sampler_rows < 0 || o.sampler_rows > kMostSamplerRows)
        refuse("sampler_rows must be from 1 to " + std::to_string(kMostSamplerRows) + ", or 0 to let the library choose; got " +
               std::to_string(o.sampler_rows));
    constexpr SamplerKind kKinds[] = {SamplerKind::automatic, SamplerKind::sequential, SamplerKind::parallel, SamplerKind::automatic};
    const SamplerKind kind = o.sampler == FX_SAMPLER_DEFAULT ? model.facts().default_sampler() : kKinds[o.sampler];
    return {o.seed, o.draws, o.batch, {o.max_pixels, o.min_side}, {kind, o.sampler_rows}, nullptr};
}

ImageView view(const fx_image& i) {
    return {i.data, i.width, i.height, i.row_stride, static_cast<PixelFormat>(i.format)};
}

// The caller's arrays must hold what will be written to them.
ImageResult checked(const fx_result& r, int64_t classes, int64_t draws, int64_t i) {
    const auto too_small = [&](const char* field, int64_t found, int64_t needed) {
        refuse("results[" + std::to_string(i) + "]." + field + " is " + std::to_string(found) + ", this call needs " + std::to_string(needed));
    };
    if ((r.probabilities || r.scores || r.prior || r.draw_scores) && r.class_capacity < classes) too_small("class_capacity", r.class_capacity, classes);
    if ((r.draw_scores || r.draw_labels) && r.draw_capacity < draws) too_small("draw_capacity", r.draw_capacity, draws);
    ImageResult own;
    own.probabilities = r.probabilities, own.scores = r.scores, own.prior = r.prior;
    own.draw_scores = r.draw_scores, own.draw_labels = r.draw_labels;
    return own;
}

// No number of an earlier call, or of half a call, may be taken for a result.
void clear_arrays(const fx_result& r, int64_t classes, int64_t draws) {
    constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
    for (double* array : {r.probabilities, r.scores, r.prior})
        if (array != nullptr) std::fill_n(array, classes, kNone);
    if (r.draw_scores != nullptr) std::fill_n(r.draw_scores, classes * draws, kNone);
    if (r.draw_labels != nullptr) std::fill_n(r.draw_labels, draws, -1);
}

// What the caller put into a result, and nothing else.
fx_result emptied(const fx_result& r, fx_status status) {
    fx_result own{};
    own.struct_size = r.struct_size;
    own.probabilities = r.probabilities, own.scores = r.scores, own.prior = r.prior;
    own.draw_scores = r.draw_scores, own.draw_labels = r.draw_labels;
    own.class_capacity = r.class_capacity, own.draw_capacity = r.draw_capacity;
    own.status = status, own.index = -1;
    return own;
}

fx_result filled(const fx_result& r, const ImageResult& from, int64_t draws) {
    fx_result own = emptied(r, from.reason == Reason::none ? FX_OK : FX_BAD_IMAGE);
    own.reason = static_cast<int32_t>(from.reason);
    if (from.reason != Reason::none) return own;
    own.index = from.index, own.draws = static_cast<int32_t>(draws), own.stability = from.stability;
    std::copy(from.sha256.begin(), from.sha256.end(), own.image_sha256);
    std::copy_n(&from.patch_locations[0][0], 12, &own.patch_locations[0][0]);
    own.preprocess_seconds = from.preprocess_seconds, own.encoder_seconds = from.encoder_seconds, own.chain_seconds = from.chain_seconds;
    own.sweeps = from.sweeps, own.evaluations = from.evaluations, own.sequential_steps = from.sequential_steps;
    return own;
}

// The caller's results, in their own size.
class Results {
public:
    Results(fx_result* first, int32_t count) : first_(first), count_(count), size_(first->struct_size) {
        check_size<fx_result>(size_, "fx_result");
        for (int64_t i = 0; i < count; ++i)
            if (at(i)->struct_size != size_) refuse("results[" + std::to_string(i) + "].struct_size is not that of results[0]");
    }
    fx_result* at(int64_t i) const { return element(first_, size_, i); }
    fx_result taken(int64_t i) const {
        fx_result own{};
        std::memcpy(&own, at(i), std::min(size_, sizeof own));
        return own;
    }
    void give(int64_t i, const fx_result& own) const { std::memcpy(at(i), &own, std::min(size_, sizeof own)); }
    void fail(fx_status status) const {
        for (int64_t i = 0; i < count_; ++i) give(i, emptied(taken(i), status));
    }

private:
    fx_result* first_;
    int32_t count_;
    size_t size_;
};

fx_status classify(const Model& model, const fx_image* images, int32_t count, const ClassifyOptions& options, const Results& results) {
    const size_t image_size = images->struct_size;
    check_size<fx_image>(image_size, "fx_image");
    const int64_t classes = model.facts().classes();
    std::vector<ImageView> views;
    std::vector<ImageResult> own;
    for (int64_t i = 0; i < count; ++i) {
        const fx_image* image = element(images, image_size, i);
        if (image->struct_size != image_size) refuse("images[" + std::to_string(i) + "].struct_size is not that of images[0]");
        if (image->reserved != 0) refuse("images[" + std::to_string(i) + "].reserved must be 0");
        views.push_back(view(*image));
        own.push_back(checked(results.taken(i), classes, options.draws, i));
    }
    for (int64_t i = 0; i < count; ++i) clear_arrays(results.taken(i), classes, options.draws);
    try {
        model.classify(views, options, own);
    } catch (...) {
        for (int64_t i = 0; i < count; ++i) clear_arrays(results.taken(i), classes, options.draws);
        throw;
    }

    int64_t first_bad = -1;
    for (int64_t i = count - 1; i >= 0; --i) {
        if (own[i].reason != Reason::none) clear_arrays(results.taken(i), classes, options.draws), first_bad = i;
        results.give(i, filled(results.taken(i), own[i], options.draws));
    }
    if (first_bad < 0) return FX_OK;
    return fail(FX_BAD_IMAGE, "image " + std::to_string(first_bad) + ": " + name(own[first_bad].reason) + ": " + own[first_bad].fault);
}

}  // namespace
}  // namespace fusedx::api

using namespace fusedx;
using namespace fusedx::api;

extern "C" {

fx_status fx_classify_options_default(const fx_model* model, fx_classify_options* options, size_t struct_size) {
    return guarded([&] {
        give(defaults(model == nullptr ? nullptr : find(model)->model.get()), options, struct_size, "fx_classify_options");
        return FX_OK;
    });
}

fx_status fx_classify(fx_model* model, const fx_image* images, int32_t count, const fx_classify_options* options, fx_result* results) {
    return guarded([&]() -> fx_status {
        if (count < 1) refuse("count must be at least 1, got " + std::to_string(count));
        if (images == nullptr || results == nullptr) refuse(images == nullptr ? "images is NULL" : "results is NULL");
        const Results out(results, count);
        const fx_status status = guarded([&] {
            const std::shared_ptr<OpenModel> open = find(model);
            const fx_classify_options o = taken(options, defaults(open->model.get()), "fx_classify_options");
            ClassifyOptions own = checked(o, *open->model);
            const std::shared_ptr<std::atomic<bool>> cancelled = o.cancel == nullptr ? nullptr : find(o.cancel);
            own.cancelled = cancelled.get();
            return classify(*open->model, images, count, own, out);
        });
        if (status != FX_OK && status != FX_BAD_IMAGE) out.fail(status);
        return status;
    });
}

}  // extern "C"
