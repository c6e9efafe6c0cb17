"""The resize against Pillow, bit for bit.

Pillow 13 goes down the columns first where the height shrinks much more than the width (python-pillow/Pillow#9549), which
changes values by one level.  The definition here is Pillow's order up to 12, columns last, as the published models were
evaluated; two calls that change one direction each ask any Pillow for exactly that.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fusedx.kernels import native_module, resize
from fusedx.kernels.resize import reference

native = pytest.mark.skipif(native_module.native is None, reason=f"fusedx._native is not built: {native_module.reason}")

SHAPES = [  # from (height, width) to (height, width)
    ((1, 9), (5, 5)), ((9, 1), (5, 5)), ((1, 1), (3, 4)), ((2, 3), (50, 7)), ((7, 1000), (64, 64)), ((1000, 7), (64, 64)),
    ((301, 223), (224, 224)), ((223, 301), (224, 224)), ((640, 640), (224, 224)), ((50, 50), (224, 224)), ((224, 224), (224, 224)),
    ((224, 300), (224, 224)), ((300, 224), (224, 224)), ((225, 223), (224, 224)), ((33, 65), (1, 1)), ((17, 63), (63, 17)),
]


def picture(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Noise with runs of black and white, where clipping and rounding differ first."""
    pixels = np.random.default_rng(seed).integers(-80, 336, (height, width, channels))
    return np.clip(pixels, 0, 255).astype(np.uint8)


def pillow(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    image = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))
    across = image.resize((width, image.height), Image.Resampling.BILINEAR)
    out = np.asarray(across.resize((width, height), Image.Resampling.BILINEAR))
    return out.reshape(height, width, pixels.shape[2])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("source, target", SHAPES)
def test_reference_has_pillows_bits(source, target, channels):
    pixels = picture(*source, channels)
    assert np.array_equal(reference.bilinear(pixels, *target), pillow(pixels, *target))


@native
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("source, target", SHAPES)
def test_native_has_pillows_bits(source, target, channels):
    pixels = picture(*source, channels)
    assert np.array_equal(native_module.native.resize_bilinear(pixels, *target), pillow(pixels, *target))


side = st.integers(1, 90)


@settings(max_examples=150, deadline=None)
@given(side, side, side, side, st.sampled_from([1, 3]))
def test_any_shape_has_pillows_bits(h, w, height, width, channels):
    pixels = picture(h, w, channels, seed=h * 91 + w)
    expected = pillow(pixels, height, width)
    assert np.array_equal(resize.bilinear(pixels, height, width), expected)
    assert np.array_equal(reference.bilinear(pixels, height, width), expected)


@pytest.mark.parametrize("size", [1, 31, 97, 223, 225, 301, 512, 1411])
def test_square_images_have_the_bits_of_one_pillow_call(size):
    """The path of the models: a centre square to 224 x 224, where every Pillow goes across first."""
    pixels = picture(size, size)
    expected = np.asarray(Image.fromarray(pixels).resize((224, 224), Image.Resampling.BILINEAR))
    assert np.array_equal(resize.bilinear(pixels, 224, 224), expected)


VIEWS = {
    "every second": lambda p: p[::2, ::2],
    "backwards": lambda p: p[::-1, ::-1],
    "bgr": lambda p: p[:, :, ::-1],
    "transposed": lambda p: p.transpose(1, 0, 2),
    "crop": lambda p: p[5:30, 7:50],
    "planes": lambda p: np.ascontiguousarray(p.transpose(2, 0, 1)).transpose(1, 2, 0),
    "repeated": lambda p: np.broadcast_to(p[:, :, :1], p.shape),
    "one of three": lambda p: p[:, :, 1:2],
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS.keys())
def test_strided_views(view):
    pixels = view(picture(61, 77))
    assert np.array_equal(resize.bilinear(pixels, 24, 40), pillow(pixels, 24, 40))


def test_input_is_not_returned_or_changed():
    pixels = picture(20, 20)
    before = pixels.copy()
    out = resize.bilinear(pixels, 20, 20)
    out[:] = 0
    assert np.array_equal(pixels, before)


@pytest.mark.parametrize("pixels", [
    np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8), [[[0]]],
])
def test_refuses_other_pixels(pixels):
    with pytest.raises(ValueError, match="^pixels: expected uint8"):
        resize.bilinear(pixels, 2, 2)


@pytest.mark.parametrize("size", [(0, 2), (2, 0), (-1, 2)])
def test_refuses_empty_targets(size):
    with pytest.raises(ValueError, match="^height, width: expected at least 1"):
        resize.bilinear(picture(3, 3), *size)
