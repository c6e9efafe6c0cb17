"""EfficientSAM's ViT trunk (arXiv 2312.00863) without its neck: pre-norm blocks, exact GELU, absolute positions.

Tensor names ``<prefix>.patch_embed.proj``, ``<prefix>.pos_embed``, ``<prefix>.blocks.<i>.*``; qkv is packed [3, heads, 64].
"""

from __future__ import annotations

import math

import numpy as np

from fusedx.engine.encoder.graph import GraphBuilder
from fusedx.engine.weights import Weights

HEAD = 64
PATCH = 16
TOKENS = 196


def depth(w: Weights, prefix: str) -> int:
    """Number of blocks that the checkpoint holds."""
    i = 0
    while f"{prefix}.blocks.{i}.norm1.weight" in w:
        i += 1
    return i


def trunk(g: GraphBuilder, w: Weights, prefix: str, x: str, width: int, blocks: int) -> str:
    """[B,3,224,224] -> tokens [B,196,width]; no final norm."""
    weight = w.get(f"{prefix}.patch_embed.proj.weight", (width, 3, PATCH, PATCH))
    bias = w.get(f"{prefix}.patch_embed.proj.bias", (width,))
    x = g.conv(x, weight, bias, f"{prefix}.patch_embed.proj", stride=PATCH)
    x = g.op("Transpose", g.reshape(x, 0, width, TOKENS), perm=[0, 2, 1])
    # The table's first row belongs to a class token that the trunk does not use.
    position = w.get(f"{prefix}.pos_embed", (1, TOKENS + 1, width))[:, 1:]
    x = g.op("Add", x, g.constant(position, f"{prefix}.pos_embed"))
    for i in range(blocks):
        x = _block(g, w, f"{prefix}.blocks.{i}", x, width)
    return x


def _block(g: GraphBuilder, w: Weights, name: str, x: str, width: int) -> str:
    x = g.op("Add", x, _attention(g, w, f"{name}.attn", _norm(g, w, f"{name}.norm1", x, width), width))
    y = _linear(g, w, f"{name}.mlp.fc1", _norm(g, w, f"{name}.norm2", x, width), width, 4 * width)
    return g.op("Add", x, _linear(g, w, f"{name}.mlp.fc2", _gelu(g, y), 4 * width, width))


def _attention(g: GraphBuilder, w: Weights, name: str, x: str, width: int) -> str:
    heads = width // HEAD
    qkv = g.reshape(_linear(g, w, f"{name}.qkv", x, width, 3 * width), 0, TOKENS, 3, heads, HEAD)
    qkv = g.op("Transpose", qkv, perm=[2, 0, 3, 1, 4])
    q, k, v = (g.op("Gather", qkv, g.constant(np.array(i, np.int64), f"{name}.pick_{i}"), axis=0) for i in range(3))
    scores = g.op("MatMul", q, g.op("Transpose", k, perm=[0, 1, 3, 2]))
    scores = g.op("Softmax", g.op("Mul", scores, g.scalar(HEAD**-0.5)), axis=-1)
    y = g.op("Transpose", g.op("MatMul", scores, v), perm=[0, 2, 1, 3])
    return _linear(g, w, f"{name}.proj", g.reshape(y, 0, TOKENS, width), width, width)


def _gelu(g: GraphBuilder, x: str) -> str:
    """x/2 (1 + erf(x / sqrt 2))."""
    erf = g.op("Erf", g.op("Mul", x, g.scalar(math.sqrt(0.5))))
    return g.op("Mul", g.op("Mul", x, g.scalar(0.5)), g.op("Add", erf, g.scalar(1.0)))


def _norm(g: GraphBuilder, w: Weights, name: str, x: str, width: int) -> str:
    scale = g.constant(w.get(f"{name}.weight", (width,)), f"{name}.weight")
    shift = g.constant(w.get(f"{name}.bias", (width,)), f"{name}.bias")
    return g.op("LayerNormalization", x, scale, shift, name=name, axis=-1, epsilon=1e-6)


def _linear(g: GraphBuilder, w: Weights, name: str, x: str, c_in: int, c_out: int) -> str:
    return g.linear(x, w.get(f"{name}.weight", (c_out, c_in)), w.get(f"{name}.bias", (c_out,)), name)
