"""The noise of a chain: a pure function of (seed, image, draw, step, class), and of nothing else.

So a prediction never depends on batch size, order, sharding or resume.  The generator is Philox4x32-10 (Salmon et al., SC'11),
keyed by the seed and the SHA-256 of the decoded pixels; its counter is (draw, step, class, 0).
"""

from __future__ import annotations

import hashlib

import numpy as np

from fusedx.engine.errors import ConfigError, require_int
from fusedx.engine.limits import MAX_SEED
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
