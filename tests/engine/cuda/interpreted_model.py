"""The GPU engine as a whole on host tensors, its Triton kernels interpreted.  Run by test_cuda_model.py with TRITON_INTERPRET=1.

What is not proved here: the bits of a batch (the interpreter's matrix product is numpy's, whose bits depend on shapes), graphs, streams.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import fusedx
from fusedx import golden
from fusedx.compiler import compile_checkpoint
from fusedx.engine.backends import open_chains
from fusedx.engine.compiled import CompiledModel, open_model
from fusedx.engine.cuda.chains import CudaChains
from fusedx.engine.cuda.context import Context
from fusedx.engine.cuda.device import GPU
from fusedx.engine.cuda.encoder import DeviceEncoder
from fusedx.engine.cuda.encoding import DeviceEncoding
from fusedx.engine.cuda.engine import CudaEngine
from fusedx.engine.cuda.network import open_network
from fusedx.engine.denoiser import DenoiserTables, StoredDenoiser
from fusedx.engine.encoder import open_encoder
from fusedx.engine.engine import Engine
from fusedx.engine.schedule import chain_program
from fusedx.inputs import ReadOptions
from fusedx.kernels.target import TARGETS
from fusedx.model import Model
from fusedx.preparation import CudaPreparation, HostPreparation
from fusedx.verify import _by_golden_name, relative_error

TESTS = Path(__file__).resolve().parents[2]
GOLDEN = TESTS / "golden"
DEMO = TESTS.parent / "python" / "fusedx" / "demo" / "model.fusedx"
H100 = GPU(0, "interpreted", TARGETS[90], 80 << 30, "13.0")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def compiled_case(tmp_path_factory):
    made: dict[str, CompiledModel] = {}
    sys.path.insert(0, str(GOLDEN))
    import make_checkpoint

    sys.path.remove(str(GOLDEN))

    def case(name: str) -> CompiledModel:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            make_checkpoint.write(json.loads((GOLDEN / f"{name}.json").read_text()), folder / "checkpoint")
            compile_checkpoint(folder / "checkpoint", folder / f"{name}.fusedx")
            made[name] = open_model(folder / f"{name}.fusedx")
        return made[name]

    return case


def shortened(model: CompiledModel, steps: int = 3) -> CompiledModel:
    """The demonstration model with a short chain: interpreted kernels are slow."""
    manifest = dataclasses.replace(model.manifest, schedule=dataclasses.replace(model.manifest.schedule, steps=steps))
    tables = {name: a[:steps] if name[:-1] in ("scale", "shift") else a for name, a in model.denoiser().arrays().items()}

    network = model.manifest.network
    coefficients = chain_program(manifest.schedule, v2=network.family == "diffmic-v2").coefficients

    class Shortened(CompiledModel):
        def stored_denoiser(self) -> StoredDenoiser:
            return StoredDenoiser.pack(DenoiserTables(**tables), network, coefficients, "fp32")

    return Shortened(model.path, manifest, model.digest)


def engine_of(model: CompiledModel, precision: str = "fp32", encoder_precision: str = "fp32", compiler: str | None = None) -> CudaEngine:
    context, m = Context(CPU, capture=True), model.manifest
    chains = CudaChains(m.network, m.schedule, model.denoiser(), context, H100.target.cc, precision)
    network, outputs = open_network(model.encoder, CPU, encoder_precision, compiler=compiler)
    return CudaEngine(model, H100, context, DeviceEncoder("torch", network, outputs, context, encoder_precision), chains)


OPTIONS = ReadOptions(exif_orientation="ignore")


def model_of(compiled: CompiledModel) -> Model:
    engine = engine_of(compiled)
    return Model(compiled, engine, "cuda:0", CudaPreparation(engine), OPTIONS)


@pytest.fixture(scope="module")
def demo() -> CompiledModel:
    return shortened(open_model(DEMO))


@pytest.mark.parametrize("name", ["v1-small", "v1-noise-prior", "v2-small"])
def test_golden_case_in_fp32(compiled_case, name):
    case, engine = golden.load(GOLDEN / f"{name}.json"), engine_of(compiled_case(name))
    got = _by_golden_name(engine, engine.trace(case.x, case.noise), case.expected)
    errors = {key: relative_error(got[key], case.expected[key]) for key in case.expected if key != "trajectory_stride"}
    assert max(errors.values()) < 1e-5, errors


@pytest.mark.parametrize(("precision", "most"), [("fp16", 2e-3), ("fp8", 0.05)])
def test_low_precision_chain_follows_the_reference(compiled_case, precision, most):
    """Of fp8's 3 bits of fraction an error of 2^-4 a weight remains, averaged over 256 products."""
    compiled = compiled_case("v1-small")
    case, chains = golden.load(GOLDEN / "v1-small.json"), engine_of(compiled, precision).chains
    assert 0 < relative_error(chains.eps(case.expected, case.expected["eps_input"], 10), case.expected["eps_t10"]) < most
    states = chains.run(case.expected, case.noise[:, None], keep=True).states[:, 0]
    assert relative_error(states[:: int(case.expected["trajectory_stride"])], case.expected["trajectory"]) < most


def some_encoding(images: int, feature_dim: int, classes: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    prior = rng.dirichlet(np.ones(classes), images).astype(np.float32)
    return {"prior": prior, "feature": rng.standard_normal((images, feature_dim)).astype(np.float32)}


def test_rows_that_fill_no_bucket_and_more_than_one_piece(demo, monkeypatch):
    """Draws of several images, cut inside an image's draws: every row finds its own entry."""
    m, chains = demo.manifest, engine_of(demo).chains
    host = open_chains("auto", demo.stored_denoiser(), m.schedule)
    monkeypatch.setattr("fusedx.engine.cuda.chains._STATE_BYTES", 8 * 8 * 5 * 3)  # eight rows at a time
    encoded, noise = some_encoding(3, 128, 5), np.random.default_rng(0).standard_normal((3, 7, 3, 5))
    got, expected = (c.run(encoded, noise, keep=False) for c in (chains, host))
    assert got.scores.shape == expected.scores.shape == (7, 3, 5)
    assert relative_error(got.states, expected.states) < 1e-5
    assert chains.captured() == [8]


def test_keeping_states_changes_no_state(demo):
    chains, noise = engine_of(demo).chains, np.random.default_rng(0).standard_normal((3, 1, 3, 5))
    kept, ends = (chains.run(some_encoding(3, 128, 5), noise, keep=keep) for keep in (True, False))
    assert kept.states.shape[0] == 4 and ends.states.shape[0] == 2
    assert kept.states[[0, -1]].tobytes() == ends.states.tobytes() and kept.scores.tobytes() == ends.scores.tobytes()


def test_results_are_not_the_buffers_of_the_next_call(demo):
    engine, x = engine_of(demo), golden.image(0, "x", (2, 3, 224, 224))
    first = engine.encoder.run(x[:1])
    before = first.on_device("feature").clone()
    engine.encoder.run(x[1:2])
    assert torch.equal(first.on_device("feature"), before)
    assert first["patch_locations"].dtype == np.int64


def test_a_compiled_encoder_computes_the_same(demo):
    """torch.compile must trace the module whole; the backend that generates code is a GPU's."""
    x = golden.image(0, "x", (1, 3, 224, 224))
    plain, traced = (engine_of(demo, compiler=c).encoder.run(x) for c in (None, "aot_eager"))
    for name in plain:
        assert relative_error(traced[name], plain[name]) < 1e-6, name


def test_pictures_get_the_host_engines_answers(demo):
    m = demo.manifest
    chains = open_chains("auto", demo.stored_denoiser(), m.schedule)
    engine = Engine(m.network, m.schedule, m.task, open_encoder("auto", demo.encoder), chains)
    model, host = model_of(demo), Model(demo, engine, "cpu", HostPreparation(), OPTIONS)
    batch = [DEMO.parent / "images" / "grade2_moderate.jpg", np.random.default_rng(0).integers(0, 256, (50, 61, 3), np.uint8)]
    for got, expected in zip(model.classify(batch, draws=2), host.classify(batch, draws=2), strict=True):
        assert got.label == expected.label and got.image_sha256 == expected.image_sha256
        assert relative_error(got.scores, expected.scores) < 1e-5
        assert got.patch_locations.tolist() == expected.patch_locations.tolist()
        assert got.provenance["device"] == "cuda:0" and got.provenance["backend"] == "triton"


def test_undecided_pictures_go_on_without_the_others(demo, monkeypatch):
    """The settled picture's entry is left out of the later draws.  Looks at 1 and 2 draws: interpreted kernels are slow."""
    answers = iter([True, False, True])
    monkeypatch.setattr("fusedx.engine.draws.looks", lambda most: [1, 2])
    monkeypatch.setattr("fusedx.engine.draws.settled", lambda scores, risk: next(answers))
    model, rng = model_of(demo), np.random.default_rng(0)
    batch = [rng.integers(0, 256, (50, 61, 3), np.uint8) for _ in range(2)]
    found = model.classify(batch, draws="auto", start="matched")
    assert [p.draws for p in found] == [1, 2] and not any(p.undecided for p in found)
    fixed = model.classify(batch[1], draws=2, start="matched")
    assert relative_error(found[1].scores, fixed.scores) < 1e-6 and relative_error(found[1].standard_error, fixed.standard_error) < 1e-5


def test_a_stream_with_a_bad_picture(demo, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"not a picture")
    good = np.zeros((30, 30, 3), np.uint8)
    results = list(model_of(demo).stream([good, tmp_path / "bad.png", good], batch_size=3))
    assert [isinstance(r, fusedx.Failure) for r in results] == [False, True, False]
    assert results[0].scores.tobytes() == results[2].scores.tobytes()


def test_warm_up_says_what_it_does(demo):
    model, seen = model_of(demo), []
    assert not model.ready
    model.warmup([1, 3], progress=lambda *step: seen.append(step))
    assert model.ready
    assert [what for _, _, what in seen] == ["encoder, batch 1", "chain, batch 1", "encoder, batch 3", "chain, batch 3", "ready"]
    assert model._engine.encoder.captured() == [1, 4] and model._engine.chains.captured() == [1, 4]


def test_encoding_is_a_mapping_that_refuses_unknown_names(demo):
    encoding = engine_of(demo).encoder.run(golden.image(0, "x", (2, 3, 224, 224)))
    assert isinstance(encoding, DeviceEncoding) and len(encoding) == len(list(encoding)) == 8
    with pytest.raises(KeyError):
        encoding["nothing"]
