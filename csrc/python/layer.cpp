// kernels/conditional_layer: weights, packed once, and the layer.
#include "conditional_layer/conditional_layer.hpp"

#include <iterator>

#include "arguments.hpp"
#include "conditional_layer/packed_shapes.hpp"
#include "conditional_layer/weights.hpp"
#include "weights.hpp"

using fusedx::WeightFormat;

fusedx::WeightFormat weight_format(const std::string& name) {
    std::string list;
    for (int i = 0; i < static_cast<int>(std::size(fusedx::kWeightFormats)); ++i) {
        if (name == fusedx::kWeightFormats[i]) return static_cast<WeightFormat>(i);
        list.append(i ? ", " : "").append(fusedx::kWeightFormats[i]);
    }
    throw py::value_error("unknown weight format '" + name.substr(0, 100) + "'; there are: " + list);
}

static Shape shape(const std::vector<int64_t>& sizes) { return {sizes.begin(), sizes.end()}; }

fusedx::PackedView packed_view(const std::string& name, WeightFormat format, int64_t outputs, int64_t inputs, const py::array& panels,
                               const Maybe& scale) {
    const std::string own = name + ".panels", beside = name + ".scale";
    fusedx::PackedView view{format, outputs, inputs, panels.data(), nullptr, 0};
    const auto [stored, scaled] = fusedx::packed_shapes(format, outputs, inputs);
    if (scale.has_value() == scaled.empty()) throw py::value_error(beside + (scale ? ": this format has none" : ": missing"));
    switch (format) {
        case WeightFormat::fp32:
            check<float>(name.c_str(), panels, shape(stored), true);
            view.stride = row_stride(panels);
            break;
        case WeightFormat::bf16: check<uint16_t>(own.c_str(), panels, shape(stored)); break;
        case WeightFormat::fp16: check_kind(own.c_str(), py::dtype("float16"), panels, shape(stored)); break;
        case WeightFormat::int8:
            check<int8_t>(own.c_str(), panels, shape(stored));
            view.scale = check<float>(beside.c_str(), *scale, shape(scaled));
            break;
        case WeightFormat::int4:
            check<uint8_t>(own.c_str(), panels, shape(stored));
            check_kind(beside.c_str(), py::dtype("float16"), *scale, shape(scaled));
            view.scale = scale->data();
            break;
    }
    return view;
}

namespace {

fusedx::Weights made_weights(const std::string& format, int64_t outputs, int64_t inputs, py::array panels, Maybe scale) {
    if (outputs < 1 || inputs < 1) throw py::value_error("weight: expected at least one element");
    const fusedx::PackedView view = packed_view("weight", weight_format(format), outputs, inputs, panels, scale);
    WithoutGil release;
    return fusedx::Weights(view);
}

fusedx::Layer checked_layer(const py::array& u, const fusedx::Weights& weights, const py::array& a, const py::array& c, const py::array& t,
                            const Maybe& h, const Maybe& f, const Maybe& image, int64_t tangents) {
    fusedx::Layer x{};
    x.u = check<float>("u", u, {kAny, weights.inputs()}, true);
    refuse_empty("u", u);
    x.a = check<float>("a", a, {kAny, weights.outputs()}, true);
    refuse_empty("a", a);
    x.rows = u.shape(0), x.inputs = weights.inputs(), x.outputs = weights.outputs(), x.weights = weights.view();
    x.c = check<float>("c", c, {a.shape(0), x.outputs}, true);
    x.t = check<int32_t>("t", t, {x.rows});
    check_index("t", x.t, x.rows, a.shape(0));
    if (h) x.h = check<float>("h", *h, {kAny, x.outputs}, true), x.h_stride = row_stride(*h);
    if (f) x.f = check<float>("f", *f, {h ? h->shape(0) : kAny, x.outputs}, true), x.f_stride = row_stride(*f);
    if (h || f) {
        if (!image) throw py::value_error("image: expected int32 [rows] beside h or f, got None");
        x.image = check<int32_t>("image", *image, {x.rows});
        check_index("image", x.image, x.rows, (h ? h : f)->shape(0));
    }
    if (tangents < 0 || tangents > fusedx::kMostTangents)
        throw py::value_error("tangents: expected 0 to " + std::to_string(fusedx::kMostTangents) + ", got " + std::to_string(tangents));
    if (x.rows % (1 + tangents))
        throw py::value_error("u: expected groups of " + std::to_string(1 + tangents) + " rows, got " + std::to_string(x.rows) + " rows");
    x.tangents = tangents;
    x.u_stride = row_stride(u), x.a_stride = row_stride(a), x.c_stride = row_stride(c);
    return x;
}

void conditional_layer(py::array u, const fusedx::Weights& weights, py::array a, py::array c, py::array t, Maybe h, Maybe f, Maybe image,
                       py::array out, const std::string& isa, int64_t tangents) {
    const auto best = fusedx::choose_isa(isa);
    fusedx::Layer x = checked_layer(u, weights, a, c, t, h, f, image, tangents);
    x.out = check_out<float>("out", out, {x.rows, x.outputs}, true);
    x.out_stride = row_stride(out);
    WithoutGil release;
    fusedx::conditional_layer(x, best);
}

py::array projected_layer(py::array u, const fusedx::Weights& weights, py::array a, py::array c, py::array t, Maybe h, Maybe f, Maybe image,
                          py::array panels4, py::array bias4, const std::string& isa, int64_t tangents) {
    const auto best = fusedx::choose_isa(isa);
    fusedx::Layer x = checked_layer(u, weights, a, c, t, h, f, image, tangents);
    x.bias4 = check<double>("bias4", bias4, {kAny});
    refuse_empty("bias4", bias4);
    x.classes = bias4.shape(0);
    const int64_t panels = (x.outputs + fusedx::kPanel - 1) / fusedx::kPanel, groups = fusedx::padded_classes(x.classes) / fusedx::kClasses;
    x.panels4 = check<float>("panels4", panels4, {panels, groups, fusedx::kPanel, fusedx::kClasses});
    py::array_t<double> eps({x.rows, x.classes});
    x.eps = eps.mutable_data();
    {
        WithoutGil release;
        fusedx::conditional_layer(x, best);
    }
    return eps;
}

// The packed panels as they lie in memory, for tests of the layout: float [ceil(N / 32), K, 32].
py::array panels_of(const fusedx::Weights& weights) {
    if (weights.view().format != WeightFormat::fp32) throw py::value_error("panels: of fp32 weights alone");
    const int64_t count = (weights.outputs() + fusedx::kPanel - 1) / fusedx::kPanel;
    return py::array_t<float>({count, weights.inputs(), int64_t{fusedx::kPanel}}, static_cast<const float*>(weights.view().panels));
}

}  // namespace

void add_layer(py::module_& m) {
    py::class_<fusedx::Weights>(m, "Weights", "A weight matrix [N, K] as the kernels read it, in memory of its own.")
        .def(py::init(&made_weights), py::arg("format"), py::arg("outputs"), py::arg("inputs"), py::arg("panels"), py::arg("scale") = py::none())
        .def_property_readonly("shape", [](const fusedx::Weights& w) { return py::make_tuple(w.outputs(), w.inputs()); })
        .def_property_readonly("nbytes", &fusedx::Weights::bytes)
        .def("_panels", &panels_of);
    m.def("conditional_layer", &conditional_layer);
    m.def("projected_layer", &projected_layer);
}
