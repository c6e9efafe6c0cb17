"""What ``fusedx doctor`` finds out about GPUs."""

from __future__ import annotations

from importlib import metadata
from importlib.util import find_spec
from typing import Any


def gpu() -> dict[str, Any]:
    """Devices, what the engine needs to use them, and why one of it is missing; plain JSON types."""
    from fusedx.engine.cache_folder import cache_folder
    from fusedx.engine.cuda import binaries, device
    from fusedx.engine.encoder import tensorrt

    reason = device.why_not()
    return {
        "usable": reason is None,
        "reason": reason,
        "devices": [_device(found) for found in device.find_all()] if reason is None else [],
        "torch": _torch(),
        "triton": _version("triton") or "not installed (pip install 'fusedx[cuda]')",
        "tensorrt": tensorrt.why_not(),
        "pycuda": _version("pycuda") or "not installed (pip install 'fusedx[edge-cuda]')",
        "nvcc": binaries.nvcc(),
        "shipped_kernels": _shipped(),
        "cache": str(cache_folder()),
    }


def _shipped() -> list[str]:
    """Binaries that came with the package and belong to its sources; those of other sources are never loaded."""
    from fusedx.engine.cuda import binaries
    from fusedx.kernels.target import TARGETS

    sources = sorted(binaries.KERNELS.glob("*/*.cu"))
    names = (binaries.file_name(source, target) for source in sources for target in TARGETS.values())
    return [name for name in names if (binaries.SHIPPED / name).is_file()]


def _device(found: Any) -> dict[str, Any]:
    return {
        "device": f"cuda:{found.index}", "name": found.name, "compute_capability": found.compute_capability, "sms": found.target.sms,
        "memory_gib": round(found.memory / 2**30, 1), "l2_mib": found.target.l2 >> 20, "driver": found.driver,
    }  # fmt: skip


def _torch() -> str:
    """Version, and whether it is a CPU build; torch itself takes seconds to import, and is not."""
    version = _version("torch")
    if version is None:
        return "not installed (pip install 'fusedx[cuda]')"
    return f"{version} (a CPU build: no GPU through it)" if "+cpu" in version else version


def _version(distribution: str) -> str | None:
    if find_spec(distribution) is None:
        return None
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "installed"
