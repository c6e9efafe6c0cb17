"""Writes csrc/model/printable.cpp: the code points that Python's str.isprintable refuses, as ranges.

    python tools/printable_ranges.py > csrc/model/printable.cpp

An unassigned character of this Unicode version may be assigned in a later one; run again when the package's oldest Python moves on.
"""

from __future__ import annotations

import unicodedata

HEAD = f"""// Made by tools/printable_ranges.py from Unicode {unicodedata.unidata_version}; do not edit.
#include <algorithm>
#include <cstdint>
#include <iterator>

#include "model/text.hpp"

namespace fusedx {{

// First and last of each run of characters that are not printable, in order.
static const uint32_t kHidden[][2] = {{"""

TAIL = """};

bool is_printable(uint32_t code) {
    const auto starts_after = [](uint32_t c, const uint32_t(&run)[2]) { return c < run[0]; };
    const auto* run = std::upper_bound(std::begin(kHidden), std::end(kHidden), code, starts_after);
    return run == std::begin(kHidden) || code > run[-1][1];
}

}  // namespace fusedx"""


def main() -> None:
    runs: list[list[int]] = []
    for code in range(0x110000):
        if chr(code).isprintable():
            continue
        if runs and runs[-1][1] == code - 1:
            runs[-1][1] = code
        else:
            runs.append([code, code])
    print(HEAD)
    line = "   "
    for first, last in runs:
        entry = f" {{{first:#x}, {last:#x}}},"
        if len(line) + len(entry) > 140:
            print(line)
            line = "   "
        line += entry
    print(line)
    print(TAIL)


main()
