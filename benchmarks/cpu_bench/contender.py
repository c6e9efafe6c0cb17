"""Who takes part: a library in one of its precisions, or fusedx in one of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cpu_bench.problem import Eps, Problem

#: Precision -> bits of a weight.
BITS = {"fp32": 32, "bf16": 16, "fp16": 16, "int8": 8, "int4": 4}
FUSEDX = "fusedx"


@dataclass(frozen=True, slots=True)
class Opened:
    """Ready to run a problem: ``chain`` its timed steps, ``eps`` the first of them; ``whole`` all T steps (None: nobody asks)."""

    chain: Callable[[], np.ndarray]
    eps: Callable[[], np.ndarray]
    whole: Callable[[], np.ndarray]


@dataclass(frozen=True, slots=True)
class Form:
    """``how``: what is particular about it.  ``open`` may raise anything; then this form is left out, and its reason is reported."""

    library: str
    precision: str
    how: str
    open: Callable[[Problem], Opened]

    @property
    def name(self) -> str:
        """Such as ``OpenVINO int8, weights``."""
        return f"{self.library} {self.precision}" + (f", {self.how}" if self.how else "")


def library_form(library: str, precision: str, how: str, make_eps: Callable[[Problem], Eps]) -> Form:
    """A library that evaluates the denoiser, in a loop around it."""

    def opened(problem: Problem) -> Opened:
        eps = make_eps(problem)
        first = problem.steps - 1
        whole = problem.chain(eps, problem.tables.steps)
        return Opened(problem.chain(eps, problem.steps), lambda: np.array(eps(problem.start, first), np.float64), whole)

    return Form(library, precision, how, opened)
