"""Checkpoints in the authors' layout, narrow enough to be written and compiled in well under a second.

Names and shapes are those of tests/golden/v1-small.json and v2-small.json with every channel number scaled: backbone width 8,
feature_dim 16, a ViT of width 64 with one block.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
sys.path.insert(0, str(GOLDEN))
import make_checkpoint  # noqa: E402

WIDTH, FEATURE, VIT = 8, 16, 64
_VIT = {384: VIT, 1152: 3 * VIT, 1536: 4 * VIT}


def _shape(family: str, name: str, shape: list[int]) -> tuple[int, ...]:
    def trunk(channels: int) -> int:
        return channels if channels <= 3 else channels * WIDTH // 64

    if family == "diffmic-v2" and name.startswith("encoder_x."):
        return tuple(_VIT.get(n, FEATURE if n == 256 else n) for n in shape)
    if ".f." in name:  # a ResNet trunk: [O, I, k, k] or [O]
        return (*map(trunk, shape[:2]), *shape[2:])
    if name.startswith(("left_postprocess_net", "mil_attn_U", "mil_attn_V", "classifier_linear", "fusion_dnn")):
        return (shape[0], shape[1] * WIDTH // 64, *shape[2:])
    if name.startswith("mil_attn_w"):
        return tuple(shape)
    if name.endswith(".g.weight"):
        return (FEATURE, shape[1] * WIDTH // 64)
    return tuple(FEATURE if n == 256 else n for n in shape)  # the denoiser, norms, cond_weight


@cache
def _parts(case_name: str) -> dict[str, dict[str, np.ndarray]]:
    case = json.loads((GOLDEN / f"{case_name}.json").read_text())
    rng = np.random.default_rng(case["seed"])
    parts: dict[str, dict[str, np.ndarray]] = {}
    for part, tensors in case["state_dicts"].items():
        parts[part] = {}
        for name, entry in tensors.items():
            if ".blocks." in name and ".blocks.0." not in name:
                continue
            shape, rule = _shape(case["family"], name, entry["shape"]), entry["rule"]
            kind, _, argument = rule.partition(":")
            if kind == "count":
                parts[part][name] = np.zeros((), np.int64)
                continue
            fan_in = max(int(np.prod(shape[1:])), 1)
            spread = {"he": float(argument or 1) * (2 / fan_in) ** 0.5, "sym": float(argument or 1), "one": float(argument or 1)}.get(kind)
            if spread is None:  # var, uni
                values = rng.uniform(0.75, 1.25, shape) if kind == "var" else rng.uniform(0, 1, shape)
            else:
                values = rng.normal(1.0 if kind == "one" else 0.0, spread, shape)
            parts[part][name] = values.astype(np.float32)
    return parts


def tensors(case_name: str, part: str) -> dict[str, torch.Tensor]:
    """A fresh state dict: v1-small has parts aux and model, v2-small aux_model and model."""
    return {name: torch.from_numpy(array.copy()) for name, array in _parts(case_name)[part].items()}


def v1_config(**changes: Any) -> str:
    """config.yml as a training run saves it; changes: key -> YAML text of the value, None removes the line."""
    case = {"num_classes": 5, "feature_dim": FEATURE, "arch": "resnet18", "beta_start": 0.0001, "beta_end": 0.02}
    case |= {"beta_schedule": "linear", "test_timesteps": 20, "train_timesteps": 1000}
    lines = make_checkpoint.v1_config(case).splitlines()
    for key, value in changes.items():
        at = [i for i, line in enumerate(lines) if line.strip().startswith(f"{key}:")]
        if value is None:
            del lines[at[0]]
        else:
            lines[at[0]] = f"{lines[at[0]].split(key)[0]}{key}: {value}"
    return "\n".join(lines) + "\n"


def write_v1(
    folder: Path,
    *,
    model: dict[str, Any] | None = None,
    aux: dict[str, Any] | None = None,
    config: str | None = None,
    model_list: list[Any] | None = None,
    **changes: Any,
) -> Path:
    """ckpt_best.pth, aux_ckpt_best.pth and config.yml in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    model = tensors("v1-small", "model") if model is None else model
    aux = tensors("v1-small", "aux") if aux is None else aux
    torch.save([model, {}, 0, 0] if model_list is None else model_list, folder / "ckpt_best.pth")
    torch.save([aux, {}], folder / "aux_ckpt_best.pth")
    (folder / "config.yml").write_text(v1_config(**changes) if config is None else config)
    return folder


def v2_hparams(easy: Any = dict, **changes: Any) -> Any:
    """hyper_parameters of a DiffMIC-v2 run; ``easy`` makes each mapping."""
    data = {"dataset": "PLACENTAL", "num_classes": 4}
    model = {"arch": "resnet18", "feature_dim": FEATURE, "hidden_dim": FEATURE, "num_k": 6}
    diffusion = {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02, "timesteps": 1000, "test_timesteps": 100}
    for key, value in changes.items():
        next(section for section in (data, model, diffusion) if key in section)[key] = value
    return easy(data=easy(**data), model=easy(**model), diffusion=easy(**diffusion, include_guidance=True))


def v2_tensors() -> dict[str, torch.Tensor]:
    """Both parts under their prefixes."""
    both = {f"model.{k}": v for k, v in tensors("v2-small", "model").items()}
    return both | {f"aux_model.{k}": v for k, v in tensors("v2-small", "aux_model").items()}


def write_v2(path: Path, *, state: dict[str, Any] | None = None, hparams: Any = None, **more: Any) -> Path:
    """A Lightning checkpoint at ``path``; more: further top-level entries."""
    path.parent.mkdir(parents=True, exist_ok=True)
    hparams = {"hparams": v2_hparams(make_checkpoint.easydict_class())} if hparams is None else hparams
    saved = {"epoch": 0, "state_dict": v2_tensors() if state is None else state, "hyper_parameters": hparams}
    torch.save(saved | more, path)
    return path
