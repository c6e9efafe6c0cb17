"""The encoder in int8: its trunks through NNCF, everything that decides or weighs in float32.

The trunk that the saliency comes from stays in float32.  It chooses the six tiles that the local branch reads; a tile that changes
place changes all that follows, and int8 changes tiles for most images while float32 changes none.
`python benchmarks/bench_encoder_int8.py` measures both.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fusedx.compiler.quantize_trunk import quantize_trunk, require_nncf
from fusedx.compiler.trunks import IMAGE, TRUNKS, find, replace
from fusedx.engine.encoder import onnx_file, open_encoder, qdq
from fusedx.engine.encoder.graph import Graph
from fusedx.engine.encoder.network import output_shapes
from fusedx.engine.errors import ConfigError
from fusedx.engine.manifest import IMAGE_SIZE, REGIONS, Network

TILE = 32


@dataclass(frozen=True, slots=True)
class QuantizationReport:
    """What became of the encoder.  Errors: relative Euclidean, (median, worst) image of the calibration set, int8 against float32.

    quantised: operator -> how many of the graph's have int8 weights, and of how many.  regions_changed: images whose tiles differ.
    """

    images: int
    quantised: dict[str, tuple[int, int]]
    prior_error: tuple[float, float]
    feature_error: tuple[float, float]
    regions_changed: int
    nncf: str

    def note(self) -> str:
        """One line for a manifest and for people."""
        parts = ", ".join(f"{some} of {all_} {op}" for op, (some, all_) in self.quantised.items())
        (p, worst_p), (f, worst_f) = self.prior_error, self.feature_error
        return (
            f"int8 encoder: {parts}; {self.images} calibration images, on which the prior differs from float32 by {p:.1e} "
            f"(worst {worst_p:.1e}), the feature by {f:.1e} (worst {worst_f:.1e}), the regions in {self.regions_changed}"
        )


def quantize_encoder(
    graph: Graph,
    network: Network,
    images: Iterable[np.ndarray],
    progress: Callable[[str], None] = lambda text: None,
    *,
    trunks: Mapping[str, str] = TRUNKS,
) -> tuple[Graph, QuantizationReport]:
    """The graph with int8 trunks, and what that cost on the calibration images.

    graph: float32, of network.build.  images: float32 [3,224,224], normalised.  progress: called with a line as each stage begins.
    trunks: which, by the prefix of their constants; for measurements.

    Deterministic: the same graph and images give the same constants.  Raises UnavailableError without NNCF, ConfigError where a value
    of the graph has a range that int8 cannot hold.
    """
    require_nncf()  # the most likely thing to be missing, and minutes of work come before its first use
    batch = np.stack(list(images)).astype(np.float32)
    with tempfile.TemporaryDirectory(prefix="fusedx-") as folder:
        progress(f"running the float32 encoder on {len(batch)} calibration images")
        right = _run(graph, network, batch, Path(folder))
        parts = []
        for trunk in find(graph, dict(trunks)):
            progress(f"quantising {trunk.prefix.removesuffix('.')}")
            samples = [image[None] for image in batch] if trunk.reads == IMAGE else list(map(_tiles, batch, right["patch_locations"]))
            parts.append((trunk, quantize_trunk(trunk.cut(graph), trunk.prefix, samples)))
        quantised = replace(graph, parts)
        try:
            qdq.check(quantised)
        except ValueError as error:
            raise ConfigError(f"the encoder cannot run in int8: {error}") from None
        progress("measuring the int8 encoder on the calibration images")
        got = _run(quantised, network, batch, Path(folder))
    return quantised, compare(quantised, right, got)


def _run(graph: Graph, network: Network, batch: np.ndarray, folder: Path) -> dict[str, np.ndarray]:
    """Every output, by the encoder that processors use."""
    path = folder / "encoder.onnx"
    onnx_file.write(graph, path, output_shapes(network), IMAGE_SIZE)
    return dict(open_encoder("openvino", path).run(batch))


def _tiles(image: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """float32 [3,224,224], int64 [6,2] (row, column) -> [6,1,32,32] of the red channel, as network.py gathers them."""
    return np.stack([image[:1, r : r + TILE, c : c + TILE] for r, c in corners[:REGIONS]])


def compare(graph: Graph, right: Mapping[str, np.ndarray], got: Mapping[str, np.ndarray]) -> QuantizationReport:
    """float32 outputs and those of the int8 graph, of the same images."""
    made_of_weights = {n.outputs[0] for n in graph.nodes if n.op == qdq.DEQUANTIZE and n.inputs[0] in graph.constants}
    counts = {}
    for op in ("Conv", "MatMul"):
        all_ = [n for n in graph.nodes if n.op == op and (n.inputs[1] in made_of_weights or n.inputs[1] in graph.constants)]
        counts[op] = sum(n.inputs[1] in made_of_weights for n in all_), len(all_)
    moved = (right["patch_locations"] != got["patch_locations"]).any(axis=(1, 2))
    feature = "feature" if "feature" in right else "fused_feature"
    prior, features = (_error(got[name], right[name]) for name in ("prior", feature))
    return QuantizationReport(len(moved), counts, prior, features, int(moved.sum()), require_nncf().__version__)


def _error(got: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """(median, worst) of the rows' relative Euclidean errors."""
    errors = np.linalg.norm(got - right, axis=1) / np.maximum(np.linalg.norm(right, axis=1), np.finfo(np.float32).tiny)
    return float(np.median(errors)), float(errors.max())
