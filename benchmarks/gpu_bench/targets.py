"""What the GPU engine must reach on one H100, each line beside what was measured."""

from __future__ import annotations

from collections.abc import Sequence

from gpu_bench.figures import PARALLEL, WEIGHT_BYTES, Limits, Row, find, ratio
from requirement import Target

#: Names that the rows carry.
SEQUENTIAL, PERSISTENT, RELEASED, HOISTED = "triton bf16", "persistent fp8", "torch.compile released bf16", "torch.compile hoisted bf16"
ENCODER = "torch bf16"
FRAME, DEVICE_FRAME = "bf16 triton, host frame", "bf16 triton, device frame"


def targets(rows: Sequence[Row], limits: Limits) -> list[Target]:
    """One line a requirement; those of the chain are of DiffMIC for ISIC: 250 steps, feature_dim 6144."""
    bf16, fp8 = find(rows, "chain", SEQUENTIAL, 1), find(rows, "chain", PERSISTENT, 1)
    released, hoisted = find(rows, "chain", RELEASED, 1), find(rows, "chain", HOISTED, 1)
    large, encoder = find(rows, "chain", SEQUENTIAL, 1024), find(rows, "encoder", ENCODER, 1)
    share = None if bf16 is None else 100 * bf16.gb_s / limits.copy
    rate = None if large is None else 100 * large.tflop_s / limits.matmul
    found = [
        Target("chain, 1 row, sequential bf16: weights at a share of copy bandwidth", share, 75, "%", True),
        Target("chain, 1 row, persistent fp8", _ms(fp8), 9, "ms", False),
        Target("chain, 1 row, bf16: torch.compile on the released semantics takes", _ratio(released, bf16), 3, "x as long", True),
        Target("chain, 1 row, bf16: torch.compile on the hoisted chain takes", _ratio(hoisted, bf16), 1, "x as long", True),
        Target("chain, 1024 rows, bf16: share of the matmul rate", rate, 65, "%", True),
        Target("prior encoder and feature, 1 image, bf16", _ms(encoder), 2, "ms", False),
    ]
    for name in (FRAME, DEVICE_FRAME):
        row = find(rows, "classify", name, 1)
        host = None if row is None or row.host_added is None else row.host_added * 1e3
        found.append(Target(f"classify, warm, one 512x512 {name.split(', ')[1]}: the host adds", host, 0.3, "ms", False))
    return found + _parallel(rows)


def _parallel(rows: Sequence[Row]) -> list[Target]:
    """Against the captured sequential chain of the same precision; 1.6 ms and the chain of 60 steps (DiffMIC for APTOS) in bf16."""
    found = [Target("chain, 1 row, parallel bf16", _ms(find(rows, "chain", SEQUENTIAL + PARALLEL, 1)), 1.6, "ms", False)]
    for part, weight, bound in [*(("chain", weight, 8) for weight in WEIGHT_BYTES), ("aptos", "bf16", 5)]:
        sequential, parallel = (find(rows, part, f"triton {weight}{end}", 1) for end in ("", PARALLEL))
        steps = "250 steps" if part == "chain" else "60 steps"
        text = f"chain of {steps}, 1 row, {weight}: the sequential sampler takes, of the parallel one's time,"
        found.append(Target(text, _ratio(sequential, parallel), bound, "x", True))
    return found


def _ms(row: Row | None) -> float | None:
    return None if row is None else row.median * 1e3


def _ratio(slow: Row | None, fast: Row | None) -> float | None:
    return None if slow is None or fast is None else ratio(slow, fast)
