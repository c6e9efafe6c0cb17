"""What the typed graphs compute on golden cases, against the float64 arrays of the original authors' code."""

from __future__ import annotations

import golden_encoder
import numpy as np
import onnxruntime
import pytest
from typed_emulator import Emulator

from fusedx import golden
from fusedx.engine.encoder import onnx_file
from fusedx.engine.encoder.tensorrt.check import CHOSEN, CLEAR, TOLERANCE, region_margins
from fusedx.engine.encoder.tensorrt.typed import OPSET, typed

#: Relative error over a case (Euclidean norms).  fp32: the CPU engine's.  Half precision: about twice the worst found, which is
#: 1.0e-3 for fp16 (saliency and attention) and 8e-3 for bf16 (attention).
BOUNDS = {"fp32": 1e-5, "fp16": 2e-3, "bf16": 1.6e-2}


@pytest.fixture(scope="module", params=["v1-small", "v2-small", "v1-isic"])
def case(request):
    """(case, float32 graph); v1-isic for its 6144 features."""
    return golden.load(golden_encoder.GOLDEN / f"{request.param}.json"), golden_encoder.build(request.param)


def errors(out: dict[str, np.ndarray], expected: dict[str, np.ndarray], precision: str) -> dict[str, float]:
    """By output.  An image whose regions come out otherwise must be a near tie, and counts for what precedes the choice only."""
    same = (out["patch_locations"] == expected["patch_locations"]).all(axis=(1, 2))
    assert (region_margins(expected["saliency"])[~same] < CLEAR[precision]).all() and same.any()
    floats = [name for name in out if name in expected and name != "patch_locations"]
    assert len(floats) >= 7
    found = {}
    for name in floats:
        rows = same if name in CHOSEN else np.full(len(same), True)
        found[name] = float(np.linalg.norm((out[name] - expected[name])[rows]) / np.linalg.norm(expected[name][rows]))
    return found


@pytest.mark.parametrize("precision", BOUNDS)
def test_error_against_float64(precision, case):
    expected, graph = case
    found = errors(Emulator(typed(graph, precision)).run(expected.x), expected.expected, precision)
    assert max(found.values()) < BOUNDS[precision] < TOLERANCE[precision], found
    if precision != "fp32":  # half precision was really used
        assert found["patch_attention"] > 1e-5


def test_onnx_runtime_computes_the_fp16_file(case, tmp_path):
    """A runtime that had no part in writing the file; on CPUs it computes float16 convolutions in float32 and rounds."""
    expected, graph = case
    if expected.name == "v1-isic":
        pytest.skip("the small cases have the same operators")
    image = onnx_types(graph)
    onnx_file.write(typed(graph, "fp16"), tmp_path / "encoder.onnx", image, 224, OPSET)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(str(tmp_path / "encoder.onnx"), options, providers=["CPUExecutionProvider"])
    out = dict(zip(graph.outputs, session.run(graph.outputs, {"image": expected.x}), strict=True))
    assert all(array.dtype == (np.int64 if name == "patch_locations" else np.float32) for name, array in out.items())
    found = errors(out, expected.expected, "fp16")
    assert max(found.values()) < BOUNDS["fp16"], found


def onnx_types(graph):
    """Shapes are for readers; the batch and the rest stay symbolic here."""
    ranks = {"saliency": 4, "patch_locations": 3, "roi_features": 3}
    return {
        name: (tuple(f"{name}_{i}" for i in range(ranks.get(name, 2))), np.int64 if name == "patch_locations" else np.float32)
        for name in graph.outputs
    }
