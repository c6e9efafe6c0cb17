"""A picture has the same bits alone and in any company, by every engine and in every precision."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from gpu_models import BACKENDS, PRECISIONS, bits, fresh, opened, pictures, quick

from fusedx.engine import sampler
from fusedx.engine.chain_runner import ChainRunner
from fusedx.prediction import Prediction

Classify = Callable[[Sequence[np.ndarray]], list[Prediction]]
#: Sizes at which another bucket, another form of a kernel or another launch begins; up to 40 images of 5 draws.
SIZES = (1, 2, 3, 4, 7, 9, 17, 26, 33, 40)


def company_matters(classify: Classify, needle: np.ndarray, sizes: Sequence[int]) -> list[str]:
    """Where the needle, at a random place in a random batch, differs from the needle alone; empty when nowhere."""
    rng, alone, hay = np.random.default_rng(7), bits(classify([needle])[0]), pictures(12, seed=9)
    found = []
    for size in sizes:
        place = int(rng.integers(size))
        batch = [hay[int(i)] for i in rng.integers(len(hay), size=size)]
        batch[place] = needle
        if bits(classify(batch)[place]) != alone:
            found.append(f"place {place} of {size}")
    return found


@pytest.mark.parametrize("draws", [1, 5, "auto"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_needle_in_random_batches(small_model, precision, backend, draws):
    model = quick(small_model, precision, backend)
    assert company_matters(lambda batch: model.classify(batch, draws=draws), pictures(1)[0], SIZES) == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_needle_among_the_points_of_maps(golden_model, backend):
    """DiffMIC-v2 has six rows an image."""
    model = opened(golden_model("v2-small"), "bf16", backend, graphs=False)
    assert company_matters(lambda batch: model.classify(batch, draws=3), pictures(1)[0], (1, 2, 3, 11)) == []


def test_a_denoiser_that_depends_on_its_batch_is_caught(small_model, monkeypatch):
    """The negative control: one unit in the last place, and only in company.

    ``batch_invariant=False`` is no control: it allows other bits and does not promise them, since a library is free to choose the
    same algorithm for two batch sizes.
    """
    model = fresh(small_model, graphs=False)
    chains = model._engine.chains
    run = chains.run

    def shared(encoded, noise: np.ndarray, *, keep: bool, plan: sampler.Plan) -> sampler.Chains:
        result = run(encoded, noise, keep=keep, plan=plan)
        factor = 1 + 2.0**-52 * (noise.shape[1] * noise.shape[2] > 1)
        return sampler.Chains(result.scores * factor, result.states)

    monkeypatch.setattr(chains, "run", shared)
    assert company_matters(model.classify, pictures(1)[0], (1, 2, 17)) == [f for f in _places((1, 2, 17)) if not f.endswith(" of 1")]


def _places(sizes: Sequence[int]) -> list[str]:
    rng = np.random.default_rng(7)
    found = []
    for size in sizes:
        found.append(f"place {int(rng.integers(size))} of {size}")
        rng.integers(12, size=size)
    return found


def test_without_the_promise_results_stay_close(small_model):
    """What batch_invariant=False gives up is bits, not answers; of two regions that are nearly equal it may choose the other."""
    images = pictures(9)
    strict, loose = (opened(small_model, "bf16", batch_invariant=flag).classify(images) for flag in (True, False))
    same = [(a, b) for a, b in zip(strict, loose, strict=True) if np.array_equal(a.patch_locations, b.patch_locations)]
    assert len(same) > len(images) // 2
    for a, b in same:
        assert np.linalg.norm(a.scores - b.scores) < 2e-2 * np.linalg.norm(a.scores)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_rows_of_full_width(golden_model, golden_case, precision, backend):
    """F 6144, and rows on both sides of every change of a kernel's form: a row's every state, at both ends and in the middle."""
    case, chains = golden_case("v1-aptos"), fresh(golden_model("v1-aptos"), precision, backend)._engine.chains
    prior, feature = case.expected["prior"][:1], case.expected["feature"][:1].astype(np.float32)
    needle = case.noise[:, :1]
    alone = states(chains, prior, feature, needle)
    rng = np.random.default_rng(3)
    for rows in (2, 8, 16, 17, 63, 129) if backend == "triton" else (2, 3, 8, 9, 17):
        noise = rng.standard_normal((len(needle), rows, needle.shape[-1]))
        priors, features = rng.dirichlet(np.ones(prior.shape[1]), rows), rng.standard_normal((rows, feature.shape[1])).astype(np.float32)
        for place in (0, rows // 2, rows - 1):
            noise[:, place], priors[place], features[place] = needle[:, 0], prior[0], feature[0]
        got = states(chains, priors, features, noise)
        for place in (0, rows // 2, rows - 1):
            wrong = np.flatnonzero((got[:, place] != alone[:, 0]).any(axis=-1))
            assert not wrong.size, f"row {place} of {rows} differs from step {wrong[0]}: {got[wrong[0], place]}, alone {alone[wrong[0], 0]}"


def states(chains: ChainRunner, prior: np.ndarray, feature: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """[S,B,C] of one draw an image."""
    return chains.run({"prior": prior, "feature": feature}, noise[:, None], keep=True).states[:, 0]


def test_the_same_call_twice_has_the_same_bits(small_model):
    """No atomics, no choice of algorithm by timing, and another model of the same file is the same."""
    image = pictures(1)[0]
    for precision in PRECISIONS:
        model, other = (fresh(small_model, precision, graphs=False) for _ in range(2))
        assert bits(model.classify(image)) == bits(model.classify(image)) == bits(other.classify(image))


@pytest.mark.parametrize("batch_size", [1, 7])
def test_streaming_has_the_bits_of_classify(small_model, batch_size):
    model, images = opened(small_model, "bf16"), pictures(9)
    assert [bits(p) for p in model.stream(images, batch_size)] == [bits(model.classify(image)) for image in images]


@pytest.mark.parametrize("images", [1, 3])
def test_draws_extend(small_model, images):
    """Draw k is the same chain whatever the number of draws, also where draws run in several launches."""
    model, batch = opened(small_model), pictures(images)
    few, many = model.classify(batch, draws=2), model.classify(batch, draws=5)
    for a, b, picture in zip(few, many, batch, strict=True):
        noise = model.noise(a.image_sha256, draws=5)
        x = model.preprocess(model.read(picture))[None]
        own = np.stack([model.trace(x, noise[:, k : k + 1])["y_final"][0] for k in range(5)])
        assert a.scores.tobytes() == own[:2].mean(axis=0).tobytes() and b.scores.tobytes() == own.mean(axis=0).tobytes()
