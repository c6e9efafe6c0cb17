"""A choice by name from a table: what cannot run here is an error that lists what can, never a silent fallback."""

from __future__ import annotations

from collections.abc import Mapping

from fusedx.engine.errors import UnavailableError


def require_usable(kind: str, name: object, choices: Mapping[str, str | None], *, also: tuple[str, ...] = ()) -> None:
    """UnavailableError unless ``choices[name]`` is None (usable; otherwise the reason why not).

    kind: what is chosen, for the message.  also: further names that the caller understands and the list should show.
    """
    if not isinstance(name, str) or name not in choices:
        raise UnavailableError(f"unknown {kind} {name!r}; there are: {', '.join((*also, *choices))}")
    if choices[name] is not None:
        usable = ", ".join(n for n, reason in choices.items() if reason is None)
        raise UnavailableError(f"{kind} {name!r} cannot run here: {choices[name]}. Usable: {usable}")
