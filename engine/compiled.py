"""A compiled model on disk: a folder ``NAME.fusedx`` with four files, each covered by the manifest's digests.

    manifest.json          what the model is; SHA-256 and size of the others
    encoder.onnx           image -> regions, prior, feature: one static graph
    encoder.onnx.data      its weights
    denoiser.safetensors   folded tables
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fusedx.engine import safetensors
from fusedx.engine.denoiser import DenoiserTables, StoredDenoiser
from fusedx.engine.encoder import network, onnx_file
from fusedx.engine.encoder.graph import Graph
from fusedx.engine.errors import ModelFormatError, UnavailableError
from fusedx.engine.manifest import FileEntry, Manifest, Network
from fusedx.engine.memory import release_pages

MANIFEST, ENCODER, DENOISER = "manifest.json", "encoder.onnx", "denoiser.safetensors"
#: What a manifest must list, no more and no less.
FILES = (ENCODER, onnx_file.data_file(Path(ENCODER)).name, DENOISER)
_MAX_MANIFEST = 4 << 20


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

    @property
    def encoder_digest(self) -> str:
        """SHA-256 of encoder.onnx and of its data, one after the other: what a plan built of them is kept under."""
        return "".join(self.manifest.files[name].sha256 for name in (ENCODER, onnx_file.data_file(self.encoder).name))

    def stored_denoiser(self) -> StoredDenoiser:
        """What the file holds, memory-mapped."""
        m = self.manifest
        return StoredDenoiser.from_arrays(safetensors.read(self.path / DENOISER), m.network, m.schedule, m.precision)

    def denoiser(self) -> DenoiserTables:
        """The float32 tables as they were folded, memory-mapped; UnavailableError for a model compiled in another precision."""
        if self.manifest.precision != "fp32":
            raise UnavailableError(
                f"{self.path} is compiled in {self.manifest.precision} for processors; a GPU packs the weights in its own formats "
                "and needs a model compiled in fp32"
            )
        return self.stored_denoiser().tables()

    def weight_bytes(self) -> int:
        """Bytes of encoder and denoiser together."""
        return sum(entry.bytes for entry in self.manifest.files.values())


def open_model(path: str | os.PathLike[str], *, verify: bool = True) -> CompiledModel:
    """Read the manifest; check every file's size, and that encoder and denoiser are of the shapes that the manifest says.

    verify: check every file's SHA-256 too, and that all weights are finite.
    """
    folder = Path(path)
    try:
        raw = _read_manifest(folder)
        manifest = Manifest.from_json(raw.decode())
        if set(manifest.files) != set(FILES):
            raise ModelFormatError(f"{folder / MANIFEST} lists {sorted(manifest.files)[:10]}, expected {sorted(FILES)}")
        for name, entry in manifest.files.items():
            _check_file(folder / name, entry, verify)
    except UnicodeDecodeError:
        raise ModelFormatError(f"{folder / MANIFEST} is not UTF-8 text") from None
    except OSError as error:  # not permitted, a name that is too long, a disk that fails
        raise ModelFormatError(f"{str(error.filename or folder)[:1000]} cannot be read: {error.strerror or error}") from None
    model = CompiledModel(folder, manifest, hashlib.sha256(raw).hexdigest())
    graph = onnx_file.read(model.encoder)
    _check_encoder(graph, manifest.network)
    stored = model.stored_denoiser()
    if verify:
        _check_finite(ENCODER, graph.constants)
        _check_finite(DENOISER, stored.arrays)
    return model


def _read_manifest(folder: Path) -> bytes:
    if not folder.is_dir():
        state = "is not a folder" if folder.exists() else "does not exist"
        raise ModelFormatError(f"{folder} {state}; a compiled model is a folder made by `fusedx compile`")
    if not (folder / MANIFEST).is_file():
        raise ModelFormatError(f"{folder} has no {MANIFEST}; a compiled model is a folder made by `fusedx compile`")
    if (folder / MANIFEST).stat().st_size > _MAX_MANIFEST:
        raise ModelFormatError(f"{folder / MANIFEST} is larger than {_MAX_MANIFEST >> 20} MiB, which no manifest is")
    return (folder / MANIFEST).read_bytes()


def _check_encoder(graph: Graph, n: Network) -> None:
    """The parts of the graph that the manifest determines and the engine relies on."""
    needed = network.OUTPUTS[n.family]
    if tuple(graph.outputs) != needed:
        raise ModelFormatError(f"{ENCODER} computes {', '.join(graph.outputs)[:300]}; {n.family} needs {', '.join(needed)}")
    for name, axis, expected in (
        ("left_postprocess_net.gn_conv_last.weight", 0, n.num_classes),
        ("classifier_linear.weight_t", -1, n.num_classes),
        ("encoder_x.g.weight_t", -1, n.feature_dim),
    ):
        shape = graph.constants[name].shape if name in graph.constants else ()
        if not shape or shape[axis] != expected:
            raise ModelFormatError(f"{ENCODER}: {name} has shape {list(shape)}, the manifest implies {expected} in place {axis}")
    for node in graph.nodes:  # a colour channel, or one of query, key and value; runtimes need not check the bounds
        if node.op == "Gather" and (graph.constants[node.inputs[1]].shape or not 0 <= graph.constants[node.inputs[1]] < 3):
            raise ModelFormatError(f"{ENCODER}: {node.outputs[0]} gathers outside its input")


def _check_finite(file: str, arrays: dict[str, np.ndarray]) -> None:
    """A NaN would become every prediction.  Minimum and maximum carry it, and need no memory."""
    for name, array in arrays.items():
        if array.dtype == np.uint16:  # bfloat16 bits: all ones in the exponent, whatever the sign
            finite = not array.size or (array & 0x7FFF).max() < 0x7F80
        elif array.dtype.kind != "f" or not array.size:
            continue
        else:
            with np.errstate(invalid="ignore"):
                finite = np.isfinite(array.min()) and np.isfinite(array.max())
        release_pages(array)
        if not finite:
            raise ModelFormatError(f"{file}: {name[:200]} holds NaN or infinite values")


def _check_file(path: Path, entry: FileEntry, verify: bool) -> None:
    if not path.is_file():
        raise ModelFormatError(f"{path} is missing; copy the whole folder again or compile the checkpoint again")
    if path.stat().st_size != entry.bytes:
        raise ModelFormatError(f"{path} has {path.stat().st_size} bytes, the manifest says {entry.bytes}: incomplete or changed")
    if verify and (digest := sha256_file(path)) != entry.sha256:
        raise ModelFormatError(f"{path} was changed after compiling: its SHA-256 is {digest}, the manifest says {entry.sha256}")


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256; read in pieces, so that no more than a few megabytes become resident."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as f:
        while chunk := f.read(4 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def file_entry(path: Path) -> FileEntry:
    """Digest and size of a file as it is now."""
    return FileEntry(sha256_file(path), path.stat().st_size)
