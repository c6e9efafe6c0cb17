"""Contenders take turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping


def alternate(contenders: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Each contender once a round, another one first in each, so that clocks and temperature drift for all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for i in range(rounds):
        first = i % len(names) if names else 0
        for name in names[first:] + names[:first]:
            seconds[name].append(contenders[name]())
    return seconds
