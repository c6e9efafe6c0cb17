#include "runtime/probes.hpp"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <vector>

#include "error.hpp"
#include "runtime/memory.hpp"
#include "runtime/thread_pool.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace fusedx {
namespace {

constexpr int64_t kLine = 64, kBlock = 4 * kLine;  // bytes of a cache line, and of one turn of the loops below
constexpr int64_t kDistances[] = {0, 2048, 4096, 8192};  // bytes ahead; 0: the processor's own prefetch alone

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// The median time of `pass`, which runs for so many seconds and at least five times.
template <class Pass>
double median_time(double seconds, const Pass& pass) {
    std::vector<double> times;
    for (const double end = now() + seconds; times.size() < 5 || now() < end;) {
        const double started = now();
        pass();
        times.push_back(now() - started);
    }
    std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
    return times[times.size() / 2];
}

// The sum keeps the compiler from leaving the reads out.
uint64_t read_plain(const unsigned char* from, int64_t bytes, int64_t ahead) {
    uint64_t sums[8] = {};
    for (int64_t i = 0; i < bytes; i += kBlock) {
        if (ahead)
            for (int64_t line = 0; line < kBlock; line += kLine) __builtin_prefetch(from + i + ahead + line);
        const auto* words = reinterpret_cast<const uint64_t*>(from + i);
        for (int64_t w = 0; w < kBlock / 8; ++w) sums[w % 8] += words[w];
    }
    for (int i = 1; i < 8; ++i) sums[0] += sums[i];
    return sums[0];
}

#if defined(__x86_64__)
__attribute__((target("avx512f"))) uint64_t read_avx512(const unsigned char* from, int64_t bytes, int64_t ahead) {
    __m512i a = _mm512_setzero_si512(), b = a, c = a, d = a;
    for (int64_t i = 0; i < bytes; i += kBlock) {
        if (ahead)
            for (int64_t line = 0; line < kBlock; line += kLine) _mm_prefetch(reinterpret_cast<const char*>(from + i + ahead + line), _MM_HINT_T0);
        a = _mm512_xor_si512(a, _mm512_load_si512(from + i));
        b = _mm512_xor_si512(b, _mm512_load_si512(from + i + kLine));
        c = _mm512_xor_si512(c, _mm512_load_si512(from + i + 2 * kLine));
        d = _mm512_xor_si512(d, _mm512_load_si512(from + i + 3 * kLine));
    }
    alignas(64) uint64_t words[8];
    _mm512_store_si512(words, _mm512_xor_si512(_mm512_xor_si512(a, b), _mm512_xor_si512(c, d)));
    return words[0] ^ words[7];
}

// Twelve accumulators hide the latency of four cycles at up to three instructions a cycle; they stay in registers because each is named.
#define TWELVE(DO, ...) DO(0, __VA_ARGS__) DO(1, __VA_ARGS__) DO(2, __VA_ARGS__) DO(3, __VA_ARGS__) DO(4, __VA_ARGS__) DO(5, __VA_ARGS__) \
    DO(6, __VA_ARGS__) DO(7, __VA_ARGS__) DO(8, __VA_ARGS__) DO(9, __VA_ARGS__) DO(10, __VA_ARGS__) DO(11, __VA_ARGS__)
#define DEFINE(i, VECTOR) VECTOR sum##i{};
#define STEP(i, INSTRUCTION, REGISTER) asm volatile(INSTRUCTION " %2, %1, %0" : "+" REGISTER(sum##i) : REGISTER(u), REGISTER(w));
#define LOOP(NAME, TARGET, VECTOR, REGISTER, INSTRUCTION)                                      \
    __attribute__((target(TARGET))) void NAME(int64_t turns) {                                 \
        const VECTOR u{}, w{};                                                                 \
        TWELVE(DEFINE, VECTOR)                                                                 \
        for (int64_t i = 0; i < turns; ++i) { TWELVE(STEP, INSTRUCTION, REGISTER) }            \
    }
LOOP(int8_avx512, "avx512f,avx512vnni", __m512i, "v", "vpdpbusd")
LOOP(bf16_avx512, "avx512f,avx512bf16", __m512i, "v", "vdpbf16ps")
LOOP(fp32_avx512, "avx512f", __m512i, "v", "vfmadd231ps")
LOOP(fp32_avx2, "avx2,fma", __m256i, "x", "vfmadd231ps")
constexpr int kSums = 12;
#endif

struct Loop {
    void (*run)(int64_t turns);
    double operations;  // of one turn
};

// {nullptr, 0} where there is none.
Loop loop(Arithmetic arithmetic) {
#if defined(__x86_64__)
    const bool wide = __builtin_cpu_supports("avx512f");
    if (arithmetic == Arithmetic::int8 && __builtin_cpu_supports("avx512vnni")) return {int8_avx512, kSums * 16 * 4 * 2.0};
    if (arithmetic == Arithmetic::bf16 && __builtin_cpu_supports("avx512bf16")) return {bf16_avx512, kSums * 16 * 2 * 2.0};
    if (arithmetic == Arithmetic::fp32 && wide) return {fp32_avx512, kSums * 16 * 2.0};
    if (arithmetic == Arithmetic::fp32 && __builtin_cpu_supports("fma")) return {fp32_avx2, kSums * 8 * 2.0};
#endif
    static_cast<void>(arithmetic);
    return {nullptr, 0};
}

auto reader() {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) return read_avx512;
#endif
    return read_plain;
}

}  // namespace

double read_bandwidth(int64_t bytes, double seconds) {
    if (bytes < (1 << 20)) throw Error(Status::bad_argument, "read_bandwidth: expected at least 1 MiB, got " + std::to_string(bytes) + " bytes");
    const int parts = pool_threads();
    const int64_t share = bytes / parts / kBlock * kBlock;
    Buffer memory(static_cast<size_t>(share) * parts);
    struct Pass {
        unsigned char* at;
        int64_t share, ahead;
        decltype(reader()) read;
        std::vector<uint64_t> sums;  // of each part
    } pass{memory.as<unsigned char>(), share, 0, reader(), std::vector<uint64_t>(static_cast<size_t>(parts) * 8)};
    run_parts(parts, [](void* context, int part) {
        auto& p = *static_cast<Pass*>(context);
        std::fill_n(p.at + p.share * part, p.share, static_cast<unsigned char>(part + 1));
    }, &pass);
    double best = 0;
    for (const int64_t ahead : kDistances) {
        pass.ahead = ahead;
        const double time = median_time(seconds / std::size(kDistances), [&] {
            run_parts(parts, [](void* context, int part) {
                auto& p = *static_cast<Pass*>(context);
                p.sums[static_cast<size_t>(part) * 8] += p.read(p.at + p.share * part, p.share, p.ahead);
            }, &pass);
        });
        best = std::max(best, static_cast<double>(share) * parts / time);
    }
    return best;
}

double register_rate(Arithmetic arithmetic, double seconds) {
    const Loop found = loop(arithmetic);
    if (!found.run) return 0;
    constexpr int64_t kTurns = 200'000;  // about half a millisecond
    const int parts = pool_threads();
    struct Work { void (*run)(int64_t); } work{found.run};
    const double time = median_time(seconds, [&] { run_parts(parts, [](void* context, int) { static_cast<Work*>(context)->run(kTurns); }, &work); });
    return found.operations * kTurns * parts / time;
}

}  // namespace fusedx
