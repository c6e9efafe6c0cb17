"""encoder.onnx by eager torch, operator by operator: one image a request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from fusedx.engine.encoder import onnx_file, qdq
from fusedx.engine.encoder.evaluate import evaluate


class TorchEncoder:
    """See :class:`fusedx.engine.encoder.Encoder`."""

    name = "torch"
    precision = "fp32"

    def __init__(self, path: Path, threads: int | None) -> None:
        self._threads = threads
        self._graph = onnx_file.read(path)
        self._constants: dict[str, Any] = {
            # Shapes and axes stay numpy; they are arguments, not data.
            name: array if array.dtype == np.int64 else torch.from_numpy(array.copy())
            for name, array in self._graph.constants.items()
        }

    @torch.inference_mode()
    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        before = torch.get_num_threads()  # one number for the whole process, so it is put back
        torch.set_num_threads(self._threads or before)
        try:
            inputs = (torch.from_numpy(np.array(image[None], np.float32)) for image in images)
            rows = [evaluate(self._graph, self._constants, x, OPERATORS) for x in inputs]
        finally:
            torch.set_num_threads(before)
        return {name: torch.cat([row[name] for row in rows]).numpy() for name in self._graph.outputs}


def _conv(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, **a: Any) -> torch.Tensor:
    return F.conv2d(x, weight, bias, stride=a["strides"], padding=a["pads"][0])


def _reshape(x: torch.Tensor, shape: np.ndarray) -> torch.Tensor:
    return x.reshape([x.shape[i] if n == 0 else int(n) for i, n in enumerate(shape)])


def _gather(x: torch.Tensor, index: np.ndarray, *, axis: int) -> torch.Tensor:
    return x.select(axis, int(index)) if index.ndim == 0 else x.index_select(axis, torch.from_numpy(index.copy()))


def _gather_nd(data: torch.Tensor, indices: torch.Tensor, *, batch_dims: int) -> torch.Tensor:
    return torch.stack([rows[index[:, 0]] for rows, index in zip(data, indices, strict=True)])


def _layer_norm(x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor, *, axis: int, epsilon: float) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-1:], scale, shift, epsilon)


def _quantize(x: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor) -> torch.Tensor:
    limits = torch.iinfo(zero.dtype)
    return torch.clamp(torch.round(x / scale) + zero, limits.min, limits.max).to(zero.dtype)  # round: ties to even


def _dequantize(x: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, *, axis: int) -> torch.Tensor:
    along = [-1 if i == axis else 1 for i in range(x.ndim)] if scale.ndim else []
    return (x.to(scale.dtype) - zero.to(scale.dtype).reshape(along)) * scale.reshape(along)


def _reduce(method: str) -> Any:
    return lambda x, *, axes, keepdims: getattr(torch, method)(x, dim=tuple(axes), keepdim=bool(keepdims))


OPERATORS = {
    "Add": torch.add,
    "And": torch.logical_and,
    "Cast": lambda x, *, to: x.to({"float": torch.float32, "int64": torch.int64}[to]),
    "Concat": lambda *xs, axis: torch.cat(xs, dim=axis),
    "Conv": _conv,
    qdq.DEQUANTIZE: _dequantize,
    "Div": torch.div,
    "Equal": torch.eq,
    "Erf": torch.erf,
    "Floor": torch.floor,
    "Gather": _gather,
    "GatherND": _gather_nd,
    "Greater": torch.gt,
    "Identity": lambda x: x,
    "LayerNormalization": _layer_norm,
    "MatMul": torch.matmul,
    "MaxPool": lambda x, **a: F.max_pool2d(x, a["kernel_shape"], a["strides"], a["pads"][0]),
    "Mul": torch.mul,
    "Or": torch.logical_or,
    qdq.QUANTIZE: _quantize,
    "ReduceMax": _reduce("amax"),
    "ReduceMean": _reduce("mean"),
    "ReduceMin": _reduce("amin"),
    "ReduceSum": lambda x, axes, *, keepdims: x.sum(dim=tuple(int(a) for a in axes), keepdim=bool(keepdims)),
    "Relu": torch.relu,
    "Reshape": _reshape,
    "Sigmoid": torch.sigmoid,
    "Softmax": lambda x, *, axis: torch.softmax(x, dim=axis),
    "Sub": torch.sub,
    "Tanh": torch.tanh,
    "Transpose": lambda x, *, perm: x.permute(perm),
    "Where": torch.where,
}


def open_file(path: Path, threads: int | None) -> TorchEncoder:
    """Encoder of the graph at ``path``; ``threads``: CPU threads a request may use, None for all."""
    return TorchEncoder(path, threads)
