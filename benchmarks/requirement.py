"""What must be reached, beside what was measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """``value``: what was measured, None where it was not.  ``at_least``: larger is better.  note: what else belongs beside it."""

    text: str
    value: float | None
    bound: float
    unit: str
    at_least: bool
    note: str = ""

    @property
    def met(self) -> bool | None:
        """None where nothing was measured."""
        if self.value is None:
            return None
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def __str__(self) -> str:
        verdict = {True: "reached", False: "NOT REACHED", None: "not measured"}[self.met]
        measured = "" if self.value is None else f": {self.value:.3g} {self.unit}"
        sign = ">=" if self.at_least else "<="
        note = "".join(f"\n{'':13}{part}" for part in self.note.split("; ")) if self.note else ""
        return f"{verdict:12} {self.text}{measured} (must be {sign} {self.bound:g} {self.unit}){note}"
