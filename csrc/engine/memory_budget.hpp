// A limit on the working memory of all calls of one model together.
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>

namespace fusedx {

class MemoryBudget {
public:
    // bytes 0: no limit
    explicit MemoryBudget(int64_t bytes = 0) : limit_(bytes) {}

    bool limited() const { return limit_ > 0; }
    int64_t limit() const { return limit_; }

    // A part of the budget, given back at the end of its scope.
    class Share {
    public:
        Share(MemoryBudget& budget, int64_t bytes) : bytes(bytes), budget_(budget) {}
        Share(const Share&) = delete;
        ~Share() {
            {
                const std::lock_guard lock(budget_.mutex_);
                budget_.used_ -= bytes;
            }
            budget_.returned_.notify_all();
        }
        const int64_t bytes;

    private:
        MemoryBudget& budget_;
    };

    // As much of `wanted` as is free, at least `least`: waits for other calls to give back where there is less, and calls `waiting` about
    // every 10 ms meanwhile, which may throw.  The caller has made sure that least <= limit().
    Share take(int64_t wanted, int64_t least, const std::function<void()>& waiting) {
        std::unique_lock lock(mutex_);
        while (limited() && limit_ - used_ < least) {
            returned_.wait_for(lock, std::chrono::milliseconds(10));
            lock.unlock();
            waiting();
            lock.lock();
        }
        const int64_t bytes = limited() ? std::min(wanted, limit_ - used_) : wanted;
        used_ += bytes;
        return Share(*this, bytes);
    }

private:
    const int64_t limit_;
    int64_t used_ = 0;
    std::mutex mutex_;
    std::condition_variable returned_;
};

}  // namespace fusedx
