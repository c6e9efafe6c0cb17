"""Reads files that ``torch.save`` wrote, without executing anything that they contain.

Two gates.  ``_inspect`` walks the file first: every name that its pickles ask for must be one that weights need, and a zip must
be as ``torch.save`` makes it (nothing compressed, no entry twice, checksums right).  Then torch reads it, weights-only.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from fusedx.engine.errors import CheckpointError, UnavailableError

#: Names that a pickle may ask for.  torch's own weights-only list is longer, and parts of it make a few bytes claim gigabytes.
_KNOWN = re.compile(
    r"collections\.(OrderedDict|Counter)|easydict\.EasyDict|builtins\.(set|complex)"
    r"|torch\._utils\._rebuild_(tensor|tensor_v2|parameter|parameter_with_state|sparse_tensor)"
    r"|torch\.(\w+Storage|Size|device|u?int\d+|b?float\d+\w*|bfloat16|bool|complex\d+)|torch\.serialization\._get_layout"
)
#: Above the pickle of any checkpoint (a thousand tensors take 150 KB); the weights themselves lie outside it.
_MAX_PICKLE = 8 << 20
#: A legacy file is a magic number, a version, a description of the system, the object, and the list of its storages.
_LEGACY_PICKLES = 5
#: Bytes that tensors may claim for each byte of the file; more is storage that repeats itself.
_MAX_EXPANSION = 8


def load(path: Path) -> Any:
    """Containers and tensors of a checkpoint; CheckpointError for everything that is not plain weights."""
    try:
        import torch
    except ImportError:
        raise UnavailableError("compiling a checkpoint needs torch: pip install 'fusedx[compile]'") from None
    try:
        if not path.is_file():
            raise CheckpointError(f"{path} is not a regular file")
        str(path).encode()
        is_zip = _inspect(path)
        # An EasyDict is a mapping whose pickle also sets attributes, the same entries again; OrderedDict takes both steps.
        with torch.serialization.safe_globals([(OrderedDict, "easydict.EasyDict")]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path} is not a readable torch checkpoint: {_first_line(error)}") from None
    except UnicodeEncodeError:
        shown = str(path).encode("utf-8", "backslashreplace").decode()
        raise CheckpointError(f"{shown}: torch cannot open a name that is not UTF-8; rename it") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from None
    except MemoryError:
        raise CheckpointError(f"{path} asks for more memory than there is; it is damaged or hostile") from None
    except Exception as error:  # torch's readers raise many kinds on damaged files; none of them may escape unnamed
        raise CheckpointError(f"{path} is truncated or not a torch checkpoint: {_first_line(error)}") from None


def _inspect(path: Path) -> bool:
    """Refuse what no ``torch.save`` writes; True for a zip."""
    with path.open("rb") as f:
        is_zip = f.read(4) == b"PK\x03\x04"
        if is_zip:
            with zipfile.ZipFile(f) as archive:
                _inspect_zip(path, archive)
            return True
        f.seek(0)
        head = io.BytesIO(f.read(_MAX_PICKLE))
    for _ in range(_LEGACY_PICKLES):
        _inspect_pickle(path, head)
    return False


def _inspect_zip(path: Path, archive: zipfile.ZipFile) -> None:
    seen: set[str] = set()
    for entry in archive.infolist():
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise CheckpointError(f"{path}: {entry.filename} is compressed, which torch.save never does")
        if entry.filename in seen:
            raise CheckpointError(f"{path}: {entry.filename} is in it twice")
        seen.add(entry.filename)
        if entry.filename.endswith(".pkl"):
            if entry.file_size > _MAX_PICKLE:
                raise CheckpointError(f"{path}: {entry.filename} is {entry.file_size} bytes large, which no checkpoint's is")
            _inspect_pickle(path, io.BytesIO(archive.read(entry)))
    if damaged := archive.testzip():
        raise CheckpointError(f"{path}: {damaged} does not match its checksum; the file is damaged, copy it again")


def _inspect_pickle(path: Path, stream: io.BytesIO) -> None:
    """Refuse any name that is not known, and a pickle that does not come to its end."""
    strings: list[str] = []  # the last two are what STACK_GLOBAL takes; torch refuses that operation, this only names it
    try:
        for op, argument, _ in pickletools.genops(stream):
            if op.name in ("GLOBAL", "INST"):
                _check_name(path, *str(argument).split(" ", 1))
            elif op.name == "STACK_GLOBAL":
                _check_name(path, *strings[-2:])
            elif isinstance(argument, str):
                strings = [*strings[-1:], argument]
    except CheckpointError:
        raise
    except Exception as error:  # pickletools raises many kinds
        raise CheckpointError(f"{path} is truncated or not a torch checkpoint: {_first_line(error)}") from None


def _check_name(path: Path, module: str = "", name: str = "") -> None:
    # Protocol 2, which torch.save writes, uses the names of Python 2.
    module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
    if not _KNOWN.fullmatch(f"{module}.{name}"):
        raise CheckpointError(
            f"{path}: refused, because it asks for {printable(f'{module}.{name}')}. Only tensors, plain containers and "
            "easydict.EasyDict are read from a checkpoint; anything else could run code"
        )


def printable(text: str, limit: int = 200) -> str:
    """Text from a file for a message: control characters escaped, length bounded."""
    text = text[:limit] + ("..." if len(text) > limit else "")
    return text if text.isprintable() else ascii(text)[1:-1]


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return printable(lines[0] if lines else type(error).__name__, 300)


def state_dict(value: Any, path: Path) -> dict[str, np.ndarray]:
    """Tensors by name, as numpy arrays that share the file's memory; half and bfloat16 become float32.

    value: a mapping that was found in ``path``.
    """
    import torch

    if not isinstance(value, dict) or not value:
        raise CheckpointError(f"{path.name} holds no state dict (found {'an empty ' if value == {} else ''}{type(value).__name__})")
    limit, claimed = _MAX_EXPANSION * path.stat().st_size, 0
    arrays: dict[str, np.ndarray] = {}
    tensors: list[Any] = []
    for name, tensor in dict.items(value):  # not value.items(): an entry of a hostile mapping's __dict__ can hide that method
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            shown = printable(name) if isinstance(name, str) else f"under a {type(name).__name__}"
            raise CheckpointError(f"{path.name}: entry {shown} is {type(tensor).__name__}, expected a tensor under a name")
        if not name.isprintable():
            raise CheckpointError(f"{path.name}: the tensor name {printable(name)} is not printable text")
        _check_tensor(tensor, f"{path.name}: tensor {name}")
        tensors.append(tensor)
        claimed += tensor.numel() * tensor.element_size()
        if claimed > limit:
            raise CheckpointError(f"{path.name}: its tensors claim {claimed} bytes, many times more than it stores")
        if tensor.dtype in (torch.float16, torch.bfloat16):
            tensor = tensor.float()
        short = name.removeprefix("module.")
        if short in arrays:
            raise CheckpointError(f"{path.name}: tensor {short} is in it twice, with and without the prefix module.")
        arrays[short] = tensor.detach().resolve_neg().numpy()
    _check_storages(tensors, path.name)
    return arrays


def _check_storages(tensors: Iterable[Any], what: str) -> None:
    """Storages are views of the mapped file; one that reaches into the next is longer than what was saved."""
    spans = sorted({(s.data_ptr(), s.nbytes()) for s in (t.untyped_storage() for t in tensors) if s.nbytes()})
    if any(start + size > following for (start, size), (following, _) in zip(spans, spans[1:], strict=False)):
        raise CheckpointError(f"{what}: its storages overlap; the file is damaged or hostile")


def _check_tensor(tensor: Any, what: str) -> None:
    import torch

    if type(tensor) not in (torch.Tensor, torch.nn.Parameter) or tensor.is_nested:
        raise CheckpointError(f"{what} is a {type(tensor).__name__} of a kind that no checkpoint has")
    if tensor.layout != torch.strided or tensor.is_quantized:
        raise CheckpointError(f"{what} is sparse or quantised, expected a dense one")
    if tensor.device.type != "cpu" or tensor.is_conj():
        raise CheckpointError(f"{what} has no plain values (device {tensor.device.type})")
    stored, claimed = tensor.untyped_storage().nbytes(), tensor.numel() * tensor.element_size()
    if claimed > stored:
        raise CheckpointError(f"{what} claims {claimed} bytes, more than it stores ({stored})")
    try:
        torch.empty(0, dtype=tensor.dtype).numpy()
    except (TypeError, RuntimeError):
        if tensor.dtype != torch.bfloat16:
            raise CheckpointError(f"{what} has dtype {tensor.dtype}, expected floating point") from None
