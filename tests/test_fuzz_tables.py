"""Mutated bytes to the readers that no other test feeds: golden cases, class lists, input tables, tables to resume."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fusedx
from fusedx import golden
from fusedx.cli import sources
from fusedx.compiler import classes
from fusedx.results import Destination
from fusedx.results.rows import Run

FUZZ = settings(derandomize=True, max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
HURTFUL = [b"\x00", b'"', b"\n", b"\r\n", b"{}", b"[[[[", b"1e999", b"-1", b"null", b"\xff\xfe"]
GOLDEN = Path(__file__).parent / "golden"


@st.composite
def mutations(draw: st.DrawFn, original: bytes) -> bytes:
    """``original`` cut, overwritten in places, or with something put in."""
    data = bytearray(original[: draw(st.integers(0, len(original)))] if draw(st.booleans()) else original)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        new = draw(st.binary(max_size=6) | st.sampled_from(HURTFUL))
        data[at : at + draw(st.integers(0, 6))] = new
    return bytes(data)


@FUZZ
@given(data=st.data())
def test_golden_case(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("golden", numbered=True)
    which = data.draw(st.sampled_from([".json", ".npz"]))
    for suffix in (".json", ".npz"):
        raw = (GOLDEN / f"v1-small{suffix}").read_bytes()
        raw = raw[:600] + raw[raw.index(b'"state_dicts"') - 4 :] if suffix == ".json" and b'"state_dicts"' in raw[:600] else raw
        (folder / f"case{suffix}").write_bytes(data.draw(mutations(raw[:4000] if suffix == ".json" else raw)) if suffix == which else raw)
    try:
        case = golden.load(folder / "case.json")
    except fusedx.FusedxError:
        return
    assert case.x.ndim == 4 and case.noise.ndim == 3


@FUZZ
@given(raw=mutations("No DR\nMild\nModerate\r\n\nSchwere\u00e4\n".encode("utf-8-sig")))
def test_class_list(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = tmp_path_factory.mktemp("classes", numbered=True) / "names.txt"
    path.write_bytes(raw)
    try:
        names, _ = classes.resolve(str(path), "", 4)
    except fusedx.FusedxError:
        return
    assert len(set(names)) == 4 and all(n.strip() == n != "" for n in names)


def parquet_table() -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"id": [1, 2, 3], "path": ["a.png", None, "b/c.png"]}), file)
    return file.getvalue()


@FUZZ
@given(data=st.data(), suffix=st.sampled_from([".csv", ".parquet"]))
def test_input_table(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, suffix: str) -> None:
    path = tmp_path_factory.mktemp("table", numbered=True) / f"cohort{suffix}"
    raw = b'id,path\r\n1,a.png\r\n2,"b ""x"", c.png"\r\n' if suffix == ".csv" else parquet_table()
    path.write_bytes(data.draw(mutations(raw)))
    try:
        found = list(sources.expand([str(path)]))
    except fusedx.FusedxError:
        return
    assert all(isinstance(source, str) for source in found)  # an empty cell becomes a failed row


RUN = Run(("a", "b"), "1", 0, "published", "0" * 64, "0", "cpu", "python", "openvino", "fp32", "fp32", "ignore", 0)


def finished(suffix: str, folder: Path) -> bytes:
    """A table of two failed rows, as a run leaves it."""
    path = folder / f"t{suffix}"
    writer, _ = Destination(path).open(RUN)
    from fusedx.results import row

    for name in ("x.png", 'y "1",2.png'):
        writer.write(row(RUN, fusedx.Failure(name, "empty", "zero bytes")))
    writer.close()
    return path.read_bytes()


@FUZZ
@given(data=st.data(), suffix=st.sampled_from([".csv", ".jsonl"]))
def test_table_to_resume(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, suffix: str) -> None:
    folder = tmp_path_factory.mktemp("resume", numbered=True)
    raw = data.draw(mutations(finished(suffix, folder)))
    path = folder / f"again{suffix}"
    path.write_bytes(raw)
    try:
        writer, existing = Destination(path, resume=True).open(RUN)
    except fusedx.FusedxError:
        assert path.read_bytes() == raw, "a table that is refused must be left alone"
        return
    writer.close()
    assert 0 <= existing.rows <= 4 and len(path.read_bytes()) <= len(raw) + 4000
