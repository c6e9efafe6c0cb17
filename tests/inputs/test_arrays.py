"""Arrays and PIL images as sources; the options; what a Picture promises."""

from __future__ import annotations

import hashlib
import io
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from fusedx.engine.errors import ConfigError, InputError
from fusedx.inputs import ReadOptions, read

RGB = np.arange(6 * 5 * 3, dtype=np.uint8).reshape(6, 5, 3)


def test_promises_of_a_picture():
    source = RGB.copy()
    picture = read(source)
    source[:] = 0
    assert np.array_equal(picture.pixels, RGB), "the picture must not share memory with its source"
    assert picture.pixels.flags.c_contiguous and not picture.pixels.flags.writeable
    assert picture.sha256 == hashlib.sha256(RGB.tobytes()).hexdigest()
    assert picture.source == "array" and json.dumps(picture.notes)
    with pytest.raises(ValueError):
        picture.pixels.setflags(write=True)
    with pytest.raises(AttributeError):
        picture.source = "other"


@pytest.mark.parametrize(
    "view",
    [
        RGB[::-1, ::-1],
        RGB[:, :, ::-1],
        np.asfortranarray(RGB),
        np.concatenate([RGB, RGB], axis=1)[:, ::2],
        np.broadcast_to(RGB[:1], (6, 5, 3)),
        np.ma.masked_array(RGB),
    ],
    ids=["negative strides", "swapped channels", "fortran", "every other column", "zero stride", "subclass"],
)
def test_any_strides(view):
    assert np.array_equal(read(view).pixels, np.array(view))


def test_grey_and_alpha():
    grey = RGB[..., 0]
    assert np.array_equal(read(grey).pixels, np.stack([grey] * 3, 2))
    rgba = np.dstack([RGB, np.zeros((6, 5), np.uint8)])
    picture = read(rgba)
    assert np.array_equal(picture.pixels, RGB) and picture.notes["alpha"] == "dropped"


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_uint16_is_scaled_by_its_own_range(order):
    values = np.array([[1000, 1255], [3550, 61000]], order)
    picture = read(values)
    assert picture.pixels[..., 0].tolist() == [[0, 1], [11, 255]]
    assert picture.notes["grey16_range"] == {"min": 1000.0, "max": 61000.0, "constant": False}


def test_constant_uint16_is_black_and_says_so():
    picture = read(np.full((3, 3), 40000, np.uint16))
    assert not picture.pixels.any() and picture.notes["grey16_range"]["constant"] is True


@pytest.mark.parametrize(
    "array",
    [
        RGB.astype(np.float32),
        RGB.astype(np.int16),
        RGB.astype(np.uint16),
        RGB > 3,
        RGB[None],
        RGB[..., :2],
        RGB[0, 0],
        np.full((), 3, np.uint8),
        np.zeros((4, 4), np.float64),
        np.array([[object()]]),
        np.zeros((4, 4), [("r", "u1")]),
    ],
    ids=lambda a: f"{a.dtype}-{a.shape}",
)
def test_other_arrays_are_refused_with_what_is_accepted(array):
    with pytest.raises(InputError, match=r"accepted are uint8 \[H, W\]") as caught:
        read(array)
    assert caught.value.reason == "bad_array" and str(list(array.shape)) in str(caught.value)


@pytest.mark.parametrize("shape", [(0, 5, 3), (5, 0, 3), (0,), (5, 5, 0)])
def test_empty_arrays(shape):
    with pytest.raises(InputError) as caught:
        read(np.zeros(shape, np.uint8))
    assert caught.value.reason == "empty"


@pytest.mark.parametrize("source", [None, 3, b"\x89PNG", [[1, 2]], io.BytesIO()], ids=lambda s: type(s).__name__)
def test_other_types(source):
    with pytest.raises(InputError, match=type(source).__name__) as caught:
        read(source)
    assert caught.value.reason == "unsupported"


def test_limits_hold_for_arrays_too():
    for options, reason in [
        (ReadOptions(max_pixels=29), "too_large"),
        (ReadOptions(min_side=6), "too_small"),
        (ReadOptions(frame=1), "no_such_frame"),
    ]:
        with pytest.raises(InputError) as caught:
            read(RGB, options)
        assert caught.value.reason == reason


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "RGBX"])
def test_pil_modes_as_convert_gives_them(mode):
    image = Image.fromarray(RGB).convert(mode)
    picture = read(image)
    assert np.array_equal(picture.pixels, np.asarray(image.convert("RGB")))
    assert picture.source == "PIL image" and picture.notes["mode"] == mode


def test_pil_deep_grey_and_float():
    deep = Image.fromarray(np.array([[0, 300], [600, 1200]], np.int32))
    assert read(deep).pixels[..., 1].tolist() == [[0, 64], [128, 255]]
    flat = Image.fromarray(np.array([[0, 0.5], [0.25, 1.0]], np.float32))
    assert read(flat).pixels[..., 2].tolist() == [[0, 128], [64, 255]]
    with pytest.raises(InputError) as caught:
        read(Image.fromarray(np.array([[0, np.nan], [1, 2]], np.float32)))
    assert caught.value.reason == "bad_values"


def test_pil_frames_and_emptiness():
    for source, options, reason in [
        (Image.new("RGB", (4, 4)), ReadOptions(frame=2), "no_such_frame"),
        (Image.new("RGB", (0, 4)), ReadOptions(), "empty"),
        (Image.new("RGB", (1, 4)), ReadOptions(), "too_small"),
    ]:
        with pytest.raises(InputError) as caught:
            read(source, options)
        assert caught.value.reason == reason


@pytest.mark.parametrize(
    "bad", [{"exif_orientation": "aply"}, {"frame": -1}, {"frame": True}, {"max_pixels": 0}, {"min_side": 0}, {"min_side": 2.0}]
)
def test_options_validate_themselves(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        ReadOptions(**bad)


def test_threads_agree(tmp_path):
    paths = []
    for k in range(8):
        path = tmp_path / f"{k}.{'png' if k % 2 else 'tiff'}"
        Image.fromarray(np.roll(RGB, k)).resize((64, 48)).save(path)
        paths.append(path)
    alone = [read(path).sha256 for path in paths]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda path: read(path).sha256, paths * 20))
    assert together == alone * 20
