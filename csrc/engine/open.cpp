// From a folder to a model that can run: the encoder is compiled while the denoiser's weights are packed.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <future>

#include "engine/model.hpp"
#include "model/compiled_model.hpp"
#include "runtime/thread_pool.hpp"

namespace fusedx {
namespace {

// The encoder's weights as a mapping of their file, once it is shown to hold the very bytes that were checked: OpenVINO keeps what it
// reads, and pages of a file, unlike memory of our own, can be given back once it has packed them.
class WeightsFile {
public:
    WeightsFile(const std::string& path, Bytes checked) : file_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
        if (file_ < 0 || checked.empty()) return;
        void* const memory = ::mmap(nullptr, checked.size(), PROT_READ, MAP_SHARED, file_, 0);
        const bool same = memory != MAP_FAILED && ::lseek(file_, 0, SEEK_END) == static_cast<off_t>(checked.size())
                          && std::memcmp(memory, checked.data(), checked.size()) == 0;
        if (memory != MAP_FAILED) ::munmap(memory, checked.size());
        if (!same) throw Error(Status::bad_model, path + " changed while it was opened; open it again");
    }
    ~WeightsFile() {
        if (file_ >= 0) ::close(file_);
    }
    WeightsFile(const WeightsFile&) = delete;

    int descriptor() const { return file_; }

private:
    const int file_;
};

std::unique_ptr<Encoder> open_encoder(CompiledModel& compiled, int threads) {
    const Network& network = compiled.manifest.network;
    const WeightsFile weights(compiled.file("encoder.onnx.data"), compiled.encoder_data.bytes());
    const Bytes model = compiled.encoder.bytes(), data = compiled.encoder_data.bytes();
    EncoderFile file{{reinterpret_cast<const char*>(model.data()), model.size()}, data.data(), static_cast<int64_t>(data.size()),
                     weights.descriptor(), network.is_v2() ? Family::ddim : Family::posterior, network.num_classes, network.feature_dim};
    if (file.weights_file >= 0) compiled.encoder_data.release(), file.weights = nullptr;
    std::unique_ptr<Encoder> encoder = open_openvino(file, threads);
    compiled.encoder.release(), compiled.encoder_data.release();
    return encoder;
}

}  // namespace

std::unique_ptr<Model> Model::open(const std::string& path, const ModelOptions& options) {
    const int processors = options.threads > 0 ? options.threads : pool_threads();
    const ThreadBudget threads(processors);
    const auto compiled = std::make_shared<CompiledModel>(
        open_model(path, {options.verify, processors, static_cast<uint64_t>(options.memory_budget)}));
    const auto policy = processors == 1 ? std::launch::deferred : std::launch::async;
    std::future<std::unique_ptr<Encoder>> encoder = std::async(policy, [&] { return open_encoder(*compiled, options.threads); });
    auto chain = std::make_unique<Chain>(compiled->denoiser, options.isa);
    compiled->release_layer_weights();
    ModelFacts facts{compiled->manifest, compiled->manifest_text, compiled->digest};
    return std::make_unique<Model>(std::move(facts), encoder.get(), std::move(chain), options, compiled);
}

}  // namespace fusedx
