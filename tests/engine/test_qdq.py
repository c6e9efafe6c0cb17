"""QuantizeLinear and DequantizeLinear: the arithmetic, the same in every runtime, and what is refused of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fusedx.engine.encoder import onnx_file, open_encoder, qdq
from fusedx.engine.encoder.graph import Graph, Node
from fusedx.engine.errors import ModelFormatError

F, I8, U8 = np.float32, np.int8, np.uint8
CONV = {"kernel_shape": [1, 1], "strides": [32, 32], "pads": [0] * 4}


def graph() -> Graph:
    """image -> int8 -> 1x1 convolution of 4 channels with int8 weights -> its mean, under a published name."""
    rng = np.random.default_rng(0)
    constants = {
        "x.scale": np.array(0.02, F), "x.zero": np.array(3, I8),
        "w.int8": rng.integers(-64, 65, (4, 3, 1, 1)).astype(I8), "w.scale": np.array([0.5, 0.25, 1e-3, 2], F), "w.zero": np.zeros(4, I8),
        "padding": np.zeros(1024, F),  # so that the data file is not empty
    }  # fmt: skip
    nodes = [
        Node(qdq.QUANTIZE, ("image", "x.scale", "x.zero"), ("x.q",), {}),
        Node(qdq.DEQUANTIZE, ("x.q", "x.scale", "x.zero"), ("x",), {"axis": 1}),
        Node(qdq.DEQUANTIZE, ("w.int8", "w.scale", "w.zero"), ("w",), {"axis": 0}),
        Node("Conv", ("x", "w"), ("y",), dict(CONV)),
        Node("ReduceMean", ("y",), ("mean",), {"axes": [2, 3], "keepdims": 0}),
        Node("Identity", ("mean",), ("prior",), {}),
    ]
    return Graph(["image"], ["prior"], nodes, constants)


def write(made: Graph, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Whatever it is; the onnx package would refuse some of it before we can."""
    monkeypatch.setattr(onnx.checker, "check_model", lambda path: None)
    onnx_file.write(made, folder / "encoder.onnx", {"prior": (("batch", 4), F)}, 224)
    return folder / "encoder.onnx"


@pytest.mark.parametrize("runtime", ["reference", "torch", "onnxruntime", "openvino"])
def test_runtimes(runtime, tmp_path, monkeypatch):
    if runtime not in ("reference", "openvino"):
        pytest.importorskip(runtime)
    path = write(graph(), tmp_path, monkeypatch)
    image = np.random.default_rng(1).normal(size=(2, 3, 224, 224)).astype(F)
    image[0, :, 0, 0] = (9, -9, 0.07)  # beyond both ends; 0.07 / 0.02 is 3.5 in float32, a tie or next to it
    c = graph().constants
    q = np.clip(np.rint(image[:, :, ::32, ::32].astype(np.float64) / c["x.scale"]) + 3, -128, 127) - 3
    y = np.einsum("oc,bchw->bohw", c["w.int8"][:, :, 0, 0].astype(float) * c["w.scale"][:, None].astype(float), q * float(c["x.scale"]))
    got = open_encoder(runtime, path).run(image)["prior"]
    assert np.abs(got - y.mean(axis=(2, 3))).max() < 2e-3 * np.abs(y).max()


def constant(name: str, value: np.ndarray | None) -> Callable[[Graph], object]:
    return lambda g: g.constants.__setitem__(name, value) if value is not None else g.constants.pop(name)


def node(i: int, **changes: object) -> Callable[[Graph], object]:
    def change(g: Graph) -> None:
        old = g.nodes[i]
        fields = {"op": old.op, "inputs": old.inputs, "outputs": old.outputs, "attributes": old.attributes}
        g.nodes[i] = Node(**(fields | changes))  # type: ignore[arg-type]

    return change


def both(*changes: Callable[[Graph], object]) -> Callable[[Graph], object]:
    return lambda g: [change(g) for change in changes]


NAN, INF, TINY = float("nan"), float("inf"), 1e-42
CHANGES = {
    **{f"scale {v}": constant("x.scale", np.array(v, F)) for v in (NAN, INF, -INF, 0, -0.0, -1, TINY, 3e38)},
    **{f"weight scale {v}": constant("w.scale", np.array([1, v, 1, 1], F)) for v in (NAN, INF, 0, -1, TINY)},
    "scale of double": constant("x.scale", np.array(0.1, np.float64)),
    "scale of int64": constant("x.scale", np.array(1, np.int64)),
    "scale of shape 1": constant("x.scale", np.ones(1, F)),
    "scale for each channel of a value": both(constant("x.scale", np.ones(3, F)), constant("x.zero", np.zeros(3, I8))),
    "empty scale": constant("x.scale", np.ones(0, F)),
    "scale computed": node(0, inputs=("image", "image", "x.zero")),
    "scale missing": constant("x.scale", None),
    "zero of int64": constant("x.zero", np.array(0, np.int64)),
    "zero of float": constant("x.zero", np.array(0, F)),
    "zero of bool": constant("x.zero", np.array(False)),
    "zero of shape 1": constant("x.zero", np.zeros(1, I8)),
    "weight zero not 0": constant("w.zero", np.array([0, 1, 0, 0], I8)),
    "weight zero of uint8": constant("w.zero", np.zeros(4, U8)),
    "weight zero of another length": constant("w.zero", np.zeros(3, I8)),
    "weight scale of another length": constant("w.scale", np.ones(3, F)),
    "one weight scale": both(constant("w.scale", np.array(1, F)), constant("w.zero", np.array(0, I8))),
    "weight of uint8": constant("w.int8", np.zeros((4, 3, 1, 1), U8)),
    "weight of float": constant("w.int8", np.zeros((4, 3, 1, 1), F)),
    "weight of int64": constant("w.int8", np.zeros((4, 3, 1, 1), np.int64)),
    "weight axis 1": node(2, attributes={"axis": 1}),
    "weight axis 4": node(2, attributes={"axis": 4}),
    "weight axis -1": node(2, attributes={"axis": -1}),
    "weight axis far": node(2, attributes={"axis": 1 << 40}),
    "no axis": node(1, attributes={}),
    "axis of a quantiser": node(0, attributes={"axis": 1}),
    "block size": node(2, attributes={"axis": 0, "block_size": 1}),
    "two inputs": node(0, inputs=("image", "x.scale")),
    "dequantised by another scale": both(constant("other", np.array(1, F)), node(1, inputs=("x.q", "other", "x.zero"))),
    "dequantised by another zero": both(constant("other", np.array(1, I8)), node(1, inputs=("x.q", "x.scale", "other"))),
    "dequantises float": node(1, inputs=("image", "x.scale", "x.zero")),
    "quantises a constant": node(0, inputs=("padding", "x.scale", "x.zero")),
    "quantises twice": lambda g: g.nodes.insert(1, Node(qdq.QUANTIZE, ("x.q", "x.scale", "x.zero"), ("x.qq",), {})),
    "quantised and left": lambda g: g.nodes.append(Node(qdq.QUANTIZE, ("y", "x.scale", "x.zero"), ("y.q",), {})),
    "read while quantised": node(3, inputs=("x.q", "w")),
    "quantised weight read": node(3, inputs=("x", "w.int8")),
    "zero point read": node(3, inputs=("x", "w", "w.zero")),
    "output quantised": lambda g: g.outputs.__setitem__(0, "x.q"),
    "dequantised before quantised": lambda g: g.nodes.insert(0, g.nodes.pop(1)),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_refused(name, tmp_path, monkeypatch):
    made = graph()
    CHANGES[name](made)
    if made.outputs != ["prior"]:  # the writer asks for the shape of what it publishes
        with pytest.raises(ValueError, match="output .* quantised"):
            qdq.check(made)
        return
    path = write(made, tmp_path, monkeypatch)
    with pytest.raises(ModelFormatError) as caught:
        onnx_file.read(path)
    assert len(str(caught.value)) < 700


def test_accepted(tmp_path, monkeypatch):
    """What the changes above start from; also uint8 with its own zero point, and weights along their last axis."""
    made = graph()
    made.constants["x.zero"] = np.array(128, U8)
    assert qdq.is_int8(onnx_file.read(write(made, tmp_path, monkeypatch)))
    made.constants |= {"w.int8": np.zeros((3, 4), I8)}
    made.nodes[2] = Node(qdq.DEQUANTIZE, made.nodes[2].inputs, ("w",), {"axis": 1})
    onnx_file.read(write(made, tmp_path, monkeypatch))


VALUES = arrays(np.float32, (7, 5), elements=st.floats(-1e4, 1e4, width=32))


@settings(max_examples=100, deadline=None)
@given(x=VALUES, scale=st.floats(np.float32(1e-3).item(), 100, width=32), zero=st.integers(-128, 127), unsigned=st.booleans())
def test_torch_and_numpy(x, scale, zero, unsigned):
    """The same integers from the same float32 values; dequantised, at most half a step away where nothing saturates."""
    torch = pytest.importorskip("torch")
    from fusedx.engine.encoder.torch import OPERATORS

    s, z = np.array(scale, F), np.array(zero + 128, U8) if unsigned else np.array(zero, I8)
    q = qdq.quantize(x, s, z)
    assert q.dtype == z.dtype
    theirs = OPERATORS[qdq.QUANTIZE](*map(torch.from_numpy, (x, s, z)))
    assert np.array_equal(theirs.numpy(), q)
    back = qdq.dequantize(q, s, z, axis=1)
    assert np.array_equal(OPERATORS[qdq.DEQUANTIZE](theirs, *map(torch.from_numpy, (s, z)), axis=1).numpy(), back)
    limits = np.iinfo(z.dtype)
    inside = (q > limits.min) & (q < limits.max)
    assert (np.abs(back - x)[inside] <= 0.5001 * scale + 1e-3).all()
