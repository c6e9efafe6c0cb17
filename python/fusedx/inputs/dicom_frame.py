"""One frame of DICOM pixel data to stored values, by pydicom's decoders, chosen by a fixed preference."""

from __future__ import annotations

import io
from typing import Any, BinaryIO

import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels import get_decoder
from pydicom.uid import JPEG2000 as JPEG2000Lossy
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSTransferSyntaxes, JPEGTransferSyntaxes

from fusedx.engine.errors import InputError
from fusedx.inputs import codestream
from fusedx.inputs.dicom_header import Header
from fusedx.inputs.dicom_stream import JPEG2000, UNDEFINED, PixelElement

#: The first that is installed and able decodes, so results do not depend on what else is installed where Pillow can do it.
_PREFERENCE = ("pillow", "pydicom", "gdcm", "pyjpegls", "pylibjpeg")


def decode_frame(
    stream: BinaryIO, dataset: Dataset, header: Header, element: PixelElement, index: int, name: str, notes: dict[str, object]
) -> np.ndarray:
    """Return frame ``index``: [H, W] stored values, or [H, W, 3] RGB of the stored depth, converted from YBR exactly once.

    The stream stands at the pixel value.  Raises InputError "missing_decoder", "unsupported" or "corrupt".
    """
    try:
        decoder = get_decoder(element.syntax)
    except NotImplementedError:  # how pydicom says that it knows no such transfer syntax
        raise InputError("unsupported", f"{name}: transfer syntax {element.syntax.name}") from None
    options = _options(dataset, header, element)
    if not element.syntax.is_encapsulated:
        _check_length(stream, header, element, name, notes)
        return decoder.as_array(stream, index=index, **options)[0]

    plugin = _choose(decoder.available_plugins, header, element)
    if plugin is None:
        raise InputError(
            "missing_decoder", f"{name}: {element.syntax.name} needs a decoder that is not installed: pip install 'fusedx[dicom]'"
        )
    notes["decoder"] = plugin
    frame = get_frame(stream, index, number_of_frames=header.frames, extended_offsets=options.get("extended_offsets"))
    stated = codestream.inspect(frame)
    _check_codestream(frame, stated, header, element, name)
    # With an Adobe marker Pillow has already made RGB, whatever the object declares; pydicom would convert it once more.
    done = plugin == "pillow" and stated.adobe and header.samples == 3
    options.pop("extended_offsets", None)
    options["number_of_frames"] = 1
    return decoder.as_array(_single(frame), index=0, raw=done, decoding_plugin=plugin, **options)[0]


def _check_codestream(frame: bytes, stated: codestream.Codestream, header: Header, element: PixelElement, name: str) -> None:
    """Before decoding: the codestream's own size, which decides the memory, and its end, since libjpeg fills in what is missing."""
    if element.syntax not in (*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes, *JPEG2000):
        return
    if (stated.width, stated.height) != (header.columns, header.rows):
        raise InputError("corrupt", f"{name}: declares {header.columns}x{header.rows}, its codestream {stated.width}x{stated.height}")
    if element.syntax not in JPEG2000 and b"\xff\xd9" not in frame[-64:]:
        raise InputError("corrupt", f"{name}: its codestream is cut off")


def _single(frame: bytes) -> io.BytesIO:
    """The frame alone, encapsulated again: an empty offset table and one fragment (PS3.5 A.4)."""
    return io.BytesIO(encapsulate([frame], has_bot=False))


def _options(dataset: Dataset, header: Header, element: PixelElement) -> dict[str, Any]:
    options: dict[str, Any] = {
        "rows": header.rows,
        "columns": header.columns,
        "samples_per_pixel": header.samples,
        "number_of_frames": header.frames,
        "bits_allocated": header.bits_allocated,
        "photometric_interpretation": header.photometric,
        "pixel_keyword": element.keyword,
    }
    if not element.is_float:
        options |= {"bits_stored": header.bits_stored, "pixel_representation": header.signed}
    if header.samples > 1:
        options["planar_configuration"] = header.planar
    if element.vr is not None:
        options["pixel_vr"] = element.vr
    if "ExtendedOffsetTable" in dataset and "ExtendedOffsetTableLengths" in dataset:
        options["extended_offsets"] = (dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths)
    return options


def _choose(available: tuple[str, ...], header: Header, element: PixelElement) -> str | None:
    able = [plugin for plugin in _PREFERENCE if plugin in available]
    if not _pillow_can(header, element) and "pillow" in able:
        able.remove("pillow")
    return able[0] if able else None


def _pillow_can(header: Header, element: PixelElement) -> bool:
    """Pillow has no 12-bit JPEG, and reduces deep colour in JPEG 2000 to 8 bits."""
    if element.syntax in (JPEGBaseline8Bit, JPEGExtended12Bit):
        return header.bits_stored == 8
    return element.syntax in (JPEG2000Lossless, JPEG2000Lossy) and header.bits_stored <= (16 if header.samples == 1 else 8)


def _check_length(stream: BinaryIO, header: Header, element: PixelElement, name: str, notes: dict[str, object]) -> None:
    """Compare the declared sizes with the bytes that are there; a part of a frame too much is padding, and noted."""
    if element.length == UNDEFINED:
        raise InputError("corrupt", f"{name}: compressed pixel data under the uncompressed {element.syntax.name}")
    samples = 2 if header.photometric == "YBR_FULL_422" else header.samples
    one = header.rows * header.columns * samples * header.bits_allocated
    expected = (one * header.frames + 7) // 8
    here = stream.tell()
    present = min(element.length, stream.seek(0, io.SEEK_END) - here)
    stream.seek(here)
    if present < expected or present < element.length:
        raise InputError("corrupt", f"{name}: {present} bytes of pixel data, {max(expected, element.length)} declared")
    excess = present - expected
    if excess >= max(2, one // 8):
        raise InputError("corrupt", f"{name}: {present} bytes of pixel data, the declared sizes account for {expected}")
    if excess > 1:
        notes["excess_bytes"] = excess
