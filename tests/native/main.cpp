// model_tests [FOLDER]: all tests; those of whole models take the compiled model FOLDER, and are left out without one.
#include "main.hpp"

#include "check.hpp"

namespace fusedx::test {
std::string model_folder;
}

int main(int argc, char** argv) {
    using namespace fusedx::test;
    if (argc > 1) model_folder = argv[1];
    for (const Case& one : cases()) {
        const int before = failures;
        one.body();
        std::printf("%s %s\n", failures == before ? "ok  " : "FAIL", one.name);
    }
    std::printf("%zu tests, %d failures\n", cases().size(), failures);
    return failures != 0;
}
