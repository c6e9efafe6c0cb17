// Layers 2 and 3 for the block's tiles: the stream of weights times the activations in shared memory.
//
// Each warp sums its eighth of K for every tile; the eight parts meet in shared memory, in ascending order of K, once for up to
// four tiles.  On a GPU with many processors that is once a layer, and no thread waits for another while weights stream.
#pragma once

#include "device.cuh"
#include "format.cuh"
#include "four.cuh"
#include "params.cuh"
#include "softplus.cuh"
#include "weight_stream.cuh"
#include "workspace.cuh"

namespace fusedx {

// Calls flush(first, count) for each run of tiles, counted from the block's first, whose sums are in w.sums.
template <int kLayer, class Format, class Flush>
FUSEDX_DEVICE void hidden_layer(const ChainParams& p, const Workspace<Format>& w, WeightStream& stream, Share share, Flush flush) {
    const int warp = device::thread_index() / 32, lane = device::thread_index() % 32;
    const int chunk_step = Format::kUnitsAChunk * p.rows * kUnitBytes;
    const char* segment = w.u + warp * p.stages_a_tile * kStageChunks * chunk_step;
    for (int tile = 0; tile < share.count; ++tile) {
        typename Format::Sums sums = {};
        const char* u = segment;
        for (int stage = 0; stage < p.stages_a_tile; ++stage) {
            const uint4* weights = stream.acquire<kLayer>(tile * p.stages_a_tile + stage);
            FUSEDX_UNROLL
            for (int c = 0; c < kStageChunks; ++c, u += chunk_step) Format::multiply(sums, weights[c * 32], u, p.rows, lane);
            stream.release();
        }
        const int slot = tile % kTilesAFlush;
        Format::store(sums, w.sums + (slot * kWarps + warp) * p.rows * kTile, p.rows, lane);
        if (slot == kTilesAFlush - 1 || tile == share.count - 1) {
            device::sync_block();
            flush(tile - slot, slot + 1);
            if (tile < share.count - 1) device::sync_block();  // the last flush is followed by a grid barrier
        }
    }
}

// softplus(a_t x + c_t) of element e of a flush, x the sum of the eight warps' parts.  Elements are [tile][row][output].
struct Element {
    int slot, row, output;  // output: of the whole layer

    FUSEDX_DEVICE Element(int e, int rows, int first_tile)
        : slot(e / kTile / rows), row(e / kTile % rows), output((first_tile + slot) * kTile + e % kTile) {}
};

FUSEDX_DEVICE float activated(const float* sums, const Element& e, const float* scale, const float* shift, int rows) {
    const float* part = sums + e.slot * kWarps * rows * kTile + e.row * kTile + e.output % kTile;
    float x = part[0];
    FUSEDX_UNROLL
    for (int warp = 1; warp < kWarps; ++warp) x += part[warp * rows * kTile];
    return softplus(device::fma(device::load_constant(scale + e.output), x, device::load_constant(shift + e.output)));
}

// Layer 2: u2 of the block's tiles to global memory, in the order in which every block will copy it.
template <class Format>
FUSEDX_DEVICE void second_layer(const ChainParams& p, const Workspace<Format>& w, WeightStream& stream, Share share, int t) {
    const float* scale = p.scale[1] + static_cast<int64_t>(t) * p.k;
    const float* shift = p.shift[1] + static_cast<int64_t>(t) * p.k;
    auto* hidden = static_cast<typename Format::Activation*>(p.hidden);
    hidden_layer<0>(p, w, stream, share, [&](int first, int count) {
        for (int i = device::thread_index(); i < count * p.rows * kTile; i += kThreads) {
            const Element e(i, p.rows, share.first + first);
            Format::write(hidden + activation_index<Format>(e.output, e.row, p.rows), activated(w.sums, e, scale, shift, p.rows));
        }
    });
}

// u2 of all blocks into w.u.  Beyond the last tile nobody wrote: zero, so that it times a zero weight is zero.
template <class Format>
FUSEDX_DEVICE void gather_hidden(const ChainParams& p, const Workspace<Format>& w) {
    const int per_unit = p.rows * kUnitBytes / 16;
    const int written = p.tiles * kTile / Format::kUnit * per_unit, all = p.k / Format::kUnit * per_unit;
    auto* u = reinterpret_cast<uint4*>(w.u);
    for (int i = device::thread_index(); i < all; i += kThreads)
        u[i] = i < written ? device::load_shared_by_blocks(static_cast<const uint4*>(p.hidden) + i) : uint4{0u, 0u, 0u, 0u};
}

// Layer 3 with layer 4 of each tile on top: partial[r][c][tile] = sum over the tile's outputs n, ascending, of W4[c, n] u3[r, n].
// u3 stays in fp32 and in shared memory.
template <class Format>
FUSEDX_DEVICE void third_layer(const ChainParams& p, const Workspace<Format>& w, WeightStream& stream, Share share, int t) {
    const float* scale = p.scale[2] + static_cast<int64_t>(t) * p.k;
    const float* shift = p.shift[2] + static_cast<int64_t>(t) * p.k;
    hidden_layer<1>(p, w, stream, share, [&](int first, int count) {
        for (int i = device::thread_index(); i < count * p.rows * kTile; i += kThreads)
            w.third[i] = activated(w.sums, Element(i, p.rows, share.first + first), scale, shift, p.rows);
        device::sync_block();
        const int pairs = p.rows * p.classes;
        for (int i = device::thread_index(); i < count * pairs; i += kThreads) {
            const int slot = i / pairs, row = i % pairs / p.classes, c = i % p.classes, tile = share.first + first + slot;
            const float* u3 = w.third + (slot * p.rows + row) * kTile;
            const float* weight = p.weight4 + static_cast<int64_t>(c) * p.k + tile * kTile;
            float sum = 0.0f;
            FUSEDX_UNROLL
            for (int n = 0; n < kTile; n += 4) {
                const Four four = load_four(weight + n);
                FUSEDX_UNROLL
                for (int i = 0; i < 4; ++i) sum = device::fma(four.x[i], u3[n + i], sum);
            }
            p.partial[(static_cast<int64_t>(row) * p.classes + c) * p.tiles + tile] = sum;
        }
    });
}

}  // namespace fusedx
