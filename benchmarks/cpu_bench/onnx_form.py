"""The denoiser as an ONNX model: what ONNX Runtime and OpenVINO are given."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from cpu_bench.problem import Problem

#: The wide matrices, [inputs, outputs] as MatMul takes them, and the products of the two others.
WIDE, NARROW_PRODUCTS = ("w2", "w3"), ("m1", "m4")


def model(problem: Problem) -> onnx.ModelProto:
    """y [R,C] and the tables of a step [F] -> eps [R,C], float32.  The prior's half of layer 1 and the feature are constants."""
    w = problem.tables
    f, c = w.weight_y.shape
    constants = {"w1": w.weight_y.T, "w2": w.weight2.T, "w3": w.weight3.T, "w4": w.weight4.T, "b4": w.bias4}
    constants |= {"constant": problem.constant, "feature": problem.feature}
    node = helper.make_node
    nodes = [node("MatMul", ["y", "w1"], ["m1"], "m1"), node("Add", ["m1", "constant"], ["n1"])]
    for k, product in ((1, "n1"), (2, "m2"), (3, "m3")):
        if k > 1:
            nodes.append(node("MatMul", [f"u{k - 1}", f"w{k}"], [product], product))
        nodes += [node("Mul", [product, f"scale{k}"], [f"s{k}"]), node("Add", [f"s{k}", f"shift{k}"], [f"x{k}"])]
        nodes.append(node("Softplus", [f"x{k}"], ["p1" if k == 1 else f"u{k}"]))
        if k == 1:
            nodes.append(node("Mul", ["p1", "feature"], ["u1"]))
    nodes += [node("MatMul", ["u3", "w4"], ["m4"], "m4"), node("Add", ["m4", "b4"], ["eps"])]
    inputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [problem.rows, c])]
    tables = [f"{kind}{k}" for k in (1, 2, 3) for kind in ("scale", "shift")]
    inputs += [helper.make_tensor_value_info(name, TensorProto.FLOAT, [f]) for name in tables]
    outputs = [helper.make_tensor_value_info("eps", TensorProto.FLOAT, [problem.rows, c])]
    initializers = [numpy_helper.from_array(np.ascontiguousarray(array, np.float32), name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "denoiser", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def in_blocks(made: onnx.ModelProto, bits: int, block: int) -> onnx.ModelProto:
    """The same with the wide products as ONNX Runtime's MatMulNBits: one scale for ``block`` inputs of an output, products in int8."""
    graph = made.graph
    wide = {i.name: numpy_helper.to_array(i).T for i in graph.initializer if i.name in WIDE}
    kept = [i for i in graph.initializer if i.name not in WIDE]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    half = 1 << (bits - 1)
    for name, weight in wide.items():
        n, k = weight.shape
        blocks = weight.reshape(n, -1, block)
        scale = np.maximum(np.abs(blocks).max(axis=-1), np.float32(1e-30)) / np.float32(half - 1)
        q = (np.clip(np.rint(blocks / scale[..., None]), -half, half - 1) + half).astype(np.uint8)
        if bits == 4:
            q = q[..., ::2] | q[..., 1::2] << 4
        graph.initializer.extend([numpy_helper.from_array(q, name), numpy_helper.from_array(scale, f"{name}.scale")])
        user = next(node for node in graph.node if name in node.input)
        user.op_type, user.domain = "MatMulNBits", "com.microsoft"
        user.input.append(f"{name}.scale")
        settings = {"K": k, "N": n, "bits": bits, "block_size": block, "accuracy_level": 4}
        user.attribute.extend(helper.make_attribute(key, value) for key, value in settings.items())
    made.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return made
