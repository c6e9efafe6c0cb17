"""What the GPU tests of whole models share: pictures, the bits of a prediction, models that are opened once."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

import fusedx
from fusedx.prediction import Prediction

PRECISIONS = ("fp32", "bf16", "fp16", "fp8")
BACKENDS = ("triton", "persistent")


def fresh(path: Path, precision: str = "fp32", backend: str = "triton", **options: bool) -> fusedx.Model:
    """A model of its own on the first GPU, its encoder by torch: TensorRT has tests of its own.  options: of fusedx.load.

    Without graphs the encoder is not compiled either, which would take up to a minute.
    """
    encoder = "torch" if options.get("graphs", True) else "torch-eager"
    return fusedx.load(path, "cuda", precision, backend, encoder=encoder, **options)


def opened(
    path: Path, precision: str = "fp32", backend: str = "triton", *, graphs: bool = True, batch_invariant: bool = True
) -> fusedx.Model:
    """The same, kept for the session and shared between tests."""
    return _opened(path, precision, backend, graphs, batch_invariant)


@cache
def _opened(path: Path, precision: str, backend: str, graphs: bool, batch_invariant: bool) -> fusedx.Model:
    """Every argument by its place: a cache takes a default that is left out and one that is spelt out for two models."""
    return fresh(path, precision, backend, graphs=graphs, batch_invariant=batch_invariant)


def quick(path: Path, precision: str, backend: str) -> fusedx.Model:
    """The same, as by default for the two precisions that matter most, and launched one by one for the rest.

    Compiling an encoder takes up to a minute, and every model compiles its own.
    """
    captured = backend == "triton" and precision in ("fp32", "bf16")
    return opened(path, precision, backend) if captured else opened(path, precision, backend, graphs=False)


def pictures(count: int, seed: int = 4) -> list[np.ndarray]:
    """uint8 pictures of assorted sizes."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (40 + 13 * (i % 7), 70 + 7 * (i % 11), 3), dtype=np.uint8) for i in range(count)]


def bits(p: Prediction) -> tuple[object, ...]:
    """Everything that must not depend on company, thread, stream or the kind of memory that the picture came in."""
    arrays = (p.probabilities, p.scores, p.prior, p.patch_locations, p.saliency)
    return (p.label, p.index, p.draws, p.stability, p.image_sha256, *(a.tobytes() for a in arrays))
