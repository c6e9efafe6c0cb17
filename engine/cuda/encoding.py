"""The encoder's outputs while they stay on the device."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import torch

from fusedx.engine.cuda.context import Context


class Layout:
    """All outputs of one image side by side in one float32 row: one copy moves them, whatever their number.

    Integers (pixel positions) are below 2^24, so float32 holds them exactly.
    """

    def __init__(self, shapes: dict[str, tuple[tuple[int, ...], torch.dtype]]) -> None:
        self._shapes = shapes
        ends = np.cumsum([math.prod(shape) for shape, _ in shapes.values()]).tolist()
        self._slices = {name: slice(end - math.prod(shapes[name][0]), end) for name, end in zip(shapes, ends, strict=True)}
        self.width: int = ends[-1]

    @staticmethod
    def of(outputs: dict[str, torch.Tensor]) -> Layout:
        """From one evaluation; first dimension: images."""
        return Layout({name: (tuple(tensor.shape[1:]), tensor.dtype) for name, tensor in outputs.items()})

    def write(self, outputs: dict[str, torch.Tensor], rows: torch.Tensor) -> None:
        """Into ``rows`` float32 [B,width]."""
        for name, place in self._slices.items():
            rows[:, place] = outputs[name].reshape(len(rows), -1)

    def names(self) -> list[str]:
        """Of the outputs, in order."""
        return list(self._slices)

    def part(self, rows: torch.Tensor, name: str) -> torch.Tensor:
        """One output as a view, float32 [B,...]."""
        return rows[:, self._slices[name]].view(len(rows), *self._shapes[name][0])

    def part_host(self, rows: np.ndarray, name: str) -> np.ndarray:
        """The same on the host, in the output's own type."""
        shape, dtype = self._shapes[name]
        part = rows[:, self._slices[name]].reshape(len(rows), *shape)
        return part.astype(np.int64) if dtype == torch.int64 else part


class DeviceEncoding(Mapping[str, np.ndarray]):
    """Name -> host array, copied from the device when the first one is asked for; :meth:`on_device` gives them in place."""

    def __init__(self, layout: Layout, rows: torch.Tensor, context: Context) -> None:
        self._layout, self._rows, self._context = layout, rows, context
        self._host: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self._layout.names())

    def __iter__(self) -> Iterator[str]:
        return iter(self._layout.names())

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._layout.names():
            raise KeyError(name)
        if self._host is None:
            with self._context.working():  # ordered after the work that fills it
                self._host = self._rows.cpu().numpy()
        return self._layout.part_host(self._host, name)

    def on_device(self, name: str) -> torch.Tensor:
        """float32 [B,...], a view."""
        return self._layout.part(self._rows, name)
