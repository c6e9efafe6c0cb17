// fusedx._native: softmax and sigmoid.  They take microseconds, so the interpreter is not released.
#include "softmax/softmax.hpp"

#include "arguments.hpp"

namespace {

// Exactly this dtype, C-contiguous: a conversion would hide a mistake.
using Doubles = py::array_t<double, py::array::c_style>;

Doubles softmax(const Doubles& scores) {
    if (scores.ndim() != 2 || scores.shape(1) < 1) throw py::value_error("scores: expected float64 [rows, classes] with at least one class");
    Doubles out({scores.shape(0), scores.shape(1)});
    for (py::ssize_t row = 0; row < scores.shape(0); ++row)
        fusedx::softmax(scores.data() + row * scores.shape(1), scores.shape(1), out.mutable_data() + row * scores.shape(1));
    return out;
}

Doubles sigmoid(const Doubles& x) {
    if (x.ndim() != 1) throw py::value_error("x: expected float64 [n]");
    Doubles out(x.shape(0));
    for (py::ssize_t i = 0; i < x.shape(0); ++i) out.mutable_data()[i] = fusedx::sigmoid(x.data()[i]);
    return out;
}

}  // namespace

void add_softmax(py::module_& m) {
    m.def("softmax", &softmax, py::arg("scores").noconvert());
    m.def("sigmoid", &sigmoid, py::arg("x").noconvert());
}
