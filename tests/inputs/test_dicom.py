"""DICOM: synthetic objects with known answers, and the real files that pydicom's wheel carries."""

from __future__ import annotations

import io
import json
import os
import struct
import sys
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels import apply_voi, apply_windowing, get_decoder, pixel_array
from pydicom.uid import (
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from dicom_objects import PATIENT, dicom, table
from fusedx.engine.errors import InputError
from fusedx.inputs import ReadOptions, read

DEFAULT = ReadOptions()
RNG = np.random.default_rng(3)
GREY = RNG.integers(0, 256, (16, 20), np.uint8)
DEEP = RNG.integers(-1000, 3000, (16, 20), np.int16)
RGB = RNG.integers(0, 256, (16, 20, 3), np.uint8)
SMOOTH = np.kron(RNG.integers(0, 256, (2, 3, 3), np.uint8), np.ones((16, 16, 1), np.uint8))
REAL = Path(pydicom.__file__).parent / "data" / "test_files"


@pytest.fixture(autouse=True)
def no_warning_leaks():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


@pytest.fixture
def put(tmp_path):
    def put(data: bytes, name: str = "object.dcm") -> Path:
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return put


def refused(path, options=DEFAULT) -> InputError:
    with pytest.raises(InputError) as caught:
        read(path, options)
    assert str(path) in str(caught.value) and "SECRET" not in repr(caught.value) + repr(caught.value.__cause__)
    return caught.value


def grey_of(picture) -> np.ndarray:
    assert (picture.pixels == picture.pixels[..., :1]).all()
    assert "SECRET" not in json.dumps(picture.notes)
    return picture.pixels[..., 0]


def ramp(values, low, high):
    return np.rint((np.clip(values.astype(float), low, high) - low) / (high - low) * 255)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_min_max_when_there_is_no_window(put, syntax):
    picture = read(put(dicom(DEEP, syntax=syntax)))
    assert np.array_equal(grey_of(picture), ramp(DEEP, DEEP.min(), DEEP.max()))
    assert picture.notes["voi"] == {"kind": "min_max", "min": float(DEEP.min()), "max": float(DEEP.max()), "constant": False}


def test_monochrome1_is_inverted(put):
    two, one = (read(put(dicom(DEEP, f"MONOCHROME{k}", WindowCenter=500, WindowWidth=2000))) for k in (2, 1))
    assert np.abs(grey_of(one).astype(int) - (255 - grey_of(two).astype(int))).max() <= 0
    assert one.notes["inverted"] is True and one.notes["photometric"] == "MONOCHROME1"


@pytest.mark.parametrize("function", [None, "LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_rescale_then_first_window(put, function):
    more = {"VOILUTFunction": function} if function else {}
    picture = read(
        put(dicom(DEEP, RescaleSlope="2.5", RescaleIntercept="-10", WindowCenter=["40", "900"], WindowWidth=["400", "1000"], **more))
    )
    values = DEEP * 2.5 - 10
    if function == "SIGMOID":
        expected = 255 / (1 + np.exp(-4 * (values - 40) / 400))
    else:
        center, width = (40 - 0.5, 399) if function != "LINEAR_EXACT" else (40, 400)
        expected = np.clip((values - center) / width + 0.5, 0, 1) * 255
    assert np.array_equal(grey_of(picture), np.rint(expected))
    assert picture.notes["voi"] == {"kind": "window", "center": 40.0, "width": 400.0, "function": function or "LINEAR"}
    assert picture.notes["rescale"] == {"slope": 2.5, "intercept": -10.0}


@pytest.mark.parametrize("width", ["0", "-5", "0.5"])
def test_an_impossible_window_is_ignored_and_noted(put, width):
    picture = read(put(dicom(DEEP, WindowCenter="40", WindowWidth=width)))
    assert picture.notes["voi"]["kind"] == "min_max" and picture.notes["window_ignored"]["width"] == float(width)


def test_unknown_voi_function(put):
    assert refused(put(dicom(DEEP, WindowCenter="4", WindowWidth="5", VOILUTFunction="CUBIC"))).reason == "unsupported"


def test_voi_table(put):
    values = np.arange(-50, 270, dtype=np.int16).reshape(16, 20)
    data = np.linspace(0, 4095, 200).astype(int)
    path = put(dicom(values, VOILUTSequence=[table(0, 12, data)], WindowCenter="1", WindowWidth="2"))
    expected = np.rint(data[np.clip(values, 0, 199)] / 4095 * 255)
    picture = read(path)
    assert np.array_equal(grey_of(picture), expected)
    assert picture.notes["voi"] == {"kind": "lut", "entries": 200, "first": 0, "bits": 12}
    ds = pydicom.dcmread(path)
    assert np.array_equal(grey_of(picture), np.rint(apply_voi(ds.pixel_array, ds) / 4095 * 255)), "pydicom agrees where it does not wrap"


def test_voi_table_of_8_bits_with_many_entries(put):
    """pydicom 3.0 takes the index modulo 256 here."""
    values = np.arange(1000, dtype=np.uint16).reshape(25, 40)
    picture = read(put(dicom(values, VOILUTSequence=[table(0, 8, np.arange(1000) // 4)])))
    assert np.array_equal(grey_of(picture), values // 4)


def test_modality_table(put):
    values = np.arange(320, dtype=np.uint16).reshape(16, 20)
    data = np.arange(300)[::-1] * 10
    picture = read(put(dicom(values, ModalityLUTSequence=[table(5, 16, data)], WindowCenter="1500.5", WindowWidth="2001")))
    expected = np.clip((data[np.clip(values.astype(int) - 5, 0, 299)] - 1500) / 2000 + 0.5, 0, 1) * 255
    assert np.array_equal(grey_of(picture), np.rint(expected))


def test_padding_does_not_decide_the_range(put):
    values = DEEP.copy()
    values[:4] = -20000
    picture = read(put(dicom(values, PixelPaddingValue=-20000)))
    assert np.array_equal(grey_of(picture)[4:], ramp(DEEP, DEEP[4:].min(), DEEP[4:].max())[4:]) and not grey_of(picture)[:4].any()
    assert picture.notes["padding"] == {"from": -20000, "to": -20000, "pixels": 80}
    values[2:4] = -19000
    ranged = read(put(dicom(values, PixelPaddingValue=-20000, PixelPaddingRangeLimit=-18000)))
    assert ranged.notes["voi"] == picture.notes["voi"]


def test_constant_object(put):
    picture = read(put(dicom(np.full((4, 4), 9, np.uint16))))
    assert not picture.pixels.any() and picture.notes["voi"]["constant"] is True


def test_enhanced_object_uses_the_frames_own_values(put):
    def group(center, slope):
        item, window, rescale = Dataset(), Dataset(), Dataset()
        window.WindowCenter, window.WindowWidth = center, "101"
        rescale.RescaleSlope, rescale.RescaleIntercept = slope, "0"
        item.FrameVOILUTSequence, item.PixelValueTransformationSequence = [window], [rescale]
        return item

    values = np.stack([DEEP, DEEP + 7])
    path = put(dicom(values, frames=2, PerFrameFunctionalGroupsSequence=[group("50", "1"), group("100", "3")]))
    picture = read(path, ReadOptions(frame=1))
    assert picture.notes["voi"]["center"] == 100.0 and picture.notes["rescale"]["slope"] == 3.0
    assert np.array_equal(grey_of(picture), np.rint(np.clip((3.0 * (DEEP + 7) - 99.5) / 100 + 0.5, 0, 1) * 255))


@pytest.mark.parametrize("planar", [0, 1])
def test_rgb(put, planar):
    data = RGB if planar == 0 else RGB.transpose(2, 0, 1)
    picture = read(put(dicom(RGB, "RGB", PlanarConfiguration=planar, PixelData=data.tobytes())))
    assert np.array_equal(picture.pixels, RGB)


def test_16_bit_rgb_keeps_its_balance(put):
    values = RNG.integers(0, 65536, (16, 20, 3), np.uint16)
    assert np.array_equal(read(put(dicom(values, "RGB"))).pixels, np.rint(values / 65535 * 255))


def to_ybr(rgb):
    return np.asarray(Image.fromarray(rgb).convert("YCbCr"))


def test_ybr_is_converted_exactly_once(put):
    picture = read(put(dicom(to_ybr(RGB), "YBR_FULL")))
    assert np.abs(picture.pixels.astype(int) - RGB).max() <= 3
    pairs = to_ybr(SMOOTH).reshape(32, 24, 2, 3)
    packed = np.stack([pairs[:, :, 0, 0], pairs[:, :, 1, 0], pairs[:, :, 0, 1], pairs[:, :, 0, 2]], -1)
    picture = read(put(dicom(SMOOTH, "YBR_FULL_422", PixelData=packed.tobytes())))
    assert np.abs(picture.pixels.astype(int) - SMOOTH).max() <= 3


def jpeg(pixels, markers):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95, subsampling=0)
    data = buffer.getvalue()
    at = data.index(b"JFIF") - 4
    after = data[at + 2 + struct.unpack(">H", data[at + 2 : at + 4])[0] :]
    adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\0\0\0\0\x01"
    return {"jfif": data, "none": data[:at] + after, "adobe": data[:at] + adobe + after}[markers]


@pytest.mark.parametrize("markers", ["jfif", "none", "adobe"])
@pytest.mark.parametrize("photometric", ["YBR_FULL_422", "YBR_FULL"])
def test_jpeg_is_converted_exactly_once(put, markers, photometric):
    """With the Adobe marker pydicom 3.0 alone converts twice: an error of up to 255 levels."""
    stream = jpeg(SMOOTH, markers)
    picture = read(put(dicom(SMOOTH, photometric, JPEGBaseline8Bit, codestreams=[stream])))
    expected = np.asarray(Image.open(io.BytesIO(stream)).convert("RGB")).astype(int)
    assert np.abs(picture.pixels - expected).max() <= 1 and picture.notes["decoder"] == "pillow"


def test_jpeg2000(put):
    buffer = io.BytesIO()
    Image.fromarray(SMOOTH).save(buffer, "JPEG2000", no_jp2=True, irreversible=False)
    path = put(dicom(SMOOTH, "YBR_RCT", JPEG2000Lossless, codestreams=[buffer.getvalue()]))
    assert np.array_equal(read(path).pixels, SMOOTH)


def test_rle_and_one_frame_alone(put):
    from pydicom.pixels import get_encoder

    frames = np.stack([RGB, 255 - RGB, RGB // 2])
    encode = get_encoder(RLELossless).encode
    streams = [encode(f.tobytes(), rows=16, columns=20, samples_per_pixel=3, bits_allocated=8, bits_stored=8, pixel_representation=0,
                      photometric_interpretation="RGB", number_of_frames=1, planar_configuration=0) for f in frames]  # fmt: skip
    streams[0] = b"\0" * len(streams[0])  # frame 0 is damaged, which must not matter to the others
    path = put(dicom(frames, "RGB", RLELossless, frames=3, codestreams=streams))
    for index in (1, 2):
        picture = read(path, ReadOptions(frame=index))
        assert np.array_equal(picture.pixels, frames[index])
        assert (picture.notes["frame"], picture.notes["frames"]) == (index, 3)
    assert refused(path).reason == "corrupt"
    assert refused(path, ReadOptions(frame=3)).reason == "no_such_frame"


def test_native_frames(put):
    frames = np.stack([DEEP, DEEP[::-1], DEEP[:, ::-1]])
    path = put(dicom(frames, frames=3))
    for index, frame in enumerate(frames):
        assert np.array_equal(grey_of(read(path, ReadOptions(frame=index))), ramp(frame, frame.min(), frame.max()))


@pytest.mark.parametrize("bits", [8, 16])
def test_palette(put, bits):
    top = 2**bits - 1
    luts = {c: RNG.integers(0, top + 1, 256).astype(f"<u{bits // 8}") for c in ("Red", "Green", "Blue")}
    elements = {f"{c}PaletteColorLookupTableDescriptor": [256, 0, bits] for c in luts}
    elements |= {f"{c}PaletteColorLookupTableData": lut.tobytes() for c, lut in luts.items()}
    picture = read(put(dicom(GREY, "PALETTE COLOR", **elements)))
    expected = np.rint(np.stack([lut[GREY] for lut in luts.values()], -1) / top * 255)
    assert np.array_equal(picture.pixels, expected)


def test_float_pixels(put):
    values = RNG.normal(size=(16, 20)).astype(np.float32)
    path = put(dicom(values, BitsStored=None, HighBit=None, PixelRepresentation=None))
    assert np.array_equal(grey_of(read(path)), ramp(values, values.min(), values.max()))
    values[3, 3] = np.nan
    assert refused(put(dicom(values, BitsStored=None, HighBit=None, PixelRepresentation=None))).reason == "bad_values"


def test_bits_stored_below_allocated(put):
    values = RNG.integers(-2048, 2048, (16, 20)).astype(np.int16)
    path = put(dicom(values.view(np.uint16) & 0x0FFF, BitsStored=12, HighBit=11, PixelRepresentation=1))
    assert np.array_equal(grey_of(read(path)), ramp(values, values.min(), values.max()))


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_no_preamble(put, syntax):
    data = dicom(DEEP, syntax=syntax, preamble=False)
    picture = read(put(data))
    assert np.array_equal(grey_of(picture), ramp(DEEP, DEEP.min(), DEEP.max())) and picture.notes["transfer_syntax_assumed"] is True
    assert refused(put(data, "object.bin")).reason == "unknown_format"


@pytest.mark.parametrize(
    "elements, reason",
    [
        ({"PixelData": None}, "no_pixels"),
        ({"Rows": None}, "corrupt"),
        ({"Rows": 17}, "corrupt"),
        ({"Rows": 8}, "corrupt"),
        ({"Rows": 0}, "empty"),
        ({"Columns": 65535, "Rows": 65535}, "too_large"),
        ({"NumberOfFrames": 2}, "corrupt"),
        ({"SamplesPerPixel": 3}, "corrupt"),
        ({"BitsStored": 17}, "corrupt"),
        ({"BitsAllocated": 12, "BitsStored": 12}, "corrupt"),
        ({"PhotometricInterpretation": "HSV"}, "unsupported"),
        ({"PhotometricInterpretation": None}, "unsupported"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "corrupt"),
        ({"RescaleSlope": "1e300", "RescaleIntercept": "1"}, "bad_values"),
        ({"VOILUTSequence": [Dataset()]}, "corrupt"),
    ],
    ids=str,
)
def test_damaged_objects(put, elements, reason):
    values = DEEP.copy()
    values[0, 0] = 30000
    if "RescaleSlope" in elements:
        elements = {"RescaleSlope": "1e305", "RescaleIntercept": "1"}
    assert refused(put(dicom(values, **elements))).reason == reason


def test_cut_off_pixels(put):
    data = dicom(DEEP)
    assert refused(put(data[:-30])).reason == "corrupt"
    assert refused(put(data[:200])).reason in ("no_pixels", "corrupt")


def test_codestream_of_another_size(put):
    for pixels in (SMOOTH[:16], np.zeros((3000, 3000, 3), np.uint8)):
        path = put(dicom(SMOOTH, "YBR_FULL_422", JPEGBaseline8Bit, codestreams=[jpeg(pixels, "jfif")]))
        assert refused(path).reason == "corrupt" and "codestream" in str(refused(path))


def test_missing_and_unsupported_decoders(put):
    path = put(dicom(GREY, syntax=JPEGLSLossless, codestreams=[b"\xff\xd8\xff\xf7\0\x0b\x08\0\x10\0\x14\x01\x01\x11\0"]))
    if get_decoder(JPEGLSLossless).is_available:
        assert refused(path).reason == "corrupt"
    else:
        error = refused(path)
        assert error.reason == "missing_decoder" and "JPEG-LS" in str(error) and "pip install 'fusedx[dicom]'" in str(error)
    assert refused(put(dicom(GREY, syntax=MPEG2MPML, codestreams=[b"\0" * 8]))).reason == "unsupported"


def test_deflation_bomb(put):
    data = dicom(np.zeros((4000, 4000), np.uint16), syntax=DeflatedExplicitVRLittleEndian)
    assert len(data) < 100_000
    assert refused(put(data), ReadOptions(max_pixels=1000)).reason == "too_large"
    assert refused(put(data[:2000])).reason == "corrupt"


def test_without_pydicom(put, monkeypatch):
    path = put(dicom(GREY))
    for name in [name for name in sys.modules if name.split(".")[0] == "pydicom" or name.startswith("fusedx.inputs.dicom")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    error = refused(path)
    assert error.reason == "missing_decoder" and "pip install pydicom" in str(error)


def test_no_patient_data_in_messages(put):
    """A broken number that holds a name must not be quoted."""
    data = dicom(DEEP, RescaleSlope="1234567890123456", RescaleIntercept="1").replace(b"1234567890123456", b"DOE^SECRET^JOHN ")
    assert PATIENT.encode() in data
    assert refused(put(data)).reason == "corrupt"


#: Files inside pydicom's wheel that cannot be shown, and why; every other one must become a picture.
NO_PIXELS = {
    "ExplVR_BigEndNoMeta", "ExplVR_LitEndNoMeta", "UN_sequence", "empty_charset_LEI", "nested_priv_SQ", "no_meta_group_length", "priv_SQ",
    "reportsi", "reportsi_with_empty_number_tags", "rtplan", "rtplan_truncated", "rtstruct", "test-SR", "waveform_ecg",
}  # fmt: skip
REFUSED = {name: "no_pixels" for name in NO_PIXELS} | {
    "GDCMJ2K_TextGBR": "corrupt",  # a whole JPX file in place of a codestream; Pillow: "broken data stream"
    "JPEG2000-embedded-sequence-delimiter": "corrupt",  # its codestream states a width of 3722445056
    "MR_truncated": "corrupt",
    "badVR": "corrupt",  # NumberOfFrames "1A"
    "meta_missing_tsyntax": "no_pixels",
    "no_meta": "unknown_format",
}
NEEDS_DECODER = {
    "JPEG-lossy", "JPEGLSNearLossless_08", "JPEGLSNearLossless_16", "JPGExtended", "MR_small_jpeg_ls_lossless", "SC_rgb_jls_lossy_line",
    "SC_rgb_jls_lossy_sample", "SC_rgb_jpeg_gdcm",
}  # fmt: skip
REAL_FILES = sorted(path for path in REAL.glob("*.dcm"))


def test_the_wheel_carries_its_files():
    assert len(REAL_FILES) > 60, f"pydicom's test files are not at {REAL}"


@pytest.mark.parametrize("path", REAL_FILES, ids=lambda p: p.stem)
def test_real_files(path):
    if path.stem in REFUSED:
        assert refused(path).reason == REFUSED[path.stem]
        return
    if path.stem in NEEDS_DECODER:
        try:
            picture = read(path)
        except InputError as error:
            # pylibjpeg finds the scan header of JPEG-lossy.dcm invalid; GDCM cannot decode the 12-bit JPGExtended.dcm
            cannot = {("JPEG-lossy", "corrupt"), ("JPGExtended", "corrupt")}
            assert error.reason == "missing_decoder" or (path.stem, error.reason) in cannot
            return
    else:
        picture = read(path)
    assert json.dumps(picture.notes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = pydicom.dcmread(path)
        stored = pixel_array(ds, index=0, decoding_plugin=picture.notes.get("decoder", ""))
    if ds.PhotometricInterpretation == "PALETTE COLOR":
        stored = pydicom.pixels.apply_color_lut(stored, ds)
    if stored.ndim == 3:
        top = 2.0 ** (8 * stored.dtype.itemsize) - 1
        assert np.array_equal(picture.pixels, np.rint(stored / top * 255))
    elif picture.notes["voi"]["kind"] == "window":
        values = pydicom.pixels.apply_modality_lut(stored, ds)
        bits = 2.0**ds.BitsStored
        low = -bits / 2 if ds.PixelRepresentation else 0
        ends = np.array([low, low + bits - 1]) * float(ds.get("RescaleSlope", 1)) + float(ds.get("RescaleIntercept", 0))
        shown = apply_windowing(values, ds)
        off = np.abs(picture.pixels[..., 0] - (shown - ends[0]) / (ends[1] - ends[0]) * 255)
        assert off.max() <= 0.5 + 1e-9
    else:
        assert np.array_equal(picture.pixels[..., 0], ramp(stored, *_range(stored, ds)))


def _range(stored, ds):
    kept = stored[stored != ds.PixelPaddingValue] if "PixelPaddingValue" in ds else stored
    return float(kept.min()), float(kept.max())


@pytest.mark.parametrize("same", ["MR_small_RLE", "MR_small_bigendian", "MR_small_expb", "MR_small_implicit", "MR_small_jp2klossless"])
def test_one_picture_in_many_encodings(same):
    assert read(REAL / f"{same}.dcm").sha256 == read(REAL / "MR_small.dcm").sha256


def test_paths_without_extension_are_dicom_by_content():
    folder = REAL / "dicomdirtests" / "77654033" / "CT2"
    for name in os.listdir(folder):
        assert read(folder / name).notes["format"] == "DICOM"
    assert refused(REAL / "dicomdirtests" / "DICOMDIR").reason == "no_pixels"
