"""``params.cuh`` for Python: the structs as ctypes sees them, filled from a plan, and the status word read back."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping

from fusedx.kernels.chain.plan import ChainPlan

#: In the order of their numbers in ``params.cuh``.
FAMILIES = ("posterior", "ddim")
# A table row holds the coefficients of kernels/step in their order; the DDIM row ends with two zeros.

_P = ctypes.c_void_p
_I = ctypes.c_int32


class ChainControl(ctypes.Structure):
    """Device memory that the host clears before each launch; ``status`` is not zero when the chain was given up."""

    _fields_ = [("arrived", ctypes.c_uint32), ("unused", ctypes.c_uint32), ("status", ctypes.c_uint64)]


class ChainParams(ctypes.Structure):
    """The kernel's one argument.  Shapes of what the pointers point at: ``params.cuh``."""

    _fields_ = [
        ("weight", _P * 2),
        ("scale", _P * 3),
        ("shift", _P * 3),
        *((name, _P) for name in ("weight_y", "constant", "feature", "weight4", "bias4", "entry", "table_row", "coefficients")),
        *((name, _P) for name in ("mean", "noise", "states", "hidden", "partial", "control")),
        ("watchdog_ns", ctypes.c_uint64),
        *((name, _I) for name in ("family", "steps", "rows", "classes", "k", "tiles", "stages_a_tile", "ring_stages")),
        ("resident", _I * 2),
        ("kept", _I * 2),
    ]


POINTERS = tuple(name for name, kind, *_ in ChainParams._fields_ if kind in (_P, _P * 2, _P * 3))
MAY_BE_NULL = ("mean", "noise")


def chain_params(
    plan: ChainPlan, pointers: Mapping[str, int | tuple[int, ...]], *, family: str, steps: int, rows: int, watchdog_s: float = 2.0
) -> ChainParams:
    """The struct for a launch of ``rows`` <= plan.rows rows and ``steps`` steps.

    ``pointers``: an address for every name in ``POINTERS``, a tuple of them for weight (2), scale and shift (3); ``mean`` may be
    absent (a prior mean of zero), ``noise`` for DDIM.  ``watchdog_s``: the longest wait of one block for the others, not the
    length of the chain.  Raises ValueError for anything else: the kernel itself checks nothing.  Left to the caller: every ``entry``
    is below M, every ``table_row`` is a row of the tables, ``control`` is cleared before each launch.
    """
    if family not in FAMILIES:
        raise ValueError(f"family {family!r} is not known; known: {', '.join(FAMILIES)}")
    if not 1 <= rows <= plan.rows:
        raise ValueError(f"rows must be from 1 to {plan.rows}, the plan's rows a launch, got {rows}")
    if not 1 <= steps <= 1_000_000:
        raise ValueError(f"steps must be from 1 to 1000000, got {steps}")
    if not 0.0 < watchdog_s <= 3600.0:
        raise ValueError(f"watchdog_s must be above 0 and at most 3600 seconds, got {watchdog_s}")
    params = ChainParams()
    _set_pointers(params, dict(pointers), noise_needed=family == "posterior" and steps > 1)
    params.watchdog_ns = int(watchdog_s * 1e9)
    params.family, params.steps, params.rows, params.classes = FAMILIES.index(family), steps, rows, plan.classes
    params.k, params.tiles, params.stages_a_tile = plan.shape.k, plan.shape.tiles, plan.shape.stages_a_tile
    params.ring_stages = plan.ring_stages
    params.resident, params.kept = (_I * 2)(*plan.resident), (_I * 2)(*plan.kept)
    return params


def _set_pointers(params: ChainParams, pointers: dict[str, int | tuple[int, ...]], *, noise_needed: bool) -> None:
    if unknown := sorted(set(pointers) - set(POINTERS)):
        raise ValueError(f"unknown pointers {unknown}; known: {', '.join(POINTERS)}")
    for name in POINTERS:
        given = pointers.get(name, 0)
        field = getattr(params, name)
        count = len(field) if isinstance(field, ctypes.Array) else 1
        values = given if isinstance(given, tuple) else (given,)
        optional = name in MAY_BE_NULL and not (name == "noise" and noise_needed)
        if len(values) != count or not (optional or all(values)):
            raise ValueError(f"pointer {name}: expected {count} address{'es' if count > 1 else ''}, got {given}")
        if any(value % 16 for value in values):
            raise ValueError(f"pointer {name}: the kernel reads 16 bytes at a time, so the address must be a multiple of 16")
        setattr(params, name, (_P * count)(*values) if count > 1 else values[0])


def failure(status: int) -> str | None:
    """What a status word says: None for a chain that ran to its end."""
    if status == 0:
        return None
    code, barrier, block, step = status >> 56, status >> 48 & 0xFF, status >> 32 & 0xFFFF, status & 0xFFFFFFFF
    if code != 1:
        return f"the chain kernel left status {status:#x}, which it never writes: its memory was overwritten"
    after = ("layer 2", "layer 3")[min(barrier, 1)]
    return (
        f"the chain kernel gave up at step {step}: block {block} waited too long for the others after {after};"
        " another program may hold part of the GPU, or the GPU may have failed"
    )
