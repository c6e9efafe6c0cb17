"""A row's bits are its own: what tests of several kernels assert in the same way."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

TESTS = Path(__file__).resolve().parent


def same_bits(x: np.ndarray, y: np.ndarray) -> bool:
    return x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()


def in_any_company(compute: Callable[[slice | np.ndarray], np.ndarray], rows: int) -> None:
    """``compute(index)``: results of those of so many rows that the index picks."""
    together = compute(slice(None))
    for r in {0, rows // 2, rows - 1}:
        assert same_bits(compute(slice(r, r + 1))[0], together[r]), f"row {r} of {rows}"
    order = np.random.default_rng(0).permutation(rows)
    assert same_bits(compute(order), together[order]), f"order of {rows} rows"


def on_any_number_of_threads(code: str, folder: Path, *counts: str) -> None:
    """What ``code``, which may import the tests of ``folder``, prints in processes with so many threads."""
    path = os.pathsep.join(str(part) for part in (TESTS.parent / "python", TESTS, folder))
    found = set()
    for threads in counts:
        env = {**os.environ, "PYTHONPATH": path, "FUSEDX_THREADS": threads}
        found.add(subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True, timeout=120).stdout)
    assert len(found) == 1, found
