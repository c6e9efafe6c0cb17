"""Giving back pages of memory-mapped files once their contents have been packed elsewhere.

The pages stay in the system's cache and come back by themselves if they are read again; only this process's resident memory
shrinks.  Where the system offers no such call, nothing happens.
"""

from __future__ import annotations

import bisect
import contextlib
import ctypes
import mmap
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

_MADV_DONTNEED = getattr(mmap, "MADV_DONTNEED", None)


def release_pages(array: np.ndarray) -> None:
    """Release the whole mapped file that ``array`` is a view of; arrays of ordinary memory are left alone."""
    base: object = array
    while base is not None and not isinstance(base, mmap.mmap):
        base = base.obj if isinstance(base, memoryview) else getattr(base, "base", None)
    if isinstance(base, mmap.mmap) and _MADV_DONTNEED is not None:
        base.madvise(_MADV_DONTNEED)


def release_file_pages(path: Path, held: Iterable[np.ndarray]) -> None:
    """Release those read-only mappings of ``path``, a library's own included, that hold one of the arrays ``held`` (Linux).

    ``held`` keeps them mapped meanwhile.  Any other mapping may go, and its place may be another thread's memory, between reading
    /proc/self/maps and giving back the pages: that would wipe it.
    """
    if _MADV_DONTNEED is None or not Path("/proc/self/maps").exists():
        return
    libc = ctypes.CDLL(None)
    libc.madvise.argtypes = [ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int]
    target = os.fsencode(path.resolve()).replace(b"\n", b"\\012")
    arrays = list(held)
    places = sorted(array.ctypes.data for array in arrays)
    with contextlib.suppress(OSError), open("/proc/self/maps", "rb") as maps:
        for line in maps:
            fields = line.rstrip(b"\n").split(maxsplit=5)
            if len(fields) == 6 and fields[5] == target and fields[1].startswith(b"r-"):
                start, end = (int(n, 16) for n in fields[0].split(b"-"))
                if bisect.bisect_left(places, start) < bisect.bisect_left(places, end):
                    libc.madvise(start, end - start, _MADV_DONTNEED)
