"""The Python API as its users meet it."""

from __future__ import annotations

import json
import mmap
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fusedx
from fusedx.engine import engine
from fusedx.engine.errors import INPUT_REASONS

sys.path.insert(0, str(Path(__file__).parent / "compiler"))
import tiny  # noqa: E402

PICTURES = Path(__file__).parent / "golden" / "preprocess"


@pytest.fixture(scope="module")
def model(small_model) -> fusedx.Model:
    return fusedx.load(small_model)


def test_one_picture(model: fusedx.Model) -> None:
    path = PICTURES / "photo_450x600.jpg"
    p = model.classify(path, draws=3, seed=5)
    assert isinstance(p, fusedx.Prediction)
    assert p.label == model.classes[p.index] and p.index == int(np.argmax(p.scores))
    for array in (p.probabilities, p.scores, p.prior):
        assert array.shape == (len(model.classes),) and array.dtype == np.float64
    e = np.exp(p.scores - p.scores.max())
    np.testing.assert_allclose(p.probabilities, e / e.sum(), rtol=1e-14)
    np.testing.assert_allclose(p.prior.sum(), 1, rtol=1e-6)
    assert p.draws == 3 and 1 / 3 <= p.stability <= 1
    assert set(p.timing) == {"read", "preprocess", "encoder", "chain", "sweeps", "rows", "sequential_steps"}
    assert all(p.timing[stage] > 0 for stage in ("read", "preprocess", "encoder", "chain", "sweeps", "rows"))
    assert p.provenance["model_sha256"] == model.digest and p.provenance["seed"] == 5
    assert p.provenance["fusedx"] == fusedx.__version__ and p.provenance["backend"] in ("native", "python")
    assert json.loads(json.dumps(p.to_dict()))["probabilities"][p.label] == p.probabilities[p.index]
    assert repr(p).startswith("Prediction(")


def test_every_form_of_a_picture_is_the_same_picture(model: fusedx.Model) -> None:
    path = PICTURES / "rgb_640x481.png"
    with Image.open(path) as image:
        image.load()
    pixels = np.asarray(image)
    strided = np.zeros((pixels.shape[0] * 2, pixels.shape[1], 3), np.uint8)
    strided[::2] = pixels
    forms = [path, str(path), image, pixels, strided[::2], np.asfortranarray(pixels)]
    results = model.classify(forms)
    assert {p.scores.tobytes() for p in results} == {results[0].scores.tobytes()}
    assert {p.image_sha256 for p in results} == {results[0].image_sha256}
    grey = np.arange(80 * 90, dtype=np.uint8).reshape(80, 90)
    assert model.classify(grey).scores.tobytes() == model.classify(np.repeat(grey[..., None], 3, axis=2)).scores.tobytes()


def test_stream_keeps_the_order_and_reports_failures(model: fusedx.Model, tmp_path: Path) -> None:
    empty = tmp_path / "empty.png"
    empty.touch()
    good = PICTURES / "small_60x50.png"
    sources = [good, tmp_path / "missing.png", tmp_path, good, empty, np.zeros((1, 1, 3), np.uint8), good, np.zeros((5, 5), np.float32)]
    results = list(model.stream(iter(sources), batch_size=3))
    kinds = [r.reason if isinstance(r, fusedx.Failure) else "ok" for r in results]
    assert kinds == ["ok", "not_found", "not_a_file", "ok", "empty", "too_small", "ok", "bad_array"]
    assert set(kinds) - {"ok"} <= set(INPUT_REASONS)
    assert str(empty) in results[4].source and str(empty) in results[4].message
    assert list(model.stream([])) == []


def test_stream_reads_no_further_than_two_batches_ahead(model: fusedx.Model) -> None:
    taken = []

    def sources():
        for i in range(100):
            taken.append(i)
            yield np.full((20, 20, 3), i, np.uint8)

    stream = model.stream(sources(), batch_size=4)
    next(stream)
    assert len(taken) <= 8
    stream.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("fusedx-read")]


def test_an_iterator_that_raises_ends_the_stream_after_what_it_gave(model: fusedx.Model) -> None:
    def sources():
        for i in range(5):
            yield np.full((20, 20, 3), i, np.uint8)
        raise RuntimeError("the disk went away")

    for batch_size in (1, 2, 16):
        got = []
        with pytest.raises(RuntimeError, match="went away"):
            for p in model.stream(sources(), batch_size=batch_size):
                got.append(p)
        assert [isinstance(p, fusedx.Prediction) for p in got] == [True] * 5


@pytest.mark.parametrize("name", ["draws", "seed"])
@pytest.mark.parametrize("value", [-1, 1.5, "3", True, 1 << 70, float("nan")])
def test_impossible_settings_are_refused_at_once(model: fusedx.Model, name: str, value: object) -> None:
    picture = np.zeros((20, 20, 3), np.uint8)
    with pytest.raises(fusedx.ConfigError, match=name):
        model.classify(picture, **{name: value})
    with pytest.raises(fusedx.ConfigError, match=name):
        model.stream([picture], **{name: value})


def test_numpy_integers_are_integers(model: fusedx.Model) -> None:
    picture = np.zeros((20, 20, 3), np.uint8)
    a, b = model.classify(picture, draws=2, seed=3), model.classify(picture, draws=np.int64(2), seed=np.uint8(3))
    assert a.scores.tobytes() == b.scores.tobytes() and json.dumps(b.to_dict())


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"device": "cuda:99"}, fusedx.UnavailableError, "cuda:99 is not available: .*There is: cpu"),
        ({"device": "gpu"}, fusedx.ConfigError, "cpu, cuda or cuda:N"),
        ({"device": "cuda:-1"}, fusedx.ConfigError, "cpu, cuda or cuda:N"),
        ({"device": 0}, fusedx.ConfigError, "cpu, cuda or cuda:N"),
        ({"precision": "fp8"}, fusedx.UnavailableError, "fp8.* is not available on a CPU"),
        ({"precision": "int2"}, fusedx.UnavailableError, "there is: fp32, bf16, fp16, int8, int4"),
        ({"backend": "natvie"}, fusedx.UnavailableError, "native, python"),
        ({"encoder": "tensorrt"}, fusedx.UnavailableError, "openvino, onnxruntime, torch, reference"),
        ({"encoder_threads": 0}, fusedx.ConfigError, "encoder_threads"),
        ({"graphs": "no"}, fusedx.ConfigError, "graphs must be True or False"),
        ({"batch_invariant": 0}, fusedx.ConfigError, "batch_invariant must be True or False"),
    ],
)
def test_unavailable_choices_list_what_there_is(small_model, settings: dict, error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        fusedx.load(small_model, **settings)


def test_a_host_engine_is_ready_at_once(model: fusedx.Model) -> None:
    seen: list[tuple[int, int, str]] = []
    assert model.ready
    model.warmup([1, 16], progress=lambda *step: seen.append(step))
    assert seen[-1][0] == seen[-1][1]
    for sizes in ([0], ["1"], 4):
        with pytest.raises(fusedx.ConfigError, match="batch.size"):
            model.warmup(sizes)


class _InGpuMemory:
    """As far as anyone can tell who must not look: DLPack says CUDA, and numpy refuses to convert it."""

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    def __dlpack__(self, **how: object) -> object:
        raise AssertionError("a model on a CPU asked for the data")

    def __array__(self, *how: object, **more: object) -> np.ndarray:
        raise TypeError("implicit conversion to a host array is not allowed")


def test_a_host_model_says_what_an_array_of_a_gpu_needs(model: fusedx.Model) -> None:
    array = _InGpuMemory()
    with pytest.raises(fusedx.InputError, match="in GPU memory needs a model on that GPU") as caught:
        model.classify(array)
    assert caught.value.reason == "unsupported"
    assert [failure.reason for failure in model.stream([array])] == ["unsupported"]
    with pytest.raises(fusedx.ConfigError, match="no array on the host: implicit conversion"):
        model.trace(array)


def test_rows_of_unequal_length_are_no_images(model: fusedx.Model) -> None:
    with pytest.raises(fusedx.ConfigError, match="no array on the host"):
        model.trace([[1.0], [1.0, 2.0]])


def test_the_choice_prints_itself(small_model) -> None:
    code = f"import fusedx; fusedx.load({str(small_model)!r})"
    environment = {"PYTHONPATH": str(Path(fusedx.__file__).parents[1]), "FUSEDX_LOG": "info"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert "encoder openvino (fp32), backend" in done.stderr
    done = subprocess.run([sys.executable, "-c", code], env=environment | {"FUSEDX_LOG": "loud"}, capture_output=True, text=True)
    assert done.returncode and "FUSEDX_LOG must be one of" in done.stderr


def test_trace_shapes_and_errors(model: fusedx.Model) -> None:
    steps, classes = model.manifest.schedule.steps, len(model.classes)
    x = model.preprocess(model.read(PICTURES / "small_60x50.png"))[None]
    t = model.trace(x)
    assert t["trajectory"].shape == (steps + 1, 1, classes) and t["saliency"].shape == (1, classes, 7, 7)
    assert t["patch_locations"].shape == (1, 6, 2) and t["feature"].shape == (1, model.manifest.network.feature_dim)
    assert model.trace(x)["y_final"].tobytes() == t["y_final"].tobytes() != model.trace(x, seed=1)["y_final"].tobytes()
    z = np.zeros((steps, 1, classes))
    wrong = [
        (x[0], None), (x.astype(np.uint8), None), (x[:0], None), (x + np.nan, None), (x, z[1:]), (x, z[..., :-1]), (x, z + np.inf),
        (np.zeros((1, 3, 225, 224), np.float32), None), (x, "noise"), (x, (z, z[0])),
    ]  # fmt: skip
    for images, noise in wrong:
        with pytest.raises(fusedx.ConfigError):
            model.trace(images, noise)


def test_exif_orientation_is_a_recorded_choice(small_model, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    as_published = fusedx.load(small_model).classify(tmp_path / "turned.png")
    options = fusedx.ReadOptions(exif_orientation="apply")
    applied = fusedx.load(small_model, read_options=options).classify(tmp_path / "turned.png")
    upright = fusedx.load(small_model).classify(np.rot90(pixels, -1))
    assert applied.image_sha256 == upright.image_sha256 != as_published.image_sha256
    assert applied.provenance["input"] != as_published.provenance["input"]


def test_loading_while_classifying(model: fusedx.Model, small_model) -> None:
    picture = np.full((30, 30, 3), 9, np.uint8)
    expected = model.classify(picture).scores.tobytes()
    found = []

    def use() -> None:
        found.extend(model.classify(picture).scores.tobytes() for _ in range(10))

    thread = threading.Thread(target=use)
    thread.start()
    others = [fusedx.load(small_model).classify(picture).scores.tobytes() for _ in range(2)]
    thread.join()
    assert set(found + others) == {expected}


def test_one_lazy_pil_image_many_times_in_a_stream(model: fusedx.Model) -> None:
    """A PIL image decodes itself when first used; two readers at once must not make it look corrupt."""
    for _ in range(5):
        image = Image.open(PICTURES / "photo_450x600.jpg")
        results = list(model.stream([image] * 12, batch_size=12))
        assert {type(r) for r in results} == {fusedx.Prediction}
        assert {r.scores.tobytes() for r in results} == {results[0].scores.tobytes()}


def test_read_options_keep_the_recipes_orientation(small_model, tmp_path: Path) -> None:
    """Options that say nothing about EXIF must not undo what the model was compiled with."""
    shutil.copytree(small_model, tmp_path / "m.fusedx")
    manifest = tmp_path / "m.fusedx" / "manifest.json"
    data = json.loads(manifest.read_text())
    data["preprocessing"]["exif_orientation"] = "apply"
    manifest.write_text(json.dumps(data))
    model = fusedx.load(tmp_path / "m.fusedx", read_options=fusedx.ReadOptions(min_side=3))
    assert model.read_options.exif_orientation == "apply" and model.read_options.min_side == 3


def test_many_draws_are_computed_in_blocks_of_the_same_bits(model: fusedx.Model, monkeypatch) -> None:
    picture = np.full((30, 30, 3), 9, np.uint8)
    whole = model.classify([picture] * 2, draws=11)
    monkeypatch.setattr(engine, "MAX_ROWS", 5)
    seen = []
    chains = type(model._engine.chains)
    run = chains.run
    rows = lambda noise: noise.shape[1] * noise.shape[2]  # noqa: E731  # draws x images
    monkeypatch.setattr(chains, "run", lambda self, e, noise, **how: seen.append(rows(noise)) or run(self, e, noise, **how))
    parts = model.classify([picture] * 2, draws=11)
    assert max(seen) == 4
    assert [p.scores.tobytes() for p in whole] == [p.scores.tobytes() for p in parts]
    assert whole[0].stability == parts[0].stability


def test_a_broken_library_is_unavailable_and_not_a_traceback(small_model, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "fusedx.engine.encoder.onnxruntime", None)
    with pytest.raises(fusedx.UnavailableError, match="does not import"):
        fusedx.load(small_model, encoder="onnxruntime")


def test_a_mapped_file_of_any_name_does_not_disturb_loading(small_model, tmp_path: Path) -> None:
    name = os.path.join(os.fsencode(tmp_path), b"m\xff\n.bin")
    with open(name, "wb+") as f:
        f.write(b"x" * 4096)
        f.flush()
        mapped = mmap.mmap(f.fileno(), 0)
    fusedx.load(small_model)
    mapped.close()


def test_a_reused_buffer_is_read_when_it_is_given(model: fusedx.Model) -> None:
    """A video buffer, or the frames of one PIL file: what counts is the picture at the moment it was handed over."""
    frames = [np.full((24, 24, 3), 20 * i, np.uint8) for i in range(10)]

    def reused():
        buffer = np.empty_like(frames[0])
        for frame in frames:
            buffer[:] = frame
            yield buffer

    got = [r.scores.tobytes() for r in model.stream(reused(), batch_size=4)]
    assert got == [model.classify(frame).scores.tobytes() for frame in frames]


def test_a_model_does_not_hang_after_a_fork(model: fusedx.Model) -> None:
    picture = np.zeros((20, 20, 3), np.uint8)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            model.classify(picture)
            os.write(write, b"classified")
        except fusedx.FusedxError as error:
            os.write(write, str(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        assert b"load it in the child" in pipe.read()
    os.waitpid(child, 0)


def test_weights_that_overflow_give_a_failure_and_not_a_label(tmp_path: Path) -> None:
    """argmax of NaN is 0, which is the healthy class of every published model."""
    state = {n: t * (1e25 if n in ("lin2.lin.weight", "lin3.lin.weight") else 1) for n, t in tiny.tensors("v1-small", "model").items()}
    fusedx.compile_checkpoint(tiny.write_v1(tmp_path / "checkpoint", model=state), tmp_path / "m.fusedx")
    model = fusedx.load(tmp_path / "m.fusedx")
    picture = np.zeros((20, 20, 3), np.uint8)
    with pytest.raises(fusedx.InputError, match="overflow") as raised:
        model.classify(picture)
    assert raised.value.reason == "not_finite"
    assert [r.reason for r in model.stream([picture])] == ["not_finite"]
    with pytest.raises(fusedx.FusedxError, match="not finite"):
        model.trace(model.preprocess(model.read(picture))[None])


def test_an_interrupted_call_leaves_the_model_usable(small_model) -> None:
    model = fusedx.load(small_model)
    x = np.stack([model.preprocess(model.read(np.zeros((20, 20, 3), np.uint8)))] * 3)
    expected = model.trace(x)["y_final"].tobytes()

    class Breaks:
        def __init__(self) -> None:
            self.left = 2

        def __iter__(self):
            for row in x:
                self.left -= 1
                if self.left < 0:
                    raise KeyboardInterrupt
                yield row

        def __len__(self) -> int:
            return len(x)

    with pytest.raises(KeyboardInterrupt):
        model._engine.encoder.run(Breaks())
    assert model.trace(x)["y_final"].tobytes() == expected


def test_torch_threads_are_put_back(small_model) -> None:
    import torch

    before = torch.get_num_threads()
    fusedx.load(small_model, encoder="torch", encoder_threads=before + 1).classify(np.zeros((20, 20, 3), np.uint8))
    assert torch.get_num_threads() == before
