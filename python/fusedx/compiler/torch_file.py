"""Reads files that ``torch.save`` wrote, without executing anything that they contain."""

from __future__ import annotations

import contextlib
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fusedx.engine.errors import CheckpointError, UnavailableError


def load(path: Path) -> Any:
    """Containers and tensors of a checkpoint.

    Weights-only: of all the names that a pickle may ask for, only tensors, plain containers and the one EasyDict are known;
    any other name is refused before anything of it runs.
    """
    try:
        import torch
    except ImportError:
        raise UnavailableError("compiling a checkpoint needs torch: pip install 'fusedx[compile]'") from None
    try:
        # An EasyDict is a mapping whose pickle also sets attributes, the same entries again; OrderedDict takes both steps.
        with torch.serialization.safe_globals([(OrderedDict, "easydict.EasyDict")]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except pickle.UnpicklingError as error:
        name = _refused_name(str(error))
        if name:
            raise CheckpointError(
                f"{path}: refused, because it asks for {name}, which could run code. "
                "Only tensors, plain containers and easydict.EasyDict are read from a checkpoint"
            ) from None
        raise CheckpointError(f"{path} is not a readable torch checkpoint: {_first_line(error)}") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from None
    except MemoryError:
        raise CheckpointError(f"{path} asks for more memory than there is; it is damaged or hostile") from None
    except Exception as error:  # torch's readers raise many kinds on damaged files; none of them may escape unnamed
        raise CheckpointError(f"{path} is truncated or not a torch checkpoint: {_first_line(error)}") from None


def _is_zip(path: Path) -> bool:
    with contextlib.suppress(OSError), path.open("rb") as f:
        return f.read(4) == b"PK\x03\x04"
    return False


def _refused_name(message: str) -> str | None:
    for marker in ("Unsupported global: GLOBAL ", "Unsupported class "):
        if marker in message:
            return message.split(marker, 1)[1].split()[0].rstrip(".,")
    return None


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]


def state_dict(value: Any, what: str) -> dict[str, np.ndarray]:
    """Tensors by name, as numpy arrays that share the file's memory; floating tensors of other widths become float32."""
    import torch

    if not isinstance(value, Mapping) or not value:
        raise CheckpointError(f"{what} is not a state dict (found {type(value).__name__})")
    arrays = {}
    for name, tensor in value.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise CheckpointError(f"{what}: entry {name!r} is {type(tensor).__name__}, expected a tensor")
        if tensor.layout != torch.strided or tensor.is_quantized:
            raise CheckpointError(f"{what}: tensor {name} is sparse or quantised, expected a dense one")
        if tensor.dtype in (torch.float16, torch.bfloat16, torch.float64):
            tensor = tensor.float()
        arrays[name.removeprefix("module.")] = tensor.detach().numpy()
    return arrays
