// csrc/runtime/probes.hpp for the benchmarks.
#include "runtime/probes.hpp"

#include "arguments.hpp"

namespace {

double checked_seconds(double seconds) {
    if (!(seconds > 0 && seconds <= 60)) throw py::value_error("seconds: expected more than 0 and at most 60, got " + std::to_string(seconds));
    return seconds;
}

double register_rate(const std::string& arithmetic, double seconds) {
    using fusedx::Arithmetic;
    const double checked = checked_seconds(seconds);
    for (const auto& [name, kind] : {std::pair{"fp32", Arithmetic::fp32}, {"bf16", Arithmetic::bf16}, {"int8", Arithmetic::int8}})
        if (arithmetic == name) {
            WithoutGil release;
            return fusedx::register_rate(kind, checked);
        }
    throw py::value_error("arithmetic: expected fp32, bf16 or int8, got '" + arithmetic.substr(0, 100) + "'");
}

double read_bandwidth(int64_t bytes, double seconds) {
    const double checked = checked_seconds(seconds);
    WithoutGil release;
    return fusedx::read_bandwidth(bytes, checked);
}

}  // namespace

void add_probes(py::module_& m) {
    m.def("_read_bandwidth", &read_bandwidth, py::arg("bytes"), py::arg("seconds") = 0.5,
          "Bytes a second that the pool's threads read from so much memory, again and again.");
    m.def("_register_rate", &register_rate, py::arg("arithmetic"), py::arg("seconds") = 0.2,
          "Operations a second on registers alone; 0 where the processor has no instruction for it.");
}
