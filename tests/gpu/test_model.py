"""The GPU engine against the original authors' outputs, against itself uncaptured, and as the documentation says it behaves."""

from __future__ import annotations

import numpy as np
import pytest
from gpu_models import BACKENDS, bits, fresh, opened, pictures

import fusedx
from fusedx import golden
from fusedx.kernels.prior_tail import region_scores
from fusedx.verify import _by_golden_name, relative_error
from tolerances import GOLDEN, GPU_TIE

SMALL = ("v1-small", "v1-noise-prior", "v2-small")
FULL = ("v1-aptos", "v1-isic", "v2-placental")
#: Arrays of a golden case that do not belong to images.
_SHARED = ("betas", "timesteps", "trajectory_stride")


def traced(model: fusedx.Model, case: golden.GoldenCase) -> dict[str, np.ndarray]:
    """Every golden array as this model computes it."""
    return _by_golden_name(model._engine, model.trace(case.x, case.noise), case.expected)


def of_images(name: str, array: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The part of a golden array that belongs to these images: first dimension, of a trajectory the second."""
    if name in _SHARED:
        return array
    return array[:, chosen] if name == "trajectory" else array[chosen]


def errors(got: dict[str, np.ndarray], case: golden.GoldenCase, chosen: np.ndarray) -> dict[str, float]:
    names = [name for name in case.expected if name != "trajectory_stride"]
    return {n: relative_error(of_images(n, got[n], chosen), of_images(n, case.expected[n], chosen)) for n in names}


def within(found: dict[str, float], tolerance: float) -> None:
    wrong = {name: error for name, error in found.items() if not error <= tolerance}
    assert not wrong, f"beyond {tolerance}: {wrong}"


def labels(arrays: dict[str, np.ndarray]) -> list[int]:
    return arrays["y_final" if "y_final" in arrays else "prediction"].argmax(axis=-1).tolist()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", SMALL + FULL)
def test_golden_case_in_fp32(golden_model, golden_case, name, backend):
    case = golden_case(name)
    got = traced(fresh(golden_model(name), "fp32", backend, graphs=False), case)
    within(errors(got, case, np.arange(len(case.x))), GOLDEN["cuda", "fp32"])
    assert labels(got) == labels(case.expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp8"])
@pytest.mark.parametrize("name", [*SMALL, "v1-isic", "v2-placental"])
def test_golden_case_in_low_precision(golden_model, golden_case, name, precision, backend):
    """Labels, and every array of the images whose regions are the golden ones; others must be ties, and bf16 may have none."""
    case = golden_case(name)
    got = traced(fresh(golden_model(name), precision, backend, graphs=False), case)
    same = (got["patch_locations"] == case.expected["patch_locations"]).all(axis=(1, 2))
    assert same.any() and (same.all() or precision == "fp16")
    for i in np.flatnonzero(~same):
        assert regions_are_tied(case.expected["saliency"][i], got["patch_locations"][i], case.expected["patch_locations"][i])
    within(errors(got, case, np.flatnonzero(same)), GOLDEN["cuda", precision])
    assert labels(got) == labels(case.expected)


def regions_are_tied(saliency: np.ndarray, got: np.ndarray, expected: np.ndarray) -> bool:
    """Whether the regions [6,2] in pixels have, in order, the scores of the expected ones to GPU_TIE."""
    scores = region_scores(saliency[None]).reshape(7, 7)
    a, b = (scores[tuple((places.astype(int) // 32).T)] for places in (got, expected))
    return bool(np.all(np.abs(a - b) <= GPU_TIE * np.abs(b)))


@pytest.mark.parametrize("name", ["v1-small", "v2-small"])
def test_captured_golden_case(golden_model, golden_case, name):
    """The encoder compiled and replayed, the chain replayed: what a user gets by default."""
    case = golden_case(name)
    within(errors(traced(opened(golden_model(name)), case), case, np.arange(len(case.x))), GOLDEN["cuda", "fp32"])


def test_other_noise_is_noticed(golden_model, golden_case):
    """The negative control of the comparisons above."""
    case, model = golden_case("v1-small"), opened(golden_model("v1-small"))
    y = model.trace(case.x, case.noise * 1.01)["y_final"]
    assert relative_error(y, case.expected["y_final"]) > GOLDEN["cuda", "fp32"]


def test_tf32_of_the_program_around_it_changes_nothing(golden_model, golden_case):
    import torch

    case = golden_case("v1-small")
    model = opened(golden_model("v1-small"), graphs=False)
    plain = model.trace(case.x, case.noise)
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        allowed = model.trace(case.x, case.noise)
        assert torch.backends.cuda.matmul.allow_tf32 and torch.backends.cudnn.allow_tf32
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
    assert all(allowed[name].tobytes() == plain[name].tobytes() for name in plain)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp8"])
@pytest.mark.parametrize("name", ["v1-small", "v2-small"])
def test_a_captured_chain_has_the_bits_of_its_launches(golden_model, golden_case, name, precision):
    case = golden_case(name)
    noise = np.random.default_rng(0).standard_normal((len(case.noise), 5, *case.noise.shape[1:]))
    captured, eager = (fresh(golden_model(name), precision, graphs=graphs)._engine.chains for graphs in (True, False))
    for keep in (True, False, True):  # the third replays what the first captured
        a, b = (chains.run(case.expected, noise, keep=keep) for chains in (captured, eager))
        assert a.states.tobytes() == b.states.tobytes() and a.scores.tobytes() == b.scores.tobytes()


@pytest.mark.parametrize("batch", [1, 3])
def test_a_captured_encoder_has_the_bits_of_its_launches(golden_model, golden_case, batch):
    """The same operators in both; what a compiler fuses rounds otherwise and is only close."""
    import torch

    from fusedx.engine.compiled import open_model
    from fusedx.engine.cuda.context import Context
    from fusedx.engine.cuda.encoder import DeviceEncoder
    from fusedx.engine.cuda.network import open_network

    compiled, x = open_model(golden_model("v1-small")), golden_case("v1-small").x[:batch]

    def outputs(capture: bool, compiler: str | None) -> dict[str, np.ndarray]:
        context = Context(torch.device("cuda", 0), capture=capture)
        with context.working():
            network, names = open_network(compiled.encoder, context.device, "fp32", compiler=compiler)
            encoder = DeviceEncoder("torch", network, names, context, "fp32")
            encoder.run(x[::-1])
            return dict(encoder.run(x))

    captured, eager, fused = outputs(True, None), outputs(False, None), outputs(True, "inductor")
    assert all(captured[name].tobytes() == eager[name].tobytes() for name in eager)
    within({name: relative_error(fused[name], eager[name]) for name in eager}, GOLDEN["cuda", "fp32"])
    assert fused["patch_locations"].tolist() == eager["patch_locations"].tolist()


@pytest.mark.parametrize("graphs", [True, False])
def test_results_are_copies(small_model, graphs):
    """A graph's own buffers are overwritten by its next replay; nothing that was handed out may be."""
    model = opened(small_model, graphs=graphs)
    a, b = pictures(2)
    first = model.classify(a)
    x = np.stack([model.preprocess(model.read(picture)) for picture in (a, b)])
    trace = model.trace(x[:1])
    before = bits(first), {name: array.tobytes() for name, array in trace.items()}
    model.classify(b)
    model.trace(x[1:])
    assert (bits(first), {name: array.tobytes() for name, array in trace.items()}) == before


@pytest.mark.parametrize("backend", BACKENDS)
def test_warm_up_prepares_all_that_its_batches_need(small_model, backend):
    model, seen = fresh(small_model, "bf16", backend), []
    assert not model.ready
    model.warmup([1, 3], draws=2, progress=lambda *step: seen.append(step))
    assert model.ready
    assert [what for *_, what in seen] == ["encoder, batch 1", "chain, batch 1", "encoder, batch 3", "chain, batch 3", "ready"]
    assert [done for done, *_ in seen] == [0, 1, 2, 3, 4] and {total for _, total, _ in seen} == {4}
    engine = model._engine
    before = engine.encoder.captured(), engine.chains.captured()
    model.classify(pictures(1)[0], draws=2)
    model.classify(pictures(3), draws=2)
    assert (engine.encoder.captured(), engine.chains.captured()) == before


def test_the_runtime_says_what_computes(small_model):
    runtime = opened(small_model, "bf16").runtime
    assert runtime == {"device": "cuda:0", "precision": "bf16", "encoder": "torch", "encoder_precision": "bf16", "backend": "triton"}
    assert opened(small_model, "bf16").classify(pictures(1)[0]).provenance["device"] == "cuda:0"
