"""ResNet trunks (arXiv 1512.03385) with torchvision's child order, batch normalisation folded into the convolutions.

A trunk's tensors are named ``<prefix>.<i>.``: 0 convolution, 1 norm, 4..7 the four stages.  Width is read from the first
convolution, so a narrow network is the same code.
"""

from __future__ import annotations

import numpy as np

from fusedx.engine.encoder.graph import GraphBuilder
from fusedx.engine.weights import Weights, batch_norm

#: arch -> (blocks a stage, bottleneck expansion; 1 means the basic two-convolution block)
ARCHITECTURES = {"resnet18": ((2, 2, 2, 2), 1), "resnet50": ((3, 4, 6, 3), 4)}


def channels(arch: str, width: int) -> int:
    """Channels that the trunk returns."""
    return width * 8 * ARCHITECTURES[arch][1]


def trunk(g: GraphBuilder, w: Weights, prefix: str, x: str, arch: str, width: int, *, grey: bool = False) -> str:
    """[N,3,H,W] (or [N,1,H,W] when ``grey``) -> [N, channels, H/32, W/32].

    ``grey``: the input's three channels are equal, so the first convolution's weights are summed over them and one is read.
    """
    blocks, expansion = ARCHITECTURES[arch]
    x = _conv_norm(g, w, f"{prefix}.0", f"{prefix}.1", x, (width, 3, 7, 7), stride=2, grey=grey)
    x = g.op("Relu", x)
    x = g.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    c_in = width
    for stage, count in enumerate(blocks):
        mid = width << stage
        for i in range(count):
            stride = 2 if stage > 0 and i == 0 else 1
            name = f"{prefix}.{stage + 4}.{i}"
            x = (_basic if expansion == 1 else _bottleneck)(g, w, name, x, c_in, mid, mid * expansion, stride)
            c_in = mid * expansion
    return x


def _basic(g: GraphBuilder, w: Weights, name: str, x: str, c_in: int, mid: int, c_out: int, stride: int) -> str:
    y = g.op("Relu", _conv_norm(g, w, f"{name}.conv1", f"{name}.bn1", x, (mid, c_in, 3, 3), stride=stride))
    y = _conv_norm(g, w, f"{name}.conv2", f"{name}.bn2", y, (c_out, mid, 3, 3))
    return g.op("Relu", g.op("Add", y, _skip(g, w, name, x, c_in, c_out, stride)))


def _bottleneck(g: GraphBuilder, w: Weights, name: str, x: str, c_in: int, mid: int, c_out: int, stride: int) -> str:
    y = g.op("Relu", _conv_norm(g, w, f"{name}.conv1", f"{name}.bn1", x, (mid, c_in, 1, 1)))
    y = g.op("Relu", _conv_norm(g, w, f"{name}.conv2", f"{name}.bn2", y, (mid, mid, 3, 3), stride=stride))
    y = _conv_norm(g, w, f"{name}.conv3", f"{name}.bn3", y, (c_out, mid, 1, 1))
    return g.op("Relu", g.op("Add", y, _skip(g, w, name, x, c_in, c_out, stride)))


def _skip(g: GraphBuilder, w: Weights, name: str, x: str, c_in: int, c_out: int, stride: int) -> str:
    if stride == 1 and c_in == c_out:
        return x
    return _conv_norm(g, w, f"{name}.downsample.0", f"{name}.downsample.1", x, (c_out, c_in, 1, 1), stride=stride)


def _conv_norm(
    g: GraphBuilder, w: Weights, conv: str, norm: str, x: str, shape: tuple[int, int, int, int], *, stride: int = 1, grey: bool = False
) -> str:
    """Bias-free convolution and its norm as one convolution, folded in float64."""
    weight = w.get(f"{conv}.weight", shape).astype(np.float64)
    if grey:
        weight = weight.sum(axis=1, keepdims=True)
    scale, shift = batch_norm(w, norm, shape[0])
    return g.conv(x, weight * scale[:, None, None, None], shift, conv, stride=stride, pad=shape[2] // 2)
