"""Text for people: safe to print whatever a file is called, and columns that line up."""

from __future__ import annotations

import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Sequence


def printable(value: str, newlines: bool = False) -> str:
    r"""``value`` with control characters and undecodable bytes as ``\xNN``: a file name must not drive the terminal."""
    return "".join(c if c.isprintable() or (newlines and c == "\n") else _escaped(c) for c in value)


def _escaped(c: str) -> str:
    if "\udc80" <= c <= "\udcff":
        return f"\\x{ord(c) - 0xDC00:02x}"
    return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(c) or (f"\\x{ord(c):02x}" if ord(c) < 256 else f"\\u{ord(c):04x}")


def width(value: str) -> int:
    """Columns that the text takes in a terminal."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in value)


def fit(value: str, columns: int, keep_end: bool = False) -> str:
    """Padded or cut to exactly ``columns``; a cut shows as an ellipsis, at the start where the end matters more (paths)."""
    if width(value) > columns:
        while value and width(value) > columns - 1:
            value = value[1:] if keep_end else value[:-1]
        value = "\u2026" + value if keep_end else value + "\u2026"
    return value + " " * (columns - width(value))


def table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Columns two spaces apart, as wide as their longest cell; those named in ``right`` are aligned to the right."""
    cells = [list(header), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(width(row[i]) for row in cells) for i in range(len(header))]
    lines = []
    for row in cells:
        padded = [
            (" " * (w - width(c)) + c) if i in right else c + " " * (w - width(c)) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def facts(pairs: Sequence[tuple[str, str]], indent: str = "") -> str:
    """``name  value`` lines with the values aligned; a value of several lines, or too long for the terminal, stays in its column."""
    column = max((width(name) for name, _ in pairs), default=0) + 2
    room = shutil.get_terminal_size().columns - column - len(indent) if is_terminal(sys.stdout) else None
    lines = []
    for name, value in pairs:
        first, *more = [part for line in printable(value, newlines=True).split("\n") for part in _wrapped(line, room)]
        lines.append(f"{indent}{name}{' ' * (column - width(name))}{first}".rstrip())
        lines += [f"{indent}{' ' * column}{line}" for line in more]
    return "\n".join(lines)


def _wrapped(line: str, room: int | None) -> list[str]:
    if room is None or room < 20 or width(line) <= room:
        return [line]
    return textwrap.wrap(line, room, break_long_words=False, break_on_hyphens=False)


def size(count: int) -> str:
    """Bytes for people."""
    value, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def is_terminal(stream: object) -> bool:
    """Whether a person looks at this stream."""
    return bool(getattr(stream, "isatty", lambda: False)())
