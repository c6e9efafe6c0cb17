// The whole test framework: TEST defines and registers a test, CHECK says where it failed and goes on.
#pragma once

#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "error.hpp"
#include "model/text.hpp"

namespace fusedx::test {

struct Case {
    const char* name;
    void (*body)();
};

inline std::vector<Case>& cases() {
    static std::vector<Case> all;
    return all;
}

struct Registered {
    Registered(const char* name, void (*body)()) { cases().push_back({name, body}); }
};

inline int failures = 0;

inline void check(bool holds, const char* what, const char* file, int line, const std::string& more = "") {
    if (holds) return;
    ++failures;
    std::printf("%s:%d: %s %s\n", file, line, what, more.c_str());
}

// What `body` throws says `text`; anything but an Error or Malformed would end the program.
inline void check_refused(const std::function<void()>& body, const std::string& text, const char* file, int line) {
    std::string said;
    try {
        body();
        return check(false, "was accepted, expected:", file, line, text);
    } catch (const Error& error) {
        said = error.what();
    } catch (const Malformed& error) {
        said = error.what();
    }
    check(said.find(text) != std::string::npos, "said:", file, line, said + " | expected: " + text);
    check(said.size() < 2500, "says too much", file, line);
}

}  // namespace fusedx::test

#define TEST(name)                                                        \
    static void name();                                                   \
    static const fusedx::test::Registered registered_##name(#name, name); \
    static void name()
#define CHECK(holds) fusedx::test::check((holds), #holds, __FILE__, __LINE__)
#define REFUSED(expression, text) fusedx::test::check_refused([&] { (void)(expression); }, text, __FILE__, __LINE__)
