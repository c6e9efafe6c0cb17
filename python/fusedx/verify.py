"""Recomputes a compiled model's results another way and reports the largest disagreement of each stage."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fusedx import golden as golden_cases
from fusedx import self_test
from fusedx.engine.compiled import CompiledModel, open_model
from fusedx.engine.engine import Engine
from fusedx.engine.errors import ConfigError
from fusedx.engine.manifest import IMAGE_SIZE
from fusedx.engine.reference import reference_engine
from fusedx.engine.sampling import SEQUENTIALLY, Sampler
from fusedx.inputs import ReadOptions
from fusedx.model import Model
from fusedx.opening import find_device, open_engine
from fusedx.preparation import Preparation

#: Relative error, as a ratio of Euclidean norms, that a stage may have: by (device, precision of the weights).
TOLERANCE = {
    ("cpu", "fp32"): 1e-5,
    # About twice the worst of the golden cases (v2-placental's final map, ten large steps of an untrained network: 4.8e-3, 7.0e-4, 3.0e-2,
    # 1.2e-1); DiffMIC's final states, after many small steps, differ by 2.6e-4, 3.2e-5, 8.9e-4 and 1.9e-2 at most.
    ("cpu", "bf16"): 1e-2,  # 8 bits of fraction a weight; activations float32
    ("cpu", "fp16"): 1.5e-3,  # 11 bits
    ("cpu", "int8"): 6e-2,  # 8 bits a weight and an activation, each row's largest setting the step
    ("cpu", "int4"): 2.5e-1,  # 4 bits a weight, 64 to a scale
    ("cuda", "fp32"): 1e-4,  # another order of summation, convolutions of another library; TF32 is off
    # Roundings of 2^-9, 2^-12 and 2^-4 a weight, and of the activations; chains of untrained weights, which average less.
    ("cuda", "bf16"): 2e-2,
    ("cuda", "fp16"): 5e-3,
    ("cuda", "fp8"): 5e-2,
}
#: The same where the encoder is in int8: about twice 7e-2, the worst stage (patch_attention) of a narrow untrained network against float64
#: arithmetic on the same int8 weights.  An activation that lies between two steps falls to either side, and the next layers multiply it.
INT8_ENCODER = 1.5e-1
#: Synthetic images that are verified when no golden case is given.
_IMAGES = 2
_SKIPPED = ("trajectory_stride",)


@dataclass(frozen=True, slots=True)
class Row:
    """One array: its relative error against the reference and whether that is within tolerance."""

    stage: str
    error: float
    tolerance: float

    @property
    def ok(self) -> bool:
        """A NaN is never within tolerance."""
        return bool(self.error <= self.tolerance)


@dataclass(frozen=True, slots=True)
class Report:
    """``label_agreement``: (equal labels, images).  ``reference``: what the model was compared with.

    ``ties``: labels that differ where the reference's two largest scores are nearer than the tolerance lets them move.
    """

    rows: list[Row]
    label_agreement: tuple[int, int]
    reference: str
    ties: int = 0

    @property
    def ok(self) -> bool:
        """Every stage within tolerance, and every label equal that the tolerance does not leave open."""
        equal, images = self.label_agreement
        return all(row.ok for row in self.rows) and equal + self.ties == images


def verify(
    path: str | os.PathLike[str],
    golden: str | os.PathLike[str] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    *,
    device: str = "cpu",
    precision: str | None = None,
    backend: str = "auto",
    encoder: str = "auto",
    sampler: Sampler | str | None = None,
    progress: Callable[[str], None] = lambda stage: None,
) -> Report:
    """Compare a compiled model as it runs here with one of three references.

    golden: a case of the original code's outputs (CASE.json; the model must be compiled from that case's checkpoint).
    checkpoint: the published checkpoint, in float64 from its own weights (needs torch).
    Neither: the compiled model's own weights in float64, on synthetic images.
    sampler: of the chain as it runs here; None is sequential.  The reference is always that.

    Raises ConfigError where the case is not this model's, and what :func:`fusedx.load` raises.
    """
    if golden is not None and checkpoint is not None:
        raise ConfigError("verify compares with a golden case or with a checkpoint, not with both")
    how = SEQUENTIALLY if sampler is None else Sampler.of(sampler)
    progress("opening the model")
    compiled = open_model(path)
    gpu = find_device(device, precision)
    engine, preparation = open_engine(compiled, gpu, precision=precision, backend=backend, encoder=encoder)
    if golden is not None:
        case = golden_cases.load(golden)
        _check_case(compiled, case)
        progress("running the engine")
        got = _by_golden_name(engine, engine.trace(case.x, case.noise, sampler=how), case.expected)
        expected, reference = case.expected, f"golden case {case.name}, float64 outputs of the original code"
    else:
        x, noise = _synthetic(engine)
        progress("running the engine")
        got = engine.trace(x, noise, sampler=how)
        progress("running the float64 reference, one operation at a time")
        reference_model, reference = _reference(compiled, checkpoint)
        expected = reference_model.trace(x, noise)
    tolerance = TOLERANCE["cuda" if gpu else "cpu", engine.chains.precision]
    if compiled.manifest.encoder_precision == "int8":
        tolerance = max(tolerance, INT8_ENCODER)
    rows = [Row(name, relative_error(got[name], expected[name]), tolerance) for name in expected if name not in _SKIPPED]
    if golden is None and checkpoint is None and gpu is None and engine.chains.precision == compiled.manifest.precision:
        rows += _self_test(compiled, engine, preparation)
    final = "y_final" if "y_final" in expected else "prediction"
    equal = np.argmax(got[final], axis=-1) == np.argmax(expected[final], axis=-1)
    open_ = _within_tolerance(expected[final], tolerance)
    return Report(rows, (int(equal.sum()), equal.size), reference, int((~equal & open_).sum()))


def _within_tolerance(scores: np.ndarray, tolerance: float) -> np.ndarray:
    """[B,C] -> bool [B]: rows whose two largest scores could change places if each moved by ``tolerance`` of the row's norm."""
    largest = np.sort(scores, axis=-1)[:, -2:]
    return np.asarray(largest[:, 1] - largest[:, 0] <= 2 * tolerance * np.linalg.norm(scores, axis=-1))


def _self_test(compiled: CompiledModel, engine: Engine, preparation: Preparation) -> list[Row]:
    """The recorded answer as a row of its own: the largest difference of a probability."""
    record = compiled.manifest.self_test
    if record is None:
        return []
    model = Model(compiled, engine, "cpu", preparation, ReadOptions(exif_orientation="ignore"))
    return [Row("self test", self_test.difference(model) or 0.0, record.tolerance)]


def relative_error(got: np.ndarray, expected: np.ndarray) -> float:
    """|got - expected| / |expected|, Euclidean norms; infinite where shapes differ or anything is not finite."""
    a, b = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    if a.shape != b.shape or not np.isfinite(a).all():
        return float("inf")
    norm = float(np.linalg.norm(b))
    difference = float(np.linalg.norm(a - b))
    return difference / norm if norm else difference


def _reference(compiled: CompiledModel, checkpoint: str | os.PathLike[str] | None) -> tuple[Engine, str]:
    if checkpoint is None:
        return reference_engine(compiled), "float64 arithmetic on the compiled weights"
    from fusedx.compiler.reference import checkpoint_reference

    m = compiled.manifest
    engine = checkpoint_reference(checkpoint, steps=m.schedule.steps, task=m.task)
    if engine.network != m.network or engine.schedule != m.schedule:
        raise ConfigError(f"{checkpoint} is not the checkpoint of {compiled.path}: network or schedule differ")
    return engine, f"float64 arithmetic on the checkpoint {os.fspath(checkpoint)}"


def _synthetic(engine: Engine) -> tuple[np.ndarray, np.ndarray]:
    x = golden_cases.image(0, "verify", (_IMAGES, 3, IMAGE_SIZE, IMAGE_SIZE))
    keys = [hashlib.sha256(f"verify {i}".encode()).hexdigest() for i in range(_IMAGES)]
    return x, np.concatenate([engine.noise(key, seed=0, draws=1) for key in keys], axis=1)


def _check_case(compiled: CompiledModel, case: golden_cases.GoldenCase) -> None:
    n = compiled.manifest.network
    rows = 2 if n.family == "diffmic-v2" else compiled.manifest.schedule.steps
    if case.family != n.family or case.noise.shape[0] != rows or case.noise.shape[2] != n.num_classes:
        raise ConfigError(
            f"golden case {case.name} is a {case.family} of {case.noise.shape[2]} classes (noise {list(case.noise.shape)}); "
            f"{compiled.path} is a {n.family} of {n.num_classes} classes and {compiled.manifest.schedule.steps} steps"
        )


def _by_golden_name(engine: Engine, trace: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The trace under the names and strides of a golden case, single denoiser calls included."""
    got = dict(trace)
    got["trajectory"] = trace["trajectory"][:: int(expected.get("trajectory_stride", 1))]
    got["eps_input"] = trace["trajectory"][0]
    for name in expected:
        if name.startswith("eps_t") and name[5:].isdigit():
            got[name] = engine.eps(trace, expected["eps_input"], int(name[5:]))
    if "eps_first" in expected:
        got["eps_first"] = engine.eps(trace, expected["start_map"], 0)
    unknown = [name for name in expected if name not in got and name not in _SKIPPED]
    if unknown:
        raise ConfigError(f"the golden case has arrays that this fusedx does not compute: {', '.join(unknown)}")
    return got
