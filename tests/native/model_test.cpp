// Whole folders: what is missing, replaced, of another size or swapped while it is open.  Changed bytes are compared with the Python
// reader in tests/test_native_library.py.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <thread>
#include <vector>

#include "check.hpp"
#include "main.hpp"
#include "model/compiled_model.hpp"
#include "model/safetensors.hpp"

using namespace fusedx;
namespace fs = std::filesystem;

namespace {

// A folder of its own, gone afterwards.
struct Scratch {
    fs::path path;
    Scratch() {
        std::string pattern = (fs::temp_directory_path() / "fusedx-test-XXXXXX").string();
        path = ::mkdtemp(pattern.data());
    }
    ~Scratch() { fs::remove_all(path); }
};

std::string write(const fs::path& path, const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
    return path.string();
}

constexpr const char* kFiles[] = {"encoder.onnx", "encoder.onnx.data", "denoiser.safetensors", "manifest.json"};

}  // namespace

TEST(files_are_read_whole) {
    const Scratch scratch;
    const Folder folder(scratch.path.string());
    for (size_t size : {0, 1, 4096, 1048575, 1048576, 1048577, 5000000}) {
        std::string text(size, '\0');
        for (size_t i = 0; i < size; ++i) text[i] = static_cast<char>(i * 31 + i / 977);
        write(scratch.path / "x", text);
        Digest digest;
        FileBytes file = FileBytes::read(folder, "x", size, &digest);
        CHECK(std::string(file.bytes().begin(), file.bytes().end()) == text && digest == sha256(text.data(), size));
        REFUSED(FileBytes::read(folder, "x", size + 1), "expected");
        if (size < 100000) continue;
        file.release(file.bytes().subspan(5000, 20000));  // whole pages inside of it alone
        CHECK(file.bytes()[4999] == static_cast<uint8_t>(text[4999]) && file.bytes()[25000] == static_cast<uint8_t>(text[25000]));
        CHECK(file.bytes()[12288] == 0);
        FileBytes moved = std::move(file);
        CHECK(file.bytes().empty() && moved.bytes().size() == size);
        moved.release();
        CHECK(moved.bytes().empty());
    }
}

TEST(files_that_are_none) {
    const Scratch scratch;
    const Folder folder(scratch.path.string());
    REFUSED(FileBytes::read(folder, "none", 0), "is missing");
    fs::create_directory(scratch.path / "folder");
    REFUSED(FileBytes::read(folder, "folder", 4096), "is no regular file");
    ::mkfifo((scratch.path / "pipe").c_str(), 0600);  // would wait for a writer
    REFUSED(FileBytes::read(folder, "pipe", 0), "is no regular file");
    fs::create_symlink("nowhere", scratch.path / "dangling");
    REFUSED(FileBytes::read(folder, "dangling", 0), "is missing");
    fs::create_symlink("loop", scratch.path / "loop");
    REFUSED(FileBytes::read(folder, "loop", 0), "is missing");
    fs::create_symlink("/dev/zero", scratch.path / "device");
    REFUSED(FileBytes::read(folder, "device", 0), "is no regular file");
    REFUSED(FileBytes::read(folder, std::string(300, 'x'), 0), "cannot be read");
    write(scratch.path / "target", "abc");
    fs::create_symlink("target", scratch.path / "link");
    CHECK(FileBytes::read(folder, "link", 3).bytes().size() == 3);
    fs::resize_file(scratch.path / "target", uintmax_t{1} << 40);  // sparse
    REFUSED(FileBytes::read(folder, "target", 3), "expected 3");
}

TEST(folders_that_are_none) {
    const Scratch scratch;
    write(scratch.path / "file", "x");
    REFUSED(open_model((scratch.path / "none").string()), "does not exist");
    REFUSED(open_model((scratch.path / "file").string()), "is not a folder");
    REFUSED(open_model((scratch.path / "file" / "below").string()), "is not a folder");
    REFUSED(open_model(scratch.path.string()), "manifest.json is missing");
    REFUSED(open_model(std::string(5000, 'x')), "cannot be read");
    REFUSED(open_model(std::string("a\0b", 3)), "zero byte");
    REFUSED(open_model(""), "empty");
    write(scratch.path / "manifest.json", "");
    fs::resize_file(scratch.path / "manifest.json", uintmax_t{1} << 40);
    REFUSED(open_model(scratch.path.string()), "larger than");
}

TEST(what_newer_models_say_of_their_sampling) {
    if (test::model_folder.empty()) return;
    const std::string text = open_model(test::model_folder).manifest_text;
    const std::string rest = text.substr(text.find('{') + 1);
    CHECK(rest.find("default_sampler") == std::string::npos);
    const auto with = [&](const std::string& keys) { return parse_manifest("{" + keys + "," + rest); };
    CHECK(parse_manifest(text).default_sampler == "auto");
    for (const char* sampler : {"auto", "sequential", "parallel"})
        CHECK(with(std::string("\"default_sampler\": \"") + sampler + "\"").default_sampler == sampler);
    REFUSED(with("\"default_sampler\": \"fast\""), "default_sampler");
    REFUSED(with("\"default_sampler\": 1"), "default_sampler");
    for (const char* key : {"temperature", "precision_evidence"}) {
        const std::string name = std::string("\"") + key + "\": ";
        REFUSED(with(name + "{\"a\": [1, {\"b\": 0.5}]}"), "unknown key 'a'");
        CHECK(with(name + "null").default_sampler == "auto");
        REFUSED(with(name + "1.5"), key);
        REFUSED(with(name + "[]"), key);
    }
    const std::string fitted =
        "\"images\": 9, \"held_out\": 8, \"ece_before\": 0.4, \"ece_after\": 0.1, \"nll_before\": 1, \"nll_after\": 0.8}";
    CHECK(with("\"temperature\": {\"value\": 0.5, " + fitted).default_sampler == "auto");
    REFUSED(with("\"temperature\": {\"value\": 0, " + fitted), "temperature.value");
}

TEST(a_model_opens_and_can_be_moved) {
    if (test::model_folder.empty()) return;
    CompiledModel first = open_model(test::model_folder);
    const CompiledModel alone = open_model(test::model_folder, {.verify = false, .threads = 1});
    CHECK(first.digest == alone.digest && first.digest.size() == 64);
    const float before = first.denoiser.weight4[0];
    CompiledModel model = std::move(first);
    CHECK(model.denoiser.weight4[0] == before && model.denoiser.features == model.manifest.network.feature_dim);
    CHECK(model.denoiser.weight2.panels != nullptr);
    model.release_layer_weights();
    CHECK(model.denoiser.weight2.panels == nullptr && model.denoiser.weight4[0] == before);
    REFUSED(open_model(test::model_folder, {.max_bytes = 1}), "more than");
}

TEST(a_model_whose_files_are_gone_or_replaced) {
    if (test::model_folder.empty()) return;
    const Scratch scratch;
    const fs::path model = scratch.path / "m.fusedx";
    fs::copy(test::model_folder, model);
    for (const char* name : kFiles) {
        const fs::path kept = scratch.path / "kept";
        fs::rename(model / name, kept);
        REFUSED(open_model(model.string()), name);
        fs::create_directory(model / name);
        REFUSED(open_model(model.string()), name);
        fs::remove(model / name);
        ::mkfifo((model / name).c_str(), 0600);
        REFUSED(open_model(model.string()), name);
        fs::remove(model / name);
        fs::create_symlink(kept, model / name);  // what some stores of models look like
        CHECK(open_model(model.string()).digest.size() == 64);
        fs::remove(model / name);
        fs::rename(kept, model / name);
        const auto size = fs::file_size(model / name);
        if (std::string(name) == "manifest.json") continue;
        fs::resize_file(model / name, size + 1);
        REFUSED(open_model(model.string()), "incomplete or changed");
        REFUSED(open_model(model.string(), {.verify = false}), "incomplete or changed");
        fs::resize_file(model / name, size / 2);
        fs::resize_file(model / name, size);  // zeros in its second half
        REFUSED(open_model(model.string()), "was changed after compiling");
        fs::copy_file(fs::path(test::model_folder) / name, model / name, fs::copy_options::overwrite_existing);
    }
}

TEST(what_was_opened_does_not_change_with_the_files) {
    if (test::model_folder.empty()) return;
    const Scratch scratch;
    const fs::path path = scratch.path / "m.fusedx";
    fs::copy(test::model_folder, path);
    const CompiledModel model = open_model(path.string());
    const Digest before = sha256(model.denoiser_bytes.bytes().data(), model.denoiser_bytes.bytes().size());
    for (const char* name : kFiles)
        if (std::string(name) != "encoder.onnx.data") fs::resize_file(path / name, 0);  // a mapping would end the process here
    fs::remove_all(path);  // the encoder's weights are a mapping, which outlives the file's name
    CHECK(sha256(model.denoiser_bytes.bytes().data(), model.denoiser_bytes.bytes().size()) == before);
    CHECK(hexadecimal(sha256(model.encoder_data.bytes().data(), model.encoder_data.bytes().size())) ==
          model.manifest.files.at("encoder.onnx.data").sha256);
}

TEST(opening_while_another_writes) {
    if (test::model_folder.empty()) return;
    const Scratch scratch;
    const fs::path path = scratch.path / "m.fusedx";
    fs::copy(test::model_folder, path);
    std::atomic<bool> stop{false};
    std::thread writer([&] {
        const int file = ::open((path / "denoiser.safetensors").c_str(), O_RDWR);
        for (uint8_t i = 1; !stop; ++i)
            if (::pwrite(file, &i, 1, 4000) != 1) break;
        ::close(file);
    });
    for (int i = 0; i < 10; ++i) {
        try {  // either way, but what is accepted is what was hashed
            const CompiledModel model = open_model(path.string());
            CHECK(hexadecimal(sha256(model.denoiser_bytes.bytes().data(), model.denoiser_bytes.bytes().size())) ==
                  model.manifest.files.at("denoiser.safetensors").sha256);
        } catch (const Error& error) {
            CHECK(std::string(error.what()).find("was changed") != std::string::npos);
        }
    }
    stop = true;
    writer.join();
}

TEST(many_threads_open_at_once) {
    if (test::model_folder.empty()) return;
    std::atomic<int> opened{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 6; ++i)
        threads.emplace_back([&] { opened += open_model(test::model_folder).digest.size() == 64; });
    for (std::thread& thread : threads) thread.join();
    CHECK(opened == 6);
}
