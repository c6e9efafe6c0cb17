// What this machine can do at best, beside which a kernel's figures are read: bytes read from memory and products from registers.
#pragma once

#include <cstdint>

namespace fusedx {

// Bytes a second at which the pool's threads together read `bytes` of memory again and again: huge pages where allowed, each part
// touched first by the thread that reads it, prefetched; the median pass of about `seconds`, with the best of several prefetch distances.
// Throws Error(bad_argument) below 1 MiB, Error(out_of_memory).
double read_bandwidth(int64_t bytes, double seconds);

// Operations a second (a product and its addition count as two) that the pool's threads do on registers alone, with the instruction
// that the kernels use; 0 where this processor has no such instruction or none is known here.
enum class Arithmetic { fp32, bf16, int8 };
double register_rate(Arithmetic arithmetic, double seconds);

}  // namespace fusedx
