"""The conditional layer as Triton kernels, for every weight format and any number of rows.

    out[r, n] = softplus(a[t_r, n] * (sum_k W[n, k] u[r, k] + h[i_r, n]) + c[t_r, n]) * f[i_r, n]

A program computes the transposed tile out^T [block_out, block_rows] = W [block_out, K] @ u^T [K, block_rows]: the weights are the
operand with the large tile side, so one row is padded to the narrow side of a tensor-core tile and not to the wide one.
Accumulation is fp32 in the order of k.  ``projected_layer`` adds partial products of the denoiser's last layer in the epilogue.

The current CUDA device must be that of the tensors, and the current stream orders the launch.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from fusedx.kernels.conditional_layer.softplus_triton import softplus
from fusedx.kernels.conditional_layer.variants import Variant
from fusedx.kernels.tensor_arguments import check, check_step

#: dtype of the weights -> dtype of the activations; uint8 holds the bits of e4m3.
ACTIVATION = {
    torch.float32: torch.float32,
    torch.bfloat16: torch.bfloat16,
    torch.float16: torch.float16,
    torch.uint8: torch.float16,
}
GROUP_ROWS = 16  # row tiles that walk the weights together: 16 x 128 rows of u and one tile of W stay in L2


@triton.jit
def _tile(rows, outputs, BLOCK_OUT: tl.constexpr, BLOCK_ROWS: tl.constexpr, GROUP_ROWS: tl.constexpr):
    """(output indices [BLOCK_OUT], row indices [BLOCK_ROWS]) of this program.  Programs that share weights are neighbours."""
    row_tiles, out_tiles = tl.cdiv(rows, BLOCK_ROWS), tl.cdiv(outputs, BLOCK_OUT)
    program = tl.program_id(0)
    group = program // (GROUP_ROWS * out_tiles)
    within = program % (GROUP_ROWS * out_tiles)
    width = tl.minimum(row_tiles - group * GROUP_ROWS, GROUP_ROWS)
    n = (within // width) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    r = (group * GROUP_ROWS + within % width) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    return n, r


@triton.jit
def _decode_e4m3(bits):
    """uint8 bits of e4m3 -> fp16 of 2^-8 times the value, exactly: seeeemmm becomes s0eeeemmm0000000, and the biases differ by 8.

    The factor 2^8 belongs in a.  The two not-a-number codes become +-1.875; a finite weight never has them.
    Extending the sign puts s where both s and the 0 belong, which saves moving it by itself.
    """
    wide = bits.to(tl.int8, bitcast=True).to(tl.int16)
    return ((wide << 7) & -0x4001).to(tl.float16, bitcast=True)


@triton.jit
def _product(
    u,  # [rows, INPUTS], row stride u_stride
    weight,  # [outputs, INPUTS]
    n,
    r,
    rows,
    outputs,
    u_stride,
    INPUTS: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_K: tl.constexpr,
    EVEN: tl.constexpr,  # BLOCK_OUT divides outputs and BLOCK_K divides INPUTS
):
    """sum_k W[n, k] u[r, k], fp32 [BLOCK_OUT, BLOCK_ROWS], zero outside."""
    k = tl.arange(0, BLOCK_K)
    u_at = u + r[None, :] * u_stride + k[:, None]
    w_at = weight + n[:, None] * INPUTS + k[None, :]
    row_inside = (r < rows)[None, :]
    total = tl.zeros((BLOCK_OUT, BLOCK_ROWS), tl.float32)
    for start in range(0, INPUTS, BLOCK_K):
        if EVEN:
            w = tl.load(w_at)
            x = tl.load(u_at, mask=row_inside, other=0.0)
        else:
            k_inside = start + k < INPUTS
            w = tl.load(w_at, mask=(n < outputs)[:, None] & k_inside[None, :], other=0)
            x = tl.load(u_at, mask=row_inside & k_inside[:, None], other=0.0)
        if weight.dtype.element_ty == tl.uint8:
            w = _decode_e4m3(w)
        total = tl.dot(w, x, total, input_precision="ieee")
        w_at += BLOCK_K
        u_at += BLOCK_K
    return total


@triton.jit
def _activation(x, a, c, t, h, f, image, n, r, rows, outputs, SHARED_STEP: tl.constexpr):
    """softplus(a (x + h) + c) f of a product x [BLOCK_OUT, BLOCK_ROWS]; h and f may be None."""
    n_inside = (n < outputs)[:, None]
    inside = n_inside & (r < rows)[None, :]
    if h is not None or f is not None:
        entry = tl.load(image + r, mask=r < rows, other=0)
        at_entry = entry[None, :] * outputs + n[:, None]
    if h is not None:
        x += tl.load(h + at_entry, mask=inside, other=0.0)
    if SHARED_STEP:  # one scale an output and not one an element: half the registers, so twice the programs a processor
        at_step = tl.load(t) * outputs + n[:, None]
        scale = tl.broadcast_to(tl.load(a + at_step, mask=n_inside, other=0.0), x.shape)
        shift = tl.broadcast_to(tl.load(c + at_step, mask=n_inside, other=0.0), x.shape)
    else:
        at_step = tl.load(t + r, mask=r < rows, other=0)[None, :] * outputs + n[:, None]
        scale = tl.load(a + at_step, mask=inside, other=0.0)
        shift = tl.load(c + at_step, mask=inside, other=0.0)
    x = softplus(tl.fma(scale, x, shift))
    if f is not None:
        x *= tl.load(f + at_entry, mask=inside, other=0.0)
    return x


@triton.jit(do_not_specialize=["rows"])  # one compiled form for any number of rows
def _layer_kernel(
    u,  # [rows, INPUTS], row stride u_stride
    weight,  # [outputs, INPUTS]; uint8 holds e4m3
    a,  # f32 [T, outputs]
    c,  # f32 [T, outputs]
    t,  # i32 [rows]
    h,  # f32 [I, outputs] or None
    f,  # f32 [I, outputs] or None
    image,  # i32 [rows] or None
    out,  # [rows, outputs], row stride out_stride
    rows,
    outputs,
    u_stride,
    out_stride,
    INPUTS: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP_ROWS: tl.constexpr,
    EVEN: tl.constexpr,
    SHARED_STEP: tl.constexpr,
):
    n, r = _tile(rows, outputs, BLOCK_OUT, BLOCK_ROWS, GROUP_ROWS)
    x = _product(u, weight, n, r, rows, outputs, u_stride, INPUTS, BLOCK_OUT, BLOCK_ROWS, BLOCK_K, EVEN)
    x = _activation(x, a, c, t, h, f, image, n, r, rows, outputs, SHARED_STEP)
    inside = (n < outputs)[:, None] & (r < rows)[None, :]
    tl.store(out + r[None, :] * out_stride + n[:, None], x.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["rows"])  # one compiled form for any number of rows
def _projected_kernel(
    u,  # [rows, INPUTS], row stride u_stride
    weight,  # [outputs, INPUTS]; uint8 holds e4m3
    a,  # f32 [T, outputs]
    c,  # f32 [T, outputs]
    t,  # i32 [rows]
    weight4,  # f32 [CLASSES, outputs]
    partial,  # f32 [rows, tiles, CLASSES]
    rows,
    outputs,
    u_stride,
    INPUTS: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP_ROWS: tl.constexpr,
    EVEN: tl.constexpr,
    SHARED_STEP: tl.constexpr,  # t holds one number for all rows
    PARTIAL_OUT: tl.constexpr,
    CLASSES: tl.constexpr,
    PADDED_CLASSES: tl.constexpr,
):
    n, r = _tile(rows, outputs, BLOCK_OUT, BLOCK_ROWS, GROUP_ROWS)
    x = _product(u, weight, n, r, rows, outputs, u_stride, INPUTS, BLOCK_OUT, BLOCK_ROWS, BLOCK_K, EVEN)
    x = _activation(x, a, c, t, None, None, None, n, r, rows, outputs, SHARED_STEP)

    # One row of a small product for each (tile, class), with weights of zero outside the tile: adding a product with zero
    # changes no bit, so a tile's sum does not depend on the block it is in.  The "ieee" dot adds its products one after another.
    tiles = tl.cdiv(outputs, PARTIAL_OUT)
    m = tl.arange(0, BLOCK_OUT // PARTIAL_OUT * PADDED_CLASSES)
    tile = tl.min(n, axis=0) // PARTIAL_OUT + m // PADDED_CLASSES
    k = m % PADDED_CLASSES
    real = ((n // PARTIAL_OUT)[None, :] == tile[:, None]) & (n < outputs)[None, :] & (k < CLASSES)[:, None]
    w4 = tl.load(weight4 + k[:, None] * outputs + n[None, :], mask=real, other=0.0)
    sums = tl.dot(w4, x, input_precision="ieee")
    inside = ((tile < tiles) & (k < CLASSES))[:, None] & (r < rows)[None, :]
    tl.store(partial + (r[None, :] * tiles + tile[:, None]) * CLASSES + k[:, None], sums, mask=inside)


def conditional_layer(
    u: torch.Tensor,
    weight: torch.Tensor,
    a: torch.Tensor,
    c: torch.Tensor,
    t: torch.Tensor,
    *,
    out: torch.Tensor,
    variant: Variant,
    h: torch.Tensor | None = None,
    f: torch.Tensor | None = None,
    image: torch.Tensor | None = None,
) -> None:
    """Write the layer's output for rows that may each be of another time step and image.

    u [R, K] (rows may lie apart); weight [N, K] float32, bfloat16, float16 or uint8 (bits of e4m3, 2^8 and the channel's scale
    being in a); u is float32, bfloat16, float16 and float16 respectively; a, c float32 [T, N]; t int32 [R] in 0..T-1, faster
    for many rows where it is one number expanded (``step.expand(R)``); h, f float32 [I, N], h in the units of the stored
    weights' product; image int32 [R] in 0..I-1, needed with h or f; out [R, N] float32, bfloat16 or float16 (infinity above
    65504), not overlapping an input.  Indices are not checked: that would wait for the device.
    Raises ValueError naming the argument that does not fit.
    """
    rows, outputs, inputs = _check_layer(u, weight, a, c, t)
    check("out", out, (rows, outputs), (torch.float32, torch.bfloat16, torch.float16), u.device, strided_rows=True)
    for name, table in (("h", h), ("f", f)):
        if table is not None:
            check(name, table, (None, outputs), (torch.float32,), u.device)
    if h is not None or f is not None:
        check("image", image, (rows,), (torch.int32,), u.device)
    sizes = rows, outputs, u.stride(0), out.stride(0)
    constants = tiling(variant, outputs, inputs, shared_step=t.stride(0) == 0)
    _layer_kernel[_grid(variant, rows, outputs)](u, weight, a, c, t, h, f, image, out, *sizes, **constants)


def projected_layer(
    u: torch.Tensor,
    weight: torch.Tensor,
    a: torch.Tensor,
    c: torch.Tensor,
    t: torch.Tensor,
    weight4: torch.Tensor,
    *,
    partial: torch.Tensor,
    variant: Variant,
) -> None:
    """The layer and partial products of the one after it; the layer's own output stays in registers, in float32.

    partial[r, j, k] = sum of weight4[k, n] layer(u)[r, n] over the ``variant.partial_out`` outputs n of tile j, the last tile
    being shorter where they do not divide N.  weight4 float32 [C, N], 1 <= C <= 16; partial float32
    [R, variant.partial_tiles(N), C]; the rest as in :func:`conditional_layer`.
    """
    rows, outputs, inputs = _check_layer(u, weight, a, c, t)
    check("weight4", weight4, (None, outputs), (torch.float32,), u.device)
    classes = weight4.shape[0]
    if classes > 16:
        raise ValueError(f"weight4: expected at most 16 classes, got {classes}")
    check("partial", partial, (rows, variant.partial_tiles(outputs), classes), (torch.float32,), u.device)
    constants = tiling(variant, outputs, inputs, shared_step=t.stride(0) == 0) | projection_tiling(variant, classes)
    grid = _grid(variant, rows, outputs)
    _projected_kernel[grid](u, weight, a, c, t, weight4, partial, rows, outputs, u.stride(0), **constants)


def _check_layer(u: torch.Tensor, weight: torch.Tensor, a: torch.Tensor, c: torch.Tensor, t: torch.Tensor) -> tuple[int, int, int]:
    """(rows, outputs, inputs) of arguments that fit together."""
    device = getattr(u, "device", torch.device("cpu"))
    check("weight", weight, (None, None), tuple(ACTIVATION), device)
    outputs, inputs = weight.shape
    check("u", u, (None, inputs), (ACTIVATION[weight.dtype],), device, strided_rows=True)
    check("a", a, (None, outputs), (torch.float32,), device)
    check("c", c, (a.shape[0], outputs), (torch.float32,), device)
    check_step("t", t, u.shape[0], device)
    return u.shape[0], outputs, inputs


def _grid(variant: Variant, rows: int, outputs: int) -> tuple[int]:
    return (triton.cdiv(rows, variant.block_rows) * triton.cdiv(outputs, variant.block_out),)


def tiling(variant: Variant, outputs: int, inputs: int, *, shared_step: bool) -> dict[str, int | bool]:
    """The compile-time constants and compiler options of both kernels."""
    return {
        "INPUTS": inputs,
        "BLOCK_OUT": variant.block_out,
        "BLOCK_ROWS": variant.block_rows,
        "BLOCK_K": variant.block_k,
        "GROUP_ROWS": GROUP_ROWS,
        "EVEN": outputs % variant.block_out == 0 and inputs % variant.block_k == 0,
        "SHARED_STEP": shared_step,
        "num_warps": variant.num_warps,
        "num_stages": variant.num_stages,
        "enable_fp_fusion": False,  # fused operations are written out, so that all forms round alike
    }


def projection_tiling(variant: Variant, classes: int) -> dict[str, int]:
    """The constants that the projected kernel has besides."""
    return {"PARTIAL_OUT": variant.partial_out, "CLASSES": classes, "PADDED_CLASSES": triton.next_power_of_2(classes)}
