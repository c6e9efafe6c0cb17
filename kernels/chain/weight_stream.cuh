// One warp's endless stream of weights: layer 2, layer 3, layer 2, ... in stages of 2048 bytes.
//
// The warp copies into a ring of its own, and every lane reads back only the bytes that it copied itself, so waiting for a
// stage needs no barrier among threads.  A stage's slot is refilled as soon as it is used, with whatever comes next in the
// stream: the ring is full of the next layer's weights while the block waits at a grid barrier.
// The first `resident` stages of a layer are copied once and stay.
#pragma once

#include "device.cuh"
#include "params.cuh"
#include "workspace.cuh"

namespace fusedx {

class WeightStream {
public:
    // Stages of one warp in a layer are contiguous in memory: [warp][tile][stage of the tile].
    template <class Format>
    FUSEDX_DEVICE WeightStream(const ChainParams& p, const Workspace<Format>& w, Share share, int warp, int lane)
        : layer_stages_(share.count * p.stages_a_tile), ring_stages_(p.ring_stages) {
        const int lane_bytes = lane * 16;
        const int64_t first = (static_cast<int64_t>(warp) * p.tiles + share.first) * p.stages_a_tile * kStageBytes + lane_bytes;
        char* stay = w.resident + warp * (p.resident[0] + p.resident[1]) * kStageBytes + lane_bytes;
        second_ = Layer(p, 0, first, stay, layer_stages_);
        third_ = Layer(p, 1, first, stay + second_.resident * kStageBytes, layer_stages_);
        ring_ = w.ring + warp * ring_stages_ * kStageBytes + lane_bytes;
        left_ = static_cast<int64_t>(p.steps) * (2 * layer_stages_ - second_.resident - third_.resident);
        keep_ = device::policy_keep();
        leave_ = device::policy_leave();
        fill();
    }

    // The lane's part of the next stage of layer 2 (kLayer 0) or 3 (1), of which it is number `stage`: chunk c is at [c * 32].
    template <int kLayer>
    FUSEDX_DEVICE const uint4* acquire(int stage) {
        const Layer& layer = kLayer == 0 ? second_ : third_;
        from_ring_ = stage >= layer.resident;
        if (!from_ring_) return reinterpret_cast<const uint4*>(layer.stay + stage * kStageBytes);
        // Of the groups committed so far all but the newest ring_stages - 1 are complete: this stage's own is the next older one.
        device::copy_wait(ring_stages_ - 1);
        return reinterpret_cast<const uint4*>(ring_ + slot_ * kStageBytes);
    }

    // The stage last acquired has been read into registers and used: its slot may be written.
    FUSEDX_DEVICE void release() {
        if (!from_ring_) return;
        refill();
        slot_ = slot_ + 1 == ring_stages_ ? 0 : slot_ + 1;
    }

    // No copy may be in flight when the block leaves.
    FUSEDX_DEVICE void finish() { device::copy_wait(0); }

private:
    struct Layer {
        const char* source;  // the lane's part of the warp's first stage
        char* stay;          // the same of the stages that stay in shared memory
        int resident, kept;  // how many stay; up to which one the L2 cache is asked to keep

        Layer() = default;
        FUSEDX_DEVICE Layer(const ChainParams& p, int layer, int64_t first, char* stay, int stages)
            : source(static_cast<const char*>(p.weight[layer]) + first), stay(stay) {
            resident = p.resident[layer] < stages ? p.resident[layer] : stages;
            kept = resident + p.kept[layer];
        }
    };

    FUSEDX_DEVICE void fill() {
        for (int stage = 0; stage < second_.resident; ++stage) copy(second_.stay + stage * kStageBytes, source(second_, stage), leave_);
        for (int stage = 0; stage < third_.resident; ++stage) copy(third_.stay + stage * kStageBytes, source(third_, stage), leave_);
        device::copy_commit();
        next_ = third_;
        if (second_.resident < layer_stages_) next_ = second_;
        next_stage_ = next_.resident;
        for (slot_ = 0; slot_ < ring_stages_; ++slot_) refill();
        slot_ = 0;
        device::copy_wait(ring_stages_);  // the resident stages, which are never waited for again
    }

    // One group a call, empty at the end of the stream, so that counting groups is counting slots.
    FUSEDX_DEVICE void refill() {
        if (left_ > 0) {
            copy(ring_ + slot_ * kStageBytes, source(next_, next_stage_), next_stage_ < next_.kept ? keep_ : leave_);
            --left_;
            if (++next_stage_ == layer_stages_) begin_next_layer();
        }
        device::copy_commit();
    }

    // A layer that stays whole in shared memory is no part of the stream.
    FUSEDX_DEVICE void begin_next_layer() {
        if (next_.source == second_.source) {
            if (third_.resident < layer_stages_) next_ = third_;
        } else {
            if (second_.resident < layer_stages_) next_ = second_;
        }
        next_stage_ = next_.resident;
    }

    FUSEDX_DEVICE static const char* source(const Layer& layer, int stage) {
        return layer.source + static_cast<int64_t>(stage) * kStageBytes;
    }

    FUSEDX_DEVICE static void copy(char* to, const char* from, uint64_t policy) {
        FUSEDX_UNROLL
        for (int c = 0; c < kStageChunks; ++c) device::copy_async(to + c * kChunkBytes, from + c * kChunkBytes, policy);
    }

    Layer second_, third_;
    Layer next_;           // what refill() asks for next, and which stage of it
    int next_stage_ = 0;
    int64_t left_;         // stages not yet asked for, over the whole chain
    int layer_stages_, ring_stages_;
    char* ring_;
    uint64_t keep_, leave_;
    int slot_ = 0;         // of the ring: the oldest stage in it
    bool from_ring_ = false;
};

}  // namespace fusedx
