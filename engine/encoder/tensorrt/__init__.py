"""The encoder by TensorRT: a plan for this GPU, found in a cache or built, and checked row by row before it answers for anyone.

    libraries   full or lean TensorRT, or why not          typed    the graph in half precision and float32
    platform    what a plan depends on besides the model   cache    plans on disk
    build       typed graph -> plan                        runner   plan -> runs on a stream
    check       every row of every bucket against the reference
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from fusedx.engine.cuda.buckets import IMAGE_BUCKETS
from fusedx.engine.encoder.tensorrt import libraries
from fusedx.engine.encoder.tensorrt.build import build_plan
from fusedx.engine.encoder.tensorrt.cache import PlanCache, PlanKey
from fusedx.engine.encoder.tensorrt.check import Run, WrongPlanError, check_plan, make_references
from fusedx.engine.encoder.tensorrt.platform import Platform
from fusedx.engine.encoder.tensorrt.runner import Execution, Plan
from fusedx.engine.encoder.tensorrt.typed import PRECISIONS
from fusedx.engine.errors import ConfigError, UnavailableError

__all__ = ["PRECISIONS", "Execution", "Plan", "PlanCache", "Platform", "WrongPlanError", "open_plan", "why_not"]

log = logging.getLogger("fusedx")

_INSTALL = "pip install 'fusedx[tensorrt]'"


def why_not(load: Callable[[str], object] = ctypes.CDLL) -> str | None:
    """None where a plan can be run; otherwise the reason.  With the lean runtime alone, plans must have been built elsewhere."""
    full, no_full = libraries.load(libraries.FULL)
    lean, no_lean = libraries.load(libraries.LEAN)
    if full is None and lean is None:
        return f"{no_full}; {no_lean} ({_INSTALL})"
    try:
        load("libcuda.so.1")
    except OSError:
        return "there is no NVIDIA driver here (libcuda.so.1)"
    return None


def open_plan(
    encoder: Path,
    model: str,
    platform: Platform,
    make_run: Callable[[Plan], Run],
    reference: Run,
    *,
    precision: str = "fp16",
    buckets: tuple[int, ...] = IMAGE_BUCKETS,
    version_compatible: bool = False,
    cache: PlanCache | None = None,
) -> Plan:
    """A checked plan of a compiled model's encoder on the current CUDA device.

    encoder: encoder.onnx.  model: SHA-256 of that file and its data.  platform: ``Platform.of`` the current device.
    make_run: given a plan, what runs batches through it on that device (the caller allocates); see ``check.Run``.
    reference: a trusted float32 encoder's ``run``.  buckets: batch sizes.  version_compatible: for the lean runtime and later releases.

    Raises UnavailableError where TensorRT cannot build or load it, and its subclass WrongPlanError, after the cache has forgotten
    the plan, where a row of a batch is wrong.
    """
    _check_arguments(precision, buckets)
    full, lean, why = _modules()
    version_compatible = version_compatible or full is None
    trt = full or lean
    assert trt is not None
    key = PlanKey.of(model, platform, str(trt.__version__), precision, buckets, version_compatible=version_compatible)
    cache = PlanCache() if cache is None else cache
    references = make_references(reference, precision)
    plan = _cached(trt, cache, key)
    if plan is None:
        plan = _built(full, why, encoder, key, cache)
    if plan.buckets != buckets:
        cache.discard(key)
        raise UnavailableError(f"the plan runs batches of {plan.buckets}, expected {buckets}; it has been discarded, try again")
    try:
        check_plan(make_run(plan), references, buckets, precision)
    except WrongPlanError:
        cache.discard(key)
        raise
    return plan


def _check_arguments(precision: str, buckets: tuple[int, ...]) -> None:
    if precision not in PRECISIONS:
        raise UnavailableError(f"TensorRT precision {precision!r} is not available; there is: {', '.join(PRECISIONS)}")
    if not buckets or list(buckets) != sorted(set(buckets)) or buckets[0] < 1:
        raise ConfigError(f"buckets must be ascending positive batch sizes, got {buckets}")


def _modules() -> tuple[ModuleType | None, ModuleType | None, str]:
    """(full, lean, why not full); UnavailableError where both are None."""
    full, no_full = libraries.load(libraries.FULL)
    lean, no_lean = (None, "") if full is not None else libraries.load(libraries.LEAN)
    if full is None and lean is None:
        raise UnavailableError(f"TensorRT cannot run here: {no_full}; {no_lean} ({_INSTALL})")
    return full, lean, no_full


def _cached(trt: ModuleType, cache: PlanCache, key: PlanKey) -> Plan | None:
    found = cache.find(key)
    if found is None:
        return None
    try:
        return Plan(trt, found)
    except UnavailableError as error:
        log.warning("TensorRT plan: the cached plan cannot be used: %s", error)
        cache.discard(key)
        return None


def _built(full: ModuleType | None, why: str, encoder: Path, key: PlanKey, cache: PlanCache) -> Plan:
    if full is None:
        raise UnavailableError(
            f"no plan of this model for {key.gpu} is in {cache.folder}, and the lean runtime cannot build one ({why}): "
            f"build it with full TensorRT and version_compatible=True on such a GPU, and copy that folder"
        )
    if find_spec("onnx") is None:
        raise UnavailableError(f"building a TensorRT plan needs the onnx package: {_INSTALL}")
    plan, timing = build_plan(
        full, encoder, key.precision, key.buckets, version_compatible=key.version_compatible, timing=cache.timing(key)
    )
    try:
        cache.store_timing(key, timing)
        cache.store(key, plan)
    except UnavailableError as error:  # a disk that is full: the minutes that the plan took are not thrown away
        log.warning("TensorRT plan: built, and not kept: %s", error)
    return Plan(full, plan)
