#include "runtime/isa.hpp"

#include <cstdlib>
#include <stdexcept>

namespace fusedx {

const char* name(Isa isa) {
    switch (isa) {
        case Isa::avx512: return "avx512";
        case Isa::avx2: return "avx2";
        default: return "baseline";
    }
}

std::vector<Isa> available_isas() {
    std::vector<Isa> isas;
#if defined(FUSEDX_HAS_X86)  // the builtins ask the processor and whether the operating system saves the wide registers
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        isas.push_back(Isa::avx512);
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) isas.push_back(Isa::avx2);
#endif
    isas.push_back(Isa::baseline);
    return isas;
}

static Isa by_name(const std::string& wanted, const char* source) {
    std::string list;
    for (Isa isa : available_isas()) {
        if (wanted == name(isa)) return isa;
        list += (list.empty() ? "" : ", ") + std::string(name(isa));
    }
    throw std::invalid_argument(std::string(source) + "=" + wanted + " is not available on this machine; available: " + list);
}

Isa choose_isa(const std::string& wanted) {
    if (!wanted.empty()) return by_name(wanted, "isa");
    static const Isa chosen = [] {  // a throw leaves it unset, so every call reports the bad setting
        const char* forced = std::getenv("FUSEDX_ISA");
        return forced && *forced ? by_name(forced, "FUSEDX_ISA") : available_isas().front();
    }();
    return chosen;
}

}  // namespace fusedx
