// Memory for what is read in long streams: weights, and the workspaces of the kernels.
//
// Aligned to 2 MiB and, where the system allows it, of huge pages: with pages of 4 KiB every 64 lines of a stream cost a walk of the page
// table, which halves the speed at which weights past the caches are read.  Pages belong to the memory of the processor that
// touches them first, so whoever fills a buffer should be the thread that reads it later (parallel_for over the same items).
#pragma once

#include <cstddef>

namespace fusedx {

class Buffer {
public:
    Buffer() = default;
    explicit Buffer(size_t bytes);  // zeros; throws Error(out_of_memory)
    ~Buffer();
    Buffer(Buffer&& other) noexcept;
    Buffer& operator=(Buffer&& other) noexcept;

    template <class T>
    T* as() { return static_cast<T*>(data_); }
    template <class T>
    const T* as() const { return static_cast<const T*>(data_); }
    size_t bytes() const { return bytes_; }  // as asked for

private:
    void* data_ = nullptr;
    size_t bytes_ = 0;
    void* mapped_ = nullptr;
    size_t mapped_bytes_ = 0;
};

}  // namespace fusedx
