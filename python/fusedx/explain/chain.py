"""Bottom panel: the class scores along the chain, from the noisy start to the result."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from fusedx.explain import typeface
from fusedx.explain.bars import shown_classes
from fusedx.explain.canvas import Box, Canvas, Point
from fusedx.explain.evidence import Evidence
from fusedx.explain.scale import Scale, decimals, score_range, spread, step_ticks, ticks
from fusedx.explain.theme import ACCENT, HAIRLINE, INK, PAPER, SECONDARY, SMALL, ZERO, Colour, category, dashed

_AXIS = 58.0  # room for the tick labels on the left
_LEADER = 34.0  # from the end of a line to its label
_LABEL_GAP = 18.0
_WIDEST_LABEL = 330.0

Line = tuple[list[Point], Colour, float]


def draw_chain(canvas: Canvas, evidence: Evidence, names: list[str], panel: Box) -> None:
    """Axes, one line a class, and its name at the right end."""
    shown = shown_classes(evidence.prediction)
    short = _labels(names, shown, evidence.prediction.index)
    labels = max(typeface.width(short[i], SMALL, bold=True) for i in shown)
    plot = Box(panel.left + _AXIS, panel.top, panel.right - labels - _LEADER, panel.bottom - 26)
    low, high, _ = _range(evidence)
    x = Scale(0, max(1, len(evidence.states) - 1), plot.left, plot.right)
    y = Scale(low, high, plot.bottom, plot.top)
    _draw_axes(canvas, plot, x, y)
    canvas.lines_within(plot, _lines(evidence, shown, x, y))
    _draw_ends(canvas, evidence, shown, short, plot, y)


def subtitle(evidence: Evidence) -> str:
    """What the lines are, and every liberty taken with them."""
    p = evidence.prediction
    origin = "the prior" if p.provenance.get("start") == "mean" else "noise"
    parts = [f"{evidence.steps} steps from {origin} (left) to the result (right)"]
    if p.draws > 1:
        parts.append(f"draw 1 of {p.draws}; rings at the right end: mean of all {p.draws} draws")
    if p.provenance.get("family") == "diffmic-v2":
        parts.append("mean of the 6 x 6 map")
    if len(shown_classes(p)) < len(p.classes):
        parts.append("other classes in light grey")
    if _range(evidence)[2]:
        parts.append("values beyond the scale are cut off")
    return " · ".join(parts)


def _range(evidence: Evidence) -> tuple[float, float, bool]:
    """Range of the scale, which holds the mean of all draws too, and whether values lie outside it."""
    return score_range(np.vstack([evidence.states, evidence.prediction.scores]))


def _labels(names: list[str], shown: list[int], best: int) -> dict[int, str]:
    texts = typeface.shorten_all(names, SMALL, _WIDEST_LABEL, bold=True)
    return {i: texts[i] for i in shown}


def _draw_axes(canvas: Canvas, plot: Box, x: Scale, y: Scale) -> None:
    values = ticks(y.low, y.high, 5)
    digits = decimals(values)
    for value in values:
        at = y(value)
        canvas.line([(plot.left, at), (plot.right, at)], ZERO if value == 0 else HAIRLINE, 1)
        canvas.text(plot.left - 10, at + SMALL * 0.36, f"{value:.{digits}f}", SMALL, SECONDARY, align="right")
    steps = round(x.high)
    for step in step_ticks(steps):
        at = x(step)
        canvas.line([(at, plot.bottom), (at, plot.bottom + 5)], SECONDARY, 1)
        text = "start" if step == 0 else f"step {step}" if step == steps else f"{step}"
        canvas.text(at, plot.bottom + 22, text, SMALL, SECONDARY, align="middle")
    canvas.line([(plot.left, plot.bottom), (plot.right, plot.bottom)], SECONDARY, 1)


def _lines(evidence: Evidence, shown: list[int], x: Scale, y: Scale) -> Iterator[Line]:
    """Back to front: classes without a label, classes with one, the predicted class on a light edge."""
    states, best = evidence.states, evidence.prediction.index
    for i in range(states.shape[1]):
        if i not in shown:
            yield from ((run, HAIRLINE, 1.0) for run in _runs(states[:, i], x, y))
    for place, i in enumerate(shown):
        if i != best:
            for run in _runs(states[:, i], x, y):
                yield from ((piece, category(place), 2.0) for piece in (_dashes(run) if dashed(place) else [run]))
    for run in _runs(states[:, best], x, y):
        yield run, PAPER, 6.5
        yield run, ACCENT, 4.0


def _runs(values: np.ndarray, x: Scale, y: Scale) -> Iterator[list[Point]]:
    """Points of one class, split where a value is not finite.  Far values are drawn just outside the plot."""
    height = abs(y.end - y.start)
    run: list[Point] = []
    for step, value in enumerate(values.tolist()):
        if math.isfinite(value):
            run.append((x(step), min(max(y(value), y.end - 3 * height), y.start + 3 * height)))
        elif run:
            yield run
            run = []
    if run:
        yield run


def _dashes(run: list[Point], on: float = 9.0, off: float = 5.0) -> list[list[Point]]:
    """A line cut into dashes of ``on`` pixels along its length."""
    pieces, piece, drawing, left = [], [run[0]], True, on
    for (ax, ay), (bx, by) in zip(run, run[1:], strict=False):
        length, done = math.hypot(bx - ax, by - ay), 0.0
        while length - done > left:
            done += left
            point = (ax + (bx - ax) * done / length, ay + (by - ay) * done / length)
            if drawing:
                pieces.append([*piece, point])
            piece, drawing = [point], not drawing
            left = on if drawing else off
        left -= length - done
        piece.append((bx, by))
    return [*pieces, piece] if drawing and len(piece) > 1 else pieces


def _draw_ends(canvas: Canvas, evidence: Evidence, shown: list[int], short: dict[int, str], plot: Box, y: Scale) -> None:
    """A dot where each line ends, a leader, and the name; with several draws a ring at the mean."""
    p = evidence.prediction
    last = evidence.states[-1]
    ends = [min(max(y(float(last[i])), plot.top), plot.bottom) if np.isfinite(last[i]) else plot.bottom for i in shown]
    places = spread(ends, _LABEL_GAP, plot.top + 4, plot.bottom - 4)
    for rank in sorted(range(len(shown)), key=lambda rank: shown[rank] == p.index):
        i, end, place = shown[rank], ends[rank], places[rank]
        best = i == p.index
        colour = ACCENT if best else category(rank)
        canvas.line([(plot.right, end), (plot.right + 9, end), (plot.right + 23, place), (plot.right + 28, place)], colour, 1.5)
        if p.draws > 1 and np.isfinite(p.scores[i]):
            canvas.dot(plot.right, y(float(p.scores[i])), 6.5, PAPER, outline=colour, thick=1.5)
        canvas.dot(plot.right, end, 4 if best else 3, colour)
        canvas.text(plot.right + _LEADER, place + SMALL * 0.36, short[i], SMALL, ACCENT if best else INK, bold=best)
