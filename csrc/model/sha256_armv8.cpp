// The SHA-2 instructions of ARMv8: four rounds a pair of instructions.  Compiled with +sha2 and called only where the processor has it.
#include "model/sha256_blocks.hpp"

#if defined(__aarch64__) && defined(__linux__) && defined(__ARM_FEATURE_CRYPTO)
#include <arm_neon.h>
#include <sys/auxv.h>
#endif

namespace fusedx {

#if defined(__aarch64__) && defined(__linux__) && defined(__ARM_FEATURE_CRYPTO)

static void blocks_armv8(uint32_t* state, const uint8_t* data, size_t blocks) {
    uint32x4_t abcd = vld1q_u32(state), efgh = vld1q_u32(state + 4);
    for (; blocks; --blocks, data += 64) {
        const uint32x4_t abcd_before = abcd, efgh_before = efgh;
        uint32x4_t w[4];  // the next sixteen words of the message schedule, a ring of four groups
        for (int i = 0; i < 4; ++i) w[i] = vreinterpretq_u32_u8(vrev32q_u8(vld1q_u8(data + 16 * i)));
        for (int group = 0; group < 16; ++group) {
            const uint32x4_t sum = vaddq_u32(w[group & 3], vld1q_u32(kSha256Round + 4 * group)), abcd_now = abcd;
            abcd = vsha256hq_u32(abcd, efgh, sum);
            efgh = vsha256h2q_u32(efgh, abcd_now, sum);
            if (group < 12)
                w[group & 3] = vsha256su1q_u32(vsha256su0q_u32(w[group & 3], w[(group + 1) & 3]), w[(group + 2) & 3], w[(group + 3) & 3]);
        }
        abcd = vaddq_u32(abcd, abcd_before);
        efgh = vaddq_u32(efgh, efgh_before);
    }
    vst1q_u32(state, abcd);
    vst1q_u32(state + 4, efgh);
}

Sha256Blocks sha256_blocks_armv8() {
    constexpr unsigned long kSha2 = 1ul << 6;  // HWCAP_SHA2 of Linux's asm/hwcap.h
    return getauxval(AT_HWCAP) & kSha2 ? blocks_armv8 : nullptr;
}

#else

Sha256Blocks sha256_blocks_armv8() { return nullptr; }

#endif

}  // namespace fusedx
