"""The temperature of a compiled model: what ``fusedx calibrate --store`` measured, and how it is applied where asked for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fusedx.engine.errors import ConfigError, require_int
from fusedx.engine.limits import MAX_DRAWS, MAX_SEED, MAX_SOLVER_STEPS, SOLVERS, STARTS
from fusedx.kernels.softmax import softmax

#: What a fit may give.  Beyond, all classes are equally likely or one is certain.
LEAST, MOST = 1e-3, 1e3
#: A mean negative log likelihood beyond this is no measurement.
MOST_NLL = 1e18


@dataclass(frozen=True, slots=True)
class Temperature:
    """probabilities = softmax(scores / value): "On calibration of modern neural networks" (arXiv 1706.04599), section 4.2.

    images: pictures with labels that it was fitted on; held_out: others, on which the calibration errors (15 bins) and the mean negative
    log likelihoods were measured, before (value 1) and after.  solver, solver_steps (None: as published), start, draws, seed: how
    those pictures' scores were computed, and what the temperature is for: the mean of more draws is more certain than one.
    """

    value: float
    images: int
    held_out: int
    ece_before: float
    ece_after: float
    nll_before: float
    nll_after: float
    draws: int = 1
    seed: int = 0
    start: str = "published"
    solver: str = "published"
    solver_steps: int | None = None

    def __post_init__(self) -> None:
        if not LEAST <= self.value <= MOST:
            raise ConfigError(f"temperature.value must be from {LEAST:g} to {MOST:g}, got {self.value!r:.100}")
        for name in ("images", "held_out"):
            require_int(f"temperature.{name}", getattr(self, name), 1, 1 << 50)
        for name in ("ece_before", "ece_after"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"temperature.{name} must be from 0 to 1, got {getattr(self, name)!r:.100}")
        for name in ("nll_before", "nll_after"):
            if not 0.0 <= getattr(self, name) <= MOST_NLL:
                raise ConfigError(f"temperature.{name} must be from 0 to {MOST_NLL:g}, got {getattr(self, name)!r:.100}")
        require_int("temperature.draws", self.draws, 1, MAX_DRAWS)
        require_int("temperature.seed", self.seed, 0, MAX_SEED)
        for name, known in (("start", STARTS), ("solver", SOLVERS)):
            if getattr(self, name) not in known:
                raise ConfigError(f"temperature.{name} must be one of {', '.join(known)}; got {getattr(self, name)!r:.100}")
        if (self.solver == "published") != (self.solver_steps is None):
            raise ConfigError("temperature.solver_steps goes with a solver other than published, and only there")
        if self.solver_steps is not None:
            require_int("temperature.solver_steps", self.solver_steps, 1, MAX_SOLVER_STEPS)

    @property
    def made_for(self) -> str:
        """The sampling that the fit belongs to, for people."""
        how = "the published chain" if self.solver_steps is None else f"{self.solver} in {self.solver_steps} steps"
        draws = "1 draw" if self.draws == 1 else f"{self.draws} draws"
        start = "" if self.start == "published" else f", start {self.start}"
        return f"{how}{start}, {draws}"

    def fits(self, *, draws_setting: str, start: str, solver: str, solver_steps: int | None) -> bool:
        """Whether results of this sampling are what the temperature was fitted on; the seed and the precision are not asked."""
        return (draws_setting, start, solver, solver_steps) == (str(self.draws), self.start, self.solver, self.solver_steps)

    def report(self) -> str:
        """For people."""
        return (
            f"{self.value:.4g}, where asked for (calibrated); fitted on {self.images} pictures: {self.made_for}, seed {self.seed}\n"
            f"on {self.held_out} others: calibration error {self.ece_before:.3f} before, {self.ece_after:.3f} after; "
            f"negative log likelihood {self.nll_before:.3f}, {self.nll_after:.3f}"
        )


def tempered(scores: np.ndarray, temperature: float) -> np.ndarray:
    """float64 [...,C] -> softmax(scores / temperature), float64 [...,C]."""
    return softmax(scores / temperature)
