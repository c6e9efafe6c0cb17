// CUDA threads as fibers of one CPU thread, for kernels whose blocks and warps talk to each other.
//
// A fiber runs until it calls something in cuda_on_cpu.hpp that may wait; then a seeded random choice says which runnable fiber
// goes on.  So a seed is an interleaving, and code without races gives the same bits under every seed.  Most seeds also name a warp
// that is held back in every block, so that the others run as far ahead of it as barriers let them.  Memory is sequentially
// consistent here: missing fences are not found.
#pragma once

#include <csetjmp>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <source_location>
#include <string>
#include <utility>
#include <vector>

#include <ucontext.h>

namespace fusedx::on_cpu {

constexpr int kLanes = 32;

// What to leave out on purpose, so that a test can show that it would notice.
struct Faults {
    uint64_t seed = 0;
    int32_t lost_block = -1;            // vanishes when it should arrive at a grid barrier,
    int32_t lost_at = 0;                // this one, counted from 0
    int32_t skipped_block_sync = -1;    // number of a sync_block call site, in order of first use
    int32_t skipped_grid_barrier = -1;  // parity of the grid barrier at which arrivals always look complete
    int32_t skip_copy_wait = 0;
};

struct Copy {
    void* to;
    const void* from;
};

struct Block;

struct Thread {
    int index = 0;
    Block* block = nullptr;
    char* stack = nullptr;
    ucontext_t start{};
    std::jmp_buf resume;
    bool started = false;
    std::vector<Copy> open;               // copies of the group not yet committed
    std::deque<std::vector<Copy>> groups;  // committed, oldest first, not yet carried out
};

struct Warp {
    const char* operation = nullptr;
    int waiting = 0;
    void* arguments[kLanes] = {};
    Thread* threads[kLanes] = {};
};

struct Block {
    int index = 0;
    std::vector<char> memory;  // guard, shared memory, guard
    char* shared = nullptr;
    std::vector<Thread> threads;
    std::vector<Warp> warps;
    std::vector<Thread*> at_barrier;
    uint32_t grid_arrivals = 0;
};

class Launch {
public:
    Launch(int blocks, int threads, std::size_t shared_bytes, const Faults& faults, std::function<void()> kernel);
    ~Launch();

    // Empty, or what went wrong.
    std::string run();

    // Global memory that copies may read.
    void allow_reads(const void* first, std::size_t bytes) { readable_.emplace_back(static_cast<const char*>(first), bytes); }

    // Called from fibers.
    void yield();
    void spin();  // yield of a thread that polls: it is run again now and then, and when nothing else can run
    void sync_block(const std::source_location& site);
    void collective(const char* operation, void* arguments, const std::function<void(void* const*)>& all);
    void copy_async(void* to, const void* from, bool keep);
    void copy_commit();
    void copy_wait(int pending);
    void lose_block();  // the calling thread's block does nothing any more
    void fail(const std::string& problem);
    bool chance(uint32_t one_in) { return random() % one_in == 0; }

    int blocks() const { return block_count_; }
    int sync_sites() const { return static_cast<int>(sites_.size()); }
    const Faults& faults() const { return faults_; }
    uint64_t nanoseconds() const { return clock_; }
    int64_t copied(bool keep) const { return copied_[keep]; }  // bytes, by what the L2 cache is asked

    static Launch* running;
    static Thread* current;

private:
    static void enter();
    void wait();  // leaves the runnable set until woken
    void wake(Thread* thread) { runnable_.push_back(thread); }
    void to_scheduler();
    uint32_t random();
    Thread* take_next();
    void check_guards();

    Faults faults_;
    std::function<void()> kernel_;
    int block_count_;
    std::size_t shared_bytes_;
    std::deque<Block> blocks_;
    std::vector<Thread*> runnable_, polling_;
    std::map<std::pair<std::string, unsigned>, int> sites_;
    std::vector<std::pair<const char*, std::size_t>> readable_;
    std::jmp_buf scheduler_;
    uint64_t state_, clock_ = 0;
    int held_back_;  // a warp's number, or -1
    int64_t copied_[2] = {};
    std::size_t live_ = 0;
    std::string problem_;
    char* stacks_ = nullptr;
    std::size_t stack_bytes_ = 0;
};

}  // namespace fusedx::on_cpu
