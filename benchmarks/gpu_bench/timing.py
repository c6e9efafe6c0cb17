"""How things are timed: on the device's own clock, the host ahead of it, contenders taking turns, the cache in a known state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch

from gpu_bench.figures import flush_bytes


class Clock(Protocol):
    """The queue of one stream."""

    def hold(self, seconds: float) -> None:
        """Queue a wait of about that long, while which the host can queue what comes next."""

    def mark(self) -> Any:
        """A point in the queue."""

    def seconds(self, first: Any, last: Any) -> float:
        """Between two marks; waits for the second."""


class CudaClock:
    """:class:`Clock` of a CUDA stream, by events."""

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self._stream = stream
        self._cycles_a_second = 2e9  # until it is known
        self.hold(1e-6)  # the first one loads the kernel
        start = self.mark()
        self.hold(0.005)
        self._cycles_a_second *= 0.005 / self.seconds(start, self.mark())

    def hold(self, seconds: float) -> None:
        """See :class:`Clock`."""
        with torch.cuda.stream(self._stream):
            torch.cuda._sleep(int(seconds * self._cycles_a_second))

    def mark(self) -> torch.cuda.Event:
        """See :class:`Clock`."""
        event = torch.cuda.Event(enable_timing=True)
        event.record(self._stream)
        return event

    def seconds(self, first: torch.cuda.Event, last: torch.cuda.Event) -> float:
        """See :class:`Clock`."""
        last.synchronize()
        return first.elapsed_time(last) * 1e-3


class ColdCache:
    """Called, it replaces what the L2 cache holds by writing a buffer of twice its size, and waits for that."""

    def __init__(self, l2: int, device: torch.device) -> None:
        self._buffer = torch.zeros(flush_bytes(l2), dtype=torch.uint8, device=device)
        self._value = 0

    def __call__(self) -> None:
        self._value = (self._value + 1) % 256
        self._buffer.fill_(self._value)
        if self._buffer.is_cuda:  # on whatever stream the work follows
            torch.cuda.synchronize(self._buffer.device)


def device_time(run: Callable[[], object], clock: Clock, *, head_start: float = 0.002, prepare: Callable[[], None] = lambda: None) -> float:
    """Seconds of the work that ``run`` queues on the clock's stream.

    The device is held for ``head_start`` seconds first, so that it does not wait for the host between the launches.  Where ``run``
    itself waits for a result, the microseconds until the last mark is queued are counted too, to its disadvantage.
    """
    prepare()
    clock.hold(head_start)
    first = clock.mark()
    run()
    return clock.seconds(first, clock.mark())
