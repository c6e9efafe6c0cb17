// A small persistent thread pool for loops of a fraction of a millisecond to a few milliseconds.
//
// Work is cut into equal contiguous parts, fixed by the number of parts alone; the calling thread runs part 0 and worker p
// part p, so that the same worker reads the same weights every time.  Idle
// workers spin for about 50 microseconds, because the next layer usually follows at once, and then sleep.  A second
// caller that finds the pool busy does its own work alone.  A forked child starts a fresh pool.  The pool is never
// destroyed: at exit its workers are asleep and end with the process, so there is nothing to join and nothing to hang on.
#pragma once

#include <algorithm>
#include <cstdint>

namespace fusedx {

// Threads that a parallel loop may use: FUSEDX_THREADS, else the processors in this process's affinity mask or, where that
// is less, its container's CPU quota rounded up: with more threads than that, all are stopped once the quota is spent.
// Throws Error(bad_argument) when FUSEDX_THREADS is not a whole number from 1 to 1024.
int pool_threads();

// While one lives, parallel loops that its thread starts use at most so many threads, itself included.  Budgets nest: the least counts.
class ThreadBudget {
public:
    explicit ThreadBudget(int threads);  // throws Error(bad_argument) below 1
    ~ThreadBudget();
    ThreadBudget(const ThreadBudget&) = delete;
    ThreadBudget& operator=(const ThreadBudget&) = delete;

private:
    const int before_;
};

// Threads that a parallel loop started here and now may use.
int usable_threads();

// Calls task(context, part) once for every part in [0, parts), then returns.  The first exception is rethrown here.
void run_parts(int parts, void (*task)(void* context, int part), void* context);

// Calls body(begin, end) over contiguous shares of [0, items), on as many threads as `work` (multiply-adds) is worth.
template <class Body>
void parallel_for(int64_t items, int64_t work, Body&& body) {
    constexpr int64_t kWorkPerThread = 1 << 18;  // about 40 us of streamed weights: less than waking a sleeping worker
    const int64_t worth = std::min(items, work / kWorkPerThread);
    int parts = worth <= 1 ? 1 : static_cast<int>(std::min<int64_t>(worth, usable_threads()));
    if (parts > 1) {  // the largest share decides the time; no more threads than that needs (33 panels, 32 threads: 17)
        const int64_t largest = (items + parts - 1) / parts;
        parts = static_cast<int>((items + largest - 1) / largest);
    }
    if (parts <= 1) {
        if (items > 0) body(int64_t{0}, items);
        return;
    }
    struct Share { Body* body; int64_t items; int parts; } share{&body, items, parts};
    run_parts(parts, [](void* context, int part) {
        const Share& s = *static_cast<Share*>(context);
        (*s.body)(s.items * part / s.parts, s.items * (part + 1) / s.parts);
    }, &share);
}

}  // namespace fusedx
