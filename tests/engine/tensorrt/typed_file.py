"""Reads a typed encoder with the onnx package, not with the code that wrote it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fusedx.engine.encoder.graph import Graph, Node
from fusedx.engine.encoder.half import BFLOAT16

_TYPES = {TensorProto.FLOAT: "float", TensorProto.INT64: "int64", TensorProto.FLOAT16: "float16", TensorProto.BFLOAT16: "bfloat16"}


def read(path: Path) -> Graph:
    """The graph in our own form."""
    model = onnx.load(path).graph
    graph = Graph([i.name for i in model.input], [o.name for o in model.output])
    for tensor in model.initializer:
        array = numpy_helper.to_array(tensor)
        graph.constants[tensor.name] = array.view(np.uint16).view(BFLOAT16) if tensor.data_type == TensorProto.BFLOAT16 else array
    for n in model.node:
        attributes = {a.name: helper.get_attribute_value(a) for a in n.attribute}
        if n.op_type == "Cast":
            attributes["to"] = _TYPES[attributes["to"]]
        graph.nodes.append(Node(n.op_type, tuple(n.input), tuple(n.output), attributes))
    return graph
