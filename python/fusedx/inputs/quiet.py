"""Collects what Pillow and pydicom would warn about, for the calling thread alone.

``warnings.catch_warnings`` changes the whole process and is not safe with threads, and a warning that a caller turned
into an exception would change what can be read.  So the handful of library modules that warn get, once, a stand-in for
their ``warnings`` module: outside :func:`collected` it behaves exactly as before, inside it appends to that call's list.
pydicom's texts can quote element values, so they must not be stored or shown: count them only.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_sink: ContextVar[list[str] | None] = ContextVar("fusedx_warning_sink", default=None)


class _Warnings:
    """Stands for the module ``warnings`` inside one library module."""

    def warn(self, message, category=None, stacklevel=1, **more):
        sink = _sink.get()
        if sink is None:
            warnings.warn(message, category, stacklevel + 1, **more)
        else:
            sink.append(str(message))

    def __getattr__(self, name):
        return getattr(warnings, name)


def listen_to(*modules: str) -> None:
    """Install the stand-in in the named modules; call at import time, never per picture."""
    for name in modules:
        module = importlib.import_module(name)
        if getattr(module, "warnings", None) is warnings:
            module.warnings = _Warnings()  # type: ignore[attr-defined]


@contextmanager
def collected() -> Iterator[list[str]]:
    """Yield the list that receives this thread's warnings from the modules given to :func:`listen_to`."""
    sink: list[str] = []
    token = _sink.set(sink)
    try:
        yield sink
    finally:
        _sink.reset(token)
