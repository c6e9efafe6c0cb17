#include "scheduler.hpp"

#include <csignal>
#include <cstring>

#include <sys/mman.h>

namespace fusedx::on_cpu {

namespace {

constexpr std::size_t kStack = 64 << 10, kGuard = 32 << 10;
constexpr unsigned char kPoison = 0xff;  // not-a-number in every floating format of 16 bits or more
constexpr uint64_t kTick = 10;           // nanoseconds a turn

// While a launch runs, a fiber that touches memory that is not there fails the launch instead of ending the process.
class CatchInvalidAddresses {
public:
    CatchInvalidAddresses() {
        struct sigaction action {};
        action.sa_handler = [](int) { Launch::running->fail("an address that is not there"); };
        action.sa_flags = SA_NODEFER;  // the handler is left by a jump
        for (int i = 0; i < 2; ++i) sigaction(kSignals[i], &action, &before_[i]);
    }
    ~CatchInvalidAddresses() {
        for (int i = 0; i < 2; ++i) sigaction(kSignals[i], &before_[i], nullptr);
    }

private:
    static constexpr int kSignals[2] = {SIGSEGV, SIGBUS};
    struct sigaction before_[2];
};

}  // namespace

Launch* Launch::running = nullptr;
Thread* Launch::current = nullptr;

Launch::Launch(int blocks, int threads, std::size_t shared_bytes, const Faults& faults, std::function<void()> kernel)
    : faults_(faults), kernel_(std::move(kernel)), block_count_(blocks), shared_bytes_(shared_bytes),
      state_(faults.seed * 0x9e3779b97f4a7c15ull + 0x2545f4914f6cdd1dull),
      held_back_(static_cast<int>(faults.seed % (threads / kLanes + 1)) - 1) {
    stack_bytes_ = kStack * static_cast<std::size_t>(blocks) * threads;
    stacks_ = static_cast<char*>(mmap(nullptr, stack_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (stacks_ == MAP_FAILED) stacks_ = nullptr, problem_ = "no memory for stacks";
    for (int b = 0; b < blocks && stacks_; ++b) {
        Block& block = blocks_.emplace_back();
        block.index = b;
        block.memory.assign(shared_bytes + 2 * kGuard + 128, static_cast<char>(kPoison));
        const auto first = reinterpret_cast<std::uintptr_t>(block.memory.data()) + kGuard;
        block.shared = reinterpret_cast<char*>((first + 127) / 128 * 128);
        block.threads.resize(threads);
        block.warps.resize(threads / kLanes);
        for (int i = 0; i < threads; ++i) {
            Thread& thread = block.threads[i];
            thread.index = i;
            thread.block = &block;
            thread.stack = stacks_ + (static_cast<std::size_t>(b) * threads + i) * kStack;
            wake(&thread);
            ++live_;
        }
    }
}

Launch::~Launch() {
    if (stacks_) munmap(stacks_, stack_bytes_);
}

std::string Launch::run() {
    running = this;
    const CatchInvalidAddresses guard;
    // A fiber that waits or ends jumps back here.  Nothing in this function may live in a register across the jump.
    _setjmp(scheduler_);
    while (problem_.empty() && !(runnable_.empty() && polling_.empty())) {
        clock_ += kTick;
        current = take_next();
        if (current->started) _longjmp(current->resume, 1);
        current->started = true;
        getcontext(&current->start);
        current->start.uc_stack.ss_sp = current->stack;
        current->start.uc_stack.ss_size = kStack;
        current->start.uc_link = nullptr;
        makecontext(&current->start, &Launch::enter, 0);
        setcontext(&current->start);
    }
    running = nullptr;
    if (problem_.empty() && live_ > 0) problem_ = "deadlock: " + std::to_string(live_) + " threads wait for each other";
    check_guards();
    return problem_;
}

// Any runnable fiber, one of the warp that is held back only after 16 tries; or one that polls.
Thread* Launch::take_next() {
    std::vector<Thread*>& from = runnable_.empty() || (!polling_.empty() && chance(8)) ? polling_ : runnable_;
    std::size_t i = random() % from.size();
    for (int tries = 0; tries < 16 && from[i]->index / kLanes == held_back_; ++tries) i = random() % from.size();
    Thread* thread = from[i];
    from[i] = from.back();
    from.pop_back();
    return thread;
}

void Launch::enter() {
    running->kernel_();
    Thread* thread = current;
    if (!thread->open.empty() || !thread->groups.empty()) {
        for (const auto& group : thread->groups)
            if (!group.empty()) running->fail("a thread left with copies in flight");
    }
    --running->live_;
    running->to_scheduler();
}

void Launch::to_scheduler() { _longjmp(scheduler_, 1); }

void Launch::wait() {
    if (_setjmp(current->resume) == 0) to_scheduler();
}

void Launch::yield() {
    wake(current);
    wait();
}

void Launch::spin() {
    polling_.push_back(current);
    wait();
}

void Launch::lose_block() {
    for (std::vector<Thread*>* list : {&runnable_, &polling_})
        std::erase_if(*list, [](const Thread* thread) { return thread->block == current->block; });
    live_ -= current->block->threads.size();
    to_scheduler();
}

void Launch::fail(const std::string& problem) {
    if (problem_.empty())
        problem_ = problem + " (block " + std::to_string(current->block->index) + ", thread " + std::to_string(current->index) + ")";
    to_scheduler();
}

void Launch::sync_block(const std::source_location& site) {
    const auto [at, unseen] = sites_.try_emplace({site.file_name(), site.line()}, static_cast<int>(sites_.size()));
    if (at->second == faults_.skipped_block_sync) return yield();
    Block& block = *current->block;
    if (block.at_barrier.size() + 1 < block.threads.size()) {
        block.at_barrier.push_back(current);
        return wait();
    }
    for (Thread* thread : block.at_barrier) wake(thread);
    block.at_barrier.clear();
    yield();
}

void Launch::collective(const char* operation, void* arguments, const std::function<void(void* const*)>& all) {
    Warp& warp = current->block->warps[current->index / kLanes];
    if (warp.waiting > 0 && warp.operation != operation)
        fail(std::string("a warp's lanes are at different operations: ") + warp.operation + " and " + operation);
    const int lane = current->index % kLanes;
    warp.operation = operation;
    warp.arguments[lane] = arguments;
    warp.threads[lane] = current;
    if (++warp.waiting < kLanes) return wait();
    warp.waiting = 0;
    all(warp.arguments);
    for (Thread* thread : warp.threads)
        if (thread != current) wake(thread);
}

void Launch::copy_async(void* to, const void* from, bool keep) {
    const char* target = static_cast<char*>(to);
    const char* source = static_cast<const char*>(from);
    const char* shared = current->block->shared;
    if (target < shared || target + 16 > shared + shared_bytes_) fail("a copy writes outside shared memory");
    if (reinterpret_cast<std::uintptr_t>(to) % 16 || reinterpret_cast<std::uintptr_t>(from) % 16) fail("a copy is not aligned to 16 bytes");
    bool allowed = readable_.empty();
    for (const auto& [first, bytes] : readable_) allowed |= source >= first && source + 16 <= first + bytes;
    if (!allowed) fail("a copy reads outside the weights");
    copied_[keep] += 16;
    // The old content is gone as soon as the copy is asked for, the new one may be there at once or as late as the wait.
    std::memset(to, kPoison, 16);
    if (chance(4)) {
        std::memcpy(to, from, 16);
    } else {
        current->open.push_back({to, from});
    }
}

void Launch::copy_commit() {
    current->groups.push_back(std::move(current->open));
    current->open.clear();
}

void Launch::copy_wait(int pending) {
    if (faults_.skip_copy_wait) return;
    while (current->groups.size() > static_cast<std::size_t>(pending)) {
        for (const Copy& copy : current->groups.front()) std::memcpy(copy.to, copy.from, 16);
        current->groups.pop_front();
    }
}

uint32_t Launch::random() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return static_cast<uint32_t>(state_ >> 32);
}

void Launch::check_guards() {
    for (const Block& block : blocks_) {
        for (const char* p = block.memory.data(); p < block.memory.data() + block.memory.size(); ++p) {
            if (p == block.shared) p += shared_bytes_;
            if (static_cast<unsigned char>(*p) != kPoison && problem_.empty())
                problem_ = "block " + std::to_string(block.index) + " wrote outside its shared memory, at byte " +
                           std::to_string(p - block.shared);
        }
    }
}

}  // namespace fusedx::on_cpu
