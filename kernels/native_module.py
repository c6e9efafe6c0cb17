"""The compiled module: ``native`` is it, or None with ``reason`` saying why.  Importing this never fails."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

native: ModuleType | None
reason = ""
try:
    native = import_module("fusedx._native")
except ImportError as error:
    native, reason = None, str(error)


def require(operation: str) -> ModuleType:
    """The compiled module, or a RuntimeError that says which operation wanted it and why it is missing."""
    if native is None:
        raise RuntimeError(f"{operation} needs fusedx._native, which is not built or does not load here ({reason}); "
                           "build it with `python setup.py build_ext --inplace` or reinstall with FUSEDX_NATIVE=1")
    return native
