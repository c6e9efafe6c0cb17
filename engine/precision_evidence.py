"""Why a model has the precision it has: what ``fusedx compile --precision auto`` measured before it chose."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fusedx.engine.errors import ConfigError
from fusedx.engine.limits import MAX_DRAWS, MAX_SEED
from fusedx.kernels.conditional_layer.packed import FORMATS

PASSED, FAILED, STOPPED = "passed", "failed", "stopped"
#: passed: every picture was judged and both bounds hold.  failed: every picture was judged.  stopped: judged no further than until no
#: outcome of the rest could have made it pass.
VERDICTS = (PASSED, FAILED, STOPPED)


@dataclass(frozen=True, slots=True)
class CandidateFigures:
    """One pair of precisions against fp32 weights with an fp32 encoder: the same pictures, the same noise.

    precision, encoder_precision: of the candidate.  cost_bytes: what ordered the candidates, see fusedx.compiler.candidates.
    pictures: judged.  label_changes: of them, those whose label differs.  label_change_bound: upper confidence bound of that share.
    A picture's probability shift is its largest difference of a class's probability; of these mean_shift, the upper confidence bound
    of their mean, the 95th percentile and the largest.
    """

    precision: str
    encoder_precision: str
    cost_bytes: int
    pictures: int
    label_changes: int
    label_change_bound: float
    mean_shift: float
    mean_shift_bound: float
    shift_95: float
    largest_shift: float
    verdict: str

    def __post_init__(self) -> None:
        where = "precision_evidence.candidates"
        if self.precision not in FORMATS or self.encoder_precision not in ("fp32", "int8"):
            raise ConfigError(f"{where}: no such precisions: {self.precision[:40]!r}, encoder {self.encoder_precision[:40]!r}")
        if self.verdict not in VERDICTS:
            raise ConfigError(f"{where}: verdict must be one of {', '.join(VERDICTS)}; got {self.verdict[:40]!r}")
        if not 0 <= self.label_changes <= self.pictures < 1 << 40 or self.pictures < 1 or not 0 <= self.cost_bytes < 1 << 60:
            raise ConfigError(f"{where}: label_changes must be from 0 to pictures, of which there is at least one, and cost_bytes a size")
        for name in ("label_change_bound", "mean_shift", "mean_shift_bound", "shift_95", "largest_shift"):
            _share(f"{where}: {name}", getattr(self, name))


@dataclass(frozen=True, slots=True)
class PrecisionEvidence:
    """The whole measurement.  ``candidates`` in the order tried, from the cheapest; the last is the model's own.

    Each bound holds with ``confidence`` for one candidate by itself, for pictures drawn as those of the calibration folder were.
    pictures: that judged; pictures_sha256: over their sorted pixel digests.  range_pictures: further ones, which set the ranges of an
    int8 encoder and judged nothing.  left_out: candidates that could not be tried, and why.
    """

    pictures: int
    pictures_sha256: str
    range_pictures: int
    draws: int
    seed: int
    confidence: float
    max_label_change: float
    max_probability_shift: float
    computed_by: str
    candidates: tuple[CandidateFigures, ...]
    left_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        where = "precision_evidence"
        if len(self.pictures_sha256) != 64 or set(self.pictures_sha256) - set("0123456789abcdef"):
            raise ConfigError(f"{where}.pictures_sha256 is not a SHA-256 in hexadecimal: {self.pictures_sha256[:80]!r}")
        for name, low, high in (("pictures", 1, 1 << 40), ("range_pictures", 0, 1 << 40), ("draws", 1, MAX_DRAWS), ("seed", 0, MAX_SEED)):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{where}.{name} must be an integer from {low} to {high}")
        for name in ("confidence", "max_label_change", "max_probability_shift"):
            _share(f"{where}.{name}", getattr(self, name))
        if any(c.pictures > self.pictures for c in self.candidates):
            raise ConfigError(f"{where}: a candidate was judged by more pictures than there were")
        for c in self.candidates:
            within = c.label_change_bound <= self.max_label_change and c.mean_shift_bound <= self.max_probability_shift
            if (c.verdict == PASSED) != (within and c.pictures == self.pictures):
                raise ConfigError(f"{where}: {c.precision}, encoder {c.encoder_precision}: its verdict is not what its figures say")

    @property
    def chosen(self) -> CandidateFigures | None:
        """The candidate that passed; None where none did."""
        return next((c for c in self.candidates if c.verdict == PASSED), None)

    def check(self, precision: str, encoder_precision: str) -> None:
        """ConfigError unless this is the evidence of a model of these precisions."""
        chosen = self.chosen
        if chosen is None or (chosen.precision, chosen.encoder_precision) != (precision, encoder_precision):
            raise ConfigError(
                f"precision_evidence is not that of a model with weights in {precision} and the encoder in {encoder_precision}: it chose "
                + (f"{chosen.precision} and {chosen.encoder_precision}" if chosen else "nothing")
            )

    def report(self) -> str:
        """All of it as text, the candidates as a table."""
        header = ("weights", "encoder", "pictures", "changed", "at most", "mean shift", "at most", "95th pct.", "largest", "verdict")
        rows = [
            (
                c.precision, c.encoder_precision, f"{c.pictures}", f"{c.label_changes}", f"{c.label_change_bound:.2g}",
                f"{c.mean_shift:.2g}", f"{c.mean_shift_bound:.2g}", f"{c.shift_95:.2g}", f"{c.largest_shift:.2g}", c.verdict,
            )
            for c in self.candidates
        ]  # fmt: skip
        widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in (header, *rows)]
        draws = "1 draw" if self.draws == 1 else f"{self.draws} draws"
        return "\n".join(
            [
                f"against fp32 weights and encoder, same pictures, same noise ({draws}, seed {self.seed}); {self.computed_by}",
                f"allowed: labels changed {self.max_label_change:g}, mean shift of a probability {self.max_probability_shift:g}, "
                f"each with {self.confidence:.0%} confidence",
                *lines,
                f"{self.pictures} pictures judged" + (f", {self.range_pictures} others set ranges" if self.range_pictures else ""),
                f"sha256 of their digests {self.pictures_sha256}",
                *(f"left out: {reason}" for reason in self.left_out),
            ]
        )


def _share(name: str, value: float) -> None:
    if not (math.isfinite(value) and 0.0 <= value <= 1.0):
        raise ConfigError(f"{name} must be from 0 to 1, got {value!r}")
