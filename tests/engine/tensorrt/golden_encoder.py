"""The encoder of a golden case, from its seed to the graph, without a checkpoint on disk or the denoiser's tensors."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from fusedx.engine.encoder import network, vit
from fusedx.engine.encoder.graph import Graph
from fusedx.engine.manifest import Network
from fusedx.engine.weights import Weights

GOLDEN = Path(__file__).parents[2] / "golden"
_ENCODER = ("encoder_x.", "encoder_x_l.", "norm.", "norm_l.", "cond_weight")


def build(name: str) -> Graph:
    """float32 graph of case ``name``."""
    sys.path.insert(0, str(GOLDEN))
    try:
        import make_checkpoint
    finally:
        sys.path.remove(str(GOLDEN))
    case: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text())
    v2 = case["family"] == "diffmic-v2"
    parts = case["state_dicts"]
    parts["model"] = {tensor: entry for tensor, entry in parts["model"].items() if tensor.startswith(_ENCODER)}

    def weights(part: str) -> Weights:
        return Weights({n: np.asarray(tensor) for n, tensor in make_checkpoint.state_dict(case, part).items()}, part)

    prior, model = weights("aux_model" if v2 else "aux"), weights("model")
    arch = "resnet18" if v2 else "resnet50"
    deep = {"vit_width": 384, "vit_depth": vit.depth(model, "encoder_x.f")} if v2 else {}
    shape = Network(case["family"], case["num_classes"], case["feature_dim"], arch, "resnet18", 64, **deep)
    graph = network.build(shape, prior, model)
    assert not prior.problems and not model.problems
    return graph
