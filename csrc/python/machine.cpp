// What the processor offers: csrc/runtime.
#include <mutex>
#include <stdexcept>

#include "arguments.hpp"
#include "runtime/cpu_quota.hpp"
#include "runtime/isa.hpp"
#include "runtime/thread_pool.hpp"

namespace {

// For tests of the pool: the thread that ran each part, by its number in the system; part `fail` throws.
std::vector<int> pool_probe(int parts, int fail) {
    struct Probe { std::vector<int> ran; int fail; } probe{std::vector<int>(parts), fail};
    WithoutGil release;
    fusedx::run_parts(parts, [](void* context, int part) {
        auto& p = *static_cast<Probe*>(context);
        if (part == p.fail) throw std::runtime_error("part " + std::to_string(part) + " failed as asked");
        if (p.ran[part]) throw std::runtime_error("part " + std::to_string(part) + " ran twice");
        p.ran[part] = gettid();
    }, &probe);
    return probe.ran;
}

// For tests: how a loop over `items` is cut under a budget (0: none), [begin, end) by part.
std::vector<std::pair<int64_t, int64_t>> loop_probe(int64_t items, int64_t work, int threads) {
    std::mutex lock;
    std::vector<std::pair<int64_t, int64_t>> shares;
    std::optional<fusedx::ThreadBudget> budget;
    if (threads) budget.emplace(threads);
    WithoutGil release;
    fusedx::parallel_for(items, work, [&](int64_t begin, int64_t end) {
        const std::lock_guard held(lock);
        shares.emplace_back(begin, end);
    });
    return shares;
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
    m.def("_loop_probe", &loop_probe, py::arg("items"), py::arg("work"), py::arg("threads") = 0);
    m.def("_pool_probe", &pool_probe, py::arg("parts"), py::arg("fail") = -1);
}
