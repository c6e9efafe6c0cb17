// Packed matrices of a width that no panel divides: the file's padding is where the kernels expect zeros, and nowhere else.
#include <algorithm>
#include <vector>

#include "check.hpp"
#include "model/denoiser_file.hpp"

using namespace fusedx;

namespace {

// Every tensor that `manifest` implies, all bytes 0 but coefficients, which are 1.
struct File {
    Tensors tensors;
    std::vector<std::vector<uint8_t>> memory;

    explicit File(const Manifest& manifest) : tensors(expected_tensors(manifest)) {
        for (auto& [name, tensor] : tensors) {
            int64_t elements = 0;
            count(tensor.shape, elements);
            memory.emplace_back(static_cast<size_t>(elements * item_bytes(tensor.dtype)));
            if (tensor.dtype == Dtype::f64)
                for (size_t i = 6; i < memory.back().size(); i += 8) memory.back()[i] = 0xf0, memory.back()[i + 1] = 0x3f;
            if (tensor.dtype == Dtype::u8) std::fill(memory.back().begin(), memory.back().end(), uint8_t{0x88});
            tensor.bytes = memory.back();
        }
    }
    uint8_t* data(const char* name) { return const_cast<uint8_t*>(tensors.at(name).bytes.data()); }
};

Manifest manifest(WeightFormat format, int64_t features) {
    Manifest m;
    m.network.family = "diffmic-v1";
    m.network.num_classes = 2;
    m.network.feature_dim = features;
    m.schedule.steps = 2;
    m.weights = format;
    return m;
}

// Output and inputs of the byte at `i` of the panels; second: of int4's high half, else the same.
struct Place {
    int64_t output, first, second;
};

Place place(WeightFormat format, int64_t f, int64_t i) {
    if (format == WeightFormat::int8) {
        const int64_t quads = (f + 3) / 4, input = i / 256 % quads * 4 + i % 4;
        return {i / 256 / quads * 64 + i / 4 % 64, input, input};
    }
    if (format == WeightFormat::int4) {
        const int64_t groups = (f + 63) / 64, input = i / 2048 % groups * 64 + i / 256 % 8 * 4 + i % 4;
        return {i / 2048 / groups * 64 + i / 4 % 64, input, input + 32};
    }
    return {i / 64 / f * 32 + i / 2 % 32, i / 64 % f, i / 64 % f};
}

}  // namespace

TEST(padding_must_be_zero_and_only_padding) {
    for (WeightFormat format : {WeightFormat::bf16, WeightFormat::fp16, WeightFormat::int8, WeightFormat::int4}) {
        for (int64_t f : {1, 3, 31, 32, 33, 63, 64, 65, 98}) {
            const Manifest m = manifest(format, f);
            File file(m);
            view_denoiser(file.tensors, m, true);
            uint8_t* panels = file.data("weight3.panels");
            const auto size = static_cast<int64_t>(file.tensors.at("weight3.panels").bytes.size());
            int wrong = 0;
            for (int64_t i = 0; i < size; i += size > 4000 ? 7 : 1) {
                const Place where = place(format, f, i);
                for (int half = 0; half < 2; ++half) {
                    const uint8_t before = panels[i];
                    panels[i] ^= half ? 0x10 : 0x01;
                    const bool padding = where.output >= f || (half ? where.second : where.first) >= f;
                    bool refused = false;
                    try {
                        view_denoiser(file.tensors, m, true);
                    } catch (const Malformed&) {
                        refused = true;
                    }
                    wrong += refused != padding;
                    panels[i] = before;
                }
            }
            CHECK(wrong == 0);
        }
    }
}

TEST(a_denoiser_of_another_shape_is_refused) {
    const Manifest m = manifest(WeightFormat::int8, 5);
    File file(m);
    Tensors other = file.tensors;
    other.erase("bias4");
    REFUSED(view_denoiser(other, m, true), "lacks bias4");
    other = file.tensors;
    other["further"] = other["bias4"];
    REFUSED(view_denoiser(other, m, true), "'further'");
    REFUSED(view_denoiser(file.tensors, manifest(WeightFormat::fp32, 5), true), "weight2.panels");
    REFUSED(view_denoiser(file.tensors, manifest(WeightFormat::int8, 6), true), "the manifest implies");
    file.data("coefficients")[7] = 0;  // q of step 0 becomes almost 0; its sign makes it singular
    file.data("coefficients")[7] |= 0x80;
    REFUSED(view_denoiser(file.tensors, m, true), "singular at step 0");
    view_denoiser(file.tensors, m, false);
}
