#include "model/text.hpp"

#include <algorithm>
#include <cstdio>
#include <numeric>

namespace fusedx {

int32_t next_code_point(std::string_view text, size_t& at) {
    const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
    const uint32_t first = byte(at);
    if (first < 0x80) {
        ++at;
        return static_cast<int32_t>(first);
    }
    const size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    if (first < 0xc2 || first > 0xf4 || length > text.size() - at) return -1;
    uint32_t code = first & (0x7fu >> length);
    for (size_t i = 1; i < length; ++i) {
        if ((byte(at + i) & 0xc0) != 0x80) return -1;
        code = code << 6 | (byte(at + i) & 0x3fu);
    }
    const uint32_t least = length == 4 ? 0x10000 : length == 3 ? 0x800 : 0x80;
    if (code < least || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return -1;
    at += length;
    return static_cast<int32_t>(code);
}

bool is_utf8(std::string_view text) {
    for (size_t at = 0; at < text.size();)
        if (next_code_point(text, at) < 0) return false;
    return true;
}

void append_utf8(std::string& text, uint32_t code) {
    const auto put = [&](uint32_t byte) { text += static_cast<char>(byte); };
    if (code < 0x80) return put(code);
    if (code < 0x800) {
        put(0xc0 | code >> 6);
    } else if (code < 0x10000) {
        put(0xe0 | code >> 12);
        put(0x80 | (code >> 6 & 0x3f));
    } else {
        put(0xf0 | code >> 18);
        put(0x80 | (code >> 12 & 0x3f));
        put(0x80 | (code >> 6 & 0x3f));
    }
    put(0x80 | (code & 0x3f));
}

std::string quoted(std::string_view text, size_t limit) {
    std::string out = "'";
    size_t at = 0;
    while (at < text.size() && at < limit) {
        const size_t start = at;
        const int32_t code = next_code_point(text, at);
        char escape[16];
        if (code == '\'' || code == '\\') {
            out += {'\\', static_cast<char>(code)};
        } else if (code >= 0 && is_printable(static_cast<uint32_t>(code))) {
            out.append(text, start, at - start);
        } else {
            if (code < 0) ++at;
            std::snprintf(escape, sizeof escape, code < 0 || code < 256 ? "\\x%02x" : "\\u%04x",
                          code < 0 ? static_cast<unsigned char>(text[start]) : static_cast<unsigned>(code));
            out += escape;
        }
    }
    return out + (at < text.size() ? "...'" : "'");
}

std::string joined(const std::vector<std::string>& texts, size_t limit) {
    std::string out;
    for (const std::string& text : texts) {
        if (out.size() + text.size() > limit) return out + ", ...";
        out += (out.empty() ? "" : ", ") + text;
    }
    return out;
}

// Levenshtein's distance; both are short.
static size_t distance(std::string_view a, std::string_view b) {
    std::vector<size_t> row(b.size() + 1);
    std::iota(row.begin(), row.end(), size_t{0});
    for (size_t i = 0; i < a.size(); ++i) {
        size_t diagonal = row[0];
        row[0] = i + 1;
        for (size_t j = 0; j < b.size(); ++j) {
            const size_t changed = diagonal + (a[i] != b[j]);
            diagonal = row[j + 1];
            row[j + 1] = std::min({changed, row[j] + 1, diagonal + 1});
        }
    }
    return row.back();
}

std::string suggestion(std::string_view text, const std::vector<std::string>& known) {
    text = text.substr(0, 80);
    const std::string* nearest = nullptr;
    size_t best = text.size() / 3 + 2;  // farther than that is another word
    for (const std::string& name : known)
        if (const size_t far = distance(text, name); far < best) best = far, nearest = &name;
    return nearest ? "; did you mean '" + *nearest + "'?" : "";
}

}  // namespace fusedx
