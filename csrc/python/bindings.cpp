// fusedx._native: checks what Python passes, releases the interpreter, calls the kernels.
//
// Every array is checked here, once, in C++, because a layer may take less time than the same checks in Python.  A
// complaint names the argument and says what was expected and found.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <unistd.h>

#include <optional>
#include <string>
#include <vector>

#include "runtime/cpu_quota.hpp"
#include "runtime/isa.hpp"
#include "kernels/conditional_layer/conditional_layer.hpp"
#include "kernels/philox/philox.hpp"
#include "kernels/resize/resize.hpp"
#include "runtime/thread_pool.hpp"

namespace py = pybind11;
using Maybe = std::optional<py::array>;

namespace {

// Other Python threads run while this lives.  Python up to 3.13 ends a daemon thread that comes back during shutdown by
// unwinding it, which would terminate the process in any C++ destructor (pybind11's own release included); such a thread
// waits here for the process to end, as Python 3.14 itself does.
class WithoutGil {
public:
    WithoutGil() : state_(PyEval_SaveThread()) {}
    WithoutGil(const WithoutGil&) = delete;
    ~WithoutGil() {
        try {
            PyEval_RestoreThread(state_);
        } catch (...) {
            for (;;) ::pause();
        }
    }

private:
    PyThreadState* state_;
};

constexpr py::ssize_t kAny = -1;
using Shape = std::vector<py::ssize_t>;

template <class Sizes>
std::string text(const Sizes& sizes) {
    std::string s = "[";
    for (size_t i = 0; i < sizes.size(); ++i) {
        if (i) s.append(", ");
        s.append(sizes[i] == kAny ? "?" : std::to_string(sizes[i]));
    }
    return s + "]";
}

[[noreturn]] void refuse(const char* name, const std::string& expected, const py::array& found) {
    const Shape shape(found.shape(), found.shape() + found.ndim());
    throw py::value_error(std::string(name) + ": expected " + expected + ", got " + py::str(found.dtype()).cast<std::string>() + text(shape));
}

// Dtype, alignment and shape; the last axis contiguous; every other axis too unless `rows_apart` allows any row stride.
template <class T>
const T* check(const char* name, const py::array& x, const Shape& shape, bool rows_apart = false) {
    const std::string expected = py::str(py::dtype::of<T>()).template cast<std::string>() + text(shape);
    bool same = py::isinstance<py::array_t<T>>(x) && x.ndim() == static_cast<py::ssize_t>(shape.size());
    for (size_t i = 0; same && i < shape.size(); ++i) same = shape[i] == kAny || x.shape(i) == shape[i];
    if (!same) refuse(name, expected, x);
    py::ssize_t step = sizeof(T);
    for (py::ssize_t i = x.ndim() - 1; i >= 0 && x.size(); --i) {  // an empty array has no strides to speak of
        const bool free_stride = rows_apart && i == 0 && x.ndim() == 2;
        if (x.shape(i) > 1 && (free_stride ? x.strides(i) % static_cast<py::ssize_t>(sizeof(T)) != 0 : x.strides(i) != step))
            refuse(name, expected + (rows_apart ? " with contiguous rows" : " contiguous"), x);
        step *= x.shape(i);
    }
    if (reinterpret_cast<uintptr_t>(x.data()) % sizeof(T)) refuse(name, expected + " aligned to its element", x);
    return static_cast<const T*>(x.data());
}

template <class T>
T* check_out(const char* name, py::array& x, const Shape& shape, bool rows_apart = false) {
    check<T>(name, x, shape, rows_apart);
    if (!x.writeable()) refuse(name, "a writable array", x);
    return static_cast<T*>(x.mutable_data());
}

int64_t row_stride(const py::array& x) { return x.strides(0) / x.itemsize(); }

void check_index(const char* name, const int32_t* index, int64_t count, int64_t limit) {
    for (int64_t i = 0; i < count; ++i)
        if (index[i] < 0 || index[i] >= limit)
            throw py::value_error(std::string(name) + ": row " + std::to_string(i) + " is " + std::to_string(index[i]) +
                                  ", expected 0 to " + std::to_string(limit - 1));
}

void refuse_empty(const char* name, const py::array& x) {
    if (x.size() == 0) refuse(name, "at least one element", x);
}

fusedx::Layer checked_layer(const py::array& u, const py::array& panels, const py::array& a, const py::array& c, const py::array& t,
                            const Maybe& h, const Maybe& f, const Maybe& image) {
    fusedx::Layer x{};
    x.u = check<float>("u", u, {kAny, kAny}, true);
    refuse_empty("u", u);
    x.a = check<float>("a", a, {kAny, kAny}, true);
    refuse_empty("a", a);
    x.rows = u.shape(0), x.inputs = u.shape(1), x.outputs = a.shape(1);
    x.panels = check<float>("panels", panels, {(x.outputs + fusedx::kPanel - 1) / fusedx::kPanel, x.inputs, fusedx::kPanel});
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
    x.u_stride = row_stride(u), x.a_stride = row_stride(a), x.c_stride = row_stride(c);
    return x;
}

void conditional_layer(py::array u, py::array panels, py::array a, py::array c, py::array t, Maybe h, Maybe f, Maybe image, py::array out,
                       const std::string& isa) {
    const auto best = fusedx::choose_isa(isa);
    fusedx::Layer x = checked_layer(u, panels, a, c, t, h, f, image);
    x.out = check_out<float>("out", out, {x.rows, x.outputs}, true);
    x.out_stride = row_stride(out);
    WithoutGil release;
    fusedx::conditional_layer(x, best);
}

py::array projected_layer(py::array u, py::array panels, py::array a, py::array c, py::array t, Maybe h, Maybe f, Maybe image,
                          py::array panels4, py::array bias4, const std::string& isa) {
    const auto best = fusedx::choose_isa(isa);
    fusedx::Layer x = checked_layer(u, panels, a, c, t, h, f, image);
    x.bias4 = check<double>("bias4", bias4, {kAny});
    refuse_empty("bias4", bias4);
    x.classes = bias4.shape(0);
    x.panels4 = check<float>("panels4", panels4, {panels.shape(0), fusedx::padded_classes(x.classes) / fusedx::kClasses, fusedx::kPanel, fusedx::kClasses});
    py::array_t<double> eps({x.rows, x.classes});
    x.eps = eps.mutable_data();
    {
        WithoutGil release;
        fusedx::conditional_layer(x, best);
    }
    return eps;
}

void pack(py::array weight, py::array panels) {
    const float* from = check<float>("weight", weight, {kAny, kAny}, true);
    refuse_empty("weight", weight);
    const int64_t outputs = weight.shape(0), inputs = weight.shape(1), stride = row_stride(weight);
    float* to = check_out<float>("panels", panels, {(outputs + fusedx::kPanel - 1) / fusedx::kPanel, inputs, fusedx::kPanel});
    WithoutGil release;
    fusedx::pack_panels(from, stride, outputs, inputs, to);
}

template <class T>
py::array philox(void (*kernel)(const uint32_t*, const uint32_t*, int64_t, T*), py::array key, py::array counters, Shape shape) {
    const uint32_t* k = check<uint32_t>("key", key, {2});
    const uint32_t* from = check<uint32_t>("counters", counters, {kAny, 4});
    const int64_t count = shape[0] = counters.shape(0);
    py::array_t<T> out(shape);
    T* to = out.mutable_data();
    {
        WithoutGil release;
        kernel(k, from, count, to);
    }
    return out;
}

py::array resize_bilinear(py::array pixels, int64_t height, int64_t width) {
    if (!py::isinstance<py::array_t<uint8_t>>(pixels) || pixels.ndim() != 3 || (pixels.shape(2) != 1 && pixels.shape(2) != 3))
        refuse("pixels", "uint8 [height, width, 1 or 3]", pixels);
    refuse_empty("pixels", pixels);
    if (height < 1 || width < 1) throw py::value_error("height, width: expected at least 1 each");
    const fusedx::Pixels from{static_cast<const uint8_t*>(pixels.data()), pixels.shape(0), pixels.shape(1), pixels.shape(2),
                              pixels.strides(0), pixels.strides(1), pixels.strides(2)};
    py::array_t<uint8_t> out({height, width, from.channels});
    uint8_t* to = out.mutable_data();
    {
        WithoutGil release;
        fusedx::resize_bilinear(from, height, width, to);
    }
    return out;
}

// For tests of the pool: how many parts ran, each counted once; part `fail` throws.
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

void bind_softmax(py::module_& m);  // softmax.cpp

PYBIND11_MODULE(_native, m) {
    m.doc() = "The C++ kernels of fusedx; call them through fusedx.kernels.<operation>.";
    m.def("isas", [] {
        std::vector<std::string> names;
        for (auto isa : fusedx::available_isas()) names.emplace_back(fusedx::name(isa));
        return py::tuple(py::cast(names));
    }, "Instruction sets built in and runnable on this machine, best first.");
    m.def("isa", [](const std::string& wanted) { return std::string(fusedx::name(fusedx::choose_isa(wanted))); }, py::arg("wanted") = "",
          "The instruction set in use (FUSEDX_ISA, else the best); ValueError lists what is available.");
    m.def("threads", &fusedx::pool_threads, 
          "Threads that a kernel may use: FUSEDX_THREADS, else what the affinity mask and the CPU quota allow.");
    m.def("conditional_layer", &conditional_layer);
    m.def("projected_layer", &projected_layer);
    m.def("pack", &pack);
    m.def("philox4x32", [](py::array key, py::array counters) { return philox<uint32_t>(fusedx::philox_words, key, counters, {0, 4}); });
    m.def("philox_uniform", [](py::array key, py::array counters) { return philox<double>(fusedx::philox_uniform, key, counters, {0}); });
    m.def("philox_normal", [](py::array key, py::array counters) { return philox<double>(fusedx::philox_normal, key, counters, {0}); });
    m.def("resize_bilinear", &resize_bilinear);
    bind_softmax(m);
    m.def("_cpu_quota", &fusedx::cpu_quota, py::arg("root") = "");
    m.def("_pool_probe", &pool_probe, py::arg("parts"), py::arg("fail") = -1);
}
