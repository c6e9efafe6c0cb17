// Open models by handle.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "api/handles.hpp"
#include "engine/model.hpp"
#include "fusedx/fusedx.h"

namespace fusedx::api {

struct OpenModel {
    std::unique_ptr<Model> model;
    std::string encoder;  // its description: a place that lives as long as the handle

    ~OpenModel();
};

using Models = Handles<fx_model, OpenModel>;
using Cancels = Handles<fx_cancel, std::atomic<bool>>;

// Error(bad_argument) for NULL and for what is not open.
std::shared_ptr<OpenModel> find(const fx_model* model);
std::shared_ptr<std::atomic<bool>> find(const fx_cancel* cancel);

}  // namespace fusedx::api
