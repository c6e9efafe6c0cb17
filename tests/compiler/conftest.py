"""Dozens of compilations whose answers nobody reads: recording each would compile its encoder for a second or two."""

from __future__ import annotations

import pytest

from fusedx import self_test


@pytest.fixture(autouse=True)
def unrecorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_test, "record", lambda compiled: (None, None))
