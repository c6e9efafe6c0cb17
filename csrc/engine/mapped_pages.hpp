// Giving back pages of a mapped file once their contents have been packed elsewhere, also where a library made the mapping.
#pragma once

namespace fusedx {

// Every read-only mapping that this process has of the open file; the pages stay in the system's cache and come back by themselves if
// they are read again.  Where the system tells nothing of mappings, nothing happens.
void release_file_pages(int file);

}  // namespace fusedx
