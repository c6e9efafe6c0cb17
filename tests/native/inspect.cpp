// What the library says about files: one command a line on standard input, one verdict a line on standard output.
//
//     json PATH | manifest PATH | safetensors PATH | onnx GRAPH DATA | model FOLDER | sizes FOLDER      (sizes: without digests)
//     "ok ..." or "refused ...", tab between the words of a command
#include <chrono>
#include <fstream>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "error.hpp"
#include "model/compiled_model.hpp"
#include "model/json.hpp"
#include "model/onnx_check.hpp"
#include "model/safetensors.hpp"
#include "model/text.hpp"

namespace {

// Of 8-byte elements, so that it is aligned as the library's own memory is.
struct Whole {
    std::vector<uint64_t> words;
    size_t size;

    explicit Whole(const std::string& path) {
        std::ifstream file(path, std::ios::binary | std::ios::ate);
        if (!file) throw fusedx::Error(fusedx::Status::bad_argument, path + " cannot be opened");
        size = static_cast<size_t>(file.tellg());
        words.resize((size + 7) / 8);
        file.seekg(0).read(reinterpret_cast<char*>(words.data()), static_cast<std::streamsize>(size));
    }
    fusedx::Bytes bytes() const { return {reinterpret_cast<const uint8_t*>(words.data()), size}; }
    std::string_view text() const { return {reinterpret_cast<const char*>(words.data()), size}; }
};

std::string inspect(const std::vector<std::string>& words) {
    using namespace fusedx;
    const std::string& what = words.at(0);
    if (what == "model" || what == "sizes") {
        const auto start = std::chrono::steady_clock::now();
        const CompiledModel model = open_model(words.at(1), {.verify = what == "model"});
        const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
        const Manifest& m = model.manifest;
        return m.network.family + " " + m.precision + " " + model.digest + " " + std::to_string(seconds.count()) + " s";
    }
    const Whole file(words.at(1));
    if (what == "json") return json::shown(json::parse(file.text()));
    if (what == "manifest") return parse_manifest(file.text()).network.family;
    if (what == "safetensors") return std::to_string(read_safetensors(file.bytes()).size()) + " tensors";
    if (what != "onnx") throw Error(Status::bad_argument, "no such command");
    const Whole data(words.at(2));
    const onnx::Graph graph = onnx::read(file.bytes(), data.bytes());
    onnx::check(graph);
    return std::to_string(graph.nodes.size()) + " nodes";
}

std::string verdict(const std::string& line) {
    std::vector<std::string> words;
    std::istringstream stream(line);
    for (std::string word; std::getline(stream, word, '\t');) words.push_back(word);
    try {
        return "ok " + inspect(words);
    } catch (const fusedx::Error& error) {
        return "refused " + std::string(error.what());
    } catch (const fusedx::Malformed& error) {
        return "refused " + std::string(error.what());
    }
}

}  // namespace

int main() {
    for (std::string line; std::getline(std::cin, line);) std::cout << verdict(line) << std::endl;
}
