"""Turns a checkpoint into a compiled model: read, build, fold, quantise and pack, write beside the target, ask it once, rename."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np

import fusedx
from fusedx import self_test
from fusedx.compiler import checkpoint as checkpoints
from fusedx.compiler import classes as class_names
from fusedx.compiler import output_folder, precision_gate
from fusedx.compiler.gate_pictures import require_files
from fusedx.engine import compiled, safetensors, schedule
from fusedx.engine.denoiser import StoredDenoiser, fold
from fusedx.engine.encoder import network as encoder_network
from fusedx.engine.encoder import onnx_file
from fusedx.engine.encoder.graph import Graph
from fusedx.engine.errors import CheckpointError, ConfigError, UnavailableError
from fusedx.engine.manifest import ENCODER_PRECISIONS, IMAGE_SIZE, PRECISIONS, TASKS, Manifest, Network, Preprocessing, check_chain
from fusedx.engine.sampling import Sampler, Sampling
from fusedx.engine.weights import check
from fusedx.inputs import ReadOptions
from fusedx.scratch import folder_beside

#: Package as pip knows it -> module.  What compiling needs, and what an encoder in int8 needs beside it.
PACKAGES = {"torch": "torch", "onnx": "onnx", "pyyaml": "yaml"}
QUANTIZE_PACKAGES = {"nncf": "nncf", "onnxruntime": "onnxruntime", "openvino": "openvino"}
#: Precision: choose it by measurement, see precision_gate.py.
AUTO = "auto"
#: Of the manifest, and of what the precision gate judges: one draw, as published.
DRAWS, SEED = 1, 0
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class CompileReport:
    """What was made, and everything a reader should know about it."""

    path: Path
    manifest: Manifest
    ignored: list[str] = field(default_factory=list)


def compile_checkpoint(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    family: str | None = None,
    classes: str | None = None,
    steps: int | None = None,
    precision: str = "fp32",
    encoder_precision: str | None = None,
    calibration: str | os.PathLike[str] | None = None,
    max_label_change: float | None = None,
    max_probability_shift: float | None = None,
    task: str = "multiclass",
    exif_orientation: str = "ignore",
    sampler: str = "auto",
    metrics: dict[str, object] | None = None,
    overwrite: bool = False,
    progress: Progress = lambda stage: None,
) -> CompileReport:
    """Compile a published checkpoint.

    source: a DiffMIC folder (ckpt_best.pth, aux_ckpt_best.pth, config.yml) or a DiffMIC-v2 .ckpt file.
    output: folder to make, by convention NAME.fusedx; it must not exist unless ``overwrite``.
    classes: aptos | isic2018 | pmg | a file with one name a line.  steps: see ``Schedule.steps``.
    precision: format of the denoiser's weights: fp32 | bf16 | fp16 | int8 | int4.  encoder_precision: fp32 (None) | int8, whose ranges are
    measured on the pictures of the folder ``calibration`` (needs nncf).  A GPU needs both in fp32.
    precision="auto": the cheapest of these, and of encoders unless ``encoder_precision`` is given, of which the pictures of ``calibration``
    prove with 95 % confidence that the share of labels that differ from fp32's is at most ``max_label_change`` (None: 0.001), and the mean
    shift of a probability at most ``max_probability_shift`` (None: 0.01).  The figures become the manifest's ``precision_evidence``.
    sampler: of requests that name none: sequential | parallel | auto.
    progress: called with a line of text as each stage begins.

    Raises CheckpointError, ConfigError (also where no precision passes, with the figures of each), UnavailableError (torch or onnx missing)
    or ModelFormatError (output exists).
    The result appears at ``output`` whole, by a rename, or not at all.
    """
    if precision not in (*PRECISIONS, AUTO):
        raise UnavailableError(f"precision {precision!r} is not available; there is: {', '.join((*PRECISIONS, AUTO))}")
    limits = _limits(precision, max_label_change, max_probability_shift)
    _check_encoder_precision(precision, encoder_precision, calibration)
    if task not in TASKS:
        raise ConfigError(f"task must be one of {', '.join(TASKS)}; got {task!r}")
    sampler = Sampler(sampler).kind
    preprocessing = Preprocessing(exif_orientation=exif_orientation)
    _check_metrics(metrics or {})
    _check_packages()
    target = Path(output)
    if target.name in ("", ".."):
        target = Path(os.path.abspath(target))
    output_folder.check_target(target, overwrite)
    if limits is not None and calibration is not None:
        require_files(calibration, limits.needed, limits.fewest)

    progress("reading the checkpoint")
    ckpt = checkpoints.read(Path(source), family, steps)
    names, class_source = class_names.resolve(classes, ckpt.dataset, ckpt.network.num_classes)
    check_chain(ckpt.network, ckpt.schedule)
    with np.errstate(over="ignore", invalid="ignore"):  # _check_folded names what overflows
        progress("building the encoder graph")
        graph = encoder_network.build(ckpt.network, ckpt.prior, ckpt.model)
        progress("folding the denoiser")
        tables = fold(ckpt.network, ckpt.model, timesteps(ckpt.network, ckpt.schedule), ckpt.schedule.train_timesteps)
    ignored = check(ckpt.prior, ckpt.model)
    _check_folded(graph.constants | tables.arrays())
    notes = [*ckpt.notes, *(f"ignored {name}" for name in ignored)]
    program = schedule.chain_program(ckpt.schedule, v2=ckpt.network.family == "diffmic-v2")
    evidence = None
    if limits is not None:
        assert calibration is not None
        subject = precision_gate.Subject(ckpt.network, ckpt.schedule, task, program.coefficients, graph, tables)
        choice = precision_gate.choose(
            subject, calibration, limits, encoder_precision=encoder_precision, unavailable=_why_no_int8_encoder(),
            sampling=Sampling(draws=DRAWS, seed=SEED), options=ReadOptions(exif_orientation=exif_orientation), progress=progress,
        )  # fmt: skip
        precision, encoder_precision, evidence = choice.precision, choice.encoder_precision, choice.evidence
        graph, stored = choice.graph, choice.stored
        notes += choice.notes
    else:
        if calibration is not None:
            graph, further = _quantised(graph, ckpt.network, calibration, exif_orientation, progress)
            notes += further
        if precision != "fp32":
            progress(f"packing the denoiser in {precision}")
        stored = StoredDenoiser.pack(tables, ckpt.network, program.coefficients, precision)

    made: list[Path] = []
    scratch = None
    try:
        made = output_folder.make_parents(target)
        scratch = folder_beside(target)
        progress(f"writing {compiled.ENCODER}")
        onnx_file.write(graph, scratch / compiled.ENCODER, encoder_network.output_shapes(ckpt.network), IMAGE_SIZE)
        progress(f"writing {compiled.DENOISER}")
        safetensors.write(stored.arrays, scratch / compiled.DENOISER)
        progress("hashing")
        manifest = Manifest(
            network=ckpt.network,
            task=task,
            classes=names,
            class_source=class_source,
            schedule=ckpt.schedule,
            preprocessing=preprocessing,
            probabilities=_probabilities_statement(ckpt.network, task),
            precision=precision,
            encoder_precision=encoder_precision or "fp32",
            default_draws=DRAWS,
            default_seed=SEED,
            default_sampler=sampler,
            source={path.name: compiled.file_entry(path) for path in ckpt.files},
            files={name: compiled.file_entry(scratch / name) for name in compiled.FILES},
            versions=_versions(("nncf",) if encoder_precision == "int8" else ()),
            notes=tuple(notes),
            metrics=dict(metrics or {}),
            precision_evidence=evidence,
        )
        progress("recording the self test")
        answer, why_not = self_test.record(compiled.CompiledModel(scratch, manifest, ""))
        manifest = replace(manifest, self_test=answer, notes=manifest.notes + ((why_not,) if why_not else ()))
        (scratch / compiled.MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
        output_folder.publish(scratch, target, overwrite)
    except OSError as error:
        raise output_folder.cannot_write(target, error) from None
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)  # what failed or was interrupted, or the model that was replaced
        for folder in reversed(made):
            with suppress(OSError):  # not empty: the model is in it
                folder.rmdir()
    return CompileReport(target, manifest, ignored)


def timesteps(network: Network, s: schedule.Schedule) -> np.ndarray:
    """int64 [steps]: the timestep of each row of the denoiser's tables."""
    return np.arange(s.steps) if network.family == "diffmic-v1" else schedule.ddim_coefficients(s).timesteps


def _limits(precision: str, max_label_change: float | None, max_probability_shift: float | None) -> precision_gate.Limits | None:
    """Of precision auto; None for any other, which they mean nothing to."""
    asked = {"max_label_change": max_label_change, "max_probability_shift": max_probability_shift}
    given = {name: value for name, value in asked.items() if value is not None}
    if precision == AUTO:
        return precision_gate.Limits(**given)
    if given:
        raise ConfigError(f"{' and '.join(given)}: only precision {AUTO!r} is chosen by it; precision is {precision!r}")
    return None


def _check_encoder_precision(precision: str, encoder_precision: str | None, calibration: str | os.PathLike[str] | None) -> None:
    if encoder_precision not in (None, *ENCODER_PRECISIONS):
        raise UnavailableError(f"encoder precision {encoder_precision!r} is not available; there is: {', '.join(ENCODER_PRECISIONS)}")
    if precision == AUTO:
        if calibration is None:
            raise ConfigError("precision auto needs a calibration folder: pictures like those to come, on which every candidate is judged")
        precision_gate.require_native()
    elif (encoder_precision == "int8") != (calibration is not None):
        raise ConfigError("an int8 encoder and a calibration folder need each other: give both or neither")
    if encoder_precision == "int8" and (reason := _why_no_int8_encoder()) is not None:
        raise UnavailableError(reason)


def _why_no_int8_encoder() -> str | None:
    missing = [name for name, module in QUANTIZE_PACKAGES.items() if find_spec(module) is None]
    return f"an int8 encoder needs {', '.join(missing)}: pip install 'fusedx[quantize]'" if missing else None


def _quantised(
    graph: Graph, network: Network, calibration: str | os.PathLike[str], exif_orientation: str, progress: Progress
) -> tuple[Graph, list[str]]:
    """The encoder in int8, and what the manifest should say about it."""
    from fusedx.compiler.calibration import read_folder
    from fusedx.compiler.quantize import quantize_encoder

    progress("reading the calibration pictures")
    found = read_folder(calibration, ReadOptions(exif_orientation=exif_orientation))
    graph, report = quantize_encoder(graph, network, found.images, progress)
    skipped = f", {len(found.skipped)} files skipped" if found.skipped else ""
    return graph, [report.note(), f"calibration set: {len(found.images)} pictures{skipped}, sha256 {found.digest}"]


def _check_packages() -> None:
    """Before minutes of work, not after."""
    missing = [package for package, module in PACKAGES.items() if find_spec(module) is None]
    if missing:
        raise UnavailableError(f"compiling a checkpoint needs {', '.join(missing)}: pip install 'fusedx[compile]'")


def _check_metrics(metrics: dict[str, object]) -> None:
    try:
        json.dumps(metrics, allow_nan=False)
    except (ValueError, TypeError, RecursionError) as error:
        raise ConfigError(f"metrics cannot be written as JSON: {error}") from None


def _check_folded(arrays: dict[str, np.ndarray]) -> None:
    """Finite tensors may have products that float32 cannot hold; such a model would answer NaN."""
    bad = [name for name, array in arrays.items() if array.dtype.kind == "f" and not np.isfinite(array).all()]
    if bad:
        raise CheckpointError(f"weights overflow float32 once batch normalisation is folded into them: {', '.join(bad[:20])}")


def _probabilities_statement(network: Network, task: str) -> str:
    if task == "multilabel":
        return "scores clipped to [0,1], one independent value a class; DiffMIC publishes no multi-label probabilities"
    if network.family == "diffmic-v1":
        return "softmax of the final state, as DiffMIC publishes"
    return "softmax of the final map's mean; DiffMIC-v2 publishes scores only, so this is DiffMIC's rule applied to them"


def _versions(further: tuple[str, ...]) -> dict[str, str]:
    import onnx
    import torch

    libraries = {"numpy": np.__version__, "torch": torch.__version__, "onnx": onnx.__version__}
    libraries |= {name: import_module(name).__version__ for name in further}
    return {"fusedx": fusedx.__version__, "python": platform.python_version(), **libraries}
