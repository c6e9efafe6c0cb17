"""Runs the encoder graph's region selection alone, in any of the runtimes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fusedx.engine.encoder import network, onnx_file
from fusedx.engine.encoder.evaluate import evaluate
from fusedx.engine.encoder.graph import GraphBuilder
from fusedx.engine.encoder.reference import OPERATORS


def _graph(classes: int, dtype: type) -> GraphBuilder:
    """One input holds both: the saliency map [C,7,7] flattened behind the image's three channels would not fit, so each class
    map rides in the first 49 values of the image's green channel, row by row."""
    g = GraphBuilder(dtype)
    g.graph.inputs.append("image")
    green = g.op("Gather", "image", g.constant(np.array(1, np.int64), "channel_1"), axis=1)
    flat = g.reshape(green, -1, 224 * 224)
    picks = g.op("Gather", flat, g.constant(np.arange(classes * 49), "first_values"), axis=1)
    tiles = network._regions(g, g.reshape(picks, -1, classes, 7, 7))
    g.output(g.op("Cast", "cells_rc", to="int64"), "patch_locations")
    g.output(tiles, "saliency")  # a published name for the tiles, since runtimes look outputs up by it
    return g


def run_regions(runtime: str, saliency: np.ndarray, image: np.ndarray, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """(locations [B,6,2], tiles [B*6,1,32,32])."""
    classes = saliency.shape[1]
    x = np.array(image, np.float64, order="C")
    x[:, 1].reshape(len(x), -1)[:, : classes * 49] = saliency.reshape(len(x), -1)
    if runtime == "reference":
        graph = _graph(classes, np.float64).graph
        out = [evaluate(graph, graph.constants, row[None], OPERATORS) for row in x]
        return np.concatenate([o["patch_locations"] for o in out]), np.concatenate([o["saliency"] for o in out])
    from fusedx.engine.encoder import open_encoder

    x = x.astype(np.float32)
    shapes = {"patch_locations": (("batch", 6, 2), np.int64), "saliency": (("rows", 1, 32, 32), np.float32)}
    graph = _graph(classes, np.float32).graph
    # The data file must exist and not be empty, as in a real model.
    graph.constants["padding"] = np.zeros(1024, np.float32)
    onnx_file.write(graph, folder / "encoder.onnx", shapes, 224)
    out = open_encoder(runtime, folder / "encoder.onnx").run(x)
    return out["patch_locations"], out["saliency"]
