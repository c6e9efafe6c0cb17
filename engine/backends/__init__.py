"""Who runs the chain on processors.  A backend is chosen by name from one table; an unavailable choice is an error that lists the rest."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from fusedx.engine.choice import require_usable

if TYPE_CHECKING:
    from fusedx.engine.chain_runner import ChainRunner
    from fusedx.engine.denoiser import StoredDenoiser
    from fusedx.engine.schedule import Schedule

log = logging.getLogger("fusedx")


@dataclass(frozen=True, slots=True)
class Condition:
    """What stays constant along a chain, one entry for each distinct (prior, feature) pair: M entries.

    constant [M,F] = W1_p p, the constant half of layer 1; feature [M,F].
    """

    constant: np.ndarray
    feature: np.ndarray


class Denoiser(Protocol):
    """eps(y, t; prior, feature) for rows that may each be of another image, draw, map point or timestep.

    A row's result does not depend on which rows are evaluated beside it, to the last bit.
    """

    name: str

    def condition(self, prior: np.ndarray, feature: np.ndarray) -> Condition:
        """prior float64 [M,C], feature [M,F] -> the constant part of the chain."""

    def eps(self, y: np.ndarray, step: np.ndarray, condition: Condition, entry: np.ndarray) -> np.ndarray:
        """y float64 [R,C]; step int32 [R], row of the timestep tables; entry int32 [R], row of the condition -> float64 [R,C]."""


@runtime_checkable
class Differentiable(Protocol):
    """A denoiser that differentiates itself: what the samplers newton and stale need."""

    def eps_and_jacobian(
        self, y: np.ndarray, step: np.ndarray, condition: Condition, entry: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """As ``Denoiser.eps``, whose bits eps [R,C] has, and jacobian [R,C,C]: jacobian[r,i,j] = d eps[r,i] / d y[r,j].

        The Jacobian, too, is of its row alone.  Where weights are integers it is approximate.
        """


def constant_half(weight_p: np.ndarray, prior: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """W1_p p for each entry, [M,F]: summed class by class in float64, so that an entry's bits do not depend on M."""
    total = np.zeros((prior.shape[0], weight_p.shape[0]))
    for c in range(prior.shape[1]):
        total += prior[:, c, None] * weight_p[:, c].astype(np.float64)
    return total.astype(dtype)


def available() -> dict[str, str | None]:
    """Backend name -> None when usable, otherwise the reason why not.  ``auto`` takes the first usable one."""
    from fusedx.engine.backends import native

    return {"native": native.why_not(), "python": None}


def open_chains(name: str, stored: StoredDenoiser, schedule: Schedule) -> ChainRunner:
    """Chain runner on processors by backend name or ``auto``, in the precision of ``stored``."""
    choices = available()
    if name == "auto":
        name = next(n for n, reason in choices.items() if reason is None)
        if name == "python":
            log.warning("the chain runs in numpy, one read of the weights a row, because %s", choices["native"])
    require_usable("backend", name, choices, also=("auto",))
    if name == "native":
        from fusedx.engine.backends.native import NativeChains

        return NativeChains(stored, schedule)
    from fusedx.engine.backends.python import PythonDenoiser
    from fusedx.engine.chain_runner import HostChains

    return HostChains(stored.network, schedule, PythonDenoiser(stored.tables()), stored.precision, stored.coefficients)
