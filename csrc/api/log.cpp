#include "api/log.hpp"

#include <pthread.h>

#include <atomic>
#include <mutex>
#include <new>
#include <shared_mutex>

namespace fusedx::api {
namespace {

struct Log {
    std::shared_mutex mutex;  // shared: the callback runs; alone: it is replaced
    fx_log_callback callback = nullptr;
    void* user = nullptr;
    std::atomic<int32_t> level{0};  // 0: nobody listens
};

Log& the_log() {
    static Log* const log = [] {  // never destroyed: calls may still come while the process ends
        pthread_atfork(nullptr, nullptr, [] { new (&the_log().mutex) std::shared_mutex; });  // its holders did not come along
        return new Log;
    }();
    return *log;
}

thread_local bool inside = false;

}  // namespace

bool log_wanted(int32_t level) noexcept { return level <= the_log().level.load(std::memory_order_relaxed); }

void log(int32_t level, const char* text) noexcept {
    if (inside || !log_wanted(level)) return;
    Log& log = the_log();
    try {
        const std::shared_lock lock(log.mutex);
        if (log.callback == nullptr) return;
        inside = true;
        log.callback(level, text, log.user);
    } catch (...) {  // a C++ program's callback that throws has not kept to its terms; the call goes on
    }
    inside = false;
}

bool set_log(fx_log_callback callback, int32_t level, void* user) {
    if (inside) return false;
    Log& log = the_log();
    const std::lock_guard lock(log.mutex);
    log.callback = callback, log.user = user;
    log.level = callback == nullptr ? 0 : level;
    return true;
}

}  // namespace fusedx::api
