"""The compiled chain many steps at a time: the sequential chain's bits, whatever the denoiser, the rows and the company."""

import os
import subprocess
import sys

import numpy as np
import pytest
import test_native_chain as chains
from test_native_chain import ISAS, PATH, PRECISIONS, LayerDenoiser, inputs, made, tables

from fusedx.engine.backends import constant_half
from fusedx.engine.backends.native import NativeChains
from fusedx.engine.chain_runner import HostChains
from fusedx.engine.denoiser import StoredDenoiser
from fusedx.engine.errors import ConfigError
from fusedx.engine.manifest import Network
from fusedx.engine.sampler import Plan

pytestmark = chains.pytestmark
ROWS = (2, 3, 7, 16, 64, 1000)


def same(chain, encoded: dict[str, np.ndarray], noise: np.ndarray, rows: int, least_gain: float = 0.0) -> tuple[np.ndarray, ...]:
    """Check every state, kept or not; -> (sweeps, evaluations, sequential_steps) of the parallel run."""
    scores, states, *_ = chain.run(encoded, noise, keep=True)
    scratch_of_nans = np.full_like(states, np.nan)
    del scratch_of_nans  # whose memory the next states are likely to get: none may be left as it was found
    got, got_states, *work = chain.run(encoded, noise, True, rows, least_gain)
    wrong = [i for i in range(len(states)) if states[i].tobytes() != got_states[i].tobytes()]
    assert not wrong, f"{rows} rows: states {wrong[:5]} of {len(states)} differ"
    assert got.tobytes() == scores.tobytes()
    ends = chain.run(encoded, noise, False, rows, least_gain)
    assert ends[0].tobytes() == scores.tobytes() and ends[1].tobytes() == states[[0, -1]].tobytes()
    sweeps, evaluations, _ = work
    points = 6 if states.ndim == 5 else 1
    assert np.all(sweeps >= 1) and np.all(sweeps <= len(noise if points == 1 else states[1:])) and np.all(evaluations >= sweeps)
    return tuple(work)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("family, noise_prior", [("posterior", False), ("posterior", True), ("ddim", False)])
@pytest.mark.parametrize("features, classes, steps, images, draws", [
    (1, 1, 1, 1, 1), (33, 2, 3, 2, 2), (100, 15, 40, 1, 1), (96, 7, 25, 2, 3), (64, 5, 10, 7, 43),
])
def test_bits_are_the_sequential_chains(precision, family, noise_prior, features, classes, steps, images, draws):
    """The last case is more chains than run together, and more than there are rows but for the most."""
    arrays = tables(features, classes, steps, family)
    chain = made(arrays, precision, family, noise_prior)
    for rows in ROWS:
        same(chain, *inputs(arrays, family, images, draws), rows)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_it_takes_fewer_sweeps_than_steps(precision):
    arrays = tables(128, 5, 250)
    sweeps, evaluations, alone = same(made(arrays, precision), *inputs(arrays, "posterior", 1, 1), 16)
    assert sweeps[0, 0] < 90 and evaluations[0, 0] < 16 * sweeps[0, 0] + 1 and alone[0, 0] == 0


def test_a_sequential_run_says_so():
    arrays = tables(64, 5, 10, "ddim")
    *_, sweeps, evaluations, alone = made(arrays, family="ddim").run(*inputs(arrays, "ddim", 2, 3))
    assert sweeps.tolist() == [[10, 10]] * 3 and evaluations.tolist() == alone.tolist() == [[60, 60]] * 3 and sweeps.dtype == np.int32


def hostile(kind: str, family: str) -> dict[str, np.ndarray]:
    """Denoisers that no guess suits.  Embeddings of neighbouring steps have nothing in common in any of these tables."""
    arrays = tables(96, 5, 60 if family == "posterior" else 10, family, seed=7)
    if kind == "steep":  # eps moves thousands of times as far as the state
        arrays["weight4"] *= np.float32(1e6)
    elif kind == "saturated":  # layers that are almost always zero
        arrays["shift2"] -= np.float32(40)
    elif kind == "jumping":
        arrays["scale1"][::2] *= np.float32(-50)
    elif kind == "overflowing":
        arrays["weight4"] *= np.float32(1e30)
        arrays["scale2"] *= np.float32(1e6)
    elif kind == "infinite":
        arrays["bias4"][1] = np.inf
    elif kind == "nan at one step":
        arrays["shift3"][len(arrays["shift3"]) // 2] = np.nan
    elif kind == "nan everywhere":
        arrays["bias4"][:] = np.nan
    return arrays


@pytest.mark.parametrize("kind", ["steep", "saturated", "jumping", "overflowing", "infinite", "nan at one step", "nan everywhere"])
@pytest.mark.parametrize("family", ["posterior", "ddim"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_hostile_denoisers_change_no_bit_and_end(kind, family, precision):
    arrays = hostile(kind, family)
    chain = made(arrays, precision, family)
    case = inputs(arrays, family, 2, 2)
    for rows in (8, 64):
        same(chain, *case, rows)
    sweeps, _, alone = same(chain, *case, 64, 1e9)  # never enough: after eight sweeps one step at a time
    assert np.all((alone > 0) | (sweeps <= 9))


def test_states_far_from_the_grids_range():
    """Beyond 2^33 the grid is coarser than 2^-18, beyond 1e38 a state is no float any more: the same sequence in both samplers."""
    arrays = tables(64, 3, 30)
    encoded, noise = inputs(arrays, "posterior", 1, 1)
    for scale in (1e10, 1e39, 1e305):
        same(made(arrays), encoded, noise * scale, 16)


@pytest.mark.parametrize("family", ["posterior", "ddim"])
def test_every_instruction_set_gives_the_same_bits_in_the_same_sweeps(family):
    arrays = tables(130, 7, 20, family)
    encoded, noise = inputs(arrays, family, 2, 2)
    results = [made(arrays, "fp32", family, isa=isa).run(encoded, noise, True, 24) for isa in ISAS]
    assert len({states.tobytes() for _, states, *_ in results}) == 1 and len({sweeps.tobytes() for *_, sweeps, _, _ in results}) == 1


@pytest.mark.parametrize("rows", [2, 16, 64])
@pytest.mark.parametrize("family", ["posterior", "ddim"])
def test_alone_or_in_company(family, rows):
    arrays = tables(96, 5, 30, family)
    encoded, noise = inputs(arrays, family, 5, 3)
    chain = made(arrays, "int8", family)
    scores, *_ = chain.run(encoded, noise, False, rows)
    for image, draw in ((0, 0), (4, 2), (2, 1)):
        own = np.ascontiguousarray(noise[:, draw : draw + 1, image : image + 1])
        alone, *_ = chain.run({name: array[image : image + 1] for name, array in encoded.items()}, own, False, rows)
        assert alone[0, 0].tobytes() == scores[draw, image].tobytes()


def test_threads_change_no_bit():
    code = (
        "import hashlib, test_native_chain as t\n"
        "arrays = t.tables(1000, 5, 30); case = t.inputs(arrays, 'posterior', 1, 2)\n"
        "print([hashlib.sha256(t.made(arrays, p).run(*case, True, 20)[1].tobytes()).hexdigest() for p in t.PRECISIONS])"
    )
    found = set()
    for threads in ("1", "2", "3"):
        env = {**os.environ, "PYTHONPATH": PATH, "FUSEDX_THREADS": threads}
        found.add(subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True, timeout=120).stdout)
    assert len(found) == 1, found


def test_a_long_run_of_sweeps_can_be_interrupted_and_the_chain_lives_on():
    code = chains.INTERRUPTED.replace("'posterior', 1, 64)", "'posterior', 1, 4)").replace("chain.run(*case)", "chain.run(*case, True, 64)")
    env = {**os.environ, "PYTHONPATH": PATH}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "interrupted (1, 1, 5)", done.stderr


def test_the_workspace_of_a_sweep_is_counted():
    arrays = tables(640, 5, 100)
    chain = made(arrays)
    none, some, more = (chain.workspace_bytes(1, 1, rows) for rows in (0, 16, 64))
    assert some - none > 15 * 640 * 8 and more - some > 48 * 640 * 8
    assert chain.workspace_bytes(1, 1, 1 << 40) == chain.workspace_bytes(1, 1, 100)
    assert chain.workspace_bytes(1, 32, 16) == chain.workspace_bytes(1, 32)  # no more rows than chains: no sweeps


@pytest.mark.parametrize("rows, least_gain, complaint", [
    (-1, 0.0, "rows: expected 0 .* got -1"), (4, -1.0, "least_gain: expected 0"), (4, float("nan"), "least_gain: expected 0"),
])
def test_refused_settings(rows, least_gain, complaint):
    arrays = tables(70, 5, 6)
    with pytest.raises(ValueError, match=f"^{complaint}"):
        made(arrays).run(*inputs(arrays, "posterior", 1, 1), False, rows, least_gain)


def test_any_number_of_rows_is_fine():
    arrays = tables(64, 5, 20)
    case = inputs(arrays, "posterior", 1, 1)
    assert made(arrays).run(*case, False, (1 << 63) - 1)[0].tobytes() == made(arrays).run(*case)[0].tobytes()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_rows_of_any_step_and_entry_are_the_layers_own(precision):
    arrays = tables(130, 5, 9)
    rng = np.random.default_rng(3)
    prior, feature = rng.random((4, 5)), rng.standard_normal((4, 130)).astype(np.float32)
    y, step, entry = rng.standard_normal((300, 5)), rng.integers(0, 9, 300, np.int32), rng.integers(0, 4, 300, np.int32)
    layers = LayerDenoiser(arrays, precision)
    expected = layers.eps(y, step, layers.condition(prior, feature), entry)
    constant = constant_half(arrays["weight_p"], prior, np.dtype(np.float32))
    assert made(arrays, precision).denoise(constant, feature, y, step, entry).tobytes() == expected.tobytes()


@pytest.mark.parametrize("name, change, complaint", [
    ("constant", lambda x: x[:, 1:], r"constant: expected float32\[\?, 70\]"),
    ("feature", lambda x: x[:1], r"feature: expected float32\[2, 70\]"),
    ("y", lambda x: x.astype(np.float32), "y: expected float64"), ("step", lambda x: x[1:], r"step: expected int32\[3\]"),
    ("step", lambda x: x + 6, "step: row 0 is 6, expected 0 to 5"), ("entry", lambda x: x - 1, "entry: row 0 is -1, expected 0 to 1"),
    ("entry", lambda x: x.astype(np.int64), "entry: expected int32"),
])
def test_refused_rows_name_the_argument(name, change, complaint):
    given = {"constant": np.zeros((2, 70), np.float32), "feature": np.zeros((2, 70), np.float32), "y": np.zeros((3, 5)),
             "step": np.zeros(3, np.int32), "entry": np.zeros(3, np.int32)}  # fmt: skip
    given[name] = np.ascontiguousarray(change(given[name]))
    with pytest.raises(ValueError, match=f"^{complaint}"):
        made(tables(70, 5, 6)).denoise(**given)


def test_no_rows_are_no_rows():
    no_entries, no_rows = np.zeros((0, 70), np.float32), np.zeros(0, np.int32)
    assert made(tables(70, 5, 6)).denoise(no_entries, no_entries, np.zeros((0, 5)), no_rows, no_rows).shape == (0, 5)


@pytest.mark.parametrize("family", ["posterior", "ddim"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_runner_is_the_readable_samplers_twin(precision, family):
    """The same states and, since the rule for sharing rows out is the chain's own, certified by the readable code on the same denoiser."""
    steps = 40 if family == "posterior" else 10
    arrays = tables(64, 5, steps, family)
    network = Network("diffmic-v1" if family == "posterior" else "diffmic-v2", 5, 64, "resnet18", "resnet18", 64, vit_width=64, vit_depth=1)
    stored = StoredDenoiser(network, precision, chains.in_precision(arrays, precision))
    encoded, noise = inputs(arrays, family, 2, 2)
    native = NativeChains(stored, chains.schedule(steps))
    host = HostChains(network, chains.schedule(steps), LayerDenoiser(arrays, precision), precision, arrays["coefficients"])
    expected = host.run(encoded, noise, keep=True)
    for plan in (Plan(), Plan(12), Plan(12, least_gain=1e9)):
        got = native.run(encoded, noise, keep=True, plan=plan)
        assert got.states.tobytes() == expected.states.tobytes() and got.scores.tobytes() == expected.scores.tobytes()
        assert got.work is not None and got.work.rows.shape == (2, 2) and np.all(got.work.rows >= got.work.sweeps)
    assert native.residual(encoded, noise, expected.states).max() == 0
    assert native.workspace_bytes(1, 1, Plan(32)) > native.workspace_bytes(1, 1)
    with pytest.raises(ConfigError, match="needs the chain's schedule"):
        NativeChains(stored).residual(encoded, noise, expected.states)
