"""One trunk through NNCF (Neural Network Compression Framework): float32 graph and sample inputs in, QuantizeLinear pairs out.

NNCF's post-training quantisation decides where values are quantised and measures their ranges; what it returns is read back into the
graph's own form and written by onnx_file.py like everything else.  Its settings here, each for a reason:

    weights in 7 bits    Processors without VNNI add two products of int8 and uint8 in 16 bits, which saturates silently when weights
                         use all 8 bits; with half the range (overflow_fix) every processor computes the same sums.
    no bias correction   It made features of the demonstration model six times worse (4.5e-2 to 2.7e-1), measured on held-out images.
    float between        In a ViT only the products with weights are quantised: LayerNorm, softmax, GELU, the residual stream and the
                         products of queries, keys and values stay float32.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from fusedx.compiler.trunks import linear_products
from fusedx.engine.encoder import qdq
from fusedx.engine.encoder.graph import OPSET, Graph, Node
from fusedx.engine.errors import UnavailableError

_PAIR = (qdq.QUANTIZE, qdq.DEQUANTIZE)


def quantize_trunk(trunk: Graph, samples: list[np.ndarray], shape: tuple[int, ...]) -> Graph:
    """A trunk of one input and one output, quantised.

    samples: float32 arrays of ``shape``, what the trunk reads for each calibration image.
    Raises UnavailableError where NNCF cannot run.
    """
    try:
        import nncf
        import nncf.quantization.advanced_parameters as advanced
    except ImportError as error:
        raise UnavailableError(f"an int8 encoder needs NNCF: pip install 'fusedx[quantize]' ({error})") from None
    heavy, rest = linear_products(trunk)
    transformer = any(node.op == "LayerNormalization" for node in rest)
    settings = advanced.AdvancedQuantizationParameters(overflow_fix=advanced.OverflowFix.ENABLE, disable_bias_correction=True)
    with _quiet(nncf):
        model = nncf.quantize(
            _to_onnx(trunk, shape),
            nncf.Dataset([{trunk.inputs[0]: sample} for sample in samples]),
            subset_size=len(samples),
            target_device=nncf.TargetDevice.CPU,
            preset=nncf.QuantizationPreset.PERFORMANCE,
            ignored_scope=nncf.IgnoredScope(names=[node.outputs[0] for node in rest]) if transformer else None,
            advanced_parameters=settings,
        )
    return _from_onnx(model, trunk)


@contextmanager
def _quiet(nncf: Any) -> Iterator[None]:
    """NNCF reports to standard output; here only what goes wrong is of interest."""
    log = logging.getLogger("nncf")
    before, disabled = log.level, nncf.common.logging.track_progress
    nncf.set_log_level(logging.ERROR)
    try:
        yield
    finally:
        nncf.set_log_level(before or logging.INFO)
    del disabled


def _to_onnx(trunk: Graph, shape: tuple[int, ...]) -> Any:
    """ModelProto, weights inside; node names are the names of what they make."""
    from onnx import TensorProto, helper, numpy_helper, shape_inference

    nodes = [helper.make_node(n.op, n.inputs, n.outputs, name=n.outputs[0], **n.attributes) for n in trunk.nodes]
    proto = helper.make_graph(
        nodes,
        "trunk",
        [helper.make_tensor_value_info(trunk.inputs[0], TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(trunk.outputs[0], TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in trunk.constants.items()],
    )
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    return shape_inference.infer_shapes(model)


def _from_onnx(model: Any, trunk: Graph) -> Graph:
    """The quantised nodes and their constants, under names of the values that they quantise."""
    from onnx import helper, numpy_helper

    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    original = {node.outputs[0]: node for node in trunk.nodes}
    out = Graph(list(trunk.inputs), list(trunk.outputs))
    for proto in model.graph.node:
        inputs, (output,) = tuple(proto.input), tuple(proto.output)
        if proto.op_type not in _PAIR:
            out.nodes.append(Node(proto.op_type, inputs, (output,), original[proto.name].attributes))
            continue
        given = {a.name: helper.get_attribute_value(a) for a in proto.attribute}
        scale, zero = arrays[inputs[1]], arrays[inputs[2]]
        if proto.op_type == qdq.QUANTIZE:
            attributes: dict[str, object] = {}
        else:
            axis = int(given.get("axis", 1))
            weight = arrays.get(inputs[0])
            attributes = {"axis": axis % weight.ndim if weight is not None else 1}
            if weight is not None and not scale.ndim:  # one scale for all of a weight's channels
                n = weight.shape[attributes["axis"]]  # type: ignore[index]
                arrays[inputs[1]], arrays[inputs[2]] = np.full(n, scale), np.full(n, zero)
        out.nodes.append(Node(proto.op_type, inputs, (output,), attributes))
    used = {name for node in out.nodes for name in node.inputs}
    out.constants = {name: np.ascontiguousarray(array) for name, array in arrays.items() if name in used}
    return out
