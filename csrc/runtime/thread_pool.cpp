#include "runtime/thread_pool.hpp"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <limits>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "error.hpp"
#include "runtime/cpu_quota.hpp"

namespace fusedx {
namespace {

inline void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Returns once `value` differs from `old`: spins for about 50 us, then sleeps on a futex.
void wait_while(const std::atomic<int>& value, int old) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::microseconds(50);
    do {
        for (int i = 0; i < 64; ++i) {
            if (value.load(std::memory_order_acquire) != old) return;
            pause();
        }
    } while (std::chrono::steady_clock::now() < until);
    while (value.load(std::memory_order_acquire) == old) value.wait(old, std::memory_order_acquire);
}

class Pool {
public:
    explicit Pool(int threads) : pid(getpid()), tickets_(threads) {}

    const pid_t pid;  // threads do not survive a fork: another pid means another pool
    std::mutex busy;  // held by the one caller whose parts the workers run

    void run(int parts, void (*task)(void*, int), void* context) {  // `busy` is held
        start();
        const int helpers = std::min(parts - 1, workers_);  // the others sleep on
        task_ = task, context_ = context, failure_ = nullptr;
        pending_.store(helpers, std::memory_order_relaxed);
        for (int part = 1; part <= helpers; ++part) {
            tickets_[part].number.fetch_add(1, std::memory_order_release);
            tickets_[part].number.notify_one();
        }
        work(0);
        for (int part = helpers + 1; part < parts; ++part) work(part);  // more than there are workers
        for (int left; (left = pending_.load(std::memory_order_acquire)) != 0;) wait_while(pending_, left);
        if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
    }

private:
    struct alignas(64) Ticket { std::atomic<int> number{0}; };  // one more for every round that the worker has a part in

    void start() {
        if (started_) return;
        started_ = true;
        sigset_t every, before;  // signals belong to the caller's threads (Python's), never to a worker
        sigfillset(&every);
        pthread_sigmask(SIG_SETMASK, &every, &before);
        try {
            for (size_t i = 1; i < tickets_.size(); ++i) {
                std::thread([this, i] { serve(static_cast<int>(i)); }).detach();
                ++workers_;
            }
        } catch (const std::system_error&) {  // no more threads to be had: go on with those that started
        }
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
    }

    void serve(int index) {
        for (unsigned seen = 0;; ++seen) {  // wraps like the ticket; `run` waits for every worker that it called before the next round
            wait_while(tickets_[index].number, static_cast<int>(seen));
            work(index);
            if (pending_.fetch_sub(1, std::memory_order_acq_rel) == 1) pending_.notify_all();
        }
    }

    void work(int part) noexcept {
        try {
            task_(context_, part);
        } catch (...) {
            const std::lock_guard lock(failing_);
            if (!failure_) failure_ = std::current_exception();
        }
    }

    bool started_ = false;
    int workers_ = 0;
    void (*task_)(void*, int) = nullptr;
    void* context_ = nullptr;
    std::mutex failing_;
    std::exception_ptr failure_;
    std::vector<Ticket> tickets_;  // [0] is nobody's
    std::atomic<int> pending_{0};
};

thread_local int budget = std::numeric_limits<int>::max();

int count_threads() {
    if (const char* text = std::getenv("FUSEDX_THREADS"); text && *text) {
        int count = 0;
        const char* const end = text + std::strlen(text);
        const auto [stop, failure] = std::from_chars(text, end, count);
        if (failure != std::errc() || stop != end || count < 1 || count > 1024)
            throw Error(Status::bad_argument, "FUSEDX_THREADS=" + std::string(text) + ": expected a whole number from 1 to 1024");
        return count;
    }
    int allowed = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) allowed = std::max(1, CPU_COUNT(&set));
#endif
    const double quota = cpu_quota();
    return quota > 0 && quota < allowed ? static_cast<int>(std::ceil(quota)) : allowed;
}

// Lock-free on purpose: a lock could be held by a thread that the fork left behind.
Pool& pool() {
    static std::atomic<Pool*> current{nullptr};
    Pool* found = current.load(std::memory_order_acquire);
    while (!found || found->pid != getpid()) {
        Pool* fresh = new Pool(pool_threads());
        if (current.compare_exchange_strong(found, fresh, std::memory_order_acq_rel)) return *fresh;
        delete fresh;  // another thread was first
    }
    return *found;
}

}  // namespace

int pool_threads() {
    static const int threads = count_threads();
    return threads;
}

ThreadBudget::ThreadBudget(int threads) : before_(budget) {
    if (threads < 1) throw Error(Status::bad_argument, "threads: expected at least 1, got " + std::to_string(threads));
    budget = std::min(budget, threads);
}

ThreadBudget::~ThreadBudget() { budget = before_; }

int usable_threads() { return std::min(pool_threads(), budget); }

void run_parts(int parts, void (*task)(void*, int), void* context) {
    if (parts > 1) {
        Pool& shared = pool();
        if (const std::unique_lock lock(shared.busy, std::try_to_lock); lock.owns_lock()) return shared.run(parts, task, context);
    }
    for (int part = 0; part < parts; ++part) task(context, part);
}

}  // namespace fusedx
