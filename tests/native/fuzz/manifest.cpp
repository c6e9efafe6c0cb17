// manifest.json: any bytes give a manifest within its own bounds, or an Error.
#include <cstdlib>
#include <string_view>

#include "error.hpp"
#include "exact_copy.hpp"
#include "model/denoiser_file.hpp"
#include "model/manifest.hpp"
#include "model/text.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace fusedx;
    const fuzz::ExactCopy copy(data, size);
    try {
        const Manifest m = parse_manifest({reinterpret_cast<const char*>(copy.bytes().data()), size});
        const bool bounded = static_cast<int64_t>(m.classes.size()) == m.network.num_classes && m.network.num_classes <= 1000 &&
                             m.network.feature_dim >= 1 && m.network.feature_dim <= 1 << 17 && m.schedule.steps >= 1 &&
                             m.schedule.steps <= m.schedule.train_timesteps && m.default_draws >= 1;
        if (!bounded || expected_tensors(m).size() < 13) std::abort();
    } catch (const Error& error) {
        if (error.status != Status::bad_model || !is_utf8(error.what()) || std::string_view(error.what()).size() > 2500) std::abort();
    }
    return 0;
}
