"""What a JPEG-family codestream says about itself, without decoding it."""

from __future__ import annotations

import struct
from dataclasses import dataclass

_FRAME_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # SOF0..15 (ISO 10918-1, table B.1), SOF55 of JPEG-LS
_BARE_MARKERS = {0x01, *range(0xD0, 0xD9)}  # without a length


@dataclass(frozen=True)
class Codestream:
    """width and height in pixels, 0 when not stated; ``adobe``: an Adobe APP14 marker states the colour transform."""

    width: int = 0
    height: int = 0
    adobe: bool = False


def inspect(data: bytes) -> Codestream:
    """Read the size from JPEG, JPEG-LS or JPEG 2000 bytes; damaged input gives a size of 0."""
    if data[:8] == b"\0\0\0\x0cjP  ":  # a whole JP2 file where the standard wants the bare codestream: seen in practice
        data = data[max(0, data.find(b"\xff\x4f\xff\x51", 0, 1 << 16)) :]
    if data[:4] == b"\xff\x4f\xff\x51" and len(data) >= 24:  # ISO 15444-1 A.5.1: SIZ comes first
        right, bottom, left, top = struct.unpack(">4I", data[8:24])
        return Codestream(max(0, right - left), max(0, bottom - top))
    at, adobe = 2, False
    while data[:2] == b"\xff\xd8" and at + 9 <= len(data):
        if data[at] != 0xFF:
            break
        marker = data[at + 1]
        if marker == 0xFF or marker in _BARE_MARKERS:
            at += 1 if marker == 0xFF else 2
            continue
        if marker in _FRAME_MARKERS:
            height, width = struct.unpack(">2H", data[at + 5 : at + 9])
            return Codestream(width, height, adobe)
        adobe = adobe or (marker == 0xEE and data[at + 4 : at + 9] == b"Adobe")
        at += 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]
    return Codestream()
