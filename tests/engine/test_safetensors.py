"""The memory-mapped reader: agrees with the safetensors package, and refuses everything that breaks the format."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from fusedx.engine import safetensors
from fusedx.engine.errors import ModelFormatError

GOOD = {"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, "b": {"dtype": "F64", "shape": [1], "data_offsets": [24, 32]}}


def write(path, header, data: bytes = b"\0" * 32, size: int | None = None):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    path.write_bytes(struct.pack("<Q", len(raw) if size is None else size) + raw + data)
    return path


def test_reads_what_the_package_writes(tmp_path):
    arrays = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "z": np.array([1.5]), "empty": np.zeros((0, 4), np.float32)}
    arrays["scalar"] = np.array(3.0, np.float32)
    save_file(arrays, tmp_path / "x.safetensors", metadata={"k": "v"})
    back = safetensors.read(tmp_path / "x.safetensors")
    assert set(back) == set(arrays)
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype and back[name].shape == array.shape and (back[name] == array).all()
        assert not back[name].flags.writeable and back[name].flags.aligned


def test_the_package_reads_what_is_written(tmp_path):
    arrays = {
        "odd": np.arange(5, dtype=np.int8), "u": np.arange(3, dtype=np.uint8), "half": np.arange(4, dtype=np.float16).reshape(2, 2),
        "w": np.arange(6, dtype=np.float32).reshape(2, 3).T, "z": np.array([1.5]), "empty": np.zeros((0, 4), np.float32),
    }  # fmt: skip
    path = tmp_path / "x.safetensors"
    safetensors.write(arrays, path)
    for back in (load_file(path), safetensors.read(path)):
        assert set(back) == set(arrays)
        for name, array in arrays.items():
            assert back[name].dtype == array.dtype and (back[name] == array).all()
    first = path.read_bytes()
    safetensors.write(dict(arrays), path)
    assert path.read_bytes() == first
    assert all(array.flags.aligned for array in safetensors.read(path).values())


def test_bfloat16_comes_and_goes_as_bits(tmp_path):
    bits = np.array([[0, 1, 0x3F80], [0x7F80, 0xFFFF, 0x8000]], np.uint16)
    safetensors.write({"w": bits}, tmp_path / "x")
    header = (tmp_path / "x").read_bytes()[8:64]
    assert b'"BF16"' in header
    assert (safetensors.read(tmp_path / "x")["w"] == bits).all()


def test_good_header_is_good(tmp_path):
    assert safetensors.read(write(tmp_path / "x", GOOD))["a"].shape == (2, 3)
    assert safetensors.read(write(tmp_path / "x", {**GOOD, "__metadata__": {"x": "y"}})).keys() == GOOD.keys()


def entry(dtype="F32", shape=(2, 3), offsets=(0, 24)):
    return {"a": {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}, "b": GOOD["b"]}


@pytest.mark.parametrize(
    "header",
    [
        b"", b"{", b"[]", b"3", b"null", b'"x"', b"\xff\xfe\x00", b"nonsense", b"\0" * 64,
        json.dumps(GOOD).encode("utf-16"), b"\xef\xbb\xbf" + json.dumps(GOOD).encode(),
        b'{"a": NaN}', b'{"a": Infinity}', b'{"a": 1e999}', b'{"a": ' + b"9" * 5000 + b"}",
        b"[" * 200_000, b'{"a":' * 50_000, b'{"a": {"dtype": "F32", "shape": ' + b"[" * 100_000,
        b'{"a": {"dtype": "F32", "shape": [6], "data_offsets": [0, 24]}, "a": {"dtype": "F32", "shape": [6], "data_offsets": [0, 24]}}',
        b'{"a": {"dtype": "F32", "dtype": "F64", "shape": [3], "data_offsets": [0, 24]}}',
        {"a": 3}, {"a": []}, {"a": "x"}, {"a": None}, {"a": {}}, {"a": {"dtype": "F32"}}, {"a": {"dtype": "F32", "shape": [6]}},
        {"a": {"dtype": "F32", "shape": [6], "data_offsets": [0]}}, {"a": {"dtype": "F32", "shape": [6], "data_offsets": [0, 24, 48]}},
        {"a": {"dtype": "F32", "shape": [6], "data_offsets": "ab"}},
        {"a": {"dtype": "F32", "shape": [6], "data_offsets": {"0": 1, "24": 2}}},
        {"a": {"dtype": "F32", "shape": {"2": 1}, "data_offsets": [0, 8]}}, {"a": {"dtype": "F32", "shape": 6, "data_offsets": [0, 24]}},
        entry(dtype="F16"), entry(dtype="BF16"), entry(dtype="I64"), entry(dtype="f32"), entry(dtype=7), entry(dtype=["F32"]),
        entry(dtype=None),
        entry(shape=[True, 6]), entry(shape=[2.0, 3]), entry(shape=["2", 3]), entry(shape=[-2, -3]), entry(shape=[-1]), entry(shape=[7]),
        entry(shape=[1] * 70 + [6]), entry(shape=[1 << 70, 0], offsets=[0, 0]), entry(shape=[1 << 40, 1 << 40]),
        entry(offsets=[0, 25]), entry(offsets=[24, 0]), entry(offsets=[-24, 0]), entry(offsets=[False, 24]), entry(offsets=[0.0, 24.0]),
        entry(offsets=[16, 40]), entry(offsets=[1 << 62, (1 << 62) + 24]), entry(offsets=[4, 28]),
        {"a": GOOD["a"]},  # bytes after the last tensor
        {"b": GOOD["b"]},  # bytes before the first
        {"a": GOOD["a"], "b": {"dtype": "F32", "shape": [2], "data_offsets": [20, 28]}},  # overlap
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "b": {"dtype": "F32", "shape": [6], "data_offsets": [8, 32]}},  # gap
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "b": {"dtype": "F64", "shape": [3], "data_offsets": [4, 28]},
         "c": {"dtype": "F32", "shape": [1], "data_offsets": [28, 32]}},  # misaligned
        {f"x{i}" * 50: {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(20_000)},  # huge header
    ],
)  # fmt: skip
def test_broken_headers(header, tmp_path):
    with pytest.raises(ModelFormatError, match="not a valid safetensors file") as caught:
        safetensors.read(write(tmp_path / "x.safetensors", header))
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("size", [0, 1, 7, 1 << 20, 1 << 32, (1 << 63) - 1, (1 << 64) - 1])
def test_header_sizes(size, tmp_path):
    with pytest.raises(ModelFormatError):
        safetensors.read(write(tmp_path / "x", GOOD, size=size))


def test_every_truncation(tmp_path):
    whole = write(tmp_path / "x", GOOD).read_bytes()
    for cut in range(len(whole)):
        (tmp_path / "x").write_bytes(whole[:cut])
        with pytest.raises(ModelFormatError):
            safetensors.read(tmp_path / "x")


def test_missing_folder_and_unreadable(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(ModelFormatError):
            safetensors.read(path)


@settings(derandomize=True, max_examples=200, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(edits=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 3), st.binary(max_size=4)), min_size=1, max_size=4))
def test_mutated_bytes(edits, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "mutated.safetensors"
    raw = bytearray(write(path, GOOD).read_bytes())
    for at, length, new in edits:
        at %= max(len(raw), 1)
        raw[at : at + length] = new
    path.write_bytes(raw)
    try:
        arrays = safetensors.read(path)
    except ModelFormatError:
        return
    assert sum(a.nbytes for a in arrays.values()) == len(raw) - 8 - struct.unpack("<Q", raw[:8])[0]
