"""``compile --precision auto``: the cheapest precisions whose answers are, with 95 % confidence, as good as those of fp32.

    pictures -> split -> fp32 answers -> each candidate, cheapest first: the same pictures, the same noise -> the first that passes

A candidate passes where two one-sided upper confidence bounds (compiler/bounds.py) stay within what was asked for: of the share of
pictures whose label changes, and of the mean probability shift.  Each bound is of one candidate by itself: where some fail before one
passes, each had a chance of its own, 5 % at most, to pass wrongly.  One that the remaining pictures could not let pass is stopped.

An encoder runs once a picture and precision; only the chain runs again for each candidate.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fusedx.compiler import gate_pictures, paired
from fusedx.compiler.bounds import CONFIDENCE, fewest_for_mean, fewest_for_rate
from fusedx.compiler.calibration import FEWEST
from fusedx.compiler.candidates import Candidate, candidates
from fusedx.compiler.gate_pictures import Pictures
from fusedx.compiler.quantize import quantize_encoder
from fusedx.engine.backends import available as backends
from fusedx.engine.backends import open_chains
from fusedx.engine.denoiser import DenoiserTables, StoredDenoiser
from fusedx.engine.encoder.graph import Graph
from fusedx.engine.engine import Engine
from fusedx.engine.errors import ConfigError, UnavailableError
from fusedx.engine.manifest import Network
from fusedx.engine.precision_evidence import PASSED, CandidateFigures, PrecisionEvidence
from fusedx.engine.sampling import Sampling
from fusedx.engine.schedule import Schedule
from fusedx.inputs import ReadOptions

MAX_LABEL_CHANGE, MAX_PROBABILITY_SHIFT = 0.001, 0.01
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a candidate's bounds must not exceed."""

    max_label_change: float = MAX_LABEL_CHANGE
    max_probability_shift: float = MAX_PROBABILITY_SHIFT

    def __post_init__(self) -> None:
        for name in ("max_label_change", "max_probability_shift"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 1e-6 <= value < 1:
                raise ConfigError(f"{name} must be a number from 0.000001 to below 1, got {value!r:.100}")

    @property
    def fewest(self) -> int:
        """Judging pictures without which nothing could pass."""
        return max(fewest_for_rate(self.max_label_change), fewest_for_mean(self.max_probability_shift))

    @property
    def needed(self) -> str:
        """The same as a text."""
        what = f"max_label_change {self.max_label_change:g}"
        if fewest_for_rate(self.max_label_change) < self.fewest:
            what = f"max_probability_shift {self.max_probability_shift:g}"
        return f"{what} with {CONFIDENCE:.0%} confidence takes at least {self.fewest} different pictures, none of whose answers changes"


@dataclass(frozen=True, slots=True)
class Subject:
    """The model that is to be compiled: everything but its precisions.  graph, tables: float32."""

    network: Network
    schedule: Schedule
    task: str
    coefficients: np.ndarray
    graph: Graph
    tables: DenoiserTables

    def denoiser(self, precision: str) -> StoredDenoiser:
        """Packed; ConfigError where the precision cannot hold a weight."""
        return StoredDenoiser.pack(self.tables, self.network, self.coefficients, precision)


@dataclass(frozen=True, slots=True)
class Choice:
    """The candidate that passed.  graph: its encoder.  notes: what the manifest should say besides the evidence."""

    precision: str
    encoder_precision: str
    graph: Graph
    stored: StoredDenoiser
    evidence: PrecisionEvidence
    notes: list[str] = field(default_factory=list)


def choose(
    subject: Subject,
    folder: str | os.PathLike[str],
    limits: Limits,
    *,
    encoder_precision: str | None,
    unavailable: str | None,
    sampling: Sampling,
    options: ReadOptions,
    progress: Progress,
) -> Choice:
    """The cheapest candidate that passes.

    encoder_precision: fp32 or int8 alone, None for both.  unavailable: why there can be no encoder in int8, None where there can.
    Raises ConfigError where the pictures are too few, or, with every candidate's figures, where none passes.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="fusedx-") as scratch:
            found = gate_pictures.read_pictures(folder, limits.needed, limits.fewest, options, Path(scratch), progress)
            gate = _Gate(subject, limits, sampling, Path(scratch), progress)
            return gate.run(found, encoder_precision, unavailable)
    except OSError as error:
        where = tempfile.gettempdir()
        raise ConfigError(f"the precision gate cannot use {where}: {error.strerror or error}; TMPDIR names another folder") from None


def require_native() -> None:
    """UnavailableError where the chain would not be computed as it is on processors that have the native module."""
    if (reason := backends()["native"]) is not None:
        raise UnavailableError(f"precision auto needs the native backend, since python rounds no activation in int8 or int4: {reason}")


class _Gate:
    """One measurement; its parts share the subject, the limits and a scratch folder."""

    def __init__(self, subject: Subject, limits: Limits, sampling: Sampling, scratch: Path, progress: Progress) -> None:
        self.subject, self.limits, self.scratch, self.progress = subject, limits, scratch, progress
        self.sampling = sampling
        self.held: dict[str, paired.HeldEncoder] = {}

    def run(self, found: gate_pictures.Found, encoder_precision: str | None, unavailable: str | None) -> Choice:
        """See :func:`choose`."""
        ranges, judges, left_out = self._split(found.pictures, encoder_precision, unavailable)
        notes: list[str] = []
        encoders = {} if encoder_precision == "int8" else {"fp32": self.subject.graph}
        if len(ranges):
            try:
                encoders["int8"], report = quantize_encoder(
                    self.subject.graph, self.subject.network, list(ranges.images(0, len(ranges))), self.progress
                )
                notes = [report.note(), f"calibration set: {len(ranges)} pictures, sha256 {ranges.sha256()}"]
            except (ConfigError, UnavailableError) as error:
                if encoder_precision == "int8":
                    raise
                left_out.append(str(error))
        right = self._reference(judges)
        tried: list[CandidateFigures] = []
        for candidate in candidates(self.subject.network, self.subject.schedule.steps, encoders):
            try:
                stored = self.subject.denoiser(candidate.precision)
                figures = self._judge(candidate, stored, encoders[candidate.encoder_precision], judges, right)
            except (ConfigError, UnavailableError) as error:
                left_out.append(f"{candidate}: {error}")
                continue
            tried.append(figures)
            if figures.verdict == PASSED:
                evidence = self._evidence(judges, len(ranges), tried, left_out)
                int8 = candidate.encoder_precision == "int8"
                graph = encoders[candidate.encoder_precision]
                notes = [*(notes if int8 else []), f"the precision was chosen on a folder of {found.counts}"]
                return Choice(candidate.precision, candidate.encoder_precision, graph, stored, evidence, notes)
        raise ConfigError(_refusal(self._evidence(judges, len(ranges), tried, left_out)))

    def _split(self, pictures: Pictures, encoder_precision: str | None, unavailable: str | None) -> tuple[Pictures, Pictures, list[str]]:
        """(pictures that set ranges, pictures that judge, what is left out and why)."""
        nobody = pictures.part(0, 0)
        if encoder_precision == "fp32":
            return nobody, pictures, []
        if unavailable is not None:
            return nobody, pictures, [unavailable]
        ranges, judges = gate_pictures.split(pictures, self.limits.fewest)
        if len(ranges):
            return ranges, judges, []
        reason = (
            f"an int8 encoder needs {FEWEST} pictures that set its ranges and do not judge it, beside {self.limits.fewest} that judge; "
            f"there are {len(pictures)}"
        )
        if encoder_precision == "int8":
            raise ConfigError(reason)
        return nobody, pictures, [reason]

    def _reference(self, judges: Pictures) -> paired.Answers:
        """What fp32 weights with the fp32 encoder say."""
        engine = self._engine("fp32", self.subject.denoiser("fp32"), self.subject.graph, judges)
        done = gate_pictures.counter(self.progress, "fp32 answers", len(judges))
        right = paired.joined(paired.answers(engine, judges, self.sampling, done))
        if not right.finite.all():
            name = judges.names[int(np.argmin(right.finite))]
            raise ConfigError(f"{name}: the model's own fp32 weights overflow on this picture, so it can judge nothing; take it away")
        return right

    def _judge(
        self, candidate: Candidate, stored: StoredDenoiser, graph: Graph, judges: Pictures, right: paired.Answers
    ) -> CandidateFigures:
        engine = self._engine(candidate.encoder_precision, stored, graph, judges)
        done = gate_pictures.counter(self.progress, f"judging {candidate}", len(judges))
        parts = paired.answers(engine, judges, self.sampling, done)
        return paired.judge(candidate, parts, right, self.limits.max_label_change, self.limits.max_probability_shift)

    def _engine(self, encoder_precision: str, stored: StoredDenoiser, graph: Graph, judges: Pictures) -> Engine:
        """On the encoder's outputs, computed when first asked for and then held."""
        s = self.subject
        if encoder_precision not in self.held:
            folder = self.scratch / encoder_precision
            folder.mkdir()
            done = gate_pictures.counter(self.progress, f"{encoder_precision} encoder", len(judges))
            self.held[encoder_precision] = paired.encode(graph, s.network, judges, folder, done)
        return Engine(s.network, s.schedule, s.task, self.held[encoder_precision], open_chains("native", stored, s.schedule))

    def _evidence(self, judges: Pictures, ranges: int, tried: list[CandidateFigures], left_out: list[str]) -> PrecisionEvidence:
        draws = self.sampling.draws
        assert isinstance(draws, int)  # a fixed number: pairs of chains need the same draws
        return PrecisionEvidence(
            pictures=len(judges),
            pictures_sha256=judges.sha256(),
            range_pictures=ranges,
            draws=draws,
            seed=self.sampling.seed,
            confidence=CONFIDENCE,
            max_label_change=self.limits.max_label_change,
            max_probability_shift=self.limits.max_probability_shift,
            computed_by=f"encoder {self.held['fp32'].name}, chain native",
            candidates=tuple(tried),
            left_out=tuple(left_out),
        )


def _refusal(evidence: PrecisionEvidence) -> str:
    return (
        f"no precision below fp32 stays within the bounds, so nothing was written:\n{evidence.report()}\n"
        "compile with --precision fp32, allow more (--max-label-change, --max-probability-shift), or give more pictures"
    )
