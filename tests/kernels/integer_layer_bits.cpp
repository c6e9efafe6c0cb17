// Runs the integer kernels of the one instruction set that this is compiled for (FUSEDX_ISA), without pool, Python or dispatch, over shapes
// that hurt, and prints a hash of every output's bits a line: the same text from every instruction set, on every processor.
// test_integer_isas.py compiles it for sets that this machine lacks and runs it on an emulator.
#include <cstdio>
#include <cstring>
#include <vector>

#include "conditional_layer/conditional_layer.hpp"
#include "error.hpp"

namespace {

using namespace fusedx;

struct Random {  // whole numbers that every machine turns into the same floats
    uint64_t state;
    uint32_t next() { return static_cast<uint32_t>((state = state * 6364136223846793005u + 1442695040888963407u) >> 33); }
    float unit() { return static_cast<float>(static_cast<int32_t>(next() & 0xffffff) - 0x800000) / 8388608.0f; }
};

std::vector<float> floats(Random& random, int64_t count, float scale) {
    std::vector<float> v(count);
    for (float& x : v) x = random.unit() * scale;
    return v;
}

uint64_t hash(const void* data, size_t bytes, uint64_t h = 14695981039346656037u) {  // FNV-1a
    for (size_t i = 0; i < bytes; ++i) h = (h ^ static_cast<const uint8_t*>(data)[i]) * 1099511628211u;
    return h;
}

struct Case { WeightFormat format; int64_t rows, outputs, inputs, classes; bool extreme; int64_t tangents = 0; };

uint64_t run(const Case& c) {
    Random random{static_cast<uint64_t>(c.rows * 1000003 + c.outputs * 1009 + c.inputs)};
    const bool int8 = c.format == WeightFormat::int8;
    const int64_t wide = (c.outputs + 63) / 64, groups = (c.inputs + 63) / 64, quads = int8 ? (c.inputs + 3) / 4 : groups * 8;
    std::vector<uint8_t> panels(wide * quads * 256);
    for (uint8_t& byte : panels) byte = c.extreme ? (random.next() & 1 ? 127 : 129) : static_cast<uint8_t>(random.next());
    std::vector<float> scale8 = floats(random, wide * 64, 0.01f);
    std::vector<uint16_t> scale4(wide * groups * 64);
    for (uint16_t& s : scale4) s = static_cast<uint16_t>(0x1000 + (random.next() & 0x83ff));  // both signs, about 2^-11
    std::vector<uint32_t> sums(wide * 64);
    const void* const scale = int8 ? static_cast<void*>(scale8.data()) : static_cast<void*>(scale4.data());
    integer_sums(c.format, c.inputs, panels.data(), scale, 0, wide, sums.data());

    const int64_t steps = 3, images = 2;
    std::vector<float> u = floats(random, c.rows * c.inputs, 3.0f), a = floats(random, steps * c.outputs, 2.0f), shift = floats(random, steps * c.outputs, 1.0f),
                       h = floats(random, images * c.outputs, 1.0f), f = floats(random, images * c.outputs, 1.0f), out(c.rows * c.outputs);
    if (c.extreme) for (float& x : u) x = 1.0f;
    std::vector<int32_t> t(c.rows), image(c.rows);
    for (int64_t r = 0; r < c.rows; ++r) t[r] = static_cast<int32_t>(random.next() % steps), image[r] = static_cast<int32_t>(random.next() % images);
    const int64_t panels4 = (c.outputs + 31) / 32, padded = padded_classes(c.classes);
    std::vector<float> weight4 = floats(random, panels4 * padded * 32, 1.0f);
    std::vector<double> partial(panels4 * padded * c.rows), bias(c.classes);

    Layer layer{};
    layer.rows = c.rows, layer.inputs = c.inputs, layer.outputs = c.outputs;
    layer.u = u.data(), layer.u_stride = c.inputs;
    layer.weights = {c.format, panels.data(), scale, sums.data()};
    layer.a = a.data(), layer.c = shift.data(), layer.h = h.data(), layer.f = f.data(), layer.t = t.data(), layer.image = image.data();
    layer.a_stride = layer.c_stride = layer.h_stride = layer.f_stride = layer.out_stride = c.outputs;
    layer.tangents = c.tangents;
    layer.classes = c.classes, layer.panels4 = weight4.data(), layer.bias4 = bias.data();
    const IntegerKernel& kernel = FUSEDX_ISA::integer_kernel;
    uint64_t result = hash("", 0);
    for (float* to : {out.data(), static_cast<float*>(nullptr)}) {
        layer.out = to;
        for (int64_t first = 0; first < c.rows; first += kernel.most_rows) {
            const int64_t rows = c.rows - first < kernel.most_rows ? c.rows - first : kernel.most_rows;
            std::vector<uint64_t> workspace(kernel.workspace_bytes(layer, rows) / 8 + 16);
            char* const aligned = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(workspace.data()) + 63) / 64 * 64);
            const IntegerRows these{first, rows, aligned, partial.data()};
            kernel.quantize(layer, these, 0, rows);
            kernel.panels(layer, these, 0, wide);
            if (!to) result = hash(partial.data(), panels4 * padded * rows * sizeof(double), result);
        }
    }
    return hash(out.data(), out.size() * sizeof(float), result);
}

}  // namespace

void print(const Case& c) {
    std::printf("%s %s rows %d, of them %d tangents to a value, N %d K %d %016llx\n", c.format == WeightFormat::int8 ? "int8" : "int4",
                c.extreme ? "extreme" : "random", static_cast<int>(c.rows), static_cast<int>(c.tangents), static_cast<int>(c.outputs),
                static_cast<int>(c.inputs), static_cast<unsigned long long>(run(c)));
}

int main() {
    const int64_t shapes[][2] = {{1, 1}, {3, 17}, {17, 3}, {63, 65}, {64, 64}, {65, 63}, {100, 257}, {257, 100}, {33, 600}, {70, 1030}};
    for (const WeightFormat format : {WeightFormat::int8, WeightFormat::int4})
        for (const bool extreme : {false, true})
            for (const auto& shape : shapes)
                for (const int64_t rows : {1, 2, 3, 4, 5, 6, 7, 12, 16, 17, 33, 64, 65}) {
                    if (extreme && rows % 8 != 1) continue;
                    print({format, rows, shape[0], shape[1], 1 + rows % 9, extreme, 0});
                }
    const int64_t groups[][2] = {{3, 2}, {9, 2}, {33, 2}, {8, 7}, {64, 7}};  // rows, tangents
    for (const WeightFormat format : {WeightFormat::int8, WeightFormat::int4})
        for (const auto& shape : shapes)
            for (const auto& [rows, tangents] : groups) print({format, rows, shape[0], shape[1], tangents, false, tangents});
}
