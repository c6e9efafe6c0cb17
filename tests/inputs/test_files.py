"""Picture files: what is read, what is refused, and that the choice is written down."""

from __future__ import annotations

import errno
import io
import json
import os
import struct
import tracemalloc
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from fusedx.engine.errors import InputError
from fusedx.inputs import ReadOptions, read

DEFAULT = ReadOptions()
RNG = np.random.default_rng(7)
RGB = RNG.integers(0, 256, (24, 32, 3), np.uint8)


@pytest.fixture(autouse=True)
def no_warning_leaks():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def refused(source, options=DEFAULT) -> InputError:
    with pytest.raises(InputError) as caught:
        read(source, options)
    assert os.fspath(source) in str(caught.value) or repr(os.fspath(source)) in str(caught.value), "the text must name the file"
    assert caught.value.__cause__ is None
    return caught.value


def original(path) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(Image.open(path).convert("RGB"))


def png(width, height, depth, colour, raw=b"", extra=b"") -> bytes:
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("extension", ["png", "jpg", "tif", "bmp", "gif", "webp"])
@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "CMYK", "RGBA", "LA", "YCbCr", "LAB"])
def test_same_pixels_as_the_original_transform(tmp_path, extension, mode):
    path = tmp_path / f"picture.{extension}"
    if mode == "LAB":
        image = Image.frombytes("LAB", (32, 24), RGB.tobytes())
    else:
        image = Image.fromarray(RGB).convert(mode)
    try:
        image.save(path)
    except (OSError, KeyError, ValueError):
        return  # this format has no such mode
    picture = read(path)
    assert np.array_equal(picture.pixels, original(path))
    assert json.dumps(picture.notes) and picture.source == str(path)
    if picture.notes["mode"] in ("RGBA", "LA"):
        assert picture.notes["alpha"] == "dropped"


def test_alpha_is_dropped_not_composited(tmp_path):
    path = tmp_path / "a.png"
    rgba = np.dstack([RGB, np.zeros(RGB.shape[:2], np.uint8)])
    Image.fromarray(rgba).save(path)
    assert np.array_equal(read(path).pixels, RGB)


@pytest.mark.parametrize("transparency", [3, bytes(range(0, 250, 10))])
def test_palette_transparency_is_dropped(tmp_path, transparency):
    path = tmp_path / "p.png"
    image = Image.fromarray(RGB).quantize(32)
    image.save(path, transparency=transparency)
    picture = read(path)
    assert np.array_equal(picture.pixels, np.asarray(image.convert("RGB")))
    assert picture.notes["mode"] == "P" and picture.notes["alpha"] == "dropped"


def test_cmyk_jpeg(tmp_path):
    path = tmp_path / "c.jpg"
    Image.fromarray(RGB).convert("CMYK").save(path, quality=95)
    picture = read(path)
    assert picture.notes["mode"] == "CMYK" and np.array_equal(picture.pixels, original(path))


DEEP = np.array([[200, 1000, 30000], [65535, 256, 255]], np.uint16)
DEEP_8 = np.rint((DEEP.astype(float) - 200) / (65535 - 200) * 255).astype(np.uint8)


def test_16_bit_png_is_scaled_not_clipped(tmp_path):
    path = tmp_path / "deep.png"
    Image.fromarray(DEEP).save(path)
    picture = read(path)
    assert np.array_equal(picture.pixels[..., 0], DEEP_8)
    assert picture.notes["grey16_range"] == {"min": 200.0, "max": 65535.0, "constant": False}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["u2", "i2", "i4", "f4"])
def test_deep_grey_tiff_of_either_byte_order(tmp_path, order, kind):
    values = DEEP.astype(f"{order}{kind}") if kind != "i2" else (DEEP // 2 - 9000).astype(f"{order}i2")
    path = tmp_path / "deep.tif"
    path.write_bytes(tiff(values, order))
    picture = read(path)
    plain = values.astype(float)
    expected = np.rint((plain - plain.min()) / np.ptp(plain) * 255)
    assert np.array_equal(picture.pixels[..., 1], expected)
    assert picture.notes["float_range" if kind == "f4" else "grey16_range"]["max"] == plain.max()


def tiff(values: np.ndarray, order: str) -> bytes:
    """A one-strip grey TIFF, little- ("<") or big-endian (">")."""
    form = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    height, width = values.shape
    tags = [
        (256, 3, width), (257, 3, height), (258, 3, 8 * values.dtype.itemsize), (259, 3, 1), (262, 3, 1), (273, 4, 8),
        (277, 3, 1), (278, 3, height), (279, 4, values.nbytes), (339, 3, form),
    ]  # fmt: skip
    ifd = struct.pack(order + "H", len(tags))
    for tag, kind, value in tags:
        ifd += struct.pack(order + "HHI", tag, kind, 1) + (
            struct.pack(order + "HH", value, 0) if kind == 3 else struct.pack(order + "I", value)
        )
    data = values.tobytes() + b"\0" * (values.nbytes % 2)
    return (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8 + len(data)) + data + ifd + b"\0" * 4


def test_float_tiff_with_nan_or_infinity(tmp_path):
    for bad in (np.nan, np.inf, -np.inf):
        path = tmp_path / "f.tif"
        path.write_bytes(tiff(np.array([[0, 1, 2], [3, bad, 5]], "<f4"), "<"))
        assert refused(path).reason == "bad_values"


def test_constant_deep_grey_is_black(tmp_path):
    path = tmp_path / "flat.png"
    Image.fromarray(np.full((4, 4), 777, np.uint16)).save(path)
    picture = read(path)
    assert not picture.pixels.any() and picture.notes["grey16_range"]["constant"] is True


def test_16_bit_rgb_png_is_noted(tmp_path):
    path = tmp_path / "rgb16.png"
    values = RNG.integers(0, 65536, (4, 4, 3), np.uint16)
    path.write_bytes(png(4, 4, 16, 2, b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)))
    picture = read(path)
    assert np.array_equal(picture.pixels, values >> 8) and "RGB;16B" in picture.notes["depth_reduced"]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("extension", ["jpg", "png", "tif", "webp"])
def test_exif_orientation(tmp_path, extension, orientation):
    from PIL import ImageOps

    path = tmp_path / f"turned.{extension}"
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(RGB).save(path, exif=exif)
    left, turned = read(path), read(path, ReadOptions(exif_orientation="apply"))
    assert left.notes["exif_orientation_found"] == turned.notes["exif_orientation_found"] == orientation
    assert np.array_equal(left.pixels, original(path)), "ignore means what the published pipeline does"
    assert np.array_equal(turned.pixels, np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB")))
    if extension == "tif":
        assert left.notes["exif_orientation"] == "applied by the TIFF decoder" and left.sha256 == turned.sha256
    else:
        assert (left.notes["exif_orientation"], turned.notes["exif_orientation"]) == ("ignored", "applied")
        assert (left.sha256 == turned.sha256) == (orientation == 1)


def test_damaged_exif_does_not_matter(tmp_path):
    path = tmp_path / "x.jpg"
    Image.fromarray(RGB).save(path, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    for choice in ("ignore", "apply"):
        assert np.array_equal(read(path, ReadOptions(exif_orientation=choice)).pixels, original(path))


@pytest.mark.parametrize("extension", ["tif", "gif", "webp"])
def test_frames(tmp_path, extension):
    path = tmp_path / f"several.{extension}"
    pages = [Image.fromarray(np.full((20, 30, 3), shade, np.uint8)) for shade in (10, 120, 230)]
    pages[0].save(path, save_all=True, append_images=pages[1:])
    for index, shade in enumerate((10, 120, 230)):
        picture = read(path, ReadOptions(frame=index))
        assert abs(int(picture.pixels[5, 5, 0]) - shade) <= 2
        assert (picture.notes["frame"], picture.notes["frames"]) == (index, 3)
    assert refused(path, ReadOptions(frame=3)).reason == "no_such_frame"


def test_pages_of_different_sizes(tmp_path):
    path = tmp_path / "sizes.tif"
    Image.new("L", (4, 4)).save(path, save_all=True, append_images=[Image.new("L", (60, 50))])
    assert read(path, ReadOptions(frame=1)).pixels.shape == (50, 60, 3)
    assert refused(path, ReadOptions(frame=1, max_pixels=100)).reason == "too_large"


def test_one_frame_only(tmp_path):
    path = tmp_path / "one.png"
    Image.fromarray(RGB).save(path)
    assert refused(path, ReadOptions(frame=1)).reason == "no_such_frame"


@pytest.mark.parametrize("extension", ["jpg", "dcm", "xyz", ""])
def test_content_decides_not_the_extension(tmp_path, extension):
    path = tmp_path / ("picture." + extension if extension else "picture")
    Image.fromarray(RGB).save(path, "PNG")
    picture = read(path)
    assert np.array_equal(picture.pixels, RGB) and picture.notes["format"] == "PNG"
    assert ("extension" in picture.notes) == (extension in ("jpg", "dcm"))


def test_huge_declared_sizes_are_refused_at_once(tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(png(100_000, 100_000, 8, 2))
    tracemalloc.start()
    assert refused(path).reason == "too_large"
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()
    path.write_bytes(png(15_000, 15_000, 8, 2))  # above Pillow's own limit for an error
    assert refused(path).reason == "too_large"
    path.write_bytes(b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 100_000, 100_000, 1, 24, 0, 0, 0, 0, 0, 0))
    assert refused(path).reason == "too_large"


def test_limits_are_exact(tmp_path):
    path = tmp_path / "limit.png"
    Image.fromarray(RGB).save(path)
    assert read(path, ReadOptions(max_pixels=32 * 24)).pixels.shape == (24, 32, 3)
    assert refused(path, ReadOptions(max_pixels=32 * 24 - 1)).reason == "too_large"


def test_one_pixel_is_too_small_unless_allowed(tmp_path):
    path = tmp_path / "dot.png"
    Image.new("RGB", (1, 1), (9, 8, 7)).save(path)
    assert refused(path).reason == "too_small"
    assert read(path, ReadOptions(min_side=1)).pixels.tolist() == [[[9, 8, 7]]]


@pytest.mark.parametrize("extension", ["png", "jpg", "tif", "bmp", "gif", "webp"])
@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9])
def test_truncated(tmp_path, extension, keep):
    path = tmp_path / f"cut.{extension}"
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])
    assert refused(path).reason == "corrupt"


def test_text_and_profile_bombs(tmp_path):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    huge = zlib.compress(bytes(64 << 20), 9)
    for extra in (chunk(b"zTXt", b"k\0\0" + huge), chunk(b"iCCP", b"p\0\0" + huge)):
        path = tmp_path / "bomb.png"
        path.write_bytes(png(4, 4, 8, 0, b"\0" * 20, extra))
        assert refused(path).reason == "corrupt"


def test_unusual_paths(tmp_path, monkeypatch):
    assert refused(tmp_path / "none.png").reason == "not_found"
    assert refused(str(tmp_path / "nul\0.png")).reason == "not_found"
    assert refused(str(tmp_path / ("long" * 999))).reason == "not_found"
    assert refused(tmp_path).reason == "not_a_file"
    assert refused("/dev/null").reason == "not_a_file"
    dangling = tmp_path / "dangling.png"
    dangling.symlink_to(tmp_path / "none.png")
    assert "symbolic link" in str(refused(dangling))
    around = tmp_path / "around.png"
    around.symlink_to(around)
    assert refused(around).reason == "unreadable"
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    assert refused(pipe).reason == "not_a_file"
    empty = tmp_path / "empty.png"
    empty.touch()
    assert refused(empty).reason == "empty"
    text = tmp_path / "text.png"
    text.write_text("no picture")
    assert refused(text).reason == "unknown_format"

    def forbidden(*_args, **_more):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("fusedx.inputs.opening.os.open", forbidden)
    assert refused(text).reason == "unreadable"


def test_a_pipe_that_replaces_the_file_does_not_hang(tmp_path, monkeypatch):
    pipe, plain = tmp_path / "pipe", tmp_path / "plain"
    os.mkfifo(pipe)
    plain.write_bytes(b"x")
    state = os.stat(plain)
    monkeypatch.setattr("fusedx.inputs.opening.os.stat", lambda _name: state)
    assert refused(pipe).reason == "not_a_file"


@pytest.mark.parametrize("error, reason", [(MemoryError(), "too_large"), (SyntaxError("x"), "corrupt"), (RecursionError(), "corrupt")])
def test_nothing_raw_escapes(tmp_path, monkeypatch, error, reason):
    path = tmp_path / "x.png"
    Image.fromarray(RGB).save(path)

    def fail(_self):
        raise error

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load_end", fail)
    assert refused(path).reason == reason


def test_decoder_warnings_go_to_the_notes_only(tmp_path):
    path = tmp_path / "w.tif"
    data = bytearray(tiff(DEEP.astype("<u2"), "<"))
    at = data.index(struct.pack("<HHI", 339, 3, 1))
    data[at : at + 12] = struct.pack("<HHII", 305, 2, 4000, 8)  # Software: 4000 bytes, beyond the end of the file
    path.write_bytes(bytes(data))
    assert read(path).notes["decoder_warnings"]
    with pytest.warns(UserWarning):  # and elsewhere Pillow warns as before
        Image.open(io.BytesIO(bytes(data)))
