"""A page in final pixels on a bitmap twice as large.  Every text that is drawn leaves its box, so a test can look for accidents."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from fusedx.explain import typeface
from fusedx.explain.theme import HEADING, INK, PAPER, SCALE, Colour

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in final pixels."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top

    def contains(self, other: Box) -> bool:
        return self.left <= other.left and self.top <= other.top and self.right >= other.right and self.bottom >= other.bottom

    def overlaps(self, other: Box) -> bool:
        return self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom

    def inset(self, by: float) -> Box:
        return Box(self.left + by, self.top + by, self.right - by, self.bottom - by)


@dataclass(frozen=True, slots=True)
class Text:
    """One drawn text and the box of its ink."""

    string: str
    box: Box


class Canvas:
    """Lengths and positions are final pixels; text stands on its baseline."""

    def __init__(self, width: int, height: int) -> None:
        self.bounds = Box(0, 0, width, height)
        self.texts: list[Text] = []
        self._image = Image.new("RGB", (width * SCALE, height * SCALE), PAPER)
        self._draw = ImageDraw.Draw(self._image)

    def text(
        self, x: float, baseline: float, string: str, size: int, colour: Colour = INK, *,
        align: str = "left", bold: bool = False, limit: float | None = None,
    ) -> Box:  # fmt: skip
        """Draw one line, shortened to ``limit`` pixels; returns the box of its ink.  align: left, middle, right."""
        string = typeface.drawable(string)[0]
        if limit is not None:
            string = typeface.shorten(string, size, limit, bold)
        x -= {"left": 0.0, "middle": 0.5, "right": 1.0}[align] * typeface.width(string, size, bold)
        at, face = (round(x * SCALE), round(baseline * SCALE)), typeface.font(size)
        if bold:
            self._bold(at, string, face, colour, stroke=1 if size >= HEADING else 0)
        else:
            self._draw.text(at, string, fill=colour, font=face, anchor="ls")
        stroke, wider = (1, typeface.TRACKING * (len(string) - 1)) if bold else (0, 0)
        left, top, right, bottom = self._draw.textbbox(at, string, font=face, anchor="ls", stroke_width=stroke)
        box = Box(left / SCALE, top / SCALE, (right + wider) / SCALE, bottom / SCALE)
        self.texts.append(Text(string, box))
        return box

    def _bold(self, at: tuple[int, int], string: str, face: ImageFont.FreeTypeFont, colour: Colour, stroke: int) -> None:
        """The font has one weight: letter by letter, kerned, a little apart, with a thin stroke around each.

        In small letters a stroke would close the gap below the dot of an i: they are drawn twice, one pixel of the bitmap apart.
        """
        for i, letter in enumerate(string):
            x = round(at[0] + face.getlength(string[: i + 1]) - face.getlength(letter) + i * typeface.TRACKING)
            for shift in (0,) if stroke else (0, 1):
                self._draw.text((x + shift, at[1]), letter, fill=colour, font=face, anchor="ls", stroke_width=stroke)

    def rectangle(self, box: Box, fill: Colour | None = None, outline: Colour | None = None, thick: float = 1, radius: float = 0) -> None:
        """A filled or outlined rectangle that covers exactly ``box``; the outline lies inside it."""
        left, top, right, bottom = (round(v * SCALE) for v in (box.left, box.top, box.right, box.bottom))
        if right <= left or bottom <= top:
            return
        corners = (left, top, right - 1, bottom - 1)
        self._draw.rounded_rectangle(corners, radius * SCALE, fill=fill, outline=outline, width=round(thick * SCALE))

    def line(self, points: Sequence[Point], colour: Colour, thick: float = 1) -> None:
        """A line through ``points``."""
        self._draw.line(_scaled(points), fill=colour, width=max(1, round(thick * SCALE)), joint="curve")

    def lines_within(self, clip: Box, lines: Iterable[tuple[Sequence[Point], Colour, float]]) -> None:
        """Lines of (points, colour, thickness), cut at the edges of ``clip``."""
        corner = (round(clip.left * SCALE), round(clip.top * SCALE))
        layer = self._image.crop((*corner, round(clip.right * SCALE), round(clip.bottom * SCALE)))
        draw = ImageDraw.Draw(layer)
        for points, colour, thick in lines:
            moved = [(x - corner[0], y - corner[1]) for x, y in _scaled(points)]
            draw.line(moved, fill=colour, width=max(1, round(thick * SCALE)), joint="curve")
        self._image.paste(layer, corner)

    def dot(self, x: float, y: float, radius: float, fill: Colour, outline: Colour | None = None, thick: float = 1) -> None:
        """A disc around (x, y)."""
        corners = [v * SCALE for v in (x - radius, y - radius, x + radius, y + radius)]
        self._draw.ellipse(corners, fill=fill, outline=outline, width=round(thick * SCALE))

    def picture(self, image: Image.Image, box: Box) -> None:
        """Paste ``image``, which must have ``box``'s size times SCALE."""
        self._image.paste(image, (round(box.left * SCALE), round(box.top * SCALE)))

    def finish(self) -> Image.Image:
        """The page, reduced to its final size."""
        return self._image.resize((int(self.bounds.width), int(self.bounds.height)), Image.Resampling.LANCZOS)


def _scaled(points: Sequence[Point]) -> list[Point]:
    return [(x * SCALE, y * SCALE) for x, y in points]
