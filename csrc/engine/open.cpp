// From a folder to a model that can run: the encoder is compiled while its weights are hashed and the denoiser is read and packed.
#include <fcntl.h>
#include <unistd.h>

#include <future>
#include <system_error>

#include "engine/model.hpp"
#include "model/compiled_model.hpp"
#include "runtime/thread_pool.hpp"

namespace fusedx {
namespace {

// What OpenVINO reads: the graph's bytes, and the open file of the weights that open_model hashes meanwhile.  Of its own, since
// open_model may fail and give up its files while OpenVINO is still at work.
class EncoderSource {
public:
    explicit EncoderSource(const CompiledModel& compiled)
        : model_(reinterpret_cast<const char*>(compiled.encoder.bytes().data()), compiled.encoder.bytes().size()),
          weights_bytes_(compiled.encoder_data.bytes().size()), file_(::fcntl(compiled.encoder_data.descriptor(), F_DUPFD_CLOEXEC, 0)),
          network_(compiled.manifest.network) {
        if (file_ < 0) throw Error(Status::out_of_memory, "no more files may be opened here (ulimit -n)");
    }
    ~EncoderSource() { ::close(file_); }
    EncoderSource(const EncoderSource&) = delete;

    std::unique_ptr<Encoder> open(int threads) const {
        return open_openvino({model_, file_, weights_bytes_, network_.is_v2() ? Family::ddim : Family::posterior, network_.num_classes,
                              network_.feature_dim}, threads);
    }

private:
    const std::string model_;
    const int64_t weights_bytes_;
    const int file_;
    const Network network_;
};

}  // namespace

std::unique_ptr<Model> Model::open(const std::string& path, const ModelOptions& options) {
    const int processors = options.threads > 0 ? options.threads : pool_threads();
    const ThreadBudget threads(processors);
    std::future<std::unique_ptr<Encoder>> encoder;
    OpenOptions how{options.verify, processors, static_cast<uint64_t>(options.memory_budget), {}};
    how.graph_checked = [&](const CompiledModel& compiled) {
        const auto source = std::make_shared<EncoderSource>(compiled);
        const auto task = [=] { return source->open(options.threads); };
        if (processors > 1) try {
                encoder = std::async(std::launch::async, task);
            } catch (const std::system_error&) {  // no more threads here: one after the other, then
            }
        if (!encoder.valid()) encoder = std::async(std::launch::deferred, task);
    };
    const auto compiled = std::make_shared<CompiledModel>(open_model(path, how));
    auto chain = std::make_unique<Chain>(compiled->denoiser, options.isa);
    compiled->release_layer_weights();
    ModelFacts facts{compiled->manifest, compiled->manifest_text, compiled->digest};
    std::unique_ptr<Encoder> opened = encoder.get();
    compiled->encoder.release(), compiled->encoder_data.release();
    return std::make_unique<Model>(std::move(facts), std::move(opened), std::move(chain), options, compiled);
}

}  // namespace fusedx
