"""An encoder of a dozen operators with the real one's outputs, names and region choice: a batch takes a millisecond."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fusedx.engine.encoder import network, onnx_file
from fusedx.engine.encoder.graph import GraphBuilder
from fusedx.engine.manifest import REGIONS

CLASSES, WIDTH, FEATURE = 5, 8, 16
_SHAPES = {
    "saliency": (("batch", CLASSES, 7, 7), np.float32),
    "patch_locations": (("batch", REGIONS, 2), np.int64),
    "y_local": (("batch", CLASSES), np.float32),
    "prior": (("batch", CLASSES), np.float32),
    "feature": (("batch", FEATURE), np.float32),
}


def write(path: Path) -> Path:
    """encoder.onnx and its weights at ``path``."""
    rng = np.random.default_rng(4)

    def weight(*shape: int) -> np.ndarray:
        return rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))

    g = GraphBuilder(np.float32)
    g.graph.inputs.append("image")
    x = g.op("Relu", g.conv("image", weight(WIDTH, 3, 32, 32), weight(WIDTH), "ds_net.f.0", stride=32))
    saliency = g.conv(x, weight(CLASSES, WIDTH, 1, 1), None, "left_postprocess_net.gn_conv_last")
    tiles = network._regions(g, saliency)
    h = g.op("Relu", g.conv(tiles, weight(WIDTH, 1, 32, 32), weight(WIDTH), "dn_resnet.f.0", stride=32))
    z = g.reduce("ReduceMean", g.reshape(h, -1, REGIONS, WIDTH), [1])
    y_local = g.linear(z, weight(CLASSES, WIDTH), None, "classifier_linear")
    pooled = g.reduce("ReduceMean", x, [2, 3])
    g.output(saliency, "saliency")
    g.output(g.op("Cast", "cells_rc", to="int64"), "patch_locations")
    g.output(y_local, "y_local")
    g.output(g.op("Softmax", y_local, axis=-1), "prior")
    g.output(g.linear(pooled, weight(FEATURE, WIDTH), weight(FEATURE), "encoder_x.g"), "feature")
    onnx_file.write(g.graph, path, _SHAPES, 224)
    return path
