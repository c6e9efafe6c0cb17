"""8-bit frames on the GPU to the network's input: resize with Pillow's bits, then normalise, in two kernels.

    narrow[b,y,c,x] = round8(sum_i weight[i,x] * pixels[b, y, first[x] + i, c])          across the rows
    out[b,c,y,x]    = values[c, round8(sum_i weight[i,y] * narrow[b, first[y] + i, c, x])]    down the columns

round8(s) = (s + 2^21) >> 22.  Everything up to the last look-up is integer arithmetic, so the bits are those of reference.py on
every GPU.  One frame of 512 x 512 is small work for a GPU: what counts is two launches and no other traffic.

No argument is specialised (``do_not_specialize``): Triton would otherwise compile a new variant for every combination of sizes,
strides and addresses that 16 divides or not, half a second each, in the middle of serving.  Loops are ``while``: the interpreter cannot
iterate a ``range`` whose end is an argument where numpy is 2.4 or newer.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import triton
import triton.language as tl

from fusedx.kernels.resize.plan import tap_table
from fusedx.kernels.resize.reference import BITS
from fusedx.kernels.tensor_arguments import check

#: Rows of the result that one program computes, and its warps.  One row leaves the most programs to hide the latency of the
#: gathered loads behind: 512 for a frame of 512 x 512.  More rows are for the interpreter, whose time goes by their number.
ROWS, WARPS = 1, 4

_SHIFT = tl.constexpr(BITS)
_HALF = tl.constexpr(1 << (BITS - 1))


@triton.jit(do_not_specialize=range(10))
def across_kernel(
    pixels,  # uint8 [B, side, side, 3], strides in bytes
    image_stride: tl.int64,
    row_stride: tl.int64,
    column_stride: tl.int64,
    channel_stride: tl.int64,
    side: tl.int32,
    first,  # int32 [SIZE]
    weight,  # int32 [most, SIZE]
    most: tl.int32,
    narrow,  # uint8 [B, side, 3, SIZE], contiguous
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,  # SIZE rounded up to a power of two
    ROWS: tl.constexpr,
):
    lane = tl.arange(0, ROWS * BLOCK)  # flat, x fastest: in two dimensions Triton would run the lanes of a gather down the rows
    y, x = tl.program_id(0) * ROWS + lane // BLOCK, lane % BLOCK
    image = tl.program_id(1).to(tl.int64)
    inside = (y < side) & (x < SIZE)
    begin = tl.load(first + x, mask=x < SIZE, other=0)
    line = pixels + image * image_stride + y.to(tl.int64) * row_stride
    red = tl.full((ROWS * BLOCK,), _HALF, tl.int32)
    green = tl.full((ROWS * BLOCK,), _HALF, tl.int32)
    blue = tl.full((ROWS * BLOCK,), _HALF, tl.int32)
    i = 0
    while i < most:
        column = begin + i
        here = inside & (column < side)
        w = tl.load(weight + i * SIZE + x, mask=x < SIZE, other=0)
        at = line + column.to(tl.int64) * column_stride
        red += w * tl.load(at, mask=here, other=0).to(tl.int32)
        green += w * tl.load(at + channel_stride, mask=here, other=0).to(tl.int32)
        blue += w * tl.load(at + 2 * channel_stride, mask=here, other=0).to(tl.int32)
        i += 1
    to = narrow + (image * side + y) * (3 * SIZE) + x
    tl.store(to, tl.minimum(red >> _SHIFT, 255).to(tl.uint8), mask=inside)
    tl.store(to + SIZE, tl.minimum(green >> _SHIFT, 255).to(tl.uint8), mask=inside)
    tl.store(to + 2 * SIZE, tl.minimum(blue >> _SHIFT, 255).to(tl.uint8), mask=inside)


@triton.jit(do_not_specialize=range(11))
def down_kernel(
    narrow,  # uint8 [B, side, 3, SIZE], contiguous
    side: tl.int32,
    first,  # int32 [SIZE]
    weight,  # int32 [most, SIZE]
    most: tl.int32,
    values,  # float32 [3, 256]: (level / 255 - mean) / std
    out,  # float32 [B, 3, SIZE, SIZE], strides in elements
    image_stride: tl.int64,
    channel_stride: tl.int64,
    row_stride: tl.int64,
    column_stride: tl.int64,
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
):
    lane = tl.arange(0, ROWS * BLOCK)
    y, x = tl.program_id(0) * ROWS + lane // BLOCK, lane % BLOCK
    channel = tl.program_id(1)
    image = tl.program_id(2).to(tl.int64)
    inside = (y < SIZE) & (x < SIZE)
    begin = tl.load(first + y, mask=y < SIZE, other=0)
    plane = narrow + image * side * (3 * SIZE) + channel * SIZE + x
    total = tl.full((ROWS * BLOCK,), _HALF, tl.int32)
    i = 0
    while i < most:
        row = begin + i
        w = tl.load(weight + i * SIZE + y, mask=y < SIZE, other=0)
        level = tl.load(plane + row.to(tl.int64) * (3 * SIZE), mask=inside & (row < side), other=0)
        total += w * level.to(tl.int32)
        i += 1
    level = tl.minimum(total >> _SHIFT, 255)
    value = tl.load(values + channel * 256 + level, mask=inside, other=0.0)
    to = out + image * image_stride + channel * channel_stride + y.to(tl.int64) * row_stride + x.to(tl.int64) * column_stride
    tl.store(to, value, mask=inside)


def resize_normalize(pixels: torch.Tensor, values: torch.Tensor, out: torch.Tensor) -> None:
    """Square frames of one size into the network's input, on the current stream of their device.

    pixels uint8 [B, n, n, 3], any strides, zero included (a grey frame is one channel three times).  values float32 [3, 256],
    contiguous: what each 8-bit level becomes in each channel.  out float32 [B, 3, m, m], any strides, is overwritten.
    All on one device.  Raises ValueError for anything else; nothing is launched then.
    """
    side, size = (pixels.shape[1] if pixels.ndim > 1 else 1), (out.shape[-1] if out.ndim else 1)
    check("pixels", pixels, (None, side, side, 3), (torch.uint8,), pixels.device, any_strides=True)
    images = len(pixels)
    check("values", values, (3, 256), (torch.float32,), pixels.device)
    check("out", out, (images, 3, size, size), (torch.float32,), pixels.device, any_strides=True)
    first, weight = _taps_on(pixels.device, side, size)
    narrow = torch.empty((images, side, 3, size), dtype=torch.uint8, device=pixels.device)
    shape = {"SIZE": size, "BLOCK": triton.next_power_of_2(size), "ROWS": ROWS, "num_warps": WARPS}
    most = weight.shape[0]
    across_kernel[(triton.cdiv(side, ROWS), images)](pixels, *pixels.stride(), side, first, weight, most, narrow, **shape)
    down_kernel[(triton.cdiv(size, ROWS), 3, images)](narrow, side, first, weight, most, values, out, *out.stride(), **shape)


def _taps_on(device: torch.device, side: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    tables = _uploaded(device, side, size)
    if device.type == "cuda":
        for table in tables:  # the cache may drop a table while another stream's kernels still read it
            table.record_stream(torch.cuda.current_stream(device))
    return tables


@lru_cache(maxsize=64)
def _uploaded(device: torch.device, side: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """first int32 [size] and weight int32 [most, size].  The copy has ended when this returns, so any stream may read them."""
    table = tap_table(side, size)
    return torch.tensor(table.first, device=device), torch.tensor(table.weight, device=device)
