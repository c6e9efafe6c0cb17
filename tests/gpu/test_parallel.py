"""The parallel sampler on a GPU: the bits of the same GPU's sequential chain, whatever runs beside it; and how far its guesses reach."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from gpu_models import PRECISIONS, bits, fresh, opened, pictures

import fusedx
from fusedx.engine.chain_runner import ChainRunner
from fusedx.engine.sampler import SEQUENTIAL, Chains, Plan
from fusedx.verify import relative_error
from tolerances import GOLDEN, GPU_CHAIN

SMALL = ("v1-small", "v1-noise-prior", "v2-small")
FULL = ("v1-aptos", "v1-isic", "v2-placental")
PARALLEL = Plan(128)


def both(chains: ChainRunner, encoded: dict[str, np.ndarray], noise: np.ndarray, *, keep: bool = True) -> list[Chains]:
    """[sequential, parallel]."""
    return [chains.run(encoded, noise, keep=keep, plan=p) for p in (SEQUENTIAL, PARALLEL)]


def same(a: Chains, b: Chains) -> None:
    """Every state, and where the first one differs if not."""
    differs = (a.states != b.states) & ~(np.isnan(a.states) & np.isnan(b.states))
    where = np.argwhere(differs)
    assert not len(where), f"{len(where)} numbers differ, first at {where[0].tolist()} (state, draw, image, ..., class)"
    assert np.array_equal(a.scores, b.scores, equal_nan=True)


def draws(case, count: int, images: slice = slice(None)) -> np.ndarray:
    """The case's noise as the first draw, and random ones."""
    own = case.noise[:, images]
    noise = np.random.default_rng(0).standard_normal((len(own), count, *own.shape[1:]))
    noise[:, 0] = own
    return noise


@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", SMALL)
def test_the_bits_of_the_sequential_chain(golden_model, golden_case, name, precision, graphs):
    case, chains = golden_case(name), opened(golden_model(name), precision, graphs=graphs)._engine.chains
    for count in (1, 3):
        same(*both(chains, case.expected, draws(case, count)))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", FULL)
def test_full_width(golden_model, golden_case, name, precision):
    """And near the original authors' final state."""
    case, chains = golden_case(name), fresh(golden_model(name), precision)._engine.chains
    a, b = both(chains, case.expected, draws(case, 2))
    same(a, b)
    expected = case.expected["prediction" if name.startswith("v2") else "y_final"]
    assert relative_error(b.scores[0], expected) <= max(GOLDEN["cuda", precision], GPU_CHAIN[precision])


@pytest.mark.parametrize(("precision", "most"), [("bf16", 25), ("fp8", 25), ("fp32", 60)])
def test_guesses_reach_far(golden_model, golden_case, precision, most):
    """250 steps: 10 sweeps on a CPU's bf16 with this grid; a guess that never fits would take 250."""
    case, chains = golden_case("v1-isic"), fresh(golden_model("v1-isic"), precision)._engine.chains
    encoded = {name: case.expected[name][:1] for name in ("prior", "feature")}
    work = chains.run(encoded, draws(case, 1, slice(1)), keep=False, plan=PARALLEL).work
    assert 4 <= work.sweeps.max() <= most and work.rows.max() < 250 * 5


@pytest.mark.parametrize("rows", [1, 2, 5, 8, 17, 63])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp8"])
def test_any_number_of_chains(golden_model, golden_case, precision, rows):
    """Windows from 64 steps to 4; a chain's bits are its own in all of them."""
    case, chains = golden_case("v1-aptos"), opened(golden_model("v1-aptos"), precision)._engine.chains
    encoded = {name: case.expected[name][:1] for name in ("prior", "feature")}
    noise = np.random.default_rng(1).standard_normal((len(case.noise), rows, 1, case.noise.shape[-1]))
    a, b = both(chains, encoded, noise, keep=False)
    same(a, b)
    same(a, chains.run(encoded, noise, keep=False, plan=Plan(8)))


def test_kept_states_and_ends(golden_model, golden_case):
    case, chains = golden_case("v1-small"), opened(golden_model("v1-small"))._engine.chains
    kept, ends = (chains.run(case.expected, draws(case, 3), keep=keep, plan=PARALLEL) for keep in (True, False))
    assert kept.states[[0, -1]].tobytes() == ends.states.tobytes()
    residual = chains.residual(case.expected, draws(case, 3), kept.states)
    assert residual.shape == (3, len(case.x)) and residual.max() == 0.0
    kept.states[2] += 1e-6
    assert (chains.residual(case.expected, draws(case, 3), kept.states) > 0).all()


def test_a_chain_of_not_a_numbers_ends(golden_model, golden_case):
    """Beside chains that are sound."""
    case, chains = golden_case("v1-small"), opened(golden_model("v1-small"))._engine.chains
    encoded = {name: case.expected[name].astype(np.float32) for name in ("prior", "feature")}
    encoded["feature"][1] = np.nan
    a, b = both(chains, encoded, draws(case, 2))
    same(a, b)
    assert np.isnan(b.scores[:, 1]).all() and np.isfinite(b.scores[:, 0]).all()


def test_calls_of_both_kinds_share_a_model(golden_model, golden_case):
    """Graphs of both on one stream, from several threads."""
    case, chains = golden_case("v1-small"), opened(golden_model("v1-small"), "bf16")._engine.chains
    noises = [draws(case, count) for count in (1, 2, 3, 4)]
    expected = [chains.run(case.expected, noise, keep=True) for noise in noises]

    def work(turn: int) -> None:
        which = turn % len(noises)
        plan = PARALLEL if turn % 3 else SEQUENTIAL
        same(chains.run(case.expected, noises[which], keep=True, plan=plan), expected[which])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(24)))


@pytest.mark.parametrize("name", ["v1-small", "v2-small"])
def test_predictions(golden_model, name):
    model, images = opened(golden_model(name), "bf16"), pictures(5)
    sequential, parallel = (model.classify(images, draws=3, sampler=kind) for kind in ("sequential", "parallel"))
    assert [bits(p) for p in parallel] == [bits(p) for p in sequential]
    assert [bits(p) for p in model.classify(images, draws=3)] == [bits(p) for p in sequential]
    assert bits(model.classify(images[3], draws=3, sampler="parallel")) == bits(parallel[3])
    assert 0 < parallel[0].timing["sweeps"] < sequential[0].timing["sweeps"] or name == "v2-small"
    assert parallel[0].timing["sequential_steps"] == 0


def test_a_trace_carries_its_certificate(golden_model, golden_case):
    case, model = golden_case("v1-small"), opened(golden_model("v1-small"))
    plain, trace = model.trace(case.x, case.noise), model.trace(case.x, case.noise, sampler="parallel")
    assert all(trace[key].tobytes() == plain[key].tobytes() for key in plain)
    assert not trace["residual"].any() and (trace["sweeps"] <= 20).all()


def test_warm_up_prepares_the_sampler_that_will_run(golden_model):
    model = fusedx.load(golden_model("v1-small"), "cuda", "bf16", "triton", encoder="torch-eager", graphs=True, sampler="parallel")
    model.warmup([2])
    made = set(model._engine.chains._made)
    model.classify(pictures(2))
    assert set(model._engine.chains._made) == made and {window for _, window, _ in made} == {32}


def test_the_other_backend_says_what_to_use(small_model):
    model = opened(small_model, "bf16", "persistent")
    with pytest.raises(fusedx.ConfigError, match="backend='triton'"):
        model.classify(pictures(1)[0], sampler="parallel")


def test_without_batch_invariance_results_stay_close(golden_model, golden_case):
    case, chains = golden_case("v1-small"), opened(golden_model("v1-small"), "bf16", batch_invariant=False)._engine.chains
    a, b = both(chains, case.expected, draws(case, 1))
    assert relative_error(b.scores, a.scores) < 2e-2
