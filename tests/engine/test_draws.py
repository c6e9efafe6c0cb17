"""Draws, their error and the start of a chain, through models and engines."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import fusedx
from fusedx.engine.backends import Condition, Denoiser
from fusedx.engine.chain_runner import HostChains
from fusedx.engine.limits import MAX_DRAWS
from fusedx.engine.manifest import Network
from fusedx.engine.noise import started
from fusedx.engine.sampler import SEQUENTIAL, Plan
from fusedx.engine.sampling import Sampler, Sampling
from fusedx.engine.schedule import Schedule, posterior_coefficients

sys.path.insert(0, str(Path(__file__).parents[1] / "compiler"))

PARALLEL = Sampler("parallel", rows=64)


class Counting:
    """A denoiser that counts its evaluations and their rows."""

    def __init__(self, inner: Denoiser) -> None:
        self.name, self._inner = inner.name, inner
        self.rows: list[int] = []

    def condition(self, prior: np.ndarray, feature: np.ndarray) -> Condition:
        return self._inner.condition(prior, feature)

    def eps(self, y: np.ndarray, step: np.ndarray, condition: Condition, entry: np.ndarray) -> np.ndarray:
        self.rows.append(len(y))
        return self._inner.eps(y, step, condition, entry)


@pytest.fixture
def model(small_model: Path) -> fusedx.Model:
    model = fusedx.load(small_model, backend="python")
    model._engine.chains.denoiser = Counting(model._engine.chains.denoiser)
    return model


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (60, 80, 3), dtype=np.uint8)


def rows(model: fusedx.Model) -> list[int]:
    """What the denoiser was asked since the last time."""
    asked = model._engine.chains.denoiser.rows
    model._engine.chains.denoiser.rows = []
    return asked


def test_many_draws_cost_rows_and_no_evaluations(model: fusedx.Model, picture: np.ndarray) -> None:
    steps = model.manifest.schedule.steps
    one = model.classify(picture, sampler="sequential")
    assert rows(model) == [1] * steps and (one.timing["sweeps"], one.timing["rows"]) == (steps, steps)
    eight = model.classify(picture, draws=8, sampler="sequential")
    assert rows(model) == [8] * steps and (eight.timing["sweeps"], eight.timing["rows"]) == (steps, 8 * steps)


def test_draws_share_the_sweeps_of_the_parallel_sampler(model: fusedx.Model, picture: np.ndarray) -> None:
    """Many steps of all draws in one evaluation, and the mean of N draws taken one by one."""
    steps = model.manifest.schedule.steps
    p = model.classify(picture, draws=4, sampler=PARALLEL)
    asked = rows(model)
    assert len(asked) == p.timing["sweeps"] < steps / 2, "four chains together take fewer evaluations than one has steps"
    assert sum(asked) == p.timing["rows"] and max(asked) <= 64 and p.timing["sequential_steps"] == 0
    x, noise = model.preprocess(model.read(picture))[None], model.noise(p.image_sha256, draws=4)
    single = np.stack([model.trace(x, noise[:, d : d + 1])["y_final"][0] for d in range(4)])
    np.testing.assert_array_equal(p.scores, single.mean(axis=0))
    np.testing.assert_allclose(p.standard_error, single.std(axis=0, ddof=1) / 4**0.5, rtol=1e-12)
    again = model.classify(picture, draws=4, sampler="sequential")
    assert again.scores.tobytes() == p.scores.tobytes() and again.standard_error.tobytes() == p.standard_error.tobytes()


def test_the_encoder_runs_once_and_settled_images_wait(small_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each picture gets its own number of draws, whatever is beside it, and none is drawn for a picture that has enough."""
    model = fusedx.load(small_model)
    encoder, runs = model._engine.encoder, []
    run = type(encoder).run
    monkeypatch.setattr(type(encoder), "run", lambda self, images: runs.append(len(images)) or run(self, images))
    pictures = [np.random.default_rng(i).integers(0, 256, (50, 50 + i, 3), dtype=np.uint8) for i in range(3)]
    pictures.append(np.zeros((40, 40, 3), np.uint8))
    drawn: list[int] = []
    chains = type(model._engine.chains)
    run_chains = chains.run
    monkeypatch.setattr(chains, "run", lambda self, e, z, **how: drawn.append(z.shape[1] * z.shape[2]) or run_chains(self, e, z, **how))

    def settled(scores: np.ndarray, risk: float) -> bool:
        """An image stops at 8, 16, 32 or never, by its own first score."""
        return len(scores) >= (8, 16, 32, 1000)[int(abs(scores[0, 0]) * 1e6) % 4]

    monkeypatch.setattr("fusedx.engine.draws.settled", settled)
    together = model.classify(pictures, draws="auto")
    assert runs == [4] and len({p.draws for p in together}) > 1, "the pictures of this test should differ"
    assert sum(drawn) == sum(p.draws for p in together)
    for picture, p in zip(pictures, together, strict=True):
        alone = model.classify(picture, draws="auto")
        fixed = model.classify(picture, draws=p.draws)
        assert alone.scores.tobytes() == p.scores.tobytes() == fixed.scores.tobytes()
        assert alone.undecided == p.undecided == (p.draws == 64) and not fixed.undecided
        capped = model.classify(picture, draws="auto", max_draws=16)
        assert capped.draws == min(p.draws, 16) and capped.undecided == (p.draws > 16)


def test_what_a_prediction_says_of_its_draws(model: fusedx.Model, picture: np.ndarray) -> None:
    one = model.classify(picture)
    assert np.isnan(one.standard_error).all() and not one.undecided
    said = json.loads(json.dumps(one.to_dict(), allow_nan=False))
    assert set(said["standard_error"].values()) == {None} and said["undecided"] is False
    many = model.classify(picture, draws="auto", max_draws=8)
    assert many.draws == 8 and many.provenance["draws"] == "auto, at most 8" and many.provenance["start"] == "published"
    assert list(many.to_dict()["standard_error"].values()) == many.standard_error.tolist()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"draws": "many"}, "'auto', got 'many'"),
        ({"draws": 0}, "1 to"),
        ({"draws": True}, "draws"),
        ({"draws": 2.0}, "draws"),
        ({"draws": "auto", "max_draws": 7}, f"max_draws must be an integer from 8 to {MAX_DRAWS}"),
        ({"draws": "auto", "max_draws": "64"}, "max_draws"),
        ({"draws": 8, "max_draws": 64}, "max_draws goes with draws='auto' alone"),
        ({"max_draws": 64}, "number of draws here is 1"),
        ({"start": "matching"}, "published, matched, mean"),
        ({"start": 1}, "start must be one of"),
        ({"start": np.array(["mean", "matched"])}, "start must be one of"),
        ({"solver": ["ddim"]}, "solver must be one of"),
        ({"solver": np.array(["ddim", "unipc"])}, "solver must be one of"),
        ({"sampler": np.array(["auto", "parallel"])}, "sampler must be one of"),
        ({"sampler": None, "draw": None}, "there is no setting draw"),
        ({"draw": 3}, "there is no setting draw"),
    ],
)
def test_impossible_settings_are_refused_before_any_work(model: fusedx.Model, settings: dict, words: str) -> None:
    with pytest.raises(fusedx.ConfigError, match=words):
        model.stream([], **settings)
    with pytest.raises(fusedx.ConfigError, match=words):
        model.classify("no such file", **settings)


def test_settings_accept_what_numpy_gives() -> None:
    sampling = Sampling(np.int64(3), np.uint64(5))
    assert sampling == Sampling(3, 5) and type(sampling.draws) is int and sampling.most_draws == 3 and sampling.draws_setting == "3"
    assert Sampling("auto").most_draws == 64 and Sampling("auto", max_draws=np.int32(9)).draws_setting == "auto, at most 9"
    assert type(Sampler("parallel", np.int64(16)).rows) is int


@pytest.mark.parametrize("start", ["published", "matched", "mean"])
@pytest.mark.parametrize("plan", [SEQUENTIAL, Plan(8)], ids=["sequential", "parallel"])
@pytest.mark.parametrize("noise_prior", [False, True])
def test_a_start_is_what_the_specification_says(start: str, plan: Plan, noise_prior: bool) -> None:
    """p + z, p + s_{T-1} z or p, the mean being zero with noise_prior; every later state follows from it as always."""
    schedule = Schedule("linear", 1e-4, 0.02, 1000, 12)
    s = posterior_coefficients(schedule).s[11]
    rng = np.random.default_rng(5)
    noise, prior = rng.normal(size=(12, 2, 3)), rng.random((1, 3))

    class Linear:
        name = "linear"

        def condition(self, prior: np.ndarray, feature: np.ndarray) -> Condition:
            return Condition(prior, feature)

        def eps(self, y: np.ndarray, step: np.ndarray, condition: Condition, entry: np.ndarray) -> np.ndarray:
            return 0.3 * y + 0.01 * step[:, None]

    network = Network("diffmic-v1", 3, 4, "resnet18", "resnet18", 64, vit_width=64, vit_depth=1, noise_prior=noise_prior)
    chains = HostChains(network, schedule, Linear(), precision="fp32")
    moved = started(noise, start, schedule)
    assert moved[1:].tobytes() == noise[1:].tobytes(), "the later steps keep their noise"
    run = chains.run({"prior": prior, "feature": np.zeros((1, 4))}, moved[:, :, None], keep=True, plan=plan)
    mean = 0.0 if noise_prior else prior[0]
    expected = {"published": mean + noise[0], "matched": mean + s * noise[0], "mean": mean + 0 * noise[0]}[start]
    np.testing.assert_array_equal(run.states[0, :, 0], expected)
    assert np.isfinite(run.scores).all()


def test_a_start_reaches_the_result_and_its_record(model: fusedx.Model, picture: np.ndarray) -> None:
    x = model.preprocess(model.read(picture))[None]
    scores = {}
    for start in ("published", "matched", "mean"):
        p = model.classify(picture, start=start)
        noise = model.noise(p.image_sha256, start=start)
        traced = model.trace(x, noise)
        assert traced["y_final"][0].tobytes() == p.scores.tobytes() and p.provenance["start"] == start
        scores[start] = p.scores.tobytes()
    np.testing.assert_array_equal(traced["trajectory"][0], traced["prior"].astype(np.float64))
    assert len(set(scores.values())) == 3 and model.classify(picture).scores.tobytes() == scores["published"]
    mean = model.classify(picture, start="mean", draws=2)
    assert (mean.standard_error > 0).all(), "the steps have noise of their own"


def test_diffmic_v2_has_the_published_start_alone(tmp_path: Path) -> None:
    tiny = pytest.importorskip("tiny", reason="needs torch")
    fusedx.compile_checkpoint(tiny.write_v2(tmp_path / "last.ckpt"), tmp_path / "v2.fusedx")
    model = fusedx.load(tmp_path / "v2.fusedx", backend="python")
    for start in ("matched", "mean"):
        with pytest.raises(fusedx.ConfigError, match="DiffMIC-v2 has the published start alone"):
            model.stream([], start=start)
        with pytest.raises(fusedx.ConfigError, match="DiffMIC-v2"):
            model.noise("0" * 64, start=start)
    p = model.classify(np.zeros((9, 9, 3), np.uint8), draws="auto", start="published")
    assert p.draws in (8, 16, 32, 64) and p.standard_error.shape == (len(model.classes),)
