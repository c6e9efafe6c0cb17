"""The one entry: whatever the source is, a Picture or an InputError."""

from __future__ import annotations

import importlib
import os
from typing import BinaryIO

import numpy as np
from PIL import Image

from fusedx.engine.cuda.arrays import is_on_device
from fusedx.engine.errors import InputError
from fusedx.inputs.arrays import ACCEPTED, read_array
from fusedx.inputs.files import FORMATS, read_picture_file, recognise
from fusedx.inputs.opening import opened
from fusedx.inputs.options import ReadOptions
from fusedx.inputs.picture import Picture
from fusedx.inputs.pil import read_image

_EXTENSIONS = {
    ".png": "PNG", ".apng": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG", ".tif": "TIFF", ".tiff": "TIFF",
    ".bmp": "BMP", ".gif": "GIF", ".webp": "WEBP", ".dcm": "DICOM", ".dicom": "DICOM",
}  # fmt: skip


_DEFAULT = ReadOptions()


def read(source: str | os.PathLike | Image.Image | np.ndarray, options: ReadOptions = _DEFAULT) -> Picture:
    """Read one picture.

    source: a path (PNG, JPEG, TIFF, BMP, GIF, WebP or DICOM, by content), a PIL image, or an array (uint8 [H,W], [H,W,3],
    [H,W,4]; uint16 [H,W]).  Returns a :class:`Picture`.  Every failure is an :class:`InputError` with a stable ``reason``
    and a text that names the file.  Safe to call from several threads at once.
    """
    if isinstance(source, np.ndarray):
        return read_array(source, options)
    if isinstance(source, Image.Image):
        return read_image(source, options)
    if isinstance(source, (str, os.PathLike)):
        return _read_path(os.fsdecode(source), options)
    kind = type(source).__name__
    if is_on_device(source):
        raise InputError("unsupported", f"a {kind} in GPU memory needs a model on that GPU (device=\"cuda\"); or copy it to the host")
    raise InputError("unsupported", f"a {kind} is not a picture; accepted are a path, a PIL image, or an array of {ACCEPTED}")


def _read_path(name: str, options: ReadOptions) -> Picture:
    extension = os.path.splitext(name)[1].lower()
    with opened(name) as file:
        try:
            head = file.read(132)
        except OSError as error:
            raise InputError("unreadable", f"{name}: cannot be read ({error.strerror})") from None
        kind = "DICOM" if head[128:] == b"DICM" else recognise(head)
        if kind is None and _EXTENSIONS.get(extension) == "DICOM":
            kind = "DICOM"  # old files start with the data set itself, and nothing but their name says so
        if kind is None:
            raise InputError("unknown_format", f"{name}: its first bytes are not those of {', '.join(FORMATS)} or DICOM")
        notes: dict[str, object] = {}
        if extension in _EXTENSIONS and _EXTENSIONS[extension] != kind:
            notes["extension"] = f"{extension} suggests {_EXTENSIONS[extension]}, read as {kind} by content"
        if kind == "DICOM":
            return _read_dicom(file, options, name, notes)
        return read_picture_file(file, kind, options, name, notes)


def _read_dicom(file: BinaryIO, options: ReadOptions, name: str, notes: dict[str, object]) -> Picture:
    try:
        module = importlib.import_module("fusedx.inputs.dicom")
    except ImportError as error:
        if (error.name or "").split(".")[0] != "pydicom":
            raise
        raise InputError("missing_decoder", f"{name}: reading DICOM needs pydicom 3: pip install pydicom") from None
    return module.read_dicom(file, options, name, notes)
