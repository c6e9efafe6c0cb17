"""What a GPU computes from a strongly typed graph, in torch on a CPU: float32 arithmetic, rounded to a value's own type.

Tensor cores multiply half-precision numbers exactly and accumulate in float32, so a half-precision product is the float32
product rounded once.  Mixed operand types are an error here as they are in TensorRT.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fusedx.engine.encoder.graph import Graph
from fusedx.engine.encoder.half import BFLOAT16, from_half
from fusedx.engine.encoder.torch import OPERATORS

HALF = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def _reduce(method: str) -> Any:
    return lambda x, axes, *, keepdims: getattr(torch, method)(x, dim=tuple(int(a) for a in axes), keepdim=bool(keepdims))


#: Operators of opset 22 that differ from those of a compiled model.
_OPERATORS = OPERATORS | {"ReduceMax": _reduce("amax"), "ReduceMean": _reduce("mean"), "ReduceMin": _reduce("amin")}


class Emulator:
    """Evaluates a typed graph on batches."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.types = {name: str(kind) for name, a in graph.constants.items() if (kind := _half_type(a)) is not None}
        self.constants = {name: self._constant(array) for name, array in graph.constants.items()}

    @torch.inference_mode()
    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """float32 [B,3,224,224] -> every output by name."""
        before = torch.get_num_threads()
        torch.set_num_threads(1)  # more only wait for each other where tests run side by side
        try:
            return self._run(images)
        finally:
            torch.set_num_threads(before)

    def _run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        values: dict[str, torch.Tensor] = {"image": torch.from_numpy(np.ascontiguousarray(images))}
        types = dict(self.types)
        last = {name: i for i, node in enumerate(self.graph.nodes) for name in node.inputs}
        for i, node in enumerate(self.graph.nodes):
            arguments = [self.constants[n] if n in self.constants else values[n] for n in node.inputs]
            types[node.outputs[0]] = kind = self._type(node, arguments, types)
            out = arguments[0] if node.op == "Cast" and kind in HALF else _OPERATORS[node.op](*arguments, **node.attributes)
            values[node.outputs[0]] = out.to(HALF[kind]).float() if kind in HALF and out.dtype == torch.float32 else out
            for name in node.inputs:
                if last[name] == i and name not in self.graph.outputs:
                    values.pop(name, None)
        return {name: values[name].numpy() for name in self.graph.outputs}

    @staticmethod
    def _type(node: Any, arguments: list[Any], types: dict[str, str]) -> str:
        if node.op == "Cast":
            return str(node.attributes["to"])
        pairs = zip(node.inputs, arguments, strict=True)
        floating = [types.get(name, "float") for name, a in pairs if getattr(a, "dtype", None) == torch.float32]
        if len(set(floating)) > 1:
            raise TypeError(f"{node.op} {node.outputs[0]} reads {', '.join(floating)}")
        return floating[0] if floating else "float"

    @staticmethod
    def _constant(array: np.ndarray) -> Any:
        if array.dtype == np.int64:
            return array
        return torch.from_numpy(np.array(from_half(array) if _half_type(array) else array))


def _half_type(array: np.ndarray) -> str | None:
    return "bfloat16" if array.dtype == BFLOAT16 else "float16" if array.dtype == np.float16 else None
