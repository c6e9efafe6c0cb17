"""Stored grey values to 8 bits: modality transform, then the first VOI window or table, else min..max (PS3.3 C.11)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels import apply_windowing

from fusedx.engine.errors import InputError
from fusedx.inputs.dicom_lut import table_curve
from fusedx.inputs.scaling import Curve, identity, span, stretch, to_uint8

VALUE_KEYWORDS = (
    "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence",
    "PixelPaddingValue", "PixelPaddingRangeLimit",
)  # fmt: skip
_MACROS = ("PixelValueTransformationSequence", "FrameVOILUTSequence")


def grey_to_uint8(
    stored: np.ndarray, dataset: Dataset, inverted: bool, little: bool, frame: int, name: str, notes: dict[str, object]
) -> np.ndarray:
    """Stored values [H, W] of any real dtype to uint8 [H, W]; ``inverted`` for MONOCHROME1.

    Raises InputError "bad_values" or "unsupported".
    """
    values = _values_for(dataset, frame)
    if stored.dtype.kind == "f":
        span(stored, name)  # refuses NaN and infinity
    modality = _modality(values, little, name, notes)
    shade = _voi(values, little, name, notes)
    if shade is None:
        padding = _padding(stored, values, notes)
        low, high = span(stored, name, modality, padding)
        notes["voi"] = {"kind": "min_max", "min": low, "max": high, "constant": low == high}
        shade = stretch(low, high)
    notes["inverted"] = inverted
    final = (lambda v: 255.0 - np.clip(shade(modality(v)), 0.0, 255.0)) if inverted else (lambda v: shade(modality(v)))
    return to_uint8(stored, final, name)


def _values_for(dataset: Dataset, frame: int) -> dict[str, Any]:
    """The value elements that hold for one frame; in enhanced objects a frame's own come before the shared ones."""
    layers = [dataset]
    shared, each = dataset.get("SharedFunctionalGroupsSequence"), dataset.get("PerFrameFunctionalGroupsSequence")
    groups = ([shared[0]] if shared else []) + ([each[frame]] if each and frame < len(each) else [])
    for group in groups:
        layers += [group.get(macro)[0] for macro in _MACROS if group.get(macro)]
    return {key: layer.get(key) for layer in layers for key in VALUE_KEYWORDS if layer.get(key) is not None}


def _modality(values: dict[str, Any], little: bool, name: str, notes: dict[str, object]) -> Curve:
    if values.get("ModalityLUTSequence"):
        curve, notes["modality_lut"] = table_curve(values["ModalityLUTSequence"][0], little, name)
        return curve
    if "RescaleSlope" not in values or "RescaleIntercept" not in values:
        return identity
    slope, intercept = float(values["RescaleSlope"]), float(values["RescaleIntercept"])
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise InputError("bad_values", f"{name}: rescale slope {slope}, intercept {intercept}")
    notes["rescale"] = {"slope": slope, "intercept": intercept}
    return lambda v: v * slope + intercept


def _voi(values: dict[str, Any], little: bool, name: str, notes: dict[str, object]) -> Curve | None:
    """The first VOI table, else the first window, as a curve to 0..255; None when there is none or it is impossible."""
    if values.get("VOILUTSequence"):
        curve, about = table_curve(values["VOILUTSequence"][0], little, name)
        top = float(2 ** int(str(about["bits"])) - 1)
        notes["voi"] = {"kind": "lut", **about}
        return lambda v: curve(v) / top * 255.0
    if "WindowCenter" not in values or "WindowWidth" not in values:
        return None
    center, width = _first(values["WindowCenter"]), _first(values["WindowWidth"])
    function = str(values.get("VOILUTFunction", "LINEAR")).strip().upper() or "LINEAR"
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise InputError("unsupported", f"{name}: its VOI LUT function is none of LINEAR, LINEAR_EXACT, SIGMOID")
    window = {"kind": "window", "center": center, "width": width, "function": function}
    if not math.isfinite(center) or not math.isfinite(width) or width < 1 and (function == "LINEAR" or width <= 0):
        notes["window_ignored"] = window | {"center": _plain(center), "width": _plain(width)}
        return None
    notes["voi"] = window

    # pydicom scales to the declared depth: for an 8-bit unsigned object that is 0..255
    view = Dataset()
    view.PhotometricInterpretation, view.PixelRepresentation, view.BitsStored = "MONOCHROME2", 0, 8
    view.WindowCenter, view.WindowWidth, view.VOILUTFunction = center, width, function

    def windowed(v: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):  # exp of far-away values in SIGMOID: 255 / inf is the right 0
            return apply_windowing(v, view)

    return windowed


def _plain(value: float) -> float | str:
    """A number that JSON can hold."""
    return value if math.isfinite(value) else str(value)


def _first(value: Any) -> float:
    return float(value if isinstance(value, (str, int, float)) else value[0])


def _padding(stored: np.ndarray, values: dict[str, Any], notes: dict[str, object]) -> np.ndarray | None:
    """True where a pixel is padding, not picture (PS3.3 C.7.5.1.1.2): it must not decide the range."""
    if "PixelPaddingValue" not in values:
        return None
    one = int(values["PixelPaddingValue"])
    other = int(values.get("PixelPaddingRangeLimit", one))
    padding = (stored >= min(one, other)) & (stored <= max(one, other))
    notes["padding"] = {"from": min(one, other), "to": max(one, other), "pixels": int(padding.sum())}
    return padding
