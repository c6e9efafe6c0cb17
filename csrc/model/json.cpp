#include "model/json.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "model/text.hpp"

namespace fusedx::json {

namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

class Parser {
public:
    explicit Parser(std::string_view text) : text_(text) {}

    Value whole() {
        Value value = element(0);
        blank();
        if (at_ != text_.size()) fail("something follows its end");
        return value;
    }

private:
    std::string_view text_;
    size_t at_ = 0;

    [[noreturn]] void fail(const std::string& what) const { throw Malformed(what + " (byte " + std::to_string(at_) + ")"); }

    char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }

    bool take(char c) {
        if (at_ == text_.size() || text_[at_] != c) return false;
        ++at_;
        return true;
    }

    void blank() {
        while (at_ < text_.size() && (peek() == ' ' || peek() == '\t' || peek() == '\n' || peek() == '\r')) ++at_;
    }

    Value element(int depth) {
        if (depth >= kMaxNesting) fail("it is nested too deeply");
        blank();
        switch (peek()) {
            case '{': return {object(depth)};
            case '[': return {array(depth)};
            case '"': return {string()};
            default: break;
        }
        if (peek() == '-' || is_digit(peek())) return number();
        for (const auto& [word, value] : {std::pair{"null", Value{}}, {"true", Value{true}}, {"false", Value{false}}})
            if (text_.substr(at_).starts_with(word)) {
                at_ += std::string_view(word).size();
                return value;
            }
        fail("a value was expected");
    }

    Array array(int depth) {
        Array items;
        ++at_;
        blank();
        if (take(']')) return items;
        do {
            items.push_back(element(depth + 1));
            blank();
        } while (take(','));
        if (!take(']')) fail("',' or ']' was expected");
        return items;
    }

    Object object(int depth) {
        Object members;
        ++at_;
        blank();
        if (take('}')) return members;
        do {
            blank();
            if (depth + 1 >= kMaxNesting) fail("it is nested too deeply");  // a key counts as its value does
            if (peek() != '"') fail("a key was expected");
            std::string key = string();
            blank();
            if (!take(':')) fail("':' was expected");
            members.push_back({std::move(key), element(depth + 1)});
            blank();
        } while (take(','));
        if (!take('}')) fail("',' or '}' was expected");
        refuse_twice(members);
        return members;
    }

    static void refuse_twice(const Object& members) {
        std::vector<std::string_view> keys;
        for (const Member& member : members) keys.push_back(member.key);
        std::sort(keys.begin(), keys.end());
        const auto twice = std::adjacent_find(keys.begin(), keys.end());
        if (twice != keys.end()) throw Malformed("the key " + quoted(*twice) + " is given twice");
    }

    std::string string() {
        std::string out;
        ++at_;
        while (!take('"')) {
            if (at_ == text_.size()) fail("a text does not end");
            if (static_cast<unsigned char>(peek()) < 0x20) fail("a control character stands inside a text");
            const size_t start = at_;
            if (take('\\')) {
                append_utf8(out, escaped());
            } else if (next_code_point(text_, at_) >= 0) {
                out.append(text_, start, at_ - start);
            } else {
                fail("it is not UTF-8 text");
            }
        }
        return out;
    }

    uint32_t escaped() {
        const char c = peek();
        ++at_;
        switch (c) {
            case '"': case '\\': case '/': return static_cast<unsigned char>(c);
            case 'b': return '\b';
            case 'f': return '\f';
            case 'n': return '\n';
            case 'r': return '\r';
            case 't': return '\t';
            case 'u': break;
            default: --at_; fail("an unknown escape");
        }
        const uint32_t high = four_digits();
        if (high < 0xd800 || high >= 0xe000) return high;
        if (high >= 0xdc00 || !take('\\') || !take('u')) fail("half of a surrogate pair");
        const uint32_t low = four_digits();
        if (low < 0xdc00 || low >= 0xe000) fail("half of a surrogate pair");
        return 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
    }

    uint32_t four_digits() {
        uint32_t code = 0;
        if (text_.size() - at_ < 4) fail("an escape does not end");
        const auto [end, error] = std::from_chars(text_.data() + at_, text_.data() + at_ + 4, code, 16);
        if (error != std::errc() || end != text_.data() + at_ + 4) fail("an escape has other than four hexadecimal digits");
        at_ += 4;
        return code;
    }

    void digits() {
        if (!is_digit(peek())) fail("a digit was expected");
        while (is_digit(peek())) ++at_;
    }

    Value number() {
        const size_t start = at_;
        const bool negative = take('-');
        const size_t first = at_;
        if (!take('0')) digits();
        if (peek() != '.' && peek() != 'e' && peek() != 'E') return {integer(text_.substr(first, at_ - first), negative)};
        if (take('.')) digits();
        if (take('e') || take('E')) {
            if (!take('+')) take('-');
            digits();
        }
        return {real(text_.substr(start, at_ - start))};
    }

    Integer integer(std::string_view all, bool negative) const {
        if (all.size() > kMaxDigits) fail("a number has more than " + std::to_string(kMaxDigits) + " digits");
        Integer value{0, negative, false};
        value.wide = std::from_chars(all.data(), all.data() + all.size(), value.magnitude).ec != std::errc();
        return value;
    }

    double real(std::string_view all) const {
        double value = 0;
        const auto [end, error] = std::from_chars(all.data(), all.data() + all.size(), value);
        if (error == std::errc::result_out_of_range) value = tiny(all) ? 0.0 : HUGE_VAL;
        if (!std::isfinite(value)) fail(quoted(all, 40) + " is too large");
        return value;
    }

    // Of a number that a double cannot hold: is it too small, rather than too large?  The place of its first digit decides.
    static bool tiny(std::string_view all) {
        const size_t mark = std::min(all.find_first_of("eE"), all.size()), point = std::min(all.find('.'), mark);
        const size_t first = all.find_first_of("123456789");
        if (first >= mark) return true;  // 0e999
        int64_t exponent = 0;
        if (mark < all.size()) {
            const bool down = all[mark + 1] == '-';
            const std::string_view power = all.substr(mark + (down || all[mark + 1] == '+' ? 2 : 1));
            const auto [end, error] = std::from_chars(power.data(), power.data() + power.size(), exponent);
            if (error != std::errc()) return down;  // further than any file is long
            if (down) exponent = -exponent;
        }
        return exponent + static_cast<int64_t>(point) - static_cast<int64_t>(first) < 0;
    }
};

}  // namespace

Value parse(std::string_view text) { return Parser(text).whole(); }

const Value* Value::find(std::string_view key) const {
    if (const Object* members = get<Object>())
        for (const Member& member : *members)
            if (member.key == key) return &member.value;
    return nullptr;
}

const char* Value::type() const {
    constexpr const char* names[] = {"NoneType", "bool", "int", "float", "str", "list", "dict"};
    return names[is.index()];
}

std::string shown(const Value& value) {
    if (const auto* flag = value.get<bool>()) return *flag ? "True" : "False";
    if (const auto* text = value.get<std::string>()) return quoted(*text, 100);
    if (const auto* n = value.get<Integer>())
        return n->wide ? "an integer of many digits" : std::string(n->negative ? "-" : "") + std::to_string(n->magnitude);
    if (const auto* x = value.get<double>()) {
        char digits[64];
        return {digits, std::to_chars(digits, digits + sizeof digits, *x).ptr};
    }
    return value.get<Null>() ? "None" : value.get<Array>() ? "a list" : "an object";
}

}  // namespace fusedx::json
