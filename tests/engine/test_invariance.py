"""The same image gives the same bits alone, in any batch, in any order, in any shard, and beside another thread."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

import fusedx
from fusedx.engine.backends import Condition
from fusedx.kernels import conditional_layer
from fusedx.prediction import Prediction

sys.path.insert(0, str(Path(__file__).parents[1] / "compiler"))
import tiny  # noqa: E402

BACKENDS = ["python", pytest.param("native", marks=pytest.mark.skipif(not conditional_layer.available(), reason="native module not built"))]


def pictures(count: int) -> list[np.ndarray]:
    """uint8 pictures of assorted sizes."""
    rng = np.random.default_rng(4)
    return [rng.integers(0, 256, (40 + 13 * i, 70 + 7 * i, 3), dtype=np.uint8) for i in range(count)]


def bits(p: Prediction) -> tuple:
    """Everything that must not depend on company."""
    arrays = (p.probabilities, p.scores, p.standard_error, p.prior, p.patch_locations, p.saliency)
    return (p.label, p.index, p.draws, p.stability, p.undecided, p.image_sha256, *(a.tobytes() for a in arrays))


def company_matters(classify: Callable[[Sequence[np.ndarray]], list[Prediction]], images: list[np.ndarray]) -> list[str]:
    """How results differ between an image alone and the same image in company; empty when they never do."""
    alone = [bits(classify([image])[0]) for image in images]
    found = []
    order = list(range(len(images)))
    for shuffle in (order, order[::-1], random.Random(1).sample(order, len(order)), [0, 0, 1, 0], [2] * 3):
        for i, p in zip(shuffle, classify([images[i] for i in shuffle]), strict=True):
            if bits(p) != alone[i]:
                found.append(f"image {i} in batch {shuffle}")
    return found


@pytest.fixture(scope="module")
def small_v2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow DiffMIC-v2, whose chain has six rows an image."""
    folder = tmp_path_factory.mktemp("v2")
    fusedx.compile_checkpoint(tiny.write_v2(folder / "last.ckpt"), folder / "v2.fusedx")
    return folder / "v2.fusedx"


@pytest.fixture(scope="module", params=BACKENDS)
def model(request, small_model) -> fusedx.Model:
    return fusedx.load(small_model, backend=request.param)


@pytest.mark.parametrize("backend", BACKENDS)
def test_v2_batch_and_order(small_v2: Path, backend: str) -> None:
    model = fusedx.load(small_v2, backend=backend)
    assert company_matters(lambda batch: model.classify(batch, draws=3), pictures(5)) == []


@pytest.mark.parametrize("encoder", ["openvino", "onnxruntime"])
def test_encoder_threads_do_not_matter(small_model, small_v2: Path, encoder: str) -> None:
    for path in (small_model, small_v2):
        found = {bits(fusedx.load(path, encoder=encoder, encoder_threads=n).classify(pictures(1)[0])) for n in (1, 2, 3, None)}
        assert len(found) == 1


@pytest.mark.parametrize("draws", [1, 5])
def test_batch_and_order(model: fusedx.Model, draws: int) -> None:
    assert company_matters(lambda batch: model.classify(batch, draws=draws), pictures(9)) == []


def test_draws_by_need_do_not_depend_on_company(small_model) -> None:
    """Plain dark pictures are settled at 8 draws by the demonstration model, noise is undecided at the cap."""
    model = fusedx.load(small_model)
    images = [*pictures(2), *(np.full((40, 40, 3), level, np.uint8) for level in (0, 60, 120))]
    assert {p.undecided for p in model.classify(images, draws="auto", max_draws=32)} == {True, False}
    assert company_matters(lambda batch: model.classify(batch, draws="auto", max_draws=32), images) == []


def test_the_check_can_fail(small_model) -> None:
    """Negative control: a denoiser whose sums depend on how many rows share a call must be caught."""
    model = fusedx.load(small_model, backend="python")
    inner = model._engine.chains.denoiser

    class SharedCall:
        name = "whole-batch"

        def condition(self, prior: np.ndarray, feature: np.ndarray) -> Condition:
            return inner.condition(prior, feature)

        def eps(self, y: np.ndarray, step: np.ndarray, condition: Condition, entry: np.ndarray) -> np.ndarray:
            # What a split of the inner dimension that varies with the rows does: the last bit moves.
            return inner.eps(y, step, condition, entry) * (1 + 2.0**-52 * (len(y) > 1))

    model._engine.chains.denoiser = SharedCall()
    assert company_matters(lambda batch: model.classify(batch, sampler="sequential"), pictures(3)) != []


def test_another_seed_or_picture_has_other_noise(model: fusedx.Model) -> None:
    a, b = pictures(2)
    first = model.classify(a)
    assert bits(model.classify(a)) == bits(first)
    assert model.classify(a, seed=1).scores.tobytes() != first.scores.tobytes()
    changed = a.copy()
    changed[0, 0, 0] ^= 1
    assert model.classify(changed).image_sha256 != first.image_sha256
    assert model.noise(model.read(a).sha256).tobytes() != model.noise(model.read(b).sha256).tobytes()


def test_draws_extend_and_average(model: fusedx.Model) -> None:
    """Draw k is the same chain whatever the number of draws; scores are their mean."""
    picture = pictures(1)[0]
    one, many = model.classify(picture), model.classify(picture, draws=4)
    noise = model.noise(one.image_sha256, draws=4)
    assert noise[:, :1].tobytes() == model.noise(one.image_sha256, draws=1).tobytes()
    x = model.preprocess(model.read(picture))[None]
    own = np.stack([model.trace(x, noise[:, d : d + 1])["y_final"][0] for d in range(4)])
    assert own[0].tobytes() == one.scores.tobytes()
    np.testing.assert_array_equal(many.scores, own.mean(axis=0))
    assert many.stability == np.mean(own.argmax(axis=1) == many.index)


@pytest.mark.parametrize("batch_size", [1, 2, 7, 100])
def test_streaming_and_sharding(model: fusedx.Model, batch_size: int) -> None:
    images = pictures(9)
    alone = [bits(model.classify(image)) for image in images]
    assert [bits(p) for p in model.stream(images, batch_size=batch_size)] == alone
    shards = [list(model.stream(images[k::3], batch_size=batch_size)) for k in range(3)]
    assert [bits(shards[i % 3][i // 3]) for i in range(9)] == alone


def test_two_threads_share_a_model(model: fusedx.Model) -> None:
    images = pictures(6)
    alone = [bits(model.classify(image)) for image in images]
    found: dict[int, list] = {}

    def work(k: int) -> None:
        found[k] = [bits(p) for _ in range(3) for p in model.classify(images[k:])]

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert all(found[k] == alone[k:] * 3 for k in range(4))


def test_backends_agree(small_model) -> None:
    if not conditional_layer.available():
        pytest.skip("native module not built")
    images = pictures(3)
    a, b = (fusedx.load(small_model, backend=name).classify(images) for name in ("native", "python"))
    for p, q in zip(a, b, strict=True):
        np.testing.assert_allclose(p.scores, q.scores, rtol=1e-4, atol=1e-5)
