"""What is read of /proc/cpuinfo: by name, not by whatever begins alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from fusedx.engine import processor

X86 = (
    "processor\t: 0\nmodel\t\t: 17\nmodel name\t: Some CPU: 9000 @ 3 GHz\nflags\t\t: fpu avx2\nvmx flags\t: ept\n\n"
    "processor\t: 1\nmodel name\t: other\n"
)
ARM = "processor\t: 0\nFeatures\t: fp asimd\n\nModel\t\t: A board\n"


@pytest.mark.parametrize(
    ("text", "name", "flags"),
    [(X86, "Some CPU: 9000 @ 3 GHz", {"fpu", "avx2"}), (ARM, "A board", {"fp", "asimd"}), ("", "", set()), ("flags\n\xff:", "", set())],
)
def test_the_system_s_own_words(text: str, name: str, flags: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: text)
    assert (processor.name(), processor.flags()) == (name, flags)


def test_a_system_that_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object, **__: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", absent)
    assert (processor.name(), processor.flags()) == ("", set()) and processor.usable() >= 1
