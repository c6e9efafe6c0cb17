"""Which TensorRT is installed, full or lean, and why not; and its logger."""

from __future__ import annotations

import ctypes
import logging
from collections import deque
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from fusedx.engine.errors import UnavailableError

log = logging.getLogger("fusedx")

#: The first version whose network can be strongly typed in every operator of the encoder, bfloat16 and opset 22 included.
OLDEST = (10, 9)
#: Names to try: the package as pip installs it, then its bindings alone.
FULL = ("tensorrt", "tensorrt_bindings")
LEAN = ("tensorrt_lean", "tensorrt_lean_bindings")
_KEPT_LINES = 50


def load(names: tuple[str, ...]) -> tuple[ModuleType | None, str]:
    """(module, "") of :data:`FULL` or :data:`LEAN`, or (None, reason)."""
    reasons = []
    for name in names:
        spec = find_spec(name)
        if spec is None or spec.origin is None:  # without an origin: some folder of that name, such as TensorRT's source
            continue
        try:
            module = import_module(name)
        except (ImportError, OSError) as error:  # a wheel without its libraries
            reasons.append(f"{name} does not import ({str(error).splitlines()[0]})")
            continue
        if version(module) < OLDEST:
            reasons.append(f"{name} is {module.__version__}, older than {'.'.join(map(str, OLDEST))}")
            continue
        return module, ""
    return None, "; ".join(reasons) or f"{names[0]} is not installed"


def version(module: ModuleType | str) -> tuple[int, ...]:
    """(major, minor, ...) of a module, or of a version's text."""
    text = module if isinstance(module, str) else str(module.__version__)
    return tuple(int(part) for part in text.split(".") if part.isdigit())


def collector(trt: Any) -> Any:
    """A TensorRT logger that passes every line on to the logger ``fusedx`` and keeps warnings and errors in ``lines``.

    ``failed``: whether there was an error.
    TensorRT calls it from its own threads and as long as anything made with it lives, so it must outlive builder and runtime.
    """
    severity = trt.ILogger.Severity
    levels = {
        severity.INTERNAL_ERROR: logging.ERROR,
        severity.ERROR: logging.ERROR,
        severity.WARNING: logging.WARNING,
        severity.INFO: logging.DEBUG,
    }

    class Collector(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: deque[str] = deque(maxlen=_KEPT_LINES)
            self.failed = False

        def log(self, severity: Any, msg: str) -> None:
            level = levels.get(severity, 0)  # verbose lines, thousands of them, are dropped
            if level >= logging.WARNING:
                self.lines.append(msg)
            self.failed |= level >= logging.ERROR
            if level:
                log.log(level, "TensorRT: %s", msg)

    return Collector()


def start(kind: Any, logger: Any) -> Any:
    """``trt.Builder`` or ``trt.Runtime``, made and alive.

    Without a driver, or with one that is too old, release 11.4 makes a Runtime that logs the error and ends the process by a
    segmentation fault when it is used, and also when it is destroyed; so such a one is never destroyed.
    """
    try:
        made = kind(logger)
    except TypeError:  # pybind11's word for a null pointer
        made = None
    if made is not None and logger.failed:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(made))
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(logger))
    if made is None or logger.failed:
        raise UnavailableError(f"TensorRT's {kind.__name__} does not start: {said(logger)}")
    return made


def said(logger: Any) -> str:
    """What TensorRT complained about, for an error's text."""
    return " | ".join(list(logger.lines)[-5:])[:1500] or "it gave no reason"
