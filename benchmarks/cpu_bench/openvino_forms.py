"""OpenVINO: its three float precisions, NNCF's weight compression and NNCF's quantisation of weights and activations."""

from __future__ import annotations

import contextlib
import io
import logging
from functools import cache
from typing import Any

import nncf
import numpy as np
import openvino

from cpu_bench import onnx_form
from cpu_bench.contender import Form, library_form
from cpu_bench.problem import Eps, Problem

LIBRARY = "OpenVINO"
_FLOAT32 = {"INFERENCE_PRECISION_HINT": "f32"}
_A_ROW = str(2**64 - 1)  # group size: all inputs of a row share the scale of its activations


def forms(threads: int) -> list[Form]:
    """All of its."""
    plain = lambda hint: (None, {"INFERENCE_PRECISION_HINT": hint})  # noqa: E731
    int8, int4 = {"mode": "INT8_SYM"}, {"mode": "INT4_SYM", "group_size": 64, "all_layers": True}
    found: list[tuple[str, str, tuple[dict[str, Any] | None, dict[str, str]]]] = [
        ("fp32", "", plain("f32")),
        ("bf16", "", plain("bf16")),
        ("fp16", "", plain("f16")),
        ("int8", "weights", (int8, _FLOAT32)),
        ("int8", "weights, activations a row", (int8, _FLOAT32 | {"DYNAMIC_QUANTIZATION_GROUP_SIZE": _A_ROW})),
        ("int8", "weights and activations, calibrated", ({}, {})),
        ("int4", "weights in groups of 64", (int4, _FLOAT32)),
        ("int4", "weights in groups of 64, activations too", (int4, _FLOAT32 | {"DYNAMIC_QUANTIZATION_GROUP_SIZE": "64"})),
    ]
    nncf.set_log_level(logging.ERROR)
    return [library_form(LIBRARY, p, how, lambda problem, s=s: _eps(problem, _model(problem, s[0]), threads, s[1])) for p, how, s in found]


def _model(problem: Problem, compression: dict[str, Any] | None) -> openvino.Model:
    model = openvino.Core().read_model(io.BytesIO(onnx_form.model(problem).SerializeToString()))
    if compression is None:
        return model
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):  # progress bars
        if not compression:
            items = list(_calibration(problem))
            return nncf.quantize(model, nncf.Dataset(items), subset_size=len(items), preset=nncf.QuantizationPreset.MIXED)
        mode = nncf.CompressWeightsMode[compression["mode"]]
        others = {key: value for key, value in compression.items() if key != "mode"}
        ignored = nncf.IgnoredScope(names=list(onnx_form.NARROW_PRODUCTS))
        return nncf.compress_weights(model, mode=mode, ignored_scope=ignored, **others)


def _calibration(problem: Problem) -> list[dict[str, np.ndarray]]:
    """Inputs as the timed steps have them, about."""
    draw, found = np.random.default_rng(0), []
    for t in range(0, problem.steps, max(1, problem.steps // 8)):
        y = (problem.prior + draw.standard_normal(problem.prior.shape)).astype(np.float32)
        found.append({"y": y, **problem.layer_tables(t)})
    return found


def _eps(problem: Problem, model: openvino.Model, threads: int, settings: dict[str, str]) -> Eps:
    base = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    request = openvino.Core().compile_model(model, "CPU", base | settings).create_infer_request()
    state = np.empty(problem.prior.shape, np.float32)
    request.set_tensor("y", openvino.Tensor(state, shared_memory=True))

    @cache
    def layer_tables(t: int) -> dict[str, openvino.Tensor]:
        return {name: openvino.Tensor(row, shared_memory=True) for name, row in problem.layer_tables(t).items()}

    def eps(y: np.ndarray, t: int) -> np.ndarray:
        state[...] = y
        for name, tensor in layer_tables(t).items():
            request.set_tensor(name, tensor)
        request.infer()
        return request.get_output_tensor(0).data

    return eps
