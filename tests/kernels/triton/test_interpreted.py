"""The Triton operations under the interpreter, against the float64 references."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("triton", reason="needs triton")


@pytest.mark.parametrize("interpreted_file", sorted(Path(__file__).parent.glob("interpreted_*.py")), ids=lambda file: file.name)
def test_under_the_interpreter(interpreted_file, beside):
    beside.check(interpreted_file)
