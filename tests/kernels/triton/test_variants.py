"""The choice of a form: a pure function, tested without a GPU, torch or Triton."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fusedx.kernels.conditional_layer.variants import DTYPES, FAMILIES, Variant, choose, describe, table
from fusedx.kernels.target import TARGETS

#: 1 .. 4096: powers of two, their neighbours, and odd ones between.
ROWS = sorted({r for p in range(13) for r in ((1 << p) - 1, 1 << p, (1 << p) + 1) if 1 <= r <= 4096} | {6, 63, 96, 100, 1000, 3001})
ALL = [(cc, dtype) for cc in TARGETS for dtype in DTYPES]


@pytest.mark.parametrize(("cc", "dtype"), ALL)
def test_invariant_forms_may_be_mixed(cc, dtype):
    chosen = {choose(cc, dtype, rows) for rows in ROWS}
    assert len({v.family for v in chosen}) == len({v.partial_out for v in chosen}) == 1
    assert {v for _, v in table(cc, dtype)} == chosen, "a form that no number of rows gets"


@pytest.mark.parametrize(("cc", "dtype"), ALL)
@pytest.mark.parametrize("invariant", [True, False])
def test_every_number_of_rows_has_a_well_formed_form(cc, dtype, invariant):
    for rows in ROWS:
        v = choose(cc, dtype, rows, invariant=invariant)
        assert v.family in FAMILIES and (v.family == "fma") == (dtype == "fp32")
        assert v.block_out % v.partial_out == 0, "a partial sum must lie within one program"
        assert v.block_k >= 16 and all(n & (n - 1) == 0 for n in (v.block_out, v.block_rows, v.block_k, v.num_warps, v.partial_out))
        assert v.block_rows <= 2 * max(rows, 32), "most of the tile would be padding"


def test_rows_of_a_tile_do_not_shrink_as_rows_grow():
    for cc, dtype in ALL:
        for invariant in (True, False):
            limits, forms = zip(*table(cc, dtype, invariant), strict=True)
            assert list(limits) == sorted(set(limits)) and limits[-1] > 1 << 20
            assert [v.block_rows for v in forms] == sorted(v.block_rows for v in forms)


def test_families_by_device():
    family = {cc: choose(cc, "bf16", 1).family for cc in TARGETS}
    assert family == {80: "mma.sync", 86: "mma.sync", 87: "mma.sync", 89: "mma.sync", 90: "wgmma", 100: "tcgen05", 120: "mma.sync"}
    for cc in (90, 100):
        assert choose(cc, "bf16", 1, invariant=False).family == "mma.sync"
        assert choose(cc, "bf16", 17, invariant=False) == choose(cc, "bf16", 17)


def test_a_newer_minor_version_takes_the_nearest_table():
    assert choose(103, "fp8", 1) == choose(100, "fp8", 1)
    assert choose(121, "fp8", 1) == choose(120, "fp8", 1)


def test_partial_tiles_cover_the_outputs():
    v = Variant("wgmma", 128, 128, 64, 8, 3, 64)
    assert [v.partial_tiles(n) for n in (1, 63, 64, 65, 6144)] == [1, 1, 1, 2, 96]
    assert v.name == "wgmma-128x128x64"


def test_what_is_not_there_is_refused_with_what_is():
    with pytest.raises(ValueError, match=r"7\.5 is not supported; supported: 8\.0, .*12\.0"):
        choose(75, "bf16", 1)
    with pytest.raises(ValueError, match="expected one of fp32, bf16, fp16, fp8, got 'int4'"):
        choose(90, "int4", 1)
    with pytest.raises(ValueError, match="rows: expected at least 1, got 0"):
        choose(90, "bf16", 0)


def test_the_choice_prints_itself():
    line = describe("conditional_layer", 90, "bf16", 1)
    assert line == (
        "conditional_layer on sm_90, bf16, 1 row: wgmma-64x16x128, 4 warps, 6 stages; one summation order for any number of rows (wgmma)"
    )
    assert "bits depend on the number of rows" in describe("projected_layer", 90, "bf16", 1, invariant=False)
    assert "1024 rows: wgmma-128x128x64" in describe("projected_layer", 90, "fp16", 1024)


def test_importing_the_operations_imports_neither_torch_nor_triton():
    code = (
        "import sys, fusedx.kernels.conditional_layer.variants, fusedx.kernels.step, fusedx.kernels.prior_tail; "
        "print([m for m in ('torch', 'triton') if m in sys.modules])"
    )
    environment = {"PYTHONPATH": str(Path(__file__).parents[3] / "python")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize("cc", TARGETS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_more_classes_mix_with_no_other_forms(cc, dtype):
    """The last layer's width may change the tile, and neither the family nor the partial sums."""
    few, many = ({choose(cc, dtype, rows, classes=classes) for rows in (1, 40, 4096)} for classes in (8, 15))
    assert len({(v.family, v.partial_out) for v in few | many}) == 1
    assert (few == many) == (dtype == "fp32" or cc not in (100, 120))
