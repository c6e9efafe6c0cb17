"""What the authors' code saves, as one description: family, network, schedule, and the tensors of both parts."""

from __future__ import annotations

from collections.abc import Mapping
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
    if not source.exists():
        raise CheckpointError(f"{source} does not exist")
    found = detect(source)
    if family is not None and family != found:
        raise CheckpointError(f"{source} holds a {found} checkpoint, not {family}")
    return _read_v1(source, steps) if found == "diffmic-v1" else _read_v2(source, steps)


def detect(source: Path) -> str:
    """diffmic-v1 for a folder with its three files, diffmic-v2 for a Lightning checkpoint (or a folder with one)."""
    if source.is_dir():
        present = [name for name in _V1_FILES if (source / name).is_file()]
        if len(present) == len(_V1_FILES):
            return "diffmic-v1"
        if list(source.glob("*.ckpt")):
            return "diffmic-v2"
        missing = ", ".join(n for n in _V1_FILES if n not in present)
        raise CheckpointError(f"{source} is not a checkpoint folder: diffmic-v1 lacks {missing}; diffmic-v2 needs one .ckpt file")
    if source.name in _V1_FILES:
        raise CheckpointError(f"{source} is one file of a diffmic-v1 checkpoint; give its folder, {source.parent}")
    return "diffmic-v2"


def _read_v1(folder: Path, steps: int | None) -> Checkpoint:
    config = config_yaml.load(folder / "config.yml")
    data, diffusion, model = (_section(config, name, folder / "config.yml") for name in ("data", "diffusion", "model"))
    if not diffusion.get("apply_aux_cls", True):
        raise CheckpointError(f"{folder}: apply_aux_cls is false (no prior encoder), which fusedx does not support")
    main = Weights(torch_file.state_dict(_first(folder / "ckpt_best.pth"), "ckpt_best.pth"), "model")
    # The published evaluation loads the prior encoder non-strictly, so further tensors are reported and not refused.
    aux = Weights(torch_file.state_dict(_first(folder / "aux_ckpt_best.pth"), "aux_ckpt_best.pth"), "prior encoder", strict=False)
    network = Network(
        family="diffmic-v1",
        num_classes=_number(data, "num_classes", int),
        feature_dim=_number(model, "feature_dim", int),
        prior_arch="resnet50",
        feature_arch=_arch(model),
        backbone_width=_width(aux),
        include_guidance=bool(diffusion.get("include_guidance", True)),
        noise_prior=bool(diffusion.get("noise_prior", False)),
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
        dataset=str(data.get("dataset", "")),
        notes=notes,
    )


def _read_v2(source: Path, steps: int | None) -> Checkpoint:
    path = source
    if source.is_dir():
        candidates = sorted(source.glob("*.ckpt"))
        if len(candidates) > 1:
            raise CheckpointError(f"{source} holds {len(candidates)} .ckpt files; name one: {', '.join(c.name for c in candidates)}")
        path = candidates[0]
    saved = torch_file.load(path)
    if not isinstance(saved, Mapping) or "state_dict" not in saved or "hyper_parameters" not in saved:
        raise CheckpointError(f"{path} is not a DiffMIC-v2 Lightning checkpoint: it lacks state_dict or hyper_parameters")
    config = saved["hyper_parameters"]
    while isinstance(config, Mapping) and len(config) == 1:
        config = next(iter(config.values()))
    data, diffusion, model = (_section(config, name, path) for name in ("data", "diffusion", "model"))
    if _number(model, "num_k", int, REGIONS) != REGIONS:
        raise CheckpointError(f"{path}: num_k is {model['num_k']}; the published network has {REGIONS} regions")
    tensors = torch_file.state_dict(saved["state_dict"], path.name)
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
    if _text(diffusion, "beta_schedule") != "linear":
        raise CheckpointError(f"{path}: beta_schedule {diffusion['beta_schedule']!r}; DiffMIC-v2's sampler is specified for linear alone")
    notes = [f"ignored model: {name}" for name in unused] + [f"ignored {name}" for name in rest]
    if steps is None:
        notes.append(f"{V2_STEPS} DDIM steps, as published; no checkpoint records them")
    schedule = _schedule(diffusion, V2_STEPS if steps is None else steps)
    return Checkpoint(network, schedule, aux, main, [path], str(data.get("dataset", "")), notes)


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
        else:
            kept[f"encoder_x.f.{rest}"] = tensor
    return kept, sorted(unused)


def _first(path: Path) -> Any:
    saved = torch_file.load(path)
    if not isinstance(saved, (list, tuple)) or not saved:
        raise CheckpointError(f"{path} should hold a list whose first entry is the state dict, found {type(saved).__name__}")
    return saved[0]


def _section(config: Any, name: str, path: Path) -> Mapping[str, Any]:
    section = config.get(name) if isinstance(config, Mapping) else None
    if not isinstance(section, Mapping):
        raise CheckpointError(f"{path}: the configuration has no section {name!r}")
    return section


def _number(section: Mapping[str, Any], key: str, kind: type, default: Any = None) -> Any:
    value = section.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or (kind is int and value != int(value)):
        raise CheckpointError(f"the configuration's {key} should be a number, found {value!r}")
    return kind(value)


def _text(section: Mapping[str, Any], key: str) -> str:
    value = section.get(key)
    if not isinstance(value, str):
        raise CheckpointError(f"the configuration's {key} should be text, found {value!r}")
    return value


def _schedule(diffusion: Mapping[str, Any], steps: int) -> Schedule:
    return Schedule(
        beta_schedule=_text(diffusion, "beta_schedule"),
        beta_start=_number(diffusion, "beta_start", float),
        beta_end=_number(diffusion, "beta_end", float),
        train_timesteps=_number(diffusion, "timesteps", int),
        steps=steps,
    )


def _arch(model: Mapping[str, Any]) -> str:
    arch = _text(model, "arch")
    if arch not in BACKBONES:
        raise CheckpointError(f"the configuration's arch is {arch!r}; supported: {', '.join(BACKBONES)}")
    return arch


def _width(aux: Weights) -> int:
    """Backbone width, 64 as published: the first convolution's output channels."""
    shape = aux.shape("ds_net.f.0.weight")
    return shape[0] if shape else 64
