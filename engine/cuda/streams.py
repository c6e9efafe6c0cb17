"""Streams of one model alone.

torch hands out 32 streams in turns, so a sixth model would get those of the first: their work would wait for each other, and a
capture on one would take in what the other queues there.
"""

from __future__ import annotations

import threading
import weakref
from collections import defaultdict

import torch

from fusedx.engine.cuda import driver

_lock = threading.Lock()
#: Device index -> handles whose owner is gone.  Never destroyed: torch's allocator keeps memory by stream, for the next owner.
_free: defaultdict[int, list[int]] = defaultdict(list)


def own_stream(device: torch.device, owner: object) -> torch.cuda.ExternalStream:
    """A stream that nobody else has while ``owner`` lives.  Raises DeviceError."""
    index = device.index or 0
    with _lock:
        handle = _free[index].pop() if _free[index] else None
    if handle is None:
        with driver.current(index):
            handle = driver.new_stream()
    weakref.finalize(owner, _give_back, index, handle).atexit = False
    return torch.cuda.ExternalStream(handle, device=device)


def _give_back(index: int, handle: int) -> None:
    _free[index].append(handle)  # without the lock, which the thread that collects garbage may hold; append is atomic
