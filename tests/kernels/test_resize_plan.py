"""Tables of the resize for GPU kernels, against the taps of the reference."""

from __future__ import annotations

import numpy as np
import pytest

from fusedx.kernels.resize import plan, reference

LINES = [(n, 224) for n in (1, 2, 3, 17, 63, 223, 224, 225, 257, 448, 512, 1411, 4000, 9459)]
LINES += [(9, 1), (1, 9), (100, 63), (63, 100), (5, 7)]


@pytest.mark.parametrize("n, m", LINES)
def test_has_the_references_taps(n, m):
    table = plan.tap_table(n, m)
    assert table.first.dtype == table.weight.dtype == np.int32 and table.first.shape == (m,) and table.weight.shape == (table.most, m)
    counts = []
    for x in range(m):
        first, weights = reference.taps(n, m, x)
        counts.append(len(weights))
        assert table.first[x] == first
        assert np.array_equal(table.weight[: len(weights), x], weights)
        assert not table.weight[len(weights) :, x].any()
    assert table.most == max(counts)  # no wasted row


@pytest.mark.parametrize("n", [224, 1411, 9459, plan.MAX_LINE])
def test_int32_holds_every_sum(n):
    table = plan.tap_table(n, 224)
    assert table.weight.min() >= 0
    largest = int(table.weight.sum(axis=0, dtype=np.int64).max()) * 255 + (1 << (reference.BITS - 1))
    assert largest < 2**31
    assert largest >> reference.BITS == 255  # white stays white without a clamp


def test_is_made_once_and_cannot_be_changed():
    table = plan.tap_table(301, 224)
    assert plan.tap_table(np.int64(301), 224) is table
    for array in (table.first, table.weight):
        assert array.flags.c_contiguous
        with pytest.raises(ValueError):
            array[0] = 0


@pytest.mark.parametrize("n, m", [(0, 224), (-3, 224), (224, 0), (plan.MAX_LINE + 1, 224), (224, 2**40)])
def test_refuses_impossible_lines(n, m):
    with pytest.raises(ValueError, match="n, m: expected lines of 1 to"):
        plan.tap_table(n, m)


def test_refuses_fractions():
    with pytest.raises(TypeError):
        plan.tap_table(224.0, 224)
