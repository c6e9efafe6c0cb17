// Known answers of FIPS 180-4's examples, and agreement of every form that this processor runs, at every length around a block's edge.
#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "check.hpp"
#include "model/sha256.hpp"
#include "model/sha256_blocks.hpp"

using namespace fusedx;

static std::string hash(const std::string& text) { return hexadecimal(sha256(text.data(), text.size())); }

TEST(sha256_known_answers) {
    CHECK(hash("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    CHECK(hash("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    CHECK(hash("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") ==
          "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    CHECK(hash("abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu") ==
          "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1");
    CHECK(hash(std::string(1000000, 'a')) == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(sha256_pieces_do_not_matter) {
    std::string text;
    for (int i = 0; i < 1000; ++i) text += static_cast<char>(i * 7 + i / 13);
    for (size_t length : {0, 1, 55, 56, 57, 63, 64, 65, 119, 120, 127, 128, 129, 1000}) {
        const std::string whole = hash(text.substr(0, length));
        for (size_t piece : {1, 3, 31, 63, 64, 65, 200}) {
            Sha256 in_pieces;
            for (size_t at = 0; at < length; at += piece) in_pieces.update(text.data() + at, std::min(piece, length - at));
            CHECK(hexadecimal(in_pieces.finish()) == whole);
        }
    }
}

TEST(sha256_every_form_agrees) {
    std::vector<uint8_t> data(64 * 37 + 1);
    for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<uint8_t>(i * 131 + (i >> 5));
    for (Sha256Blocks fast : {sha256_blocks_x86(), sha256_blocks_armv8()}) {
        if (!fast) continue;
        for (size_t blocks : {0, 1, 2, 37}) {
            uint32_t a[8] = {1, 2, 3, 4, 0xffffffff, 6, 7, 0x80000000}, b[8];
            std::memcpy(b, a, sizeof a);
            sha256_blocks_portable(a, data.data() + 1, blocks);  // not aligned
            fast(b, data.data() + 1, blocks);
            CHECK(std::memcmp(a, b, sizeof a) == 0);
        }
    }
    std::printf("     sha256 by %s\n", sha256_instructions());
}
