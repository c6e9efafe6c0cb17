"""Turns a checkpoint into a compiled model: read, build, fold, write beside the target, rename."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import fusedx
from fusedx.compiler import checkpoint as checkpoints
from fusedx.compiler import classes as class_names
from fusedx.engine import compiled, schedule
from fusedx.engine.denoiser import fold
from fusedx.engine.encoder import network as encoder_network
from fusedx.engine.encoder import onnx_file
from fusedx.engine.errors import ConfigError, ModelFormatError, UnavailableError
from fusedx.engine.manifest import GRID, IMAGE_SIZE, REGIONS, TASKS, Manifest, Network, Preprocessing
from fusedx.engine.weights import check

PRECISIONS = ("fp32",)
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
    task: str = "multiclass",
    exif_orientation: str = "ignore",
    metrics: dict[str, object] | None = None,
    overwrite: bool = False,
    progress: Progress = lambda stage: None,
) -> CompileReport:
    """Compile a published checkpoint.

    source: a DiffMIC folder (ckpt_best.pth, aux_ckpt_best.pth, config.yml) or a DiffMIC-v2 .ckpt file.
    output: folder to make, by convention NAME.fusedx; it must not exist unless ``overwrite``.
    classes: aptos | isic2018 | pmg | a file with one name a line.  steps: see ``Schedule.steps``.
    progress: called with a line of text as each stage begins.

    Raises CheckpointError, ConfigError, UnavailableError (torch or onnx missing) or ModelFormatError (output exists).
    The result appears at ``output`` whole, by a rename, or not at all.
    """
    if precision not in PRECISIONS:
        raise UnavailableError(f"precision {precision!r} is not available; there is: {', '.join(PRECISIONS)}")
    if task not in TASKS:
        raise ConfigError(f"task must be one of {', '.join(TASKS)}; got {task!r}")
    target = Path(output)
    _check_target(target, overwrite)

    progress("reading the checkpoint")
    ckpt = checkpoints.read(Path(source), family, steps)
    names, class_source = class_names.resolve(classes, ckpt.dataset, ckpt.network.num_classes)
    progress("building the encoder graph")
    graph = encoder_network.build(ckpt.network, ckpt.prior, ckpt.model)
    progress("folding the denoiser")
    tables = fold(ckpt.network, ckpt.model, timesteps(ckpt.network, ckpt.schedule), ckpt.schedule.train_timesteps)
    ignored = check(ckpt.prior, ckpt.model)

    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        progress(f"writing {compiled.ENCODER}")
        onnx_file.write(graph, scratch / compiled.ENCODER, _output_shapes(ckpt.network), IMAGE_SIZE)
        progress(f"writing {compiled.DENOISER}")
        _save_tables(tables.arrays(), scratch / compiled.DENOISER)
        progress("hashing")
        manifest = Manifest(
            network=ckpt.network,
            task=task,
            classes=names,
            class_source=class_source,
            schedule=ckpt.schedule,
            preprocessing=Preprocessing(exif_orientation=exif_orientation),
            probabilities=_probabilities_statement(ckpt.network, task),
            precision=precision,
            default_draws=1,
            default_seed=0,
            source={path.name: compiled.file_entry(path) for path in ckpt.files},
            files={name: compiled.file_entry(scratch / name) for name in compiled.FILES},
            versions=_versions(),
            notes=(*ckpt.notes, *(f"ignored {name}" for name in ignored)),
            metrics=dict(metrics or {}),
        )
        (scratch / compiled.MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
        for path in (scratch, *scratch.iterdir()):  # as readable as anything else that this user writes
            path.chmod((0o777 if path.is_dir() else 0o666) & ~_umask())
        _publish(scratch, target, overwrite)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return CompileReport(target, manifest, ignored)


def timesteps(network: Network, s: schedule.Schedule) -> np.ndarray:
    """int64 [steps]: the timestep of each row of the denoiser's tables."""
    return np.arange(s.steps) if network.family == "diffmic-v1" else schedule.ddim_coefficients(s).timesteps


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _check_target(target: Path, overwrite: bool) -> None:
    if target.exists() and not overwrite:
        raise ModelFormatError(f"{target} exists; choose another name or pass --overwrite")
    if target.exists() and not (target / compiled.MANIFEST).is_file() and (not target.is_dir() or any(target.iterdir())):
        raise ModelFormatError(f"{target} exists and is not a compiled model; it will not be replaced")
    if target.parent.exists() and not (target.parent.is_dir() and os.access(target.parent, os.W_OK)):
        raise ModelFormatError(f"{target.parent} is not a folder that can be written to")


def _publish(scratch: Path, target: Path, overwrite: bool) -> None:
    """Rename into place; with ``overwrite`` the old model steps aside first and is removed last."""
    old = None
    if overwrite and target.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent)) / target.name
        target.rename(old)
    try:
        scratch.rename(target)
    except OSError as error:
        if old:
            old.rename(target)
        raise ModelFormatError(f"{target} cannot be written: {error.strerror or error}") from None
    finally:
        if old:
            shutil.rmtree(old.parent, ignore_errors=True)


def _save_tables(arrays: dict[str, np.ndarray], path: Path) -> None:
    from safetensors.numpy import save_file

    save_file(arrays, path)


def _output_shapes(network: Network) -> dict[str, tuple[tuple[int | str, ...], type]]:
    c, f, b = network.num_classes, network.feature_dim, "batch"
    shapes: dict[str, tuple[tuple[int | str, ...], type]] = {
        "saliency": ((b, c, GRID, GRID), np.float32),
        "patch_locations": ((b, REGIONS, 2), np.int64),
        "patch_attention": ((b, REGIONS), np.float32),
        "roi_features": ((b, f, REGIONS), np.float32),
    }
    shapes |= {name: ((b, c), np.float32) for name in ("y_global", "y_local", "y_fusion", "prior")}
    shapes |= {name: ((b, f), np.float32) for name in ("feature", "image_feature", "fused_feature")}
    return {name: shapes[name] for name in encoder_network.OUTPUTS[network.family]}


def _probabilities_statement(network: Network, task: str) -> str:
    if task == "multilabel":
        return "scores clipped to [0,1], one independent value a class; DiffMIC publishes no multi-label probabilities"
    if network.family == "diffmic-v1":
        return "softmax of the final state, as DiffMIC publishes"
    return "softmax of the final map's mean; DiffMIC-v2 publishes scores only, so this is DiffMIC's rule applied to them"


def _versions() -> dict[str, str]:
    import onnx
    import torch

    return {"fusedx": fusedx.__version__, "python": platform.python_version(), "numpy": np.__version__, "torch": torch.__version__, "onnx": onnx.__version__}
