"""The one font that Pillow always has, what it can draw, and how wide that is.

Pillow embeds a subset of Aileron: ASCII and a few signs.  Other letters are rewritten or replaced before they are measured.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import lru_cache

from PIL import ImageFont

from fusedx.explain.theme import SCALE

_REWRITTEN = {
    "ß": "ss", "Ø": "O", "ø": "o", "Æ": "AE", "æ": "ae", "Œ": "OE", "œ": "oe", "Ł": "L", "ł": "l", "Đ": "D", "đ": "d", "ı": "i",
    "\u2010": "-", "\u2011": "-", "\u2012": "-", "\u2013": "-", "\u2014": "-", "\u2212": "-", "×": "x", "≤": "<=", "≥": ">=", "•": "·",
}  # fmt: skip
LOST = "?"
TRACKING = 1  # pixels of the bitmap between bold letters, which are the plain ones with a stroke of one pixel around them
MAX_LETTERS = 400


@lru_cache(maxsize=64)
def font(size: int) -> ImageFont.FreeTypeFont:
    """The embedded font for text of ``size`` final pixels.  Basic layout, so the optional raqm library changes nothing."""
    face = ImageFont.load_default(size * SCALE)
    assert isinstance(face, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return face.font_variant(layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=4096)
def has_glyph(letter: str) -> bool:
    """Whether the font draws this letter, and not the box that stands for a missing one."""
    face = font(20)
    return bytes(face.getmask(letter)) != bytes(face.getmask("\uffff"))


def drawable(text: str) -> tuple[str, bool]:
    """``text`` in letters that the font has, on one line, and whether something was lost.

    Accents fall away ("é" becomes "e") and typographic dashes become "-"; what remains unknown becomes "?".
    """
    out, lost = [], False
    for letter in unicodedata.normalize("NFC", text[:MAX_LETTERS]):
        new = _letter(letter)
        lost |= new is None
        out.append(LOST if new is None else new)
    return " ".join("".join(out).split()), lost


def _letter(letter: str) -> str | None:
    if letter in _REWRITTEN:
        return _REWRITTEN[letter]
    if letter.isspace() or not letter.isprintable():
        return " " if letter.isspace() else None
    if has_glyph(letter):
        return letter
    plain = "".join(c for c in unicodedata.normalize("NFKD", letter) if not unicodedata.combining(c))
    return plain if plain and all(has_glyph(c) for c in plain) else None


def class_names(classes: Sequence[str]) -> list[str]:
    """Names to draw, all different.  A name that loses letters, or equals another without its accents, gets its class number."""
    cleaned = [drawable(name) for name in classes]
    texts = [text for text, _ in cleaned]
    names = []
    for i, (text, lost) in enumerate(cleaned):
        if not lost and texts.count(text) == 1:
            names.append(text)
        else:
            names.append(f"class {i} ({text})" if any(c.isalnum() for c in text) else f"class {i}")
    return names


def width(text: str, size: int, bold: bool = False) -> float:
    """Advance width in final pixels."""
    return (font(size).getlength(text) + (len(text) * TRACKING if bold else 0)) / SCALE


def bearing(text: str, size: int) -> float:
    """Pixels between the origin of ``text`` and its ink, so that large letters can start exactly on a margin."""
    return font(size).getbbox(text, anchor="ls")[0] / SCALE


def shorten(text: str, size: int, limit: float, bold: bool = False) -> str:
    """``text``, or its two ends around an ellipsis: names often differ at either end."""
    if width(text, size, bold) <= limit:
        return text
    low, high = 0, len(text)  # letters kept: low fits, high does not
    while high - low > 1:
        middle = (low + high) // 2
        if width(_ends(text, middle), size, bold) <= limit:
            low = middle
        else:
            high = middle
    return _ends(text, low)


def shorten_all(texts: Sequence[str], size: int, limit: float, bold: bool = False) -> list[str]:
    """Each text shortened to ``limit``, all different when the texts are: those that would look the same get their number."""
    short = [shorten(t, size, limit, bold) for t in texts]
    for i in [i for i, s in enumerate(short) if short.count(s) > 1]:
        short[i] = shorten(f"{i}: {texts[i]}", size, limit, bold) if limit > 80 else f"{i}"
    return short


def _ends(text: str, kept: int) -> str:
    head = (kept + 1) // 2
    tail = kept - head
    return text[:head].rstrip() + "…" + (text[-tail:].lstrip() if tail else "")
