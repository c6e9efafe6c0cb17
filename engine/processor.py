"""What the system says of the processors that this runs on."""

from __future__ import annotations

import os
from pathlib import Path


def name() -> str:
    """As the system gives it, or an empty text."""
    return _entry("model name", "Model")


def flags() -> set[str]:
    """What the processor says it can do, by Linux's names; empty where nobody tells."""
    return set(_entry("flags", "Features").split())


def usable() -> int:
    """How many this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _entry(*names: str) -> str:
    """The first line of /proc/cpuinfo that has one of these names: x86's, and Arm's."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    entries = (line.partition(":") for line in lines)
    return next((text.strip() for key, _, text in entries if key.strip() in names), "")
