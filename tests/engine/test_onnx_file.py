"""encoder.onnx: read back it is the graph that was written; anything that fusedx does not write is refused."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import AttributeProto, TensorProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "compiler"))
import tiny  # noqa: E402
from fusedx.compiler import checkpoint  # noqa: E402
from fusedx.engine.encoder import network, onnx_file  # noqa: E402
from fusedx.engine.encoder.graph import Graph  # noqa: E402
from fusedx.engine.errors import ModelFormatError  # noqa: E402

FUZZ = settings(derandomize=True, max_examples=250, deadline=None, database=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> dict[str, tuple[Graph, Path]]:
    """Graph as built, and where it was written, by family."""
    out = {}
    for name, source in (("v1", tiny.write_v1), ("v2", lambda folder: tiny.write_v2(folder / "last.ckpt"))):
        folder = tmp_path_factory.mktemp(name)
        ckpt = checkpoint.read(source(folder))
        graph = network.build(ckpt.network, ckpt.prior, ckpt.model)
        onnx_file.write(graph, folder / "encoder.onnx", network.output_shapes(ckpt.network), 224)
        out[name] = graph, folder / "encoder.onnx"
    return out


@pytest.fixture
def proto(built, tmp_path):
    """The v1 model as a message that a test changes, and how to write and read it."""
    path = built["v1"][1]
    (tmp_path / "encoder.onnx.data").symlink_to(onnx_file.data_file(path))

    def read(model: onnx.ModelProto | bytes):
        raw = model if isinstance(model, bytes) else model.SerializeToString()
        (tmp_path / "encoder.onnx").write_bytes(raw)
        return onnx_file.read(tmp_path / "encoder.onnx")

    return onnx.load(path, load_external_data=False), read


@pytest.mark.parametrize("family", ["v1", "v2"])
def test_round_trip(family, built):
    graph, path = built[family]
    back = onnx_file.read(path)
    assert (back.inputs, back.outputs) == (graph.inputs, graph.outputs)
    assert len(back.nodes) == len(graph.nodes)
    for ours, theirs in zip(graph.nodes, back.nodes, strict=True):
        expected = {k: float(np.float32(v)) if isinstance(v, float) else v for k, v in ours.attributes.items()}
        assert (ours.op, ours.inputs, ours.outputs, expected) == (theirs.op, theirs.inputs, theirs.outputs, theirs.attributes)
    assert list(back.constants) == list(graph.constants)
    for name, array in graph.constants.items():
        assert back.constants[name].dtype == array.dtype and back.constants[name].shape == array.shape
        assert back.constants[name].tobytes() == array.tobytes(), name


@pytest.mark.parametrize("family", ["v1", "v2"])
def test_onnx_reads_the_same(family, built):
    graph, path = built[family]
    model = onnx.load(path)
    assert {t.name for t in model.graph.initializer} == set(graph.constants)
    for tensor in model.graph.initializer:
        assert numpy_helper.to_array(tensor).tobytes() == graph.constants[tensor.name].tobytes()


def test_large_constants_are_views_of_the_file_and_aligned(built):
    back = onnx_file.read(built["v2"][1])
    large = [a for a in back.constants.values() if a.nbytes >= 1024 and a.dtype == np.float32]
    assert large and not any(a.flags.writeable or a.flags.owndata for a in large)
    assert all(a.flags.aligned for a in large)


def external(model: onnx.ModelProto) -> TensorProto:
    return next(t for t in model.graph.initializer if t.data_location == TensorProto.EXTERNAL)


def pair(tensor: TensorProto, key: str):
    return next(e for e in tensor.external_data if e.key == key)


@pytest.mark.parametrize(
    "location",
    ["../../etc/passwd", "/etc/passwd", "encoder.onnx", "", "./encoder.onnx.data", "x/../encoder.onnx.data", "encoder.onnx.data\0"],
)
def test_weights_elsewhere(location, proto):
    model, read = proto
    pair(external(model), "location").value = location
    with pytest.raises(ModelFormatError, match="weights lie in"):
        read(model)


@pytest.mark.parametrize("key", ["offset", "length"])
@pytest.mark.parametrize(
    "value", ["-1", "-4096", "1", "4097", str(1 << 40), str(1 << 70), "9" * 5000, "", " 0", "0x10", "1_000", "1e3", "\u0663", "nan", "None"]
)
def test_weights_outside(key, value, proto):
    model, read = proto
    pair(external(model), key).value = value
    with pytest.raises(ModelFormatError):
        read(model)


def change_external(how: str):
    def change(model):
        t = external(model)
        if how == "second location":
            t.external_data.add(key="location", value="../../etc/passwd")
        elif how == "checksum":
            t.external_data.add(key="checksum", value="0")
        elif how == "no offset":
            t.external_data.remove(pair(t, "offset"))
        elif how == "inline too":
            t.raw_data = b"\0" * 4
        elif how == "not marked":
            t.ClearField("data_location")
        elif how == "marked, but inline":
            inline = next(i for i in model.graph.initializer if i.data_location != TensorProto.EXTERNAL)
            inline.data_location = TensorProto.EXTERNAL
        elif how == "float_data":
            t.float_data.append(1.0)
        elif how == "negative dimension":
            t.dims[0] = -1
        elif how == "huge dimension":
            t.dims[0] = 1 << 62
        elif how == "zero dimension":
            t.dims[0] = 0
        elif how == "dtype":
            t.data_type = TensorProto.STRING
        elif how == "double":
            t.data_type = TensorProto.DOUBLE
        elif how == "segment":
            t.segment.begin = 1
        elif how == "name of another":
            t.name = next(i.name for i in model.graph.initializer if i.name != t.name)
        elif how == "no name":
            t.ClearField("name")

    return change


def node(op: str):
    return lambda model: next(n for n in model.graph.node if n.op_type == op)


def attribute(op: str, name: str, value):
    def change(model):
        n = node(op)(model)
        kept = [a for a in n.attribute if a.name != name]
        n.ClearField("attribute")
        n.attribute.extend(kept)
        if value is not None:
            n.attribute.append(helper.make_attribute(name, value))

    return change



def gather(index: np.ndarray):
    def change(model):
        model.graph.initializer.append(numpy_helper.from_array(index, "place_of_choice"))
        node("Gather")(model).input[1] = "place_of_choice"

    return change


CHANGES = {
    **{f"tensor: {how}": change_external(how) for how in (
        "second location", "checksum", "no offset", "inline too", "not marked", "marked, but inline", "float_data", "negative dimension",
        "huge dimension", "zero dimension", "dtype", "double", "segment", "name of another", "no name",
    )},
    "function": lambda m: m.functions.add(name="f", domain="d"),
    "training": lambda m: m.training_info.add(),
    "metadata": lambda m: m.metadata_props.add(key="a", value="b"),
    "domain": lambda m: setattr(m, "domain", "x"),
    "no opset": lambda m: m.ClearField("opset_import"),
    "other opset": lambda m: setattr(m.opset_import[0], "version", 99),
    "second opset": lambda m: m.opset_import.add(domain="com.evil", version=1),
    "other domain": lambda m: setattr(m.opset_import[0], "domain", "com.evil"),
    "sparse": lambda m: m.graph.sparse_initializer.add(),
    "no graph": lambda m: m.ClearField("graph"),
    "no input": lambda m: m.graph.ClearField("input"),
    "second input": lambda m: m.graph.input.append(copy.deepcopy(m.graph.input[0])),
    "renamed input": lambda m: setattr(m.graph.input[0], "name", "x"),
    "no output": lambda m: m.graph.ClearField("output"),
    "output twice": lambda m: m.graph.output.append(copy.deepcopy(m.graph.output[0])),
    "unknown output": lambda m: setattr(m.graph.output[0], "name", "nothing"),
    "operator": lambda m: setattr(m.graph.node[0], "op_type", "If"),
    "loop": lambda m: setattr(m.graph.node[0], "op_type", "Loop"),
    "node domain": lambda m: setattr(m.graph.node[0], "domain", "com.evil"),
    "node without operator": lambda m: m.graph.node[0].ClearField("op_type"),
    "node without output": lambda m: m.graph.node[0].ClearField("output"),
    "two outputs": lambda m: m.graph.node[0].output.append("y"),
    "one output twice": lambda m: m.graph.node[1].output.__setitem__(0, m.graph.node[0].output[0]),
    "output over a constant": lambda m: m.graph.node[0].output.__setitem__(0, m.graph.initializer[0].name),
    "reads itself": lambda m: m.graph.node[0].input.__setitem__(0, m.graph.node[0].output[0]),
    "reads nothing": lambda m: m.graph.node[0].input.__setitem__(0, "nothing"),
    "optional input": lambda m: m.graph.node[0].input.__setitem__(0, ""),
    "too many inputs": lambda m: m.graph.node[0].input.extend(["image"] * 9),
    "wrong order": lambda m: m.graph.node.insert(0, copy.deepcopy(m.graph.node[-1])),
    "subgraph": lambda m: m.graph.node[0].attribute.add(name="body", type=AttributeProto.GRAPH),
    "text attribute": attribute("Conv", "auto_pad", "SAME_UPPER"),
    "group": attribute("Conv", "group", 3),
    "no strides": attribute("Conv", "strides", None),
    "stride 0": attribute("Conv", "strides", [0, 0]),
    "unequal strides": attribute("Conv", "strides", [1, 2]),
    "huge stride": attribute("Conv", "strides", [1 << 62, 1 << 62]),
    "negative pads": attribute("Conv", "pads", [-1] * 4),
    "huge pads": attribute("MaxPool", "pads", [1 << 30] * 4),
    "kernel of three": attribute("MaxPool", "kernel_shape", [3, 3, 3]),
    "perm twice": attribute("Transpose", "perm", [0, 0, 1]),
    "perm far": attribute("Transpose", "perm", [0, 99]),
    "axis far": attribute("Softmax", "axis", 99),
    "axis as float": attribute("Softmax", "axis", 1.5),
    "cast to text": attribute("Cast", "to", 8),
    "cast nowhere": attribute("Cast", "to", None),
    "attribute twice": lambda m: node("Conv")(m).attribute.append(copy.deepcopy(node("Conv")(m).attribute[0])),
    "attribute without name": lambda m: node("Conv")(m).attribute[0].ClearField("name"),
    "attribute without type": lambda m: node("Conv")(m).attribute[0].ClearField("type"),
    "attribute of two kinds": lambda m: setattr(node("Conv")(m).attribute[0], "f", 1.0),
    "gather before": gather(np.array(-1)),
    "gather nothing": gather(np.zeros(0, np.int64)),
    "gather at a float": gather(np.array(1.0, np.float32)),
    "gather computed": lambda m: node("Gather")(m).input.__setitem__(1, "image"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_what_fusedx_does_not_write(name, proto):
    model, read = proto
    before = model.SerializeToString()
    CHANGES[name](model)
    assert model.SerializeToString() != before
    with pytest.raises(ModelFormatError) as caught:
        read(model)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("epsilon", [0.0, -1.0, float("nan"), float("inf"), 2])
def test_epsilon(epsilon, built, tmp_path):
    model = onnx.load(built["v2"][1], load_external_data=False)
    attribute("LayerNormalization", "epsilon", epsilon)(model)
    (tmp_path / "encoder.onnx").write_bytes(model.SerializeToString())
    (tmp_path / "encoder.onnx.data").symlink_to(onnx_file.data_file(built["v2"][1]))
    with pytest.raises(ModelFormatError, match="epsilon"):
        onnx_file.read(tmp_path / "encoder.onnx")


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"\0", b"\xff" * 20, b"\x3a", b"\x3a\x05ab", b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x38\x01", b"\x3a\x00\x3a\x00",
        b"\x3b", b"\x3c", b"\x3e\0", b"\x3f\0", b"\x39" + b"\0" * 8, b"\x80" * 11, b"\x08" + b"\xff" * 9 + b"\x7f", b"\x3a\x02\x0a\x01",
    ],
)  # fmt: skip
def test_bytes_that_are_no_message(raw, proto):
    with pytest.raises(ModelFormatError):
        proto[1](raw)


def test_every_truncation_and_missing_files(proto, built, tmp_path):
    model, read = proto
    raw = model.SerializeToString()
    for cut in [*range(0, 200), *range(200, len(raw), 997), len(raw) - 1]:
        with pytest.raises(ModelFormatError):
            read(raw[:cut])
    data = onnx_file.data_file(built["v1"][1]).read_bytes()
    (tmp_path / "encoder.onnx").write_bytes(raw)
    (tmp_path / "encoder.onnx.data").unlink()
    with pytest.raises(ModelFormatError, match="cannot be read"):
        onnx_file.read(tmp_path / "encoder.onnx")
    for size in (0, 1, 4096, len(data) // 2, len(data) - 1):
        (tmp_path / "encoder.onnx.data").write_bytes(data[:size])
        with pytest.raises(ModelFormatError):
            onnx_file.read(tmp_path / "encoder.onnx")
    with pytest.raises(ModelFormatError):
        onnx_file.read(tmp_path / "none.onnx")


def test_huge_file_is_not_read(tmp_path):
    with (tmp_path / "encoder.onnx").open("wb") as f:
        f.truncate(1 << 40)
    with pytest.raises(ModelFormatError, match="more than"):
        onnx_file.read(tmp_path / "encoder.onnx")


def test_booleans_are_zero_or_one(proto):
    model, read = proto
    tensor = next(t for t in model.graph.initializer if t.data_type == TensorProto.BOOL)
    if tensor.raw_data:
        tensor.raw_data = b"\x07" + tensor.raw_data[1:]
        with pytest.raises(ModelFormatError, match="neither true nor false"):
            read(model)


@FUZZ
@given(edits=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 3), st.binary(max_size=4)), min_size=1, max_size=3))
def test_mutated_bytes(edits, built, tmp_path_factory):
    """A graph that passes every check, or ModelFormatError."""
    folder = tmp_path_factory.getbasetemp() / "onnx-fuzz"
    source = built["v1"][1]
    if not folder.exists():
        folder.mkdir()
        (folder / "encoder.onnx.data").symlink_to(onnx_file.data_file(source))
    raw = bytearray(source.read_bytes())
    for at, length, new in edits:
        at %= len(raw)
        raw[at : at + length] = new
    (folder / "encoder.onnx").write_bytes(raw)
    try:
        graph = onnx_file.read(folder / "encoder.onnx")
    except ModelFormatError:
        return
    assert isinstance(graph, Graph) and graph.inputs == ["image"]
    assert all(isinstance(a, np.ndarray) for a in graph.constants.values())
