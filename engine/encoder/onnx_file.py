"""encoder.onnx and encoder.onnx.data: written with the onnx package when a model is compiled, read back without it.

The graph is small; its weights lie in the second file (ONNX "external data"), which every reader memory-maps instead of copying.
Reading needs the small part of protobuf that our own files use, so that the torch and float64 evaluators, `verify` included,
run on an installation that has neither onnx nor protobuf.  Anything outside that part is refused.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from fusedx.engine.encoder.graph import OPSET, Graph, Node
from fusedx.engine.errors import ModelFormatError

#: Constants of fewer bytes stay inside encoder.onnx; shapes and axes must, because runtimes read them while loading.
_INLINE_BYTES = 1024
_ALIGNMENT = 64
_MAX_GRAPH = 64 << 20
_DTYPES = {1: np.dtype("<f4"), 7: np.dtype("<i8"), 9: np.dtype("?"), 11: np.dtype("<f8")}
_CAST_TO = {"float": 1, "int64": 7}


def data_file(path: Path) -> Path:
    """Where the weights of the graph at ``path`` lie."""
    return path.with_name(path.name + ".data")


def write(graph: Graph, path: Path, output_shapes: dict[str, tuple[tuple[int | str, ...], type]], image_size: int) -> None:
    """Write a float32 graph; ``output_shapes``: name -> (shape, dtype).  The batch dimension is symbolic."""
    import onnx
    from onnx import helper

    def value_info(name: str, shape: tuple[int | str, ...], dtype: type) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)

    nodes = []
    for node in graph.nodes:
        attributes = dict(node.attributes)
        if node.op == "Cast":
            attributes["to"] = _CAST_TO[str(attributes["to"])]
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
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8, producer_name="fusedx")
    path.write_bytes(model.SerializeToString(deterministic=True))
    onnx.checker.check_model(str(path))


def _constant(name: str, array: np.ndarray, data: BinaryIO, location: str) -> object:
    """TensorProto; large arrays are appended to ``data``."""
    from onnx import TensorProto, numpy_helper

    if array.nbytes < _INLINE_BYTES or array.dtype == np.int64:
        return numpy_helper.from_array(array, name)
    data.write(b"\0" * (-data.tell() % _ALIGNMENT))
    tensor = numpy_helper.from_array(array[:0].reshape(0), name)
    tensor.ClearField("raw_data")
    tensor.ClearField("dims")
    tensor.dims.extend(array.shape)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", data.tell()), ("length", array.nbytes)):
        tensor.external_data.add(key=key, value=str(value))
    data.write(array.tobytes())
    return tensor


def read(path: Path) -> Graph:
    """Parse files that :func:`write` made; large constants are views of the memory-mapped data."""
    try:
        if path.stat().st_size > _MAX_GRAPH:
            raise ValueError(f"it has more than {_MAX_GRAPH >> 20} MiB")
        with data_file(path).open("rb") as f:
            data = memoryview(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ))
        return _graph(_one(memoryview(path.read_bytes()), 7), _External(data, data_file(path).name))
    except (ValueError, IndexError, KeyError, struct.error, StopIteration, TypeError, OverflowError) as error:
        raise ModelFormatError(f"{path.name} is not an encoder graph that fusedx wrote: {error}") from None
    except OSError as error:
        raise ModelFormatError(f"{error.filename or path} cannot be read: {error.strerror}") from None


class _External:
    """The data file: hands out checked views."""

    def __init__(self, data: memoryview, name: str) -> None:
        self._data = data
        self._name = name

    def view(self, entries: dict[str, str]) -> memoryview:
        if entries.get("location") != self._name:
            raise ValueError(f"weights lie in {entries.get('location')!r}, expected {self._name!r}")
        start, length = int(entries["offset"]), int(entries["length"])
        if start < 0 or length < 0 or start + length > len(self._data):
            raise ValueError(f"weights lie outside {self._name}")
        return self._data[start : start + length]


def _fields(buffer: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, value) of one protobuf message; length-delimited and fixed-width values are views."""
    at, end = 0, len(buffer)
    while at < end:
        tag, at = _varint(buffer, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(buffer, at)
            yield tag >> 3, value
            continue
        size, at = (8, at) if kind == 1 else (4, at) if kind == 5 else _varint(buffer, at) if kind == 2 else (-1, at)
        if size < 0 or at + size > end:
            raise ValueError(f"a field of kind {kind} and {size} bytes does not fit")
        yield tag >> 3, buffer[at : at + size]
        at += size


def _varint(buffer: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = buffer[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number is longer than 64 bits")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _text(value: int | memoryview) -> str:
    if isinstance(value, int):
        raise ValueError("a number stands where text belongs")
    return bytes(value).decode()


def _bytes(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number stands where a message belongs")
    return value


def _one(buffer: memoryview, number: int) -> memoryview:
    found = [v for n, v in _fields(buffer) if n == number]
    if len(found) != 1:
        raise ValueError(f"expected one field {number}, found {len(found)}")
    return _bytes(found[0])


def _integers(values: list[int | memoryview]) -> list[int]:
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


def _graph(buffer: memoryview, external: _External) -> Graph:
    graph = Graph()
    for number, value in _fields(buffer):
        if number == 1:
            graph.nodes.append(_node(_bytes(value)))
        elif number == 5:
            name, array = _tensor(_bytes(value), external)
            graph.constants[name] = array
        elif number in (11, 12):
            name = next(_text(v) for n, v in _fields(_bytes(value)) if n == 1)
            (graph.inputs if number == 11 else graph.outputs).append(name)
    return graph


def _node(buffer: memoryview) -> Node:
    inputs, outputs, op, attributes = [], [], "", {}
    for number, value in _fields(buffer):
        if number == 1:
            inputs.append(_text(value))
        elif number == 2:
            outputs.append(_text(value))
        elif number == 4:
            op = _text(value)
        elif number == 5:
            name, attribute = _attribute(_bytes(value))
            attributes[name] = attribute
    if op == "Cast":
        attributes["to"] = {v: k for k, v in _CAST_TO.items()}[int(str(attributes["to"]))]
    return Node(op, tuple(inputs), tuple(outputs), attributes)


def _attribute(buffer: memoryview) -> tuple[str, object]:
    found: dict[int, list[int | memoryview]] = {}
    for number, value in _fields(buffer):
        found.setdefault(number, []).append(value)
    name, kind = _text(found[1][0]), _integers(found[20])[0]
    if kind == 1:
        return name, struct.unpack("<f", _bytes(found[2][0]))[0]
    if kind == 2:
        return name, _integers(found[3])[0]
    if kind == 7:
        return name, _integers(found[8])
    raise ValueError(f"attribute {name} has kind {kind}")


def _tensor(buffer: memoryview, external: _External) -> tuple[str, np.ndarray]:
    shape: list[int | memoryview] = []
    dtype, name, raw = np.dtype("<f4"), "", memoryview(b"")
    entries: dict[str, str] = {}
    for number, value in _fields(buffer):
        if number == 1:
            shape.append(value)
        elif number == 2:
            dtype = _DTYPES[_integers([value])[0]]
        elif number == 8:
            name = _text(value)
        elif number == 9:
            raw = _bytes(value)
        elif number == 13:
            pair = {n: _text(v) for n, v in _fields(_bytes(value))}
            entries[pair[1]] = pair[2]
    if entries:
        raw = external.view(entries)
    return name, np.frombuffer(raw, dtype).reshape(_integers(shape))
