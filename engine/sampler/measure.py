"""Time evaluations of the denoiser on this machine, on weights made up for it: what ``fusedx doctor --calibrate`` runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from fusedx.engine.denoiser import StoredDenoiser, stored_shapes
from fusedx.engine.manifest import Network
from fusedx.engine.safetensors import DTYPES
from fusedx.engine.sampler.measured import ROWS, WIDTHS, Tables
from fusedx.kernels.conditional_layer.packed import FORMATS

if TYPE_CHECKING:
    from fusedx.engine.backends.native import NativeChains

_CLASSES, _STEPS = 8, 2
#: Runs of one size; the fastest counts, for what slows a run down is never the denoiser.
_ROUNDS = 5


def measure(progress: Callable[[int, int, str], None], widths: tuple[int, ...] = WIDTHS, rows: tuple[int, ...] = ROWS) -> Tables:
    """precision -> width -> rows -> seconds of one evaluation.  Takes about half a minute and 0.4 GB at the published width."""
    tables: Tables = {}
    cells = [(precision, width) for precision in FORMATS for width in widths]
    for done, (precision, width) in enumerate(cells):
        progress(done, len(cells), f"{precision}, width {width}")
        chains = _chains(precision, width)
        tables.setdefault(precision, {})[width] = {r: _evaluation(chains, width, r) for r in rows}
    progress(len(cells), len(cells), "done")
    return tables


def _evaluation(chains: NativeChains, width: int, rows: int) -> float:
    encoded = {"prior": np.full((1, _CLASSES), 1 / _CLASSES), "feature": np.ones((1, width), np.float32)}
    noise = np.zeros((_STEPS, rows, 1, _CLASSES))
    return min(_timed(lambda: chains.run(encoded, noise, keep=False)) for _ in range(_ROUNDS)) / _STEPS


def _timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _chains(precision: str, width: int) -> NativeChains:
    from fusedx.engine.backends.native import NativeChains

    network = Network("diffmic-v1", _CLASSES, width, "resnet18", "resnet18", 64)
    return NativeChains(StoredDenoiser(network, precision, dict(_arrays(network, precision))))


def _arrays(network: Network, precision: str) -> Iterator[tuple[str, np.ndarray]]:
    """Weights of ordinary size, which is all that a time may depend on: zeros, infinities and subnormals are not."""
    rng = np.random.default_rng(0)
    for name, (shape, dtype) in stored_shapes(network, _STEPS, precision).items():
        kind = DTYPES[dtype]
        if dtype == "BF16":
            yield name, rng.integers(0x3C00, 0x3D00, shape, kind)
        elif kind.kind in "iu":
            yield name, rng.integers(0, 127, shape, kind)
        else:
            yield name, (rng.random(shape, np.float32) * 0.01 + 0.01).astype(kind)
