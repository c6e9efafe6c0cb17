"""The page: what goes where."""

from __future__ import annotations

import numpy as np
from PIL import Image

from fusedx.explain import heat, typeface
from fusedx.explain.bars import draw_bars
from fusedx.explain.canvas import Box, Canvas
from fusedx.explain.chain import draw_chain, subtitle
from fusedx.explain.evidence import Evidence
from fusedx.explain.header import draw_footer, draw_header
from fusedx.explain.regions import draw_frames
from fusedx.explain.theme import HAIRLINE, HEADING, INK, MARGIN, SCALE, SECONDARY, SMALL, WIDTH

_SQUARE = 480
_GAP = 40
_RIGHT = WIDTH - MARGIN
_TOP = 232  # of the three panels' contents
_CHAIN_TOP, _CHAIN_BOTTOM = 856, 1180
HEIGHT = 1300

HEADER = Box(MARGIN, 40, _RIGHT, 136)
PICTURE = Box(MARGIN, _TOP, MARGIN + _SQUARE, _TOP + _SQUARE)
HEAT = Box(PICTURE.right + _GAP, _TOP, PICTURE.right + _GAP + _SQUARE, _TOP + _SQUARE)
BARS = Box(HEAT.right + _GAP, _TOP, _RIGHT, _TOP + _SQUARE)
CHAIN = Box(MARGIN, _CHAIN_TOP, _RIGHT, _CHAIN_BOTTOM)
FOOTER = Box(MARGIN, 1210, _RIGHT, HEIGHT - 36)


def draw_page(evidence: Evidence) -> Canvas:
    """The whole page, still at drawing size."""
    canvas = Canvas(WIDTH, HEIGHT)
    p = evidence.prediction
    names = typeface.class_names(p.classes)
    square = Image.fromarray(evidence.square).resize((_SQUARE * SCALE, _SQUARE * SCALE), Image.Resampling.BICUBIC)
    draw_header(canvas, evidence, names, HEADER)
    canvas.line([(MARGIN, 156), (_RIGHT, 156)], HAIRLINE, 1)
    _draw_picture(canvas, evidence, square)
    _draw_heat(canvas, evidence, square, names)
    scores = "Score of each label" if evidence.task == "multilabel" else "Probability of each class"
    calibrated = "calibrated" if p.provenance.get("temperature") else "not calibrated"
    note = f"{calibrated.capitalize()} · thin mark: the prior encoder alone"
    if p.draws > 1:
        note = f"Mean of {p.draws} draws ± standard error · {calibrated} · mark: prior alone"
    _title(canvas, BARS, scores, note)
    draw_bars(canvas, p, names, BARS, evidence.likely)
    _title(canvas, CHAIN, "Class scores along the chain", subtitle(evidence))
    draw_chain(canvas, evidence, names, CHAIN)
    draw_footer(canvas, evidence, FOOTER, letters_lost=any(typeface.drawable(c)[1] for c in p.classes))
    return canvas


def _title(canvas: Canvas, panel: Box, title: str, note: str) -> None:
    canvas.text(panel.left, panel.top - 40, title, HEADING, INK, bold=True, limit=panel.width)
    canvas.text(panel.left, panel.top - 16, note, SMALL, SECONDARY, limit=panel.width)


def _draw_picture(canvas: Canvas, evidence: Evidence, square: Image.Image) -> None:
    _title(canvas, PICTURE, "What the network sees", "Centre square, 224 x 224; six regions, chosen by all classes' saliency")
    canvas.picture(square, PICTURE)
    draw_frames(canvas, evidence.prediction.patch_locations, PICTURE)
    places = len(np.unique(evidence.prediction.patch_locations, axis=0))
    again = "" if places == len(evidence.prediction.patch_locations) else "; several numbers: chosen again"
    canvas.text(PICTURE.left, PICTURE.bottom + 30, f"Numbered in the order of choice{again}", SMALL, SECONDARY)


def _draw_heat(canvas: Canvas, evidence: Evidence, square: Image.Image, names: list[str]) -> None:
    p = evidence.prediction
    saliency = p.saliency[p.index]
    before, room = "Saliency of ", HEAT.width
    name = typeface.shorten_all(names, HEADING, room - typeface.width(before, HEADING, bold=True), bold=True)[p.index]
    _title(canvas, HEAT, before + name, "Where the prior encoder finds the predicted class, on the picture in grey")
    canvas.picture(heat.overlay(square, saliency), HEAT)
    if saliency.max() > saliency.min():
        _draw_colour_bar(canvas, float(saliency.min()), float(saliency.max()))
    else:
        canvas.text(HEAT.left, HEAT.bottom + 30, "The same everywhere: no place stands out", SMALL, SECONDARY)


def _draw_colour_bar(canvas: Canvas, low: float, high: float) -> None:
    left = canvas.text(HEAT.left, HEAT.bottom + 30, f"low ({low:.2g})", SMALL, SECONDARY).right + 12
    right = canvas.text(HEAT.right, HEAT.bottom + 30, f"high ({high:.2g})", SMALL, SECONDARY, align="right").left - 12
    box = Box(round(left), HEAT.bottom + 18, round(right), HEAT.bottom + 32)
    canvas.picture(heat.colour_bar(int(box.width * SCALE), int(box.height * SCALE)), box)
