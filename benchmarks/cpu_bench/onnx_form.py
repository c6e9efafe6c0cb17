"""The denoiser as an ONNX model: what ONNX Runtime and OpenVINO are given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from cpu_bench.problem import Problem

OPSET = 21


def model(problem: Problem, *, fp16: bool = False) -> onnx.ModelProto:
    """Layers 1 to 4: y [R,C], scale and shift of each layer [F] -> eps [R,C], float32 outside.

    The wide weights are [inputs, outputs], as MatMul takes them.  The prior's half of layer 1 and the feature are constants.
    """
    tables, dtype = problem.tables, np.float16 if fp16 else np.float32
    f, c = tables.weight_y.shape
    kind = TensorProto.FLOAT16 if fp16 else TensorProto.FLOAT
    constants = {
        "w1": tables.weight_y.T, "w2": tables.weight2.T, "w3": tables.weight3.T, "w4": tables.weight4.T,
        "b4": tables.bias4, "constant": problem.constant, "feature": problem.feature,
    }  # fmt: skip
    nodes = [helper.make_node("Cast", ["y"], ["u0"], to=kind)] if fp16 else [helper.make_node("Identity", ["y"], ["u0"])]
    for k in (1, 2, 3):
        nodes.append(helper.make_node("MatMul", [f"u{k - 1}", f"w{k}"], [f"m{k}"]))
        product = f"m{k}"
        if k == 1:
            nodes.append(helper.make_node("Add", ["m1", "constant"], ["n1"]))
            product = "n1"
        nodes.append(helper.make_node("Mul", [product, f"scale{k}"], [f"s{k}"]))
        nodes.append(helper.make_node("Add", [f"s{k}", f"shift{k}"], [f"x{k}"]))
        nodes.append(helper.make_node("Softplus", [f"x{k}"], ["p1" if k == 1 else f"u{k}"]))
        if k == 1:
            nodes.append(helper.make_node("Mul", ["p1", "feature"], ["u1"]))
    nodes.append(helper.make_node("MatMul", ["u3", "w4"], ["m4"]))
    nodes.append(helper.make_node("Add", ["m4", "b4"], ["eps16" if fp16 else "eps"]))
    if fp16:
        nodes.append(helper.make_node("Cast", ["eps16"], ["eps"], to=TensorProto.FLOAT))
    names = [f"{table}{k}" for k in (1, 2, 3) for table in ("scale", "shift")]
    inputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [problem.rows, c])]
    inputs += [helper.make_tensor_value_info(name, kind, [f]) for name in names]
    outputs = [helper.make_tensor_value_info("eps", TensorProto.FLOAT, [problem.rows, c])]
    initializers = [numpy_helper.from_array(np.ascontiguousarray(array, dtype), name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "denoiser", inputs, outputs, initializers)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    made.ir_version = 10
    return made


def save(problem: Problem, path: Path, *, fp16: bool = False) -> Path:
    """Write :func:`model` and return its path."""
    onnx.save(model(problem, fp16=fp16), path)
    return path


def step_inputs(problem: Problem, dtype: type[np.floating] = np.float32) -> dict[int, dict[str, np.ndarray]]:
    """Row of the tables -> scale and shift of each layer, by the model's input names."""
    tables = problem.tables
    return {
        t: {f"{kind}{k}": np.array(getattr(tables, f"{kind}{k}")[t], dtype) for k in (1, 2, 3) for kind in ("scale", "shift")}
        for t in problem.order
    }
