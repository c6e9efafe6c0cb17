"""Class names and their order, which no checkpoint holds."""

from __future__ import annotations

from pathlib import Path

from fusedx.engine.errors import ConfigError

#: Published orders; the spelling on the command line is the key.
CLASS_NAMES = {
    "aptos": ("No DR", "Mild", "Moderate", "Severe", "Proliferative DR"),
    "isic2018": ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"),
    "pmg": ("Grade 0", "Grade 1", "Grade 2", "Grade 3"),
}
_MAX_BYTES = 1 << 20
_DATASETS = {"APTOS": "aptos", "APTOS2019": "aptos", "ISIC": "isic2018", "ISIC2018": "isic2018", "PLACENTAL": "pmg", "PMG2000": "pmg"}


def resolve(choice: str | None, dataset: str, count: int) -> tuple[tuple[str, ...], str]:
    """(names, where they come from).  An explicit choice must fit; a guess that does not fit falls back to numbered names."""
    if choice is None:
        known = _DATASETS.get(dataset.upper())
        if known and len(CLASS_NAMES[known]) == count:
            return CLASS_NAMES[known], f"{known}, from the checkpoint's dataset {dataset!r}"
        return tuple(f"class {i}" for i in range(count)), "numbered: no class list was given and the checkpoint names none that fits"
    if choice in CLASS_NAMES:
        names, source = CLASS_NAMES[choice], f"{choice}, as published"
    else:
        names, source = _from_file(Path(choice)), f"file {Path(choice).name.encode('utf-8', 'backslashreplace').decode()}"
    if len(names) != count:
        raise ConfigError(f"--classes {choice[:200]} has {len(names)} names, the checkpoint has {count} classes")
    return names, source


def _from_file(path: Path) -> tuple[str, ...]:
    try:
        if not path.is_file():
            raise ConfigError(f"--classes {str(path)[:200]!r}: neither a file nor one of {', '.join(CLASS_NAMES)}")
        if path.stat().st_size > _MAX_BYTES:
            raise ConfigError(f"--classes {path}: too large for a list of class names")
        names = tuple(line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--classes {str(path)[:200]!r} cannot be read as UTF-8 text: {error}"[:600]) from None
    if len(set(names)) != len(names):
        raise ConfigError(f"--classes {path}: names must be distinct")
    if odd := [name for name in names if not name.isprintable()]:
        raise ConfigError(f"--classes {path}: {odd[0][:80]!r} is not printable text")
    return names
