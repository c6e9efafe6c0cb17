#include <cmath>
#include <string>

#include "check.hpp"
#include "model/json.hpp"

using namespace fusedx;

TEST(json_values) {
    const json::Value value =
        json::parse(" {\"a\": [1, -2.5e3, null, true, \"\\u00e9\\ud83d\\ude00\"], \"b\\n\": {\"\": {}}, \"c\": 1E2}\r\n\t");
    const json::Array& a = *value.find("a")->get<json::Array>();
    CHECK(a.size() == 5 && a[0].get<json::Integer>()->magnitude == 1 && *a[1].get<double>() == -2500.0 && a[2].get<json::Null>());
    CHECK(*a[3].get<bool>() && *a[4].get<std::string>() == "\xc3\xa9\xf0\x9f\x98\x80");
    CHECK(value.find("b\n")->find("")->get<json::Object>()->empty() && *value.find("c")->get<double>() == 100.0 && !value.find("d"));
}

TEST(json_numbers) {
    const auto integer = [](const char* text) { return *json::parse(text).get<json::Integer>(); };
    CHECK(integer("18446744073709551615").magnitude == UINT64_MAX && !integer("18446744073709551615").wide);
    CHECK(integer("18446744073709551616").wide && integer("-1").negative && integer("-0").within(0, 0) && !integer("-1").within(0, 9));
    CHECK(integer(std::string(json::kMaxDigits, '9').c_str()).wide);
    REFUSED(json::parse(std::string(json::kMaxDigits + 1, '9')), "digits");
    const auto real = [](const std::string& text) { return *json::parse(text).get<double>(); };
    CHECK(real("5e-324") > 0 && real("1e-999") == 0 && real("-1e-99999999999999999999") == 0 && real("0e999999") == 0);
    CHECK(real("0.1") == 0.1 && real("1.7976931348623157e308") == 1.7976931348623157e308 && real("2.2250738585072011e-308") > 0);
    const std::string zeros(2000, '0');
    CHECK(real("0." + zeros + "1") == 0 && real("0." + zeros + "1e1500") == 0 && real("1" + zeros + "e-3000") == 0);
    CHECK(real("1" + zeros + "e-2000") == 1 && real("0." + zeros + "1e2001") == 1);
    for (const std::string& text : std::initializer_list<std::string>{"1e309", "-1e999", "1e99999999999999999999", "1" + zeros + ".5",
                                                                      "1" + zeros + "e-1000",
                                                                      "0." + zeros + "1e5000"})
        REFUSED(json::parse(text), "too large");
    for (const char* text :
         {"01", "+1", "1.", ".5", "1e", "1e+", "-", "--1", "0x1", "1_0", "NaN", "Infinity", "-Infinity", "nan", "1 2", "-01"})
        REFUSED(json::parse(text), "");
}

TEST(json_refuses_what_is_no_json) {
    for (const std::string& text :
         {std::string(""), std::string(" "), std::string("{"), std::string("["), std::string("[1,]"), std::string("{\"a\":1,}"),
          std::string("{\"a\"}"), std::string("{a:1}"), std::string("{\"a\":1 \"b\":2}"), std::string("[1 2]"), std::string("nul"),
          std::string("truee"), std::string("\"a"), std::string("\"\\"), std::string("\"\\x\""), std::string("\"\\u12\""),
          std::string("\"\\u12g4\""), std::string("\"\\u+123\""), std::string("\"\\u-123\""), std::string("\"a\nb\""),
          std::string("\"\0\"", 3), std::string("[]\0", 3), std::string("\xef\xbb\xbf{}"), std::string("\"\xff\""),
          std::string("\"\xc0\x80\""), std::string("\"\xed\xa0\x80\""), std::string("\"\xf4\x90\x80\x80\""), std::string("\"\xe2\x82"),
          std::string("'a'"), std::string("[1]]"), std::string("/**/1"), std::string("\v1")})
        REFUSED(json::parse(text), "");
    for (const char* text :
         {"\"\\ud800\"", "\"\\udfff\"", "\"\\ud800\\u0041\"", "\"\\ud800x\"", "\"\\ud800\\ud800\\udc00\"", "\"\\ud83d\\n\""})
        REFUSED(json::parse(text), "surrogate");
    REFUSED(json::parse("{\"\\u0061\": 1, \"a\": 2}"), "given twice");
    REFUSED(json::parse("[[{\"x\": {}, \"y\": 0, \"x\": []}]]"), "given twice");
}

TEST(json_nesting) {
    const auto nested = [](size_t depth, const std::string& core) {
        return std::string(depth, '[') + core + std::string(depth, ']');
    };
    CHECK(json::parse(nested(32, "")).get<json::Array>() != nullptr && json::parse(nested(31, "1")).get<json::Array>() != nullptr);
    REFUSED(json::parse(nested(33, "")), "nested");
    REFUSED(json::parse(nested(32, "1")), "nested");
    REFUSED(json::parse(nested(31, "{\"a\": 1}")), "nested");
    REFUSED(json::parse(std::string(3000000, '[')), "nested");
    std::string objects;
    for (int i = 0; i < 100000; ++i) objects += "{\"a\":";
    REFUSED(json::parse(objects), "nested");
}

TEST(json_many_keys_are_compared_quickly) {
    std::string text = "{";
    for (int i = 0; i < 200000; ++i) text.append("\"").append(std::to_string(i)).append("\":0,");
    CHECK(json::parse(text + "\"x\":0}").get<json::Object>()->size() == 200001);
    REFUSED(json::parse(text + "\"7\":0}"), "'7' is given twice");
}

TEST(text_in_messages_is_short_and_printable) {
    CHECK(quoted("a'b\\") == "'a\\'b\\\\'" && quoted(std::string("\0\x1b\xff", 3)) == "'\\x00\\x1b\\xff'");
    CHECK(quoted("\xe2\x80\xae") == "'\\u202e'" && quoted("\xc3\xa9") == "'\xc3\xa9'" && quoted(std::string(500, 'x')).size() < 90);
    CHECK(suggestion("clases", {"classes", "task"}) == "; did you mean 'classes'?" && suggestion("wholly other", {"task"}).empty());
    CHECK(is_printable(' ') && is_printable('~') && !is_printable(0x7f) && !is_printable(0xa0) && !is_printable(0x2028));
    CHECK(is_printable(0x4e2d) && !is_printable(0xe000) && !is_printable(0x10ffff) && is_printable(0x1f600) && !is_printable(0));
}
