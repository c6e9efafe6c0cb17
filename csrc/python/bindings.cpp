// fusedx._native: checks what Python passes, releases the interpreter, calls the kernels.  One file a topic.
#include "arguments.hpp"
#include "error.hpp"

PYBIND11_MODULE(_native, m) {
    m.doc() = "The C++ kernels of fusedx; call them through fusedx.kernels.<operation>.";
    py::register_local_exception_translator([](std::exception_ptr raised) {
        try {
            if (raised) std::rethrow_exception(raised);
        } catch (const fusedx::Error& error) {
            PyObject* type = PyExc_RuntimeError;
            if (error.status == fusedx::Status::out_of_memory) type = PyExc_MemoryError;
            else if (error.status != fusedx::Status::internal && error.status != fusedx::Status::cancelled) type = PyExc_ValueError;
            PyErr_SetString(type, error.what());
        }
    });
    add_machine(m);
    add_probes(m);
    add_layer(m);
    add_chain(m);
    add_operations(m);
    add_softmax(m);
}
