"""DICOM objects through pydicom 3: one frame to 8-bit RGB.

Only the elements that describe pixels are ever parsed (:data:`_KEYWORDS`), so no patient data can reach notes or messages.
"""

from __future__ import annotations

from typing import BinaryIO

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut

from fusedx.engine.errors import InputError
from fusedx.inputs.dicom_frame import decode_frame
from fusedx.inputs.dicom_grey import VALUE_KEYWORDS, grey_to_uint8
from fusedx.inputs.dicom_header import COLOUR, LAYOUT_KEYWORDS, Header, header_of
from fusedx.inputs.dicom_stream import PixelElement, find_pixels, inflated, transfer_syntax_of
from fusedx.inputs.guard import decoding
from fusedx.inputs.limits import check_frame, check_size
from fusedx.inputs.options import ReadOptions
from fusedx.inputs.picture import Picture
from fusedx.inputs.quiet import collected, listen_to
from fusedx.inputs.scaling import grey_to_rgb, to_uint8

listen_to("pydicom.misc")

_PALETTE_KEYWORDS = [f"{kind}{colour}PaletteColorLookupTableData" for kind in ("", "Segmented") for colour in ("Red", "Green", "Blue")] + [
    f"{colour}PaletteColorLookupTableDescriptor" for colour in ("Red", "Green", "Blue")
]
_GROUPS = ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"]
_KEYWORDS = [*LAYOUT_KEYWORDS, *VALUE_KEYWORDS, *_PALETTE_KEYWORDS, *_GROUPS, "ExtendedOffsetTable", "ExtendedOffsetTableLengths"]


def read_dicom(file: BinaryIO, options: ReadOptions, name: str, notes: dict[str, object]) -> Picture:
    """Decode frame ``options.frame`` of an open DICOM file; no other frame is decoded.

    Raises InputError "no_pixels", "no_such_frame", "too_large", "too_small", "missing_decoder", "unsupported",
    "bad_values" or "corrupt".
    """
    notes["format"] = "DICOM"
    with collected() as warned, decoding(name, quote=False):
        file.seek(0)
        syntax = transfer_syntax_of(file, name)
        stream = inflated(file, syntax, options.max_pixels, name)
        dataset = dcmread(stream, stop_before_pixels=True, force=True, specific_tags=list(_KEYWORDS))
        element = find_pixels(stream, dataset, syntax, name, notes)
        header = header_of(dataset, element, name, notes)
        check_frame(options.frame, header.frames, name)
        check_size(header.columns, header.rows, options, name)
        notes["frame"], notes["frames"] = options.frame, header.frames

        stored = decode_frame(stream, dataset, header, element, options.frame, name, notes)
        rgb = _to_rgb(stored, dataset, header, element, options.frame, name, notes)
    if warned:
        notes["decoder_warnings"] = len(warned)  # their texts may quote element values
    return Picture.of(rgb, name, notes)


def _to_rgb(
    stored: np.ndarray, dataset: Dataset, header: Header, element: PixelElement, frame: int, name: str, notes: dict[str, object]
) -> np.ndarray:
    """Stored values [H, W] or [H, W, 3] to uint8 [H, W, 3]."""
    if header.photometric in COLOUR:
        return _colour_to_uint8(stored, header.bits_stored, name, notes)
    if header.photometric == "PALETTE COLOR":
        return _palette_to_uint8(stored, dataset, element, name, notes)
    return grey_to_rgb(grey_to_uint8(stored, dataset, header.photometric == "MONOCHROME1", element.little, frame, name, notes))


def _palette_to_uint8(stored: np.ndarray, dataset: Dataset, element: PixelElement, name: str, notes: dict[str, object]) -> np.ndarray:
    entries, _, bits = (int(part) for part in dataset.RedPaletteColorLookupTableDescriptor)
    if bits == 8 and (entries or 65536) > 256:  # pydicom indexes such a table modulo 256
        raise InputError("unsupported", f"{name}: a colour palette of {entries or 65536} entries of 8 bits")
    dataset.file_meta.TransferSyntaxUID = element.syntax  # where pydicom looks for the byte order
    colours = apply_color_lut(stored, dataset)[..., :3]
    if colours.dtype != np.uint8 and not element.little:
        colours = colours.byteswap()
    return _colour_to_uint8(colours, 8 * colours.dtype.itemsize, name, notes)


def _colour_to_uint8(values: np.ndarray, bits: int, name: str, notes: dict[str, object]) -> np.ndarray:
    """Unsigned [H, W, 3] of ``bits`` bits to uint8; the whole range of the type is scaled, so colours keep their balance."""
    if bits == 8:
        return values.astype(np.uint8, copy=False)
    top = float(2**bits - 1)
    notes["colour_range"] = {"min": 0.0, "max": top}
    return np.stack([to_uint8(values[..., k], lambda v: v / top * 255.0, name) for k in range(3)], axis=2)
