#include "mapped_pages.hpp"

#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <memory>

namespace fusedx {

void release_file_pages(int file, std::span<const void* const> held) {
    struct stat wanted;
    const std::unique_ptr<FILE, int (*)(FILE*)> maps(std::fopen("/proc/self/maps", "re"), [](FILE* f) { return f ? std::fclose(f) : 0; });
    if (!maps || fstat(file, &wanted) != 0) return;
    char line[4608];  // longer than the longest path
    while (std::fgets(line, sizeof line, maps.get())) {
        uint64_t begin, end, inode;
        unsigned device_major, device_minor;
        char access[5];
        if (std::sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %*x %x:%x %" SCNu64, &begin, &end, access, &device_major, &device_minor, &inode) != 6)
            continue;
        const bool ours = std::any_of(held.begin(), held.end(), [&](const void* p) {
            return reinterpret_cast<uintptr_t>(p) >= begin && reinterpret_cast<uintptr_t>(p) < end;
        });
        if (ours && inode == wanted.st_ino && makedev(device_major, device_minor) == wanted.st_dev && access[0] == 'r' && access[1] == '-')
            madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
    }
}

}  // namespace fusedx
