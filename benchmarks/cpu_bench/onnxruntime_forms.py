"""ONNX Runtime: float32, dynamic quantisation, and weights in blocks of 8 and 4 bits.  Its float16 runs in float32 on processors."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache

import numpy as np
import onnx
import onnxruntime

from cpu_bench import onnx_form
from cpu_bench.contender import Form, library_form
from cpu_bench.problem import Eps, Problem

LIBRARY = "ONNX Runtime"


def forms(threads: int) -> list[Form]:
    """All of its."""
    block = lambda bits: lambda problem: onnx_form.in_blocks(onnx_form.model(problem), bits, 64)  # noqa: E731
    models: list[tuple[str, str, Callable[[Problem], onnx.ModelProto]]] = [
        ("fp32", "", onnx_form.model),
        ("int8", "dynamic quantisation", _dynamic),
        ("int8", "weights in blocks of 64", block(8)),
        ("int4", "weights in blocks of 64", block(4)),
    ]
    return [library_form(LIBRARY, p, how, lambda problem, make=make: _eps(problem, make(problem), threads)) for p, how, make in models]


def _dynamic(problem: Problem) -> onnx.ModelProto:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it recommends a preparation that changes nothing here
    try:
        from tempfile import TemporaryDirectory

        with TemporaryDirectory() as folder:
            path = f"{folder}/model.onnx"
            narrow = list(onnx_form.NARROW_PRODUCTS)
            quantize_dynamic(onnx_form.model(problem), path, per_channel=True, weight_type=QuantType.QInt8, nodes_to_exclude=narrow)
            return onnx.load(path)
    finally:
        root.setLevel(level)


def _eps(problem: Problem, model: onnx.ModelProto, threads: int) -> Eps:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    # Its threads spin during a run, and must not spin into the next contender's.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    layer_tables = cache(problem.layer_tables)

    def eps(y: np.ndarray, t: int) -> np.ndarray:
        return session.run(None, {"y": y.astype(np.float32), **layer_tables(t)})[0]

    return eps
