"""How much of the processors other processes took while something was measured."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_STAT = Path("/proc/stat")


@contextmanager
def others(found: dict[str, float], name: str) -> Iterator[None]:
    """On leaving, found[name] is the share (0 to 1) of all processors; no entry where the system does not tell."""
    before = _seconds()
    yield
    after = _seconds()
    if before and after and after[0] > before[0]:
        share = (after[1] - before[1] - (after[2] - before[2])) / ((after[0] - before[0]) * (os.cpu_count() or 1))
        found[name] = round(max(0.0, share), 3)


def _seconds() -> tuple[float, float, float] | None:
    """(now, spent by all processes, spent by this one and its children)."""
    try:
        user, nice, system, _, _, irq, softirq, stolen = map(int, _STAT.read_text().split("\n", 1)[0].split()[1:9])
    except (OSError, ValueError):
        return None
    own = os.times()
    mine = own.user + own.system + own.children_user + own.children_system
    return time.monotonic(), (user + nice + system + irq + softirq + stolen) / os.sysconf("SC_CLK_TCK"), mine
