"""What a DICOM object declares about its pixels, checked before anything is decoded."""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.dataset import Dataset

from fusedx.engine.errors import InputError
from fusedx.inputs.dicom_stream import JPEG2000, PixelElement

LAYOUT_KEYWORDS = (
    "Rows", "Columns", "SamplesPerPixel", "NumberOfFrames", "BitsAllocated", "BitsStored", "PixelRepresentation",
    "PlanarConfiguration", "PhotometricInterpretation",
)  # fmt: skip
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
GREY = ("MONOCHROME1", "MONOCHROME2")


@dataclass(frozen=True)
class Header:
    """The Image Pixel module (PS3.3 C.7.6.3), validated: sizes in pixels, depths in bits."""

    rows: int
    columns: int
    samples: int
    frames: int
    bits_allocated: int
    bits_stored: int
    signed: int
    planar: int
    photometric: str


def header_of(dataset: Dataset, element: PixelElement, name: str, notes: dict[str, object]) -> Header:
    """Read and check the declared layout.  Raises InputError "corrupt" or "unsupported"."""

    def whole(keyword: str, default: int | None = None) -> int:
        value = dataset.get(keyword)
        if value is None and default is not None:
            return default
        try:
            return int(value)
        except (TypeError, ValueError):
            raise InputError("corrupt", f"{name}: DICOM element {keyword} is absent or not a number") from None

    allocated = whole("BitsAllocated")
    header = Header(
        rows=whole("Rows"),
        columns=whole("Columns"),
        samples=whole("SamplesPerPixel", 1),
        frames=whole("NumberOfFrames", 1) or 1,
        bits_allocated=allocated,
        bits_stored=whole("BitsStored", allocated),
        signed=whole("PixelRepresentation", 0),
        planar=whole("PlanarConfiguration", 0),
        photometric=str(dataset.get("PhotometricInterpretation", "")).strip(),
    )
    _check(header, element, name)
    notes["photometric"] = header.photometric
    if header.samples > 1 and "PlanarConfiguration" not in dataset:
        notes["planar_configuration"] = "absent, taken as 0"
    return header


def _check(header: Header, element: PixelElement, name: str) -> None:
    def refuse(reason: str, why: str) -> None:
        raise InputError(reason, f"{name}: {why}")

    kind = header.photometric
    if kind not in (*GREY, *COLOUR, "PALETTE COLOR"):
        known = kind.replace("_", "").replace(" ", "").isalnum() and len(kind) <= 16
        refuse("unsupported", f"photometric interpretation {kind if known else '(unreadable)'}")
    if header.samples != (3 if kind in COLOUR else 1):
        refuse("corrupt", f"{header.samples} samples a pixel do not go with {kind}")
    if header.bits_allocated not in (1, 8, 16, 32, 64) or not 1 <= header.bits_stored <= header.bits_allocated:
        refuse("corrupt", f"{header.bits_stored} bits stored in {header.bits_allocated} allocated")
    if header.signed not in (0, 1) or header.planar not in (0, 1) or header.frames < 1:
        refuse("corrupt", "impossible PixelRepresentation, PlanarConfiguration or NumberOfFrames")
    if kind in COLOUR and (header.signed or element.is_float):
        refuse("unsupported", "signed or floating-point colour")
    if kind.startswith("YBR") and header.bits_allocated != 8:
        refuse("unsupported", f"{kind} of {header.bits_allocated} bits")
    if kind in ("YBR_ICT", "YBR_RCT") and element.syntax not in JPEG2000:
        refuse("corrupt", f"{kind} belongs to JPEG 2000, the transfer syntax is {element.syntax.name}")
