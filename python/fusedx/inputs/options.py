"""The settings of :func:`fusedx.inputs.read`."""

from __future__ import annotations

from dataclasses import dataclass

from fusedx.engine.errors import ConfigError

#: The threshold from which Pillow warns of a bomb, 2**30 / 4 / 3: a square of 9459 pixels.  Far above fundus, dermatoscope
#: and radiography images; whole slides and some 100-megapixel cameras exceed it and must be allowed by name.  Reading a
#: picture of exactly this size was measured to peak at 0.9 GB (24-bit PNG) and 0.7 GB (16-bit DICOM).
DEFAULT_MAX_PIXELS = 178_956_970 // 2

EXIF_CHOICES = ("ignore", "apply")


@dataclass(frozen=True)
class ReadOptions:
    """How a source becomes a picture.

    exif_orientation: "ignore" (what the published pipeline does), "apply", or None for the compiled model's recipe (outside a
        model: "ignore").  TIFF is always turned upright, because
        Pillow, and so the published pipeline, does that while decoding.
    frame: which frame of a DICOM object, TIFF, GIF, WebP or animated PNG, from 0.
    max_pixels: width * height of the largest frame that is decoded, checked before decoding.
    min_side: the shortest side accepted, in pixels.

    Raises ConfigError for an impossible value.
    """

    exif_orientation: str | None = None
    frame: int = 0
    max_pixels: int = DEFAULT_MAX_PIXELS
    min_side: int = 2

    def __post_init__(self) -> None:
        if self.exif_orientation not in (None, *EXIF_CHOICES):
            raise ConfigError(f"exif_orientation must be one of {', '.join(EXIF_CHOICES)}, got {self.exif_orientation!r}")
        for name, least in (("frame", 0), ("max_pixels", 1), ("min_side", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ConfigError(f"{name} must be an integer of at least {least}, got {value!r}")
