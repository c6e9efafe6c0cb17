#include "api/handles.hpp"

#include <atomic>

namespace fusedx::api {

uintptr_t next_handle() {
    // Odd numbers of the first page and above: no object of the caller's lies at such an address.
    static std::atomic<uintptr_t> next{0x1001};
    return next.fetch_add(2, std::memory_order_relaxed);
}

}  // namespace fusedx::api
