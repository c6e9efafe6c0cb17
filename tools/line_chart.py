"""A small line chart as a PNG, drawn with the package's own canvas: measured curves for docs/."""
from __future__ import annotations

import math
import pathlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "python"))
from fusedx.explain import typeface  # noqa: E402
from fusedx.explain.canvas import Box, Canvas  # noqa: E402
from fusedx.explain.scale import Scale, ticks  # noqa: E402
from fusedx.explain.theme import HAIRLINE, HEADING, INK, SECONDARY, SMALL, ZERO, Colour, category  # noqa: E402

_LEFT, _TOP, _BOTTOM, _LABEL_GAP = 76.0, 76.0, 58.0, 18.0


@dataclass(frozen=True)
class Line:
    """x positive and increasing (the axis is logarithmic), y the same length."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


def draw(path: pathlib.Path, title: str, x_name: str, y_name: str, lines: Sequence[Line], size: tuple[int, int] = (900, 480)) -> None:
    """Write the chart.  Each line is named at its right end, in its colour; y has a linear axis, x marks the points that occur."""
    canvas = Canvas(*size)
    labels = max(typeface.width(line.name, SMALL) for line in lines)
    plot = Box(_LEFT, _TOP, size[0] - labels - 48, size[1] - _BOTTOM)
    across = sorted({v for line in lines for v in line.x})
    values = [v for line in lines for v in line.y]
    pad = 0.06 * (max(values) - min(values) or 1.0)
    x = Scale(math.log2(across[0]), math.log2(max(across[-1], 2 * across[0])), plot.left + 8, plot.right - 8)
    y = Scale(min(values) - pad, max(values) + pad, plot.bottom, plot.top)

    canvas.text(24, 36, title, HEADING, INK, bold=True)
    canvas.text(24, 60, y_name, SMALL, SECONDARY)
    for value in ticks(y.low, y.high, 6):
        canvas.line([(plot.left, y(value)), (plot.right, y(value))], HAIRLINE)
        canvas.text(plot.left - 10, y(value) + 5, f"{value:g}", SMALL, SECONDARY, align="right")
    canvas.line([(plot.left, plot.bottom), (plot.right, plot.bottom)], ZERO)
    for value in across:
        canvas.text(x(math.log2(value)), plot.bottom + 22, f"{value:g}", SMALL, SECONDARY, align="middle")
    canvas.text(plot.right, size[1] - 12, x_name, SMALL, SECONDARY, align="right")
    for place, line in enumerate(lines):
        _draw(canvas, line, x, y, category(place))
    for place, at in _apart([y(line.y[-1]) for line in lines]):
        canvas.text(plot.right + 10, at + 5, lines[place].name, SMALL, category(place))
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.finish().save(path, optimize=True)


def _draw(canvas: Canvas, line: Line, x: Scale, y: Scale, colour: Colour) -> None:
    points = [(x(math.log2(a)), y(b)) for a, b in zip(line.x, line.y, strict=True)]
    canvas.line(points, colour, 2)
    for point in points:
        canvas.dot(*point, 3.5, colour)


def _apart(wanted: Sequence[float]) -> list[tuple[int, float]]:
    """(place, position) of labels in order down the page, at least a line's height from one to the next."""
    out: list[tuple[int, float]] = []
    for place in sorted(range(len(wanted)), key=wanted.__getitem__):
        lowest = out[-1][1] + _LABEL_GAP if out else -math.inf
        out.append((place, max(wanted[place], lowest)))
    return out
