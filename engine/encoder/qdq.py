"""What an int8 encoder adds to the graph: QuantizeLinear and DequantizeLinear, in the one form that fusedx writes.

    activations   QuantizeLinear(x, scale, zero) -> DequantizeLinear(q, scale, zero): one scale, int8 or uint8; x = scale (q - zero)
    weights       DequantizeLinear(constant int8, scale [n], zero [n] = 0) along ``axis``, one scale for each of n outputs

A runtime fuses these with the convolution or product between them into an int8 kernel; read literally, in float64 or by torch, they are
the same arithmetic but for the rounding of sums.  ONNX: quantising rounds to the nearest, ties to even, and saturates.
"""

from __future__ import annotations

import numpy as np

from fusedx.engine.encoder.graph import Graph, Node

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
#: Element types of quantised values.
DTYPES = (np.dtype(np.int8), np.dtype(np.uint8))
_MAX_SCALE = 1e30


def is_int8(graph: Graph) -> bool:
    """Whether any part of the graph is quantised."""
    return any(node.op == DEQUANTIZE for node in graph.nodes)


def check(graph: Graph) -> None:
    """ValueError for a quantised value that is made, held or read in another way than the two above."""
    pairs: dict[str, Node] = {}  # quantised value -> what made it
    for node in graph.nodes:
        if node.op == QUANTIZE:
            if node.inputs[0] in graph.constants or node.inputs[0] in pairs:
                raise ValueError(f"{node.outputs[0]} quantises {node.inputs[0]}, which is a constant or quantised already")
            _check_scale(graph, node, ())
            pairs[node.outputs[0]] = node
        elif node.op == DEQUANTIZE:
            _check_dequantize(graph, node, pairs)
        elif wrong := [name for name in node.inputs if name in pairs or _is_quantised_constant(graph, name)]:
            raise ValueError(f"the {node.op} that makes {node.outputs[0]} reads {wrong[0]}, which is quantised")
    dequantised = {node.inputs[0] for node in graph.nodes if node.op == DEQUANTIZE}
    if left := [name for name in pairs if name not in dequantised]:
        raise ValueError(f"{left[0]} is quantised and never dequantised")
    if wrong := [name for name in graph.outputs if name in pairs or _is_quantised_constant(graph, name)]:
        raise ValueError(f"the output {wrong[0]} is quantised")


def _check_dequantize(graph: Graph, node: Node, pairs: dict[str, Node]) -> None:
    source, scale, zero = node.inputs
    if source in pairs:
        if (scale, zero) != pairs[source].inputs[1:]:
            raise ValueError(f"{node.outputs[0]} dequantises {source} by another scale or zero point than it was quantised by")
        return
    weight = graph.constants.get(source)
    if weight is None or weight.dtype != np.int8:
        raise ValueError(f"{node.outputs[0]} dequantises {source}, which is neither a quantised value nor a constant of int8")
    axis = node.attributes["axis"]
    if not (isinstance(axis, int) and 0 <= axis < weight.ndim):
        raise ValueError(f"{node.outputs[0]} has axis {axis}, and weights of {weight.ndim} dimensions")
    _check_scale(graph, node, (weight.shape[axis],))
    if graph.constants[zero].dtype != np.int8 or graph.constants[zero].any():
        raise ValueError(f"{node.outputs[0]} has weights with a zero point other than 0 of int8")


def _check_scale(graph: Graph, node: Node, shape: tuple[int, ...]) -> None:
    """A scale and a zero point that are constants of ``shape``."""
    scale, zero = (graph.constants.get(name) for name in node.inputs[1:])
    if scale is None or scale.dtype != np.float32 or scale.shape != shape:
        raise ValueError(f"{node.outputs[0]} needs a constant float32 scale of shape {list(shape)}")
    if zero is None or zero.dtype not in DTYPES or zero.shape != shape:
        raise ValueError(f"{node.outputs[0]} needs a constant zero point of int8 or uint8 and shape {list(shape)}")
    smallest = float(np.finfo(np.float32).tiny)  # a subnormal scale has no reciprocal in float32
    if not (np.isfinite(scale).all() and (scale >= smallest).all() and (scale <= _MAX_SCALE).all()):
        raise ValueError(f"{node.outputs[0]} has a scale that is not a positive number of ordinary size")


def _is_quantised_constant(graph: Graph, name: str) -> bool:
    return name in graph.constants and graph.constants[name].dtype in DTYPES


def quantize(x: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> np.ndarray:
    """Any shape -> the zero point's type; one scale for all.  numpy, for the reference."""
    limits = np.iinfo(zero.dtype)
    return np.clip(np.rint(x / scale) + float(zero), limits.min, limits.max).astype(zero.dtype)


def dequantize(x: np.ndarray, scale: np.ndarray, zero: np.ndarray, *, axis: int) -> np.ndarray:
    """int8 or uint8 -> the scale's floating type; scale and zero: scalars, or one for each place along ``axis``."""
    along = [-1 if i == axis else 1 for i in range(x.ndim)] if scale.ndim else []
    return (x.astype(scale.dtype) - zero.astype(scale.dtype).reshape(along)) * scale.reshape(along)
