"""tools/torch_diffmic.py against the float64 golden cases (nodevice: CPU only)."""
from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

ROOT = pathlib.Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden"
sys.path[:0] = [str(ROOT / "tools"), str(GOLDEN)]
import recipe  # noqa: E402

import torch_diffmic as td  # noqa: E402

# Largest error relative to the array's largest magnitude. float32 carries the whole network in float32, the chain's
# state and coefficients in float64.
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-9}
# The machine that computed the golden chains rounded one float32 square root down: s_14 is one unit in the last place
# below the correctly rounded value, worth 3.5e-8 in y. With that entry the chains agree to 7e-16.
GOLDEN_S14_ULPS = -1
CORRECT_ROOT_TOLERANCE = 1e-7
DTYPES = pytest.mark.parametrize("dtype", TOLERANCE, ids=["float32", "float64"])


def shift_entry(table: np.ndarray, index: int, ulps: int) -> np.ndarray:
    """`table` (float32 values held as float64) with one entry moved by float32 units in the last place."""
    out = table.astype(np.float32)
    out[index] += ulps * np.spacing(out[index])
    return out.astype(np.float64)


class Case:
    """A golden case's arrays and its two networks, loaded strictly from the files make_checkpoint.py writes."""

    def __init__(self, name: str, folder: pathlib.Path) -> None:
        self.meta = json.loads((GOLDEN / f"{name}.json").read_text())
        self.arrays = dict(np.load(GOLDEN / f"{name}.npz"))
        subprocess.run([sys.executable, GOLDEN / "make_checkpoint.py", name, folder], check=True)
        c, seed = self.meta["num_classes"], self.meta["seed"]
        self.aux = td.PriorEncoder(c).eval()
        self.model = td.ConditionalDenoiser(c, self.meta["feature_dim"]).eval()
        for net, file in ((self.aux, "aux_ckpt_best.pth"), (self.model, "ckpt_best.pth")):
            net.load_state_dict(torch.load(folder / file, weights_only=True)[0], strict=True)
        self.x = torch.from_numpy(recipe.image(seed, "x", tuple(self.meta["image"])))
        shape = (self.meta["test_timesteps"], len(self.x), c)
        self.z = torch.from_numpy(recipe.normal(seed, "z", shape))
        self.schedule = td.linear_schedule(self.meta["beta_start"], self.meta["beta_end"])
        self.golden_schedule = dataclasses.replace(self.schedule, s=shift_entry(self.schedule.s, 14, GOLDEN_S14_ULPS))
        self.noise_prior = self.meta.get("noise_prior", False)

    def to(self, dtype: torch.dtype) -> Case:
        self.aux.to(dtype)
        self.model.to(dtype)
        self.x = self.x.to(dtype)
        return self


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    @functools.cache
    def make(name: str) -> Case:
        return Case(name, tmp_path_factory.mktemp(name))

    with torch.inference_mode():
        yield make


def check(what: str, got, expected: np.ndarray, dtype: torch.dtype, tolerance: float | None = None) -> None:
    got = np.asarray(got, dtype=np.float64)
    assert got.shape == expected.shape, f"{what}: shape {got.shape}, expected {expected.shape}"
    error = np.abs(got - expected)
    worst = np.unravel_index(error.argmax(), error.shape)
    limit = (tolerance or TOLERANCE[dtype]) * max(1.0, np.abs(expected).max())
    assert error[worst] <= limit, (
        f"{what}{list(map(int, worst))}: got {got[worst]!r}, expected {expected[worst]!r}, error {error[worst]:.2e} > {limit:.2e}")


@pytest.mark.parametrize("part", ["aux", "model"])
def test_state_dict_names_and_shapes(part):
    meta = json.loads((GOLDEN / "v1-small.json").read_text())
    with torch.device("meta"):
        net = td.PriorEncoder(5) if part == "aux" else td.ConditionalDenoiser(5, meta["feature_dim"])
    expected = {name: tuple(entry["shape"]) for name, entry in meta["state_dicts"][part].items()}
    assert {name: tuple(value.shape) for name, value in net.state_dict().items()} == expected


def test_betas_are_the_published_float32_table():
    meta, arrays = json.loads((GOLDEN / "v1-small.json").read_text()), np.load(GOLDEN / "v1-small.npz")
    alpha = td.linear_schedule(meta["beta_start"], meta["beta_end"]).alpha
    assert np.array_equal(alpha, (np.float32(1) - arrays["betas"]).astype(np.float64))


def test_region_cells():
    regions = np.load(GOLDEN / "regions.npz")
    cells = td.choose_cells(torch.from_numpy(regions["saliency"])).numpy()
    assert np.array_equal(np.stack([cells // 7, cells % 7], -1), regions["cells"])


@DTYPES
def test_prior_encoder(load, dtype):
    case = load("v1-small").to(dtype)
    with torch.inference_mode():
        out = case.aux(case.x)
    locations = torch.stack([out.cells // 7, out.cells % 7], -1) * td.TILE
    assert np.array_equal(locations.numpy(), case.arrays["patch_locations"])
    for what, got in {"saliency": out.saliency, "y_global": out.y_global, "y_local": out.y_local,
                      "y_fusion": out.y_fusion, "patch_attention": out.attention, "prior": out.prior}.items():
        check(what, got, case.arrays[what], dtype)


@DTYPES
def test_feature_and_single_steps(load, dtype):
    case = load("v1-small").to(dtype)
    y, p = (torch.from_numpy(case.arrays[k]).to(dtype) for k in ("eps_input", "prior"))
    with torch.inference_mode():
        f = case.model.feature(case.x)
        check("feature", f, case.arrays["feature"], dtype)
        for name in (k for k in case.arrays if k.startswith("eps_t")):
            t = torch.full((len(y),), int(name[5:]))
            check(name, case.model.eps(f, y, t, p), case.arrays[name], dtype)
            check(name, case.model(case.x, y, t, p), case.arrays[name], dtype)


@DTYPES
@pytest.mark.parametrize("name", ["v1-small", "v1-noise-prior"])
@pytest.mark.parametrize("form", ["released", "hoisted"])
def test_chain(load, name, form, dtype):
    case = load(name).to(dtype)
    states: list = []
    with torch.inference_mode():
        prior = case.aux(case.x).prior
        args = (prior, case.z, case.golden_schedule, case.noise_prior, states)
        y = (td.sample_released(case.model, case.x, *args) if form == "released"
             else td.sample_hoisted(case.model, case.model.feature(case.x), *args))
    stride = int(case.arrays["trajectory_stride"])
    check("trajectory", torch.stack(states[::stride]), case.arrays["trajectory"], dtype)
    check("y_final", y, case.arrays["y_final"], dtype)
    check("probabilities", y.softmax(1), case.arrays["probabilities"], dtype)


def test_chain_with_correctly_rounded_roots(load):
    case = load("v1-small").to(torch.float64)
    with torch.inference_mode():
        y = td.sample_hoisted(case.model, case.model.feature(case.x), case.aux(case.x).prior, case.z, case.schedule)
    check("y_final", y, case.arrays["y_final"], torch.float64, CORRECT_ROOT_TOLERANCE)
