// All blocks of the launch meet.  The counter only rises: barrier number n is complete when it reaches (n + 1) * blocks, so no
// block can mistake one barrier for the next and nothing is ever reset.  Two barriers a step and 170 blocks take 12 million steps
// to reach 2^32; params.py allows one million.
//
// A barrier that is not complete after watchdog_ns makes the waiting block write down where, once, and leave; every other block
// finds that note while it waits and leaves too.  So a launch ends whatever happens to one of its blocks.
#pragma once

#include "device.cuh"
#include "params.cuh"

namespace fusedx {

class GridBarrier {
public:
    FUSEDX_DEVICE GridBarrier(ChainControl* control, uint64_t watchdog_ns, int32_t* alive)
        : control_(control), watchdog_ns_(watchdog_ns), alive_(alive) {}

    // Global memory written by any thread of any block before it is visible to all after it.  `which`: 0 or 1, of `step`.
    // False: the chain is given up, the block must leave.
    FUSEDX_DEVICE bool meet(int step, int which) {
        device::sync_block();
        if (device::thread_index() == 0) {
            device::arrive(&control_->arrived);
            *alive_ = wait(step, which);
        }
        device::sync_block();
        return *alive_ != 0;
    }

private:
    FUSEDX_DEVICE bool wait(int step, int which) {
        constexpr int kSpins = 256;  // between looks at the clock and the note
        target_ += static_cast<uint32_t>(device::block_count());
        uint64_t start = 0;
        for (;;) {
            for (int i = 0; i < kSpins; ++i)
                if (device::arrivals(&control_->arrived) >= target_) return true;
            if (device::load_relaxed(&control_->status) != 0) return false;
            const uint64_t now = device::nanoseconds();
            if (start == 0) start = now;
            if (now - start > watchdog_ns_) {
                const uint64_t block = static_cast<uint64_t>(device::block_index()), barrier = static_cast<uint64_t>(which);
                device::set_once(&control_->status, kTimedOut << 56 | barrier << 48 | block << 32 | static_cast<uint64_t>(step));
                return false;
            }
        }
    }

    ChainControl* control_;
    uint64_t watchdog_ns_;
    int32_t* alive_;
    uint32_t target_ = 0;
};

}  // namespace fusedx
