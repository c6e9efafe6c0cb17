"""encoder.onnx and encoder.onnx.data: written with the onnx package when a model is compiled, read back without it.

The graph is small; its weights lie in the second file (ONNX "external data"), which every reader memory-maps instead of copying.
Reading needs the small part of protobuf that our own files use, so that the torch and float64 evaluators, `verify` included,
run on an installation that has neither onnx nor protobuf.  Anything outside that part is refused: a field, an operator or an
attribute that :func:`write` never makes could mean one thing here and another to a runtime.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fusedx.engine.encoder import qdq
from fusedx.engine.encoder.graph import OPSET, Graph, Node
from fusedx.engine.encoder.half import BFLOAT16
from fusedx.engine.errors import ModelFormatError

#: Constants of fewer bytes stay inside encoder.onnx; shapes and axes must, because runtimes read them while loading.
_INLINE_BYTES = 1024
_ALIGNMENT = 64
_MAX_GRAPH = 4 << 20
_DTYPES = {
    1: np.dtype("<f4"), 2: np.dtype("u1"), 3: np.dtype("i1"), 7: np.dtype("<i8"), 9: np.dtype("?"), 11: np.dtype("<f8"),
}  # fmt: skip
_CAST_TO = {"float": 1, "int64": 7}
#: Only written, for TensorRT to parse; a compiled model has neither, so reading refuses both.
_HALF = {"float16": 10, "bfloat16": 16}
#: Opset -> the version of ONNX's own format that came with it.
_IR_VERSIONS = {OPSET: 8, 22: 10}
_WINDOW = ("kernel_shape", "strides", "pads")
#: Operator -> (fewest inputs, most inputs, attributes): all that network.py and the quantiser use.
_OPERATORS: dict[str, tuple[int, int, tuple[str, ...]]] = {
    **dict.fromkeys(("Add", "And", "Div", "Equal", "Greater", "MatMul", "Mul", "Or", "Reshape", "Sub"), (2, 2, ())),
    **dict.fromkeys(("Erf", "Floor", "Identity", "Relu", "Sigmoid", "Tanh"), (1, 1, ())),
    **dict.fromkeys(("ReduceMax", "ReduceMean", "ReduceMin"), (1, 1, ("axes", "keepdims"))),
    "Cast": (1, 1, ("to",)),
    "Concat": (2, 8, ("axis",)),
    "Conv": (2, 3, _WINDOW),
    qdq.DEQUANTIZE: (3, 3, ("axis",)),
    "Gather": (2, 2, ("axis",)),
    "GatherND": (2, 2, ("batch_dims",)),
    "LayerNormalization": (3, 3, ("axis", "epsilon")),
    "MaxPool": (1, 1, _WINDOW),
    qdq.QUANTIZE: (3, 3, ()),
    "ReduceSum": (2, 2, ("keepdims",)),
    "Softmax": (1, 1, ("axis",)),
    "Transpose": (1, 1, ("perm",)),
    "Where": (3, 3, ()),
}
_LISTS = {"kernel_shape": 2, "strides": 2, "pads": 4}  # attribute -> entries, all equal, up to _MAX_WINDOW
_MAX_WINDOW = 64


def data_file(path: Path) -> Path:
    """Where the weights of the graph at ``path`` lie."""
    return path.with_name(path.name + ".data")


def write(
    graph: Graph, path: Path, output_shapes: dict[str, tuple[tuple[int | str, ...], type]], image_size: int, opset: int = OPSET
) -> None:
    """Write a graph with float32 inputs and outputs; ``output_shapes``: name -> (shape, dtype).  The batch dimension is symbolic."""
    import onnx
    from onnx import helper

    def value_info(name: str, shape: tuple[int | str, ...], dtype: type) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)

    nodes = []
    for node in graph.nodes:
        attributes: dict[str, Any] = dict(node.attributes)
        if node.op == "Cast":
            attributes["to"] = (_CAST_TO | _HALF)[str(attributes["to"])]
        nodes.append(helper.make_node(node.op, node.inputs, node.outputs, name=node.outputs[0], **attributes))
    with data_file(path).open("wb") as data:
        constants = [_constant(name, array, data, data_file(path).name) for name, array in graph.constants.items()]
    proto = helper.make_graph(
        nodes,
        "fusedx-encoder",
        [value_info(graph.inputs[0], ("batch", 3, image_size, image_size), np.float32)],
        [value_info(name, *output_shapes[name]) for name in graph.outputs],
        constants,
    )
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(proto, opset_imports=opsets, ir_version=_IR_VERSIONS[opset], producer_name="fusedx")
    path.write_bytes(model.SerializeToString(deterministic=True))
    onnx.checker.check_model(str(path))


def _constant(name: str, array: np.ndarray, data: BinaryIO, location: str) -> Any:
    """TensorProto; large arrays are appended to ``data``."""
    from onnx import TensorProto, helper

    kind = TensorProto.BFLOAT16 if array.dtype == BFLOAT16 else helper.np_dtype_to_tensor_dtype(array.dtype)
    tensor = TensorProto(name=name, data_type=kind, dims=array.shape)
    if array.nbytes < _INLINE_BYTES or array.dtype == np.int64:
        tensor.raw_data = array.tobytes()
        return tensor
    data.write(b"\0" * (-data.tell() % _ALIGNMENT))
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", data.tell()), ("length", array.nbytes)):
        tensor.external_data.add(key=key, value=str(value))
    data.write(array.tobytes())
    return tensor


def read(path: Path) -> Graph:
    """Parse and check files that :func:`write` made; large constants are views of the memory-mapped data."""
    try:
        if path.stat().st_size > _MAX_GRAPH:
            raise ValueError(f"it has more than {_MAX_GRAPH >> 20} MiB")
        with data_file(path).open("rb") as f:
            # A narrow network may leave it empty, which cannot be mapped.
            data = memoryview(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)) if f.seek(0, 2) else memoryview(b"")
        graph = _model(memoryview(path.read_bytes()), _External(data, data_file(path).name))
        _check(graph)
    except (ValueError, IndexError, KeyError, struct.error, TypeError, OverflowError) as error:
        raise ModelFormatError(f"{path.name} is not an encoder graph that fusedx wrote: {str(error)[:300]}") from None
    except OSError as error:
        raise ModelFormatError(f"{error.filename or path} cannot be read: {error.strerror}") from None
    return graph


class _External:
    """The data file: hands out checked views."""

    def __init__(self, data: memoryview, name: str) -> None:
        self._data = data
        self._name = name

    def view(self, pairs: list[tuple[str, str]]) -> memoryview:
        entries = dict(pairs)
        if sorted(key for key, _ in pairs) != ["length", "location", "offset"]:
            raise ValueError(f"external weights are given by {sorted(key for key, _ in pairs)[:8]}")
        if entries["location"] != self._name:
            raise ValueError(f"weights lie in {entries['location'][:200]!r}, expected {self._name!r}")
        if not all(entries[key].isascii() and entries[key].isdigit() for key in ("offset", "length")):
            raise ValueError("the place of external weights is not given by plain numbers")
        start, length = int(entries["offset"]), int(entries["length"])
        if start % _ALIGNMENT or start + length > len(self._data):
            raise ValueError(f"weights lie outside {self._name} or are not aligned")
        return self._data[start : start + length]


# Protobuf.  Wire types: 0 varint, 1 eight bytes, 2 length-delimited, 5 four bytes.

_Value = int | memoryview


def _fields(buffer: memoryview) -> Iterator[tuple[int, int, _Value]]:
    """(field number, wire type, value) of one message; all but varints are views."""
    at, end = 0, len(buffer)
    while at < end:
        tag, at = _varint(buffer, at)
        wire = tag & 7
        if wire == 0:
            value, at = _varint(buffer, at)
            yield tag >> 3, wire, value
            continue
        size, at = (8, at) if wire == 1 else (4, at) if wire == 5 else _varint(buffer, at) if wire == 2 else (-1, at)
        if size < 0 or at + size > end:
            raise ValueError(f"a field of wire type {wire} and {size} bytes does not fit")
        yield tag >> 3, wire, buffer[at : at + size]
        at += size


def _message(
    what: str, value: _Value, single: dict[int, int], repeated: dict[int, tuple[int, ...]] | None = None
) -> dict[int, list[_Value]]:
    """Values by field number.  single, repeated: field number -> wire type(s) that it must have; no other field may occur."""
    if isinstance(value, int):
        raise ValueError(f"a number stands where a {what} belongs")
    repeated = repeated or {}
    found: dict[int, list[_Value]] = {number: [] for number in (*single, *repeated)}
    for number, wire, field in _fields(value):
        if wire not in repeated.get(number, (single.get(number),)):
            raise ValueError(f"a {what} has a field {number} of wire type {wire}, which fusedx does not write")
        found[number].append(field)
    for number in single:
        if len(found[number]) > 1:
            raise ValueError(f"a {what} has its field {number} twice")
    return found


def _varint(buffer: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = buffer[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            break
        shift += 7
        if shift > 63:
            raise ValueError("a number is longer than 64 bits")
    if value >> 64:
        raise ValueError("a number is larger than 64 bits")
    return value, at


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _text(values: list[_Value]) -> str:
    """Exactly one, UTF-8."""
    (value,) = values
    return bytes(value).decode()  # type: ignore[arg-type]  # _message made sure that it is bytes


def _integer(values: list[_Value]) -> int:
    """Exactly one."""
    (value,) = _integers(values)
    return value


def _integers(values: list[_Value]) -> list[int]:
    """Repeated integers, packed or not."""
    out: list[int] = []
    for v in values:
        if isinstance(v, int):
            out.append(_signed(v))
            continue
        at = 0
        while at < len(v):
            n, at = _varint(v, at)
            out.append(_signed(n))
    return out


# ONNX.  Field numbers are those of onnx.proto.


def _model(buffer: memoryview, external: _External) -> Graph:
    model = _message("model", buffer, {1: 0, 2: 2, 7: 2}, {8: (2,)})
    opsets = [_message("opset", v, {1: 2, 2: 0}) for v in model[8]]
    if [(o[1] and _text(o[1]), _integer(o[2])) for o in opsets] not in ([("", OPSET)], [([], OPSET)]):
        raise ValueError(f"it does not use exactly opset {OPSET}")
    (graph,) = model[7]
    return _graph(graph, external)


def _graph(value: _Value, external: _External) -> Graph:
    fields = _message("graph", value, {2: 2}, {1: (2,), 5: (2,), 11: (2,), 12: (2,)})
    graph = Graph(nodes=[_node(v) for v in fields[1]])
    for name, array in (_tensor(v, external) for v in fields[5]):
        if name in graph.constants:
            raise ValueError(f"the constant {name} is given twice")
        graph.constants[name] = array
    for number, names in ((11, graph.inputs), (12, graph.outputs)):
        names.extend(_text(_message("value", v, {1: 2, 2: 2})[1]) for v in fields[number])
    return graph


def _node(value: _Value) -> Node:
    fields = _message("node", value, {3: 2, 4: 2}, {1: (2,), 2: (2,), 5: (2,)})
    op, pairs = _text(fields[4]), [_attribute(v) for v in fields[5]]
    attributes = dict(pairs)
    if len(attributes) != len(pairs):
        raise ValueError(f"a {op} has an attribute twice")
    if op == "Cast":
        attributes["to"] = {v: k for k, v in _CAST_TO.items()}[attributes["to"]]  # type: ignore[index]
    return Node(op, tuple(_text([v]) for v in fields[1]), tuple(_text([v]) for v in fields[2]), attributes)


def _attribute(value: _Value) -> tuple[str, object]:
    fields = _message("attribute", value, {1: 2, 2: 5, 3: 0, 20: 0}, {8: (0, 2)})
    name, kind = _text(fields[1]), _integer(fields[20])
    holds = {1: 2, 2: 3, 7: 8}.get(kind)  # FLOAT, INT, INTS
    if holds is None or any(fields[n] for n in (2, 3, 8) if n != holds):
        raise ValueError(f"attribute {name} has kind {kind}, or values of another kind")
    if kind == 1:
        (raw,) = fields[2]
        return name, struct.unpack("<f", raw)[0]  # type: ignore[arg-type]
    return name, _integer(fields[3]) if kind == 2 else _integers(fields[8])


def _tensor(value: _Value, external: _External) -> tuple[str, np.ndarray]:
    fields = _message("tensor", value, {2: 0, 8: 2, 9: 2, 14: 0}, {1: (0, 2), 13: (2,)})
    name, dtype, shape = _text(fields[8]), _DTYPES[_integer(fields[2])], _integers(fields[1])
    if any(n < 0 for n in shape):
        raise ValueError(f"the constant {name} has shape {shape[:8]}")
    if outside := _integers(fields[14]) == [1]:
        pairs = [(_text(e[1]), _text(e[2])) for e in (_message("external entry", v, {1: 2, 2: 2}) for v in fields[13])]
        raw: _Value = external.view(pairs)
    else:
        raw = fields[9][0] if fields[9] else memoryview(b"")
    if (fields[9] if outside else fields[13]) or _integers(fields[14]) not in ([], [0], [1]):
        raise ValueError(f"the constant {name} is given in two places")
    array: np.ndarray = np.frombuffer(raw, dtype).reshape(shape)  # type: ignore[call-overload]
    if array.dtype.kind == "b" and array.view(np.uint8).max(initial=0) > 1:
        raise ValueError(f"the constant {name} is neither true nor false")
    return name, array


def _check(graph: Graph) -> None:
    """Every value is made once and before it is used, by an operator that fusedx writes, as it writes it."""
    if graph.inputs != ["image"] or not graph.outputs or len(set(graph.outputs)) != len(graph.outputs):
        raise ValueError(f"its inputs are {graph.inputs[:4]} and its outputs {graph.outputs[:16]}")
    known = {"image", *graph.constants}
    if "image" in graph.constants or "" in known:
        raise ValueError("a constant is named as the input, or not at all")
    for node in graph.nodes:
        if node.op not in _OPERATORS:
            raise ValueError(f"it uses the operator {node.op[:80]}")
        fewest, most, attributes = _OPERATORS[node.op]
        if set(node.attributes) != set(attributes) or not fewest <= len(node.inputs) <= most or len(node.outputs) != 1:
            made = ", ".join(node.outputs)[:200]
            raise ValueError(f"the {node.op} that makes {made} has other inputs, outputs or attributes than fusedx writes")
        if missing := [n for n in node.inputs if n not in known]:
            raise ValueError(f"it reads {missing[0]!r} before it is computed")
        if node.outputs[0] in known or not node.outputs[0]:
            raise ValueError(f"it makes {node.outputs[0]!r} twice")
        known.add(node.outputs[0])
        _check_attributes(node)
        if node.op == "Gather":
            index = graph.constants.get(node.inputs[1], np.zeros(0))
            if index.dtype != np.int64 or not index.size or index.min() < 0:
                raise ValueError(f"{node.outputs[0]} gathers at something else than constant places")
    if missing := [n for n in graph.outputs if n not in known]:
        raise ValueError(f"its output {missing[0]!r} is never computed")
    qdq.check(graph)


def _check_attributes(node: Node) -> None:
    for name, value in node.attributes.items():
        if name == "to":
            fits = isinstance(value, str)
        elif name == "epsilon":
            fits = isinstance(value, float) and 0 < value < 1
        elif name in _LISTS:
            low = 0 if name == "pads" else 1
            fits = isinstance(value, list) and len(value) == _LISTS[name] and len(set(value)) == 1 and low <= value[0] <= _MAX_WINDOW
        elif name in ("axes", "perm"):
            fits = isinstance(value, list) and 0 < len(value) <= 8 and all(0 <= n < 8 for n in value) and len(set(value)) == len(value)
        else:  # axis, keepdims, batch_dims
            fits = isinstance(value, int) and -1 <= value < 8
        if not fits:
            raise ValueError(f"{node.outputs[0]} has {name} = {str(value)[:80]}")
