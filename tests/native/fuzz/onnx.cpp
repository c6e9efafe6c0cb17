// encoder.onnx: any bytes give a checked graph whose constants lie inside the files, or Malformed.  The data file is 4 MiB of zeros.
#include <cstdlib>
#include <vector>

#include "exact_copy.hpp"
#include "model/onnx_check.hpp"
#include "model/text.hpp"

using namespace fusedx;

static bool lies_in(Bytes part, Bytes whole) {
    return part.data() >= whole.data() && part.data() + part.size() <= whole.data() + whole.size();
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    static const std::vector<uint8_t> weights(4 << 20);
    const fuzz::ExactCopy copy(data, size);
    try {
        const onnx::Graph graph = onnx::read(copy.bytes(), weights);
        for (const auto& [name, tensor] : graph.constants)
            if (!tensor.bytes.empty() && !lies_in(tensor.bytes, copy.bytes()) && !lies_in(tensor.bytes, weights)) std::abort();
        onnx::check(graph);
        onnx::check_finite(graph, [](Bytes) {});
        for (const char* family : {"diffmic-v1", "diffmic-v2"}) {
            Network network;
            network.family = family;
            network.num_classes = 5;
            network.feature_dim = 16;
            onnx::check_network(graph, network);
        }
    } catch (const Malformed& error) {
        if (!is_utf8(error.what())) std::abort();
    }
    return 0;
}
