"""The float64 encoder: every operator of the graph in plain numpy, written for reading."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fusedx.engine.encoder import onnx_file, qdq
from fusedx.engine.encoder.evaluate import evaluate
from fusedx.engine.encoder.graph import Graph


class ReferenceEncoder:
    """Evaluates a graph in float64, from a compiled model's file or from a graph built of a checkpoint's tensors."""

    name = "reference"
    precision = "fp64"

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._constants = {
            name: array.astype(np.float64) if np.issubdtype(array.dtype, np.floating) else array for name, array in graph.constants.items()
        }

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """[B,3,224,224] -> every output, float64; one image at a time, as the other encoders."""
        rows = [evaluate(self._graph, self._constants, image[None].astype(np.float64), OPERATORS) for image in images]
        return {name: np.concatenate([row[name] for row in rows]) for name in self._graph.outputs}


def open_file(path: Path, threads: int | None = None) -> ReferenceEncoder:
    """Reference of a compiled model's graph; ``threads`` is accepted for the registry's sake, numpy decides."""
    return ReferenceEncoder(onnx_file.read(path))


def conv(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None, *, kernel_shape: list[int], strides: list[int], pads: list[int]
) -> np.ndarray:
    """[B,I,H,W] * [O,I,k,k] -> [B,O,H',W'] as one matrix product over unfolded windows."""
    k, s, p = kernel_shape[0], strides[0], pads[0]
    x = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (k, k), axis=(2, 3))[:, :, ::s, ::s]
    batch, c, h, w = windows.shape[:4]
    columns = windows.transpose(0, 1, 4, 5, 2, 3).reshape(batch, c * k * k, h * w)
    y = (weight.reshape(weight.shape[0], -1) @ columns).reshape(batch, -1, h, w)
    return y if bias is None else y + bias[:, None, None]


def max_pool(x: np.ndarray, *, kernel_shape: list[int], strides: list[int], pads: list[int]) -> np.ndarray:
    """Padding is minus infinity."""
    k, s, p = kernel_shape[0], strides[0], pads[0]
    x = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)), constant_values=-np.inf)
    return np.lib.stride_tricks.sliding_window_view(x, (k, k), axis=(2, 3))[:, :, ::s, ::s].max(axis=(4, 5))


def softmax(x: np.ndarray, *, axis: int) -> np.ndarray:
    """Shifted by the maximum, as everywhere."""
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def layer_norm(x: np.ndarray, scale: np.ndarray, shift: np.ndarray, *, axis: int, epsilon: float) -> np.ndarray:
    """Normalises the last axis.  The file holds epsilon in float32; its decimal value is what was meant."""
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred * centred).mean(axis=-1, keepdims=True)
    return centred / np.sqrt(variance + float(f"{epsilon:.6g}")) * scale + shift


def erf(x: np.ndarray) -> np.ndarray:
    """Elementwise error function."""
    return np.frompyfunc(math.erf, 1, 1)(x).astype(np.float64)


def reshape(x: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """ONNX rule: 0 keeps the dimension."""
    return x.reshape([x.shape[i] if n == 0 else int(n) for i, n in enumerate(shape)])


def gather_nd(data: np.ndarray, indices: np.ndarray, *, batch_dims: int) -> np.ndarray:
    """data [B,N,...], indices [B,K,1] -> [B,K,...]; one batch dimension, as our graphs use it."""
    return np.stack([rows[index[:, 0]] for rows, index in zip(data, indices, strict=True)])


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)) without overflow."""
    return np.exp(-np.logaddexp(0.0, -x))


OPERATORS: dict[str, Callable[..., np.ndarray]] = {
    "Add": np.add,
    "And": np.logical_and,
    "Cast": lambda x, *, to: x.astype({"float": np.float64, "int64": np.int64}[to]),
    "Concat": lambda *xs, axis: np.concatenate(xs, axis=axis),
    "Conv": conv,
    qdq.DEQUANTIZE: qdq.dequantize,
    "Div": np.divide,
    "Equal": np.equal,
    "Erf": erf,
    "Floor": np.floor,
    "Gather": lambda x, i, *, axis: np.take(x, i, axis=axis),
    "GatherND": gather_nd,
    "Greater": np.greater,
    "Identity": lambda x: x,
    "LayerNormalization": layer_norm,
    "MatMul": np.matmul,
    "MaxPool": max_pool,
    "Mul": np.multiply,
    "Or": np.logical_or,
    qdq.QUANTIZE: qdq.quantize,
    "ReduceMax": lambda x, *, axes, keepdims: x.max(axis=tuple(axes), keepdims=bool(keepdims)),
    "ReduceMean": lambda x, *, axes, keepdims: x.mean(axis=tuple(axes), keepdims=bool(keepdims)),
    "ReduceMin": lambda x, *, axes, keepdims: x.min(axis=tuple(axes), keepdims=bool(keepdims)),
    "ReduceSum": lambda x, axes, *, keepdims: x.sum(axis=tuple(axes), keepdims=bool(keepdims)),
    "Relu": lambda x: np.maximum(x, 0),
    "Reshape": reshape,
    "Sigmoid": sigmoid,
    "Softmax": softmax,
    "Sub": np.subtract,
    "Tanh": np.tanh,
    "Transpose": lambda x, *, perm: x.transpose(perm),
    "Where": np.where,
}
