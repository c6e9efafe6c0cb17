// Image in, prior and feature out, once an image whatever the number of diffusion steps: an interface, so that the engine does not
// know who runs the network.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "engine/chain.hpp"

namespace fusedx {

// Of one image, views that are valid while they are handed out.  C classes, F features.
struct EncoderOutputs {
    const float *prior, *y_global, *y_local, *y_fusion;  // [C]
    const float* feature;                                // [F]
    const int64_t* patch_locations;                      // [6, 2], (row, column) in pixels
    bool finite;                                         // all outputs, also those not handed out
};

class Encoder {
public:
    virtual ~Encoder() = default;

    // For each image in [0, images): `fill` writes its input, float32 [3, 224, 224], then `take` is given what became of it; both on the
    // calling thread, both in order.  What either throws ends the run.  Safe to call from several threads at a time.
    using Fill = std::function<void(int64_t image, float* input)>;
    using Take = std::function<void(int64_t image, const EncoderOutputs& outputs)>;
    virtual void run(int64_t images, const Fill& fill, const Take& take) = 0;

    virtual std::string description() const = 0;  // name and version
    virtual int64_t weight_bytes() const = 0;     // about; of its packed weights
};

struct EncoderFile {
    std::string_view model;  // bytes of encoder.onnx, checked; used while it is opened
    int weights_file;        // encoder.onnx.data, open
    int64_t weights_bytes;
    Family family;
    int64_t classes, features;
};

// By OpenVINO; threads 0: as many as it likes.  Throws Error (bad_model, unavailable, out_of_memory).
std::unique_ptr<Encoder> open_openvino(const EncoderFile& file, int threads);

}  // namespace fusedx
