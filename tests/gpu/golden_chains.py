"""The persistent chain on a GPU for tests: opened on torch's memory or PyCUDA's, fed from golden arrays instead of an encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fusedx import golden
from fusedx.engine.compiled import open_model
from fusedx.engine.cuda.device import GPU
from fusedx.engine.cuda.memory import DeviceMemory
from fusedx.engine.cuda.persistent import PersistentChains
from tolerances import GPU_CHAIN

PRECISIONS = tuple(GPU_CHAIN)
#: The quick golden cases, and those of full width: 1.2 GB of weights each.
SMALL = ("v1-small", "v1-noise-prior", "v2-small")
FULL = ("v1-aptos", "v1-isic", "v2-placental")


def open_chains(path: Path, gpu: GPU, memory: DeviceMemory, precision: str, watchdog_s: float = 10.0) -> PersistentChains:
    model = open_model(path, verify=False)
    m = model.manifest
    return PersistentChains(m.network, m.schedule, model.denoiser(), gpu, memory, precision, watchdog_s=watchdog_s)


def torch_memory(gpu: GPU) -> DeviceMemory:
    from fusedx.engine.cuda.memory_torch import TorchMemory

    return TorchMemory(gpu.index)


def encoded(case: golden.GoldenCase) -> dict[str, np.ndarray]:
    """What the original's encoder gave."""
    if case.family == "diffmic-v1":
        return {"prior": case.expected["prior"], "feature": case.expected["feature"].astype(np.float32)}
    ends = {name: case.expected[name] for name in ("y_global", "y_local")}
    return ends | {"fused_feature": case.expected["fused_feature"].astype(np.float32)}


def final(case: golden.GoldenCase) -> np.ndarray:
    """Expected scores [B,C]."""
    return case.expected["y_final" if case.family == "diffmic-v1" else "prediction"]


def relative_error(got: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))
