"""Everything the page shows, gathered once from the model.  The drawing modules take no number from anywhere else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Unpack

import numpy as np

from fusedx.engine.errors import FusedxError
from fusedx.engine.preprocess import to_square_uint8
from fusedx.prediction import Prediction

if TYPE_CHECKING:
    from fusedx.model import Model, Settings, Source


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What is known about one picture.

    prediction: over all draws.  square: uint8 [224,224,3], the picture as the network sees it, before normalisation.
    states: float64 [S,C], the first draw's scores at the start and after every step (v2: mean over the 6x6 map).
    steps: of the chain.  task: multiclass or multilabel.
    likely: float64 [2,C], each class's probability if its own score alone were one standard error lower, or higher; None for one draw.
    """

    prediction: Prediction
    square: np.ndarray
    states: np.ndarray
    steps: int
    task: str
    likely: np.ndarray | None = None


def collect(model: Model, source: Source, **sampling: Unpack[Settings]) -> Evidence:
    """Classify ``source`` and trace the first draw's chain for the same picture and the same noise."""
    picture = model.read(source)
    prediction = model.classify(source, **sampling)
    if prediction.image_sha256 != picture.sha256:
        raise FusedxError(f"{picture.source}: the picture changed while it was being explained")
    noise = model.noise(picture.sha256, seed=sampling.get("seed"), start=sampling.get("start"))
    approximate = prediction.provenance.get("approximate")
    solver = {"solver": approximate["solver"], "solver_steps": approximate["steps"]} if approximate else {}
    trace = model.trace(model.preprocess(picture)[None], noise, **solver)
    if prediction.draws == 1:
        _check_same(trace["y_final"][0], prediction)
    task = model.manifest.task
    square, states = to_square_uint8(picture.pixels), chain_states(trace["trajectory"])
    steps = approximate["steps"] if approximate else model.manifest.schedule.steps
    return Evidence(prediction, square, states, steps, task, likely(prediction, task))


def likely(p: Prediction, task: str) -> np.ndarray | None:
    """See :class:`Evidence`.  Moving a score by e multiplies the odds of its class by exp(e / T), T being 1 or the temperature."""
    if p.draws == 1:
        return None
    if task == "multilabel":
        return np.clip(p.scores + np.outer([-1.0, 1.0], p.standard_error), 0.0, 1.0)
    tiny, less = np.finfo(np.float64).tiny, np.exp(-p.standard_error / (p.provenance.get("temperature") or 1.0))
    own, others = np.maximum(p.probabilities, tiny), np.maximum(1.0 - p.probabilities, tiny)
    return np.stack([own * less / (own * less + others), own / (own + others * less)])


def chain_states(trajectory: np.ndarray) -> np.ndarray:
    """[S,1,C] (v1) or [S,1,C,6,6] (v2) -> [S,C]."""
    states = trajectory[:, 0]
    return states if states.ndim == 2 else states.mean(axis=(-2, -1))


def _check_same(traced: np.ndarray, prediction: Prediction) -> None:
    """Bit for bit: the page must not show a chain that is not the one that was classified."""
    different = np.flatnonzero(traced != prediction.scores)
    if different.size:
        i = int(different[0])
        raise FusedxError(
            f"{prediction.source}: the traced chain ends in {traced[i]!r} for class {i} ({prediction.classes[i]}), "
            f"but classify gave {prediction.scores[i]!r}"
        )
