"""How cuDNN and cuBLAS compute while the encoder runs or is captured, whatever the program around it has chosen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from fusedx.engine.cuda.context import PREPARING

_CUDNN, _MATMUL = torch.backends.cudnn, torch.backends.cuda.matmul
#: torch's first names of the settings; an assignment to the last two decides the precision by both generations of names.
_SETTINGS = ((_CUDNN, "enabled", True), (_CUDNN, "benchmark", False), (_CUDNN, "deterministic", True),
             (_CUDNN, "allow_tf32", False), (_MATMUL, "allow_tf32", False))  # fmt: skip
#: Owners of ``fp32_precision``, the second names, from torch 2.9 on; what is "none" follows a more general setting.
_PRECISIONS = tuple(owner for owner in (getattr(_CUDNN, "conv", None), getattr(_CUDNN, "rnn", None), _MATMUL) if owner is not None)


@contextmanager
def exact_libraries() -> Iterator[None]:
    """Without TF32, with algorithms that give the same bits at every run; put back afterwards.

    The settings are the process's, so one thread has them at a time: otherwise one would put back what another still needs.
    """
    with PREPARING:
        before = [(owner, name, _read(owner, name)) for owner, name, _ in _SETTINGS if owner is not _MATMUL]
        precisions = [(owner, "fp32_precision", _read(owner, "fp32_precision")) for owner in _PRECISIONS]
        matmul = _matmul_precision()
        try:
            for owner, name, value in _SETTINGS:
                setattr(owner, name, value)
            for owner, name, value in precisions:
                if value is not None:
                    setattr(owner, name, "ieee")
            yield
        finally:
            if matmul not in (None, "highest"):  # which it is now
                torch.set_float32_matmul_precision(matmul)
            for owner, name, value in before + precisions:
                if value is not None:
                    setattr(owner, name, value)


def _read(owner: Any, name: str) -> Any:
    """None where this torch does not have it, or the program has used both generations of names, which torch does not let read."""
    try:
        return getattr(owner, name)
    except (AttributeError, RuntimeError):
        return None


def _matmul_precision() -> str | None:
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return None
