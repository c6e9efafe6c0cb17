"""PNG, JPEG, TIFF, BMP, GIF and WebP files, recognised by their first bytes and decoded by Pillow.

Each format's reader is called directly, not through ``Image.open``: that tries every plugin by turns, hides the reason
of a failure, and obeys a process-wide size limit that another library may have changed.
"""

from __future__ import annotations

from typing import BinaryIO

from PIL import BmpImagePlugin, GifImagePlugin, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin, features

from fusedx.engine.errors import InputError
from fusedx.inputs.guard import decoding
from fusedx.inputs.limits import check_size
from fusedx.inputs.options import ReadOptions
from fusedx.inputs.picture import Picture
from fusedx.inputs.pil import render, select_frame
from fusedx.inputs.quiet import collected, listen_to

listen_to("PIL.PngImagePlugin", "PIL.TiffImagePlugin", "PIL.JpegImagePlugin")

_OPENERS = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,  # of a multi-picture (MPO) file, the first
    "TIFF": TiffImagePlugin.TiffImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
}
_MAGIC = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",  # BigTIFF
    b"MM\0+": "TIFF",
    b"BM": "BMP",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
}
FORMATS = tuple(_OPENERS)
_COUNTED_PAGES = 1000  # finding the number of TIFF pages costs time quadratic in it; above this only a lower bound is noted


def recognise(head: bytes) -> str | None:
    """Return the format of a file from its first 12 bytes or more, or None."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)


def read_picture_file(file: BinaryIO, kind: str, options: ReadOptions, name: str, notes: dict[str, object]) -> Picture:
    """Decode one frame of an open file of the recognised ``kind``; every failure is an InputError."""
    if kind == "WEBP" and not features.check("webp"):
        raise InputError("missing_decoder", f"{name}: this Pillow was built without WebP")
    notes["format"] = kind
    file.seek(0)
    with collected() as warned:
        with decoding(name, quote=True):
            image = _OPENERS[kind](file, "")  # type: ignore[abstract]  # no file name: Pillow would map it into memory, unsafe if it shrinks
            check_size(*image.size, options, name)
            select_frame(image, options.frame, name)
            notes["frame"] = options.frame
            notes["frames"] = _count_frames(image, options.frame)
        pixels = render(image, options, name, notes)
    if warned:
        notes["decoder_warnings"] = sorted(set(warned))[:8]
    return Picture.of(pixels, name, notes)


def _count_frames(image, chosen: int) -> int | str:
    """The number of frames; in words when it is not exactly known, which is no reason to refuse the chosen frame."""
    count = chosen
    try:
        if image.format != "TIFF":
            return int(getattr(image, "n_frames", 1))
        while count < max(chosen, _COUNTED_PAGES):
            image.seek(count + 1)
            count += 1
        return f"more than {count}"
    except EOFError:
        return count + 1
    except Exception:
        return f"at least {count + 1}, then damaged"
    finally:
        if image.tell() != chosen:
            image.seek(chosen)
