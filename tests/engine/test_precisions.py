"""A denoiser in every weight format: compiled so or packed on load, by both backends; what cannot be is refused."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import fusedx
from fusedx import self_test
from fusedx.engine import safetensors
from fusedx.engine.backends import open_chains
from fusedx.engine.chain_runner import HostChains
from fusedx.engine.compiled import file_entry, open_model
from fusedx.engine.denoiser import StoredDenoiser, pack_rows, stored_shapes
from fusedx.engine.errors import ConfigError, ModelFormatError, UnavailableError
from fusedx.engine.manifest import PRECISIONS
from fusedx.kernels import native_module
from fusedx.kernels.conditional_layer import packed
from fusedx.verify import TOLERANCE, relative_error

sys.path.insert(0, str(Path(__file__).parents[1] / "compiler"))
import tiny  # noqa: E402
from fusedx.cli.info import _cpu  # noqa: E402
from fusedx.compiler import compile_checkpoint  # noqa: E402
from fusedx.demo import MODEL as DEMO  # noqa: E402

LOW = tuple(p for p in PRECISIONS if p != "fp32")
FAMILIES = ("v1", "v2")
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(fusedx.__file__).parents[1])}  # the package that is tested, installed or not
needs_native = pytest.mark.skipif(native_module.native is None, reason="the native module is not built")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """(family, precision) -> folder, made once."""
    folder = tmp_path_factory.mktemp("models")
    sources = {"v1": tiny.write_v1(folder / "v1"), "v2": tiny.write_v2(folder / "last.ckpt")}
    made: dict[tuple[str, str], Path] = {}

    def model(family: str, precision: str) -> Path:
        if (family, precision) not in made:
            path = folder / f"{family}-{precision}.fusedx"
            made[family, precision] = compile_checkpoint(sources[family], path, precision=precision).path
        return made[family, precision]

    return model


def encoded(m, images: int = 3) -> dict[str, np.ndarray]:
    rng, n = np.random.default_rng(0), m.manifest.network
    states = ("y_global", "y_local") if n.family == "diffmic-v2" else ("prior",)
    feature = "fused_feature" if n.family == "diffmic-v2" else "feature"
    shape = (images, n.num_classes)
    return {s: rng.random(shape, np.float32) for s in states} | {feature: rng.standard_normal((images, n.feature_dim), np.float32)}


def noise(m, draws: int = 2, images: int = 3) -> np.ndarray:
    n = m.manifest.network
    rows = 2 if n.family == "diffmic-v2" else m.manifest.schedule.steps
    return np.random.default_rng(1).standard_normal((rows, draws, images, n.num_classes))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_holds_what_its_manifest_says(family, precision, compiled):
    model = open_model(compiled(family, precision))
    n, steps = model.manifest.network, model.manifest.schedule.steps
    arrays = safetensors.read(model.path / "denoiser.safetensors")
    assert model.manifest.precision == precision
    assert {name: (a.shape, safetensors.dtype_name(a)) for name, a in arrays.items()} == stored_shapes(n, steps, precision)
    assert ("weight2" in arrays) == (precision == "fp32")


@pytest.mark.parametrize("precision", LOW)
@pytest.mark.parametrize("family", FAMILIES)
def test_packed_on_load_is_what_would_be_compiled(family, precision, compiled):
    stored = open_model(compiled(family, precision)).stored_denoiser()
    on_load = open_model(compiled(family, "fp32")).stored_denoiser().in_precision(precision)
    assert set(stored.arrays) == set(on_load.arrays)
    for name, array in stored.arrays.items():
        assert array.tobytes() == on_load.arrays[name].tobytes(), name


@pytest.mark.parametrize("precision", LOW)
@pytest.mark.parametrize("outputs, inputs", [(1, 1), (64, 64), (257, 63), (300, 130), (512, 65)])
def test_packing_in_blocks_is_packing_at_once(precision, outputs, inputs):
    weight = np.random.default_rng(2).standard_normal((outputs, inputs)).astype(np.float32)
    blocks, whole = pack_rows(weight, precision), packed.pack(weight, precision)
    assert {n: (a.shape, safetensors.dtype_name(a)) for n, a in blocks.items()} == packed.shapes(precision, outputs, inputs)
    assert all(blocks[name].tobytes() == whole[name].tobytes() for name in whole) and set(blocks) == set(whole)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("family", FAMILIES)
@needs_native
def test_backends_agree(family, precision, compiled):
    """The readable chain on unpacked weights and the compiled one, which in int8 and int4 also rounds activations."""
    model = open_model(compiled(family, precision))
    stored, schedule = model.stored_denoiser(), model.manifest.schedule
    chains = [open_chains(name, stored, schedule) for name in ("native", "python")]
    assert [c.precision for c in chains] == [precision] * 2 and [c.name for c in chains] == ["native", "python"]
    got, expected = (c.run(encoded(model), noise(model), keep=True) for c in chains)
    assert got.states.shape == expected.states.shape and got.scores.shape == expected.scores.shape
    tolerance = 1e-5 if precision in ("fp32", "bf16", "fp16") else TOLERANCE["cpu", "int8"]
    assert relative_error(got.states, expected.states) < tolerance
    ends = [c.run(encoded(model), noise(model), keep=False) for c in chains]
    for kept, end in zip((got, expected), ends, strict=True):
        assert kept.states[[0, -1]].tobytes() == end.states.tobytes() and kept.scores.tobytes() == end.scores.tobytes()
    eps = [c.eps(encoded(model), kept.states[0, 0], 1) for c, kept in zip(chains, (got, expected), strict=True)]
    assert relative_error(*eps) < 10 * tolerance


@pytest.mark.parametrize("precision", LOW)
@needs_native
def test_loaded_in_a_precision(precision, compiled):
    picture = np.random.default_rng(3).integers(0, 256, (60, 70, 3), np.uint8)
    packed_model, on_load = fusedx.load(compiled("v1", precision)), fusedx.load(compiled("v1", "fp32"), precision=precision)
    for model in (packed_model, on_load):
        assert model.runtime["precision"] == precision and model.runtime["backend"] == "native"
    one, two = packed_model.classify(picture, draws=3), on_load.classify(picture, draws=3)
    assert one.scores.tobytes() == two.scores.tobytes()
    assert one.provenance["precision"] == precision and one.provenance["encoder_precision"] == "fp32"


@pytest.mark.parametrize("own", LOW)
def test_a_packed_model_runs_in_its_own_precision_alone(own, compiled):
    for other in PRECISIONS:
        if other != own:
            with pytest.raises(UnavailableError, match=rf"'{other}' is not available: .* compiled in {own}. There is: {own}"):
                fusedx.load(compiled("v1", own), precision=other, encoder="reference")
    assert fusedx.load(compiled("v1", own), precision=own, encoder="reference", backend="python").runtime["precision"] == own


def test_what_no_processor_has(compiled):
    for name in ("fp8", "float32", "", "INT8"):
        with pytest.raises(UnavailableError, match="there is: fp32, bf16, fp16, int8, int4"):
            fusedx.load(compiled("v1", "fp32"), precision=name)
    with pytest.raises(UnavailableError, match="there is: fp32, bf16, fp16, int8, int4"):
        compile_checkpoint("/nowhere", "/nowhere/x", precision="fp8")


def test_a_gpu_wants_fp32(compiled):
    with pytest.raises(UnavailableError, match="needs a model compiled in fp32"):
        open_model(compiled("v1", "int8")).denoiser()
    assert open_model(compiled("v1", "fp32")).denoiser().weight2.dtype == np.float32


def test_weights_that_a_format_cannot_hold(compiled):
    stored = open_model(compiled("v1", "fp32")).stored_denoiser()
    weight = stored.arrays["weight3"].copy()
    weight[3, 2] = 1e6
    large = dataclasses.replace(stored, arrays=stored.arrays | {"weight3": weight})
    with pytest.raises(ConfigError, match="does not fit fp16: weight3: .*65504"):
        large.in_precision("fp16")
    assert np.isfinite(large.in_precision("bf16").tables().weight3).all()


@pytest.mark.parametrize("precision, name, value", [("bf16", "weight2.panels", 0x7F80), ("fp16", "weight3.panels", np.nan),
                                                    ("int8", "weight2.scale", np.inf), ("int4", "weight3.scale", np.nan)])  # fmt: skip
def test_not_finite_packed_weights_are_named(precision, name, value, compiled, tmp_path):
    path = Path(shutil.copytree(compiled("v1", precision), tmp_path / "m.fusedx"))
    arrays = {n: a.copy() for n, a in safetensors.read(path / "denoiser.safetensors").items()}
    arrays[name].reshape(-1)[0] = value  # a weight, not padding
    safetensors.write(arrays, path / "denoiser.safetensors")
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"]["denoiser.safetensors"] = dataclasses.asdict(file_entry(path / "denoiser.safetensors"))
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelFormatError, match=f"{name} holds NaN or infinite"):
        open_model(path)


def test_the_chain_runs_on_the_coefficients_of_the_file(compiled):
    """Not on derived ones, whose last bit may be another machine's."""
    model = open_model(compiled("v1", "fp32"))
    stored = model.stored_denoiser()
    table = stored.coefficients.copy()
    table[:, 0] *= 1 + 1e-7
    changed = StoredDenoiser(stored.network, "fp32", stored.arrays | {"coefficients": table})
    for name in ("python", "native") if native_module.native else ("python",):
        runs = (open_chains(name, s, model.manifest.schedule).run(encoded(model), noise(model), keep=False) for s in (stored, changed))
        own, other = runs
        assert 0 < relative_error(other.scores, own.scores) < 1e-3


def test_derived_coefficients_are_the_files(compiled):
    model = open_model(compiled("v2", "fp32"))
    stored, m = model.stored_denoiser(), model.manifest
    host = open_chains("python", stored, m.schedule)
    derived = HostChains(m.network, m.schedule, host.denoiser, stored.precision)
    assert derived.run(encoded(model), noise(model), keep=False).scores.tobytes() == host.run(
        encoded(model), noise(model), keep=False
    ).scores.tobytes()


@needs_native
def test_a_run_that_is_interrupted_leaves_the_model_usable(compiled):
    """Ctrl-C while other threads run the same chains; the handler's exception comes out, later runs have the same bits."""
    model = open_model(compiled("v1", "fp32"))
    chains = open_chains("native", model.stored_denoiser(), model.manifest.schedule)
    inputs, z = encoded(model, 64), noise(model, 40, 64)
    expected = chains.run(inputs, z, keep=False).scores.tobytes()
    before = signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    interrupted = 0
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.15)
        others = [threading.Thread(target=lambda: chains.run(inputs, z, keep=False)) for _ in range(2)]
        for other in others:
            other.start()
        try:
            for _ in range(10_000):
                chains.run(inputs, z, keep=False)
        except KeyboardInterrupt:
            interrupted += 1
        for other in others:
            other.join()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted == 1
    assert chains.run(inputs, z, keep=False).scores.tobytes() == expected


def test_ctrl_c_after_models_were_closed_in_the_order_they_were_opened(compiled):
    """OpenVINO's plugin lends the thread a signal stack; a stale one would end the process at the next signal."""
    code = """
import gc, os, signal, sys, fusedx
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that starts this in the background has it ignored
first, second = (fusedx.load(sys.argv[1], encoder="openvino") for _ in range(2))
del first; gc.collect()
del second; gc.collect()
try:
    os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""
    command = [sys.executable, "-c", code, compiled("v1", "fp32")]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_recorded_answer_is_given_again(precision, compiled):
    model = fusedx.load(compiled("v1", precision))
    record = model.manifest.self_test
    assert record is not None and record.tolerance == self_test.TOLERANCE[precision]
    assert abs(sum(record.probabilities) - 1) < 1e-5
    assert self_test.difference(model) < 1e-6
    assert self_test.difference(fusedx.load(compiled("v1", precision), backend="python")) < record.tolerance


def test_the_picture_of_the_self_test():
    picture = self_test.image()
    assert picture.shape == (224, 224, 3) and picture.dtype == np.uint8
    for r, c, ch in ((0, 0, 0), (223, 223, 2), (100, 7, 1)):
        assert picture[r, c, ch] == (3 * r + 5 * c + 40 * ch + ((r * c) >> 4)) & 255


def test_no_openvino_no_record(compiled, monkeypatch):
    monkeypatch.setattr(self_test, "encoders", lambda: {"openvino": "openvino is not installed"})
    assert self_test.record(open_model(compiled("v1", "fp32"))) == (None, "no self test was recorded: openvino is not installed")


@needs_native
def test_wider_than_integers_can_be():
    """int8 and int4 end at 65536 inputs; a manifest that says otherwise is refused, and `info` of a wide model in fp32 leaves them out."""
    model = open_model(DEMO)
    wide = dataclasses.replace(model.manifest, network=dataclasses.replace(model.manifest.network, feature_dim=65537))
    with pytest.raises(ModelFormatError, match="at most 65536 inputs"):
        StoredDenoiser.from_arrays({}, wide.network, wide.schedule, "int8")
    assert "fp16" in _cpu(wide) and "int" not in _cpu(wide)


def test_a_packed_model_never_becomes_float32(tmp_path):
    """Resident memory of loading int8: the packed matrices, and no float32 copy of them."""
    code = """
import re, sys, numpy as np
from fusedx.engine.denoiser import StoredDenoiser, stored_shapes
from fusedx.engine.backends import open_chains
from fusedx.engine.schedule import Schedule, chain_program
from fusedx.engine import safetensors
from fusedx.engine.manifest import Network
from pathlib import Path
f, c, schedule = 4096, 2, Schedule("linear", 1e-4, 0.02, 1000, 2)
network = Network("diffmic-v1", c, f, "resnet50", "resnet18", 64)
if sys.argv[2] == "make":
    small = {name: np.zeros(shape, "f4") for name, (shape, dtype) in stored_shapes(network, 2, "int8").items() if dtype == "F32"}
    large = {f"weight{k}.panels": np.ones((f // 64, f // 4, 64, 4), np.int8) for k in (2, 3)}
    safetensors.write(small | large | {"coefficients": chain_program(schedule, v2=False).coefficients}, Path(sys.argv[1]))
else:
    def peak():  # bytes; what getrusage says is inherited from the process that started this one
        return int(re.search(r"VmHWM:\\s*([0-9]+) kB", Path("/proc/self/status").read_text())[1]) * 1024
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = peak()
    stored = StoredDenoiser.from_arrays(safetensors.read(Path(sys.argv[1])), network, schedule, "int8")
    chains = open_chains("native", stored, schedule)
    chains.run({"prior": np.ones((1, c), "f4"), "feature": np.ones((1, f), "f4")}, np.ones((2, 1, 1, c)), keep=False)
    print(peak() - before)
"""
    path = tmp_path / "t.safetensors"
    command = [sys.executable, "-c", code, str(path)]
    subprocess.run([*command, "make"], env=ENVIRONMENT, check=True)
    grown = int(subprocess.run([*command, "load"], env=ENVIRONMENT, check=True, capture_output=True, text=True).stdout)
    # int8; one and a half times of it while the last of them lies in the mapped file and in its copy; 134 MB in float32
    matrices = 2 * 4096 * 4096
    assert grown < 1.9 * matrices, grown / matrices
