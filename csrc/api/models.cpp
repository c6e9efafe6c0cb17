#include "api/models.hpp"

#include <string_view>

#include "api/log.hpp"
#include "api/outcome.hpp"
#include "api/structs.hpp"

namespace fusedx::api {

// In a forked child the encoder's threads are missing and its end would wait for them; the memory is the parent's in any case.
OpenModel::~OpenModel() {
    if (model && !model->of_this_process()) static_cast<void>(model.release());
}

std::shared_ptr<OpenModel> find(const fx_model* model) {
    if (model == nullptr) refuse("model is NULL; fx_model_open gives one");
    std::shared_ptr<OpenModel> found = Models::all().find(model);
    if (!found) refuse("model is not an open model: it was closed, or never came from fx_model_open");
    return found;
}

std::shared_ptr<std::atomic<bool>> find(const fx_cancel* cancel) {
    if (cancel == nullptr) refuse("cancel is NULL; fx_cancel_create gives one");
    std::shared_ptr<std::atomic<bool>> found = Cancels::all().find(cancel);
    if (!found) refuse("cancel is not a token: it was destroyed, or never came from fx_cancel_create");
    return found;
}

namespace {

constexpr fx_model_options kDefaults{sizeof(fx_model_options), 0, 1, 0, nullptr};

ModelOptions checked(const fx_model_options& o) {
    if (o.threads < 0 || o.threads > 1024) refuse("threads must be from 1 to 1024, or 0 for all; got " + std::to_string(o.threads));
    if (o.verify != 0 && o.verify != 1) refuse("verify must be 0 or 1, got " + std::to_string(o.verify));
    if (o.memory_budget < 0) refuse("memory_budget must be a number of bytes, or 0 for no limit; got " + std::to_string(o.memory_budget));
    return {o.threads, o.verify == 1, o.memory_budget, o.isa == nullptr ? "" : o.isa};
}

}  // namespace
}  // namespace fusedx::api

using namespace fusedx;
using namespace fusedx::api;

extern "C" {

fx_status fx_model_options_default(fx_model_options* options, size_t struct_size) {
    return guarded([&] { return give(kDefaults, options, struct_size, "fx_model_options"), FX_OK; });
}

fx_status fx_model_open(const char* path, const fx_model_options* options, fx_model** model) {
    if (model != nullptr) *model = nullptr;
    return guarded([&] {
        if (model == nullptr) refuse("model: a place for the handle is needed, not NULL");
        if (path == nullptr || *path == '\0') refuse("path is NULL or empty; it must name a compiled model's folder");
        auto opened = std::make_shared<OpenModel>();
        opened->model = Model::open(path, checked(taken(options, kDefaults, "fx_model_options")));
        opened->encoder = opened->model->encoder().description();
        const std::string text = "opened model " + opened->model->facts().digest + ", " + opened->model->facts().manifest.precision + " on "
                                 + name(opened->model->chain().isa()) + ", encoder " + opened->encoder;
        *model = Models::all().add(std::move(opened));
        log(FX_LOG_INFO, text.c_str());
        return FX_OK;
    });
}

fx_status fx_model_close(fx_model* model) {
    return guarded([&] {
        if (model != nullptr && !Models::all().remove(model)) find(model);
        return FX_OK;
    });
}

fx_status fx_model_warmup(fx_model* model, int32_t images) {
    return guarded([&] {
        if (images < 1 || images > 1 << 20) refuse("images must be from 1 to 1048576, got " + std::to_string(images));
        find(model)->model->warm_up(images);
        return FX_OK;
    });
}

fx_status fx_model_get_info(const fx_model* model, fx_model_info* info) {
    return guarded([&] {
        if (info == nullptr) refuse("info is NULL");
        const std::shared_ptr<OpenModel> open = find(model);
        const ModelFacts& facts = open->model->facts();
        const Manifest& m = facts.manifest;
        fx_model_info own{};
        own.class_count = static_cast<int32_t>(facts.classes());
        own.default_draws = static_cast<int32_t>(m.default_draws), own.default_seed = m.default_seed;
        own.family = m.network.family.c_str(), own.task = m.task.c_str();
        own.precision = m.precision.c_str(), own.encoder_precision = m.encoder_precision.c_str();
        own.encoder = open->encoder.c_str(), own.isa = name(open->model->chain().isa());
        own.digest = facts.digest.c_str(), own.manifest = facts.text.c_str();
        own.weight_bytes = open->model->chain().weight_bytes();
        own.threads = open->model->threads(), own.has_self_test = m.self_test.has_value();
        give(own, info, info->struct_size, "fx_model_info");
        return FX_OK;
    });
}

int32_t fx_model_class_count(const fx_model* model) {
    int32_t count = 0;
    guarded([&] {
        if (const std::shared_ptr<OpenModel> open = Models::all().find(model)) count = static_cast<int32_t>(open->model->facts().classes());
        return FX_OK;
    });
    return count;
}

const char* fx_model_class_name(const fx_model* model, int32_t index) {
    const char* name = nullptr;
    guarded([&] {
        const std::shared_ptr<OpenModel> open = Models::all().find(model);
        if (open && index >= 0 && index < open->model->facts().classes()) name = open->model->facts().manifest.classes[index].c_str();
        return FX_OK;
    });
    return name;
}

fx_status fx_cancel_create(fx_cancel** cancel) {
    return guarded([&] {
        if (cancel == nullptr) refuse("cancel: a place for the token is needed, not NULL");
        *cancel = nullptr;
        *cancel = Cancels::all().add(std::make_shared<std::atomic<bool>>(false));
        return FX_OK;
    });
}

fx_status fx_cancel_set(fx_cancel* cancel) {
    return guarded([&] { return find(cancel)->store(true), FX_OK; });
}

fx_status fx_cancel_reset(fx_cancel* cancel) {
    return guarded([&] { return find(cancel)->store(false), FX_OK; });
}

fx_status fx_cancel_destroy(fx_cancel* cancel) {
    return guarded([&] {
        if (cancel != nullptr && !Cancels::all().remove(cancel)) find(cancel);
        return FX_OK;
    });
}

}  // extern "C"
