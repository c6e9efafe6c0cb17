"""What ``fusedx doctor`` says of compiled kernels."""

from __future__ import annotations

from pathlib import Path

import pytest

from fusedx.cli.gpu import gpu
from fusedx.engine.cuda import binaries
from fusedx.kernels.target import TARGETS


def test_only_binaries_of_these_sources_count_as_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = binaries.file_name(binaries.KERNELS / "chain" / "chain.cu", TARGETS[90])
    for name in (right, "chain-sm_90a-0123456789abcdef.cubin"):
        (tmp_path / name).write_bytes(b"")
    monkeypatch.setattr(binaries, "SHIPPED", tmp_path)
    assert gpu()["shipped_kernels"] == [right]
