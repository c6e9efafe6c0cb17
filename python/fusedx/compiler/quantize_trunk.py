"""One trunk through NNCF (Neural Network Compression Framework): float32 graph and sample inputs in, QuantizeLinear pairs out.

NNCF's post-training quantisation decides where values are quantised and measures their ranges; what it returns is read back into the
graph's own form and written by onnx_file.py like everything else.  Its settings here, each for a reason:

    weights in 7 bits    Processors without VNNI add two products of int8 and uint8 in 16 bits, which saturates silently when weights
                         use all 8 bits; with half the range (overflow_fix) every processor computes the same sums.
    no bias correction   It made features of the demonstration model six times worse (4.5e-2 to 2.7e-1), measured on held-out images.
    ranges of extremes   From the smallest to the largest value that any calibration image has: NNCF's average of the images' extremes
                         clips the unusual ones, and the worst held-out image of that model was then twice as far off.
    float between        In a ViT only the products with weights are quantised: LayerNorm, softmax, GELU, the residual stream and the
                         products of queries, keys and values stay float32.
"""

from __future__ import annotations

import contextlib
import importlib
import io
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


def require_nncf() -> Any:
    """The module; UnavailableError where it, or ONNX Runtime, by which it runs ONNX graphs, is missing."""
    try:
        importlib.import_module("onnxruntime")
        return importlib.import_module("nncf")
    except ImportError as error:
        raise UnavailableError(f"an int8 encoder needs NNCF and ONNX Runtime: pip install 'fusedx[quantize]' ({error})") from None


def quantize_trunk(trunk: Graph, prefix: str, samples: list[np.ndarray]) -> Graph:
    """A trunk of one input and one output, quantised.

    prefix: of the names of its constants, and of those that are added.  samples: float32 arrays of one shape, what the trunk reads
    for each calibration image.
    Raises UnavailableError where NNCF cannot run.
    """
    nncf = require_nncf()
    advanced = importlib.import_module("nncf.quantization.advanced_parameters")
    heavy, rest = linear_products(trunk)
    transformer = any(node.op == "LayerNormalization" for node in rest)
    whole = importlib.import_module("nncf.quantization.range_estimator").RangeEstimatorParametersSet.MINMAX
    settings = advanced.AdvancedQuantizationParameters(
        overflow_fix=advanced.OverflowFix.ENABLE, disable_bias_correction=True, activations_range_estimator_params=whole
    )
    with _quiet(nncf):
        model = nncf.quantize(
            _to_onnx(trunk, samples[0].shape),
            nncf.Dataset([{trunk.inputs[0]: sample} for sample in samples]),
            subset_size=len(samples),
            target_device=nncf.TargetDevice.CPU,
            preset=nncf.QuantizationPreset.PERFORMANCE,
            ignored_scope=nncf.IgnoredScope(names=[node.outputs[0] for node in rest]) if transformer else None,
            advanced_parameters=settings,
        )
    return _from_onnx(model, trunk, prefix)


@contextmanager
def _quiet(nncf: Any) -> Iterator[None]:
    """NNCF logs and draws progress bars on standard output; here only its errors are of interest."""
    before = logging.getLogger("nncf").level
    nncf.set_log_level(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        nncf.set_log_level(before or logging.INFO)


def _to_onnx(trunk: Graph, shape: tuple[int, ...]) -> Any:
    """ModelProto, weights inside; node names are the names of what they make."""
    from onnx import TensorProto, helper, numpy_helper, shape_inference

    nodes = []
    for n in trunk.nodes:
        attributes: dict[str, Any] = dict(n.attributes)
        nodes.append(helper.make_node(n.op, n.inputs, n.outputs, name=n.outputs[0], **attributes))
    proto = helper.make_graph(
        nodes,
        "trunk",
        [helper.make_tensor_value_info(trunk.inputs[0], TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(trunk.outputs[0], TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in trunk.constants.items()],
    )
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    return shape_inference.infer_shapes(model)


def _from_onnx(model: Any, trunk: Graph, prefix: str) -> Graph:
    """What NNCF returned, as a graph: its pairs in the form of engine/encoder/qdq.py, all else as it was."""
    from onnx import numpy_helper

    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    original = {node.outputs[0]: node for node in trunk.nodes}
    out = Graph(list(trunk.inputs), list(trunk.outputs), constants=dict(trunk.constants))
    # NNCF's name of a quantised value (q_output_NAME_1) -> ours, with the prefix, as two trunks read the image.
    names: dict[str, str] = {}
    for proto in model.graph.node:
        (made,) = proto.output
        if proto.op_type in _PAIR:
            kind = "quantized" if proto.op_type == qdq.QUANTIZE else "dequantized"
            value = made.removeprefix("q_output_").removeprefix("dq_output_").removesuffix("_1")
            names[made] = f"{prefix}{value.removeprefix(prefix)}.{kind}"
            out.nodes.append(_pair(proto, arrays, names, out.constants))
        else:
            inputs = tuple(names.get(name, name) for name in proto.input)
            out.nodes.append(Node(proto.op_type, inputs, (made,), original[made].attributes))
    used = {name for node in out.nodes for name in node.inputs}
    out.constants = {name: array for name, array in out.constants.items() if name in used}
    return out


def _pair(proto: Any, arrays: dict[str, np.ndarray], names: dict[str, str], constants: dict[str, np.ndarray]) -> Node:
    """One of NNCF's two operators; its constants are added under the name of what it makes."""
    source, scale, zero = proto.input
    name = names[proto.output[0]]
    base = name.rpartition(".")[0]
    weight = arrays.get(source)
    axis = next((int(a.i) for a in proto.attribute if a.name == "axis"), 1)
    axis = axis % weight.ndim if weight is not None else axis
    shape = () if weight is None else (weight.shape[axis],)
    # A scale for a whole value has shape [1] in NNCF's graphs; a weight has one scale an output even where NNCF chose one for all.
    for kind, given in (("scale", arrays[scale]), ("zero", arrays[zero])):
        constants[f"{base}.{kind}"] = np.array(np.broadcast_to(given.reshape(-1 if shape else ()), shape))
    if weight is not None:
        constants[f"{base}.int8"] = weight
    inputs = (f"{base}.int8" if weight is not None else names.get(source, source), f"{base}.scale", f"{base}.zero")
    return Node(proto.op_type, inputs, (name,), {} if proto.op_type == qdq.QUANTIZE else {"axis": axis})
