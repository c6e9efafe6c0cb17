// AMX's tile instructions in plain C++, as Intel's architecture manual has them, for a processor without any; included before the kernel.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace emulated {

struct Tile { uint8_t bytes[16][64]; };
struct Configuration { uint8_t palette, start_row, reserved[14]; uint16_t row_bytes[16]; uint8_t rows[16]; };
inline Tile tiles[8];
inline Configuration configuration;  // palette 0: none, and every tile instruction but this one faults

inline int rows(int tile) {
    if (configuration.palette != 1 || tile < 0 || tile > 7 || configuration.rows[tile] < 1) std::abort();
    return configuration.rows[tile];
}
inline int row_bytes(int tile) { rows(tile); return configuration.row_bytes[tile]; }

inline void load_configuration(const void* p) {
    std::memcpy(&configuration, p, sizeof configuration);
    if (configuration.palette != 1 || configuration.start_row) std::abort();
    for (int i = 0; i < 16; ++i)
        if (configuration.rows[i] > 16 || configuration.row_bytes[i] > 64 || (i > 7 && (configuration.rows[i] || configuration.row_bytes[i]))) std::abort();
    std::memset(tiles, 0, sizeof tiles);
}
inline void release() { std::memset(&configuration, 0, sizeof configuration); }
inline void zero(int tile) { rows(tile); std::memset(&tiles[tile], 0, sizeof(Tile)); }
inline void load(int tile, const void* p, int64_t stride) {
    zero(tile);
    for (int r = 0; r < rows(tile); ++r) std::memcpy(tiles[tile].bytes[r], static_cast<const char*>(p) + r * stride, row_bytes(tile));
}
inline void store(int tile, void* p, int64_t stride) {
    for (int r = 0; r < rows(tile); ++r) std::memcpy(static_cast<char*>(p) + r * stride, tiles[tile].bytes[r], row_bytes(tile));
}
inline void multiply(int c, int a, int b) {  // TDPBUSD: c[m][n] += sum over k of 4 unsigned bytes a[m][k] by 4 signed bytes b[k][n]
    if (rows(b) * 4 != row_bytes(a) || rows(a) != rows(c) || row_bytes(b) != row_bytes(c)) std::abort();
    for (int m = 0; m < rows(a); ++m)
        for (int n = 0; n < row_bytes(b) / 4; ++n) {
            int32_t sum;
            std::memcpy(&sum, &tiles[c].bytes[m][n * 4], 4);
            for (int k = 0; k < row_bytes(a); ++k) sum += tiles[a].bytes[m][k] * static_cast<int8_t>(tiles[b].bytes[k / 4][n * 4 + k % 4]);
            std::memcpy(&tiles[c].bytes[m][n * 4], &sum, 4);
        }
}

}  // namespace emulated

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbusd
#define _tile_loadconfig emulated::load_configuration
#define _tile_release emulated::release
#define _tile_zero emulated::zero
#define _tile_loadd emulated::load
#define _tile_stored emulated::store
#define _tile_dpbusd emulated::multiply
