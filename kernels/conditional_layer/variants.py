"""Which form of the conditional layer runs for (device, dtype, rows): a table and a pure function of plain numbers.

A *family* is the instruction that multiplies, and with it the order in which the products of one output are added:

    fma       fp32 fused multiply-adds, one after another in k
    mma.sync  warp-level tensor cores, 16 products an instruction
    wgmma     warpgroup-level tensor cores of sm_90
    tcgen05   tensor cores of sm_100

Within a family the bits of an output do not depend on the tile: each accumulator takes its products in the order of k, and the
partial products of the layer after it are summed over tiles of ``partial_out`` outputs whatever ``block_out`` is.  So forms of
one family and one ``partial_out`` may be mixed, and a row keeps its bits however many rows run beside it.  That the forms multiply
by one instruction is checked on their machine code (``tests/kernels/triton/test_compiled.py``), the bits themselves on a GPU
(``tests/gpu/test_triton_kernels.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from fusedx.kernels.conditional_layer.formats import FORMATS
from fusedx.kernels.target import TARGETS, nearest

#: Weight formats.
DTYPES = tuple(FORMATS)
FAMILIES = ("fma", "mma.sync", "wgmma", "tcgen05")


@dataclass(frozen=True, slots=True)
class Variant:
    """One compiled form.  A program computes ``block_out`` outputs of ``block_rows`` rows, ``block_k`` inputs at a time."""

    family: str
    block_out: int
    block_rows: int
    block_k: int
    num_warps: int
    num_stages: int
    partial_out: int

    @property
    def name(self) -> str:
        """Such as ``wgmma-64x16x128``: family, outputs x rows x inputs of a tile."""
        return f"{self.family}-{self.block_out}x{self.block_rows}x{self.block_k}"

    def partial_tiles(self, outputs: int) -> int:
        """Second extent of ``projected_layer``'s partial sums [R, tiles, C] for a layer of ``outputs`` outputs."""
        return -(-outputs // self.partial_out)


#: (rows up to, form) in ascending order; the last form takes any number of rows.
_Ladder = tuple[tuple[int, Variant], ...]


def _ladder(family: str, partial_out: int, *steps: tuple[int, int, int, int, int, int]) -> _Ladder:
    """Steps are (block_out, block_rows, block_k, num_warps, num_stages, rows up to)."""
    return tuple((rows, Variant(family, out, tile, k, warps, stages, partial_out)) for out, tile, k, warps, stages, rows in steps)


ANY = 1 << 31
#: 64 x 64 is the largest tile of fp32 whose last layer's sums stay in registers on every target.
_FMA = _ladder("fma", 32, (32, 4, 16, 4, 6, 4), (32, 16, 16, 4, 6, 16), (64, 64, 16, 8, 3, ANY))
_MMA = _ladder("mma.sync", 64, (64, 16, 128, 4, 4, 16), (64, 64, 64, 4, 3, 128), (128, 128, 32, 8, 3, ANY))
#: Where a processor has 100 KB of shared memory: two programs of the first form fit in it, so that 96 of them are one wave.
_MMA_SMALL = _ladder("mma.sync", 64, (64, 16, 64, 4, 4, 16), (64, 64, 32, 4, 3, 128), (128, 64, 32, 8, 3, ANY))
_WGMMA = _ladder("wgmma", 64, (64, 16, 128, 4, 6, 16), (64, 64, 64, 4, 4, 128), (128, 128, 64, 8, 3, ANY))
#: 64 rows at most: the epilogue of 128 spills on sm_100.
_TCGEN05 = _ladder("tcgen05", 64, (64, 16, 128, 4, 6, 16), (64, 64, 64, 4, 4, 128), (128, 64, 64, 8, 3, ANY))
#: wgmma and tcgen05 take 64 outputs at least, which leaves processors idle; narrower tiles of mma.sync occupy all of them.
_NARROW = _ladder("mma.sync", 32, (32, 16, 128, 4, 5, 16))

#: Where the epilogue of 128 outputs keeps the last layer's sums of so many classes in registers, and no more.
_FEW_CLASSES, _SHORT_OF_REGISTERS = 8, (100, 120)

_TENSOR = {80: _MMA, 86: _MMA_SMALL, 87: _MMA, 89: _MMA_SMALL, 90: _WGMMA, 100: _TCGEN05, 120: _MMA_SMALL}
assert set(_TENSOR) == set(TARGETS)


@cache
def table(cc: int, dtype: str, invariant: bool = True, classes: int = 1) -> _Ladder:
    """(rows up to, form) in ascending order for compute capability ``cc`` (90 for 9.0), a weight format and classes of the last layer.

    Raises ValueError, naming what there is, for an unknown device or format.
    """
    target = nearest(cc)
    if dtype not in DTYPES:
        raise ValueError(f"dtype: expected one of {', '.join(DTYPES)}, got {dtype!r}")
    ladder = _FMA if dtype == "fp32" else _TENSOR[target.cc]
    if classes > _FEW_CLASSES and target.cc in _SHORT_OF_REGISTERS and dtype != "fp32":
        ladder = (*ladder[:-2], (ANY, ladder[-2][1]))
    if not invariant and ladder[0][1].family in ("wgmma", "tcgen05"):
        return _NARROW + ladder[1:]
    return ladder


def choose(cc: int, dtype: str, rows: int, *, invariant: bool = True, classes: int = 1) -> Variant:
    """The form for ``rows`` rows of a denoiser with so many classes.

    ``invariant``: all numbers of rows get forms of one family and one ``partial_out``, so that a row's bits do not depend on
    their number; without it a small number of rows may get a form of another family that reads the weights faster.
    """
    if rows < 1:
        raise ValueError(f"rows: expected at least 1, got {rows}")
    return next(variant for limit, variant in table(cc, dtype, invariant, classes) if rows <= limit)


def describe(op: str, cc: int, dtype: str, rows: int, *, invariant: bool = True, classes: int = 1) -> str:
    """One line: what was chosen for what, and why."""
    variant = choose(cc, dtype, rows, invariant=invariant, classes=classes)
    why = f"one summation order for any number of rows ({variant.family})" if invariant else "fastest, bits depend on the number of rows"
    rows_text = f"{rows} row{'s' if rows > 1 else ''}"
    stages = f"{variant.num_warps} warps, {variant.num_stages} stages"
    return f"{op} on sm_{nearest(cc).cc}, {dtype}, {rows_text}: {variant.name}, {stages}; {why}"

