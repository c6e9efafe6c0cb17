"""A compiled model on disk: a folder ``NAME.fusedx`` with four files, each covered by the manifest's digests.

    manifest.json          what the model is; SHA-256 and size of the others
    encoder.onnx           image -> regions, prior, feature: one static graph
    encoder.onnx.data      its weights
    denoiser.safetensors   folded tables
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fusedx.engine import safetensors
from fusedx.engine.denoiser import DenoiserTables
from fusedx.engine.encoder.onnx_file import data_file
from fusedx.engine.errors import ModelFormatError
from fusedx.engine.manifest import FileEntry, Manifest

MANIFEST, ENCODER, DENOISER = "manifest.json", "encoder.onnx", "denoiser.safetensors"
#: What a manifest must list, no more and no less.
FILES = (ENCODER, data_file(Path(ENCODER)).name, DENOISER)
_MAX_MANIFEST = 16 << 20


@dataclass(frozen=True, slots=True)
class CompiledModel:
    """An opened folder.  ``digest`` is the SHA-256 of manifest.json, which covers everything else."""

    path: Path
    manifest: Manifest
    digest: str

    @property
    def encoder(self) -> Path:
        """Path of encoder.onnx."""
        return self.path / ENCODER

    def denoiser(self) -> DenoiserTables:
        """Folded tables, memory-mapped."""
        return DenoiserTables.from_arrays(safetensors.read(self.path / DENOISER), self.manifest.network, self.manifest.schedule.steps)

    def weight_bytes(self) -> int:
        """Bytes of encoder and denoiser together."""
        return sum(entry.bytes for entry in self.manifest.files.values())


def open_model(path: str | os.PathLike[str], *, verify: bool = True) -> CompiledModel:
    """Read the manifest and check every file's size, and its SHA-256 too unless ``verify`` is False."""
    folder = Path(path)
    if not folder.is_dir():
        state = "is not a folder" if folder.exists() else "does not exist"
        raise ModelFormatError(f"{folder} {state}; a compiled model is a folder made by `fusedx compile`")
    if not (folder / MANIFEST).is_file():
        raise ModelFormatError(f"{folder} has no {MANIFEST}; a compiled model is a folder made by `fusedx compile`")
    if (folder / MANIFEST).stat().st_size > _MAX_MANIFEST:
        raise ModelFormatError(f"{folder / MANIFEST} is larger than {_MAX_MANIFEST >> 20} MiB, which no manifest is")
    raw = (folder / MANIFEST).read_bytes()
    try:
        manifest = Manifest.from_json(raw.decode())
    except UnicodeDecodeError:
        raise ModelFormatError(f"{folder / MANIFEST} is not UTF-8 text") from None
    if set(manifest.files) != set(FILES):
        raise ModelFormatError(f"{folder / MANIFEST} lists {sorted(manifest.files)}, expected {sorted(FILES)}")
    for name, entry in manifest.files.items():
        _check_file(folder / name, entry, verify)
    return CompiledModel(folder, manifest, hashlib.sha256(raw).hexdigest())


def _check_file(path: Path, entry: FileEntry, verify: bool) -> None:
    if not path.is_file():
        raise ModelFormatError(f"{path} is missing; copy the whole folder again or compile the checkpoint again")
    if path.stat().st_size != entry.bytes:
        raise ModelFormatError(f"{path} has {path.stat().st_size} bytes, the manifest says {entry.bytes}: incomplete or changed")
    if verify and (digest := sha256_file(path)) != entry.sha256:
        raise ModelFormatError(f"{path} was changed after compiling: its SHA-256 is {digest}, the manifest says {entry.sha256}")


def sha256_file(path: Path, progress: Callable[[int], None] | None = None) -> str:
    """Hexadecimal SHA-256; read in pieces, so that no more than a few megabytes become resident."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as f:
        while chunk := f.read(4 << 20):
            digest.update(chunk)
            if progress:
                progress(len(chunk))
    return digest.hexdigest()


def file_entry(path: Path) -> FileEntry:
    """Digest and size of a file as it is now."""
    return FileEntry(sha256_file(path), path.stat().st_size)
