"""What a classification returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fusedx.engine.errors import INPUT_REASONS, ConfigError


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """One image's result.

    label, index: the class of the largest score.  probabilities, scores, prior: float64 [C]; ``scores`` is the chain's raw final
    state averaged over draws, ``probabilities`` are the manifest's function of it, ``prior`` the prior encoder's own softmax.
    draws: independent chains averaged.  stability: share of draws whose own label is ``label``, 0..1.
    image_sha256: of the decoded 8-bit RGB pixels.  patch_locations: int64 [6,2], (row, column) of the regions in pixels of the
    224x224 input.  saliency: float32 [C,7,7].
    timing: seconds by stage; read and preprocess are this image's own, encoder and chain its share of the batch.  Also what its chains
    took: ``sweeps`` (evaluations of the denoiser that they had rows in), ``rows``, ``sequential_steps`` (taken one at a time).
    provenance: everything that the result depends on.
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
