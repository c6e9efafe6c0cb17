#include "runtime/memory.hpp"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>

#include "error.hpp"

namespace fusedx {
namespace {

constexpr size_t kHugePage = size_t{2} << 20, kLine = 64;

[[noreturn]] void refuse(size_t bytes) {
    throw Error(Status::out_of_memory, "out of memory: " + std::to_string(bytes >> 20) +
                                           " MiB could not be had; free memory, or use a model compiled at a lower precision or fewer rows at a time");
}

size_t rounded(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

}  // namespace

Buffer::Buffer(size_t bytes) : bytes_(bytes) {
    if (bytes == 0) return;
    if (bytes > SIZE_MAX / 4) refuse(bytes);
    if (bytes < kHugePage) {
        data_ = std::aligned_alloc(kLine, rounded(bytes, kLine));
        if (!data_) refuse(bytes);
        std::memset(data_, 0, bytes);
        return;
    }
    const size_t whole = rounded(bytes, kHugePage) + kHugePage;  // a mapping starts at any page
    void* const mapped = mmap(nullptr, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) refuse(bytes);
    mapped_ = mapped, mapped_bytes_ = whole;
    data_ = reinterpret_cast<void*>(rounded(reinterpret_cast<uintptr_t>(mapped), kHugePage));
#if defined(MADV_HUGEPAGE)
    madvise(data_, rounded(bytes, kHugePage), MADV_HUGEPAGE);  // where huge pages are off this fails, and small ones do
#endif
}

Buffer::~Buffer() {
    if (mapped_)
        munmap(mapped_, mapped_bytes_);
    else
        std::free(data_);
}

Buffer::Buffer(Buffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)),
      mapped_(std::exchange(other.mapped_, nullptr)), mapped_bytes_(std::exchange(other.mapped_bytes_, 0)) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_), std::swap(bytes_, other.bytes_);
    std::swap(mapped_, other.mapped_), std::swap(mapped_bytes_, other.mapped_bytes_);
    return *this;
}

}  // namespace fusedx
