"""Right panel: the final probabilities, each beside what the prior encoder alone says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fusedx.explain import typeface
from fusedx.explain.canvas import Box, Canvas
from fusedx.explain.theme import ACCENT, BAR, BODY, INK, PAPER, SECONDARY, SMALL, TRACK, Colour, category, dashed
from fusedx.prediction import Prediction

MAX_BARS = 15
_TALLEST_ROW = 92.0
_SWATCH = 16.0


@dataclass(frozen=True, slots=True)
class Bar:
    """One class: its index, the track that stands for 100 %, the filled part, where the prior's mark is, and the error bar's two ends."""

    index: int
    track: Box
    fill: Box
    prior_x: float
    error: tuple[float, float] | None = None


def shown_classes(prediction: Prediction, most: int = MAX_BARS) -> list[int]:
    """All classes in their own order; of more than ``most``, those with the largest scores, best first (one row stays for the rest)."""
    if len(prediction.classes) <= most:
        return list(range(len(prediction.classes)))
    return np.argsort(-prediction.scores, kind="stable")[: most - 1].tolist()


def layout(prediction: Prediction, panel: Box, likely: np.ndarray | None = None) -> list[Bar]:
    """Where each bar goes: full width is a probability of 1.  likely: see :class:`fusedx.explain.evidence.Evidence`."""
    shown = shown_classes(prediction)
    rows = len(shown) + (len(shown) < len(prediction.classes))
    row = min(_TALLEST_ROW, panel.height / rows)
    thick = min(20.0, max(7.0, row * 0.26))
    bars = []
    for place, index in enumerate(shown):
        bottom = panel.top + place * row + _name_height(row) + thick
        track = Box(panel.left, bottom - thick, panel.right, bottom)
        ends = None if likely is None else (_part(track, likely[0, index]).right, _part(track, likely[1, index]).right)
        bars.append(Bar(index, track, _part(track, prediction.probabilities[index]), _part(track, prediction.prior[index]).right, ends))
    return bars


def percent(p: float) -> str:
    """One decimal, and never a rounded 0 or 100 for what is neither."""
    if 0 < p < 0.0005:
        return "< 0.1 %"
    if 0.9995 <= p < 1:
        return "> 99.9 %"
    return f"{100 * p:.1f} %"


def draw_bars(canvas: Canvas, prediction: Prediction, names: list[str], panel: Box, likely: np.ndarray | None = None) -> None:
    """Name and percentage above each bar."""
    bars = layout(prediction, panel, likely)
    size = BODY if len(bars) <= 10 else SMALL
    room = panel.width - typeface.width("> 99.9 %", size, bold=True) - 40
    short = typeface.shorten_all(names, size, room, bold=True)
    for place, bar in enumerate(bars):
        best = bar.index == prediction.index
        line = bar.track.top - (6 if size == BODY else 4)
        colour = ACCENT if best else INK
        _draw_swatch(canvas, panel.left, line - size * 0.36, ACCENT if best else category(place), not best and dashed(place))
        canvas.text(panel.left + _SWATCH + 8, line, short[bar.index], size, colour, bold=best)
        canvas.text(panel.right, line, percent(float(prediction.probabilities[bar.index])), size, colour, align="right", bold=best)
        canvas.rectangle(bar.track, fill=TRACK)
        canvas.rectangle(bar.fill, fill=ACCENT if best else BAR)
        if bar.error:
            draw_error(canvas, *bar.error, bar.track)
        draw_mark(canvas, bar.prior_x, bar.track)
    if len(bars) < len(names):
        rest = 1.0 - sum(float(prediction.probabilities[b.index]) for b in bars)
        multiclass = abs(float(prediction.probabilities.sum()) - 1) < 1e-6
        together = f", together {percent(max(0.0, rest))}" if multiclass else ""
        canvas.text(panel.left + _SWATCH + 8, panel.bottom, f"and {len(names) - len(bars)} more classes{together}", size, SECONDARY)


def draw_error(canvas: Canvas, left: float, right: float, track: Box) -> None:
    """An error bar at half the bar's height, with an end on either side; nothing where it is narrower than its own ends."""
    if right - left < 3:
        return
    middle, half = (track.top + track.bottom) / 2, max(2.0, 0.25 * track.height)
    for colour, edge in ((PAPER, 1), (INK, 0)):
        canvas.rectangle(Box(left - 0.5 - edge, middle - 0.5 - edge, right + 0.5 + edge, middle + 0.5 + edge), fill=colour)
        for x in (left, right):
            canvas.rectangle(Box(x - 0.5 - edge, middle - half - edge, x + 0.5 + edge, middle + half + edge), fill=colour)


def draw_mark(canvas: Canvas, x: float, track: Box) -> None:
    """The prior's mark: a thin dark line across the bar with a light edge."""
    beyond = 3 if track.height > 10 else 1
    canvas.rectangle(Box(x - 2, track.top, x + 2, track.bottom), fill=PAPER)
    canvas.rectangle(Box(x - 1, track.top - beyond, x + 1, track.bottom + beyond), fill=INK)


def _draw_swatch(canvas: Canvas, x: float, y: float, colour: Colour, dashes: bool) -> None:
    """A piece of the class's line in the chart below."""
    for left, right in ((0, 6), (10, _SWATCH)) if dashes else ((0, _SWATCH),):
        canvas.rectangle(Box(x + left, y - 2, x + right, y + 2), fill=colour)


def _name_height(row: float) -> float:
    return min(28.0, row * 0.62)


def _part(track: Box, p: float) -> Box:
    share = min(1.0, max(0.0, float(p))) if np.isfinite(p) else 0.0
    return Box(track.left, track.top, track.left + share * track.width, track.bottom)
