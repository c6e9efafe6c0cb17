"""What the authors' code saves, as one description: family, network, schedule, and the tensors of both parts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fusedx.compiler import config_yaml, torch_file
from fusedx.engine.encoder import vit
from fusedx.engine.errors import CheckpointError, ConfigError
from fusedx.engine.manifest import BACKBONES, FAMILIES, REGIONS, Network
from fusedx.engine.schedule import Schedule
from fusedx.engine.weights import Weights

#: The number of DDIM steps that DiffMIC-v2 was published with; its checkpoints do not record it.
V2_STEPS = 10
#: Parts of a whole EfficientSAM that the trunk does not use.
_SAM_UNUSED = ("neck.", "prompt_encoder.", "mask_decoder.")
#: Mappings of one entry that may lie around the configuration of a Lightning checkpoint.
_MAX_WRAPPING = 4
_V1_FILES = ("ckpt_best.pth", "aux_ckpt_best.pth", "config.yml")


@dataclass(slots=True)
class Checkpoint:
    """A published checkpoint, read and not yet checked tensor by tensor (building the graph does that)."""

    network: Network
    schedule: Schedule
    prior: Weights
    model: Weights
    files: list[Path]
    dataset: str = ""
    notes: list[str] = field(default_factory=list)


def read(source: Path, family: str | None = None, steps: int | None = None) -> Checkpoint:
    """Detect the family (unless given) and read.  CheckpointError or ConfigError says what is missing."""
    if family is not None and family not in FAMILIES:
        raise ConfigError(f"unknown family {family!r}; known: {', '.join(FAMILIES)}")
    try:
        found = detect(source)
    except (OSError, ValueError) as error:  # a name that is too long, a folder that may not be read
        if isinstance(error, CheckpointError):
            raise
        shown = torch_file.printable(str(source))
        raise CheckpointError(f"{shown} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if family is not None and family != found:
        raise CheckpointError(f"{source} holds a {found} checkpoint, not {family}")
    return _read_v1(source, steps) if found == "diffmic-v1" else _read_v2(source, steps)


def detect(source: Path) -> str:
    """diffmic-v1 for a folder with its three files, diffmic-v2 for a Lightning checkpoint (or a folder with one)."""
    if not source.exists():
        raise CheckpointError(f"{torch_file.printable(str(source))} does not exist")
    if source.is_dir():
        present = [name for name in _V1_FILES if (source / name).is_file()]
        if len(present) == len(_V1_FILES):
            return "diffmic-v1"
        if _lightning_files(source):
            return "diffmic-v2"
        missing = ", ".join(n for n in _V1_FILES if n not in present)
        raise CheckpointError(f"{source} is not a checkpoint folder: diffmic-v1 lacks {missing}; diffmic-v2 needs one .ckpt file")
    if source.name in _V1_FILES:
        raise CheckpointError(f"{source} is one file of a diffmic-v1 checkpoint; give its folder, {source.parent}")
    return "diffmic-v2"


def _lightning_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix == ".ckpt" and path.is_file())


def _read_v1(folder: Path, steps: int | None) -> Checkpoint:
    config = config_yaml.load(folder / "config.yml")
    data, diffusion, model = (_section(config, name, folder / "config.yml") for name in ("data", "diffusion", "model"))
    if not _switch(diffusion, "apply_aux_cls", True):
        raise CheckpointError(f"{folder}: apply_aux_cls is false (no prior encoder), which fusedx does not support")
    main = Weights(_first_state_dict(folder / "ckpt_best.pth"), "model")
    # The published evaluation loads the prior encoder non-strictly, so further tensors are reported and not refused.
    aux = Weights(_first_state_dict(folder / "aux_ckpt_best.pth"), "prior encoder", strict=False)
    network = Network(
        family="diffmic-v1",
        num_classes=_number(data, "num_classes", int),
        feature_dim=_number(model, "feature_dim", int),
        prior_arch="resnet50",
        feature_arch=_arch(model),
        backbone_width=_width(aux),
        include_guidance=_switch(diffusion, "include_guidance", True),
        noise_prior=_switch(diffusion, "noise_prior", False),
    )
    notes = []
    saved = _number(diffusion, "test_timesteps", int)
    if steps is not None and steps != saved:
        notes.append(f"{steps} steps instead of the checkpoint's {saved} (--steps)")
    return Checkpoint(
        network=network,
        schedule=_schedule(diffusion, steps if steps is not None else saved),
        prior=aux,
        model=main,
        files=[folder / name for name in _V1_FILES],
        dataset=_dataset(data),
        notes=notes,
    )


def _read_v2(source: Path, steps: int | None) -> Checkpoint:
    path = source
    if source.is_dir():
        candidates = _lightning_files(source)
        if len(candidates) > 1:
            raise CheckpointError(f"{source} holds {len(candidates)} .ckpt files; name one: {', '.join(c.name for c in candidates)}")
        path = candidates[0]
    saved = torch_file.load(path)
    if not isinstance(saved, dict) or "state_dict" not in saved or "hyper_parameters" not in saved:
        raise CheckpointError(f"{path} is not a DiffMIC-v2 Lightning checkpoint: it lacks state_dict or hyper_parameters")
    config = saved["hyper_parameters"]
    for _ in range(_MAX_WRAPPING):
        if isinstance(config, dict) and len(config) == 1:
            (config,) = dict.values(config)
    data, diffusion, model = (_section(config, name, path) for name in ("data", "diffusion", "model"))
    if (regions := _number(model, "num_k", int, REGIONS)) != REGIONS:
        raise CheckpointError(f"{path}: num_k is {regions}; the published network has {REGIONS} regions")
    tensors = torch_file.state_dict(saved["state_dict"], path)
    parts = {p: {n.removeprefix(p): t for n, t in tensors.items() if n.startswith(p)} for p in ("model.", "aux_model.")}
    for prefix, part in parts.items():
        if not part:
            raise CheckpointError(f"{path}: no tensor is named {prefix}*")
    rest = sorted(n for n in tensors if not n.startswith(("model.", "aux_model.")))
    model_tensors, unused = _plain_sam_names(parts["model."])
    main, aux = Weights(model_tensors, "model"), Weights(parts["aux_model."], "aux_model")
    aux.ignore(["fusion_dnn."])
    network = Network(
        family="diffmic-v2",
        num_classes=_number(data, "num_classes", int),
        feature_dim=_number(model, "feature_dim", int),
        prior_arch=_arch(model),
        feature_arch=_arch(model),
        backbone_width=_width(aux),
        vit_width=(main.shape("encoder_x.f.patch_embed.proj.bias") or (384,))[0],
        vit_depth=max(vit.depth(main, "encoder_x.f"), 1),
    )
    if (betas := _text(diffusion, "beta_schedule")) != "linear":
        raise CheckpointError(f"{path}: beta_schedule {_show(betas)}; DiffMIC-v2's sampler is specified for linear alone")
    notes = [f"ignored model: {name}" for name in unused] + [f"ignored {name}" for name in rest]
    if steps is None:
        notes.append(f"{V2_STEPS} DDIM steps, as published; no checkpoint records them")
    schedule = _schedule(diffusion, V2_STEPS if steps is None else steps)
    return Checkpoint(network, schedule, aux, main, [path], _dataset(data), notes)


def _plain_sam_names(tensors: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Accept a whole EfficientSAM under encoder_x.f: keep its image encoder's trunk under plain names, list the rest."""
    kept, unused = {}, []
    for name, tensor in tensors.items():
        rest = name.removeprefix("encoder_x.f.")
        if rest == name:
            kept[name] = tensor
            continue
        rest = rest.removeprefix("image_encoder.")
        if rest.startswith(_SAM_UNUSED) or rest in ("pixel_mean", "pixel_std"):
            unused.append(name)
        elif f"encoder_x.f.{rest}" in kept:
            raise CheckpointError(f"the image encoder's tensor encoder_x.f.{rest} is in it twice, with and without image_encoder.")
        else:
            kept[f"encoder_x.f.{rest}"] = tensor
    return kept, sorted(unused)


def _first_state_dict(path: Path) -> dict[str, np.ndarray]:
    saved = torch_file.load(path)
    if not isinstance(saved, (list, tuple)) or not saved:
        raise CheckpointError(f"{path} should hold a list whose first entry is the state dict, found {type(saved).__name__}")
    return torch_file.state_dict(saved[0], path)


# Sections are read with dict.get and not by their own methods, which an EasyDict's entries can hide.


def _section(config: Any, name: str, path: Path) -> dict[str, Any]:
    section = dict.get(config, name) if isinstance(config, dict) else None
    if not isinstance(section, dict):
        raise CheckpointError(f"{path}: the configuration has no section {name!r}")
    return section


def _show(value: Any) -> str:
    """A value of the configuration in a message: short, whatever it is."""
    if isinstance(value, str):
        return repr(value[:80])
    if value is None or isinstance(value, (bool, float)) or (isinstance(value, int) and value.bit_length() < 200):
        return repr(value)
    return f"a {type(value).__name__}" + (" of many digits" if isinstance(value, int) else "")


def _number(section: dict[str, Any], key: str, kind: type, default: Any = None) -> Any:
    value = dict.get(section, key, default)
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1 << 62
    if not fits or (kind is int and value != int(value)):
        raise CheckpointError(f"the configuration's {key} should be a number, found {_show(value)}")
    return kind(value)


def _switch(section: dict[str, Any], key: str, default: bool) -> bool:
    value = dict.get(section, key, default)
    if not isinstance(value, bool):
        raise CheckpointError(f"the configuration's {key} should be true or false, found {_show(value)}")
    return value


def _text(section: dict[str, Any], key: str) -> str:
    value = dict.get(section, key)
    if not isinstance(value, str):
        raise CheckpointError(f"the configuration's {key} should be text, found {_show(value)}")
    return value


def _dataset(data: dict[str, Any]) -> str:
    value = dict.get(data, "dataset")
    return value if isinstance(value, str) else ""


def _schedule(diffusion: dict[str, Any], steps: int) -> Schedule:
    return Schedule(
        beta_schedule=_text(diffusion, "beta_schedule"),
        beta_start=_number(diffusion, "beta_start", float),
        beta_end=_number(diffusion, "beta_end", float),
        train_timesteps=_number(diffusion, "timesteps", int),
        steps=steps,
    )


def _arch(model: dict[str, Any]) -> str:
    arch = _text(model, "arch")
    if arch not in BACKBONES:
        raise CheckpointError(f"the configuration's arch is {_show(arch)}; supported: {', '.join(BACKBONES)}")
    return arch


def _width(aux: Weights) -> int:
    """Backbone width, 64 as published: what most of the first layers say, so that one damaged tensor is named and not believed."""
    first = ("f.0.weight", "f.1.weight", "f.1.bias", "f.1.running_mean", "f.4.0.conv1.weight", "f.4.0.bn1.weight")
    shapes = [aux.shape(f"{branch}.{name}") for branch in ("ds_net", "dn_resnet") for name in first]
    widths = Counter(shape[0] for shape in shapes if shape)
    return widths.most_common(1)[0][0] if widths else 64
