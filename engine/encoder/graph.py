"""The encoder's computation graph: a handful of ONNX operators, held as plain Python objects.

Built once from a checkpoint (network.py), written to encoder.onnx (onnx_file.py), and evaluated by OpenVINO, ONNX Runtime,
torch or the float64 reference.  Operator names and attributes are those of ONNX opset 17.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

OPSET = 17


@dataclass(frozen=True, slots=True)
class Node:
    """One operator: ``outputs = op(*inputs, **attributes)``; values are known by name."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, object]


@dataclass(slots=True)
class Graph:
    """Nodes in execution order.  ``constants`` are weights, index tables and shapes."""

    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)


class GraphBuilder:
    """Appends operators; every method takes and returns value names.  Floating constants are rounded once, to ``dtype``."""

    def __init__(self, dtype: type[np.floating]) -> None:
        self.graph = Graph()
        self.dtype = dtype
        self._names = 0
        self._shared: dict[tuple[object, ...], str] = {}

    def constant(self, value: np.ndarray, name: str) -> str:
        """Add a constant under a readable name."""
        array = np.asarray(value)
        if np.issubdtype(array.dtype, np.floating):
            array = array.astype(self.dtype)
        self.graph.constants[name] = np.array(array, order="C")
        return name

    def ints(self, *values: int) -> str:
        """int64 vector, shared between uses."""
        return self._small(("i", *values), np.array(values, np.int64))

    def scalar(self, value: float) -> str:
        """Floating scalar, shared between uses."""
        return self._small(("f", value), np.array(value, np.float64))

    def _small(self, key: tuple[object, ...], array: np.ndarray) -> str:
        if key not in self._shared:
            self._shared[key] = self.constant(array, f"const_{len(self._shared)}")
        return self._shared[key]

    def op(self, op: str, *inputs: str, name: str | None = None, **attributes: object) -> str:
        """Append one operator with one output."""
        if name is None:
            self._names += 1
            name = f"{op.lower()}_{self._names}"
        self.graph.nodes.append(Node(op, inputs, (name,), attributes))
        return name

    def output(self, value: str, name: str) -> None:
        """Publish a value under its final name."""
        self.op("Identity", value, name=name)
        self.graph.outputs.append(name)

    # Short forms of the operators that recur.

    def conv(self, x: str, weight: np.ndarray, bias: np.ndarray | None, name: str, *, stride: int = 1, pad: int = 0) -> str:
        """weight [O,I,k,k], bias [O] or None; square kernel, equal strides and pads."""
        inputs = [x, self.constant(weight, f"{name}.weight")]
        if bias is not None:
            inputs.append(self.constant(bias, f"{name}.bias"))
        k = weight.shape[2]
        return self.op("Conv", *inputs, name=name, kernel_shape=[k, k], strides=[stride] * 2, pads=[pad] * 4)

    def linear(self, x: str, weight: np.ndarray, bias: np.ndarray | None, name: str) -> str:
        """x [..., I] times weight [O,I] transposed, plus bias [O]."""
        y = self.op("MatMul", x, self.constant(weight.T, f"{name}.weight_t"), name=name if bias is None else f"{name}.product")
        return y if bias is None else self.op("Add", y, self.constant(bias, f"{name}.bias"), name=name)

    def reduce(self, op: str, x: str, axes: list[int], *, keep: bool = False) -> str:
        """ReduceMean, ReduceMin or ReduceMax over ``axes``."""
        return self.op(op, x, axes=axes, keepdims=int(keep))

    def sum(self, x: str, axis: int) -> str:
        """Sum over one axis, which disappears."""
        return self.op("ReduceSum", x, self.ints(axis), keepdims=0)

    def reshape(self, x: str, *shape: int) -> str:
        """0 keeps a dimension, -1 infers it."""
        return self.op("Reshape", x, self.ints(*shape))
