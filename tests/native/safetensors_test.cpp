#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "check.hpp"
#include "model/safetensors.hpp"

using namespace fusedx;

// Memory of exactly the file's size, so that AddressSanitizer sees the first byte past it.
struct File {
    std::unique_ptr<uint8_t, decltype(&std::free)> memory;
    size_t size;

    explicit File(const std::string& raw)
        : memory(static_cast<uint8_t*>(std::malloc(raw.size() + !raw.size())), &std::free), size(raw.size()) {
        std::memcpy(memory.get(), raw.data(), size);
    }
    Bytes bytes() const { return {memory.get(), size}; }
};

static std::string with_header(std::string header, const std::string& data, uint64_t size = UINT64_MAX) {
    header.append((8 - header.size() % 8) % 8, ' ');
    if (size == UINT64_MAX) size = header.size();
    std::string raw;
    for (int i = 0; i < 8; ++i) raw += static_cast<char>(size >> (8 * i));
    return raw + header + data;
}

static const std::string kGood =
    R"({"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, "b": {"dtype": "F64", "shape": [1], "data_offsets": [24, 32]}})";

static auto read(const std::string& raw) { return read_safetensors(File(raw).bytes()); }

TEST(safetensors_reads_views) {
    const File file(with_header(kGood, std::string(32, '\1')));
    const auto tensors = read_safetensors(file.bytes());
    CHECK(tensors.size() == 2 && tensors.at("a").description() == "F32 [2, 3]" && tensors.at("b").dtype == Dtype::f64);
    CHECK(tensors.at("b").bytes.data() == file.bytes().data() + file.size - 8);
    const auto small = read(with_header(R"({"__metadata__": {"x": [1]}, "e": {"dtype": "BF16", "shape": [0, 4], "data_offsets": [0, 0]},
        "h": {"dtype": "F16", "shape": [], "data_offsets": [0, 2]}, "i": {"dtype": "I8", "shape": [1], "data_offsets": [2, 3]},
        "u": {"dtype": "U8", "shape": [1], "data_offsets": [3, 4], "further": null}})", "abcd"));
    CHECK(small.size() == 4 && small.at("h").shape.empty() && small.at("e").bytes.empty());
    CHECK(read(with_header("{}", "")).empty());
}

TEST(safetensors_every_truncation_and_extension) {
    const std::string whole = with_header(kGood, std::string(32, '\0'));
    for (size_t cut = 0; cut < whole.size(); ++cut) REFUSED(read(whole.substr(0, cut)), "");
    REFUSED(read(whole + "x"), "");
}

TEST(safetensors_header_sizes) {
    for (uint64_t size : {uint64_t{0}, uint64_t{1}, uint64_t{7}, uint64_t{1} << 20, uint64_t{1} << 32, ~uint64_t{0} >> 1, ~uint64_t{0} - 1})
        REFUSED(read(with_header(kGood, std::string(32, '\0'), size)), "");
}

static std::string one(const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return R"({"a": {"dtype": )" + dtype + R"(, "shape": )" + shape + R"(, "data_offsets": )" + offsets + "}}";
}

TEST(safetensors_broken_headers) {
    const std::string data(24, '\0');
    CHECK(read(with_header(one("\"F32\"", "[2, 3]", "[0, 24]"), data)).size() == 1);
    for (const std::string& header :
         {std::string("[]"), std::string("3"), std::string("nonsense"), std::string(R"({"a": 3})"), std::string(R"({"a": {}})"),
          std::string(R"({"a": {"dtype": "F32"}})"), one("\"F31\"", "[6]", "[0, 24]"), one("\"f32\"", "[6]", "[0, 24]"),
          one("\"I64\"", "[3]", "[0, 24]"), one("7", "[6]", "[0, 24]"), one("null", "[6]", "[0, 24]"), one("[\"F32\"]", "[6]", "[0, 24]"),
          one("\"F32\"", "[true, 6]", "[0, 24]"), one("\"F32\"", "[2.0, 3]", "[0, 24]"), one("\"F32\"", "[-2, -3]", "[0, 24]"),
          one("\"F32\"", "[7]", "[0, 24]"), one("\"F32\"", "6", "[0, 24]"), one("\"F32\"", "{\"6\": 1}", "[0, 24]"),
          one("\"F32\"", "[6]", "[0, 25]"), one("\"F32\"", "[6]", "[24, 0]"), one("\"F32\"", "[6]", "[-24, 0]"),
          one("\"F32\"", "[6]", "[0]"),
          one("\"F32\"", "[6]", "[0, 24, 48]"), one("\"F32\"", "[6]", "[false, 24]"), one("\"F32\"", "[6]", "[0.0, 24.0]"),
          one("\"F32\"", "[6]", "\"ab\""), one("\"F32\"", "[4611686018427387904, 4]", "[0, 24]"),
          one("\"F32\"", "[4294967296, 4294967296]", "[0, 0]"), one("\"F32\"", "[18446744073709551617, 0]", "[0, 0]"),
          one("\"F32\"", "[9223372036854775807, 9223372036854775807, 0]", "[0, 0]"),
          one("\"F32\"", "[6]", "[18446744073709551592, 18446744073709551616]"), one("\"F32\"", "[5]", "[4, 24]"),
          one("\"F32\"", "[5]", "[0, 20]"), one("\"F64\"", "[2]", "[4, 20]")})
        REFUSED(read(with_header(header, data)), "");
    const auto two = [](const char* first, const char* second) {
        return R"({"a": {"dtype": "U8", "shape": )" + std::string(first) + R"(}, "b": {"dtype": "U8", "shape": )" + second + "}}";
    };
    CHECK(read(with_header(two("[8], \"data_offsets\": [0, 8]", "[16], \"data_offsets\": [8, 24]"), data)).size() == 2);
    REFUSED(read(with_header(two("[8], \"data_offsets\": [0, 8]", "[15], \"data_offsets\": [9, 24]"), data)), "gaps");
    REFUSED(read(with_header(two("[9], \"data_offsets\": [0, 9]", "[16], \"data_offsets\": [8, 24]"), data)), "overlap");
    REFUSED(read(with_header(two("[24], \"data_offsets\": [0, 24]", "[24], \"data_offsets\": [0, 24]"), data)), "overlap");
}

template <class T>
static bool finite(Dtype dtype, std::vector<T> values) {
    const Bytes bytes{reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof(T)};
    return is_finite({dtype, {static_cast<int64_t>(values.size())}, bytes});
}

TEST(finite_at_every_place_and_in_every_type) {
    using Limits = std::numeric_limits<float>;
    for (size_t n : {0, 1, 3, 1023, 1024, 1025, 5000}) {
        std::vector<float> x(n, Limits::max());
        CHECK(finite(Dtype::f32, x));
        for (size_t at : {size_t{0}, n / 2, n - 1}) {
            if (at >= n) continue;
            for (float bad : {Limits::infinity(), -Limits::infinity(), Limits::quiet_NaN(), Limits::signaling_NaN()}) {
                std::vector<float> y = x;
                y[at] = bad;
                CHECK(!finite(Dtype::f32, y));
            }
        }
    }
    CHECK(finite(Dtype::f64, std::vector<double>{1e308, -0.0, 5e-324}) && !finite(Dtype::f64, std::vector<double>{1, NAN}));
    CHECK(finite(Dtype::f16, std::vector<uint16_t>{0x7bff, 0xfbff, 1}) && !finite(Dtype::f16, std::vector<uint16_t>{0, 0xfc00}));
    CHECK(finite(Dtype::bf16, std::vector<uint16_t>{0x7f7f, 0x7c00}) && !finite(Dtype::bf16, std::vector<uint16_t>{0xff81}));
    CHECK(finite(Dtype::i8, std::vector<uint8_t>{0x7f, 0xff}));
}
