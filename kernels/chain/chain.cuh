// The whole chain in one launch of one block a multiprocessor, all of them on the device at once.
//
//   per step: layer 1 | layer 2 | barrier 0 | layer 3 and partial layer 4 | barrier 1 | sum, update of the state
//
// hidden (u2) and partial need no second copy.  hidden of step i is read between barrier 0 of step i and that block's arrival at
// barrier 1; the next write to it is in step i + 1, after barrier 1, when all blocks have arrived.  partial of step i is read
// between barrier 1 of step i and that block's arrival at barrier 0 of step i + 1; the next write comes after that barrier.
#pragma once

#include "first_layer.cuh"
#include "grid_barrier.cuh"
#include "hidden_layer.cuh"
#include "step.cuh"

namespace fusedx {

// Brings the table rows of this step and of the next layer 1 into L2 while weights stream: each is used once a chain, at a moment
// when everything waits for it.  Layers 2 and 3 read the block's own outputs; layer 1's row, which all read, is divided.
FUSEDX_DEVICE void prefetch_tables(const ChainParams& p, Share share, int t, int next_t) {
    constexpr int kLine = 32;  // floats in 128 bytes
    const int64_t now = static_cast<int64_t>(t) * p.k, next = static_cast<int64_t>(next_t) * p.k;
    const int lines = (share.count * kTile + kLine - 1) / kLine + 1;  // a run of tiles may start inside a line
    for (int i = device::thread_index(); i < lines; i += kThreads) {
        const int output = (share.first * kTile / kLine + i) * kLine;
        if (output >= p.k) break;
        for (int layer = 1; layer < 3; ++layer) {
            device::prefetch(p.scale[layer] + now + output);
            device::prefetch(p.shift[layer] + now + output);
        }
    }
    const int blocks = device::block_count();
    for (int i = device::thread_index() * blocks + device::block_index(); i < p.k / kLine; i += blocks * kThreads) {
        device::prefetch(p.scale[0] + next + i * kLine);
        device::prefetch(p.shift[0] + next + i * kLine);
    }
}

// t: this step's table row; next_t: the next one's, or this one's again.
template <class Format>
FUSEDX_DEVICE bool run_step(const ChainParams& p, const Workspace<Format>& w, WeightStream& stream, GridBarrier& barrier, Share share,
                            int step, int t, int next_t) {
    first_layer(p, w, t);
    prefetch_tables(p, share, t, next_t);
    load_terms(p, w, step, t);
    device::sync_block();
    second_layer(p, w, stream, share, t);
    if (!barrier.meet(step, 0)) return false;
    gather_hidden(p, w);
    device::sync_block();
    third_layer(p, w, stream, share, t);
    if (!barrier.meet(step, 1)) return false;
    update_state(p, w, step);
    device::sync_block();
    return true;
}

template <class Format>
FUSEDX_DEVICE void run_chain(const ChainParams& p) {
    const Workspace<Format> w(p);
    const Share share(p.tiles);
    WeightStream stream(p, w, share, device::thread_index() / 32, device::thread_index() % 32);
    GridBarrier barrier(p.control, p.watchdog_ns, w.terms->alive);
    load_start(p, w);
    device::sync_block();
    int t = p.table_row[0];
    for (int step = 0; step < p.steps; ++step) {
        const int next_t = p.table_row[step + 1 < p.steps ? step + 1 : step];
        if (!run_step(p, w, stream, barrier, share, step, t, next_t)) break;
        t = next_t;
    }
    stream.finish();
}

}  // namespace fusedx
