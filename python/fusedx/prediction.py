"""What a classification returns."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fusedx.engine.errors import INPUT_REASONS, ConfigError


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """One image's result.

    label, index: the class of the largest score.  probabilities, scores, prior: float64 [C]; ``scores`` is the chain's raw final
    state averaged over draws, ``probabilities`` are the manifest's function of it, ``prior`` the prior encoder's own softmax.
    draws: independent chains averaged, with draws="auto" as many as this image took.  stability: share of draws whose own label is
    ``label``, 0..1.  standard_error: float64 [C], of ``scores``, from how the draws differ: another seed moves a score by about so much;
    not-a-number for one draw, which cannot tell.  undecided: draws="auto" reached its cap and still could not tell the label from the
    noise, so another seed may give another label; False where a number of draws was given, since nothing was asked then.
    image_sha256: of the decoded 8-bit RGB pixels.  patch_locations: int64 [6,2], (row, column) of the regions in pixels of the
    224x224 input.  saliency: float32 [C,7,7].
    timing: seconds by stage; read and preprocess are this image's own, encoder and chain its share of the batch.  Also what its chains
    took: ``sweeps`` (evaluations of the denoiser that they had rows in; draws share them), ``rows``, ``sequential_steps`` (taken one
    at a time).
    provenance: everything that the result depends on.  ``approximate``: the solver and its steps where they were not the published
    chain's, else None.  ``temperature``: what the probabilities are calibrated by, else None.
    """

    source: str
    label: str
    index: int
    probabilities: np.ndarray
    scores: np.ndarray
    prior: np.ndarray
    classes: tuple[str, ...]
    draws: int
    stability: float
    standard_error: np.ndarray
    undecided: bool
    image_sha256: str
    patch_locations: np.ndarray
    saliency: np.ndarray
    timing: dict[str, float] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; classes in order."""
        return {
            "source": self.source,
            "label": self.label,
            "index": self.index,
            "probabilities": dict(zip(self.classes, self.probabilities.tolist(), strict=True)),
            "scores": dict(zip(self.classes, self.scores.tolist(), strict=True)),
            "prior": dict(zip(self.classes, self.prior.tolist(), strict=True)),
            "draws": self.draws,
            "stability": self.stability,
            "standard_error": {c: e if math.isfinite(e) else None for c, e in zip(self.classes, self.standard_error.tolist(), strict=True)},
            "undecided": self.undecided,
            "image_sha256": self.image_sha256,
            "patch_locations": self.patch_locations.tolist(),
            "timing": self.timing,
            "provenance": self.provenance,
        }

    def __repr__(self) -> str:
        top = ", ".join(f"{c} {p:.3f}" for c, p in zip(self.classes, self.probabilities, strict=True))
        return f"Prediction({self.label!r}: {top}; source={self.source!r})"


@dataclass(frozen=True, slots=True)
class Failure:
    """One image that could not be classified.  ``reason`` is a stable code of ``fusedx.engine.errors.INPUT_REASONS``."""

    source: str
    reason: str
    message: str

    def __post_init__(self) -> None:
        if self.reason not in INPUT_REASONS:
            raise ConfigError(f"{self.reason!r} is not a known input reason: {', '.join(INPUT_REASONS)}")
