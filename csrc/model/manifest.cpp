#include "model/manifest.hpp"

#include <algorithm>
#include <iterator>
#include <set>

#include "error.hpp"
#include "model/json.hpp"
#include "model/measurements.hpp"
#include "model/record.hpp"
#include "model/text.hpp"

namespace fusedx {

namespace {

constexpr const char* kFormat = "fusedx-compiled-model";
constexpr uint64_t kFormatVersion = 1;
constexpr uint64_t kMaxClasses = 1000, kMaxFileBytes = uint64_t{1} << 50;

const std::vector<std::string> kPrecisions(std::begin(kWeightFormats), std::end(kWeightFormats));

[[noreturn]] void refuse(const std::string& what) { throw Error(Status::bad_model, "manifest.json" + what); }

int64_t bounded(const Record& record, const char* key, uint64_t low, uint64_t high, uint64_t otherwise = 0) {
    return static_cast<int64_t>(record.whole(key, low, high, otherwise));
}

Network network(const json::Value& value, const json::Value* family) {
    if (value.find("family"))
        throw Malformed("manifest.network has an unknown key 'family'; it belongs to the top level");
    const Record record(value, "manifest.network", {"num_classes", "feature_dim", "prior_arch", "feature_arch", "backbone_width"},
                        {"include_guidance", "noise_prior", "vit_width", "vit_depth"});
    Network n;
    n.family = to_text(family ? *family : json::Value{}, "manifest.family");
    require_one_of("family", n.family, {"diffmic-v1", "diffmic-v2"});
    n.prior_arch = record.text("prior_arch");
    n.feature_arch = record.text("feature_arch");
    require_one_of("prior_arch", n.prior_arch, {"resnet18", "resnet50"});
    require_one_of("feature_arch", n.feature_arch, {"resnet18", "resnet50"});
    n.num_classes = bounded(record, "num_classes", 2, kMaxClasses);
    n.feature_dim = bounded(record, "feature_dim", 1, 1 << 17);
    n.backbone_width = bounded(record, "backbone_width", 1, 4096);
    n.include_guidance = record.flag("include_guidance", true);
    n.noise_prior = record.flag("noise_prior", false);
    if (!n.is_v2()) {  // said of a vision transformer that a v1 model has not: a number, of no consequence
        for (const char* key : {"vit_width", "vit_depth"})
            if (const json::Value* given = record.find(key); given && !given->get<json::Integer>())
                throw Malformed(record.place(key) + " must be int, got " + given->type());
        return n;
    }
    n.vit_width = bounded(record, "vit_width", 64, 1 << 14);
    n.vit_depth = bounded(record, "vit_depth", 1, 200);
    if (n.vit_width == 0 || n.vit_depth == 0) throw Malformed("diffmic-v2 needs vit_width and vit_depth");
    if (n.vit_width % 64) throw Malformed("vit_width must be a multiple of 64 (the head width), got " + std::to_string(n.vit_width));
    if (n.noise_prior || !n.include_guidance) throw Malformed("diffmic-v2 has neither noise_prior nor include_guidance: false");
    return n;
}

Schedule schedule(const json::Value& value, bool v2) {
    const Record record(value, "manifest.schedule", {"beta_schedule", "beta_start", "beta_end", "train_timesteps", "steps"});
    Schedule s;
    s.beta_schedule = record.text("beta_schedule");
    require_one_of("beta_schedule", s.beta_schedule,
                   {"linear", "const", "quad", "jsd", "sigmoid", "cosine", "cosine_reverse", "cosine_anneal"});
    s.train_timesteps = bounded(record, "train_timesteps", 2, 100000);
    s.steps = bounded(record, "steps", 1, static_cast<uint64_t>(s.train_timesteps));
    s.beta_start = record.real("beta_start");
    s.beta_end = record.real("beta_end");
    for (const auto& [name, beta] : {std::pair{"beta_start", s.beta_start}, {"beta_end", s.beta_end}})
        if (!(beta > 0 && beta < 1)) throw Malformed(std::string(name) + " must be a number between 0 and 1, got " + std::to_string(beta));
    if (v2 && s.beta_schedule != "linear")
        throw Malformed("beta_schedule " + quoted(s.beta_schedule) + ": DiffMIC-v2's sampler is specified for linear alone");
    return s;
}

// The library computes one preprocessing; true where the pictures' orientation is applied before it.
bool preprocessing(const json::Value& value) {
    const Record record(value, "manifest.preprocessing", {},
                        {"color", "crop", "size", "resize", "scale", "mean", "std", "exif_orientation"});
    const std::pair<const char*, const char*> texts[] = {
        {"color", "RGB, 8 bits, alpha dropped"},
        {"crop", "center square, corner at round((width - side) / 2), round((height - side) / 2), half to even"},
        {"resize", "bilinear, antialiased, on 8-bit values, horizontal pass first, as Pillow"},
        {"scale", "value / 255, then (value - mean) / std, float32"}};
    const std::pair<const char*, std::vector<double>> triples[] = {{"mean", {0.485, 0.456, 0.406}}, {"std", {0.229, 0.224, 0.225}}};
    const auto other = [](const std::string& key, const std::string& got, const std::string& computed) {
        return Malformed("preprocessing." + key + " is " + got + "; this fusedx computes " + computed + " only");
    };
    for (const auto& [key, wanted] : texts)
        if (const std::string got = record.text(key, wanted); got != wanted) throw other(key, quoted(got, 100), quoted(wanted, 100));
    for (const auto& [key, wanted] : triples) {
        if (!record.find(key)) continue;
        const std::vector<double> got = record.reals(key);
        if (got.size() != 3) throw Malformed(record.place(key) + " must have 3 entries, got " + std::to_string(got.size()));
        if (got != wanted) throw other(key, "another triple", std::to_string(wanted[0]) + ", " + std::to_string(wanted[1]) + ", " +
                                                                  std::to_string(wanted[2]));
    }
    if (const uint64_t size = record.whole("size", 0, UINT64_MAX, 224); size != 224) throw other("size", std::to_string(size), "224");
    const std::string orientation = record.text("exif_orientation", "ignore");
    require_one_of("exif_orientation", orientation, {"ignore", "apply"});
    return orientation == "apply";
}

std::map<std::string, FileEntry> entries(const Record& manifest, const char* key) {
    std::map<std::string, FileEntry> out;
    for (const json::Member& member : manifest.members(key)) {
        const Record record(member.value, manifest.place(key) + "." + quoted(member.key), {"sha256", "bytes"});
        FileEntry entry{record.text("sha256"), record.whole("bytes", 0, kMaxFileBytes)};
        if (!is_sha256(entry.sha256)) throw Malformed("not a SHA-256 in hexadecimal: " + quoted(entry.sha256));
        out.emplace(member.key, std::move(entry));
    }
    return out;
}

bool is_class_name(const std::string& name) {
    for (size_t at = 0; at < name.size();)
        if (!is_printable(static_cast<uint32_t>(next_code_point(name, at)))) return false;
    return name.find_first_not_of(' ') != std::string::npos;
}

std::vector<std::string> class_names(const Record& manifest, int64_t expected) {
    std::vector<std::string> names = manifest.texts("classes");
    if (static_cast<int64_t>(names.size()) != expected)
        throw Malformed(std::to_string(names.size()) + " class names for " + std::to_string(expected) + " classes");
    const std::set<std::string> distinct(names.begin(), names.end());
    if (distinct.size() != names.size() || !std::all_of(names.begin(), names.end(), is_class_name))
        throw Malformed("class names must be distinct, printable and not empty");
    return names;
}

std::optional<SelfTest> self_test(const Record& manifest, int64_t classes) {
    const json::Value* value = manifest.find("self_test");
    if (!value || value->get<json::Null>()) return {};
    const Record record(*value, "manifest.self_test", {"seed", "draws", "probabilities", "tolerance"});
    SelfTest test{record.whole("seed", 0, UINT64_MAX), bounded(record, "draws", 1, kMaxDraws), record.reals("probabilities"),
                  record.real("tolerance")};
    if (static_cast<int64_t>(test.probabilities.size()) != classes)
        throw Malformed("self_test has " + std::to_string(test.probabilities.size()) + " probabilities for " + std::to_string(classes) +
                        " classes");
    for (double p : test.probabilities)
        if (!(p >= 0 && p <= 1)) throw Malformed("self_test.probabilities must be from 0 to 1, got " + std::to_string(p));
    if (!(test.tolerance > 0 && test.tolerance <= 1))
        throw Malformed("self_test.tolerance must be above 0 and at most 1, got " + std::to_string(test.tolerance));
    return test;
}

Manifest manifest(const json::Value& value) {
    const Record record(value, "manifest",
                        {"network", "task", "classes", "class_source", "schedule", "preprocessing", "probabilities", "precision",
                         "default_draws", "default_seed", "source", "files", "versions"},
                        {"format", "format_version", "family", "notes", "metrics", "encoder_precision", "self_test", "default_sampler",
                         "temperature", "precision_evidence"});
    Manifest m;
    m.network = network(*record.find("network"), record.find("family"));
    m.task = record.text("task");
    require_one_of("task", m.task, {"multiclass", "multilabel"});
    m.classes = class_names(record, m.network.num_classes);
    m.class_source = record.text("class_source");
    m.schedule = schedule(*record.find("schedule"), m.network.is_v2());
    m.apply_exif_orientation = preprocessing(*record.find("preprocessing"));
    m.probabilities = record.text("probabilities");
    m.precision = record.text("precision");
    require_one_of("precision", m.precision, kPrecisions);
    m.weights = static_cast<WeightFormat>(std::find(kPrecisions.begin(), kPrecisions.end(), m.precision) - kPrecisions.begin());
    m.encoder_precision = record.text("encoder_precision", "fp32");
    require_one_of("encoder_precision", m.encoder_precision, {"fp32", "int8"});
    m.default_draws = bounded(record, "default_draws", 1, kMaxDraws);
    m.default_seed = record.whole("default_seed", 0, UINT64_MAX);
    m.source = entries(record, "source");
    m.files = entries(record, "files");
    for (const json::Member& version : record.members("versions")) to_text(version.value, "manifest.versions." + quoted(version.key));
    m.notes = record.texts("notes");
    record.members("metrics");
    check_temperature(record, m.task);
    check_precision_evidence(record, m.precision, m.encoder_precision);
    m.default_sampler = record.text("default_sampler", "auto");
    require_one_of("default_sampler", m.default_sampler, {"auto", "sequential", "parallel"});
    m.self_test = self_test(record, m.network.num_classes);
    return m;
}

void check_version(const json::Value& value) {
    const json::Value* format = value.find("format");
    const auto* name = format ? format->get<std::string>() : nullptr;
    if (!name || *name != kFormat) refuse(std::string(" does not describe a fusedx model (its \"format\" is not '") + kFormat + "')");
    const json::Value* given = value.find("format_version");
    const auto* version = given ? given->get<json::Integer>() : nullptr;
    if (!version || version->negative || (version->magnitude == 0 && !version->wide))
        refuse(" has no valid format_version: " + (given ? json::shown(*given) : "None"));
    if (version->wide || version->magnitude > kFormatVersion)
        throw Error(Status::bad_model, "the model has format " + json::shown(*given) + " and this fusedx reads up to " +
                                           std::to_string(kFormatVersion) +
                                           ": upgrade fusedx, or compile the checkpoint again with this version");
}

}  // namespace

bool is_sha256(const std::string& text) { return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string::npos; }

Manifest parse_manifest(std::string_view text) {
    json::Value value;
    try {
        value = json::parse(text);
    } catch (const Malformed& error) {
        refuse(std::string(" is not JSON: ") + error.what());
    }
    check_version(value);
    try {
        return manifest(value);
    } catch (const Malformed& error) {
        refuse(std::string(": ") + error.what());
    }
}

}  // namespace fusedx
