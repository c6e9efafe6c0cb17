"""Class Chain against the readable loops of engine/sampler: the same bits, in any company, on any instruction set and threads."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bits import on_any_number_of_threads
from fusedx.engine import sampler
from fusedx.engine.backends import Condition, constant_half
from fusedx.engine.backends.python import PythonDenoiser
from fusedx.engine.chain_runner import HostChains
from fusedx.engine.denoiser import DenoiserTables
from fusedx.engine.schedule import Schedule, chain_program
from fusedx.kernels import conditional_layer as layer
from fusedx.kernels import native_module
from fusedx.kernels.conditional_layer import packed

pytestmark = pytest.mark.skipif(native_module.native is None, reason=f"fusedx._native is not built: {native_module.reason}")
ISAS = native_module.native.isas() if native_module.native else ()
PRECISIONS = packed.FORMATS
PATH = os.pathsep.join(str(Path(__file__).resolve().parents[2] / folder) for folder in ("python", "tests", "tests/engine"))


def tables(features: int, classes: int, steps: int, family: str = "posterior", seed: int = 0) -> dict[str, np.ndarray]:
    """A denoiser.safetensors in float32, of random numbers."""
    rng = np.random.default_rng([seed, features, classes, steps])

    def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
        return (rng.standard_normal(shape) * scale).astype(np.float32)

    arrays = {"weight_y": normal(features, classes), "weight_p": normal(features, classes)}
    arrays |= {"weight4": normal(classes, features, scale=0.1 / features**0.5)}
    arrays |= {name: normal(features, features, scale=features**-0.5) for name in ("weight2", "weight3")}
    arrays |= {"bias4": normal(classes)}
    arrays |= {f"{kind}{k}": normal(steps, features) for k in (1, 2, 3) for kind in ("scale", "shift")}
    arrays["coefficients"] = np.ascontiguousarray(chain_program(schedule(steps), v2=family == "ddim").coefficients)
    return arrays


def schedule(steps: int) -> Schedule:
    return Schedule("linear", 1e-4, 0.02, 1000, steps)


def in_precision(arrays: dict[str, np.ndarray], precision: str) -> dict[str, np.ndarray]:
    if precision == "fp32":
        return arrays
    rest = {name: array for name, array in arrays.items() if name not in ("weight2", "weight3")}
    parts = {name: packed.pack(arrays[name], precision) for name in ("weight2", "weight3")}
    return rest | {f"{name}.{part}": array for name, of in parts.items() for part, array in of.items()}


def made(arrays: dict, precision: str = "fp32", family: str = "posterior", noise_prior: bool = False, isa: str = ""):
    return native_module.native.Chain(in_precision(arrays, precision), precision, family, noise_prior, isa)


def inputs(arrays: dict[str, np.ndarray], family: str, images: int, draws: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    features, classes = arrays["weight_y"].shape
    rng = np.random.default_rng([features, classes, images, draws])
    feature = rng.standard_normal((images, features)).astype(np.float32)
    if family == "ddim":
        ends = {name: rng.standard_normal((images, classes)) for name in ("y_global", "y_local")}
        return ends | {"fused_feature": feature}, rng.random((2, draws, images, classes))
    noise = rng.standard_normal((len(arrays["scale1"]), draws, images, classes))
    return {"prior": rng.random((images, classes)), "feature": feature}, noise


class LayerDenoiser:
    """The denoiser by single calls of the layer kernel; what Chain must equal bit by bit."""

    name = "layers"

    def __init__(self, arrays: dict[str, np.ndarray], precision: str) -> None:
        self.arrays, (self.first, self.second, self.third) = arrays, (
            layer.pack(arrays["weight_y"]), layer.pack(arrays["weight2"], precision), layer.pack(arrays["weight3"], precision))

    def condition(self, prior: np.ndarray, feature: np.ndarray) -> Condition:
        return Condition(constant_half(self.arrays["weight_p"], prior, np.dtype(np.float32)), np.ascontiguousarray(feature))

    def eps(self, y: np.ndarray, step: np.ndarray, condition: Condition, entry: np.ndarray) -> np.ndarray:
        a = self.arrays
        constant = {"h": condition.constant, "f": condition.feature, "image": entry}
        u = layer.run(y.astype(np.float32), self.first, a["scale1"], a["shift1"], step, **constant)
        u = layer.run(u, self.second, a["scale2"], a["shift2"], step)
        last = layer.pack_projection(a["weight4"]), a["bias4"].astype(np.float64)
        return layer.run_projected(u, self.third, a["scale3"], a["shift3"], step, *last)


def readable(
    denoiser, arrays: dict, family: str, encoded: dict[str, np.ndarray], noise: np.ndarray, noise_prior: bool = False,
    precision: str | None = None,
) -> sampler.Chains:  # fmt: skip
    name = "diffmic-v2" if family == "ddim" else "diffmic-v1"
    shape = SimpleNamespace(family=name, noise_prior=noise_prior)  # a Network has at least two classes
    return HostChains(shape, schedule(len(arrays["scale1"])), denoiser, precision).run(encoded, noise, keep=True)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("family, noise_prior", [("posterior", False), ("posterior", True), ("ddim", False)])
@pytest.mark.parametrize("features, classes, steps, images, draws", [
    (1, 1, 1, 1, 1), (33, 2, 3, 2, 2), (100, 9, 5, 3, 1), (256, 5, 10, 1, 1), (257, 17, 4, 7, 41),
])
def test_bits_are_those_of_the_readable_loops(precision, family, noise_prior, features, classes, steps, images, draws):
    """The last case is more rows than go through a step together, and blocks that end within a draw."""
    arrays = tables(features, classes, steps, family)
    encoded, noise = inputs(arrays, family, images, draws)
    expected = readable(LayerDenoiser(arrays, precision), arrays, family, encoded, noise, noise_prior, precision)
    chain = made(arrays, precision, family, noise_prior)
    scores, states, *_ = chain.run(encoded, noise, keep=True)
    assert states.shape == expected.states.shape and scores.shape == expected.scores.shape
    wrong = [i for i in range(len(states)) if states[i].tobytes() != expected.states[i].tobytes()]
    assert not wrong, f"states {wrong[:5]} of {len(states)} differ"
    assert scores.tobytes() == expected.scores.tobytes()
    ends = chain.run(encoded, noise)
    assert ends[0].tobytes() == scores.tobytes() and ends[1].tobytes() == states[[0, -1]].tobytes()


@pytest.mark.parametrize("family", ["posterior", "ddim"])
def test_fp32_is_near_the_same_chain_in_double(family):
    arrays = tables(128, 5, 20 if family == "posterior" else 10, family)
    encoded, noise = inputs(arrays, family, 3, 2)
    wide = DenoiserTables(**{name: array.astype(np.float64) for name, array in arrays.items() if name != "coefficients"})
    expected = readable(PythonDenoiser(wide), arrays, family, encoded, noise)
    scores, *_ = made(arrays, family=family).run(encoded, noise)
    assert np.abs(scores - expected.scores).max() / np.abs(expected.scores).max() < 1e-5


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("family", ["posterior", "ddim"])
def test_every_instruction_set_gives_the_same_bits(precision, family):
    arrays = tables(130, 7, 5, family)
    encoded, noise = inputs(arrays, family, 3, 4)
    results = {isa: made(arrays, precision, family, isa=isa).run(encoded, noise)[0].tobytes() for isa in ISAS}
    assert len(set(results.values())) == 1, {isa: hash(bits) for isa, bits in results.items()}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("family", ["posterior", "ddim"])
def test_an_image_and_a_draw_have_the_same_bits_in_any_company(precision, family):
    arrays = tables(200, 5, 4, family)
    encoded, noise = inputs(arrays, family, 23, 17)
    chain = made(arrays, precision, family)
    scores, *_ = chain.run(encoded, noise)
    for image, draw in ((0, 0), (22, 16), (11, 3)):
        its_noise = np.ascontiguousarray(noise[:, draw : draw + 1, image : image + 1])
        alone, *_ = chain.run({n: a[image : image + 1] for n, a in encoded.items()}, its_noise)
        assert alone[0, 0].tobytes() == scores[draw, image].tobytes()
    order = np.random.default_rng(0).permutation(23)
    moved, *_ = chain.run({n: a[order] for n, a in encoded.items()}, np.ascontiguousarray(noise[:, :, order]))
    assert moved.tobytes() == np.ascontiguousarray(scores[:, order]).tobytes()


def test_the_number_of_threads_changes_no_bit():
    code = (
        "import hashlib, test_native_chain as t\n"
        "arrays = t.tables(1000, 5, 3); case = t.inputs(arrays, 'posterior', 3, 11)\n"
        "print([hashlib.sha256(t.made(arrays, p).run(*case)[0].tobytes()).hexdigest() for p in t.PRECISIONS])"
    )
    on_any_number_of_threads(code, Path(__file__).parent, "1", "2", "3", "4")


@pytest.mark.parametrize("family", ["posterior", "ddim"])
def test_eps_is_one_evaluation_of_the_denoiser(family):
    arrays = tables(70, 5, 6, family)
    encoded, noise = inputs(arrays, family, 300, 1)
    shape = (300, 6, 5) if family == "ddim" else (300, 5)
    y = np.random.default_rng(0).standard_normal(shape)
    denoiser = LayerDenoiser(arrays, "fp32")
    if family == "ddim":
        prior = sampler.dense_points(encoded["y_global"], encoded["y_local"]).reshape(-1, 5)
        condition = denoiser.condition(prior, np.repeat(encoded["fused_feature"], 6, axis=0))
    else:
        condition = denoiser.condition(encoded["prior"], encoded["feature"])
    rows = y.reshape(-1, 5)
    expected = denoiser.eps(rows, np.full(len(rows), 2, np.int32), condition, np.arange(len(rows), dtype=np.int32)).reshape(shape)
    assert made(arrays, family=family).eps(encoded, y, 2).tobytes() == expected.tobytes()


@pytest.mark.parametrize("family", ["posterior", "ddim"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_not_a_number_stays_in_its_row(precision, family):
    arrays = tables(128, 3, 4, family)
    encoded, noise = inputs(arrays, family, 4, 2)
    chain = made(arrays, precision, family)
    good, *_ = chain.run(encoded, noise)
    encoded["fused_feature" if family == "ddim" else "feature"][2, 7] = np.nan
    bad, *_ = chain.run(encoded, noise)
    assert np.isnan(bad[:, 2]).all()
    others = [0, 1, 3]
    assert np.ascontiguousarray(bad[:, others]).tobytes() == np.ascontiguousarray(good[:, others]).tobytes()


def test_several_threads_at_once():
    arrays = tables(700, 5, 6)
    chain, cases = made(arrays), [inputs(arrays, "posterior", images, 3) for images in (1, 2, 5)]
    expected, wrong = [chain.run(*case)[0].tobytes() for case in cases], []

    def work(i: int) -> None:
        for _ in range(10):
            if chain.run(*cases[i])[0].tobytes() != expected[i]:
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i % 3,)) for i in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert not wrong and not any(thread.is_alive() for thread in threads)


def test_the_arrays_may_go_away():
    arrays = tables(300, 5, 6)
    case = inputs(arrays, "posterior", 2, 2)
    expected = made(arrays).run(*case)[0].tobytes()
    copies = {name: array.copy() for name, array in arrays.items()}
    chain = made(copies)
    for name in ("weight_y", "weight2", "weight3", "weight4", "bias4"):
        copies[name][:] = np.nan  # these are copied; the others it keeps alive
    del copies
    assert chain.run(*case)[0].tobytes() == expected


LONG = """
import os, signal, sys, threading
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that starts this in the background has it ignored
import test_native_chain as t
arrays = t.tables(1500, 5, 250)
chain, case = t.made(arrays), t.inputs(arrays, 'posterior', 1, 64)
"""
INTERRUPTED = LONG + """
threading.Timer(1.0, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
try:
    for _ in range(100): chain.run(*case)
    print('never interrupted')
except KeyboardInterrupt:
    print('interrupted', chain.run(*t.inputs(arrays, 'posterior', 1, 1))[0].shape)
"""


def test_a_long_run_can_be_interrupted_and_the_chain_lives_on():
    environment = {**os.environ, "PYTHONPATH": PATH}
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "interrupted (1, 1, 5)", done.stderr


def test_a_process_that_is_ended_in_the_middle_of_a_run_ends_at_once():
    code = LONG + "print('go', flush=True)\nwhile True: chain.run(*case)"
    environment = {**os.environ, "PYTHONPATH": PATH}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "go\n"
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == -signal.SIGTERM


@pytest.mark.parametrize("precision, family", [("fp32", "posterior"), ("int8", "ddim")])
def test_weights_and_workspace_are_counted(precision, family):
    arrays = tables(640, 5, 10, family)
    chain = made(arrays, precision, family)
    matrices = 2 * 640 * 640 * (4 if precision == "fp32" else 1)
    assert matrices < chain.weight_bytes < 1.1 * matrices + 80_000 and chain.precision == precision and chain.isa in ISAS
    one, many, more = (chain.workspace_bytes(1, draws) for draws in (1, 1000, 100_000))
    assert one < many < 20e6 and many <= more < 1.1 * many  # many draws go through in blocks


def without(name):
    return lambda arrays: arrays.pop(name)


def changed(name, change):
    return lambda arrays: arrays.update({name: change(arrays[name])})


@pytest.mark.parametrize("change, complaint", [
    (without("weight_y"), "weight_y: missing"), (without("weight3"), "weight3: missing"),
    (without("coefficients"), "coefficients: missing"),
    (changed("weight_y", lambda x: x.astype(np.float64)), r"weight_y: expected float32\[\?, \?\]"),
    (changed("weight_y", lambda x: x[:, :0]), "weight_y: expected at least one element"),
    (changed("weight2", lambda x: x[1:]), r"weight2: expected float32\[70, 70\], got float32\[69, 70\]"),
    (changed("weight2", lambda x: x.T), r"weight2: expected float32\[70, 70\] with contiguous rows"),
    (changed("weight4", lambda x: x.T.copy()), r"weight4: expected float32\[5, 70\]"),
    (changed("bias4", lambda x: x[:-1]), r"bias4: expected float32\[5\]"),
    (changed("scale3", lambda x: x[:-1]), r"scale3: expected float32\[6, 70\]"),
    (changed("shift1", lambda x: x[:, ::-1]), r"shift1: expected float32\[6, 70\] contiguous"),
    (changed("coefficients", lambda x: x[:, :4].copy()), r"coefficients: expected float64\[6, 6\]"),
    (changed("coefficients", lambda x: x.astype(np.float32)), "coefficients: expected float64"),
    (lambda arrays: arrays.update({"weight2.scale": np.ones(70, np.float32)}), "weight2.scale: this format has none"),
])
def test_refused_tables_name_the_array(change, complaint):
    arrays = tables(70, 5, 6)
    change(arrays)
    with pytest.raises(ValueError, match=f"^{complaint}"):
        native_module.native.Chain(arrays, "fp32", "posterior")


@pytest.mark.parametrize("arguments, complaint", [
    (("fp8", "posterior"), "unknown weight format 'fp8'; there are: fp32, bf16, fp16, int8, int4"),
    (("fp32", "ddpm"), "family: expected posterior or ddim, got 'ddpm'"),
    (("bf16", "posterior"), "weight2.panels: missing"),
    (("fp32", "posterior", False, "sse9"), "isa=sse9 is not available on this machine; available: .*"),
])
def test_refused_settings(arguments, complaint):
    with pytest.raises(ValueError, match=f"^{complaint}"):
        native_module.native.Chain(tables(70, 5, 6), *arguments)


@pytest.mark.parametrize("name, change, complaint", [
    ("feature", lambda x: x.astype(np.float64), r"feature: expected float32\[\?, 70\]"),
    ("feature", lambda x: x[:0], "feature: expected at least one element"),
    ("feature", lambda x: x.tolist(), "feature: expected an array, got .*list"),
    ("prior", lambda x: x[:, 1:], r"prior: expected float64\[3, 5\]"),
    ("prior", lambda x: x.astype(np.float32), "prior: expected float64"),
    ("noise", lambda x: x[1:], r"noise: expected float64\[6, \?, 3, 5\]"),
    ("noise", lambda x: x[:, :0], "noise: expected at least one draw"),
    ("noise", lambda x: x[:, :, ::-1], "noise: expected .* contiguous"),
])
def test_refused_inputs_name_the_argument(name, change, complaint):
    arrays = tables(70, 5, 6)
    encoded, noise = inputs(arrays, "posterior", 3, 2)
    given = {**encoded, "noise": noise}
    given[name] = change(given[name])
    noise = given.pop("noise")
    with pytest.raises(ValueError, match=f"^{complaint}"):
        made(arrays).run(given, noise)


@pytest.mark.parametrize("step", [-1, 6, 1 << 40])
def test_a_step_outside_the_tables_is_refused(step):
    arrays = tables(70, 5, 6)
    encoded, _ = inputs(arrays, "posterior", 1, 1)
    with pytest.raises(ValueError, match=f"^step: expected 0 to 5, got {step}$"):
        made(arrays).eps(encoded, np.zeros((1, 5)), step)
