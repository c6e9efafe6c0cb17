"""One step of the chain as a Triton kernel: last layer's reduction, noise-schedule update, and the next step's first layer.

    eps[r] = sum_j partial[r, j] + bias4                                       float64, in one fixed order
    y'[r]  = posterior or DDIM update of y[r] with eps[r]                      float64, as in reference.py
    u1[r]  = softplus(a1[t'] * (W1_y float32(g[r]) + h[i]) + c1[t']) * f[i]   float32, written in the activation dtype

g[r] is y'[r] rounded to a grid, which is all that the denoiser sees of it: states that are nearly the same have one eps, and the
parallel sampler (kernels/speculation) can tell that it holds the right one.


A program takes one row and BLOCK_F outputs of layer 1; each repeats the row's update, which is a few hundred numbers, instead of
waiting for another.  The state is never updated in place, because other programs of the row still read it.
A row's arithmetic does not depend on the number of rows.

The current CUDA device must be that of the tensors, and the current stream orders the launch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from fusedx.kernels.conditional_layer.softplus_triton import softplus
from fusedx.kernels.step import COEFFICIENTS
from fusedx.kernels.tensor_arguments import check, check_step

ACTIVATIONS = (torch.float32, torch.bfloat16, torch.float16)
#: Outputs of layer 1 a program, for few rows and for many: 24 or 6 programs a row at the published width of 6144.
FEW_ROWS, BLOCK_F_FEW, BLOCK_F_MANY = 32, 256, 1024


@triton.jit
def _sum_rows(x, ROWS: tl.constexpr):
    """[ROWS, COLUMNS] -> [COLUMNS]: the second half is added to the first until one row is left, ROWS being a power of two.

    A sum of two has the same bits in either order, so the compiler's layout of x decides nothing.
    """
    if ROWS == 1:
        return tl.reshape(x, (x.shape[1],))
    else:
        return _sum_rows(tl.sum(tl.reshape(x, (2, ROWS // 2, x.shape[1])), axis=0), ROWS // 2)


@triton.jit
def total(partial, bias4, row, tiles, CLASSES: tl.constexpr, PADDED_CLASSES: tl.constexpr, PADDED_TILES: tl.constexpr):
    """eps of one row, float64 [PADDED_CLASSES]: the last layer's partial sums and its bias."""
    k = tl.arange(0, PADDED_CLASSES)
    real = k < CLASSES
    j = tl.arange(0, PADDED_TILES)
    at = (row * tiles + j[:, None]) * CLASSES + k[None, :]
    parts = tl.load(partial + at, mask=(j < tiles)[:, None] & real[None, :], other=0.0)
    return _sum_rows(parts.to(tl.float64), PADDED_TILES) + tl.load(bias4 + k, mask=real, other=0.0)


@triton.jit
def moved(y, eps, coefficients, t, p, noise, last, FAMILY: tl.constexpr):
    """The state after the step at row t of the coefficients, the operations of reference.py in their order.

    y, eps, p, noise float64 [PADDED_CLASSES]; ``last``, of a posterior chain: the estimate y0 itself, a compile-time or a run-time choice.
    """
    if FAMILY == "ddim":
        own = coefficients + t * 4
        x0 = (y - tl.load(own + 1) * eps) / tl.load(own)
        x0 = tl.where(x0 > 1.0, 1.0, tl.where(x0 < -1.0, -1.0, x0))  # a not-a-number passes, as in numpy's clip
        return tl.load(own + 2) * x0 + tl.load(own + 3) * eps
    else:
        own = coefficients + t * 6
        q = tl.load(own)
        estimate = (y - (1.0 - q) * p - tl.load(own + 1) * eps) / q
        inner = tl.load(own + 2) * estimate + tl.load(own + 3) * y + tl.load(own + 4) * p + tl.load(own + 5) * noise
        return tl.where(last, estimate, inner)


@triton.jit
def on_grid(y, BITS: tl.constexpr):
    """The state as the denoiser sees it: float64 rounded to multiples of 2^-BITS, half to even; 0 leaves it as it is.

    Adding 1.5 2^(52-BITS) leaves no room for smaller bits, and taking it away again is exact.
    """
    if BITS == 0:
        return y
    else:
        M: tl.constexpr = 1.5 * 2.0 ** (52 - BITS)
        return (y + M) - M


@triton.jit
def _updated(
    y,
    partial,
    bias4,
    coefficients,
    t,
    mean,
    image,
    z,
    row,
    tiles,
    FAMILY: tl.constexpr,
    LAST: tl.constexpr,
    CLASSES: tl.constexpr,
    PADDED_CLASSES: tl.constexpr,
    PADDED_TILES: tl.constexpr,
):
    """The state of one row after its step, float64 [PADDED_CLASSES].

    y is the state before it, t points at the row's own number, the rest is as in _step_kernel.
    """
    k = tl.arange(0, PADDED_CLASSES)
    real = k < CLASSES
    eps = total(partial, bias4, row, tiles, CLASSES, PADDED_CLASSES, PADDED_TILES)
    if FAMILY == "ddim" or mean is None:
        p = tl.zeros_like(y)
    else:
        p = tl.load(mean + tl.load(image + row) * CLASSES + k, mask=real, other=0.0)
    if FAMILY == "ddim" or LAST:
        noise = tl.zeros_like(y)
    else:
        noise = tl.load(z + row * CLASSES + k, mask=real, other=0.0)
    return moved(y, eps, coefficients, tl.load(t), p, noise, LAST, FAMILY)


@triton.jit
def _first_layer(
    y, weight_y, a1, c1, t_next, h, f, image, u1, row, outputs, w_stride_n, w_stride_c, u_stride,
    CLASSES: tl.constexpr, PADDED_CLASSES: tl.constexpr, BLOCK_F: tl.constexpr,
):  # fmt: skip
    """Write BLOCK_F outputs of layer 1 for the state y, float64 [PADDED_CLASSES], class by class in order; t_next at the row's number."""
    n = tl.program_id(1) * BLOCK_F + tl.arange(0, BLOCK_F)
    inside = n < outputs
    k = tl.arange(0, PADDED_CLASSES)
    state = y.to(tl.float32)
    x = tl.zeros((BLOCK_F,), tl.float32)
    for c in tl.static_range(CLASSES):
        w = tl.load(weight_y + n * w_stride_n + c * w_stride_c, mask=inside, other=0.0)
        y_c = tl.sum(tl.where(k == c, state, 0.0), axis=0)  # picks one number: exact
        x = tl.fma(w, tl.broadcast_to(y_c, (BLOCK_F,)), x)
    entry = tl.load(image + row) * outputs
    step = tl.load(t_next) * outputs
    x += tl.load(h + entry + n, mask=inside, other=0.0)
    scale = tl.load(a1 + step + n, mask=inside, other=0.0)
    shift = tl.load(c1 + step + n, mask=inside, other=0.0)
    x = softplus(tl.fma(scale, x, shift)) * tl.load(f + entry + n, mask=inside, other=0.0)
    tl.store(u1 + row * u_stride + n, x.to(u1.dtype.element_ty), mask=inside)


@triton.jit
def _step_kernel(
    y_in,  # f64 [R, CLASSES]
    partial,  # f32 [R, tiles, CLASSES]; None at the start
    bias4,  # f64 [CLASSES]; None at the start
    coefficients,  # f64 [T, 6 or 4]; None at the start
    t,  # i32 [R], stride t_stride; None at the start
    mean,  # f64 [I, CLASSES], the prior mean, or None for zeros
    z,  # f64 [R, CLASSES]; of a middle posterior step alone
    y_out,  # f64 [R, CLASSES]; None at the start
    weight_y,  # f32 [outputs, CLASSES] of any strides; None at the end, as all below but image
    a1,  # f32 [T, outputs]
    c1,  # f32 [T, outputs]
    t_next,  # i32 [R], stride t_next_stride
    h,  # f32 [I, outputs]
    f,  # f32 [I, outputs]
    image,  # i32 [R]
    u1,  # [R, outputs], row stride u_stride
    tiles,
    outputs,
    w_stride_n,
    w_stride_c,
    u_stride,
    t_stride,
    t_next_stride,
    MODE: tl.constexpr,
    FAMILY: tl.constexpr,
    BITS: tl.constexpr,
    CLASSES: tl.constexpr,
    PADDED_CLASSES: tl.constexpr,
    PADDED_TILES: tl.constexpr,
    BLOCK_F: tl.constexpr,
):
    row = tl.program_id(0)
    k = tl.arange(0, PADDED_CLASSES)
    real = k < CLASSES
    y = tl.load(y_in + row * CLASSES + k, mask=real, other=0.0)
    if MODE != "start":
        y = _updated(
            y, partial, bias4, coefficients, t + row * t_stride, mean, image, z, row, tiles,
            FAMILY, MODE == "last", CLASSES, PADDED_CLASSES, PADDED_TILES,
        )  # fmt: skip
        tl.store(y_out + row * CLASSES + k, y, mask=real & (tl.program_id(1) == 0))
    if MODE != "last":
        _first_layer(
            on_grid(y, BITS), weight_y, a1, c1, t_next + row * t_next_stride, h, f, image, u1, row, outputs,
            w_stride_n, w_stride_c, u_stride, CLASSES, PADDED_CLASSES, BLOCK_F,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Update:
    """What the update of a chain needs and keeps: C classes, T steps, I images, R rows.

    family: "posterior" or "ddim"; coefficients float64 [T, 6 or 4], columns as in COEFFICIENTS; bias4 float64 [C];
    partial float32 [R, tiles, C], what layer 3 wrote; mean float64 [I, C], the prior mean of a posterior chain, None for zero.
    """

    family: str
    coefficients: torch.Tensor
    bias4: torch.Tensor
    partial: torch.Tensor
    mean: torch.Tensor | None = None

    def check(self, rows: int, classes: int, device: torch.device) -> None:
        """Raise ValueError naming the field that does not fit a state [rows, classes]."""
        if self.family not in COEFFICIENTS:
            raise ValueError(f"family: expected one of {', '.join(COEFFICIENTS)}, got {self.family!r}")
        check("coefficients", self.coefficients, (None, len(COEFFICIENTS[self.family])), (torch.float64,), device)
        check("bias4", self.bias4, (classes,), (torch.float64,), device)
        check("partial", self.partial, (rows, None, classes), (torch.float32,), device)
        if self.mean is not None:
            if self.family == "ddim":
                raise ValueError("mean: a ddim chain has none, leave it out")
            check("mean", self.mean, (None, classes), (torch.float64,), device)


@dataclass(frozen=True, slots=True)
class FirstLayer:
    """Layer 1 and where its output goes: C classes, F outputs, T steps, I images, R rows.

    weight_y float32 [F, C] of any strides (columns contiguous is fastest); a, c float32 [T, F]; h, f float32 [I, F], the
    constant half and the image feature; u1 [R, F] in the activations' dtype, whose rows may lie apart.
    bits: the state is rounded to multiples of 2^-bits first; 0 for the state as it is.
    """

    weight_y: torch.Tensor
    a: torch.Tensor
    c: torch.Tensor
    h: torch.Tensor
    f: torch.Tensor
    u1: torch.Tensor
    bits: int = 0

    def check(self, rows: int, classes: int, device: torch.device) -> None:
        """Raise ValueError naming the field that does not fit a state [rows, classes]."""
        check("weight_y", self.weight_y, (None, classes), (torch.float32,), device, any_strides=True)
        outputs = self.weight_y.shape[0]
        check("a", self.a, (None, outputs), (torch.float32,), device)
        check("c", self.c, (self.a.shape[0], outputs), (torch.float32,), device)
        check("h", self.h, (None, outputs), (torch.float32,), device)
        check("f", self.f, (self.h.shape[0], outputs), (torch.float32,), device)
        check("u1", self.u1, (rows, outputs), ACTIVATIONS, device, strided_rows=True)
        if not 0 <= self.bits <= 50:
            raise ValueError(f"bits: expected 0 (no grid) to 50, got {self.bits}")


def start(y: torch.Tensor, *, t_next: torch.Tensor, image: torch.Tensor, first: FirstLayer) -> None:
    """Layer 1 of the chain's first step ``t_next`` int32 [R], from its start state y float64 [R, C]; image int32 [R]."""
    rows, classes = _check_rows(y, t_next=t_next, image=image)
    first.check(rows, classes, y.device)
    _launch("start", y, image, classes, t_next=t_next, first=first)


def middle(
    y: torch.Tensor,
    *,
    t: torch.Tensor,
    t_next: torch.Tensor,
    image: torch.Tensor,
    update: Update,
    first: FirstLayer,
    y_out: torch.Tensor,
    z: torch.Tensor | None = None,
) -> None:
    """The update of step t and layer 1 of the step after it.

    y, y_out float64 [R, C], not overlapping; t, t_next int32 [R], rows of the coefficient and layer tables
    (one number expanded is fine); image int32 [R];
    z float64 [R, C], the noise of a posterior step.  Indices are not checked: that would wait for the device.
    Raises ValueError naming the argument that does not fit.
    """
    rows, classes = _check_rows(y, t=t, t_next=t_next, image=image)
    update.check(rows, classes, y.device)
    first.check(rows, classes, y.device)
    _check_other_state("y_out", y_out, y)
    if (z is None) != (update.family == "ddim"):
        raise ValueError("z: a posterior step needs noise float64 [R, C]" if z is None else "z: a ddim step takes no noise")
    if z is not None:
        check("z", z, (rows, classes), (torch.float64,), y.device)
    _launch("middle", y, image, classes, t=t, t_next=t_next, update=update, first=first, y_out=y_out, z=z)


def last(y: torch.Tensor, *, t: torch.Tensor, image: torch.Tensor, update: Update, y_out: torch.Tensor) -> None:
    """The update of the chain's last step: the estimate y0 of a posterior chain, an ordinary step of a ddim one."""
    rows, classes = _check_rows(y, t=t, image=image)
    update.check(rows, classes, y.device)
    _check_other_state("y_out", y_out, y)
    _launch("last", y, image, classes, t=t, update=update, y_out=y_out)


def _check_rows(y: torch.Tensor, **indices: torch.Tensor) -> tuple[int, int]:
    """(rows, classes) of a state and its index vectors int32 [R]."""
    device = getattr(y, "device", torch.device("cpu"))
    check("y", y, (None, None), (torch.float64,), device)
    for name, index in indices.items():
        if name == "image":
            check(name, index, (y.shape[0],), (torch.int32,), device)
        else:
            check_step(name, index, y.shape[0], device)
    return y.shape[0], y.shape[1]


def _check_other_state(name: str, state: torch.Tensor, y: torch.Tensor) -> None:
    check(name, state, tuple(y.shape), (torch.float64,), y.device)
    if state.data_ptr() == y.data_ptr():
        raise ValueError(f"{name}: must not be the state that is read, which every program of a row still needs")


def _launch(
    mode: str,
    y: torch.Tensor,
    image: torch.Tensor,
    classes: int,
    *,
    t: torch.Tensor | None = None,
    t_next: torch.Tensor | None = None,
    update: Update | None = None,
    first: FirstLayer | None = None,
    y_out: torch.Tensor | None = None,
    z: torch.Tensor | None = None,
) -> None:
    before = (update.partial, update.bias4, update.coefficients, t, update.mean) if update else (None,) * 5
    after = (first.weight_y, first.a, first.c, t_next, first.h, first.f) if first else (None,) * 6
    tiles = update.partial.shape[1] if update else 1
    outputs, *strides = (first.weight_y.shape[0], *first.weight_y.stride(), first.u1.stride(0)) if first else (1, 0, 0, 0)
    index_strides = (0 if index is None else index.stride(0) for index in (t, t_next))
    constants = tiling(y.shape[0], classes, tiles)
    _step_kernel[(y.shape[0], triton.cdiv(outputs, constants["BLOCK_F"]))](
        y, *before, z, y_out, *after, image, first.u1 if first else None, tiles, outputs, *strides, *index_strides,
        MODE=mode, FAMILY=update.family if update else "posterior", BITS=first.bits if first else 0, **constants,
    )  # fmt: skip


def tiling(rows: int, classes: int, tiles: int) -> dict[str, int | bool]:
    """The kernel's sizes and compiler options.  What depends on the number of rows changes no order of operations."""
    return {
        "CLASSES": classes,
        "PADDED_CLASSES": max(2, triton.next_power_of_2(classes)),
        "PADDED_TILES": max(2, triton.next_power_of_2(tiles)),
        "BLOCK_F": BLOCK_F_FEW if rows <= FEW_ROWS else BLOCK_F_MANY,
        "num_warps": 4,
        "enable_fp_fusion": False,  # the update's float64 operations are those of the reference, each rounded
    }
