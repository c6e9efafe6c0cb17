"""Calls checked against the signatures that pybind11 writes into the binding classes' docstrings."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Parameter:
    name: str
    type: str
    optional: bool


def overloads(method: Any) -> list[list[Parameter]]:
    """Each overload's parameters, self left out."""
    lines = [line.strip() for line in (method.__doc__ or "").splitlines()]
    pattern = rf"(?:\d+\. )?{method.__name__}\((self: .*)\) -> .*"
    found = [match[1] for line in lines if (match := re.fullmatch(pattern, line))]
    return [[_parameter(text) for text in _split(arguments)[1:]] for arguments in found]


def _split(text: str) -> list[str]:
    parts, depth = [""], 0
    for character in text:
        depth += {"[": 1, "<": 1, "(": 1, "]": -1, ">": -1, ")": -1}.get(character, 0)
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def _parameter(text: str) -> Parameter:
    name, _, rest = text.partition(": ")
    kind, equals, _ = rest.partition(" = ")
    return Parameter(name, kind, bool(equals))


def check_call(real: type, name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
    """TypeError unless some overload of ``real.name`` takes these arguments."""
    choices = overloads(getattr(real, name))
    if not choices:
        raise TypeError(f"{real.__name__}.{name} has no signature in its documentation")
    problems = [problem for choice in choices if (problem := _mismatch(real, choice, arguments, keywords))]
    if len(problems) == len(choices):
        raise TypeError(f"{real.__name__}.{name}: {'; or '.join(problems)}")


def _mismatch(real: type, parameters: list[Parameter], arguments: tuple[Any, ...], keywords: dict[str, Any]) -> str | None:
    if len(arguments) > len(parameters):
        return f"takes {len(parameters)} arguments, got {len(arguments)}"
    given = dict(zip((p.name for p in parameters), arguments, strict=False))
    if unknown := [k for k in keywords if k in given or k not in {p.name for p in parameters}]:
        return f"has no further argument {unknown[0]}"
    given |= keywords
    for p in parameters:
        if p.name not in given:
            if not p.optional:
                return f"needs {p.name}"
        elif not _fits(real, given[p.name], p.type):
            return f"{p.name} must be {p.type}, got {type(given[p.name]).__name__}"
    return None


def _fits(real: type, value: Any, kind: str) -> bool:
    simple = {
        "typing.SupportsInt": int, "str": str, "bool": bool, "tuple": tuple, "list": list,
        "typing_extensions.Buffer": (bytes, bytearray, memoryview),
    }  # fmt: skip
    if kind in simple:
        return isinstance(value, simple[kind]) and (kind == "bool" or not isinstance(value, bool))
    prefix = f"{real.__module__}."
    if kind.startswith(prefix) and kind.removeprefix(prefix).isidentifier():
        wanted = kind.removeprefix(prefix)
        stands_for = value.real if isinstance(value, Standin) else object
        return wanted in {c.__name__ for c in (*type(value).__mro__, *stands_for.__mro__)}
    raise TypeError(f"the type {kind} is unknown to this check")


class Standin:
    """Base of fakes.  ``real``: the binding class; public names and their arguments must be its own."""

    real: type

    def __init_subclass__(cls, real: type, **more: Any) -> None:
        super().__init_subclass__(**more)
        cls.real = real
        for name, member in list(vars(cls).items()):
            if name.startswith("_") and not (name == "__init__" and overloads(real.__init__)):
                continue
            if name == "real":
                continue
            if not hasattr(real, name):
                raise AttributeError(f"{real.__name__} has no {name}")
            if isinstance(member, property) != isinstance(getattr(real, name), property):
                here, there = ("", "not ") if isinstance(member, property) else ("not ", "")
                raise AttributeError(f"{real.__name__}.{name} is {here}a property in the stand-in and {there}one in the binding")
            if callable(member):
                setattr(cls, name, _checked(real, name, member))

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            raise AttributeError(f"{self.real.__name__}.{name} is not set by fusedx: add it to the stand-in")
        super().__setattr__(name, value)


def _checked(real: type, name: str, function: Any) -> Any:
    @functools.wraps(function)
    def call(self: Any, *arguments: Any, **keywords: Any) -> Any:
        check_call(real, name, arguments, keywords)
        return function(self, *arguments, **keywords)

    return call
