"""The typed graph: which types, that every operator's operands agree, and what it is once written."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
import typed_file
from typed_emulator import Emulator

from fusedx.engine.encoder import half, onnx_file
from fusedx.engine.encoder.graph import Graph, Node
from fusedx.engine.encoder.tensorrt.build import write_typed
from fusedx.engine.encoder.tensorrt.typed import typed
from fusedx.engine.errors import ConfigError, ModelFormatError, UnavailableError

CASES = [(family, precision) for family in ("v1", "v2") for precision in ("fp32", "fp16", "bf16")]


@pytest.mark.parametrize(("family", "precision"), CASES)
def test_onnx_finds_every_type_in_order(family, precision, encoders, tmp_path):
    """The onnx package infers all types and shapes and refuses operands that do not agree, as a strongly typed network does."""
    write_typed(encoders[family], precision, tmp_path / "encoder.onnx")
    onnx.checker.check_model(str(tmp_path / "encoder.onnx"), full_check=True)
    model = onnx.load(tmp_path / "encoder.onnx", load_external_data=False)
    assert {o.type.tensor_type.elem_type for o in model.graph.output} == {onnx.TensorProto.FLOAT, onnx.TensorProto.INT64}
    assert [i.type.tensor_type.elem_type for i in model.graph.input] == [onnx.TensorProto.FLOAT]


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_missing_cast_is_found(precision, encoders, tmp_path):
    """The negative control of the test above and of the emulator."""
    write_typed(encoders["v2"], precision, tmp_path / "encoder.onnx")
    model = onnx.load(tmp_path / "encoder.onnx", load_external_data=False)
    nodes = list(model.graph.node)
    cast = next(n for n, following in zip(nodes, nodes[1:], strict=False) if n.op_type == "Cast" and ".attn" in following.name)
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            if name == cast.output[0]:
                node.input[i] = cast.input[0]
    (tmp_path / "encoder.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(Exception, match="[Tt]ype"):
        onnx.checker.check_model(str(tmp_path / "encoder.onnx"), full_check=True)
    with pytest.raises(TypeError, match="reads"):
        Emulator(typed_file.read(tmp_path / "encoder.onnx")).run(np.zeros((1, 3, 224, 224), np.float32))


@pytest.mark.parametrize(("family", "precision"), CASES)
def test_the_file_holds_the_graph(family, precision, encoders, tmp_path):
    graph = typed(onnx_file.read(encoders[family]), precision)
    write_typed(encoders[family], precision, tmp_path / "encoder.onnx")
    back = typed_file.read(tmp_path / "encoder.onnx")
    assert [(n.op, n.inputs, n.outputs) for n in back.nodes] == [(n.op, n.inputs, n.outputs) for n in graph.nodes]
    assert {n: (a.dtype, a.shape, a.tobytes()) for n, a in back.constants.items()} == {
        n: (a.dtype, a.shape, a.tobytes()) for n, a in graph.constants.items()
    }


def half_values(graph: Graph) -> set[str]:
    """Values that an operator makes in half precision, by following the types."""
    found = {n for n, a in graph.constants.items() if a.dtype in (np.float16, half.BFLOAT16)}
    for node in graph.nodes:
        if node.op == "Cast":
            found |= set(node.outputs) if node.attributes["to"] in ("float16", "bfloat16") else set()
        elif any(name in found for name in node.inputs):
            found |= set(node.outputs)
    return found


@pytest.mark.parametrize("family", ["v1", "v2"])
def test_what_runs_in_half_precision(family, encoders):
    """The products that take the time do; nothing that the choice of regions, a softmax or a logit depends on directly does."""
    plain = onnx_file.read(encoders[family])
    for precision in ("fp16", "bf16"):
        graph = typed(plain, precision)
        found = half_values(graph)
        makers = {node.outputs[0]: node for node in graph.nodes}
        by_op = Counter(makers[name].op for name in found if name in makers)
        assert set(by_op) <= {"Add", "Cast", "Conv", "Gather", "MatMul", "MaxPool", "Relu", "Reshape", "Transpose"}
        convolutions = [n for n in graph.nodes if n.op == "Conv"]
        full = [n.outputs[0] for n in convolutions if n.outputs[0] not in found]
        trunk = [n.outputs[0] for n in convolutions if n.outputs[0].startswith("ds_net.f.")] if precision == "bf16" else []
        assert full == [*trunk, "left_postprocess_net.gn_conv_last"]
        assert not found & set(graph.outputs)
        if family == "v2":
            assert by_op["MatMul"] == 6  # qkv, scores, values, proj, fc1, fc2 of the one block
            assert "encoder_x.f.pos_embed" in graph.constants  # the residual stream that starts with it is float32


def test_fp32_is_the_same_arithmetic(encoders):
    plain = onnx_file.read(encoders["v1"])
    graph = typed(plain, "fp32")
    assert [n.op for n in graph.nodes] == [n.op for n in plain.nodes]
    assert all(graph.constants[name] is array for name, array in plain.constants.items())


def test_a_value_is_cast_once():
    weight = np.ones((2, 2), np.float32)
    nodes = [Node("MatMul", ("image", name), (f"{name}.out",), {}) for name in ("a", "b")]
    nodes += [Node("Sigmoid", ("a.out",), (f"s{i}",), {}) for i in range(2)]
    graph = typed(Graph(["image"], ["s0", "s1"], nodes, {"a": weight, "b": weight}), "fp16")
    assert [n.outputs[0] for n in graph.nodes if n.op == "Cast"] == ["image.float16", "a.out.float"]


def test_weights_that_fp16_cannot_hold():
    weight = np.full((2, 2), 65519.0, np.float32)  # rounds to 65504; 65520 does not
    graph = Graph(["image"], ["y"], [Node("MatMul", ("image", "w"), ("y",), {})], {"w": weight})
    assert typed(graph, "fp16").constants["w.fp16"].max() == 65504
    weight[1, 0] = 65520.0
    with pytest.raises(ConfigError, match="w.fp16 holds values"):
        typed(graph, "fp16")
    assert half.from_half(typed(graph, "bf16").constants["w.bf16"]).max() == 65536
    weight[1, 0] = np.finfo(np.float32).max
    with pytest.raises(ConfigError, match="w.bf16 holds values"):
        typed(graph, "bf16")


def test_unknown_precision():
    with pytest.raises(UnavailableError, match="'fp8' is not available; there is: fp32, fp16, bf16"):
        typed(Graph(), "fp8")


def test_bfloat16_rounding_is_torch_s():
    torch = pytest.importorskip("torch")
    bits = np.random.default_rng(0).integers(0, 1 << 32, 100_000, dtype=np.uint32)
    bits[:4] = 0x3F808000, 0x3F818000, 0x00000001, 0x80008000  # ties to even both ways, a subnormal, a negative tie
    values = bits.view(np.float32)
    values = values[np.isfinite(values)]
    expected = torch.from_numpy(values).to(torch.bfloat16).float().numpy()
    assert np.array_equal(half.from_half(half.to_half(values, "bf16")), expected)
    strided = values[: 10 * 20].reshape(10, 20).T[::2]
    assert np.array_equal(half.from_half(half.to_half(strided, "bf16")), expected[:200].reshape(10, 20).T[::2])
    assert half.to_half(np.float32(1.0).reshape(()), "bf16").shape == ()


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_compiled_model_may_not_be_typed(precision, encoders, tmp_path):
    """Half precision is written for TensorRT alone; the reader of compiled models refuses it."""
    write_typed(encoders["v1"], precision, tmp_path / "encoder.onnx")
    with pytest.raises(ModelFormatError):
        onnx_file.read(tmp_path / "encoder.onnx")
    model = onnx.load(tmp_path / "encoder.onnx", load_external_data=False)
    model.opset_import[0].version = 17
    (tmp_path / "encoder.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelFormatError):
        onnx_file.read(tmp_path / "encoder.onnx")
