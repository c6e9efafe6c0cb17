// encoder.onnx by OpenVINO's C++ runtime, with the settings, and so the bits, of engine/encoder/openvino.py.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <sstream>
#include <vector>

#include <openvino/frontend/manager.hpp>
#include <openvino/op/constant.hpp>
#include <openvino/openvino.hpp>

#include "engine/encoder.hpp"
#include "engine/mapped_pages.hpp"
#include "engine/onnx_location.hpp"
#include "engine/preprocess.hpp"
#include "error.hpp"

namespace fusedx {
namespace {

std::string first_line(const std::exception& error) { return std::string(error.what()).substr(0, std::string(error.what()).find('\n')); }

// One a process, never destroyed.  Every core gives the thread that made it a stack for signals and puts the former one back when it goes:
// of two that go in the order of their making, the second leaves the thread a stack that is gone, and the next signal ends the process.
// A forked child makes its own; no lock, since it could be held by a thread that the fork left behind.
ov::Core& core() {
    struct Own { const pid_t pid = ::getpid(); ov::Core core; };
    static std::atomic<Own*> current{nullptr};
    Own* found = current.load(std::memory_order_acquire);
    while (!found || found->pid != ::getpid()) {
        Own* const fresh = new Own;
        if (current.compare_exchange_strong(found, fresh, std::memory_order_acq_rel)) return fresh->core;
    }
    return found->core;
}

std::shared_ptr<ov::Model> read(const std::string& model, const std::string& path) {
    std::istringstream bytes(model);
    ov::frontend::FrontEndManager manager;
    const ov::frontend::FrontEnd::Ptr reader = manager.load_by_framework("onnx");
    if (!reader) throw Error(Status::unavailable, "OpenVINO's reader of ONNX models (libopenvino_onnx_frontend) is missing beside libopenvino");
    return reader->convert(reader->load(static_cast<std::istream*>(&bytes), path, true));  // true: map the weights
}

// Has OpenVINO map the open file by its descriptor; where there is no /proc, has it copy the bytes out of a mapping of ours.
std::shared_ptr<ov::Model> read(const EncoderFile& file) {
    const std::string path = "proc/self/fd/" + std::to_string(file.weights_file);  // OpenVINO takes it as relative to the model's folder
    if (::access(("/" + path).c_str(), R_OK) == 0) return read(with_weights_at(file.model, path, 0, file.weights_bytes), "/encoder.onnx");
    void* const weights = ::mmap(nullptr, std::max<int64_t>(1, file.weights_bytes), PROT_READ, MAP_SHARED, file.weights_file, 0);
    if (weights == MAP_FAILED) throw Error(Status::out_of_memory, "encoder.onnx.data cannot be mapped");
    const std::unique_ptr<void, std::function<void(void*)>> mapping(weights, [&](void* p) { ::munmap(p, std::max<int64_t>(1, file.weights_bytes)); });
    return read(with_weights_at(file.model, kInMemory, reinterpret_cast<uintptr_t>(weights), file.weights_bytes), "");
}

// Where the weights lie; valid as long as the model is.
std::vector<const void*> constants(const ov::Model& model) {
    std::vector<const void*> found;
    for (const std::shared_ptr<ov::Node>& node : model.get_ops())
        if (const auto constant = ov::as_type_ptr<ov::op::v0::Constant>(node)) found.push_back(constant->get_data_ptr());
    return found;
}

// The outputs that the engine needs, by index, in the order of EncoderOutputs.
struct Places { size_t prior, y_global, y_local, y_fusion, feature, patch_locations; };

bool all_finite(const ov::Tensor& tensor) {
    if (tensor.get_element_type() != ov::element::f32) return true;
    const float* values = tensor.data<const float>();
    float sum = 0.0f;  // x * 0 is 0 for finite x alone
    for (size_t i = 0; i < tensor.get_size(); ++i) sum += values[i] * 0.0f;
    return sum == 0.0f;
}

class OpenVINOEncoder final : public Encoder {
public:
    OpenVINOEncoder(const EncoderFile& file, int threads) : weight_bytes_(file.weights_bytes) {
        ov::AnyMap settings{{"PERFORMANCE_HINT", "LATENCY"}, {"EXECUTION_MODE_HINT", "ACCURACY"}, {"INFERENCE_PRECISION_HINT", "f32"}};
        if (threads > 0) settings["INFERENCE_NUM_THREADS"] = threads;
        {
            const std::shared_ptr<ov::Model> model = read(file);
            model->reshape(ov::PartialShape{1, 3, kImageSize, kImageSize});
            compiled_ = core().compile_model(model, "CPU", settings);
            release_file_pages(file.weights_file, constants(*model));  // they are packed now, and would count twice
        }
        places_ = {place("prior", file.classes), place("y_global", file.classes), place("y_local", file.classes),
                   place("y_fusion", file.classes), place(file.family == Family::ddim ? "fused_feature" : "feature", file.features),
                   place("patch_locations", 12)};
        const uint32_t best = compiled_.get_property(ov::optimal_number_of_infer_requests);
        for (uint32_t i = 0; i < std::max(2u, best); ++i) free_.push_back(compiled_.create_infer_request());
    }

    void run(int64_t images, const Fill& fill, const Take& take) override {
        InFlight requests(*this, images);
        for (int64_t started = 0, done = 0; done < images; ++done) {
            for (; started < images && started - done < requests.size(); ++started) {
                ov::InferRequest& request = requests.of(started);
                fill(started, request.get_input_tensor().data<float>());
                guarded([&] { request.start_async(); });
                requests.running = started + 1;
            }
            ov::InferRequest& request = requests.of(done);
            guarded([&] { request.wait(); });
            requests.finished = done + 1;
            take(done, outputs(request));
        }
    }

    std::string description() const override { return std::string("openvino ") + ov::get_openvino_version().buildNumber; }
    int64_t weight_bytes() const override { return weight_bytes_; }

private:
    // Requests of one call: at least one, a second or more if nobody needs them.  Never leaves one running for the next caller.
    struct InFlight {
        InFlight(OpenVINOEncoder& encoder, int64_t images) : encoder(encoder) {
            std::unique_lock lock(encoder.mutex_);
            encoder.returned_.wait(lock, [&] { return !encoder.free_.empty(); });
            while (!encoder.free_.empty() && held.size() < static_cast<size_t>(images)) {
                held.push_back(std::move(encoder.free_.back()));
                encoder.free_.pop_back();
            }
        }
        ~InFlight() {
            for (; finished < running; ++finished) try { of(finished).wait(); } catch (...) {}
            {
                const std::lock_guard lock(encoder.mutex_);
                for (ov::InferRequest& request : held) encoder.free_.push_back(std::move(request));
            }
            encoder.returned_.notify_all();
        }
        ov::InferRequest& of(int64_t image) { return held[image % held.size()]; }
        int64_t size() const { return static_cast<int64_t>(held.size()); }

        OpenVINOEncoder& encoder;
        std::vector<ov::InferRequest> held;
        int64_t running = 0, finished = 0;  // images
    };

    template <class Call>
    static void guarded(const Call& call) {
        try {
            call();
        } catch (const ov::Exception& error) {
            throw Error(Status::internal, "OpenVINO failed while it ran the encoder: " + first_line(error));
        }
    }

    size_t place(const std::string& name, int64_t elements) const {
        const auto& outputs = compiled_.outputs();
        for (size_t i = 0; i < outputs.size(); ++i) {
            if (!outputs[i].get_names().count(name)) continue;
            const auto wanted = name == "patch_locations" ? ov::element::i64 : ov::element::f32;
            if (outputs[i].get_element_type() != wanted || ov::shape_size(outputs[i].get_shape()) != static_cast<size_t>(elements))
                throw Error(Status::bad_model, "encoder.onnx: " + name + " is " + outputs[i].get_element_type().get_type_name() + " "
                                                   + outputs[i].get_shape().to_string() + ", expected " + std::to_string(elements) + " numbers");
            return i;
        }
        throw Error(Status::bad_model, "encoder.onnx has no output " + name);
    }

    EncoderOutputs outputs(ov::InferRequest& request) const {
        bool finite = true;
        for (size_t i = 0; i < compiled_.outputs().size(); ++i) finite = finite && all_finite(request.get_output_tensor(i));
        const auto floats = [&](size_t i) { return request.get_output_tensor(i).data<const float>(); };
        return {floats(places_.prior), floats(places_.y_global), floats(places_.y_local), floats(places_.y_fusion), floats(places_.feature),
                request.get_output_tensor(places_.patch_locations).data<const int64_t>(), finite};
    }

    const int64_t weight_bytes_;
    ov::CompiledModel compiled_;
    Places places_;
    std::mutex mutex_;
    std::condition_variable returned_;
    std::vector<ov::InferRequest> free_;
};

}  // namespace

std::unique_ptr<Encoder> open_openvino(const EncoderFile& file, int threads) {
    try {
        return std::make_unique<OpenVINOEncoder>(file, threads);
    } catch (const ov::Exception& error) {
        throw Error(Status::bad_model, "OpenVINO cannot load encoder.onnx: " + first_line(error));
    }
}

}  // namespace fusedx
