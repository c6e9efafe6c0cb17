// What every binding shares: checks of what Python passes, and the release of the interpreter.
//
// Every array is checked here, once, in C++, because a layer may take less time than the same checks in Python.  A
// complaint names the argument and says what was expected and found.
#pragma once

#include <pybind11/functional.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <unistd.h>

#include <optional>
#include <string>
#include <vector>

namespace py = pybind11;
using Maybe = std::optional<py::array>;

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

    // Takes the interpreter back for a moment, for a Ctrl-C that waits to be heard; its exception is thrown.
    void check_signals() {
        PyEval_RestoreThread(state_);
        const bool failed = PyErr_CheckSignals() != 0;
        if (failed) {
            py::error_already_set error;
            state_ = PyEval_SaveThread();
            throw error;
        }
        state_ = PyEval_SaveThread();
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

[[noreturn]] inline void refuse(const char* name, const std::string& expected, const py::array& found) {
    const Shape shape(found.shape(), found.shape() + found.ndim());
    throw py::value_error(std::string(name) + ": expected " + expected + ", got " + py::str(found.dtype()).cast<std::string>() + text(shape));
}

// Dtype, alignment and shape; the last axis contiguous; every other axis too unless `rows_apart` allows any row stride.
inline void check_kind(const char* name, const py::dtype& dtype, const py::array& x, const Shape& shape, bool rows_apart = false) {
    const std::string expected = py::str(dtype).cast<std::string>() + text(shape);
    bool same = x.dtype().equal(dtype) && x.ndim() == static_cast<py::ssize_t>(shape.size());
    for (size_t i = 0; same && i < shape.size(); ++i) same = shape[i] == kAny || x.shape(i) == shape[i];
    if (!same) refuse(name, expected, x);
    const py::ssize_t size = dtype.itemsize();
    py::ssize_t step = size;
    for (py::ssize_t i = x.ndim() - 1; i >= 0 && x.size(); --i) {  // an empty array has no strides to speak of
        const bool free_stride = rows_apart && i == 0 && x.ndim() == 2;
        if (x.shape(i) > 1 && (free_stride ? x.strides(i) % size != 0 : x.strides(i) != step))
            refuse(name, expected + (rows_apart ? " with contiguous rows" : " contiguous"), x);
        step *= x.shape(i);
    }
    if (reinterpret_cast<uintptr_t>(x.data()) % size) refuse(name, expected + " aligned to its element", x);
}

template <class T>
const T* check(const char* name, const py::array& x, const Shape& shape, bool rows_apart = false) {
    check_kind(name, py::dtype::of<T>(), x, shape, rows_apart);
    return static_cast<const T*>(x.data());
}

template <class T>
T* check_out(const char* name, py::array& x, const Shape& shape, bool rows_apart = false) {
    check<T>(name, x, shape, rows_apart);
    if (!x.writeable()) refuse(name, "a writable array", x);
    return static_cast<T*>(x.mutable_data());
}

inline int64_t row_stride(const py::array& x) { return x.strides(0) / x.itemsize(); }

inline void check_index(const char* name, const int32_t* index, int64_t count, int64_t limit) {
    for (int64_t i = 0; i < count; ++i)
        if (index[i] < 0 || index[i] >= limit)
            throw py::value_error(std::string(name) + ": row " + std::to_string(i) + " is " + std::to_string(index[i]) +
                                  ", expected 0 to " + std::to_string(limit - 1));
}

inline void refuse_empty(const char* name, const py::array& x) {
    if (x.size() == 0) refuse(name, "at least one element", x);
}

// Each file of this folder adds the functions of its topic to the module.
void add_layer(py::module_& m);
void add_chain(py::module_& m);
void add_operations(py::module_& m);
void add_softmax(py::module_& m);
void add_machine(py::module_& m);
void add_probes(py::module_& m);
