"""The noise of a chain: a pure function of (seed, image, draw, step, class), and of nothing else.

So a prediction never depends on batch size, order, sharding or resume.  The generator is Philox4x32-10 (Salmon et al., SC'11),
keyed by the seed and the SHA-256 of the decoded pixels; its counter is (draw, step, class, 0).
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np

from fusedx.engine.errors import ConfigError, require_int
from fusedx.engine.limits import MAX_SEED
from fusedx.engine.schedule import Schedule, posterior_coefficients
from fusedx.kernels import philox


def noise_key(seed: int, image_sha256: str) -> np.ndarray:
    """uint32 [2]: the first 8 bytes of SHA-256("fusedx-noise-1" | seed, 8 bytes little-endian | image digest, 32 bytes)."""
    seed = require_int("seed", seed, 0, MAX_SEED)
    if len(image_sha256) != 64 or set(image_sha256) - set("0123456789abcdef"):
        raise ConfigError(f"image_sha256 must be 64 hexadecimal digits, got {image_sha256!r:.80}")
    digest = hashlib.sha256(b"fusedx-noise-1" + seed.to_bytes(8, "little") + bytes.fromhex(image_sha256)).digest()
    return np.frombuffer(digest[:8], "<u4").astype(np.uint32)


def draw_noise(
    family: str, steps: int, classes: int, image_sha256: str, *, seed: int, draws: int, first_draw: int = 0
) -> np.ndarray:
    """float64 [T,D,C] standard normal for DiffMIC, [2,D,C] uniform on [0,1) for DiffMIC-v2; draws first_draw .. first_draw+D-1."""
    v2 = family == "diffmic-v2"
    rows = 2 if v2 else steps
    counters = np.zeros((rows, draws, classes, 4), np.uint32)
    counters[..., 0] = np.arange(first_draw, first_draw + draws, dtype=np.uint32)[:, None]
    counters[..., 1] = np.arange(rows, dtype=np.uint32)[:, None, None]
    counters[..., 2] = np.arange(classes, dtype=np.uint32)
    sample = philox.uniform if v2 else philox.normal
    return sample(noise_key(seed, image_sha256), counters.reshape(-1, 4)).reshape(rows, draws, classes)


def started(noise: np.ndarray, start: str, schedule: Schedule) -> np.ndarray:
    """DiffMIC's noise [T,D,C] for another start than the published one: only noise[0], by which the start leaves its mean, is changed.

    published: p + z.  The chain starts with unit variance however short it is.  matched: p + s_{T-1} z, the standard deviation that a
    diffused state has at the chain's first step.  mean: p, no noise at all (the later steps keep theirs).  With ``noise_prior`` p is zero.
    """
    if start == "published":
        return noise
    factor = _deviation(schedule) if start == "matched" else 0.0
    return np.concatenate([noise[:1] * factor, noise[1:]])


@lru_cache(maxsize=16)
def _deviation(schedule: Schedule) -> float:
    """s_{T-1}."""
    return float(posterior_coefficients(schedule).s[-1])
