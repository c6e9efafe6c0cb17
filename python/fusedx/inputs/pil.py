"""A PIL image to 8-bit RGB, exactly as ``image.convert("RGB")`` gives it, except for deep grey, which that would clip."""

from __future__ import annotations

import numpy as np
from PIL import Image

from fusedx.engine.errors import InputError
from fusedx.inputs import orientation
from fusedx.inputs.guard import decoding
from fusedx.inputs.limits import check_frame, check_size
from fusedx.inputs.options import ReadOptions
from fusedx.inputs.picture import Picture
from fusedx.inputs.quiet import collected, listen_to
from fusedx.inputs.scaling import grey_to_rgb, stretch_to_uint8

_ALPHA = ("RGBA", "RGBa", "LA", "La", "PA")

listen_to("PIL.Image")


def read_image(image: Image.Image, options: ReadOptions) -> Picture:
    """Read a PIL image at the frame where it stands; it is loaded but not otherwise changed."""
    name = "PIL image"
    if options.frame:
        raise InputError("no_such_frame", f"{name}: is read at the frame where it stands; call its seek({options.frame}) and pass frame=0")
    notes: dict[str, object] = {"format": image.format or "PIL image"}
    with collected() as warned:
        with decoding(name, quote=True):
            notes["frame"] = image.tell()
        pixels = render(image, options, name, notes)
    if warned:
        notes["decoder_warnings"] = warned
    return Picture.of(pixels, name, notes)


def select_frame(image: Image.Image, index: int, name: str) -> None:
    """Seek to a frame; InputError("no_such_frame") when the image ends before it."""
    if index == 0:
        return
    try:
        image.seek(index)
    except EOFError:
        check_frame(index, getattr(image, "n_frames", 1), name)
        raise InputError("no_such_frame", f"{name}: frame {index} asked for, it ends before that") from None


def render(image: Image.Image, options: ReadOptions, name: str, notes: dict[str, object]) -> np.ndarray:
    """Decode the current frame to uint8 [H, W, 3], adding what was decided to ``notes``.

    The size is checked before decoding and again after it.  Raises InputError "too_large", "too_small", "corrupt",
    "bad_values" or "unsupported".
    """
    check_size(*image.size, options, name)
    upright_already = image.format == "TIFF"  # Pillow's TIFF reader turns while it loads, and then forgets the tag
    stated = orientation.found_in(image) if upright_already else None
    _note_reduced_depth(image, notes)
    with decoding(name, quote=True):
        image.load()
    if not upright_already:
        stated = orientation.found_in(image)
    check_size(*image.size, options, name)

    notes["mode"] = image.mode
    if image.mode in _ALPHA or "transparency" in image.info:
        notes["alpha"] = "dropped"
    pixels = _to_rgb(image, name, notes)
    turn = not upright_already and options.exif_orientation == "apply"
    notes["exif_orientation_found"] = stated
    notes["exif_orientation"] = "applied by the TIFF decoder" if upright_already else ("applied" if turn else "ignored")
    return orientation.upright(pixels, stated) if turn else pixels


def _to_rgb(image: Image.Image, name: str, notes: dict[str, object]) -> np.ndarray:
    if image.mode == "F" or image.mode.startswith("I"):
        key = "float_range" if image.mode == "F" else "grey16_range"
        with decoding(name, quote=True):
            values = np.asarray(image)
        return grey_to_rgb(stretch_to_uint8(values, name, notes, key))
    try:
        rgb = image if image.mode == "RGB" else image.convert("RGB")
    except (ValueError, KeyError, ImportError) as error:
        raise InputError("unsupported", f"{name}: Pillow cannot convert mode {image.mode} to RGB ({error})") from None
    with decoding(name, quote=True):
        return np.asarray(rgb)


def _note_reduced_depth(image: Image.Image, notes: dict[str, object]) -> None:
    """Say so when Pillow is about to keep only the high byte of 16-bit colour."""
    tile = next(iter(getattr(image, "tile", ())), None)
    raw = tile[3] if tile else None
    raw = raw[0] if isinstance(raw, tuple) and raw else raw
    if isinstance(raw, str) and ";16" in raw and not image.mode.startswith("I"):
        notes["depth_reduced"] = f"{raw} to 8 bits a channel, by Pillow (the high byte)"
