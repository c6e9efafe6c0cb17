"""Every error that fusedx raises on purpose, and what each one means to the caller.

All derive from :class:`FusedxError`, so one ``except`` is enough at a boundary.  The text always says what was
expected, what was found, and what to do about it.
"""

from __future__ import annotations

import operator


class FusedxError(Exception):
    """Base of every deliberate fusedx error."""


class ConfigError(FusedxError, ValueError):
    """A setting has an unknown name or an impossible value."""


def require_int(name: str, value: object, low: int, high: int) -> int:
    """``value`` as an int, numpy's integers included; ConfigError names the setting and its range."""
    try:
        number = None if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None or not low <= number <= high:
        raise ConfigError(f"{name} must be an integer from {low} to {high}, got {value!r}")
    return number


class UnavailableError(FusedxError, RuntimeError):
    """A backend, encoder, device or precision was asked for by name and cannot run here; the text lists what can."""


class DeviceError(FusedxError, RuntimeError):
    """A GPU ran out of memory, was lost, or failed in the middle of its work; the text says whether to go on or to start again."""


class CheckpointError(FusedxError, ValueError):
    """A published checkpoint cannot be read, is not trusted, or does not fit the network."""


class ModelFormatError(FusedxError, ValueError):
    """A compiled model is damaged, tampered with, incomplete, or of a newer format."""


class InputError(FusedxError, ValueError):
    """One image cannot be used.

    ``reason`` is a stable code from :data:`INPUT_REASONS`, safe to store and to compare; ``str(error)`` is for people.
    """

    def __init__(self, reason: str, message: str) -> None:
        if reason not in INPUT_REASONS:
            raise ConfigError(f"{reason!r} is not a known input reason: {', '.join(INPUT_REASONS)}")
        super().__init__(message)
        self.reason = reason


#: Stable codes of :class:`InputError` and of failed rows in result tables; a code is never renamed or reused.
INPUT_REASONS = {
    "not_found": "no such file",
    "not_a_file": "a folder or a device, not a file",
    "unreadable": "the file exists and cannot be opened",
    "empty": "zero bytes, or an array without pixels",
    "unknown_format": "not an image format that fusedx reads",
    "corrupt": "the file is truncated or damaged",
    "too_large": "more pixels than the safety limit",
    "too_small": "the shorter side is below the minimum",
    "bad_values": "not-a-number or infinite pixel values",
    "bad_array": "an array of the wrong dtype or shape",
    "no_pixels": "a DICOM object without an image",
    "no_such_frame": "the chosen frame does not exist",
    "missing_decoder": "the compressed pixels need a decoder that is not installed",
    "unsupported": "a valid image of a kind that is not supported",
    "not_finite": "the model computes no finite result for this image",
}
