#include "model/file_bytes.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>
#include <vector>

#include "error.hpp"

namespace fusedx {

namespace {

constexpr size_t kPiece = 1 << 20;       // read, then hashed while it is in the second-level cache
constexpr size_t kHugePage = 2u << 20;   // of x86 and of most aarch64 systems

std::string reason(int error) { return std::generic_category().message(error); }

[[noreturn]] void cannot_read(const std::string& path, int error) {
    throw Error(error == ENOMEM ? Status::out_of_memory : Status::bad_model, path + " cannot be read: " + reason(error));
}

[[noreturn]] void missing(const std::string& path) {
    throw Error(Status::bad_model,
                path + " is missing, or is no regular file; copy the whole folder again or compile the checkpoint again");
}

class Descriptor {
public:
    explicit Descriptor(int fd) : fd(fd) {}
    ~Descriptor() {
        if (fd >= 0) ::close(fd);
    }
    Descriptor(const Descriptor&) = delete;
    const int fd;
};

// Up to `size` bytes; less only at the file's end.
size_t read_fully(int fd, uint8_t* to, size_t size, const std::string& path) {
    size_t done = 0;
    while (done < size) {
        const ssize_t n = ::read(fd, to + done, size - done);
        if (n < 0 && errno != EINTR) cannot_read(path, errno);
        if (n == 0) break;
        if (n > 0) done += static_cast<size_t>(n);
    }
    return done;
}

// A regular file of exactly `size` bytes, open for reading.
int open_file(const Folder& folder, const std::string& name, uint64_t size) {
    const std::string path = folder.path(name);
    // Opening a pipe or a device would wait or act, so the name is looked at first and what was opened once more.
    folder.size(name);
    const int fd = ::openat(folder.descriptor(), name.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) cannot_read(path, errno);
    struct stat status;
    const int failure = ::fstat(fd, &status) != 0 ? errno : 0;
    if (failure == 0 && S_ISREG(status.st_mode) && static_cast<uint64_t>(status.st_size) == size) return fd;
    ::close(fd);
    if (failure != 0) cannot_read(path, failure);
    if (!S_ISREG(status.st_mode)) missing(path);
    throw Error(Status::bad_model, path + " has " + std::to_string(status.st_size) + " bytes, expected " + std::to_string(size) +
                                       ": incomplete or changed");
}

}  // namespace

Folder::Folder(const std::string& path) : path_(path), descriptor_(-1) {
    const char* advice = "; a compiled model is a folder made by `fusedx compile`";
    const std::string start = path.substr(0, 1000);
    if (path.empty() || path.find('\0') != std::string::npos)
        throw Error(Status::bad_model, "the path of a compiled model is empty, or holds a zero byte");
    descriptor_ = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor_ >= 0) return;
    if (errno == ENOENT) throw Error(Status::bad_model, start + " does not exist" + advice);
    if (errno == ENOTDIR) throw Error(Status::bad_model, start + " is not a folder" + advice);
    cannot_read(start, errno);
}

Folder::~Folder() { ::close(descriptor_); }

std::string Folder::path(const std::string& name) const { return path_.substr(0, 1000) + "/" + name; }

uint64_t Folder::size(const std::string& name) const {
    struct stat status;
    if (::fstatat(descriptor_, name.c_str(), &status, 0) != 0) {
        if (errno == ENOENT || errno == ENOTDIR || errno == ELOOP) missing(path(name));
        cannot_read(path(name), errno);
    }
    if (!S_ISREG(status.st_mode)) missing(path(name));
    return static_cast<uint64_t>(status.st_size);
}

FileBytes::FileBytes(FileBytes&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)), descriptor_(std::exchange(other.descriptor_, -1)) {}

FileBytes& FileBytes::operator=(FileBytes&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(descriptor_, other.descriptor_);
    if (this != &other) FileBytes gone(std::move(other));
    return *this;
}

FileBytes::~FileBytes() {
    if (data_) ::munmap(data_, size_);
    if (descriptor_ >= 0) ::close(descriptor_);
}

FileBytes FileBytes::read(const Folder& folder, const std::string& name, uint64_t size, Digest* digest) {
    const std::string path = folder.path(name);
    const Descriptor file(open_file(folder, name, size));
    FileBytes whole;
    Sha256 hash;
    if (size) {
        void* memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED)
            throw Error(Status::out_of_memory, "no memory for the " + std::to_string(size >> 20) + " MiB of " + path);
        whole.data_ = static_cast<uint8_t*>(memory);
        whole.size_ = size;
#if defined(MADV_HUGEPAGE)
        if (size >= 2 * kHugePage) ::madvise(memory, size, MADV_HUGEPAGE);
#endif
    }
    for (size_t at = 0; at < size; at += kPiece) {
        const size_t piece = std::min<size_t>(kPiece, size - at);
        if (read_fully(file.fd, whole.data_ + at, piece, path) != piece)
            throw Error(Status::bad_model, path + " became shorter while it was read; copy the whole folder again");
        if (digest) hash.update(whole.data_ + at, piece);
    }
    if (digest) *digest = hash.finish();
    return whole;
}

FileBytes FileBytes::map(const Folder& folder, const std::string& name, uint64_t size) {
    FileBytes whole;
    whole.descriptor_ = open_file(folder, name, size);
    if (size == 0) return whole;
    void* memory = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, whole.descriptor_, 0);
    if (memory == MAP_FAILED) throw Error(Status::out_of_memory, folder.path(name) + " cannot be mapped: " + reason(errno));
    whole.data_ = static_cast<uint8_t*>(memory);
    whole.size_ = size;
    return whole;
}

Digest FileBytes::digest() const {
    Sha256 hash;
    std::vector<uint8_t> piece(std::min(size_, kPiece));
    for (size_t at = 0; at < size_;) {
        const ssize_t n = ::pread(descriptor_, piece.data(), std::min(kPiece, size_ - at), static_cast<off_t>(at));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) throw Error(Status::bad_model, "a model's file became shorter, or unreadable, while it was read; copy the whole folder again");
        hash.update(piece.data(), static_cast<size_t>(n));
        at += static_cast<size_t>(n);
    }
    return hash.finish();
}

void FileBytes::release(Bytes part) {
    if (part.data() < data_ || part.data() + part.size() > data_ + size_) return;
    const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
    const auto first = reinterpret_cast<uintptr_t>(part.data());
    const uintptr_t begin = (first + page - 1) / page * page, end = (first + part.size()) / page * page;
    if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

}  // namespace fusedx
