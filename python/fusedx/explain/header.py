"""Top and bottom of the page: the result in large letters, and where it comes from."""

from __future__ import annotations

import re

import numpy as np

from fusedx.explain import typeface
from fusedx.explain.bars import percent
from fusedx.explain.canvas import Box, Canvas
from fusedx.explain.evidence import Evidence
from fusedx.explain.theme import ACCENT, BODY, HAIRLINE, HEADING, HUGE, INK, LARGE, SECONDARY, SMALL
from fusedx.prediction import Prediction

WARNING = "Research software. Not for clinical use."
_COLUMN = 280.0
_TWO_LINES = 28  # size of a label that does not fit on one line
_INSIDE = _COLUMN - 28
_BESIDE = 9.0  # between a label and its number


def draw_header(canvas: Canvas, evidence: Evidence, names: list[str], panel: Box) -> None:
    """File, predicted label and probability; on the right the prior encoder's own answer, and stability."""
    p = evidence.prediction
    columns = [_prior_column(evidence, names)]
    if p.draws > 1:
        columns.insert(0, _stability_column(evidence))
    left = panel.right - _COLUMN * len(columns)
    for i, (title, value, number, note) in enumerate(columns):
        x = left + i * _COLUMN + 24
        canvas.line([(x - 20, panel.top + 4), (x - 20, panel.bottom - 4)], HAIRLINE, 1)
        canvas.text(x, panel.top + 18, title, SMALL, SECONDARY)
        size = next((s for s in (LARGE, HEADING, 18) if _beside(value, number, s) <= _INSIDE), BODY)
        end = canvas.text(x, panel.top + 54, value, size, INK).right
        canvas.text(end + _BESIDE, panel.top + 54, number, size, SECONDARY)
        canvas.text(x, panel.top + 80, note, SMALL, SECONDARY, limit=_INSIDE)
    room = left - panel.left - 40
    _draw_source(canvas, p, panel.left, panel.top + 16, room)
    _draw_result(canvas, names, p.index, percent(float(p.probabilities[p.index])), panel.left, panel.top + 76, room)


def _draw_source(canvas: Canvas, p: Prediction, x: float, baseline: float, room: float) -> None:
    """The file's name, and beside it that the result is not the published chain's, where that is so."""
    approximate = p.provenance.get("approximate")
    if approximate:
        marked = f"APPROXIMATE: {approximate['solver']}, {approximate['steps']} steps"
        box = canvas.text(x, baseline, marked, BODY, ACCENT, bold=True)
        x, room = box.right + 18, room - box.width - 18
    canvas.text(x, baseline, file_name(p.source), BODY, SECONDARY, limit=room)


def draw_footer(canvas: Canvas, evidence: Evidence, panel: Box, *, letters_lost: bool) -> None:
    """Everything needed to make the same page again."""
    p = evidence.prediction
    origin = p.provenance
    canvas.line([(panel.left, panel.top), (panel.right, panel.top)], HAIRLINE, 1)
    draws = "1 draw" if p.draws == 1 else f"{p.draws} draws"
    if origin.get("start") not in (None, "published"):
        draws += f" from the {origin['start']} start"
    model = typeface.shorten(typeface.drawable(str(origin["model"]))[0], SMALL, 420)
    how = f"{origin['approximate']['solver']}, {evidence.steps} steps" if origin.get("approximate") else f"{evidence.steps} steps"
    first = f"Model {model} · {origin['family']} · {how} · {draws} · seed {origin['seed']}"
    if origin.get("temperature"):
        first += f" · temperature {origin['temperature']:.4g}"
    second = f"Image SHA-256 {p.image_sha256[:12]} · model digest {str(origin['model_sha256'])[:12]} · fusedx {origin['fusedx']}"
    if letters_lost:
        second += " · class names hold letters that the built-in font lacks; class numbers count from 0"
    room = panel.width - typeface.width(WARNING, BODY, bold=True) - 40
    canvas.text(panel.left, panel.top + 28, first, SMALL, SECONDARY, limit=room)
    canvas.text(panel.left, panel.top + 50, second, SMALL, SECONDARY, limit=room)
    canvas.text(panel.right, panel.top + 28, WARNING, BODY, INK, align="right", bold=True)


def file_name(source: str) -> str:
    """The last part of a path, of any system; other sources are named as they are."""
    return re.split(r"[/\\]", source.rstrip("/\\"))[-1] or source


def _draw_result(canvas: Canvas, names: list[str], index: int, probability: str, x: float, baseline: float, room: float) -> None:
    """The label as large as its length allows, and its probability right after it; a long label takes two lines."""
    for size in range(HUGE, _TWO_LINES + 1, -2):
        tail = typeface.width(probability, size, bold=True) + size * 0.5
        if typeface.width(names[index], size, bold=True) + tail <= room:
            lines = [names[index]]
            break
    else:
        size = _TWO_LINES
        tail = typeface.width(probability, size, bold=True) + size * 0.5
        lines = _in_two(names, index, size, room - tail)
    if len(lines) == 2:
        canvas.text(x - typeface.bearing(lines[0], size), baseline - 25, lines[0], size, INK, bold=True)
        baseline += 9
    box = canvas.text(x - typeface.bearing(lines[-1], size), baseline, lines[-1], size, INK, bold=True)
    canvas.text(box.right + size * 0.45, baseline, probability, size, ACCENT, bold=True)


def _in_two(names: list[str], index: int, size: int, room: float) -> list[str]:
    """As many whole words as fit, then the rest, shortened if it must be; a single endless word is shortened to one line."""
    words = names[index].split()
    first = max((n for n in range(1, len(words)) if typeface.width(" ".join(words[:n]), size, bold=True) <= room), default=0)
    if first == 0:
        return [typeface.shorten_all(names, size, room, bold=True)[index]]
    return [" ".join(words[:first]), typeface.shorten(" ".join(words[first:]), size, room, bold=True)]


def _beside(value: str, number: str, size: int) -> float:
    return typeface.width(value, size) + _BESIDE + typeface.width(number, size)


def _prior_column(evidence: Evidence, names: list[str]) -> tuple[str, str, str, str]:
    """Title, label, number, remark."""
    p = evidence.prediction
    own = int(np.argmax(p.prior))
    probability = percent(float(p.prior[own]))
    label = typeface.shorten_all(names, BODY, _INSIDE - _beside("", probability, BODY))[own]
    return "Prior encoder alone", label, probability, "same label" if own == p.index else "another label than the result"


def _stability_column(evidence: Evidence) -> tuple[str, str, str, str]:
    """Title, label, number, remark."""
    p = evidence.prediction
    agreeing = round(p.stability * p.draws)
    remark = "undecided: depends on the noise" if p.undecided else "draws that give this label on their own"
    return "Stability", f"{agreeing} of {p.draws}", percent(p.stability), remark
