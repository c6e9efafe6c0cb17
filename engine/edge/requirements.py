"""What the torch-free runner needs, and which of it is missing here."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from fusedx.engine.cuda import device
from fusedx.engine.encoder import tensorrt

INSTALL = "pip install 'fusedx[edge-cuda]'"


def why_not() -> str | None:
    """None where :class:`fusedx.engine.edge.EdgeModel` can run; otherwise all that is missing."""
    missing = [reason for reason in (_no_pycuda(), _no_tensorrt(), device.why_not()) if reason]
    return f"{'; '.join(missing)} ({INSTALL}, and an NVIDIA driver)" if missing else None


def _no_pycuda() -> str | None:
    if find_spec("pycuda") is None:
        return "pycuda is not installed"
    try:
        import_module("pycuda.driver")
    except ImportError as error:  # its extension module links to the driver's library
        return f"pycuda does not import ({error})"
    return None


def _no_tensorrt() -> str | None:
    return tensorrt.why_not()
