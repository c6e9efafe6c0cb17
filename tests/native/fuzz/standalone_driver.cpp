// What libFuzzer does, in small, for compilers without it: runs seeds, then a number of deterministic mutations of them.
//
//     fuzz_manifest [-runs=N] [-seconds=S] [-seed=N] FOLDER_OR_FILE...
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

using Input = std::vector<uint8_t>;

Input read(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

class Mutator {
public:
    explicit Mutator(uint64_t seed) : random_(seed) {}

    size_t below(size_t n) { return n ? random_() % n : 0; }

    void change(Input& input, const Input& other) {
        const size_t at = below(input.size() + 1), left = input.size() - at;
        const auto place = input.begin() + static_cast<std::ptrdiff_t>(at);
        switch (below(7)) {
            case 0:
                if (left) input[at] ^= static_cast<uint8_t>(1u << below(8));
                break;
            case 1:
                if (left) input[at] = static_cast<uint8_t>(random_());
                break;
            case 2: {  // numbers that overflow
                static const uint64_t edges[] = {0,          1,          0x7f, 0x80, 0xff, 0x7fffffff,
                                                 0xffffffff, uint64_t{1} << 62, ~uint64_t{0} >> 1, ~uint64_t{0}};
                const uint64_t edge = edges[below(std::size(edges))];
                if (left) std::memcpy(input.data() + at, &edge, std::min<size_t>(left, size_t{1} << below(4)));
                break;
            }
            case 3: input.erase(place, place + static_cast<std::ptrdiff_t>(below(std::min<size_t>(left, 64) + 1))); break;
            case 4: {
                const Input part(place, place + static_cast<std::ptrdiff_t>(below(std::min<size_t>(left, 64) + 1)));
                input.insert(input.begin() + static_cast<std::ptrdiff_t>(below(input.size() + 1)), part.begin(), part.end());
                break;
            }
            case 5: {  // a piece of another seed
                const size_t from = below(other.size()), length = below(std::min<size_t>(other.size() - from, 64) + 1);
                input.insert(place, other.data() + from, other.data() + from + length);
                break;
            }
            default: {  // digits and signs, which texts are made of
                static const char texts[] = "0123456789-+.eE\"{}[]:,\\u";
                if (left) input[at] = static_cast<uint8_t>(texts[below(sizeof texts - 1)]);
            }
        }
    }

private:
    std::mt19937_64 random_;
};

}  // namespace

int main(int argc, char** argv) {
    uint64_t runs = 10000, seed = 1;
    double seconds = 1e9;
    std::vector<Input> seeds;
    for (int i = 1; i < argc; ++i) {
        const std::string word = argv[i];
        if (word.starts_with("-runs=")) runs = std::strtoull(argv[i] + 6, nullptr, 10);
        else if (word.starts_with("-seed=")) seed = std::strtoull(argv[i] + 6, nullptr, 10);
        else if (word.starts_with("-seconds=")) seconds = std::strtod(argv[i] + 9, nullptr);
        else if (std::filesystem::is_directory(word)) {
            std::vector<std::filesystem::path> files;
            for (const auto& entry : std::filesystem::directory_iterator(word)) files.push_back(entry.path());
            std::sort(files.begin(), files.end());
            for (const auto& file : files) seeds.push_back(read(file));
        } else seeds.push_back(read(word));
    }
    seeds.emplace_back();
    for (const Input& input : seeds) LLVMFuzzerTestOneInput(input.data(), input.size());
    const auto start = std::chrono::steady_clock::now();
    Mutator mutator(seed);
    uint64_t run = 0;
    for (; run < runs && std::chrono::steady_clock::now() - start < std::chrono::duration<double>(seconds); ++run) {
        Input input = seeds[mutator.below(seeds.size())];
        for (size_t changes = 1 + mutator.below(5); changes; --changes) mutator.change(input, seeds[mutator.below(seeds.size())]);
        LLVMFuzzerTestOneInput(input.data(), input.size());
    }
    std::printf("%zu seeds, %llu mutations\n", seeds.size(), static_cast<unsigned long long>(run));
}
