"""Golden cases: outputs of the original authors' code in float64, on inputs that are drawn from a seed.

A case is ``NAME.json`` (settings) beside ``NAME.npz`` (arrays); tests/golden/README.md describes both.  The inputs are pure
functions of (seed, name, element index), so the same numbers come out on any machine: splitmix64 over the index, keyed by the
SHA-256 of "seed/name".  Nothing that lies beside a case is executed.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fusedx.engine.errors import ConfigError

_U64 = np.uint64


@dataclass(frozen=True, slots=True)
class GoldenCase:
    """Settings, inputs (x float32 [B,3,224,224], noise float64 [T,B,C] or [2,B,C]) and expected arrays of one case."""

    name: str
    family: str
    x: np.ndarray
    noise: np.ndarray
    expected: dict[str, np.ndarray]


def load(path: str | os.PathLike[str]) -> GoldenCase:
    """Read CASE.json and the CASE.npz beside it; ConfigError says what is missing."""
    file = Path(path)
    try:
        case = json.loads(file.read_text(encoding="utf-8"))
        with np.load(file.with_suffix(".npz"), allow_pickle=False) as arrays:
            expected = {name: arrays[name] for name in arrays.files}
        seed, family, shape = case["seed"], case["family"], tuple(case["image"])
        rows = (shape[0], case["num_classes"])
        if family == "diffmic-v1":
            noise = normal(seed, "z", (case["test_timesteps"], *rows))
        elif family == "diffmic-v2":
            noise = np.stack([uniform(seed, name, rows) for name in ("u_global", "u_local")])
        else:
            raise ConfigError(f"{file}: family {family!r} is not diffmic-v1 or diffmic-v2")
    except OSError as error:
        raise ConfigError(f"{error.filename or file} cannot be read: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{file} is not a golden case: {error}") from None
    return GoldenCase(case.get("case", file.stem), family, image(seed, "x", shape), noise, expected)


def uniform(seed: int, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """float64 in [0,1), 53 random bits an element, C order."""
    key = int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "little")
    count = int(np.prod(shape, dtype=np.int64))
    with np.errstate(over="ignore"):
        z = _U64(key) + np.arange(1, count + 1, dtype=_U64) * _U64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> _U64(30))) * _U64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> _U64(27))) * _U64(0x94D049BB133111EB)
        z = z ^ (z >> _U64(31))
    return ((z >> _U64(11)).astype(np.float64) * 2.0**-53).reshape(shape)


def normal(seed: int, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """float64 standard normal by Box-Muller."""
    u1, u2 = 1.0 - uniform(seed, f"{name}/u1", shape), uniform(seed, f"{name}/u2", shape)
    return np.sqrt(-2.0 * np.log(u1)) * np.cos(2.0 * np.pi * u2)


def image(seed: int, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """float32 [N,C,H,W]: noise on a 15x15 lattice enlarged bilinearly, plus a little white noise, so that neighbours correlate."""
    n, c, h, w = shape

    def centred(part: str, size: tuple[int, ...], std: float) -> np.ndarray:
        return (2.0 * uniform(seed, f"{name}/{part}", size) - 1.0) * (std * 3.0**0.5)

    lattice = centred("grid", (n, c, 15, 15), 1.0)
    y, x = np.linspace(0, 14, h), np.linspace(0, 14, w)
    top, left = np.minimum(y.astype(int), 13), np.minimum(x.astype(int), 13)
    down, right = (y - top)[:, None], (x - left)[None, :]
    rows = [lattice[:, :, top + i] for i in (0, 1)]
    upper, lower = (r[:, :, :, left] * (1 - right) + r[:, :, :, left + 1] * right for r in rows)
    return (upper * (1 - down) + lower * down + centred("white", shape, 0.1)).astype(np.float32)
