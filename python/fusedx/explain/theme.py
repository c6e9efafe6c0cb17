"""Colours and sizes of the page.  Lengths are final pixels."""

from __future__ import annotations

from typing import Final

Colour = tuple[int, int, int]

WIDTH: Final = 1600
MARGIN: Final = 48
SCALE: Final = 2  # everything is drawn twice as large and reduced once, at the end

PAPER: Final[Colour] = (252, 252, 250)
INK: Final[Colour] = (24, 32, 44)
SECONDARY: Final[Colour] = (88, 98, 112)
HAIRLINE: Final[Colour] = (219, 223, 228)
ZERO: Final[Colour] = (168, 176, 186)
TRACK: Final[Colour] = (233, 236, 240)
BAR: Final[Colour] = (150, 160, 173)
ACCENT: Final[Colour] = (11, 92, 173)

#: Paul Tol's "muted" scheme (distinct under the common colour-vision deficiencies) without its indigo, which is too near the
#: accent, and its sand, which is too light for a line on paper; cyan is darkened for the same reason, and an orange added.
CATEGORIES: Final[tuple[Colour, ...]] = (
    (204, 102, 119), (17, 119, 51), (72, 166, 206), (136, 34, 85), (68, 170, 153), (153, 153, 51), (170, 68, 153), (214, 124, 36),
)  # fmt: skip

HUGE: Final = 54
LARGE: Final = 24
HEADING: Final = 20
BODY: Final = 16
SMALL: Final = 14


def category(place: int) -> Colour:
    """Line colour of the class that is shown in this place (its own number, where all classes are shown)."""
    return CATEGORIES[place % len(CATEGORIES)]


def dashed(place: int) -> bool:
    """After eight classes the colours come again, dashed."""
    return (place // len(CATEGORIES)) % 2 == 1
