// A C++ face for fusedx.h, as small as the example needs it: handles that close themselves, statuses as exceptions, results by value.
#pragma once

#include <fusedx/fusedx.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace fx {

struct Error : std::runtime_error {
    explicit Error(fx_status status) : std::runtime_error(std::string(fx_status_name(status)) + ": " + fx_last_error()), status(status) {}
    fx_status status;
};

inline void check(fx_status status) {
    if (status != FX_OK) throw Error(status);
}

struct Prediction {
    std::vector<double> probabilities, scores, prior;
    fx_result result;
};

class Model {
public:
    explicit Model(const std::string& path) {
        fx_model* model = nullptr;
        check(fx_model_open(path.c_str(), nullptr, &model));
        model_.reset(model);
        info_.struct_size = sizeof info_;
        check(fx_model_get_info(model, &info_));
    }

    const fx_model_info& info() const { return info_; }
    std::string class_name(int32_t index) const { return fx_model_class_name(model_.get(), index); }

    fx_classify_options defaults() const {
        fx_classify_options options;
        check(fx_classify_options_default(model_.get(), &options, sizeof options));
        return options;
    }

    Prediction classify(const fx_image& image, const fx_classify_options& options) const {
        const size_t classes = static_cast<size_t>(info_.class_count);
        Prediction p{std::vector<double>(classes), std::vector<double>(classes), std::vector<double>(classes), {}};
        p.result.struct_size = sizeof p.result;
        p.result.probabilities = p.probabilities.data(), p.result.scores = p.scores.data(), p.result.prior = p.prior.data();
        p.result.class_capacity = info_.class_count;
        check(fx_classify(model_.get(), &image, 1, &options, &p.result));
        return p;
    }

private:
    struct Close {
        void operator()(fx_model* model) const { fx_model_close(model); }
    };
    std::unique_ptr<fx_model, Close> model_;
    fx_model_info info_{};
};

}  // namespace fx
