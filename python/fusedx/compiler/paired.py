"""One model against another on the same pictures with the same noise: labels and shifts as fusedx/agreement.py has them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fusedx import agreement
from fusedx.compiler.bounds import mean_bound, most_events, rate_bound
from fusedx.compiler.candidates import Candidate
from fusedx.compiler.gate_pictures import Pictures
from fusedx.engine.encoder import network as encoder_network
from fusedx.engine.encoder import onnx_file, open_encoder
from fusedx.engine.encoder.graph import Graph
from fusedx.engine.engine import Engine, Result
from fusedx.engine.manifest import IMAGE_SIZE, Network
from fusedx.engine.precision_evidence import FAILED, PASSED, STOPPED, CandidateFigures
from fusedx.engine.sampling import Sampling

#: Pictures whose chains run together.
BATCH = 64
#: What no prediction reads of an encoder's outputs, and takes most of their room.
_UNUSED = ("patch_attention", "image_feature", "roi_features")
#: Called with the number of pictures done.
Done = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Answers:
    """Of n pictures.  probabilities float64 [n,C]; labels as of :func:`fusedx.agreement.labels`; finite bool [n]."""

    probabilities: np.ndarray
    labels: np.ndarray
    finite: np.ndarray

    def __len__(self) -> int:
        return len(self.finite)


class HeldEncoder:
    """An encoder that has run already: every chain after it takes its outputs by the pictures' numbers, int64 [B]."""

    def __init__(self, name: str, precision: str, outputs: Mapping[str, np.ndarray]) -> None:
        self.name, self.precision = name, precision
        self._outputs = outputs

    def run(self, images: np.ndarray) -> Mapping[str, np.ndarray]:
        """See :class:`fusedx.engine.encoder.Encoder`."""
        return {name: array[images] for name, array in self._outputs.items()}


def encode(graph: Graph, network: Network, pictures: Pictures, folder: Path, done: Done) -> HeldEncoder:
    """Run the encoder that processors use on all pictures; its file is written to ``folder``."""
    path = folder / "encoder.onnx"
    onnx_file.write(graph, path, encoder_network.output_shapes(network), IMAGE_SIZE)
    encoder = open_encoder("auto", path)
    blocks: list[dict[str, np.ndarray]] = []
    for start in range(0, len(pictures), BATCH):
        done(start)
        outputs = encoder.run(pictures.images(start, start + BATCH))
        blocks.append({name: array for name, array in outputs.items() if name not in _UNUSED})
    return HeldEncoder(encoder.name, encoder.precision, {name: np.concatenate([b[name] for b in blocks]) for name in blocks[0]})


def answers(engine: Engine, pictures: Pictures, sampling: Sampling, done: Done) -> Iterator[Answers]:
    """What the model says of the pictures, some at a time.  engine: on a :class:`HeldEncoder` of them."""
    for start in range(0, len(pictures), BATCH):
        done(start)
        digests = list(pictures.digests[start : start + BATCH])
        rows = np.arange(start, start + len(digests))
        results, _ = engine.predict(rows, lambda digests=digests: digests, sampling)  # type: ignore[misc]
        yield _answers(results, engine.task)


def joined(parts: Iterable[Answers]) -> Answers:
    """All of them as one."""
    all_ = list(parts)
    return Answers(*(np.concatenate([getattr(a, name) for a in all_]) for name in ("probabilities", "labels", "finite")))


def _answers(results: list[Result], task: str) -> Answers:
    labels = agreement.labels(np.stack([r.scores for r in results]), task)
    return Answers(np.stack([r.probabilities for r in results]), labels, np.array([r.finite for r in results]))


def judge(
    candidate: Candidate, parts: Iterable[Answers], right: Answers, max_label_change: float, max_probability_shift: float
) -> CandidateFigures:
    """The candidate's figures.  parts: its answers, in order; no more are taken than until none of the rest could make it pass.

    right: those of the reference.  A picture for which the candidate has no finite answer counts as changed, with a shift of 1.
    """
    n, allowed = len(right), most_events(len(right), max_label_change)
    changed, shift = np.zeros(0, bool), np.zeros(0)
    for part in parts:
        here = slice(len(shift), len(shift) + len(part))
        with np.errstate(invalid="ignore"):
            differs = agreement.changed(part.labels, right.labels[here])
            shifted = agreement.shifts(part.probabilities, right.probabilities[here])
        changed = np.concatenate([changed, np.where(part.finite, differs, True)])
        shift = np.concatenate([shift, np.where(part.finite, shifted, 1.0)])
        # Labels that changed stay changed, and a sum of shifts only grows.
        if changed.sum() > allowed or shift.sum() > max_probability_shift * n:
            break
    bounds = rate_bound(int(changed.sum()), len(changed)), mean_bound(shift)
    passed = len(shift) == n and bounds[0] <= max_label_change and bounds[1] <= max_probability_shift
    return CandidateFigures(
        precision=candidate.precision,
        encoder_precision=candidate.encoder_precision,
        cost_bytes=candidate.cost_bytes,
        pictures=len(shift),
        label_changes=int(changed.sum()),
        label_change_bound=bounds[0],
        mean_shift=float(shift.mean()),
        mean_shift_bound=bounds[1],
        shift_95=float(np.quantile(shift, 0.95)),
        largest_shift=float(shift.max()),
        verdict=PASSED if passed else FAILED if len(shift) == n else STOPPED,
    )
