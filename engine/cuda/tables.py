"""The denoiser's tables on a device, their matrices in a weight format."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from fusedx.engine.denoiser import DenoiserTables
from fusedx.kernels.conditional_layer.formats import FORMATS, store

#: Format -> torch's type of the stored weights; e4m3 stays bits, which the kernels decode.
_STORED = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp8": torch.uint8}
_ACTIVATIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True)
class DeviceTables:
    """F = feature_dim, C = classes, T = evaluated timesteps.

    weight2, weight3 [F,F] in ``format``; scale<k>, shift<k> float32 [T,F], an fp8 channel's scale multiplied into scale2 and scale3;
    weight_y [F,C], weight_p [C,F], weight4 [C,F] float32; bias4 float64 [C].  ``activations``: dtype of what flows between layers.
    """

    format: str
    activations: torch.dtype
    weight_y: torch.Tensor
    weight_p: torch.Tensor
    weight2: torch.Tensor
    weight3: torch.Tensor
    weight4: torch.Tensor
    bias4: torch.Tensor
    scale1: torch.Tensor
    shift1: torch.Tensor
    scale2: torch.Tensor
    shift2: torch.Tensor
    scale3: torch.Tensor
    shift3: torch.Tensor

    @staticmethod
    def upload(tables: DenoiserTables, format: str, device: torch.device) -> DeviceTables:
        """Convert and copy.  Raises ValueError where the format cannot hold the weights."""

        def to_device(array: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(np.array(array, order="C")).to(device)  # a copy: the mapped file is read-only

        matrices, scales = {}, {"scale2": tables.scale2, "scale3": tables.scale3}
        for k in (2, 3):
            stored = store(getattr(tables, f"weight{k}"), format)
            matrices[f"weight{k}"] = to_device(stored.bits).view(_STORED[format])
            if stored.scale is not None:
                scales[f"scale{k}"] = scales[f"scale{k}"] * stored.scale
        return DeviceTables(
            format=format,
            activations=_ACTIVATIONS[FORMATS[format][1]],
            weight_y=to_device(tables.weight_y),
            weight_p=to_device(tables.weight_p.T),
            weight4=to_device(tables.weight4),
            bias4=to_device(tables.bias4.astype(np.float64)),
            scale1=to_device(tables.scale1),
            shift1=to_device(tables.shift1),
            shift2=to_device(tables.shift2),
            shift3=to_device(tables.shift3),
            **matrices,
            **{name: to_device(array) for name, array in scales.items()},
        )
