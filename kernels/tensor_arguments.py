"""Checks of a launcher's tensor arguments: a wrong shape, dtype, stride or device is a ValueError that names the argument.

Shapes and dtypes only; nothing here waits for a device, so launchers may be captured in a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

INDEX_LIMIT = 2**31  # kernels index with 32-bit integers


def check(
    name: str,
    tensor: torch.Tensor | None,
    shape: Sequence[int | None],
    dtypes: Sequence[torch.dtype],
    device: torch.device,
    *,
    strided_rows: bool = False,
    any_strides: bool = False,
) -> None:
    """``shape``: None for an extent that is free but positive.  ``strided_rows``: rows may lie apart, each being contiguous."""
    kinds = " or ".join(str(d).removeprefix("torch.") for d in dtypes)
    extents = ", ".join("any" if n is None else str(n) for n in shape)
    if not isinstance(tensor, torch.Tensor):
        raise ValueError(f"{name}: expected a {kinds} tensor [{extents}], got {type(tensor).__name__}")
    fits = len(shape) == tensor.ndim and all(have == want or want is None for have, want in zip(tensor.shape, shape, strict=True))
    if tensor.dtype not in dtypes or not fits or not tensor.numel():
        found = f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
        raise ValueError(f"{name}: expected {kinds} [{extents}] with at least one element, got {found}")
    if tensor.device != device:
        raise ValueError(f"{name}: expected a tensor on {device}, as the first argument, got one on {tensor.device}")
    if not (any_strides or tensor.is_contiguous() or (strided_rows and tensor.stride(-1) == 1)):
        raise ValueError(f"{name}: expected {'contiguous rows' if strided_rows else 'a contiguous tensor'}, got strides {tensor.stride()}")
    if sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True)) >= INDEX_LIMIT:
        raise ValueError(f"{name}: {list(tensor.shape)} reaches beyond 2^31 elements; split the rows")


def check_step(name: str, tensor: torch.Tensor, rows: int, device: torch.device) -> None:
    """A time step for each row: int32 [rows], contiguous or one number expanded (``step.expand(rows)``)."""
    check(name, tensor, (rows,), (torch.int32,), device, any_strides=True)
    if rows > 1 and tensor.stride(0) not in (0, 1):
        raise ValueError(f"{name}: expected contiguous numbers or one number expanded, got stride {tensor.stride(0)}")
