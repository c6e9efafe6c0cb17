"""The encoder graph made strongly typed: half precision where the time goes, float32 where the answer is decided.

TensorRT 11 knows no precision flags; a tensor has the type that the network gives it.  So the types are written into the graph:

    half      the convolutions of the ResNet trunks with what lies between them; the ViT's patch embedding and its matrix products
    float32   everything else: saliency, region scores, ranks and places; means over space; attention over regions and the logits;
              the ViT's residual stream, LayerNorm, softmax and GELU; the projections to the features; every input and output;
              with bf16 the whole trunk that the saliency comes from

Products of half-precision tensors are accumulated in float32 by the GPU and rounded once.

That trunk decides which six tiles are read, and in which order, which no tolerance downstream can repair.  Of 64 images and the
untrained weights of a golden case, fp16 gives 1 or 2 other tiles, or another order of them, than float32 does, all of them ties
to 0.05 % of a score; bf16 would give them to 20, hence the exception.  A model that must not differ on ties either runs in fp32.
`python tests/engine/tensorrt/measure_precision.py` measures it again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from fusedx.engine.encoder.graph import Graph, Node
from fusedx.engine.encoder.half import HALF_TYPES, from_half, to_half
from fusedx.engine.encoder.qdq import is_int8
from fusedx.engine.errors import ConfigError, UnavailableError

PRECISIONS = ("fp32", *HALF_TYPES)
#: Opset 22 is the first in which Conv and MaxPool take bfloat16; opset 18 turned the axes of ReduceMean and its like into an input.
OPSET = 22

_PRODUCTS = ("Conv", "MatMul")
#: Operators that only move, select or clip values, so they are exact in any type and take that of their first input.
_FOLLOWERS = ("Gather", "MaxPool", "Relu", "Reshape", "Transpose")
_REDUCTIONS = ("ReduceMax", "ReduceMean", "ReduceMin")
#: Parts of constants' names; what reads such a constant stays float32.
_FULL = ("gn_conv_last", "mil_attn_", "classifier_linear", "encoder_x.g.", "encoder_x_l.g.", "pos_embed")
#: The same for one precision: the global branch's trunk.
_FULL_ALSO = {"fp16": (), "bf16": ("ds_net.f.",)}


def typed(graph: Graph, precision: str) -> Graph:
    """A new graph with Cast nodes and half-precision constants; ``precision``: fp32, fp16 or bf16.

    Raises UnavailableError for another precision or an int8 encoder, ConfigError where a weight overflows it.  Constants that stay
    float32 are shared with ``graph``, not copied.
    """
    if precision not in PRECISIONS:
        raise UnavailableError(f"TensorRT precision {precision!r} is not available; there is: {', '.join(PRECISIONS)}")
    if is_int8(graph):
        raise UnavailableError("this model's encoder is int8, which runs on processors only: compile it with --encoder-precision fp32")
    return _Typer(graph, precision).run()


@dataclass(slots=True)
class _Typer:
    source: Graph
    precision: str
    out: Graph = field(default_factory=Graph)
    #: Values of the new graph that are half precision.
    half: set[str] = field(default_factory=set)
    casts: set[str] = field(default_factory=set)

    def run(self) -> Graph:
        self.out.inputs, self.out.outputs = list(self.source.inputs), list(self.source.outputs)
        for node in self.source.nodes:
            half = self.precision != "fp32" and self._runs_half(node)
            node = _axes_as_input(node, self.out)
            inputs = tuple(self._as(name, half, node) for name in node.inputs)
            self.out.nodes.append(Node(node.op, inputs, node.outputs, dict(node.attributes)))
            if half:
                self.half.update(node.outputs)
        return self.out

    def _runs_half(self, node: Node) -> bool:
        constants = [name for name in node.inputs if name in self.source.constants]
        if any(part in name for name in constants for part in (*_FULL, *_FULL_ALSO[self.precision])):
            return False
        if node.op in _PRODUCTS:
            return True
        computed = [name for name in node.inputs if name not in self.source.constants]
        return node.op in (*_FOLLOWERS, "Add") and all(name in self.half for name in computed)

    def _as(self, name: str, half: bool, node: Node) -> str:
        """``name`` in the type that ``node`` runs in; integers and booleans as they are."""
        if name in self.source.constants:
            return self._constant(name, half)
        if half == (name in self.half) or node.op == "Cast":
            return name
        # Only float32 values become half and back: a node that runs half has no integer input that is computed.
        to = HALF_TYPES[self.precision] if half else "float"
        cast = f"{name}.{to}"
        if cast not in self.casts:
            self.out.nodes.append(Node("Cast", (name,), (cast,), {"to": to}))
            self.casts.add(cast)
        return cast

    def _constant(self, name: str, half: bool) -> str:
        array = self.source.constants[name]
        if not (half and array.dtype == np.float32):
            self.out.constants[name] = array
            return name
        name = f"{name}.{self.precision}"
        if name not in self.out.constants:
            self.out.constants[name] = rounded = to_half(array, self.precision)
            if not np.isfinite(from_half(rounded)).all():
                raise ConfigError(f"{name} holds values that {self.precision} cannot: choose another precision for this model")
        return name


def _axes_as_input(node: Node, graph: Graph) -> Node:
    if node.op not in _REDUCTIONS:
        return node
    attributes = dict(node.attributes)
    axes = np.array(attributes.pop("axes"), np.int64)
    name = "axes_" + "_".join(map(str, axes))
    graph.constants[name] = axes
    return Node(node.op, (*node.inputs, name), node.outputs, attributes)
