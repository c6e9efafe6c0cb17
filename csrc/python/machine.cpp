// What the processor offers: csrc/runtime.
#include <mutex>
#include <stdexcept>

#include "arguments.hpp"
#include "runtime/cpu_quota.hpp"
#include "runtime/isa.hpp"
#include "runtime/thread_pool.hpp"

namespace {

// For tests of the pool: the thread that ran each part, counted from 0 in the order of their first part; part `fail` throws.
std::vector<int> pool_probe(int parts, int fail) {
    struct Probe { std::vector<int> ran; int fail; } probe{std::vector<int>(parts), fail};
    WithoutGil release;
    fusedx::run_parts(parts, [](void* context, int part) {
        auto& p = *static_cast<Probe*>(context);
        if (part == p.fail) throw std::runtime_error("part " + std::to_string(part) + " failed as asked");
        ++p.ran[part];
    }, &probe);
    return probe.ran;
}

}  // namespace

void add_machine(py::module_& m) {
    m.def("isas", [] {
        std::vector<std::string> names;
        for (auto isa : fusedx::available_isas()) names.emplace_back(fusedx::name(isa));
        return py::tuple(py::cast(names));
    }, "Instruction sets built in and runnable on this machine, best first.");
    m.def("isa", [](const std::string& wanted) { return std::string(fusedx::name(fusedx::choose_isa(wanted))); }, py::arg("wanted") = "",
          "The instruction set in use (FUSEDX_ISA, else the best); ValueError lists what is available.");
    m.def("threads", &fusedx::pool_threads,
          "Threads that a kernel may use: FUSEDX_THREADS, else what the affinity mask and the CPU quota allow.");
    m.def("_cpu_quota", &fusedx::cpu_quota, py::arg("root") = "");
    m.def("_pool_probe", &pool_probe, py::arg("parts"), py::arg("fail") = -1);
}
