"""The regions that the network reads closely: one frame a place, numbered in the order of choice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fusedx.engine.manifest import GRID, IMAGE_SIZE
from fusedx.explain import typeface
from fusedx.explain.canvas import Box, Canvas
from fusedx.explain.theme import BODY, Colour

TILE = IMAGE_SIZE // GRID  # pixels of the network's input
_LIGHT: Colour = (255, 255, 255)
_DARK: Colour = (12, 18, 28)


@dataclass(frozen=True, slots=True)
class Frame:
    """One place.  box: on the page.  picks: 1..6 in order, several where the network chose the same place again."""

    box: Box
    picks: tuple[int, ...]

    @property
    def label(self) -> str:
        """"1, 4", with three or more in a row written as "4-6"."""
        runs: list[list[int]] = []
        for pick in self.picks:
            if runs and pick == runs[-1][-1] + 1:
                runs[-1].append(pick)
            else:
                runs.append([pick])
        return ", ".join(f"{r[0]}-{r[-1]}" if len(r) > 2 else ", ".join(map(str, r)) for r in runs)


def frames(patch_locations: np.ndarray, square: Box) -> list[Frame]:
    """int [6,2] (row, column; pixels of the 224x224 input) -> frames on ``square``, ordered by their first pick."""
    picks: dict[tuple[int, int], list[int]] = {}
    for i, (row, column) in enumerate(np.asarray(patch_locations).tolist()):
        picks.setdefault((row, column), []).append(i + 1)
    unit = square.width / IMAGE_SIZE
    return [
        Frame(Box(square.left + c * unit, square.top + r * unit, square.left + (c + TILE) * unit, square.top + (r + TILE) * unit), tuple(p))
        for (r, c), p in picks.items()
    ]


def draw_frames(canvas: Canvas, patch_locations: np.ndarray, square: Box) -> None:
    """A white frame between two dark ones, and a dark tag with white digits: legible on bright and on dark."""
    found = frames(patch_locations, square)
    for frame in found:
        box = frame.box.inset(0.5)
        canvas.rectangle(box, outline=_DARK, thick=4, radius=3)
        canvas.rectangle(box.inset(1), outline=_LIGHT, thick=2, radius=2)
    for frame in found:
        _draw_tag(canvas, frame)


def _draw_tag(canvas: Canvas, frame: Frame) -> None:
    box, label, size = frame.box.inset(4.5), frame.label, BODY
    while size > 9 and typeface.width(label, size) + 10 > box.width:
        size -= 1
    wide = max(22.0, typeface.width(label, size) + 12)
    tag = Box(box.left - 1, box.top - 1, box.left - 1 + wide, box.top + 21)
    canvas.rectangle(tag, fill=_DARK, radius=2)
    canvas.text((tag.left + tag.right) / 2, tag.top + 11 + size * 0.36, label, size, _LIGHT, align="middle")
