"""Everything the page shows, gathered once from the model.  The drawing modules take no number from anywhere else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fusedx.engine.errors import FusedxError
from fusedx.engine.preprocess import to_square_uint8
from fusedx.prediction import Prediction

if TYPE_CHECKING:
    from fusedx.model import Model, Source


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What is known about one picture.

    prediction: over all draws.  square: uint8 [224,224,3], the picture as the network sees it, before normalisation.
    states: float64 [S,C], the first draw's scores at the start and after every step (v2: mean over the 6x6 map).
    steps: of the chain.  task: multiclass or multilabel.
    """

    prediction: Prediction
    square: np.ndarray
    states: np.ndarray
    steps: int
    task: str


def collect(model: Model, source: Source, *, seed: int | None, draws: int) -> Evidence:
    """Classify ``source`` and trace the first draw's chain for the same picture and the same noise."""
    picture = model.read(source)
    prediction = model.classify(source, seed=seed, draws=draws)
    if prediction.image_sha256 != picture.sha256:
        raise FusedxError(f"{picture.source}: the picture changed while it was being explained")
    trace = model.trace(model.preprocess(picture)[None], model.noise(picture.sha256, seed=seed))
    if draws == 1:
        _check_same(trace["y_final"][0], prediction)
    manifest = model.manifest
    return Evidence(prediction, to_square_uint8(picture.pixels), chain_states(trace["trajectory"]), manifest.schedule.steps, manifest.task)


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
