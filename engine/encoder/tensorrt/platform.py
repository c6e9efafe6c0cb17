"""The machine as the plan cache must know it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fusedx.engine.cuda.device import GPU
from fusedx.engine.errors import UnavailableError

_TEXT_BYTES = 96  # NVML asks for 80


@dataclass(frozen=True, slots=True)
class Platform:
    """``compute_capability`` "9.0"; ``driver``: release of the kernel driver, "580.65.06"; ``cuda``: the newest that it runs, "13.0"."""

    gpu: str
    compute_capability: str
    driver: str
    cuda: str

    @classmethod
    def of(cls, gpu: GPU, load: Callable[[str], Any] = ctypes.CDLL) -> Platform:
        """``load`` opens a shared library by name.  Raises UnavailableError where the driver does not say its release."""
        return cls(gpu.name, gpu.compute_capability, driver_release(load), gpu.driver)


def driver_release(load: Callable[[str], Any] = ctypes.CDLL) -> str:
    """The kernel driver's release, by NVML, which is installed with every driver."""
    try:
        nvml = load("libnvidia-ml.so.1")
    except OSError as error:
        raise UnavailableError(f"the NVIDIA driver's release cannot be read: {error}") from None
    text = ctypes.create_string_buffer(_TEXT_BYTES)
    status = nvml.nvmlInit_v2()
    if not status:
        status = nvml.nvmlSystemGetDriverVersion(text, _TEXT_BYTES)
        nvml.nvmlShutdown()
    if status:
        raise UnavailableError(f"the NVIDIA driver's release cannot be read: NVML gives status {status}")
    return text.value.decode(errors="replace")
