"""The C++ readers of compiled models: their own tests and fuzzers under sanitizers, and the verdicts of the Python readers."""

from __future__ import annotations

import json
import random
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

sys.path[:0] = [str(Path(__file__).resolve().parent / folder) for folder in ("native", "native/fuzz", "engine")]
import builds  # noqa: E402
import seeds  # noqa: E402

pytest.importorskip("onnx")
pytest.importorskip("torch")
import test_compiled_model as models  # noqa: E402
import test_onnx_file as graphs  # noqa: E402
import test_safetensors as tensors  # noqa: E402
from test_compiled_model import originals  # noqa: E402, F401
from test_onnx_file import built  # noqa: E402, F401

from fusedx.engine import safetensors  # noqa: E402
from fusedx.engine.compiled import FILES, open_model  # noqa: E402
from fusedx.engine.encoder import onnx_file  # noqa: E402
from fusedx.engine.errors import ModelFormatError  # noqa: E402
from fusedx.engine.manifest import Manifest, parse_json  # noqa: E402
from fusedx.kernels.conditional_layer.packed import FORMATS  # noqa: E402

pytestmark = pytest.mark.skipif(builds.missing_tool() is not None, reason=str(builds.missing_tool()))

Check = Callable[[list[tuple[str, Callable[[], object]]]], list[str]]


@pytest.fixture(scope="session")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Programs with AddressSanitizer and UndefinedBehaviorSanitizer."""
    return builds.build(tmp_path_factory, "address,undefined", "model_tests", "chain_tests", "inspect", "fuzzers")


@pytest.fixture
def same_verdict(checked: Path) -> Check:
    """Runs `inspect`'s commands and the Python functions beside them; both accept, or both refuse.  Returns what C++ said."""

    def check(cases: list[tuple[str, Callable[[], object]]]) -> list[str]:
        said = builds.run(checked / "inspect", lines=[command for command, _ in cases]).splitlines()
        assert len(said) == len(cases)
        for (command, python), verdict in zip(cases, said, strict=True):
            try:
                python()
                expected, why = "ok", ""
            except (ModelFormatError, ValueError) as error:
                expected, why = "refused", str(error)[:300]
            if "share bytes" not in verdict:  # Python lets two constants lie on one another
                assert verdict.split(" ")[0] == expected, f"{command}: Python {expected} {why}; C++ {verdict}"
        return said

    return check


def cases_of(test: Callable[..., None]) -> list:
    """What a parametrised test of the Python reader is given."""
    (mark,) = [m for m in test.pytestmark if m.name == "parametrize"]  # type: ignore[attr-defined]
    return list(mark.args[1])


def mutations(raw: bytes, count: int, rng: random.Random) -> list[bytes]:
    """``raw`` with one to four small edits each."""
    out = []
    for _ in range(count):
        data = bytearray(raw)
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(data) + 1)
            new = rng.choice([b"", bytes([rng.randrange(256)]), b"0", b"9", b'"', b"-", b"\\u00", b"null", b"e9"])
            data[at : at + rng.randrange(4)] = new
        out.append(bytes(data))
    return out


def test_under_address_and_undefined_behaviour_sanitizers(checked, small_model):
    assert " 0 failures" in builds.run(checked / "model_tests", small_model)
    assert " 0 failures" in builds.run(checked / "chain_tests")


def test_under_thread_sanitizer(tmp_path_factory, small_model):
    programs = builds.build(tmp_path_factory, "thread", "model_tests", "chain_tests")
    assert " 0 failures" in builds.run(programs / "model_tests", small_model)
    assert " 0 failures" in builds.run(programs / "chain_tests")


@pytest.mark.parametrize("name", ["manifest", "safetensors", "onnx", "image"])
def test_fuzzers_briefly(name, checked, small_model, tmp_path):
    seeds.write(tmp_path, [small_model])
    assert "mutations" in builds.run(checked / f"fuzz_{name}", "-runs=1000000", "-seconds=3", tmp_path / name)


def test_json(same_verdict, tmp_path):
    """Texts around every rule of the grammar, and edits of a text that has them all."""
    text = b'{"a": [1, -2.5e3, 0.1E-4, null, true, false, "\\u00e9\\ud83d\\ude00\\n\\"", {}], "b": {"": [[]]}, "\xc3\xa9": -0, "z": 1e-400}'
    raws = [text, *mutations(text, 1500, random.Random(1))]
    raws += [b"[" * n + inner + b"]" * n for n in (30, 31, 32, 33) for inner in (b"", b"1", b'""', b'{"a":1}', b"{}")]
    raws += [b"9" * 4300, b"9" * 4301, b"-" + b"9" * 4300, b"1e308", b"1e309", b"-1e309"]
    raws += [b"0." + b"0" * 400 + b"1e500", b"1" + b"0" * 400 + b".0e-200", b"0." + b"0" * 400 + b"1", b"1" + b"0" * 400 + b".0"]
    cases = []
    for i, raw in enumerate(raws):
        (tmp_path / str(i)).write_bytes(raw)
        cases.append((f"json\t{tmp_path / str(i)}", lambda raw=raw: parse_json(raw.decode())))
    same_verdict(cases)


@pytest.mark.parametrize("family", ["v1", "v2"])
def test_manifests(family, originals, same_verdict, tmp_path):  # noqa: F811
    whole = json.loads((originals[family] / "manifest.json").read_text())
    whole |= {"temperature": models.TEMPERATURE, "precision_evidence": models.EVIDENCE}
    texts = [json.dumps(whole), *cases_of(models.test_manifest_that_is_not_plain_json)]
    for change, reasons in cases_of(models.test_manifest_that_says_something_else):
        if "singular" in reasons:  # a matter of the coefficients, which C++ looks at when it opens the whole model
            continue
        manifest = json.loads(json.dumps(whole))
        change(manifest)
        texts.append(json.dumps(manifest))
    rng = random.Random(7)
    wrong = [None, True, 0, -1, 1, 2, 7, 1 << 64, 10**60, 0.5, 1e300, "", "x", "resnet18", "int8", [], [1], ["a"], {}, {"a": 1}]
    for _ in range(1500):
        manifest = json.loads(json.dumps(whole))
        for _ in range(rng.randint(1, 2)):
            *parents, key = rng.choice([p for p in models.places(manifest) if p])
            place = manifest
            for parent in parents:
                place = place[parent]
            if rng.random() < 0.7:
                place[key] = rng.choice(wrong)
            elif rng.random() < 0.5 and isinstance(place, dict):
                place[rng.choice(["x", "family", "notes", "seed"])] = place.pop(key)
            else:
                del place[key]
        texts.append(json.dumps(manifest, ensure_ascii=rng.random() < 0.5))
    cases = []
    for i, text in enumerate(texts):
        path = tmp_path / f"{i}.json"
        path.write_text(text, encoding="utf-8")

        def python(text=text):
            try:
                Manifest.from_json(text)
            except ModelFormatError as error:
                if "singular" not in str(error) and "alpha_bar reaches 0" not in str(error):
                    raise

        cases.append((f"manifest\t{path}", python))
    assert same_verdict(cases)[0].startswith("ok")


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the table is of the Unicode version of Python 3.11")
def test_printable_characters(same_verdict, originals, tmp_path):  # noqa: F811
    """A class name at the edges of every run of the table."""
    manifest = json.loads((originals["v1"] / "manifest.json").read_text())
    edges = [c for c in range(1, 0x110000) if not 0xD7FF <= c <= 0xE000 and chr(c).isprintable() != chr(c - 1).isprintable()]
    cases = []
    for code in [c + d for c in edges for d in (-1, 0)][:3000]:
        manifest["classes"][0] = "x" + chr(code)
        path = tmp_path / f"{code}.json"
        path.write_text(json.dumps(manifest), encoding="utf-8")
        cases.append((f"manifest\t{path}", lambda path=path: Manifest.from_json(path.read_text())))
    same_verdict(cases)


def test_safetensors(same_verdict, tmp_path):
    raws = []
    for header in cases_of(tensors.test_broken_headers):
        raws.append(tensors.write(tmp_path / "x.safetensors", header).read_bytes())
    rng = random.Random(3)
    for precision in FORMATS:
        raws += [seeds.denoiser(precision, 6), *mutations(seeds.denoiser(precision, 4), 400, rng)]
    cases = []
    for i, raw in enumerate(raws):
        path = tmp_path / f"{i}.safetensors"
        path.write_bytes(raw)
        cases.append((f"safetensors\t{path}", lambda path=path: safetensors.read(path)))
    same_verdict(cases)


@pytest.mark.parametrize("family", ["v1", "v2"])
def test_encoder_graphs(family, built, same_verdict, tmp_path):  # noqa: F811
    onnx = pytest.importorskip("onnx")
    source = built[family][1]
    raw, data = source.read_bytes(), onnx_file.data_file(source)
    raws = [raw, *cases_of(graphs.test_bytes_that_are_no_message), *mutations(raw, 250, random.Random(5))]
    for change in graphs.CHANGES.values():
        model = onnx.load(source, load_external_data=False)
        try:
            change(model)
        except StopIteration:  # an operator that this family has not
            continue
        raws.append(model.SerializeToString())
    cases = []
    for i, changed in enumerate(raws):
        folder = tmp_path / str(i)
        folder.mkdir()
        (folder / "encoder.onnx").write_bytes(changed)
        (folder / "encoder.onnx.data").symlink_to(data)
        command = f"onnx\t{folder / 'encoder.onnx'}\t{folder / 'encoder.onnx.data'}"
        cases.append((command, lambda folder=folder: onnx_file.read(folder / "encoder.onnx")))
    assert same_verdict(cases)[0].startswith("ok")


def test_whole_models(originals, same_verdict, tmp_path):  # noqa: F811
    """Each precision; every tensor with a value that is not finite; swapped and damaged files with digests that agree."""
    from fusedx.engine.denoiser import StoredDenoiser
    from fusedx.engine.schedule import chain_program

    cases: list[tuple[str, Callable[[], object]]] = []

    def case(name: str, change: Callable[[Path], None], source: Path = originals["v1"], *, forge: bool = True) -> None:
        folder = Path(shutil.copytree(source, tmp_path / name))
        change(folder)
        if forge:
            models.forge(folder)
        cases.append((f"model\t{folder}", lambda: open_model(folder)))

    def rewrite(arrays: dict[str, np.ndarray]) -> Callable[[Path], None]:
        return lambda folder: safetensors.write(arrays, folder / "denoiser.safetensors")

    for family, source in originals.items():
        case(family, lambda folder: None, source, forge=False)
        model = open_model(source)
        m = model.manifest
        coefficients = chain_program(m.schedule, v2=family == "v2").coefficients
        for precision in FORMATS:
            stored = StoredDenoiser.pack(model.denoiser(), m.network, coefficients, precision).arrays
            name = f"{family}-{precision}"

            def said(folder: Path, stored=stored, precision=precision) -> None:
                models.edit(folder, lambda manifest: manifest.update(precision=precision))
                rewrite(stored)(folder)

            case(name, said, source)
            for tensor in stored:
                bad = {key: array.copy() for key, array in stored.items()}
                flat = bad[tensor].reshape(-1)
                flat[-1] = 0xFF80 if flat.dtype == np.uint16 else np.nan if flat.dtype.kind == "f" else flat[-1]
                case(f"{name}-{tensor}", lambda folder, bad=bad, said=said: (said(folder), rewrite(bad)(folder)), source)
            lacking = dict(list(stored.items())[1:])
            case(f"{name}-lacking", lambda folder, lacking=lacking, said=said: (said(folder), rewrite(lacking)(folder)), source)
            case(f"{name}-other", rewrite(stored), source)
    nan = struct.pack("<f", float("nan"))
    for name in FILES:
        for forged in (False, True):
            case(f"flip-{name}-{forged}", lambda f, n=name: (f / n).write_bytes((f / n).read_bytes()[:-4] + nan), forge=forged)
        case(f"mixed-{name}", lambda f, n=name: shutil.copy(originals["v2"] / n, f / n))
    verdicts = same_verdict(cases)
    assert sum(v.startswith("ok") for v in verdicts) >= 12
