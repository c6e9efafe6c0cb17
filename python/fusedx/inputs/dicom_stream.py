"""The byte level of a DICOM file: its transfer syntax, bounded inflation, and where the pixel element is."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from typing import BinaryIO

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    HTJ2K,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
)
from pydicom.uid import JPEG2000 as JPEG2000Lossy

from fusedx.engine.errors import InputError

JPEG2000 = (JPEG2000Lossless, JPEG2000Lossy, HTJ2K, HTJ2KLossless, HTJ2KLosslessRPCL)
_PIXEL_TAGS = {0x0008: "FloatPixelData", 0x0009: "DoubleFloatPixelData", 0x0010: "PixelData"}  # in group 7FE0
_LONG_VRS = (b"OB", b"OW", b"OF", b"OD", b"UN")
_META_LIMIT = 1 << 20
UNDEFINED = 0xFFFFFFFF


@dataclass(frozen=True)
class PixelElement:
    """The pixel data element: the stream stands at the first byte of its value."""

    keyword: str
    vr: str | None
    length: int
    syntax: UID
    little: bool

    @property
    def is_float(self) -> bool:
        return self.keyword != "PixelData"


def transfer_syntax_of(file: BinaryIO, name: str) -> UID | None:
    """Return the transfer syntax of the file meta information, None when there is none; the file is rewound.

    The meta elements are cut out by their group length first, since pydicom would otherwise inflate a deflated object
    without a limit before any size can be checked.
    """
    head = file.read(144)
    if head[128:132] != b"DICM":
        if head[:2] == b"\x02\x00":
            raise InputError("unsupported", f"{name}: DICOM file meta information without the 128-byte preamble")
        file.seek(0)
        return None
    if head[132:140] != b"\x02\x00\x00\x00UL\x04\x00":
        return _scan_meta(file, head[132:], name)
    (length,) = struct.unpack("<I", head[140:144])
    if length > _META_LIMIT:
        raise InputError("corrupt", f"{name}: {length} bytes of DICOM file meta information")
    meta = dcmread(io.BytesIO(head + file.read(length))).file_meta
    file.seek(0)
    syntax = meta.get("TransferSyntaxUID")
    return UID(str(syntax)) if syntax else None


def _scan_meta(file: BinaryIO, start: bytes, name: str) -> UID | None:
    """For meta information without its group length: walk its explicit little-endian elements."""
    data, at = start + file.read(_META_LIMIT), 0
    file.seek(0)
    while data[at : at + 2] == b"\x02\x00":
        number, vr, length = struct.unpack_from("<H2sH", data, at + 2)
        value = at + 8
        if vr in _LONG_VRS:
            (length,) = struct.unpack_from("<I", data, value)
            value += 4
        if number == 0x0010:
            syntax = UID(data[value : value + length].rstrip(b"\0 ").decode("ascii"))
            if syntax == DeflatedExplicitVRLittleEndian:
                raise InputError("corrupt", f"{name}: deflated, but the length of its file meta information is absent")
            return syntax
        at = value + length
    return None


def inflated(file: BinaryIO, syntax: UID | None, max_pixels: int, name: str) -> BinaryIO:
    """Return the file itself, or for the deflated transfer syntax the inflated data set, bounded by ``max_pixels``."""
    if syntax != DeflatedExplicitVRLittleEndian:
        return file
    head = file.read(144)
    file.seek(144 + struct.unpack("<I", head[140:144])[0])
    limit = 6 * max_pixels + (16 << 20)  # three 16-bit samples a pixel, and room for the header
    inflater, parts, total = zlib.decompressobj(-zlib.MAX_WBITS), [], 0
    while not inflater.eof and (chunk := inflater.unconsumed_tail or file.read(1 << 16)):
        parts.append(inflater.decompress(chunk, 1 << 20))
        total += len(parts[-1])
        if total > limit:
            raise InputError("too_large", f"{name}: inflates to more than {limit} bytes")
    if not inflater.eof:
        raise InputError("corrupt", f"{name}: its deflated data set is cut off")
    return io.BytesIO(b"".join(parts))


def _has_preamble(stream: BinaryIO) -> bool:
    stream.seek(128)
    return stream.read(4) == b"DICM"


def find_pixels(stream: BinaryIO, dataset: Dataset, syntax: UID | None, name: str, notes: dict[str, object]) -> PixelElement:
    """Read the header of the element at which ``dcmread(stop_before_pixels=True)`` stopped.

    Raises InputError "no_pixels", or "unknown_format" when nothing in the file looks like DICOM.
    """
    implicit, little = dataset.original_encoding
    if syntax is None:
        syntax = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        notes["transfer_syntax_assumed"] = True
    elif syntax == DeflatedExplicitVRLittleEndian:
        notes["deflated"] = True
        syntax = ExplicitVRLittleEndian
    notes["transfer_syntax"] = syntax.name
    little = syntax != ExplicitVRBigEndian

    start = stream.read(12)
    order = "<" if little else ">"
    group, number = struct.unpack(order + "HH", start[:4]) if len(start) == 12 else (0, 0)
    if group != 0x7FE0 or number not in _PIXEL_TAGS:
        if not len(dataset) and not _has_preamble(stream):
            raise InputError("unknown_format", f"{name}: named as DICOM, but holds no DICOM image elements")
        raise InputError("no_pixels", f"{name}: a DICOM object without pixel data (or cut off before it)")
    if start[4:6] in _LONG_VRS:
        vr, (length,) = start[4:6].decode(), struct.unpack(order + "I", start[8:12])
    else:
        vr, (length,) = None, struct.unpack(order + "I", start[4:8])
        stream.seek(-4, io.SEEK_CUR)
    return PixelElement(_PIXEL_TAGS[number], vr, length, syntax, little)
