// Classifies pictures and prints one line of JSON for each:
//
//     classify_cpp MODEL.fusedx IMAGE.ppm...
#include <cstdio>
#include <exception>

#include "fusedx.hpp"
#include "image_file.h"

namespace {

std::string json(const std::string& text) {
    std::string out = "\"";
    for (const char c : text) {
        char escape[8];
        std::snprintf(escape, sizeof escape, c == '"' || c == '\\' ? "\\%c" : "\\u%04x", c);
        if (c == '"' || c == '\\' || (c >= 0 && c < 0x20)) out += escape;
        else out += c;
    }
    return out + "\"";
}

std::string number(double value) {  // 17 digits: the very number
    char text[32];
    std::snprintf(text, sizeof text, "%.17g", value);
    return text;
}

std::string by_class(const fx::Model& model, const std::vector<double>& values) {
    std::string out = "{";
    for (size_t c = 0; c < values.size(); ++c)
        out += (c ? ", " : "") + json(model.class_name(static_cast<int32_t>(c))) + ": " + number(values[c]);
    return out + "}";
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 3) {
        std::fprintf(stderr, "usage: %s MODEL.fusedx IMAGE.pgm|ppm...\n", argv[0]);
        return 2;
    }
    int failures = 0;
    try {
        const fx::Model model(argv[1]);
        for (int i = 2; i < argc; ++i) {
            image_file file;
            const char* wrong = image_file_read(argv[i], nullptr, &file);
            const std::unique_ptr<unsigned char, void (*)(void*)> pixels(file.pixels, std::free);
            try {
                if (wrong != nullptr) throw std::runtime_error(wrong);
                const fx::Prediction p = model.classify(file.image, model.defaults());
                std::printf("{\"source\": %s, \"label\": %s, \"probabilities\": %s, \"scores\": %s, \"prior\": %s, \"stability\": %s}\n",
                            json(argv[i]).c_str(), json(model.class_name(p.result.index)).c_str(), by_class(model, p.probabilities).c_str(),
                            by_class(model, p.scores).c_str(), by_class(model, p.prior).c_str(), number(p.result.stability).c_str());
            } catch (const std::exception& error) {  // this picture alone
                std::fprintf(stderr, "%s: %s\n", argv[i], error.what());
                ++failures;
            }
        }
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
    return failures == 0 ? 0 : 1;
}
