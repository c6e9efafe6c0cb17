#include "model/measurements.hpp"

#include "model/manifest.hpp"
#include "model/text.hpp"

namespace fusedx {

namespace {

constexpr uint64_t kMaxSolverSteps = 100000, kMaxPictures = uint64_t{1} << 40;
constexpr double kLeastTemperature = 1e-3, kMostTemperature = 1e3, kMostLogLikelihood = 1e18;

// Null is as good as absent.
const json::Value* given(const Record& record, const char* key) {
    const json::Value* value = record.find(key);
    return value && !value->get<json::Null>() ? value : nullptr;
}

double within(const Record& record, const char* key, double low, double high) {
    const double value = record.real(key);
    if (!(value >= low && value <= high))
        throw Malformed(record.place(key) + " must be from " + std::to_string(low) + " to " + std::to_string(high) + ", got " +
                        std::to_string(value));
    return value;
}

double share(const Record& record, const char* key) { return within(record, key, 0, 1); }

struct Candidate {
    std::string precision, encoder_precision, verdict;
    uint64_t pictures;
    double label_change_bound, mean_shift_bound;
};

Candidate candidate(const json::Value& value) {
    const Record record(value, "manifest.precision_evidence.candidates",
                        {"precision", "encoder_precision", "cost_bytes", "pictures", "label_changes", "label_change_bound", "mean_shift",
                         "mean_shift_bound", "shift_95", "largest_shift", "verdict"});
    Candidate c{record.text("precision"), record.text("encoder_precision"), record.text("verdict"),
                record.whole("pictures", 1, kMaxPictures - 1), share(record, "label_change_bound"), share(record, "mean_shift_bound")};
    require_one_of("precision", c.precision, {std::begin(kWeightFormats), std::end(kWeightFormats)});
    require_one_of("encoder_precision", c.encoder_precision, {"fp32", "int8"});
    require_one_of("verdict", c.verdict, {"passed", "failed", "stopped"});
    record.whole("cost_bytes", 0, (uint64_t{1} << 60) - 1);
    record.whole("label_changes", 0, c.pictures);
    for (const char* key : {"mean_shift", "shift_95", "largest_shift"}) share(record, key);
    return c;
}

}  // namespace

void check_temperature(const Record& manifest, const std::string& task) {
    const json::Value* value = given(manifest, "temperature");
    if (!value) return;
    const Record record(*value, manifest.place("temperature"),
                        {"value", "images", "held_out", "ece_before", "ece_after", "nll_before", "nll_after"},
                        {"draws", "seed", "start", "solver", "solver_steps"});
    within(record, "value", kLeastTemperature, kMostTemperature);
    for (const char* key : {"images", "held_out"}) record.whole(key, 1, uint64_t{1} << 50);
    for (const char* key : {"ece_before", "ece_after"}) share(record, key);
    for (const char* key : {"nll_before", "nll_after"}) within(record, key, 0, kMostLogLikelihood);
    record.whole("draws", 1, kMaxDraws);
    record.whole("seed", 0, UINT64_MAX);
    require_one_of("temperature.start", record.text("start", "published"), {"published", "matched", "mean"});
    const std::string solver = record.text("solver", "published");
    require_one_of("temperature.solver", solver, {"published", "ddim", "dpmpp-2m", "unipc"});
    const bool has_steps = given(record, "solver_steps");
    if ((solver == "published") == has_steps)
        throw Malformed("temperature.solver_steps goes with a solver other than published, and only there");
    if (has_steps) record.whole("solver_steps", 1, kMaxSolverSteps);
    if (task != "multiclass")
        throw Malformed("a temperature is for models with one label a picture, and the scores of a multi-label one pass no softmax");
}

void check_precision_evidence(const Record& manifest, const std::string& precision, const std::string& encoder_precision) {
    const json::Value* value = given(manifest, "precision_evidence");
    if (!value) return;
    const std::string where = manifest.place("precision_evidence");
    const Record record(*value, where,
                        {"pictures", "pictures_sha256", "range_pictures", "draws", "seed", "confidence", "max_label_change",
                         "max_probability_shift", "computed_by", "candidates"},
                        {"left_out"});
    if (!is_sha256(record.text("pictures_sha256")))
        throw Malformed(where + ".pictures_sha256 is not a SHA-256 in hexadecimal: " + quoted(record.text("pictures_sha256")));
    const uint64_t pictures = record.whole("pictures", 1, kMaxPictures);
    record.whole("range_pictures", 0, kMaxPictures);
    record.whole("draws", 1, kMaxDraws);
    record.whole("seed", 0, UINT64_MAX);
    share(record, "confidence");
    const double max_label_change = share(record, "max_label_change"), max_shift = share(record, "max_probability_shift");
    record.text("computed_by");
    record.texts("left_out");
    const Candidate* chosen = nullptr;
    std::vector<Candidate> candidates;
    for (const json::Value& item : record.items("candidates")) candidates.push_back(candidate(item));
    for (const Candidate& c : candidates) {
        if (c.pictures > pictures) throw Malformed(where + ": a candidate was judged by more pictures than there were");
        const bool within_bounds = c.label_change_bound <= max_label_change && c.mean_shift_bound <= max_shift;
        if ((c.verdict == "passed") != (within_bounds && c.pictures == pictures))
            throw Malformed(where + ": " + c.precision + ", encoder " + c.encoder_precision + ": its verdict is not what its figures say");
        if (!chosen && c.verdict == "passed") chosen = &c;
    }
    if (!chosen || chosen->precision != precision || chosen->encoder_precision != encoder_precision)
        throw Malformed(where + " is not that of a model with weights in " + precision + " and the encoder in " + encoder_precision +
                        ": it chose " + (chosen ? chosen->precision + " and " + chosen->encoder_precision : "nothing"));
}

}  // namespace fusedx
