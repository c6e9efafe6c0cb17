// The small operations: kernels/philox, kernels/resize.
#include "arguments.hpp"
#include "philox/philox.hpp"
#include "resize/resize.hpp"

namespace {

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

}  // namespace

void add_operations(py::module_& m) {
    m.def("philox4x32", [](py::array key, py::array counters) { return philox<uint32_t>(fusedx::philox_words, key, counters, {0, 4}); });
    m.def("philox_uniform", [](py::array key, py::array counters) { return philox<double>(fusedx::philox_uniform, key, counters, {0}); });
    m.def("philox_normal", [](py::array key, py::array counters) { return philox<double>(fusedx::philox_normal, key, counters, {0}); });
    m.def("resize_bilinear", &resize_bilinear);
}
