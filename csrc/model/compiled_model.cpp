#include "model/compiled_model.hpp"

#include <unistd.h>

#include <exception>
#include <new>
#include <system_error>
#include <thread>

#include "error.hpp"
#include "model/denoiser_file.hpp"
#include "model/onnx_check.hpp"
#include "model/safetensors.hpp"
#include "model/text.hpp"

namespace fusedx {

namespace {

constexpr const char *kManifest = "manifest.json", *kDenoiser = "denoiser.safetensors";
constexpr const char *kEncoder = "encoder.onnx", *kData = "encoder.onnx.data";
constexpr uint64_t kMaxManifest = 4 << 20;

FileBytes read_manifest(const Folder& folder) {
    uint64_t size = 0;
    try {
        size = folder.size(kManifest);
    } catch (const Error& error) {
        throw Error(error.status, std::string(error.what()) + "; a compiled model is a folder made by `fusedx compile`");
    }
    if (size > kMaxManifest)
        throw Error(Status::bad_model, folder.path(kManifest) + " is larger than " + std::to_string(kMaxManifest >> 20) +
                                           " MiB, which no manifest is");
    return FileBytes::read(folder, kManifest, size);
}

// Exactly the three files, each of the size that the manifest says, and all of them small enough.
void check_sizes(const Folder& folder, const Manifest& manifest, uint64_t most) {
    std::vector<std::string> listed;
    for (const auto& file : manifest.files) listed.push_back(quoted(file.first));
    if (manifest.files.size() != 3 || !manifest.files.contains(kEncoder) || !manifest.files.contains(kData) ||
        !manifest.files.contains(kDenoiser))
        throw Error(Status::bad_model, folder.path(kManifest) + " lists " + joined(listed) + ", expected " + kDenoiser + ", " + kEncoder +
                                           ", " + kData);
    uint64_t total = 0;
    for (const auto& [name, entry] : manifest.files) {
        const uint64_t size = folder.size(name);
        if (size != entry.bytes)
            throw Error(Status::bad_model, folder.path(name) + " has " + std::to_string(size) + " bytes, the manifest says " +
                                               std::to_string(entry.bytes) + ": incomplete or changed");
        total += size;
    }
    if (total > most)
        throw Error(Status::out_of_memory, "the model's files have " + std::to_string((total >> 20) + 1) + " MiB, more than the " +
                                               std::to_string(most >> 20) + " MiB that may be used");
}

uint64_t physical_memory() {
    const long pages = ::sysconf(_SC_PHYS_PAGES), page = ::sysconf(_SC_PAGESIZE);
    return pages > 0 && page > 0 ? static_cast<uint64_t>(pages) * static_cast<uint64_t>(page) : UINT64_MAX;
}

[[noreturn]] void changed(const Folder& folder, const char* name, const Digest& found, const FileEntry& entry) {
    throw Error(Status::bad_model, folder.path(name) + " was changed after compiling: its SHA-256 is " + hexadecimal(found) +
                                       ", the manifest says " + entry.sha256);
}

FileBytes read_file(const Folder& folder, const char* name, const Manifest& manifest, bool verify) {
    const FileEntry& entry = manifest.files.at(name);
    Digest digest;
    FileBytes bytes = FileBytes::read(folder, name, entry.bytes, verify ? &digest : nullptr);
    if (verify && hexadecimal(digest) != entry.sha256) changed(folder, name, digest, entry);
    return bytes;
}

void open_encoder(const Folder& folder, CompiledModel& model, const OpenOptions& options) {
    const FileEntry& data = model.manifest.files.at(kData);
    model.encoder = read_file(folder, kEncoder, model.manifest, options.verify);
    model.encoder_data = FileBytes::map(folder, kData, data.bytes);
    try {
        const onnx::Graph graph = onnx::read(model.encoder.bytes(), model.encoder_data.bytes());
        onnx::check(graph);
        onnx::check_network(graph, model.manifest.network);
        if (options.graph_checked) options.graph_checked(model);
        if (!options.verify) return;
        if (const Digest found = model.encoder_data.digest(); hexadecimal(found) != data.sha256) changed(folder, kData, found, data);
        onnx::check_finite(graph, [&](Bytes constant) { model.encoder_data.release(constant); });
    } catch (const Malformed& error) {
        throw Error(Status::bad_model,
                    folder.path(kEncoder) + " is not an encoder graph that fusedx wrote for this manifest: " + error.what());
    }
}

void open_denoiser(const Folder& folder, CompiledModel& model, bool verify) {
    model.denoiser_bytes = read_file(folder, kDenoiser, model.manifest, verify);
    try {
        const Tensors tensors = read_safetensors(model.denoiser_bytes.bytes());
        model.denoiser = view_denoiser(tensors, model.manifest, verify);
        size_t part = 0;
        for (const char* name : {"weight2", "weight3", "weight2.panels", "weight3.panels", "weight2.scale", "weight3.scale"})
            if (const auto found = tensors.find(name); found != tensors.end()) model.layer_weights[part++] = found->second.bytes;
    } catch (const Malformed& error) {
        throw Error(Status::bad_model, folder.path(kDenoiser) + " is not the denoiser of this manifest: " + error.what());
    }
}

// Both, the first on a thread of its own where there may be one; the first's failure is the one that is reported.
template <class First, class Second>
void both(bool parallel, First&& first, Second&& second) {
    std::exception_ptr failures[2];
    const auto guarded = [](auto& task, std::exception_ptr& failure) noexcept {
        try {
            task();
        } catch (...) {
            failure = std::current_exception();
        }
    };
    std::thread other;
    if (parallel) try {
            other = std::thread([&] { guarded(first, failures[0]); });
        } catch (const std::system_error&) {  // no more threads here: one after the other, then
        }
    if (!other.joinable()) guarded(first, failures[0]);
    guarded(second, failures[1]);
    if (other.joinable()) other.join();
    for (const std::exception_ptr& failure : failures)
        if (failure) std::rethrow_exception(failure);
}

CompiledModel open_folder(const std::string& path, const OpenOptions& options) {
    const Folder folder(path);
    const FileBytes raw = read_manifest(folder);
    CompiledModel model;
    model.path = path;
    model.manifest_text.assign(reinterpret_cast<const char*>(raw.bytes().data()), raw.bytes().size());
    model.digest = hexadecimal(sha256(raw.bytes().data(), raw.bytes().size()));
    try {
        model.manifest = parse_manifest(model.manifest_text);
    } catch (const Error& error) {
        throw Error(error.status, folder.path("") + error.what());
    }
    check_sizes(folder, model.manifest, options.max_bytes ? options.max_bytes : physical_memory());
    both(options.threads > 1, [&] { open_encoder(folder, model, options); },
         [&] { open_denoiser(folder, model, options.verify); });
    return model;
}

}  // namespace

void CompiledModel::release_layer_weights() {
    for (Bytes& part : layer_weights) denoiser_bytes.release(part);
    denoiser.weight2.panels = denoiser.weight3.panels = denoiser.weight2.scale = denoiser.weight3.scale = nullptr;
}

CompiledModel open_model(const std::string& path, const OpenOptions& options) {
    try {
        return open_folder(path, options);
    } catch (const std::bad_alloc&) {
        throw Error(Status::out_of_memory, "no memory to open " + path.substr(0, 1000));
    } catch (const Error&) {
        throw;
    } catch (const std::exception& error) {
        throw Error(Status::internal, "opening " + path.substr(0, 1000) + ": " + error.what());
    }
}

}  // namespace fusedx
