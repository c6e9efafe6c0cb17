"""The tools that train the reference models and measure on them (nodevice: CPU only)."""
from __future__ import annotations

import csv
import json
import pathlib
import sys

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

ROOT = pathlib.Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden"
sys.path[:0] = [str(ROOT / "tools"), str(GOLDEN)]
import make_checkpoint  # noqa: E402
import recipe  # noqa: E402

import drawn_training  # noqa: E402
import line_chart  # noqa: E402
import measure_stability  # noqa: E402
import reference_v1  # noqa: E402
import reference_v2  # noqa: E402
import torch_diffmic as td  # noqa: E402
import torch_diffmic_v2 as v2  # noqa: E402
import train_reference  # noqa: E402
import wide_denoiser  # noqa: E402


@pytest.fixture(scope="module")
def v2_small():
    """The golden case's settings, arrays, prior encoder and denoiser, float64."""
    case = json.loads((GOLDEN / "v2-small.json").read_text())
    classes, features = case["num_classes"], case["feature_dim"]
    prior = td.PriorEncoder(classes, layers=18).double().eval()
    model = v2.Denoiser(classes, features, 64, 384, 12).double().eval()
    state = make_checkpoint.state_dict(case, "aux_model")
    prior.load_state_dict({n: t for n, t in state.items() if not n.startswith("fusion_dnn")})
    shapes = {n: t.shape for n, t in model.state_dict().items()}
    published = make_checkpoint.state_dict(case, "model")
    counts = "num_batches_tracked"
    assert all(t.shape == published[n].shape for n, t in model.published().items() if counts not in n)
    model.load_state_dict({n: t.reshape(shapes[n]) for n, t in published.items()})
    return case, dict(np.load(GOLDEN / "v2-small.npz")), prior, model


@torch.inference_mode()
def test_v2_network_and_chain_against_the_golden_case(v2_small):
    """A training code that is not the published network would train something else."""
    case, golden, prior, model = v2_small
    x = torch.from_numpy(recipe.image(case["seed"], "x", tuple(case["image"]))).double()
    out = prior(x)
    f = model.fused(model.encoder_x.f(x), reference_v2.trunk_of_regions(model.encoder_x_l.f, x, out.cells))
    u = [torch.from_numpy(recipe.uniform(case["seed"], n, (len(x), case["num_classes"]))) for n in ("u_global", "u_local")]
    m, start = v2.dense(out.y_global, out.y_local), v2.dense(*u)
    first = model.eps(f.repeat_interleave(6, 0), start.flatten(0, 1), torch.full((6 * len(x),), 900), m.flatten(0, 1))
    found = {
        "y_global": out.y_global, "y_local": out.y_local, "fused_feature": f,
        "eps_first": first.unflatten(0, (-1, 6)).transpose(1, 2), "prediction": v2.ddim(model, f, m, start),
    }  # fmt: skip
    golden["eps_first"] = golden["eps_first"][:, :, 0]   # by distance |0-j|
    # The golden map's d are float32 values (3e-8) and its square roots of abar are rounded to float32 (1e-7).
    for name, tolerance in {"y_global": 1e-9, "y_local": 1e-9, "fused_feature": 1e-9, "eps_first": 1e-6, "prediction": 1e-6}.items():
        error = np.abs(found[name].numpy() - golden[name]).max() / np.abs(golden[name]).max()
        assert error < tolerance, f"{name}: relative error {error:.2e}, tolerance {tolerance:.0e}"


def test_widening_keeps_the_function(monkeypatch):
    """Without the noise that tells copies apart the wide network is the narrow one, and no two of its rows are alike."""
    monkeypatch.setattr(wide_denoiser, "TELL_APART", 0.0)
    torch.manual_seed(0)
    narrow, wide = (td.ConditionalDenoiser(3, width, width=2).eval() for width in (16, 80))
    for norm in wide_denoiser.trained_norms(narrow):   # statistics that are not the identity
        torch.nn.init.uniform_(norm.running_mean)
        torch.nn.init.uniform_(norm.running_var, 0.5, 2.0)
    wide.load_state_dict(wide_denoiser.widened(narrow, wide, torch.Generator().manual_seed(0)))
    h, y, p = torch.rand(5, 16), torch.randn(5, 3), torch.rand(5, 3).softmax(1)
    t = torch.tensor([0, 1, 59, 249, 999])
    with torch.inference_mode():
        a, b = (net.eps(net.norm(net.encoder_x.g(h)), y, t, p) for net in (narrow, wide))
    assert torch.allclose(a, b, atol=2e-6), f"largest difference {float((a - b).abs().max()):.1e}"
    rows = wide.state_dict()["lin2.lin.weight"]
    assert len(torch.unique(rows, dim=0)) == len(rows)


def test_widening_refuses_a_width_that_is_no_multiple():
    with pytest.raises(SystemExit, match="multiple of 384, got 500"):
        wide_denoiser.train(lambda width: None, lambda net: None, 500, (1, 1), 0, 0.0)


@pytest.mark.parametrize("family", ["v1", "v2"])
def test_the_whole_way_from_pictures_to_a_compiled_model(family, tmp_path, monkeypatch):
    """Grey squares instead of drawings: every stage runs, and what it writes compiles, loads and answers."""
    import fusedx

    def squares(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        rng = np.random.default_rng(seed)
        pictures = torch.from_numpy(rng.integers(0, 256, (count, 3, 224, 224), np.uint8))
        return pictures, torch.arange(count) % drawn_training.CLASSES

    monkeypatch.setattr(drawn_training, "render", squares)
    monkeypatch.setattr(sys, "argv", ["train_reference.py", family, str(tmp_path), "--quick", "--threads", "1"])
    train_reference.main()
    module = {"v1": reference_v1, "v2": reference_v2}[family]
    for name, steps in module.COMPILED.items():
        model = fusedx.load(tmp_path / f"{name}-int8.fusedx")
        assert (model.manifest.precision, model.manifest.schedule.steps) == ("int8", steps)
        found = model.classify(tmp_path / "pictures" / "0000.png")
        assert np.isfinite(found.scores).all()
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["command"] == f"python tools/train_reference.py {family} OUT_DIR --quick --threads 1"
    assert metrics["parameters"] == drawn_training.size(read_back(module, tmp_path, metrics["feature_dim"]))
    with open(tmp_path / "pictures" / "labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 20 and rows[1] == {"path": "0001.png", "label": "Mild"}


def read_back(module, folder: pathlib.Path, feature_dim: int) -> torch.nn.Module:
    """A network of the checkpoint's shapes; its encoders read as a later run with --encoders would."""
    parts = module.read_encoders(folder)
    if module is reference_v1:
        model = td.ConditionalDenoiser(drawn_training.CLASSES, feature_dim, drawn_training.WIDTH)
    else:
        model = v2.Denoiser(drawn_training.CLASSES, feature_dim, drawn_training.WIDTH, module.VIT_WIDTH, module.VIT_DEPTH)
    model.encoder_x.f.load_state_dict(parts.image.state_dict())
    return model


def test_a_smaller_set_of_pictures_is_the_beginning_of_a_larger_one(tmp_path):
    np.save(tmp_path / "pictures-5-7.npy", np.arange(7 * 224 * 224 * 3, dtype=np.uint32).astype(np.uint8).reshape(7, 224, 224, 3))
    images, labels = train_reference.pictures(tmp_path, 3, 5)
    assert images.shape == (3, 3, 224, 224) and labels.tolist() == [0, 1, 2]
    assert (images[2].permute(1, 2, 0).numpy() == np.load(tmp_path / "pictures-5-7.npy")[2]).all()


def test_stability_of_known_draws():
    """Two pictures of class 0: one whose draws always agree, one where a quarter of the draws says class 1."""
    scores = np.zeros((2, 8, 3))
    scores[..., 0] = 1.0
    scores[1, ::4, 1] = 1.5
    found = measure_stability.measure(scores, np.array([0, 0]))
    assert found["differs"][0] == pytest.approx(12.5)          # (0 + 1/4) / 2
    assert found["right"][1][0] == pytest.approx(87.5)
    assert found["right"][4][0] == found["right"][8][0] == 100  # the mean of four has class 0 at 1, class 1 at 0.375
    assert found["below_90"] == pytest.approx(50)
    text = measure_stability.table([{"model": "m", "steps": 60, "start": "mean", "pictures": 2, **found}])
    assert text.count("\n") == 2 and "| 12.5 +- 12.5 % |" in text


@pytest.mark.parametrize("values", [[1.0], [50.0, 50.0, 50.0], [0.0, 99.5, 100.0]], ids=["one point", "flat", "steep"])
def test_charts(tmp_path, values):
    counts = [2**i for i in range(len(values))]
    lines = [line_chart.Line(f"line {k}", counts, values) for k in range(10)]
    line_chart.draw(tmp_path / "new" / "c.png", "A title", "draws", "right, %", lines)
    with Image.open(tmp_path / "new" / "c.png") as image:
        assert image.size == (900, 480) and len(image.convert("RGB").getcolors(1 << 20)) > 20
