#include "model/denoiser_file.hpp"

#include <algorithm>

#include "model/text.hpp"

namespace fusedx {

namespace {

int64_t whole_parts(int64_t n, int64_t part) { return (n + part - 1) / part; }

// A packed [features, features] matrix, as kernels/conditional_layer/packed.py::shapes.
void add_matrix(Tensors& tensors, const std::string& name, WeightFormat format, int64_t f) {
    const int64_t narrow = whole_parts(f, 32), wide = whole_parts(f, 64), quads = whole_parts(f, 4);
    switch (format) {
        case WeightFormat::fp32: tensors[name] = {Dtype::f32, {f, f}, {}}; break;
        case WeightFormat::bf16: tensors[name + ".panels"] = {Dtype::bf16, {narrow, f, 32}, {}}; break;
        case WeightFormat::fp16: tensors[name + ".panels"] = {Dtype::f16, {narrow, f, 32}, {}}; break;
        case WeightFormat::int8:
            tensors[name + ".panels"] = {Dtype::i8, {wide, quads, 64, 4}, {}};
            tensors[name + ".scale"] = {Dtype::f32, {f}, {}};
            break;
        case WeightFormat::int4:
            tensors[name + ".panels"] = {Dtype::u8, {wide, wide, 8, 64, 4}, {}};
            tensors[name + ".scale"] = {Dtype::f16, {wide, wide, 64}, {}};
            break;
    }
}

PackedView matrix(const Tensors& tensors, const std::string& name, WeightFormat format, int64_t f) {
    PackedView view{format, f, f, nullptr, nullptr, 0};
    if (format == WeightFormat::fp32) {
        view.panels = tensors.at(name).bytes.data();
        view.stride = f;
        return view;
    }
    view.panels = tensors.at(name + ".panels").bytes.data();
    const auto scale = tensors.find(name + ".scale");
    if (scale != tensors.end()) view.scale = scale->second.bytes.data();
    return view;
}

// What the sampler divides by; columns as in fusedx.kernels.step.COEFFICIENTS.
void check_coefficients(const double* k, const Network& network, int64_t steps) {
    const int columns = kCoefficients[network.is_v2()];
    for (int64_t t = 0; t < steps; ++t) {
        const double* row = k + t * columns;
        if (!(row[0] > 0) || (!network.is_v2() && !(row[1] > 0)))  // ddim: sqrt_alpha_bar; posterior: q and s
            throw Malformed("coefficients: the schedule is singular at step " + std::to_string(t) + "; compile with fewer steps");
    }
}

}  // namespace

Tensors expected_tensors(const Manifest& manifest) {
    const int64_t f = manifest.network.feature_dim, c = manifest.network.num_classes, t = manifest.schedule.steps;
    Tensors tensors = {{"coefficients", {Dtype::f64, {t, kCoefficients[manifest.network.is_v2()]}, {}}},
                       {"weight_y", {Dtype::f32, {f, c}, {}}},
                       {"weight_p", {Dtype::f32, {f, c}, {}}},
                       {"weight4", {Dtype::f32, {c, f}, {}}},
                       {"bias4", {Dtype::f32, {c}, {}}}};
    for (const char* name : {"scale1", "shift1", "scale2", "shift2", "scale3", "shift3"}) tensors[name] = {Dtype::f32, {t, f}, {}};
    for (const char* name : {"weight2", "weight3"}) add_matrix(tensors, name, manifest.weights, f);
    return tensors;
}

DenoiserView view_denoiser(const Tensors& tensors, const Manifest& manifest, bool finite) {
    const Tensors expected = expected_tensors(manifest);
    for (const auto& [name, tensor] : tensors)
        if (!expected.contains(name)) throw Malformed("it has " + quoted(name) + ", which a model in " + manifest.precision + " has not");
    for (const auto& [name, wanted] : expected) {
        const auto found = tensors.find(name);
        if (found == tensors.end())
            throw Malformed("it lacks " + name + ", which a model in " + manifest.precision +
                            " holds: it is of another precision, or made before formats were settled; compile the checkpoint again");
        if (found->second.dtype != wanted.dtype || found->second.shape != wanted.shape)
            throw Malformed(name + " is " + found->second.description() + ", the manifest implies " + wanted.description());
        if (finite && !is_finite(found->second)) throw Malformed(name + " holds NaN or infinite values");
    }
    const auto data = [&](const std::string& name) { return reinterpret_cast<const float*>(tensors.at(name).bytes.data()); };
    const int64_t f = manifest.network.feature_dim;
    DenoiserView view{};
    view.features = f;
    view.classes = manifest.network.num_classes;
    view.steps = manifest.schedule.steps;
    view.weight_y = data("weight_y");
    view.weight_p = data("weight_p");
    view.weight2 = matrix(tensors, "weight2", manifest.weights, f);
    view.weight3 = matrix(tensors, "weight3", manifest.weights, f);
    view.weight4 = data("weight4");
    view.bias4 = data("bias4");
    for (size_t k = 0; k < 3; ++k) {
        view.scale[k] = data("scale" + std::to_string(k + 1));
        view.shift[k] = data("shift" + std::to_string(k + 1));
    }
    view.coefficients = reinterpret_cast<const double*>(tensors.at("coefficients").bytes.data());
    view.family = manifest.network.is_v2() ? Family::ddim : Family::posterior;
    view.noise_prior = manifest.network.noise_prior;
    if (finite) check_coefficients(view.coefficients, manifest.network, view.steps);
    return view;
}

}  // namespace fusedx
