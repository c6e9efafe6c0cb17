// What every function of the C interface does around its work: no exception leaves it, and the last error is kept for the thread.
#pragma once

#include <pthread.h>

#include <string>

#include "error.hpp"
#include "fusedx/fusedx.h"

namespace fusedx::api {

// Keeps the text for fx_last_error, tells the log, and returns the status.
fx_status fail(fx_status status, const std::string& text) noexcept;

const char* last_error() noexcept;

// Of the exception that is being handled.
fx_status fail_with_current_exception() noexcept;

// pthread_cancel would unwind through our frames while other threads still work for them: it has to wait until the call is over.
class NotCancelled {
public:
    NotCancelled() { pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before_); }
    ~NotCancelled() { pthread_setcancelstate(before_, nullptr); }

private:
    int before_;
};

template <class Work>
fx_status guarded(const Work& work) noexcept {
    const NotCancelled whole_call;
    try {
        return work();
    } catch (...) {
        return fail_with_current_exception();
    }
}

[[noreturn]] inline void refuse(const std::string& text) { throw Error(Status::bad_argument, text); }

}  // namespace fusedx::api
