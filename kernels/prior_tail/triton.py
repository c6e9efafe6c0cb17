"""The prior tail as one Triton launch: saliency normalisation, the six regions, their tiles; the arithmetic of reference.py.

In float32 every score has the bits that the float32 reference has: the same operations, each rounded once, classes in ascending
order.  So ties are the same ties, and go to the lowest cell.

The current CUDA device must be that of the tensors, and the current stream orders the launch.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from fusedx.kernels.tensor_arguments import check

GRID = 7  # cells a side of the saliency map
COUNT = 6  # regions an image


@triton.jit
def _scores(saliency, CLASSES: tl.constexpr, CELLS: tl.constexpr, PADDED: tl.constexpr):
    """f32 [CLASSES, CELLS] of one image -> f32 [PADDED]: class maps scaled to [0, 1] and summed; -1 where there is no score."""
    cell = tl.arange(0, PADDED)
    real = cell < CELLS
    total = tl.zeros((PADDED,), tl.float32)
    undefined = tl.zeros((PADDED,), tl.int32)
    for c in range(CLASSES):
        s = tl.load(saliency + c * CELLS + cell, mask=real, other=0.0)
        undefined |= (s != s).to(tl.int32)
        low = tl.min(tl.where(real, s, float("inf")), axis=0)
        span = tl.max(tl.where(real, s, float("-inf")), axis=0) - low
        total += tl.div_rn(s - low, tl.broadcast_to(tl.where(span > 0.0, span, 1.0), (PADDED,)))
    # A not-a-number makes its class map, and with it every score, one: then no cell is positive.
    return tl.where(real & (total > 0.0) & (tl.max(undefined, axis=0) == 0), total, -1.0)


@triton.jit
def _prior_tail_kernel(
    saliency,  # f32 [B, CLASSES, GRID, GRID]
    image,  # [B, 3, GRID * TILE, GRID * TILE]
    cells,  # i64 [B, COUNT]
    tiles,  # [B, COUNT, TILE, TILE], the image's dtype
    CLASSES: tl.constexpr,
    GRID: tl.constexpr,
    COUNT: tl.constexpr,
    TILE: tl.constexpr,
    PADDED: tl.constexpr,  # power of two, at least GRID * GRID
):
    b = tl.program_id(0).to(tl.int64)
    pick = tl.program_id(1)
    cell = tl.arange(0, PADDED)
    left = _scores(saliency + b * CLASSES * GRID * GRID, CLASSES, GRID * GRID, PADDED)
    chosen = 0
    for k in range(COUNT):  # every program of an image repeats the search, which is shorter than waiting for another's
        best = tl.max(left, axis=0)
        at = tl.min(tl.where(left == best, cell, PADDED), axis=0)
        chosen = tl.where(k == pick, tl.where(best > 0.0, at, 0), chosen)
        left = tl.where(cell == at, -1.0, left)
    tl.store(cells + b * COUNT + pick, chosen.to(tl.int64))  # type: ignore[attr-defined]  # a tensor by now

    side = GRID * TILE
    y = tl.arange(0, TILE)[:, None]
    x = tl.arange(0, TILE)[None, :]
    corner = b * 3 * side * side + (chosen // GRID) * TILE * side + (chosen % GRID) * TILE
    pixels = tl.load(image + corner + y * side + x)
    tl.store(tiles + (b * COUNT + pick) * TILE * TILE + y * TILE + x, pixels)


def prior_tail(saliency: torch.Tensor, image: torch.Tensor, *, cells: torch.Tensor, tiles: torch.Tensor) -> None:
    """Choose the six regions of each image and gather channel 0 of their tiles.

    saliency float32 [B, C, 7, 7]; image [B, 3, S, S], S = 7 x a power of two (224 = 7 x 32), float32, bfloat16 or float16;
    cells int64 [B, 6] and tiles [B, 6, S/7, S/7] of the image's dtype are written.  All contiguous, on one device.
    Raises ValueError naming the argument that does not fit.
    """
    device = getattr(saliency, "device", torch.device("cpu"))
    check("saliency", saliency, (None, None, GRID, GRID), (torch.float32,), device)
    batch, classes = saliency.shape[:2]
    check("image", image, (batch, 3, None, None), (torch.float32, torch.bfloat16, torch.float16), device)
    tile = image.shape[2] // GRID
    if image.shape[2] != image.shape[3] or image.shape[2] % GRID or tile & (tile - 1) or tile > 64:
        raise ValueError(f"image: expected sides of 7 x a power of two up to 64, such as 224, got {list(image.shape)}")
    check("cells", cells, (batch, COUNT), (torch.int64,), device)
    check("tiles", tiles, (batch, COUNT, tile, tile), (image.dtype,), device)
    _prior_tail_kernel[(batch, COUNT)](saliency, image, cells, tiles, **tiling(classes, tile))


def tiling(classes: int, tile: int) -> dict[str, int | bool]:
    """The kernel's sizes and compiler options."""
    return {
        "CLASSES": classes,
        "GRID": GRID,
        "COUNT": COUNT,
        "TILE": tile,
        "PADDED": triton.next_power_of_2(GRID * GRID),
        "num_warps": 1,  # 49 cells: a second warp would cost barriers and bring nothing
        "enable_fp_fusion": False,  # fused operations would give scores other bits than the reference's
    }
