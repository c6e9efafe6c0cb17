"""The curve as a picture: on the left how often the label stays, on the right how far probabilities move, beside what the noise changes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image

from fusedx.calibrate.curve import Curve, Point
from fusedx.explain.canvas import Box, Canvas
from fusedx.explain.scale import Scale, decimals, ticks
from fusedx.explain.theme import BODY, HAIRLINE, HEADING, INK, PAPER, SECONDARY, SMALL, TRACK, ZERO, Colour, category

WIDTH, HEIGHT = 1400, 660
_LEFT = Box(104, 132, 660, 500)
_RIGHT = Box(790, 132, 1346, 500)
_MARGIN = 48.0
#: Between the solvers' points of one number of steps.
_APART = 9.0
_WHISKER = 4.0


def draw(curve: Curve, subtitle: str) -> Image.Image:
    """RGB, 1400 x 660."""
    canvas = Canvas(WIDTH, HEIGHT)
    solvers = list(dict.fromkeys(point.solver for point in curve.points))
    counts = sorted({point.steps for point in curve.points})
    canvas.text(_MARGIN, 46, "Fewer steps against the published chain, on the same noise", HEADING, INK, bold=True)
    canvas.text(_MARGIN, 72, subtitle, SMALL, SECONDARY, limit=WIDTH - 2 * _MARGIN)
    _agreement(canvas, curve, solvers, counts)
    _shift(canvas, curve, solvers, counts)
    _legend(canvas, solvers)
    return canvas.finish()


def _agreement(canvas: Canvas, curve: Curve, solvers: list[str], counts: list[int]) -> None:
    low = min(p.agree.low for p in (curve.floor, *curve.points))
    y = Scale(max(0.0, math.floor(low * 20 - 0.2) / 20), 1.0, _LEFT.bottom, _LEFT.top)
    x = _steps(counts, _LEFT)
    floor = curve.floor.agree
    canvas.rectangle(Box(_LEFT.left, y(floor.high), _LEFT.right, y(floor.low)), fill=TRACK)
    _axes(canvas, _LEFT, x, y, counts, "Label agrees (share of pictures, 95 % interval)", percent=True)
    canvas.line([(_LEFT.left, y(floor.value)), (_LEFT.right, y(floor.value))], SECONDARY, 1.5)
    for place, points in _series(curve, solvers):
        shift = _offset(place, len(solvers))
        canvas.line([(x(math.log(p.steps)) + shift, y(p.agree.value)) for p in points], category(place), 2)
        for p in points:
            at = x(math.log(p.steps)) + shift
            _interval(canvas, at, y(p.agree.low), y(p.agree.high), category(place))
            canvas.dot(at, y(p.agree.value), 4, category(place))


def _shift(canvas: Canvas, curve: Curve, solvers: list[str], counts: list[int]) -> None:
    most = max(p.shift_95 for p in (curve.floor, *curve.points))
    y = Scale(0.0, max(1.08 * most, 1e-6), _RIGHT.bottom, _RIGHT.top)
    x = _steps(counts, _RIGHT)
    _axes(canvas, _RIGHT, x, y, counts, "Largest change of a probability (dot: mean; ring: 95th percentile)", percent=False)
    for value in (curve.floor.mean_shift, curve.floor.shift_95):
        canvas.line([(_RIGHT.left, y(value)), (_RIGHT.right, y(value))], SECONDARY, 1.5)
    for place, points in _series(curve, solvers):
        shift = _offset(place, len(solvers))
        for values in ([p.mean_shift for p in points], [p.shift_95 for p in points]):
            canvas.line([(x(math.log(p.steps)) + shift, y(v)) for p, v in zip(points, values, strict=True)], category(place), 1.5)
        for p in points:
            at = x(math.log(p.steps)) + shift
            canvas.dot(at, y(p.shift_95), 4, PAPER, outline=category(place), thick=1.5)
            canvas.dot(at, y(p.mean_shift), 4, category(place))


def _legend(canvas: Canvas, solvers: list[str]) -> None:
    x, y = _MARGIN, HEIGHT - 52
    for place, solver in enumerate(solvers):
        canvas.line([(x, y - 5), (x + 26, y - 5)], category(place), 2)
        canvas.dot(x + 13, y - 5, 4, category(place))
        x = canvas.text(x + 36, y, solver, BODY, INK).right + 34
    canvas.line([(x, y - 5), (x + 26, y - 5)], SECONDARY, 1.5)
    canvas.text(x + 36, y, "the published chain with another seed: what the noise alone changes (grey band: its interval)", BODY, SECONDARY)


def _series(curve: Curve, solvers: list[str]) -> list[tuple[int, list[Point]]]:
    by_steps = sorted(curve.points, key=lambda p: p.steps)
    return [(place, [p for p in by_steps if p.solver == solver]) for place, solver in enumerate(solvers)]


def _steps(counts: Sequence[int], plot: Box) -> Scale:
    """Logarithmic, with room on either side."""
    low, high = math.log(counts[0]), math.log(counts[-1])
    pad = 0.08 * (high - low) if high > low else 1.0
    return Scale(low - pad, high + pad, plot.left, plot.right)


def _offset(place: int, of: int) -> float:
    return (place - (of - 1) / 2) * _APART


def _interval(canvas: Canvas, x: float, low: float, high: float, colour: Colour) -> None:
    canvas.line([(x, low), (x, high)], colour, 1.5)
    for end in (low, high):
        canvas.line([(x - _WHISKER, end), (x + _WHISKER, end)], colour, 1.5)


def _axes(canvas: Canvas, plot: Box, x: Scale, y: Scale, counts: Sequence[int], title: str, *, percent: bool) -> None:
    values = ticks(y.low, y.high, 6)
    digits = decimals([v * 100 for v in values] if percent else values)
    for value in values:
        at = y(value)
        canvas.line([(plot.left, at), (plot.right, at)], ZERO if value == 0 else HAIRLINE, 1)
        text = f"{value * 100:.{digits}f} %" if percent else f"{value:.{digits}f}"
        canvas.text(plot.left - 10, at + SMALL * 0.36, text, SMALL, SECONDARY, align="right")
    last = -math.inf
    for count in counts:
        at = x(math.log(count))
        canvas.line([(at, plot.bottom), (at, plot.bottom + 5)], SECONDARY, 1)
        if at - last > 30:
            canvas.text(at, plot.bottom + 24, f"{count}", SMALL, SECONDARY, align="middle")
            last = at
    canvas.line([(plot.left, plot.bottom), (plot.right, plot.bottom)], SECONDARY, 1)
    canvas.text((plot.left + plot.right) / 2, plot.bottom + 50, "steps", BODY, INK, align="middle")
    canvas.text(plot.left - 56, plot.top - 20, title, BODY, INK, limit=plot.width + 60)
