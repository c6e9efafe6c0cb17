"""A checked view of one state dict: every tensor is asked for by name and shape, and every disagreement is collected.

A network is built by asking for its tensors, so the builder itself is the list of what a checkpoint must hold.  Problems do
not stop the building (zeros stand in), so that one error can name all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from fusedx.engine.errors import CheckpointError

#: Buffers that training keeps and inference never reads.
_IGNORED_SUFFIX = ".num_batches_tracked"
#: Values that zeros may stand in for before building stops.  A published network that lacks every tensor needs fewer; a small
#: file that asks for a giant network would otherwise get the memory for it.
_MAX_STAND_IN = 1 << 27


class Weights:
    """Tensors of one part of a checkpoint.

    tensors: name -> array, as saved.  part: prefix for messages ("prior encoder", ...).
    strict: whether a tensor that nothing asked for is a problem; when False it is only reported in ``ignored``.
    """

    def __init__(self, tensors: Mapping[str, np.ndarray], part: str, *, strict: bool = True) -> None:
        self._tensors = tensors
        self._part = part
        self._strict = strict
        self._used: set[str] = set()
        self._stand_in = 0
        self.problems: list[str] = []
        self.ignored: list[str] = []

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Shape as saved, or None where the tensor is missing."""
        return tuple(self._tensors[name].shape) if name in self._tensors else None

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def get(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """The tensor, read-only by convention; zeros of ``shape`` where it is missing or does not fit."""
        self._used.add(name)
        if name not in self._tensors:
            self.problems.append(f"missing   {self._part}: {name} {list(shape)}")
        elif self.shape(name) != shape:
            self.problems.append(f"misshapen {self._part}: {name} is {list(self.shape(name) or ())}, expected {list(shape)}")
        elif not np.issubdtype((tensor := self._tensors[name]).dtype, np.floating):
            self.problems.append(f"misshapen {self._part}: {name} has dtype {tensor.dtype}, expected floating point")
        else:
            if not np.isfinite(tensor).all():
                bad = int(tensor.size - np.isfinite(tensor).sum())
                self.problems.append(f"not finite {self._part}: {name} has {bad} NaN or infinite values of {tensor.size}")
            return tensor
        self._stand_in += math.prod(shape)
        if self._stand_in > _MAX_STAND_IN:
            raise _misfit(self.problems, "the rest was not looked at")
        return np.zeros(shape, np.float32)

    def invalid(self, what: str) -> None:
        """Record a problem that only the caller can see."""
        self.problems.append(f"not valid {self._part}: {what}")

    def ignore(self, prefixes: Iterable[str]) -> None:
        """Mark tensors that the published files hold and nothing reads, so that they are reported and not refused."""
        for name in sorted(self._tensors):
            if name not in self._used and any(name.startswith(p) for p in prefixes):
                self._used.add(name)
                self.ignored.append(f"{self._part}: {name}")

    def finish(self) -> None:
        """Account for every tensor that nobody asked for."""
        for name in sorted(set(self._tensors) - self._used):
            if name.endswith(_IGNORED_SUFFIX):
                continue
            if self._strict:
                self.problems.append(f"extra     {self._part}: {name} {list(self.shape(name) or ())}")
            else:
                self.ignored.append(f"{self._part}: {name}")


def check(*parts: Weights) -> list[str]:
    """Raise one CheckpointError that lists every problem of every part; return what was ignored."""
    for part in parts:
        part.finish()
    problems = [p for part in parts for p in part.problems]
    if problems:
        raise _misfit(problems)
    return [i for part in parts for i in part.ignored]


def _misfit(problems: list[str], remark: str = "") -> CheckpointError:
    shown = problems[:40]
    if len(problems) > len(shown):
        shown.append(f"... and {len(problems) - len(shown)} more")
    places = f"{len(problems)} places" + (f" ({remark})" if remark else "")
    return CheckpointError(f"the checkpoint does not fit the network in {places}:\n  " + "\n  ".join(shown))


def batch_norm(weights: Weights, name: str, width: int, eps: float = 1e-5) -> tuple[np.ndarray, np.ndarray]:
    """(scale, shift), float64 [width]: batch normalisation in evaluation mode as one affine map per channel."""
    gamma = weights.get(f"{name}.weight", (width,)).astype(np.float64)
    beta = weights.get(f"{name}.bias", (width,)).astype(np.float64)
    mean = weights.get(f"{name}.running_mean", (width,)).astype(np.float64)
    var = weights.get(f"{name}.running_var", (width,)).astype(np.float64)
    if (var < 0).any():
        weights.invalid(f"{name}.running_var has negative entries")
        var = np.abs(var)
    scale = gamma / np.sqrt(var + eps)
    return scale, beta - mean * scale
