#include "engine/known_answers.hpp"

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "model/sha256.hpp"
#include "philox/philox.hpp"
#include "resize/resize.hpp"
#include "softmax/softmax.hpp"

namespace fusedx::known_answers {
namespace {

// uint8 [7, 9, 3], value 7 (3 row + 5 column + 40 channel + (row * column >> 4)) & 255.
std::vector<uint8_t> small_image() {
    std::vector<uint8_t> pixels;
    for (int r = 0; r < 7; ++r)
        for (int c = 0; c < 9; ++c)
            for (int channel = 0; channel < 3; ++channel) pixels.push_back(static_cast<uint8_t>(7 * (3 * r + 5 * c + 40 * channel + (r * c >> 4))));
    return pixels;
}

template <size_t N>
bool same_bits(const double (&a)[N], const double (&b)[N]) { return std::memcmp(a, b, sizeof a) == 0; }

}  // namespace

bool sha256() {
    struct Example { const char *text, *digest; };
    const Example examples[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
    };
    for (const Example& e : examples)
        if (hexadecimal(fusedx::sha256(e.text, std::strlen(e.text))) != e.digest) return false;
    const std::string many(1'000'000, 'a');  // whole blocks, in pieces
    Sha256 sha;
    for (size_t at = 0; at < many.size(); at += 1000) sha.update(many.data() + at, 1000);
    return hexadecimal(sha.finish()) == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";
}

bool philox() {
    struct Vector { uint32_t counter[4], key[2], words[4]; };
    const Vector vectors[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}, {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (const Vector& v : vectors) {
        uint32_t words[4];
        philox_words(v.key, v.counter, 1, words);
        if (std::memcmp(words, v.words, sizeof words) != 0) return false;
    }
    const uint32_t key[2] = {0xa4093822, 0x299f31d0}, counters[16] = {0, 0, 0, 0, 0, 249, 6, 0, 65535, 999, 3, 0, 7, 1, 0, 0};
    const double normal[4] = {-0x1.9cdc7d4e720c7p-3, -0x1.018e11a867ea2p+1, -0x1.4a63708a6f6a2p-2, 0x1.fe62369c237abp+0};
    const double uniform[4] = {0x1.d08f0a55bb620p-5, 0x1.d696e9de1ec26p-1, 0x1.5842262506d68p-4, 0x1.ba48764576409p-1};
    double drawn_normal[4], drawn_uniform[4];
    philox_normal(key, counters, 4, drawn_normal);
    philox_uniform(key, counters, 4, drawn_uniform);
    return same_bits(normal, drawn_normal) && same_bits(uniform, drawn_uniform);
}

bool resize() {
    const std::vector<uint8_t> from = small_image();
    const std::vector<uint8_t> shrunk = {47,  71,  95,  118, 142, 165, 186, 188, 136, 104, 78,  62, 92, 116, 140, 162, 180, 183,
                                         147, 109, 90,  80,  92,  113, 137, 161, 185, 184, 146, 113, 83, 80, 89,  117, 141, 165};
    const std::vector<uint8_t> grown = {20, 74,  140, 206, 132, 30, 84,  150, 194, 92, 43,  97,  163, 181, 45, 56,  110, 176, 194,
                                        61, 70,  124, 190, 163, 70, 83,  137, 203, 97, 74,  96,  150, 181, 61, 90,  110, 164, 175,
                                        47, 106, 123, 177, 188, 61, 121, 136, 192, 128, 76, 137, 146, 203, 77, 87, 148};
    std::vector<uint8_t> a(shrunk.size()), b(grown.size());
    resize_bilinear({from.data(), 7, 9, 3, 27, 3, 1}, 3, 4, a.data());
    resize_bilinear({from.data(), 7, 9, 1, 27, 3, 1}, 11, 5, b.data());
    return a == shrunk && b == grown;
}

bool softmax() {
    const double scores[7] = {-3.5, 0.25, 7.0, -0.0, 1e-3, 2.75, -41.0};
    const double expected[7] = {0x1.c6225a735215ep-16, 0x1.2db91be632e75p-10, 0x1.f74c9ef9f2c6cp-1,  0x1.d5f6df505b32fp-11,
                                0x1.d66f3e4d5880bp-11, 0x1.cb77aaff730f1p-7,  0x1.a768e810473cdp-70};
    const double sigmoids[2] = {0x1.36b7112534848p-4, 0x1.5bbd4f7a323ecp-1}, found[2] = {sigmoid(-2.5), sigmoid(0.75)};
    double probabilities[7];
    fusedx::softmax(scores, 7, probabilities);
    return same_bits(expected, probabilities) && same_bits(sigmoids, found);
}

}  // namespace fusedx::known_answers
