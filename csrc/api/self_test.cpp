#include "engine/known_answers.hpp"

#include "api/log.hpp"
#include "api/models.hpp"
#include "api/outcome.hpp"

using namespace fusedx;
using namespace fusedx::api;

extern "C" fx_status fx_self_test(fx_model* model, uint32_t* ran, uint32_t* failed) {
    if (ran != nullptr) *ran = 0;
    if (failed != nullptr) *failed = 0;
    return guarded([&]() -> fx_status {
        const std::shared_ptr<OpenModel> open = model == nullptr ? nullptr : find(model);
        uint32_t done = 0, wrong = 0;
        std::string names;
        const auto test = [&](uint32_t bit, const char* name, const auto& passes) {
            done |= bit;
            if (passes()) return;
            wrong |= bit;
            names += (names.empty() ? "" : ", ") + std::string(name);
        };
        test(FX_TEST_SHA256, "SHA-256", known_answers::sha256);
        test(FX_TEST_PHILOX, "Philox", known_answers::philox);
        test(FX_TEST_RESIZE, "resize", known_answers::resize);
        test(FX_TEST_SOFTMAX, "softmax", known_answers::softmax);
        if (open && open->model->facts().manifest.self_test) test(FX_TEST_MODEL, "the model's own answer", [&] { return open->model->self_test(); });
        if (ran != nullptr) *ran = done;
        if (failed != nullptr) *failed = wrong;
        if (wrong == 0) return log(FX_LOG_INFO, "self-test passed"), FX_OK;
        return fail(FX_INTERNAL, "self-test failed: " + names + "; do not use results of this machine: is the library or the memory damaged?");
    });
}
