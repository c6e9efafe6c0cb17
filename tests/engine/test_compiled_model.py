"""The compiled model's folder and manifest: changed, incomplete, newer or hostile, and what loading says about it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

import fusedx

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "compiler"))
import tiny  # noqa: E402
from fusedx.compiler import compile_checkpoint  # noqa: E402
from fusedx.engine.compiled import FILES, open_model  # noqa: E402
from fusedx.engine.errors import ConfigError, ModelFormatError  # noqa: E402
from fusedx.engine.manifest import Manifest, Network, Preprocessing, from_dict, parse_json  # noqa: E402

FUZZ = settings(derandomize=True, max_examples=300, deadline=None, database=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    sources = {"v1": tiny.write_v1(folder / "v1"), "v2": tiny.write_v2(folder / "last.ckpt")}
    return {name: compile_checkpoint(source, folder / f"{name}.fusedx").path for name, source in sources.items()}


@pytest.fixture
def model(originals, tmp_path) -> Path:
    return Path(shutil.copytree(originals["v1"], tmp_path / "m.fusedx"))


def load(path, **more):
    return fusedx.load(path, encoder="reference", backend="python", **more)


def refused(path, *texts, **more):
    with pytest.raises(ModelFormatError) as caught:
        load(path, **more)
    for text in texts:
        assert text in str(caught.value), str(caught.value)
    assert len(str(caught.value)) < 2500


def edit(path: Path, change) -> None:
    """Change the parsed manifest in place."""
    manifest = json.loads((path / "manifest.json").read_text())
    change(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


def forge(path: Path) -> None:
    """What an attacker does after changing a file: make the manifest agree."""

    def change(manifest):
        for name in FILES:
            raw = (path / name).read_bytes()
            manifest["files"][name] = {"sha256": hashlib.sha256(raw).hexdigest(), "bytes": len(raw)}

    edit(path, change)


# The folder.


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_bit_anywhere(name, model):
    raw = (model / name).read_bytes()
    rng = np.random.default_rng(1)
    for at in {0, 1, len(raw) - 1, *rng.integers(0, len(raw), 12).tolist()}:
        damaged = bytearray(raw)
        damaged[at] ^= 1 << int(rng.integers(8))
        (model / name).write_bytes(damaged)
        refused(model, name, "was changed after compiling")
    (model / name).write_bytes(raw)
    load(model)


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_missing_truncated_longer_or_replaced(name, model):
    path = model / name
    raw = path.read_bytes()
    for damaged in (b"", raw[: len(raw) // 2], raw[:-1], raw + b"\0"):
        path.write_bytes(damaged)
        if name == "manifest.json" and damaged == raw[:-1]:
            continue  # the newline at the end
        refused(model, name)
    path.unlink()
    refused(model, name)
    path.mkdir()
    refused(model, name)
    path.rmdir()
    os.mkfifo(path)
    refused(model, name)
    path.unlink()
    path.symlink_to("nowhere")
    refused(model, name)


def test_not_a_compiled_model(tmp_path):
    (tmp_path / "file").write_text("x")
    for path, text in (
        (tmp_path / "none", "does not exist"),
        (tmp_path / "file", "is not a folder"),
        (tmp_path, "has no manifest.json"),
        ("x" * 5000, "cannot be read"),
        ("a\0b", ""),
        ("", "manifest.json"),
    ):
        refused(path, text)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_unreadable_files(name, model):
    (model / name).chmod(0)
    refused(model, name)


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_read_errors_are_reported(name, model, monkeypatch):
    """As an unreadable file, or a disk that fails, reports itself."""
    opened, read = Path.open, Path.read_bytes

    def fail(original):
        def wrapped(self, *args, **kwargs):
            if self.name == name:
                raise PermissionError(13, "Permission denied", str(self))
            return original(self, *args, **kwargs)

        return wrapped

    monkeypatch.setattr(Path, "open", fail(opened))
    monkeypatch.setattr(Path, "read_bytes", fail(read))
    refused(model, name, "Permission denied")
    refused(model, name, "Permission denied", verify=False)


def test_further_files_in_the_folder_do_no_harm(model):
    (model / "notes.txt").write_text("x")
    load(model)


# The manifest.


@pytest.mark.parametrize("family", ["v1", "v2"])
def test_manifest_round_trip(family, originals):
    text = (originals[family] / "manifest.json").read_text()
    manifest = Manifest.from_json(text)
    assert manifest.to_json() == text and Manifest.from_json(manifest.to_json()) == manifest
    assert manifest.family == f"diffmic-{family}"


TEMPERATURE = {"value": 0.5, "images": 9, "held_out": 8, "ece_before": 0.4, "ece_after": 0.1, "nll_before": 1.2, "nll_after": 0.8}
_JUDGED = {
    "encoder_precision": "fp32", "cost_bytes": 5, "pictures": 40, "label_changes": 1, "label_change_bound": 0.1, "mean_shift": 0.01,
    "mean_shift_bound": 0.02, "shift_95": 0.05, "largest_shift": 0.1,
}  # fmt: skip
EVIDENCE = {
    "pictures": 40, "pictures_sha256": "0a" * 32, "range_pictures": 3, "draws": 1, "seed": 0, "confidence": 0.95, "max_label_change": 0.2,
    "max_probability_shift": 0.03, "computed_by": "native", "left_out": ["bf16: no kernel"],
    "candidates": [
        _JUDGED | {"precision": "int8", "verdict": "failed", "mean_shift_bound": 0.04},
        _JUDGED | {"precision": "fp32", "verdict": "passed"},
    ],
}  # fmt: skip


def test_measurements_survive(originals):
    data = json.loads((originals["v1"] / "manifest.json").read_text()) | {"temperature": TEMPERATURE, "precision_evidence": EVIDENCE}
    manifest = Manifest.from_json(json.dumps(data))
    assert manifest.temperature is not None and manifest.temperature.value == 0.5
    assert manifest.precision_evidence is not None and manifest.precision_evidence.chosen.precision == "fp32"
    assert Manifest.from_json(manifest.to_json()) == manifest


def rename(place: list[str], old: str, new: str):
    def change(manifest):
        for key in place:
            manifest = manifest[key]
        manifest[new] = manifest.pop(old)

    return change


def put(place: list[str], key: str, value):
    def change(manifest):
        for k in place:
            manifest = manifest[k]
        manifest[key] = value

    return change


@pytest.mark.parametrize(
    "change, texts",
    [
        (put([], "clases", []), ["unknown key 'clases'", "did you mean 'classes'?"]),
        (put(["schedule"], "beta_stat", 1), ["manifest.schedule", "did you mean 'beta_start'?"]),
        (put(["network"], "family", "diffmic-v2"), ["network", "family"]),
        (put(["files", "encoder.onnx"], "size", 1), ["manifest.files.encoder.onnx", "'size'"]),
        (put([], "\u202e" * 9999, 1), ["unknown key"]),
        (rename([], "classes", "names"), ["unknown key 'names'"]),
        (lambda m: m.pop("schedule"), ["manifest lacks schedule"]),
        (lambda m: m.pop("family"), ["family"]),
        (lambda m: m.pop("format"), ["does not describe a fusedx model"]),
        (lambda m: m.pop("format_version"), ["format_version"]),
        (put([], "format_version", 2), ["format 2", "reads up to 1", "upgrade fusedx"]),
        (put([], "format_version", 10**4000), ["upgrade fusedx"]),
        (put([], "format_version", 0), ["format_version"]),
        (put([], "format_version", True), ["format_version"]),
        (put([], "format_version", 1.0), ["format_version"]),
        (put([], "format_version", "1"), ["format_version"]),
        (put([], "format", "fusedx-compiled-model2"), ["does not describe"]),
        (put([], "format", ["fusedx-compiled-model"]), ["does not describe"]),
        (put([], "family", "daug"), ["family must be one of diffmic-v1, diffmic-v2"]),
        (put([], "family", "diffmic-v2"), []),
        (put([], "family", {}), ["family"]),
        (put([], "task", "regression"), ["task must be one of"]),
        (put([], "precision", "fp8"), ["precision must be one of fp32, bf16, fp16, int8, int4"]),
        (put([], "precision", "int8"), ["not that of a model in int8", "weight2.panels", "compile the checkpoint again"]),
        (put([], "precision", None), ["precision must be str"]),
        (put([], "encoder_precision", "bf16"), ["encoder_precision must be one of fp32, int8"]),
        (put([], "encoder_precision", None), ["encoder_precision must be str"]),
        (put([], "self_test", {}), ["manifest.self_test lacks"]),
        (put([], "self_test", [1]), ["manifest.self_test must be an object"]),
        (put(["self_test"], "tolerances", 1), ["did you mean 'tolerance'"]),
        (put(["self_test"], "probabilities", [0.5, 0.5]), ["2 probabilities for 5 classes"]),
        (put(["self_test"], "probabilities", [0.5, 0.5, 0, 0, 1.5]), ["from 0 to 1"]),
        (put(["self_test"], "probabilities", ["1", 0, 0, 0, 0]), ["probabilities[0] must be float"]),
        (put(["self_test"], "tolerance", 0), ["self_test.tolerance"]),
        (put(["self_test"], "tolerance", 1.5), ["self_test.tolerance"]),
        (put(["self_test"], "draws", 0), ["self_test.draws"]),
        (put([], "temperature", 0.5), ["manifest.temperature must be an object"]),
        (put([], "temperature", TEMPERATURE | {"value": 0}), ["temperature.value must be from"]),
        (put([], "temperature", TEMPERATURE | {"bins": 15}), ["manifest.temperature has an unknown key 'bins'"]),
        (put([], "temperature", TEMPERATURE | {"nll_before": 10**60}), ["temperature.nll_before must be from"]),
        (put([], "temperature", TEMPERATURE | {"solver": "ddim"}), ["temperature.solver_steps goes with"]),
        (put([], "temperature", TEMPERATURE | {"solver_steps": 5}), ["temperature.solver_steps goes with"]),
        (lambda m: m.update(temperature=TEMPERATURE, task="multilabel"), ["one label a picture"]),
        (lambda m: m.update(precision_evidence=EVIDENCE, precision="int8"), ["not that of a model with weights in int8"]),
        (put([], "precision_evidence", EVIDENCE | {"candidates": []}), ["it chose nothing"]),
        (put([], "precision_evidence", EVIDENCE | {"pictures": 39}), ["judged by more pictures"]),
        (put([], "precision_evidence", EVIDENCE | {"max_label_change": 0.05}), ["verdict is not what its figures say"]),
        (put([], "precision_evidence", EVIDENCE | {"confidence": 1.5}), ["precision_evidence.confidence must be from 0 to 1"]),
        (put(["self_test"], "seed", -1), ["self_test.seed"]),
        (put(["schedule"], "beta_end", 0.03), ["coefficients differ"]),
        (put([], "default_draws", 0), ["default_draws"]),
        (put([], "default_draws", True), ["default_draws must be int, got bool"]),
        (put([], "default_seed", 1 << 64), ["default_seed"]),
        (put([], "default_seed", 0.0), ["default_seed must be int, got float"]),
        (put([], "classes", ["a", "b"]), ["2 class names for 5 classes"]),
        (put([], "classes", ["a", "b", "c", "d", "a"]), ["distinct"]),
        (put([], "classes", ["a", "b", "c", "d", " "]), ["not empty"]),
        (put([], "classes", ["a", "b", "c", "d", "\x1b[31m"]), ["printable"]),
        (put([], "classes", ["a", "b", "c", "d", 5]), ["manifest.classes[4] must be str"]),
        (put([], "classes", "abcde"), ["must be a list"]),
        (put([], "classes", None), ["must be a list"]),
        (put([], "files", {}), ["lists []"]),
        (put(["files"], "../../etc/passwd", {"sha256": "0" * 64, "bytes": 1}), ["etc/passwd"]),
        (lambda m: m["files"].pop("encoder.onnx"), ["lists"]),
        (put(["files", "encoder.onnx"], "bytes", -1), ["bytes"]),
        (put(["files", "encoder.onnx"], "bytes", 1 << 60), ["bytes"]),
        (put(["files", "encoder.onnx"], "bytes", 5.0), ["bytes"]),
        (put(["files", "encoder.onnx"], "sha256", "Z" * 64), ["SHA-256"]),
        (put(["files", "encoder.onnx"], "sha256", "0" * 63), ["SHA-256"]),
        (put(["files", "encoder.onnx"], "sha256", 7), ["sha256 must be str"]),
        (put(["network"], "num_classes", 7), ["5 class names for 7"]),
        (put(["network"], "num_classes", 10**400), ["num_classes"]),
        (put(["network"], "num_classes", 1), ["num_classes"]),
        (put(["network"], "feature_dim", 32), ["manifest implies"]),
        (put(["network"], "feature_dim", 1 << 40), ["feature_dim"]),
        (put(["network"], "include_guidance", 1), ["include_guidance must be bool"]),
        (put(["network"], "prior_arch", "vit"), ["prior_arch"]),
        (put(["schedule"], "beta_start", 10**400), ["beta_start"]),
        (put(["schedule"], "beta_start", "0.1"), ["beta_start must be float"]),
        (put(["schedule"], "beta_schedule", "magic"), ["beta_schedule"]),
        (put(["schedule"], "steps", 19), ["the manifest implies F64 [19, 6]"]),
        (put(["schedule"], "steps", True), ["steps"]),
        (put(["schedule"], "train_timesteps", 10), ["steps"]),
        (lambda m: m["schedule"].update(beta_schedule="jsd", steps=1000), ["singular"]),
        (lambda m: m["schedule"].update(beta_end=0.999, steps=1000), ["singular"]),
        (put(["preprocessing"], "mean", [0.5, 0.5, 0.5]), ["preprocessing.mean", "this fusedx computes"]),
        (put(["preprocessing"], "mean", [0.485, 0.456]), ["must have 3 entries"]),
        (put(["preprocessing"], "size", 256), ["preprocessing.size is 256"]),
        (put(["preprocessing"], "exif_orientation", "rotate"), ["exif_orientation"]),
        (put([], "versions", {"numpy": 2}), ["manifest.versions.numpy must be str"]),
        (put([], "notes", [["x"]]), ["manifest.notes[0]"]),
        (put([], "metrics", []), ["manifest.metrics must be an object"]),
    ],
)  # fmt: skip
def test_manifest_that_says_something_else(change, texts, model):
    edit(model, change)
    refused(model, *texts)


@pytest.mark.parametrize(
    "text",
    [
        "", "null", "[]", "3", '"x"', "{", "{}", "nonsense", "\ufeff{}", "[" * 300_000, '{"a":' * 100_000,
        '{"format": "fusedx-compiled-model", "format": "x"}', '{"metrics": NaN}', '{"metrics": -Infinity}', '{"metrics": 1e999}',
        '{"metrics": ' + "9" * 5000 + "}", '{"metrics": "\\ud800"}', '{"\\udfff": 1}',
        '{"metrics": ' + "[" * 200 + "]" * 200 + "}", '{"metrics": {"a": {"b": 1, "b": 2}}}',
    ],
)  # fmt: skip
def test_manifest_that_is_not_plain_json(text, model):
    if text.startswith('{"') and text.endswith("}") and "format" not in text:
        text = (model / "manifest.json").read_text().rstrip()[:-1].replace('"metrics": {}', '"unused": 0') + "," + text[1:]
    (model / "manifest.json").write_text(text, encoding="utf-8")
    refused(model, "manifest.json", "not JSON" if "metrics" in text else "")


def test_manifest_bytes(model):
    for raw in (b"\xff\xfe", b"\0" * 99, (model / "manifest.json").read_text().encode("utf-16")):
        (model / "manifest.json").write_bytes(raw)
        refused(model, "manifest.json")
    with (model / "manifest.json").open("wb") as f:
        f.truncate(1 << 40)  # sparse
    refused(model, "larger than")


WRONG = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(min_value=1 << 62, max_value=1 << 2000), st.floats(), st.text(max_size=5),
    st.lists(st.integers(), max_size=3), st.dictionaries(st.text(max_size=3), st.none(), max_size=2),
    st.sampled_from(["resnet18", "diffmic-v2"]),
)  # fmt: skip


def places(value, path=()):
    yield path
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[key], (*path, key))


@FUZZ
@given(data=st.data())
def test_mutated_manifest(data, originals):
    """Any value anywhere replaced, removed or moved: a valid manifest, or ModelFormatError; what is valid can be written again."""
    manifest = json.loads((originals[data.draw(st.sampled_from(["v1", "v2"]))] / "manifest.json").read_text())
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(sorted(places(manifest), key=str)))
        if not path:
            continue
        parent = manifest
        for key in path[:-1]:
            parent = parent[key]
        action = data.draw(st.sampled_from(["replace", "remove", "rename"]))
        if action == "replace":
            parent[path[-1]] = data.draw(WRONG)
        elif action == "remove" or isinstance(parent, list):
            del parent[path[-1]]
        else:
            parent[data.draw(st.text(max_size=8))] = parent.pop(path[-1])
    try:
        read = Manifest.from_json(json.dumps(manifest))
    except ModelFormatError as error:
        assert len(str(error)) < 2000
        return
    assert Manifest.from_json(read.to_json()) == read


@FUZZ
@given(edits=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 4), st.text(max_size=4)), min_size=1, max_size=4))
def test_mutated_manifest_text(edits, originals):
    text = (originals["v1"] / "manifest.json").read_text()
    for at, length, new in edits:
        at %= len(text)
        text = text[:at] + new + text[at + length :]
    try:
        Manifest.from_json(text)
    except ModelFormatError:
        pass


def test_from_dict_is_strict():
    for kind, value in (
        (int, True), (int, 1.0), (int, "1"), (float, True), (float, "1"), (float, 10**400), (bool, 1), (bool, 0), (bool, "true"),
        (str, 1), (str, None), (tuple[int, ...], (1,)), (tuple[int, ...], "12"), (tuple[float, float], [1.0]), (dict[str, int], []),
        (dict[str, int], {"a": True}), (Network, None), (Network, []), (Preprocessing, {"Size": 224}),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match="here"):
            from_dict(kind, value, "here")
    assert from_dict(float, 3, "here") == 3.0 and type(from_dict(float, 3, "here")) is float
    assert from_dict(tuple[float, float], [1, 2.5], "here") == (1.0, 2.5)


def test_parse_json_accepts_json():
    text = '{"a": [1, -2.5e3, null, true, "\\u00e9\\ud83d\\ude00"], "b": {"": {}}}'
    assert parse_json(text) == json.loads(text)


# Files that an attacker changed, with digests that agree.


@pytest.mark.parametrize("table", ["weight_y", "weight_p", "weight2", "weight4", "bias4", "scale1", "shift3"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite_tables_are_named(table, value, model):
    arrays = load_file(model / "denoiser.safetensors")
    arrays[table].reshape(-1)[-1] = value
    save_file(arrays, model / "denoiser.safetensors")
    forge(model)
    refused(model, "denoiser.safetensors", table, "NaN or infinite")


@pytest.mark.parametrize(
    "change, text",
    [
        (lambda a: a.pop("weight2"), "lacks ['weight2']"),
        (lambda a: a.pop("coefficients"), "lacks ['coefficients']"),
        (lambda a: a.update(extra=np.zeros(3, np.float32)), "extra"),
        (lambda a: a.update(bias4=np.zeros(7, np.float32)), "bias4 is F32 [7]"),
        (lambda a: a.update(bias4=np.zeros((5, 1), np.float32)), "bias4 is F32 [5, 1]"),
        (lambda a: a.update(weight2=a["weight2"].astype(np.float64)), "weight2 is F64"),
        (lambda a: a.update(weight2=a["weight2"].astype(np.float16)), "weight2 is F16"),
        (lambda a: a.update(scale1=a["scale1"][:19].copy()), "scale1 is F32 [19, 16]"),
        (lambda a: a.update(weight2=np.zeros((0, 0), np.float32)), "weight2"),
        (lambda a: a.update(coefficients=a["coefficients"].astype(np.float32)), "coefficients is F32"),
        (lambda a: a.update(coefficients=a["coefficients"][::-1].copy()), "coefficients differ"),
        (lambda a: a.update(coefficients=a["coefficients"] * np.nan), "coefficients differ"),
        (lambda a: a.clear(), "it lacks ['bias4', 'coefficients'"),
    ],
)
def test_tables_of_other_shapes(change, text, model):
    arrays = load_file(model / "denoiser.safetensors")
    change(arrays)
    save_file(arrays, model / "denoiser.safetensors")
    forge(model)
    refused(model, "denoiser.safetensors", text)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_not_finite_encoder_weights_are_named(value, model):
    raw = bytearray((model / "encoder.onnx.data").read_bytes())
    raw[8192:8196] = np.float32(value).tobytes()
    (model / "encoder.onnx.data").write_bytes(raw)
    forge(model)
    refused(model, "encoder.onnx", "NaN or infinite")


@pytest.mark.parametrize("encoder", ["openvino", "onnxruntime", "torch", "reference"])
def test_files_of_another_model(encoder, model, originals, tmp_path):
    """Each is a good file with a good digest; together they are no model."""
    other = originals["v2"]
    for names in (["encoder.onnx"], ["encoder.onnx", "encoder.onnx.data"], ["denoiser.safetensors"]):
        mixed = Path(shutil.copytree(model, tmp_path / "-".join(names)))
        for name in names:
            shutil.copy(other / name, mixed / name)
        forge(mixed)
        with pytest.raises(ModelFormatError):
            fusedx.load(mixed, encoder=encoder)


@pytest.mark.parametrize("encoder", ["openvino", "onnxruntime", "torch", "reference"])
@pytest.mark.parametrize("raw", [b"", b"\x08\x08", b"not onnx at all", b"\0" * 1000])
def test_encoder_that_is_not_one(encoder, raw, model):
    for name in ("encoder.onnx", "encoder.onnx.data"):
        before = (model / name).read_bytes()
        (model / name).write_bytes(raw)
        forge(model)
        with pytest.raises(ModelFormatError):
            fusedx.load(model, encoder=encoder)
        (model / name).write_bytes(before)


@pytest.mark.parametrize("place", [3, 1 << 40, [0, 1]])
@pytest.mark.parametrize("encoder", ["openvino", "onnxruntime", "torch"])
def test_gather_outside_its_input(place, encoder, model):
    graph = onnx.load(model / "encoder.onnx", load_external_data=False)
    graph.graph.initializer.append(onnx.numpy_helper.from_array(np.array(place), "place_of_choice"))
    next(n for n in graph.graph.node if n.op_type == "Gather").input[1] = "place_of_choice"
    (model / "encoder.onnx").write_bytes(graph.SerializeToString())
    forge(model)
    with pytest.raises(ModelFormatError, match="gathers outside"):
        fusedx.load(model, encoder=encoder)


def test_verify_false_still_checks_sizes_and_shapes(model):
    raw = bytearray((model / "encoder.onnx.data").read_bytes())
    raw[8192] ^= 1
    (model / "encoder.onnx.data").write_bytes(raw)
    load(model, verify=False)
    refused(model, "was changed after compiling")
    (model / "encoder.onnx.data").write_bytes(raw[:-1])
    refused(model, "bytes", verify=False)


def test_weights_do_not_stay_resident(originals):
    """The finite check maps every weight; the pages go back."""
    model = open_model(originals["v1"])
    smaps = Path("/proc/self/smaps")
    if not smaps.exists():
        pytest.skip("no /proc/self/smaps")
    resident, ours = 0, False
    for line in smaps.read_text().splitlines():
        if "-" in line.split(" ", 1)[0]:
            ours = line.endswith(str(model.path / "encoder.onnx.data"))
        elif ours and line.startswith("Rss:"):
            resident += int(line.split()[1])
    assert resident < 1000  # KiB, of 4 MB
