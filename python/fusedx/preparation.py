"""From a source to what the engine takes: one form for an engine on processors, one for an engine on a GPU."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from fusedx.engine.preprocess import normalize, to_square_uint8
from fusedx.inputs import Picture, ReadOptions, read
from fusedx.inputs.device import DevicePicture, read_device, read_device_images

if TYPE_CHECKING:
    from fusedx.engine.cuda.engine import CudaEngine

#: SHA-256 of the decoded pixels of each picture of a batch; asked for when the encoder has its work.
Digests = Callable[[], list[str]]


@dataclass(frozen=True, slots=True)
class Item:
    """One read picture.  data: what :meth:`Preparation.stage` needs of it."""

    source: str
    notes: dict[str, object]
    data: Any
    timing: dict[str, float]


class Preparation(Protocol):
    """How an engine gets its images."""

    def item(self, source: Any, options: ReadOptions, *, ahead: bool) -> Item:
        """Read one source; InputError for a picture that cannot be used.  ahead: nobody waits for this one yet."""

    def stage(self, items: list[Item]) -> tuple[Any, Digests]:
        """The engine's images float32 [B,3,224,224], and their digests."""

    def images(self, x: Any) -> Any:
        """Images that the caller has normalised already, in the engine's form."""


class HostPreparation:
    """Read, crop, resize and normalise on processors; the original pixels are not kept."""

    def item(self, source: Any, options: ReadOptions, *, ahead: bool) -> Item:
        """See :class:`Preparation`.  data: (float32 [3,224,224], digest)."""
        started = time.perf_counter()
        picture = read(source, options)
        sha256, read_done = picture.sha256, time.perf_counter()
        pixels = preprocess(picture)
        timing = {"read": read_done - started, "preprocess": time.perf_counter() - read_done}
        return Item(picture.source, picture.notes, (pixels, sha256), timing)

    def stage(self, items: list[Item]) -> tuple[np.ndarray, Digests]:
        """See :class:`Preparation`."""
        return np.stack([item.data[0] for item in items]), lambda: [item.data[1] for item in items]

    def images(self, x: Any) -> Any:
        """See :class:`Preparation`."""
        return x


class CudaPreparation:
    """Read on processors, or find on the device; crop, resize and normalise on the device, a batch at a time."""

    def __init__(self, engine: CudaEngine) -> None:
        self._engine = engine

    def item(self, source: Any, options: ReadOptions, *, ahead: bool) -> Item:
        """See :class:`Preparation`.  data: a Picture or a DevicePicture; the latter is neither copied nor looked at yet."""
        started = time.perf_counter()
        picture: Picture | DevicePicture | None = None
        if not isinstance(source, (str, os.PathLike, np.ndarray)):  # these need not wait until the device is free
            with self._engine.context.selected():
                picture = read_device(source, options, **self._place())
        picture = picture or read(source, options)
        if ahead and isinstance(picture, Picture):
            _ = picture.sha256  # on this thread, so that the one that feeds the GPU need not
        return Item(picture.source, picture.notes, picture, {"read": time.perf_counter() - started})

    def stage(self, items: list[Item]) -> tuple[Any, Digests]:
        """See :class:`Preparation`."""
        pictures, gpu = [item.data for item in items], self._engine.input
        images = gpu.stage([p.pixels if isinstance(p, Picture) else p.array for p in pictures])
        copies = [None if isinstance(p, Picture) else gpu.digest(p.array) for p in pictures]
        return images, lambda: [p.sha256 if copy is None else copy() for p, copy in zip(pictures, copies, strict=True)]

    def images(self, x: Any) -> Any:
        """See :class:`Preparation`."""
        with self._engine.context.selected():
            array = read_device_images(x, **self._place())
        return x if array is None else self._engine.input.images(array)

    def _place(self) -> dict[str, Any]:
        return {"device": self._engine.gpu.index, "stream": self._engine.context.stream}


def preprocess(picture: Picture) -> np.ndarray:
    """float32 [3,224,224]."""
    return normalize(to_square_uint8(picture.pixels))
