"""Every array of every v1 and v2 golden case, by the float64 reference and by the engine."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from fusedx import golden, verify
from fusedx.compiler import compile_checkpoint
from fusedx.compiler.reference import checkpoint_reference
from fusedx.engine import compiled
from fusedx.engine.backends import open_chains
from fusedx.engine.compiled import open_model
from fusedx.engine.encoder import open_encoder
from fusedx.engine.engine import Engine
from fusedx.kernels import conditional_layer
from fusedx.kernels.prior_tail import region_scores, select_regions
from tolerances import GOLDEN

HERE = Path(__file__).parent / "golden"
SMALL = ("v1-small", "v1-noise-prior", "v2-small")
FULL = ("v1-aptos", "v1-isic", "v2-placental")


@pytest.fixture(scope="module", params=SMALL + FULL)
def case(request, tmp_path_factory):
    """(case, checkpoint, compiled model); one case lives on disk at a time, since a full-width one takes 1.2 GB."""
    folder = tmp_path_factory.mktemp(request.param)
    subprocess.run([sys.executable, HERE / "make_checkpoint.py", request.param, folder / "checkpoint"], check=True)
    compile_checkpoint(folder / "checkpoint", folder / "model.fusedx")
    yield golden.load(HERE / f"{request.param}.json"), folder / "checkpoint", folder / "model.fusedx"
    shutil.rmtree(folder)


def errors(engine: Engine, case: golden.GoldenCase) -> dict[str, float]:
    got = verify._by_golden_name(engine, engine.trace(case.x, case.noise), case.expected)
    return {n: verify.relative_error(got[n], case.expected[n]) for n in case.expected if n != "trajectory_stride"}


def within(found: dict[str, float], tolerance: float) -> None:
    wrong = {name: error for name, error in found.items() if not error <= tolerance}
    assert not wrong, f"beyond {tolerance}: {wrong}"


def test_float64_reference(case) -> None:
    expected, checkpoint, _ = case
    within(errors(checkpoint_reference(checkpoint), expected), GOLDEN["cpu", "float64"])


@pytest.mark.parametrize("backend", ["native", "python"])
def test_engine(case, backend: str) -> None:
    expected, _, path = case
    if backend == "native" and not conditional_layer.available():
        pytest.skip("the native module is not built")
    if backend == "python" and expected.name in ("v1-isic", "v2-placental"):
        pytest.skip("one row at a time at full width takes minutes; v1-aptos covers the width")
    model = open_model(path)
    engine = engine_of(model, "openvino", backend)
    within(errors(engine, expected), GOLDEN["cpu", "float32"])
    probabilities = engine.trace(expected.x, expected.noise)["probabilities"]
    assert np.allclose(probabilities.sum(axis=-1), 1)


@pytest.mark.parametrize("precision", ["bf16", "fp16", "int8", "int4"])
def test_low_precision(case, precision: str) -> None:
    """Within its row, the labels of the original code, and no better than its bits allow: it is not fp32 under another name."""
    expected, _, path = case
    if not conditional_layer.available():
        pytest.skip("the native module is not built")
    if precision == "int4" and expected.name in FULL:
        pytest.skip("packing int4 at full width takes a minute; the layer's own tests cover the width")
    engine = engine_of(open_model(path), "openvino", "native", precision)
    found = errors(engine, expected)
    within(found, GOLDEN["cpu", precision])
    assert max(found.values()) > 1e-5
    final = "y_final" if "y_final" in expected.expected else "prediction"
    got = engine.trace(expected.x, expected.noise)[final]
    assert (got.argmax(axis=-1) == expected.expected[final].argmax(axis=-1)).all()


@pytest.mark.parametrize("encoder", ["onnxruntime", "torch"])
def test_other_encoders(case, encoder: str) -> None:
    expected, _, path = case
    if expected.name in FULL or expected.name == "v1-noise-prior":
        pytest.skip("the encoder is the same network in the small cases")
    within(errors(engine_of(open_model(path), encoder, "auto"), expected), GOLDEN["cpu", "float32"])


def test_verify_command_agrees(case) -> None:
    expected, _, path = case
    if expected.name in FULL:
        pytest.skip("test_engine computes the same arrays; the small cases show that verify reports them")
    report = verify.verify(path, HERE / f"{expected.name}.json")
    assert report.ok and len(report.rows) == len([n for n in expected.expected if n != "trajectory_stride"])


def test_verify_finds_one_changed_weight(case, tmp_path: Path) -> None:
    """The negative control of `fusedx verify` itself: a model whose digests are right and whose weights are not."""
    expected, _, path = case
    if expected.name != "v1-small":
        pytest.skip("one case is enough")
    changed = tmp_path / "changed.fusedx"
    shutil.copytree(path, changed)
    file = changed / compiled.DENOISER
    tables = safetensors.numpy.load_file(file)
    tables["weight3"][3, 4] += 0.5
    safetensors.numpy.save_file(tables, file)
    manifest = json.loads((changed / compiled.MANIFEST).read_text())
    manifest["files"][compiled.DENOISER] = dataclasses.asdict(compiled.file_entry(file))
    (changed / compiled.MANIFEST).write_text(json.dumps(manifest))
    done = subprocess.run(
        [sys.executable, "-m", "fusedx", "verify", changed, "--golden", HERE / "v1-small.json", "--json"],
        capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(HERE.parents[1] / "python")},
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    wrong = {row["stage"] for row in json.loads(done.stdout)["rows"] if not row["ok"]}
    assert {"y_final", "eps_t0"} <= wrong and not wrong & {"prior", "feature", "saliency"}


def engine_of(model, encoder: str, backend: str, precision: str = "fp32") -> Engine:
    m = model.manifest
    chains = open_chains(backend, model.stored_denoiser().in_precision(precision), m.schedule)
    return Engine(m.network, m.schedule, m.task, open_encoder(encoder, model.encoder), chains)


def test_region_selection_of_the_reference() -> None:
    saved = np.load(HERE / "regions.npz")
    cells = select_regions(region_scores(saved["saliency"]))
    assert np.array_equal(np.stack([cells // 7, cells % 7], axis=-1), saved["cells"])
    assert len({tuple(map(tuple, row)) for row in saved["cells"].tolist()}) > 1


@pytest.mark.parametrize("runtime", ["reference", "onnxruntime", "openvino", "torch"])
def test_region_selection_inside_the_graph(runtime: str, tmp_path: Path) -> None:
    """The graph's own selection and tile gather, alone, on the golden maps (ties, sparse and constant maps included)."""
    from region_graph import run_regions

    saved = np.load(HERE / "regions.npz")
    saliency = saved["saliency"]
    # A constant class map has no range; it must count as zero and not as NaN.
    saliency = np.concatenate([saliency, np.zeros_like(saliency[:1]), np.full_like(saliency[:1], 3.0)])
    image = golden.image(3, "x", (len(saliency), 3, 224, 224))
    cells, tiles = run_regions(runtime, saliency, image, tmp_path)
    expected = np.concatenate([saved["cells"], np.zeros((2, 6, 2), np.int64)])
    got = cells // 32
    scores = region_scores(saliency)
    for b in range(len(got)):
        if runtime == "reference" or np.unique(np.round(scores[b], 6)).size == np.unique(scores[b]).size:
            assert np.array_equal(got[b], expected[b]), f"map {b}"
        else:  # scores equal in decimals and not in bits: in float32 either of the two may be the larger
            np.testing.assert_allclose(scores[b][got[b] @ [7, 1]], scores[b][expected[b] @ [7, 1]], atol=1e-6)
    for b, rows in enumerate(got):
        for k, (r, c) in enumerate(rows):
            assert np.array_equal(tiles[b * 6 + k, 0], image[b, 0, 32 * r : 32 * r + 32, 32 * c : 32 * c + 32])


def test_golden_inputs_match_the_recipe() -> None:
    sys.path.insert(0, str(HERE))
    try:
        import recipe
    finally:
        sys.path.pop(0)
    assert np.array_equal(golden.image(5, "x", (2, 3, 224, 224)), recipe.image(5, "x", (2, 3, 224, 224)))
    assert np.array_equal(golden.normal(5, "z", (7, 2, 3)), recipe.normal(5, "z", (7, 2, 3)))
    assert np.array_equal(golden.uniform(5, "u", (7, 3)), recipe.uniform(5, "u", (7, 3)))


def test_a_wrong_model_fails_verification(case, tmp_path: Path) -> None:
    """The negative control: other noise must not pass."""
    expected, _, path = case
    if expected.name != "v1-small":
        pytest.skip("one case is enough")
    engine = engine_of(open_model(path), "openvino", "auto")
    with pytest.raises(AssertionError, match="y_final"):
        within(errors(engine, dataclasses.replace(expected, noise=expected.noise * 1.0001)), GOLDEN["cpu", "float32"])


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16", "fp8"])
def test_verify_is_as_strict_as_the_gpu_tests(precision):
    assert verify.TOLERANCE["cuda", precision] == GOLDEN["cuda", precision]
