// csrc/engine/chain.hpp for Python: every array of denoiser.safetensors is checked here.
#include "engine/chain.hpp"
#include "engine/sampler_choice.hpp"

#include <chrono>
#include <map>

#include "arguments.hpp"
#include "conditional_layer/conditional_layer.hpp"
#include "weights.hpp"

namespace {

using Arrays = std::map<std::string, py::array>;

class PythonChain {
public:
    PythonChain(Arrays arrays, const std::string& precision, const std::string& family, bool noise_prior, const std::string& isa,
                const std::function<void()>& copied)
        : view_(checked(arrays, precision, family, noise_prior)) {
        for (const char* name : {"weight_p", "scale1", "scale2", "scale3", "shift1", "shift2", "shift3", "coefficients"})
            kept_.push_back(arrays.at(name));  // viewed, not copied
        WithoutGil release;
        chain_.emplace(view_, isa, [&] {
            const py::gil_scoped_acquire interpreter;
            if (copied) copied();
        });
    }

    py::tuple run(const py::dict& encoded, py::array noise, bool keep, int64_t rows, double least_gain) const {
        const bool ddim = view_.family == fusedx::Family::ddim;
        const Encoded kept = checked_encoded(encoded);
        const fusedx::EncodedView& from = kept.view;
        const double* z = check<double>("noise", noise, {ddim ? 2 : view_.steps, kAny, from.images, view_.classes});
        const int64_t draws = noise.shape(1);
        if (draws < 1) refuse("noise", "at least one draw", noise);
        py::array_t<double> scores({draws, from.images, view_.classes});
        Shape shape{keep ? view_.steps + 1 : 2, draws, from.images};
        if (ddim) shape.push_back(fusedx::kMapPoints);
        shape.push_back(view_.classes);
        py::array_t<double> states(shape);
        double* const to = scores.mutable_data();
        if (rows < 0) throw py::value_error("rows: expected 0 (step by step) or more, got " + std::to_string(rows));
        if (!(least_gain >= 0)) throw py::value_error("least_gain: expected 0 (never) or more, got " + std::to_string(least_gain));
        std::vector<fusedx::SampleReport> report(draws * from.images);
        fusedx::RunOptions options;
        options.rows = rows, options.least_gain = least_gain, options.report = report.data();
        options.states = states.mutable_data(), options.ends_only = !keep;
        {
            WithoutGil release;
            Interrupts interrupts{release};
            options.poll = [](void* at) { static_cast<Interrupts*>(at)->look(); }, options.poll_context = &interrupts;
            chain_->run(from, z, draws, to, options);
        }
        py::array_t<int32_t> counts({int64_t{3}, draws, from.images});
        int32_t* count = counts.mutable_data();
        using Report = fusedx::SampleReport;
        for (int32_t Report::*field : {&Report::sweeps, &Report::evaluations, &Report::sequential_steps})
            for (const fusedx::SampleReport& sample : report) *count++ = sample.*field;
        return py::make_tuple(scores, states, counts[py::int_(0)], counts[py::int_(1)], counts[py::int_(2)]);
    }

    py::array eps(const py::dict& encoded, py::array y, int64_t step) const {
        const Encoded kept = checked_encoded(encoded);
        const fusedx::EncodedView& from = kept.view;
        Shape shape{from.images, view_.classes};
        if (view_.family == fusedx::Family::ddim) shape.insert(shape.begin() + 1, fusedx::kMapPoints);
        const double* state = check<double>("y", y, shape);
        if (step < 0 || step >= view_.steps)
            throw py::value_error("step: expected 0 to " + std::to_string(view_.steps - 1) + ", got " + std::to_string(step));
        py::array_t<double> eps(shape);
        double* const to = eps.mutable_data();
        {
            WithoutGil release;
            chain_->eps(from, state, step, to);
        }
        return eps;
    }

    // -> eps, or with `jacobian` (eps, its Jacobian).
    py::object denoise(py::array constant, py::array feature, py::array y, py::array step, py::array entry, bool jacobian) const {
        fusedx::ConditionView condition{};
        condition.constant = check<float>("constant", constant, {kAny, view_.features});
        condition.entries = constant.shape(0);
        condition.feature = check<float>("feature", feature, {condition.entries, view_.features});
        const double* const state = check<double>("y", y, {kAny, view_.classes});
        const int64_t rows = y.shape(0);
        const int32_t *const steps = check<int32_t>("step", step, {rows}), *const entries = check<int32_t>("entry", entry, {rows});
        check_index("step", steps, rows, view_.steps);
        check_index("entry", entries, rows, condition.entries);
        py::array_t<double> eps({rows, view_.classes});
        double* const to = eps.mutable_data();
        if (!jacobian) {
            WithoutGil release;
            chain_->eps(condition, state, steps, entries, rows, to);
        }
        if (!jacobian) return eps;
        py::array_t<double> slopes({rows, view_.classes, view_.classes});
        double* const slope = slopes.mutable_data();
        {
            WithoutGil release;
            chain_->eps_and_jacobian(condition, state, steps, entries, rows, to, slope);
        }
        return py::make_tuple(eps, slopes);
    }

    const fusedx::Chain& chain() const { return *chain_; }
    std::string precision() const { return fusedx::kWeightFormats[static_cast<int>(view_.weight2.format)]; }

private:
    // Ctrl-C reaches the interpreter only when somebody asks: between steps, ten times a second at most.
    struct Interrupts {
        WithoutGil& interpreter;
        std::chrono::steady_clock::time_point last = std::chrono::steady_clock::now();
        void look() {
            const auto now = std::chrono::steady_clock::now();
            if (now - last < std::chrono::milliseconds(100)) return;
            last = now;
            interpreter.check_signals();
        }
    };

    struct Encoded {  // the arrays live as long as the view, whatever becomes of the caller's mapping
        fusedx::EncodedView view;
        std::vector<py::array> arrays;
    };

    static fusedx::DenoiserView checked(const Arrays& arrays, const std::string& precision, const std::string& family, bool noise_prior);
    Encoded checked_encoded(const py::dict& encoded) const;

    fusedx::DenoiserView view_;
    std::vector<py::array> kept_;
    std::optional<fusedx::Chain> chain_;
};

const py::array& named(const Arrays& arrays, const std::string& name) {
    const auto found = arrays.find(name);
    if (found == arrays.end()) throw py::value_error(name + ": missing");
    return found->second;
}

fusedx::DenoiserView PythonChain::checked(const Arrays& arrays, const std::string& precision, const std::string& family, bool noise_prior) {
    fusedx::DenoiserView v{};
    if (family != "posterior" && family != "ddim") throw py::value_error("family: expected posterior or ddim, got '" + family.substr(0, 100) + "'");
    v.family = family == "ddim" ? fusedx::Family::ddim : fusedx::Family::posterior;
    v.noise_prior = noise_prior;
    if (noise_prior && family == "ddim") throw py::value_error("noise_prior: a ddim chain has no prior mean");
    const fusedx::WeightFormat format = weight_format(precision);
    const py::array &first = named(arrays, "weight_y"), &table = named(arrays, "scale1");
    v.weight_y = check<float>("weight_y", first, {kAny, kAny});
    refuse_empty("weight_y", first);
    v.features = first.shape(0), v.classes = first.shape(1);
    check<float>("scale1", table, {kAny, v.features});
    refuse_empty("scale1", table);
    v.steps = table.shape(0);
    if (v.steps > INT32_MAX || v.features > INT32_MAX) throw py::value_error("scale1: too large");
    const auto floats = [&](const std::string& name, const Shape& shape) { return check<float>(name.c_str(), named(arrays, name), shape); };
    v.weight_p = floats("weight_p", {v.features, v.classes});
    v.weight4 = floats("weight4", {v.classes, v.features});
    v.bias4 = floats("bias4", {v.classes});
    for (int k = 0; k < 3; ++k) {
        v.scale[k] = floats("scale" + std::to_string(k + 1), {v.steps, v.features});
        v.shift[k] = floats("shift" + std::to_string(k + 1), {v.steps, v.features});
    }
    v.coefficients = check<double>("coefficients", named(arrays, "coefficients"), {v.steps, fusedx::kCoefficients[static_cast<int>(v.family)]});
    for (int k : {2, 3}) {
        const std::string name = "weight" + std::to_string(k);
        const bool plain = format == fusedx::WeightFormat::fp32;
        const auto scale = arrays.find(name + ".scale");
        (k == 2 ? v.weight2 : v.weight3) = packed_view(name, format, v.features, v.features, named(arrays, plain ? name : name + ".panels"),
                                                       scale == arrays.end() ? Maybe{} : Maybe{scale->second});
    }
    return v;
}

// posterior: prior float64 [B, C] and feature float32 [B, F]; ddim: y_global, y_local float64 [B, C] and fused_feature.
PythonChain::Encoded PythonChain::checked_encoded(const py::dict& encoded) const {
    Encoded e{};
    const auto get = [&](const char* name) -> const py::array& {
        if (!encoded.contains(name)) throw py::value_error(std::string(name) + ": missing");
        const py::object value = encoded[name];
        if (!py::isinstance<py::array>(value))
            throw py::value_error(std::string(name) + ": expected an array, got " + py::str(py::type::of(value)).cast<std::string>());
        return e.arrays.emplace_back(py::reinterpret_borrow<py::array>(value));
    };
    const bool ddim = view_.family == fusedx::Family::ddim;
    const char* const name = ddim ? "fused_feature" : "feature";
    const py::array feature = get(name);
    e.view.feature = check<float>(name, feature, {kAny, view_.features});
    refuse_empty(name, feature);
    e.view.images = feature.shape(0);
    const auto state = [&](const char* of) { return check<double>(of, get(of), {e.view.images, view_.classes}); };
    if (ddim)
        e.view.y_global = state("y_global"), e.view.y_local = state("y_local");
    else
        e.view.prior = state("prior");
    return e;
}

}  // namespace

void add_chain(py::module_& m) {
    m.def("evaluation_ms", [](const std::string& precision, int64_t rows, const std::string& isa) {
        if (rows < 1) throw py::value_error("rows: expected at least 1, got " + std::to_string(rows));
        return fusedx::evaluation_ms(weight_format(precision), fusedx::choose_isa(isa), rows);
    }, py::arg("precision"), py::arg("rows"), py::arg("isa") = "",
          "Built-in milliseconds of one evaluation of the denoiser at F = 6144; see csrc/engine/sampler_choice.hpp.");
    m.def("choose_sampler", [](const std::string& precision, int64_t steps, int64_t chains, const std::string& isa) {
        const fusedx::SamplerPlan plan = fusedx::choose_sampler({}, weight_format(precision), fusedx::choose_isa(isa), steps, chains);
        return py::make_tuple(plan.rows, plan.least_gain);
    }, py::arg("precision"), py::arg("steps"), py::arg("chains"), py::arg("isa") = "",
          "What the C library's auto does: (rows a sweep or 0, least gain).");
    py::class_<PythonChain>(m, "Chain", "The chain of diffusion steps; see csrc/engine/chain.hpp.  Safe to use from several threads.")
        .def(py::init<Arrays, std::string, std::string, bool, std::string, std::function<void()>>(), py::arg("arrays"), py::arg("precision"), py::arg("family"),
             py::arg("noise_prior") = false, py::arg("isa") = "", py::arg("copied") = std::function<void()>{})
        .def("run", &PythonChain::run, py::arg("encoded"), py::arg("noise"), py::arg("keep") = false, py::arg("rows") = 0,
             py::arg("least_gain") = 0.0,
             "encoded: prior and feature (ddim: y_global, y_local, fused_feature); the states float64, features float32.  noise float64 "
             "[T, D, B, C] (ddim: [2, D, B, C]) -> (scores [D, B, C], states: all T + 1 if kept, else the first and the last; sweeps, "
             "evaluations and sequential_steps, int32 [D, B]).  rows, least_gain: see RunOptions.")
        .def("eps", &PythonChain::eps, py::arg("encoded"), py::arg("y"), py::arg("step"))
        .def("denoise", &PythonChain::denoise, py::arg("constant"), py::arg("feature"), py::arg("y"), py::arg("step"), py::arg("entry"),
             py::arg("jacobian") = false,
             "Rows of any step and entry: constant (W1_p p) and feature float32 [M, F], y float64 [R, C], step and entry int32 [R] -> eps "
             "float64 [R, C], or (eps, jacobian float64 [R, C, C]).")
        .def_property_readonly("weight_bytes", [](const PythonChain& c) { return c.chain().weight_bytes(); })
        .def("workspace_bytes",
             [](const PythonChain& c, int64_t images, int64_t draws, int64_t rows) { return c.chain().workspace_bytes(images, draws, rows); },
             py::arg("images"), py::arg("draws"), py::arg("rows") = 0)
        .def_property_readonly("isa", [](const PythonChain& c) { return std::string(fusedx::name(c.chain().isa())); })
        .def_property_readonly("precision", &PythonChain::precision);
}
