// A whole file in memory of our own, so that what was verified is what is used.
//
// Not a mapping of the file: whoever truncates a mapped file stops the process with a bus error, and whoever writes to it changes what
// its digest has vouched for.  Reading costs no more time than a mapping's page faults, and the pages can be given back one tensor at
// a time.  The encoder's weights are the exception, because OpenVINO keeps what it packs: those are mapped, and hashed from the same open
// file, so that only who overwrites the file in place can disturb them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "model/sha256.hpp"

namespace fusedx {

using Bytes = std::span<const uint8_t>;

// A folder kept open: its files stay those of one folder even if another takes its name.
class Folder {
public:
    explicit Folder(const std::string& path);  // Error(bad_model) where there is none
    ~Folder();
    Folder(const Folder&) = delete;

    int descriptor() const { return descriptor_; }
    std::string path(const std::string& name) const;  // for messages

    // Size in bytes of a regular file, links followed; Error(bad_model) for anything else.
    uint64_t size(const std::string& name) const;

private:
    std::string path_;
    int descriptor_;
};

class FileBytes {
public:
    FileBytes() = default;
    FileBytes(FileBytes&& other) noexcept;
    FileBytes& operator=(FileBytes&& other) noexcept;
    ~FileBytes();

    // Exactly `size` bytes, aligned to a page.  digest: null, or where their SHA-256 goes, computed while they are in cache.
    // Error: bad_model where the file is of another size by now, or cannot be read; out_of_memory.
    static FileBytes read(const Folder& folder, const std::string& name, uint64_t size, Digest* digest = nullptr);

    // A read-only mapping of the file instead; its pages, once released, come back from the file.  Errors as above.
    static FileBytes map(const Folder& folder, const std::string& name, uint64_t size);

    Bytes bytes() const { return {data_, size_}; }
    int descriptor() const { return descriptor_; }  // the open file behind a mapping, else -1

    // The SHA-256 of a mapping's file, by reading it: a file that is cut off meanwhile is an Error and no bus error.
    Digest digest() const;

    // Gives the whole pages of a part of it back to the system; they read as zero from now on, those of a mapping as the file again.
    // Bytes that lie elsewhere are left alone.
    void release(Bytes part);
    void release() { *this = FileBytes(); }

private:
    uint8_t* data_ = nullptr;
    size_t size_ = 0;
    int descriptor_ = -1;
};

}  // namespace fusedx
