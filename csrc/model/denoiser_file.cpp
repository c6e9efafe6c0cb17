#include "model/denoiser_file.hpp"

#include <algorithm>

#include "conditional_layer/packed_shapes.hpp"
#include "model/text.hpp"

namespace fusedx {

namespace {

Dtype panel_type(WeightFormat format) {
    switch (format) {
        case WeightFormat::fp32: return Dtype::f32;
        case WeightFormat::bf16: return Dtype::bf16;
        case WeightFormat::fp16: return Dtype::f16;
        case WeightFormat::int8: return Dtype::i8;
        default: return Dtype::u8;
    }
}

// A [features, features] matrix.
void add_matrix(Tensors& tensors, const std::string& name, WeightFormat format, int64_t f) {
    const PackedShapes shapes = packed_shapes(format, f, f);
    tensors[format == WeightFormat::fp32 ? name : name + ".panels"] = {panel_type(format), shapes.panels, {}};
    if (!shapes.scale.empty()) tensors[name + ".scale"] = {format == WeightFormat::int8 ? Dtype::f32 : Dtype::f16, shapes.scale, {}};
}

// Weights of outputs and inputs past F, which packed.py stores as zero and the kernels take for it.
bool padding_is_zero(const uint8_t* panels, WeightFormat format, int64_t f) {
    const int64_t wide = whole_parts(f, 64), last = f % 64;
    const auto zero = [](const uint8_t* begin, int64_t bytes, uint8_t value) {
        return std::all_of(begin, begin + bytes, [&](uint8_t b) { return b == value; });
    };
    if (format == WeightFormat::bf16 || format == WeightFormat::fp16) {  // [narrow, F, 32], two bytes each
        const int64_t used = f % 32 ? f % 32 : 32, start = (whole_parts(f, 32) - 1) * f;
        for (int64_t k = 0; k < f; ++k)
            if (!zero(panels + 2 * ((start + k) * 32 + used), 2 * (32 - used), 0)) return false;
    } else if (format == WeightFormat::int8) {  // [wide, quads, 64, 4]
        const int64_t quads = whole_parts(f, 4);
        for (int64_t q = 0; last && q < quads; ++q)
            if (!zero(panels + (((wide - 1) * quads + q) * 64 + last) * 4, (64 - last) * 4, 0)) return false;
        for (int64_t n = 0; f % 4 && n < wide * 64; ++n)
            if (!zero(panels + ((n / 64 * quads + quads - 1) * 64 + n % 64) * 4 + f % 4, 4 - f % 4, 0)) return false;
    } else if (format == WeightFormat::int4 && last) {  // [wide, groups, 8, 64, 4]; 8 is zero, inputs 4 j + b and 32 + 4 j + b
        for (int64_t row = 0; row < wide * 8; ++row)  // group and j of the last panel
            if (!zero(panels + (((wide - 1) * wide * 8 + row) * 64 + last) * 4, (64 - last) * 4, 0x88)) return false;
        for (int64_t panel = 0; panel < wide; ++panel)
            for (int64_t i = 0; i < 8 * 64 * 4; ++i) {
                const int64_t input = (wide - 1) * 64 + i / 256 * 4 + i % 4;
                const uint8_t byte = panels[((panel * wide + wide - 1) * 8 * 64 * 4) + i];
                if ((input >= f && (byte & 15) != 8) || (input + 32 >= f && byte >> 4 != 8)) return false;
            }
    }
    return true;
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
    for (const char* name : {"weight2.panels", "weight3.panels"})
        if (const auto found = tensors.find(name); finite && found != tensors.end())
            if (!padding_is_zero(found->second.bytes.data(), manifest.weights, f))
                throw Malformed(std::string(name) + " has weights of outputs or inputs that the network has not");
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
