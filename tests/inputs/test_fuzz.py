"""Damaged bytes: the only outcomes are a sane Picture or an InputError, in bounded time, without warnings."""

from __future__ import annotations

import io
import json
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit, RLELossless

from dicom_objects import dicom, table
from fusedx.engine.errors import INPUT_REASONS, InputError
from fusedx.inputs import Picture, ReadOptions, read

OPTIONS = ReadOptions(max_pixels=1 << 18, exif_orientation="apply")
RGB = np.random.default_rng(5).integers(0, 256, (12, 10, 3), np.uint8)


def saved(image, kind, **more) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **more)
    return buffer.getvalue()


def seeds() -> dict[str, bytes]:
    image, exif = Image.fromarray(RGB), Image.Exif()
    exif[274] = 6
    deep = Image.fromarray(RGB[..., 0].astype(np.uint16) * 250)
    pages = [image.convert("L"), image]
    files = {
        "png": saved(image, "PNG", exif=exif),
        "png16": saved(deep, "PNG"),
        "png-palette": saved(image.quantize(16), "PNG", transparency=3),
        "jpeg": saved(image, "JPEG", exif=exif),
        "jpeg-cmyk": saved(image.convert("CMYK"), "JPEG", progressive=True),
        "tiff": saved(image, "TIFF", save_all=True, append_images=pages),
        "tiff16": saved(deep, "TIFF"),
        "tiff-float": saved(Image.fromarray(RGB[..., 0].astype(np.float32)), "TIFF"),
        "bmp": saved(image, "BMP"),
        "bmp-palette": saved(image.quantize(16), "BMP"),
        "gif": saved(image, "GIF", save_all=True, append_images=[image.rotate(90)]),
        "webp": saved(image, "WEBP", exif=exif),
    }
    files |= {f"tiff-{c}": saved(image, "TIFF", compression=c) for c in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")}
    values = RGB[..., 0].astype(np.int16)
    luts = {f"{c}PaletteColorLookupTableDescriptor": [256, 0, 8] for c in ("Red", "Green", "Blue")}
    luts |= {f"{c}PaletteColorLookupTableData": bytes(range(256)) for c in ("Red", "Green", "Blue")}
    j2k = saved(image, "JPEG2000", no_jp2=True)
    rle = b"\1\0\0\0\x40\0\0\0" + b"\0" * 56 + b"\x89\x07" + b"\0\0"
    return files | {
        "dcm": dicom(values, RescaleSlope="2", RescaleIntercept="1", WindowCenter="40", WindowWidth="300", PixelPaddingValue=0),
        "dcm-implicit": dicom(values, syntax=ImplicitVRLittleEndian, VOILUTSequence=[table(0, 12, range(256))]),
        "dcm-deflated": dicom(values, syntax=DeflatedExplicitVRLittleEndian),
        "dcm-bare": dicom(values, preamble=False),
        "dcm-rgb": dicom(RGB, "RGB"),
        "dcm-palette": dicom(RGB[..., 0], "PALETTE COLOR", **luts),
        "dcm-jpeg": dicom(RGB, "YBR_FULL_422", JPEGBaseline8Bit, codestreams=[saved(image, "JPEG")]),
        "dcm-jpeg2000": dicom(RGB, "YBR_RCT", JPEG2000Lossless, codestreams=[j2k]),
        "dcm-rle": dicom(RGB[..., 0], syntax=RLELossless, codestreams=[rle]),
    }


SEEDS = seeds()
WORDS = [b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\1", b"\x80\0\0\0"]
MAGIC = [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"BM", b"GIF89a", b"\0" * 128 + b"DICM"]


@st.composite
def damage(draw, data: bytes) -> bytes:
    """Flip, overwrite, cut, repeat, or splice in a part of another file; mostly near the start, where headers are."""
    out = bytearray(data)
    start = 128 if out[128:132] == b"DICM" else 0
    for _ in range(draw(st.integers(1, 4))):
        reach = len(out) if draw(st.booleans()) else min(len(out), start + 400)
        at = draw(st.integers(start, max(start, reach - 1)))
        kind = draw(st.sampled_from(["byte", "word", "cut", "drop", "repeat", "splice"]))
        if kind == "byte":
            out[at : at + 1] = bytes([draw(st.integers(0, 255))])
        elif kind == "word":
            out[at : at + 4] = draw(
                st.sampled_from([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\1", b"\x80\0\0\0"])
            )
        elif kind == "cut":
            del out[at:]
        elif kind == "drop":
            del out[at : at + draw(st.integers(1, 40))]
        elif kind == "repeat":
            out[at:at] = out[at : at + draw(st.integers(1, 60))]
        else:
            other = SEEDS[draw(st.sampled_from(sorted(SEEDS)))]
            begin = draw(st.integers(0, len(other) - 1))
            out[at : at + 64] = other[begin : begin + 64]
    return bytes(out)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def outcome(path) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            picture = read(path, OPTIONS)
        except InputError as error:
            assert error.reason in INPUT_REASONS and str(path) in str(error)
            return error.reason
    assert isinstance(picture, Picture) and len(picture.sha256) == 64
    pixels = picture.pixels
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3 and not pixels.flags.writeable
    assert min(pixels.shape[:2]) >= 2 and pixels.shape[0] * pixels.shape[1] <= OPTIONS.max_pixels
    json.dumps(picture.notes, allow_nan=False)
    return "picture"


@pytest.mark.parametrize("kind", sorted(SEEDS))
def test_undamaged_seeds_are_read(kind, folder):
    path = folder / f"whole-{kind}.dcm"
    path.write_bytes(SEEDS[kind])
    assert outcome(path) == "picture"


@pytest.mark.parametrize("kind", sorted(SEEDS))
def test_damaged_files(kind, folder):
    path = folder / f"{kind}.{'dcm' if kind.startswith('dcm') else 'img'}"

    @settings(max_examples=60, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(damage(SEEDS[kind]))
    def check(data):
        path.write_bytes(data)
        outcome(path)

    check()


@settings(max_examples=200, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.binary(max_size=300),
    st.sampled_from(MAGIC),
)
def test_noise_behind_a_magic_number(folder, tail, magic):
    path = folder / "noise.dcm"
    path.write_bytes(magic + tail)
    outcome(path)
