// A compiled model on disk, opened: a folder of four files, each covered by the manifest's digests.
//
//     manifest.json          what the model is; SHA-256 and size of the others
//     encoder.onnx           image -> regions, prior, feature: one static graph
//     encoder.onnx.data      its weights
//     denoiser.safetensors   folded tables
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "engine/chain.hpp"
#include "model/file_bytes.hpp"
#include "model/manifest.hpp"

namespace fusedx {

struct CompiledModel {
    std::string path;  // as it was given
    Manifest manifest;
    std::string manifest_text;  // manifest.json, byte for byte
    std::string digest;         // SHA-256 of it in hexadecimal: it covers everything else

    // The bytes that were checked; encoder_data is a mapping.  Give them back (release) once they are packed.
    FileBytes encoder, encoder_data;

    // Views of bytes that this object holds, and keeps holding when it is moved.
    DenoiserView denoiser{};

    std::string file(const char* name) const { return path + "/" + name; }

    // The pages of weight2 and weight3, once a Chain has copied them; the rest of `denoiser` stays.
    void release_layer_weights();

    FileBytes denoiser_bytes;
    Bytes layer_weights[4];  // panels and scales of weight2 and weight3
};

struct OpenOptions {
    bool verify = true;      // every file's SHA-256, and that all weights are finite
    int threads = 2;         // encoder and denoiser are read at the same time where this is more than 1
    uint64_t max_bytes = 0;  // of the files together; 0: the machine's memory
    // Called, maybe on another thread, once the encoder's graph has passed every check but its weights are not hashed yet, so that
    // compiling it can begin meanwhile.  What it started must not be used if open_model then throws.
    std::function<void(const CompiledModel&)> graph_checked = nullptr;
};

// Reads everything, checks it, and keeps it in memory; nothing is read from the folder afterwards.
// Error(bad_model) says what is wrong with which file, Error(out_of_memory) what it would have taken.
CompiledModel open_model(const std::string& path, const OpenOptions& options = {});

}  // namespace fusedx
