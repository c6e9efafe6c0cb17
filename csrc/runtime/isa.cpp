#include "runtime/isa.hpp"

#include <cstdint>
#include <cstdlib>

#include "error.hpp"

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace fusedx {
namespace {

#if defined(__x86_64__)
struct Registers { uint32_t eax, ebx, ecx, edx; };

Registers cpuid(uint32_t leaf, uint32_t subleaf) {
    Registers r{};
    if (!__get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx)) return {};
    return r;
}

bool bit(uint32_t word, int at) { return word >> at & 1; }

// Which register files the operating system saves when it switches threads; a processor's own flags do not say.
uint64_t saved_registers() {
    if (!bit(cpuid(1, 0).ecx, 27)) return 0;  // OSXSAVE
    uint32_t low, high;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return uint64_t{high} << 32 | low;
}

// Linux hands out the 8 KB of tile registers only to processes that ask (since 5.16).
bool amx_permitted() {
#if defined(__linux__)
    constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    static const bool granted = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
    return granted;
#else
    return false;
#endif
}

// The bits are those of Intel's Software Developer's Manual, volume 2A, CPUID, and volume 1, 13.1 (XCR0).
bool runs(Isa isa) {
    if (isa == Isa::baseline) return true;
    const uint64_t saved = saved_registers();
    const Registers one = cpuid(1, 0), seven = cpuid(7, 0), next = cpuid(7, 1);
    const bool avx2 = (saved & 0x6) == 0x6 && bit(one.ecx, 28) && bit(one.ecx, 12) && bit(one.ecx, 29) && bit(seven.ebx, 5);  // AVX FMA F16C AVX2
    const bool avx512 = avx2 && (saved & 0xe0) == 0xe0 && bit(seven.ebx, 16) && bit(seven.ebx, 17) && bit(seven.ebx, 30) &&
                        bit(seven.ebx, 31);  // F DQ BW VL
    const bool vnni = avx512 && bit(seven.ecx, 11);
    switch (isa) {
        case Isa::avx2: return avx2;
        case Isa::avxvnni: return avx2 && bit(next.eax, 4);
        case Isa::avx512: return avx512;
        case Isa::avx512vnni: return vnni;
        case Isa::amx: return vnni && (saved & 0x60000) == 0x60000 && bit(seven.edx, 24) && bit(seven.edx, 25) && amx_permitted();  // TILE INT8
        default: return false;
    }
}
#elif defined(__aarch64__)
bool runs(Isa isa) {
#if defined(__linux__)
    constexpr unsigned long kDotProduct = 1ul << 20;  // HWCAP_ASIMDDP
    if (isa == Isa::neondot) return getauxval(AT_HWCAP) & kDotProduct;
#elif defined(__APPLE__)
    if (isa == Isa::neondot) return true;  // every Apple processor of this architecture
#endif
    return isa == Isa::neon;
}
#else
bool runs(Isa isa) { return isa == Isa::baseline; }
#endif

constexpr Isa kBuilt[] = {  // best first
#if defined(FUSEDX_HAS_amx)
    Isa::amx,
#endif
#if defined(FUSEDX_HAS_avx512vnni)
    Isa::avx512vnni,
#endif
#if defined(FUSEDX_HAS_avx512)
    Isa::avx512,
#endif
#if defined(FUSEDX_HAS_avxvnni)
    Isa::avxvnni,
#endif
#if defined(FUSEDX_HAS_avx2)
    Isa::avx2,
#endif
#if defined(FUSEDX_HAS_neondot)
    Isa::neondot,
#endif
#if defined(FUSEDX_HAS_neon)
    Isa::neon,
#endif
#if defined(FUSEDX_HAS_baseline)
    Isa::baseline,
#endif
};

Isa by_name(const std::string& wanted, const char* source) {
    std::string list;
    for (Isa isa : available_isas()) {
        if (wanted == name(isa)) return isa;
        list += (list.empty() ? "" : ", ") + std::string(name(isa));
    }
    throw Error(Status::unavailable, std::string(source) + "=" + wanted + " is not available on this machine; available: " + list);
}

}  // namespace

const char* name(Isa isa) {
    switch (isa) {
        case Isa::avx2: return "avx2";
        case Isa::avxvnni: return "avxvnni";
        case Isa::avx512: return "avx512";
        case Isa::avx512vnni: return "avx512vnni";
        case Isa::amx: return "amx";
        case Isa::neon: return "neon";
        case Isa::neondot: return "neondot";
        default: return "baseline";
    }
}

std::vector<Isa> available_isas() {
    std::vector<Isa> isas;
    for (Isa isa : kBuilt)
        if (runs(isa)) isas.push_back(isa);
    return isas;
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
