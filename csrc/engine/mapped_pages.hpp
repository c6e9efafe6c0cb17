// Giving back pages of a mapped file once their contents have been packed elsewhere, where a library made the mapping.
#pragma once

#include <span>

namespace fusedx {

// Gives back the resident pages of those read-only mappings of the open file in which one of the addresses `held` lies; a page that is
// needed again comes from the file.  The caller keeps these mappings alive meanwhile.  No other is touched: it may go, and another
// thread's memory lie in its place, after it was seen and before its pages are given back.  Does nothing without /proc.
void release_file_pages(int file, std::span<const void* const> held);

}  // namespace fusedx
