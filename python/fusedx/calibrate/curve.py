"""Steps against agreement with the published chain, from the same noise.

A curve alone misleads: the published chain draws noise at every step and a solver only at the start, so even an exact solution of the
solver's equation answers otherwise than one published chain does, as another published chain would.  What another seed changes is
therefore the first line: a solver that agrees as often is as good as another draw.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fusedx.agreement import changed, labels, shifts
from fusedx.calibrate.answers import Answers
from fusedx.engine.sampling import Sampling
from fusedx.statistics import wilson


@dataclass(frozen=True, slots=True)
class Share:
    """``count`` of ``of`` pictures, with a 95 % interval."""

    count: int
    of: int
    low: float
    high: float

    @staticmethod
    def of_(events: np.ndarray) -> Share:
        """bool [n]."""
        return Share(int(events.sum()), len(events), *wilson(int(events.sum()), len(events)))

    @property
    def value(self) -> float:
        return self.count / self.of


@dataclass(frozen=True, slots=True)
class Point:
    """One setting against the published chain.

    evaluations: of the denoiser for a picture.  agree: labels that are the same.  mean_shift, shift_95: mean and 95th percentile of the
    largest difference of a class's probability.  right: labels that are those of the table, None without one.
    """

    solver: str
    steps: int
    evaluations: int
    agree: Share
    mean_shift: float
    shift_95: float
    right: Share | None

    def row(self) -> dict[str, Any]:
        """Flat, for tables."""
        flat: dict[str, Any] = {"solver": self.solver, "steps": self.steps, "evaluations": self.evaluations, "pictures": self.agree.of}
        flat |= {"agreeing": self.agree.count, "agreement": self.agree.value, "low": self.agree.low, "high": self.agree.high}
        flat |= {"mean_shift": self.mean_shift, "shift_95": self.shift_95}
        r = self.right
        flat |= {"labelled": r and r.of, "right": r and r.count}
        return flat | {"accuracy": r and r.value, "accuracy_low": r and r.low, "accuracy_high": r and r.high}


@dataclass(frozen=True, slots=True)
class Curve:
    """published: against itself, for its share of right labels.  floor: the published chain with another seed.  points: the solvers."""

    published: Point
    floor: Point
    points: list[Point]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


#: The name of the floor in tables.
ANOTHER_SEED = "published, another seed"


def measure(answers: Answers, steps: int, task: str) -> Curve:
    """answers: of the published chain, of the same with another seed, and of the solvers.  steps: of the published chain."""
    published, floor, *points = (_point(answers, i, setting, steps, task) for i, setting in enumerate(answers.settings))
    return Curve(published, floor, points)


def _point(answers: Answers, i: int, setting: Sampling, steps: int, task: str) -> Point:
    taken = setting.solver_steps or steps
    known = answers.labels >= 0
    right = Share.of_(answers.scores[i].argmax(1)[known] == answers.labels[known]) if known.any() else None
    shift = shifts(answers.probabilities[i], answers.probabilities[0])
    name = ANOTHER_SEED if i == 1 else setting.solver
    return Point(
        solver=name,
        steps=taken,
        evaluations=taken * int(setting.draws),
        agree=Share.of_(~changed(labels(answers.scores[i], task), labels(answers.scores[0], task))),
        mean_shift=float(shift.mean()),
        shift_95=float(np.quantile(shift, 0.95)),
        right=right,
    )
