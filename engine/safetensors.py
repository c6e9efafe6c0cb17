"""Memory-mapped reading of a .safetensors file, and its writing without copies.

The safetensors package copies each tensor when it reads or writes for numpy, and has no bfloat16 there; a denoiser of several
hundred megabytes is mapped here instead, and paged in by whoever packs it.  Only what the format promises is accepted:
tensors that lie one after the other, without gaps, overlaps or a remainder, each aligned to its element.
"""

from __future__ import annotations

import json
import mmap
import struct
from pathlib import Path
from typing import Any

import numpy as np

from fusedx.engine.errors import ModelFormatError
from fusedx.engine.manifest import parse_json

_MAX_HEADER = 1 << 20
#: BF16 comes as its bits, since numpy has no such type.
DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
#: Where the first tensor starts is a multiple of this, so that every tensor of a whole number of lines starts on one.
_ALIGNMENT = 64


def read(path: Path) -> dict[str, np.ndarray]:
    """Name -> read-only array that views the file; ModelFormatError where the file breaks the format."""
    try:
        with path.open("rb") as f:
            buffer = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
        if len(buffer) < 8:
            raise ValueError("shorter than its header")
        (size,) = struct.unpack_from("<Q", buffer, 0)
        if size > min(_MAX_HEADER, len(buffer) - 8):
            raise ValueError(f"header of {size} bytes in a file of {len(buffer)}")
        header = parse_json(buffer[8 : 8 + size].decode())
        if not isinstance(header, dict):
            raise ValueError("the header is not an object")
        header.pop("__metadata__", None)
        if size % 8:
            raise ValueError("its tensors are not aligned to 8 bytes")
        return _tensors(memoryview(buffer)[8 + size :], header)
    except OSError as error:
        raise ModelFormatError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise ModelFormatError(f"{path.name} is not a valid safetensors file: {str(error)[:300]}") from None


def dtype_name(array: np.ndarray) -> str:
    """The format's name of an array's dtype; uint16 is BF16."""
    return _NAMES[array.dtype]


def write(arrays: dict[str, np.ndarray], path: Path) -> None:
    """Write arrays of the dtypes above, the widest elements first so that each is aligned; equal arrays give equal bytes."""
    header: dict[str, Any] = {}
    start = 0
    ordered = sorted(arrays.items(), key=lambda item: -item[1].itemsize)
    for name, array in ordered:
        header[name] = {"dtype": dtype_name(array), "shape": list(array.shape), "data_offsets": [start, start + array.nbytes]}
        start += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    with path.open("wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for _, array in ordered:
            f.write(np.ascontiguousarray(array).data)


def _tensors(data: memoryview, header: dict[str, Any]) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    spans = []
    for name, entry in header.items():
        dtype = DTYPES.get(str(entry["dtype"]))
        if dtype is None:
            raise ValueError(f"{name[:80]} has dtype {str(entry['dtype'])[:20]}; expected {' or '.join(DTYPES)}")
        shape, (start, end) = entry["shape"], entry["data_offsets"]
        if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in [*shape, start, end]):
            raise ValueError(f"{name[:80]} has a malformed shape or offsets")
        count = 1
        for n in shape:
            count *= n
        if end > len(data) or end - start != count * dtype.itemsize:
            raise ValueError(f"{name[:80]} does not fit: shape {shape[:8]}, bytes {start} to {end} of {len(data)}")
        if start % dtype.itemsize:
            raise ValueError(f"{name[:80]} starts at byte {start}, which is not aligned for {dtype.name}")
        spans.append((start, end))
        arrays[name] = np.frombuffer(data[start:end], dtype).reshape(shape)
    spans.sort()
    if [0, *(end for _, end in spans)] != [*(start for start, _ in spans), len(data)]:
        raise ValueError("tensors overlap or leave gaps")
    return arrays
