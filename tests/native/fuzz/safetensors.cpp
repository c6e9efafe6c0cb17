// denoiser.safetensors: any bytes give views inside the file that cover it, or Malformed; a denoiser of it can be read to its end.
#include <cstdlib>

#include "exact_copy.hpp"
#include "model/denoiser_file.hpp"
#include "model/text.hpp"

using namespace fusedx;

static void read_everything(const Tensors& tensors) {
    for (int v2 = 0; v2 < 2; ++v2) {
        for (int format = 0; format < 5; ++format) {
            Manifest manifest;  // of the seeds' sizes, see seeds.py
            manifest.network.family = v2 ? "diffmic-v2" : "diffmic-v1";
            manifest.network.num_classes = 2;
            manifest.network.feature_dim = 3;
            manifest.schedule.steps = 2;
            manifest.weights = static_cast<WeightFormat>(format);
            try {
                const DenoiserView view = view_denoiser(tensors, manifest, true);
                volatile double sum = 0;
                for (int i = 0; i < 6; ++i) sum = sum + view.weight_y[i] + view.weight_p[i] + view.weight4[i] + view.scale[2][i];
                for (int i = 0; i < 2 * kCoefficients[v2]; ++i) sum = sum + view.coefficients[i];
                const auto* last = static_cast<const uint8_t*>(view.weight3.panels);
                sum = sum + last[0] + (format == 3 ? last[255] : format == 4 ? last[2047] : format ? last[191] : last[35]);
            } catch (const Malformed&) {
            }
        }
    }
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const fuzz::ExactCopy copy(data, size);
    try {
        const Tensors tensors = read_safetensors(copy.bytes());
        size_t total = 0;
        for (const auto& [name, tensor] : tensors) {
            const Bytes whole = copy.bytes(), part = tensor.bytes;
            const bool inside = part.data() >= whole.data() && part.data() + part.size() <= whole.data() + whole.size();
            if ((!part.empty() && !inside) || tensor.description().size() > 400) std::abort();
            is_finite(tensor);
            total += tensor.bytes.size();
        }
        if (total > size) std::abort();
        read_everything(tensors);
    } catch (const Malformed& error) {
        if (!is_utf8(error.what())) std::abort();
    }
    return 0;
}
