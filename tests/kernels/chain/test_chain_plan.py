"""The plan of a launch: it fits every GPU, covers every weight once, and says what to do where it cannot run."""

import subprocess
import sys
from pathlib import Path

import pytest

from fusedx.kernels.chain import FORMATS, plan
from fusedx.kernels.chain.plan import L2_SHARE
from fusedx.kernels.target import TARGETS

ROOT = Path(__file__).parents[3]
WIDTHS = (1, 63, 257, 6144, 6145)


@pytest.mark.parametrize("cc", TARGETS)
@pytest.mark.parametrize("dtype", FORMATS)
def test_fits_and_covers_every_weight(cc: int, dtype: str) -> None:
    target = TARGETS[cc]
    for width in WIDTHS:
        for rows in range(1, 10):
            p = plan(target, dtype, width, 15, rows)
            assert p.shared_bytes <= target.shared_per_block and 2 <= p.ring_stages <= 8, p.describe()
            assert 1 <= p.rows <= min(rows, 8) and -(-rows // p.rows) <= -(-rows // min(rows, 8)) * 8
            assert 1 <= p.blocks <= min(target.sms, p.shape.tiles)  # a block without work would still cost a barrier its time
            resident, kept, memory = p.traffic
            assert min(resident, kept, memory) >= 0 and resident + kept + memory == 2 * p.shape.weight_bytes
            assert resident <= p.blocks * target.shared_per_block and kept <= L2_SHARE * target.l2
            stages = [p.stages(b) for b in range(p.blocks)]
            assert sum(stages) == p.shape.tiles * p.shape.stages_a_tile and max(stages) - min(stages) <= p.shape.stages_a_tile


@pytest.mark.parametrize("dtype", FORMATS)
def test_padding_is_whole_stages_and_none_at_full_width(dtype: str) -> None:
    for width in WIDTHS:
        size = plan(TARGETS[90], dtype, width, 7, 1).shape
        assert size.k >= width and size.k % FORMATS[dtype].quantum == 0 and size.k - width < FORMATS[dtype].quantum
        assert 0 <= size.tiles * 16 - width < 16
    size = plan(TARGETS[90], dtype, 6144, 7, 1).shape
    assert (size.k, size.tiles * 16) == (6144, 6144) and size.weight_bytes == 6144 * 6144 * FORMATS[dtype].weight_bytes


def test_eight_rows_are_one_launch_where_they_fit_and_equal_shares_where_not() -> None:
    assert plan(TARGETS[90], "bf16", 6144, 7, 8).rows == 8
    assert plan(TARGETS[90], "fp32", 6144, 7, 8).rows == 4  # six would fit: 6 + 2 takes as long as 4 + 4
    assert plan(TARGETS[86], "bf16", 6144, 7, 8).rows == 3
    assert plan(TARGETS[86], "bf16", 6144, 7, 4).rows == 2


def test_8_bit_weights_stay_on_the_chip_as_far_as_they_fit() -> None:
    on_h100 = plan(TARGETS[90], "fp8", 6144, 7, 1)
    on_b200 = plan(TARGETS[100], "fp8", 6144, 7, 1)
    assert on_h100.traffic[2] < 0.45 * 2 * on_h100.shape.weight_bytes and on_b200.traffic[2] == 0


def test_describes_itself_in_one_line() -> None:
    text = plan(TARGETS[90], "bf16", 6144, 7, 1).describe()
    assert "\n" not in text
    for part in ("bf16", "F=6144", "C=7", "sm_90a", "132 blocks", "KB", "from memory"):
        assert part in text


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"dtype": "int8"}, "known: fp32, bf16, fp16, fp8"),
        ({"classes": 0}, "1 to 15 classes"),
        ({"classes": 16}, "layer-by-layer"),
        ({"rows": 0}, "rows must be 1 or more"),
        ({"feature_dim": 0}, "feature_dim must be"),
        ({"feature_dim": 60_000}, "use the layer-by-layer kernels"),
        ({"ring_stages": 1}, "from 2 to 8"),
        ({"ring_stages": 9}, "from 2 to 8"),
    ],
)
def test_refuses_with_a_way_out(change: dict, says: str) -> None:
    arguments = {"dtype": "fp32", "feature_dim": 6144, "classes": 7, "rows": 1} | change
    with pytest.raises(ValueError, match=says):
        plan(TARGETS[90], **arguments)


def test_import_brings_no_framework() -> None:
    code = "import sys, fusedx.kernels.chain; print([m for m in ('torch', 'triton', 'cupy', 'pycuda') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT / "python")}, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
