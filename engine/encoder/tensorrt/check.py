"""Is a plan right?  Every row of every bucket against the reference, after a build and after a load.

TensorRT has open reports of plans that are right for one image and silently wrong for several (github.com/NVIDIA/TensorRT issues
4796, 4813, 4853), so a plan proves itself before it answers for anyone.  A few made-up images, told apart by the reference's own
outputs, fill each bucket in two orders:

    cycle   1 2 3 4 1 2 ...   neighbours differ: a row that holds another's result, the last one's or none shows
    pairs   1 1 2 2 3 3 ...   neighbours are equal: so must their results be, to the tolerance; whether to the bit is reported

Which regions a near tie chooses is not the plan's fault, so only images whose choice is clear are used for what follows from it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from fusedx.engine.errors import UnavailableError
from fusedx.engine.manifest import IMAGE_SIZE
from fusedx.kernels.prior_tail import region_scores

log = logging.getLogger("fusedx")

#: float32 [B,3,224,224] -> every output by name, first dimension B.  A device's outputs must be filled with NaN before the run.
Run = Callable[[np.ndarray], Mapping[str, np.ndarray]]

#: Relative error (Euclidean norms) of one row of one output against the float32 reference: about twice the worst that the typed
#: graphs show on the CPU, 4.3e-3 for fp16 and 2.6e-2 for bf16 (tests/engine/tensorrt/measure_precision.py).  fp32, 1e-6 there, has
#: room for another convolution algorithm.
TOLERANCE = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 6e-2}
#: Smallest distance of two neighbouring region scores, relative to the largest, that counts as a clear choice.  fp16 turned round
#: distances up to 5e-4 of 176 images (the same program); bf16 computes the scores in float32.
CLEAR = {"fp32": 1e-5, "fp16": 1.5e-3, "bf16": 1e-5}
#: Outputs that follow from the choice of regions.
CHOSEN = frozenset({"patch_locations", "patch_attention", "y_local", "y_fusion", "prior", "roi_features", "fused_feature"})
IMAGES, _CANDIDATES, _SEED = 5, 16, 20230310
#: Rows of different images must differ by this many tolerances in some output, or one could pass for the other.
_APART = 2


class WrongPlanError(UnavailableError):
    """A plan gives wrong results; ``bucket``, ``row`` (both in images) and ``output`` say where first."""

    def __init__(self, message: str, bucket: int, row: int, output: str) -> None:
        super().__init__(message)
        self.bucket, self.row, self.output = bucket, row, output


@dataclass(frozen=True, slots=True)
class References:
    """images float32 [N,3,224,224]; rows: the reference's outputs, [N,...]; clear [N]: whether the choice of regions is."""

    images: np.ndarray
    rows: dict[str, np.ndarray]
    clear: np.ndarray


@dataclass(slots=True)
class Report:
    """errors: output -> worst relative error.  equal_rows, equal_buckets: rows of one image had equal bits in a batch, in all buckets."""

    errors: dict[str, float] = field(default_factory=dict)
    equal_rows: bool = True
    equal_buckets: bool = True

    def describe(self) -> str:
        """One line."""
        worst = ", ".join(f"{name} {error:.0e}" for name, error in self.errors.items())
        rows = "equal bits" if self.equal_buckets else "bits that depend on the batch" if self.equal_rows else "bits that depend on the row"
        return f"one image gives {rows}; worst relative errors: {worst}"


def make_references(reference: Run, precision: str, seed: int = _SEED) -> References:
    """The images to check with: of some candidates those whose regions are chosen most clearly.

    reference: a trusted float32 or float64 encoder.  Raises UnavailableError if it cannot tell them apart.
    """
    rng = np.random.default_rng(seed)
    images = np.stack([_image(rng) for _ in range(_CANDIDATES)])
    rows = {name: np.asarray(array) for name, array in reference(images).items()}
    margin = region_margins(rows["saliency"])
    best = np.sort(np.argsort(-margin, kind="stable")[:IMAGES])
    references = References(images[best], {name: array[best] for name, array in rows.items()}, margin[best] >= CLEAR[precision])
    for i in range(IMAGES):
        for j in range(i):
            if _distance(references, i, j) < _APART * TOLERANCE[precision]:
                raise UnavailableError("the model gives different images the same result, so no plan of it can be checked")
    if not references.clear.any():
        log.warning("TensorRT plan: no test image has a clear choice of regions; what follows from the choice stays unchecked")
    return references


def region_margins(saliency: np.ndarray) -> np.ndarray:
    """[N,C,7,7] -> [N]: smallest distance between neighbours among the seven best cells, relative to the best."""
    scores = np.sort(region_scores(saliency.astype(np.float64)).reshape(len(saliency), -1), axis=1)[:, ::-1]
    return (scores[:, :6] - scores[:, 1:7]).min(axis=1) / np.maximum(scores[:, 0], 1e-30)


def check_plan(run: Run, references: References, buckets: tuple[int, ...], precision: str) -> Report:
    """Run every bucket; WrongPlanError for the first wrong row."""
    report = Report()
    first: dict[int, dict[str, bytes]] = {}  # image -> its bits when it was first seen
    for bucket in buckets:
        for order in _orders(bucket, len(references.images)):
            out = run(np.ascontiguousarray(references.images[order]))
            _check_batch(out, order, references, bucket, precision, report)
            _compare_bits(out, order, first, report)
    log.info("TensorRT plan: checked in batches of %s: %s", ", ".join(map(str, buckets)), report.describe())
    return report


def _orders(bucket: int, images: int) -> list[np.ndarray]:
    """Which image is in which row: cycles until every image had its turn, each bucket's beginning elsewhere, then pairs."""
    cycles = [np.arange(bucket) + bucket + start for start in range(0, images, bucket)]
    return [order % images for order in (*cycles, np.arange(bucket) // 2)]


def _check_batch(
    out: Mapping[str, np.ndarray], order: np.ndarray, references: References, bucket: int, precision: str, report: Report
) -> None:
    for name, expected in references.rows.items():
        if name not in out:
            raise WrongPlanError(f"the plan has no output {name}", bucket, 0, name)
        if out[name].shape != (bucket, *expected.shape[1:]):
            found, right = list(out[name].shape), [bucket, *expected.shape[1:]]
            raise WrongPlanError(f"wrong plan: {name} has shape {found}, expected {right}, in a batch of {bucket}", bucket, 0, name)
        for row, image in enumerate(order):
            if name in CHOSEN and not references.clear[image]:
                continue
            error = _error(out[name][row], expected[image])
            if not error <= TOLERANCE[precision]:
                raise WrongPlanError(_explain(out, references, name, row, order, error, precision), bucket, row, name)
            report.errors[name] = max(error, report.errors.get(name, 0.0))


def _error(got: np.ndarray, expected: np.ndarray) -> float:
    """Relative norm; integers are right or infinitely wrong."""
    if np.issubdtype(expected.dtype, np.integer):
        return 0.0 if np.array_equal(got, expected) else float("inf")
    difference = np.linalg.norm(got.astype(np.float64) - expected)
    return float(difference / max(float(np.linalg.norm(expected)), 1e-30))


def _explain(
    out: Mapping[str, np.ndarray], references: References, name: str, row: int, order: np.ndarray, error: float, precision: str
) -> str:
    """Where, how far off, and whose result it is instead if it is another image's."""
    got = out[name][row]
    text = f"wrong plan: batch of {len(order)}, row {row}, {name}: relative error {error:.1e}, allowed {TOLERANCE[precision]:.0e}"
    if not np.isfinite(got).all():
        return f"{text}; it holds NaN or infinite values" + ("; bf16 has float32's range" if precision == "fp16" else "")
    for other, expected in enumerate(references.rows[name]):
        if other != order[row] and _error(got, expected) <= TOLERANCE[precision]:
            places = [i for i, image in enumerate(order) if image == other]
            return f"{text}; it is the result of " + (f"row {places[0]}'s image" if places else "an earlier batch's image")
    return text


def _compare_bits(out: Mapping[str, np.ndarray], order: np.ndarray, first: dict[int, dict[str, bytes]], report: Report) -> None:
    here: dict[int, dict[str, bytes]] = {}
    for row, image in enumerate(order.tolist()):
        bits = {name: array[row].tobytes() for name, array in out.items()}
        report.equal_rows &= here.setdefault(image, bits) == bits
        report.equal_buckets &= first.setdefault(image, bits) == bits


def _distance(references: References, i: int, j: int) -> float:
    """How far apart the results of two images are: the output that differs most counts."""
    floats = (rows for rows in references.rows.values() if not np.issubdtype(rows.dtype, np.integer))
    return max(_error(rows[i], rows[j]) for rows in floats)


def _image(rng: np.random.Generator) -> np.ndarray:
    """float32 [3,224,224], normalised: blocks of colour under a little noise, so that neighbouring pixels correlate."""
    blocks = np.kron(rng.normal(size=(3, 14, 14)), np.ones((16, 16)))
    return (blocks + 0.1 * rng.normal(size=(3, IMAGE_SIZE, IMAGE_SIZE))).astype(np.float32)
