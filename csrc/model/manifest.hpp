// manifest.json, validated once: what engine/manifest.py accepts and refuses, for the same reasons.
//
// Some things are left out.  `metrics` and `versions` are for people: they are checked as far as their type goes and not kept; nor are
// `temperature` and `precision_evidence`, which the Python package acts upon (measurements.hpp).  Whether the sampler can run the
// schedule is asked of the coefficients in denoiser.safetensors, because nothing here derives a schedule.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "conditional_layer/packed_weights.hpp"

namespace fusedx {

struct Network {
    std::string family;  // diffmic-v1 or diffmic-v2
    int64_t num_classes = 0, feature_dim = 0;
    std::string prior_arch, feature_arch;
    int64_t backbone_width = 0;
    bool include_guidance = true, noise_prior = false;
    int64_t vit_width = 0, vit_depth = 0;

    bool is_v2() const { return family == "diffmic-v2"; }
};

struct Schedule {
    std::string beta_schedule;
    double beta_start = 0, beta_end = 0;
    int64_t train_timesteps = 0, steps = 0;
};

constexpr uint64_t kMaxDraws = 1 << 16;

bool is_sha256(const std::string& text);  // as 64 lower-case hexadecimal digits

struct FileEntry {
    std::string sha256;  // 64 lower-case hexadecimal digits
    uint64_t bytes = 0;
};

// What the model answered for the procedural image when it was compiled; tolerance: by how much each probability may differ elsewhere.
struct SelfTest {
    uint64_t seed = 0;
    int64_t draws = 1;
    std::vector<double> probabilities;
    double tolerance = 0;
};

struct Manifest {
    Network network;
    std::string task;  // multiclass or multilabel
    std::vector<std::string> classes;
    std::string class_source;
    Schedule schedule;
    bool apply_exif_orientation = false;
    std::string probabilities;  // for people
    std::string precision, encoder_precision = "fp32", default_sampler = "auto";
    WeightFormat weights = WeightFormat::fp32;  // `precision`
    int64_t default_draws = 1;
    uint64_t default_seed = 0;
    std::map<std::string, FileEntry> source, files;
    std::vector<std::string> notes;
    std::optional<SelfTest> self_test;
};

// `text`: the file's bytes.  Error(bad_model) says which key is wrong; a newer format is refused before anything else.
Manifest parse_manifest(std::string_view text);

}  // namespace fusedx
