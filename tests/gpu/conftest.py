"""Tests that need an NVIDIA GPU: collected everywhere, skipped with the reason where there is none.

    PYTHONPATH=python python3 -m pytest tests/gpu

Test modules import torch and pycuda inside fixtures and tests (``pytest.importorskip``), so that collecting them costs nothing.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fusedx import golden
from fusedx.engine.cuda import device
from fusedx.engine.cuda.device import GPU

HERE = Path(__file__).parent
GOLDEN = HERE.parent / "golden"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip everything in this folder where no GPU can be used."""
    mine = [item for item in items if HERE in item.path.parents]
    reason = device.why_not() if mine else None
    if reason is not None:
        for item in mine:
            item.add_marker(pytest.mark.skip(reason=f"needs an NVIDIA GPU: {reason}"))


@pytest.fixture(scope="session")
def gpu() -> GPU:
    """The GPU that the tests run on: the first that can be used."""
    return device.find_all()[0]


@pytest.fixture(scope="session")
def golden_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Case name -> its compiled model, made on first use and kept for the session."""
    made: dict[str, Path] = {}

    def model(name: str) -> Path:
        if name not in made:
            made[name] = _compile(name, tmp_path_factory.mktemp(name))
        return made[name]

    return model


@pytest.fixture(scope="session")
def golden_case() -> Callable[[str], golden.GoldenCase]:
    """Case name -> its inputs and expected arrays."""
    return lambda name: golden.load(GOLDEN / f"{name}.json")


def _compile(name: str, folder: Path) -> Path:
    for module in ("torch", "onnx", "safetensors", "yaml"):
        pytest.importorskip(module, reason=f"compiling the golden checkpoint needs {module}")
    from fusedx.compiler import compile_checkpoint

    checkpoint, path = folder / "checkpoint", folder / f"{name}.fusedx"
    subprocess.run([sys.executable, GOLDEN / "make_checkpoint.py", name, checkpoint], check=True)
    compile_checkpoint(checkpoint, path)
    shutil.rmtree(checkpoint)
    return path
