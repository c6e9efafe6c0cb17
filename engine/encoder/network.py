"""The whole encoder of DiffMIC and DiffMIC-v2 as one static graph: image in; prior, regions and features out.

Everything here is evaluated once an image, whatever the number of diffusion steps.  Region selection and tile gather are
ordinary graph operators, so there is no host round trip between the global and the local branch.
"""

from __future__ import annotations

import numpy as np

from fusedx.engine.encoder import resnet, vit
from fusedx.engine.encoder.graph import Graph, GraphBuilder
from fusedx.engine.manifest import GRID, IMAGE_SIZE, REGIONS, Network
from fusedx.engine.weights import Weights, batch_norm

ATTENTION_WIDTH = 128
TILE = IMAGE_SIZE // GRID
CELLS = GRID * GRID

#: Graph outputs by family, in order; names are those of the golden cases.
OUTPUTS = {
    "diffmic-v1": ("saliency", "patch_locations", "patch_attention", "y_global", "y_local", "y_fusion", "prior", "feature"),
    "diffmic-v2": (
        "saliency", "patch_locations", "patch_attention", "y_global", "y_local", "y_fusion", "prior",
        "image_feature", "roi_features", "fused_feature",
    ),
}  # fmt: skip


def build(network: Network, prior: Weights, model: Weights, dtype: type[np.floating] = np.float32) -> Graph:
    """Graph from the prior encoder's and the denoiser model's tensors; float64 for the reference, float32 to run."""
    g = GraphBuilder(dtype)
    g.graph.inputs.append("image")
    tiles = _prior(g, prior, network)
    if network.family == "diffmic-v1":
        _feature_v1(g, model, network)
    else:
        _features_v2(g, model, network, tiles)
    return g.graph


def output_shapes(network: Network) -> dict[str, tuple[tuple[int | str, ...], type]]:
    """Output name -> (shape, dtype) as the ONNX file declares them, the batch free."""
    c, f, b = network.num_classes, network.feature_dim, "batch"
    shapes: dict[str, tuple[tuple[int | str, ...], type]] = {
        "saliency": ((b, c, GRID, GRID), np.float32),
        "patch_locations": ((b, REGIONS, 2), np.int64),
        "patch_attention": ((b, REGIONS), np.float32),
        "roi_features": ((b, f, REGIONS), np.float32),
    }
    shapes |= {name: ((b, c), np.float32) for name in ("y_global", "y_local", "y_fusion", "prior")}
    shapes |= {name: ((b, f), np.float32) for name in ("feature", "image_feature", "fused_feature")}
    return {name: shapes[name] for name in OUTPUTS[network.family]}


def _prior(g: GraphBuilder, w: Weights, network: Network) -> str:
    """Publish saliency, regions, both logits and the prior; return the chosen tiles [B*6,1,32,32]."""
    classes, arch, width = network.num_classes, network.prior_arch, network.backbone_width
    c = resnet.channels(arch, width)
    x = resnet.trunk(g, w, "ds_net.f", "image", arch, width)
    saliency = g.conv(x, w.get("left_postprocess_net.gn_conv_last.weight", (classes, c, 1, 1)), None, "left_postprocess_net.gn_conv_last")
    y_global = g.reduce("ReduceMean", saliency, [2, 3])

    tiles = _regions(g, saliency)

    h = resnet.trunk(g, w, "dn_resnet.f", tiles, arch, width, grey=True)
    h = g.reshape(g.reduce("ReduceMean", h, [2, 3]), -1, REGIONS, c)
    u = g.op("Sigmoid", g.linear(h, w.get("mil_attn_U.weight", (ATTENTION_WIDTH, c)), None, "mil_attn_U"))
    v = g.op("Tanh", g.linear(h, w.get("mil_attn_V.weight", (ATTENTION_WIDTH, c)), None, "mil_attn_V"))
    scores = g.linear(g.op("Mul", u, v), w.get("mil_attn_w.weight", (1, ATTENTION_WIDTH)), None, "mil_attn_w")
    attention = g.op("Softmax", g.reshape(scores, -1, REGIONS), axis=-1)
    z = g.sum(g.op("Mul", h, g.reshape(attention, -1, REGIONS, 1)), 1)
    y_local = g.linear(z, w.get("classifier_linear.weight", (classes, c)), None, "classifier_linear")
    y_fusion = g.op("Mul", g.op("Add", y_global, y_local), g.scalar(0.5))

    g.output(saliency, "saliency")
    g.output(g.op("Cast", "cells_rc", to="int64"), "patch_locations")
    g.output(attention, "patch_attention")
    g.output(y_global, "y_global")
    g.output(y_local, "y_local")
    g.output(y_fusion, "y_fusion")
    g.output(g.op("Softmax", y_fusion, axis=-1), "prior")
    return tiles


def _regions(g: GraphBuilder, saliency: str) -> str:
    """Choose six cells of the saliency map and gather their tiles; kernels/prior_tail/reference.py has the rule.

    The stable descending sort is done by counting, rank_i = #{j: m_j > m_i} + #{j < i: m_j = m_i}, because TopK operators
    order ties differently from one runtime to the next and this does not.
    """
    low = g.reduce("ReduceMin", saliency, [2, 3], keep=True)
    span = g.op("Sub", g.reduce("ReduceMax", saliency, [2, 3], keep=True), low)
    divisor = g.op("Where", g.op("Greater", span, g.scalar(0.0)), span, g.scalar(1.0))
    scores = g.reshape(g.sum(g.op("Div", g.op("Sub", saliency, low), divisor), 1), -1, CELLS)

    mine, other = g.reshape(scores, -1, CELLS, 1), g.reshape(scores, -1, 1, CELLS)
    earlier = g.constant(np.tri(CELLS, k=-1, dtype=bool)[None], "earlier_cell")
    ahead = g.op("Or", g.op("Greater", other, mine), g.op("And", g.op("Equal", other, mine), earlier))
    rank = g.sum(g.op("Cast", ahead, to="float"), 2)
    place = g.constant(np.arange(REGIONS, dtype=np.float64).reshape(1, REGIONS, 1), "place")
    chosen = g.op("Equal", g.reshape(rank, -1, 1, CELLS), place)
    chosen = g.op("And", chosen, g.op("Greater", other, g.scalar(0.0)))
    index = g.constant(np.arange(CELLS, dtype=np.float64).reshape(1, 1, CELLS), "cell_index")
    cell = g.sum(g.op("Mul", g.op("Cast", chosen, to="float"), index), 2)

    row = g.op("Floor", g.op("Div", cell, g.scalar(float(GRID))))
    column = g.op("Sub", cell, g.op("Mul", row, g.scalar(float(GRID))))
    corner = g.op("Concat", g.reshape(row, -1, REGIONS, 1), g.reshape(column, -1, REGIONS, 1), axis=2)
    g.op("Mul", corner, g.scalar(float(TILE)), name="cells_rc")

    red = g.op("Gather", "image", g.constant(np.array(0, np.int64), "channel_0"), axis=1)
    tiles = g.op("Transpose", g.reshape(red, -1, GRID, TILE, GRID, TILE), perm=[0, 1, 3, 2, 4])
    tiles = g.reshape(tiles, -1, CELLS, TILE, TILE)
    where = g.reshape(g.op("Cast", cell, to="int64"), -1, REGIONS, 1)
    return g.reshape(g.op("GatherND", tiles, where, batch_dims=1), -1, 1, TILE, TILE)


def _feature_v1(g: GraphBuilder, w: Weights, network: Network) -> None:
    arch, width = network.feature_arch, network.backbone_width
    x = resnet.trunk(g, w, "encoder_x.f", "image", arch, width)
    c = resnet.channels(arch, width)
    pooled = g.reduce("ReduceMean", x, [2, 3])
    g.output(_project(g, w, "encoder_x.g", "norm", pooled, (network.feature_dim, c)), "feature")


def _features_v2(g: GraphBuilder, w: Weights, network: Network, tiles: str) -> None:
    f = network.feature_dim
    tokens = vit.trunk(g, w, "encoder_x.f", "image", network.vit_width, network.vit_depth)
    # The 1x1 projection and the mean over positions commute, so one pooled vector is projected instead of 196.
    pooled = g.reduce("ReduceMean", tokens, [1])
    image = _project(g, w, "encoder_x.g", "norm", pooled, (f, network.vit_width, 1, 1))

    arch, width = network.feature_arch, network.backbone_width
    c = resnet.channels(arch, width)
    h = resnet.trunk(g, w, "encoder_x_l.f", tiles, arch, width, grey=True)
    regions = _project(g, w, "encoder_x_l.g", "norm_l", g.reduce("ReduceMean", h, [2, 3]), (f, c))
    regions = g.op("Transpose", g.reshape(regions, -1, REGIONS, f), perm=[0, 2, 1])

    logits = w.get("cond_weight", (1, f, REGIONS + 1)).astype(np.float64)
    weight = np.exp(logits - logits.max(axis=-1, keepdims=True))
    share = g.constant(weight / weight.sum(axis=-1, keepdims=True), "cond_weight")
    stack = g.op("Concat", g.reshape(image, -1, f, 1), regions, axis=2)
    g.output(image, "image_feature")
    g.output(regions, "roi_features")
    g.output(g.sum(g.op("Mul", stack, share), 2), "fused_feature")


def _project(g: GraphBuilder, w: Weights, linear: str, norm: str, x: str, shape: tuple[int, ...]) -> str:
    """Linear layer (or 1x1 convolution) followed by batch normalisation, folded into one linear layer in float64."""
    scale, shift = batch_norm(w, norm, shape[0])
    weight = w.get(f"{linear}.weight", shape).astype(np.float64).reshape(shape[:2])
    bias = w.get(f"{linear}.bias", shape[:1]).astype(np.float64)
    return g.linear(x, weight * scale[:, None], bias * scale + shift, linear)
