"""Built plans and timing caches on disk, keyed by everything that a plan depends on.

    FUSEDX_CACHE, else XDG_CACHE_HOME/fusedx, else ~/.cache/fusedx
        tensorrt/KEY.json             the key's fields, the plan's SHA-256 and size
        tensorrt/KEY-DIGEST.plan      the plan
        tensorrt/timing-KEY.cache     what TensorRT measured while building, for the next build on the same GPU and versions

The .json appears last and by a rename, so an entry is whole or absent, also while several processes write.  A plan whose bytes
are not the recorded ones is refused.  A plan is code: a folder that anyone may write to is refused too.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from fusedx.engine.cache_folder import anyone_may_write, cache_folder, write_whole
from fusedx.engine.encoder.tensorrt.libraries import version
from fusedx.engine.encoder.tensorrt.platform import Platform
from fusedx.engine.errors import UnavailableError

log = logging.getLogger("fusedx")

#: Counted up when build.py or typed.py would make another plan of the same model.
BUILDER_VERSION = 1
#: Fields in which a version-compatible plan may be older than what runs it.
_MAY_BE_OLDER = {"tensorrt", "cuda", "driver"}


@dataclass(frozen=True, slots=True)
class PlanKey:
    """All that a plan depends on.  ``model``: SHA-256 of encoder.onnx and its data; ``tensorrt``, ``cuda``, ``driver``: versions."""

    model: str
    gpu: str
    compute_capability: str
    driver: str
    tensorrt: str
    cuda: str
    precision: str
    buckets: tuple[int, ...]
    version_compatible: bool
    builder: int = BUILDER_VERSION

    @classmethod
    def of(
        cls, model: str, platform: Platform, tensorrt: str, precision: str, buckets: tuple[int, ...], *, version_compatible: bool
    ) -> PlanKey:
        """The key on this machine."""
        p = platform
        return cls(model, p.gpu, p.compute_capability, p.driver, tensorrt, p.cuda, precision, buckets, version_compatible)

    def name(self) -> str:
        """File name without suffix."""
        return _hash(asdict(self))

    def timing_name(self) -> str:
        """Timing depends on the machine and the versions, not on the model."""
        parts = ("gpu", "compute_capability", "driver", "tensorrt", "cuda", "builder")
        return "timing-" + _hash({part: getattr(self, part) for part in parts})

    def differences(self, other: PlanKey) -> list[str]:
        """Names of the fields that differ."""
        return [f.name for f in fields(self) if getattr(self, f.name) != getattr(other, f.name)]

    def runs(self, built: PlanKey) -> bool:
        """Whether a plan built for ``built`` may be run here: the same key, or version-compatible, by the same or an older release."""
        different = set(self.differences(built))
        if not different:
            return True
        ours, theirs = version(self.tensorrt), version(built.tensorrt)
        return self.version_compatible and different <= _MAY_BE_OLDER and theirs[:1] == ours[:1] and theirs <= ours


class PlanCache:
    """One folder of plans.  ``root``: the folder, made when first written to; None follows the environment."""

    def __init__(self, root: Path | None = None, environment: Mapping[str, str] = os.environ) -> None:
        self.folder = (cache_folder(environment) if root is None else root) / "tensorrt"

    def find(self, key: PlanKey) -> bytes | None:
        """The plan, or None.  Why is logged either way."""
        self._require_private()
        known = self._entries()
        fitting = sorted((k for k in known if key.runs(k)), key=lambda k: len(key.differences(k)))
        for candidate in fitting:
            plan, reason = self._read(candidate)
            if plan is not None:
                log.info("TensorRT plan: cache hit, %s%s", candidate.name(), _older(key, candidate))
                return plan
            log.warning("TensorRT plan: cache entry %s refused: %s", candidate.name(), reason)
        if not fitting:
            log.info("TensorRT plan: cache miss, %s", _why_missing(key, known))
        return None

    def store(self, key: PlanKey, plan: bytes) -> None:
        """Keep a plan; an older one of the same key is replaced."""
        self._make()
        digest = hashlib.sha256(plan).hexdigest()
        file = self.folder / f"{key.name()}-{digest[:16]}.plan"
        _write(file, plan)
        entry = {"key": asdict(key), "plan": file.name, "sha256": digest, "bytes": len(plan)}
        _write(self._entry(key), json.dumps(entry, indent=1).encode())
        for old in self.folder.glob(f"{key.name()}-*.plan"):
            if old != file:
                old.unlink(missing_ok=True)
        log.info("TensorRT plan: %s kept in %s (%.1f MB)", key.name(), self.folder, len(plan) / 1e6)

    def discard(self, key: PlanKey) -> None:
        """Forget an entry that proved to be wrong."""
        for candidate in self._entries():
            if key.runs(candidate):
                self._entry(candidate).unlink(missing_ok=True)
                for plan in self.folder.glob(f"{candidate.name()}-*.plan"):
                    plan.unlink(missing_ok=True)

    def timing(self, key: PlanKey) -> bytes:
        """Serialised timing cache, empty where there is none; TensorRT checks its contents itself."""
        try:
            return (self.folder / f"{key.timing_name()}.cache").read_bytes()
        except OSError:
            return b""

    def store_timing(self, key: PlanKey, timing: bytes) -> None:
        """Keep a timing cache."""
        self._make()
        _write(self.folder / f"{key.timing_name()}.cache", timing)

    def _entry(self, key: PlanKey) -> Path:
        return self.folder / f"{key.name()}.json"

    def _entries(self) -> list[PlanKey]:
        found = []
        for file in sorted(self.folder.glob("*.json")):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # not ours, or half a file of a broken disk
                key = json.loads(file.read_bytes())["key"]
                found.append(PlanKey(**key | {"buckets": tuple(key["buckets"])}))
        return found

    def _read(self, key: PlanKey) -> tuple[bytes | None, str]:
        try:
            entry = json.loads(self._entry(key).read_bytes())
            file, digest, size = self.folder / str(entry["plan"]), str(entry["sha256"]), int(entry["bytes"])
            if file.parent != self.folder:
                return None, f"it names a plan outside {self.folder}"
            plan = file.read_bytes()
        except (OSError, ValueError, KeyError, TypeError) as error:
            return None, f"it cannot be read ({error})"
        if len(plan) != size:
            return None, f"{file.name} has {len(plan)} bytes, {size} were written"
        if hashlib.sha256(plan).hexdigest() != digest:
            return None, f"{file.name} was changed after it was written"
        return plan, ""

    def _make(self) -> None:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise UnavailableError(f"the plan cache {self.folder} cannot be made ({error.strerror}); set FUSEDX_CACHE") from None
        self._require_private()

    def _require_private(self) -> None:
        try:
            public = anyone_may_write(self.folder)
        except FileNotFoundError:
            return
        except OSError as error:
            raise UnavailableError(f"the plan cache {self.folder} cannot be read: {error.strerror}; set FUSEDX_CACHE") from None
        if public:
            raise UnavailableError(f"anyone may write to {self.folder}, and plans are code: chmod o-w it, or set FUSEDX_CACHE")


def _hash(parts: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _older(key: PlanKey, found: PlanKey) -> str:
    different = key.differences(found)
    return "".join(f", built with {name} {getattr(found, name)}, running {getattr(key, name)}" for name in different)


def _why_missing(key: PlanKey, known: list[PlanKey]) -> str:
    """Which fields keep the nearest entry from being this one."""
    if not known:
        return "the cache holds no plans"
    nearest = min(known, key=lambda k: (k.model != key.model, len(key.differences(k))))
    shown = (f"{name} is {getattr(key, name)!r} and was {getattr(nearest, name)!r}" for name in key.differences(nearest))
    return f"the nearest entry ({nearest.name()}) differs: {'; '.join(shown)}"


def _write(file: Path, content: bytes) -> None:
    try:
        write_whole(file, content)
    except OSError as error:
        raise UnavailableError(f"{file} cannot be written: {error.strerror}; free some space or set FUSEDX_CACHE") from None
