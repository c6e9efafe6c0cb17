"""The explanation picture.  Positions and lengths are checked on layout data and recorded text boxes, colours on few pixels."""

from __future__ import annotations

import io
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import fusedx
from fusedx.engine.errors import FusedxError
from fusedx.engine.preprocess import normalize, to_square_uint8
from fusedx.explain import bars, explain, heat, typeface
from fusedx.explain.canvas import Box, Canvas
from fusedx.explain.evidence import Evidence, chain_states, collect, likely
from fusedx.explain.header import WARNING, file_name
from fusedx.explain.page import BARS, CHAIN, HEAT, HEIGHT, PICTURE, draw_page
from fusedx.explain.regions import frames
from fusedx.explain.scale import score_range, spread, step_ticks, ticks
from fusedx.explain.theme import WIDTH
from fusedx.inputs import read
from fusedx.prediction import Prediction

PICTURES = Path(__file__).parent / "golden" / "preprocess"
APTOS = ("No DR", "Mild", "Moderate", "Severe", "Proliferative DR")
CHEST = tuple(
    "Atelectasis,Cardiomegaly,Effusion,Infiltration,Mass,Nodule,Pneumonia,Pneumothorax,Consolidation,Edema,Emphysema,Fibrosis,"
    "Pleural Thickening,Hernia,No finding".split(",")
)
_STEM = "Moderately differentiated squamous cell carcinoma of the anterior floor of the mouth with perineural invasion"
LONG = (f"{_STEM}, grade 1", f"{_STEM}, grade 2", "x" * 200, f"1 {_STEM}", "Short")
FOREIGN = ("増殖網膜症", "網膜", "Ödem größer", "здоров", "α-Typ", "\udcff\x00\n", "é", "e")


def evidence(
    classes: tuple[str, ...] = APTOS,
    *,
    seed: int = 0,
    draws: int = 1,
    steps: int = 60,
    early: float = 1.0,
    family: str = "diffmic-v1",
    task: str = "multiclass",
    locations: list[list[int]] | None = None,
    level: int = 255,
    undecided: bool = False,
) -> Evidence:
    """A made-up result with random numbers; the square is plain."""
    rng, c = np.random.default_rng(seed), len(classes)
    scores = rng.normal(0, 0.5, c)
    index = int(scores.argmax())
    probabilities = np.exp(scores) / np.exp(scores).sum() if task == "multiclass" else np.clip(scores, 0, 1)
    states = scores + np.linspace(1, 0, steps + 1)[:, None] ** 3 * early * rng.normal(0, 1, (steps + 1, c))
    model = "demo" * (1 + 40 * (seed % 2)) + ".fusedx"
    prediction = Prediction(
        source="/data/" + "patient_0001_" * (1 + 15 * (seed % 2)) + ".png",
        label=classes[index],
        index=index,
        probabilities=probabilities,
        scores=scores,
        prior=rng.dirichlet(np.ones(c)),
        classes=classes,
        draws=draws,
        stability=1.0,
        standard_error=np.abs(rng.normal(0, 0.1, c)) if draws > 1 else np.full(c, np.nan),
        undecided=undecided,
        image_sha256="ab" * 32,
        patch_locations=np.array(locations or [[0, 0], [32, 64], [64, 64], [0, 0], [192, 192], [0, 0]]),
        saliency=rng.normal(0, 1, (c, 7, 7)).astype(np.float32),
        provenance={"model": model, "model_sha256": "cd" * 32, "fusedx": "0.1.0", "family": family, "seed": 2**64 - 1},
    )
    return Evidence(prediction, np.full((224, 224, 3), level, np.uint8), states, steps, task, likely(prediction, task))


CASES = {
    "aptos": evidence(),
    "two": evidence(("No", "Yes"), seed=1),
    "v2": evidence(APTOS[:4], steps=10, draws=5, family="diffmic-v2", level=0),
    "fifteen": evidence(CHEST, early=40),
    "fifteen labels": evidence(CHEST, task="multilabel", draws=3, level=128),
    "fifteen long": evidence(tuple(f"{_STEM}, subtype {i}" for i in range(15)), seed=1, draws=1000),
    "long": evidence(LONG, seed=3, draws=10, early=3),
    "long predicted": evidence(LONG[::-1], seed=0, draws=10),
    "foreign": evidence(FOREIGN, seed=2),
    "undecided": evidence(draws=64, undecided=True),
    "forty": evidence(tuple(f"condition {i}" for i in range(40)), seed=5),
    "thousand": evidence(tuple(f"condition {i}" for i in range(1000)), seed=6, steps=3),
    "one step": evidence(steps=1, early=1e12),
    "same place": evidence(locations=[[0, 0]] * 6),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_text_stays_on_the_page_and_apart(case: Evidence) -> None:
    canvas = draw_page(case)
    page = Box(0, 0, WIDTH, HEIGHT).inset(24)
    for text in canvas.texts:
        assert page.contains(text.box), text
    for a, b in combinations(canvas.texts, 2):
        assert not a.box.overlaps(b.box), (a, b)
    strings = [t.string for t in canvas.texts]
    assert WARNING in strings
    assert bars.percent(float(case.prediction.probabilities[case.prediction.index])) in strings
    picture = canvas.finish()
    assert (picture.mode, picture.size) == ("RGB", (WIDTH, HEIGHT))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_texts_stay_in_their_panels(case: Evidence) -> None:
    columns = [Box(p.left - 1, 160, p.right + 1, PICTURE.bottom + 60) for p in (PICTURE, HEAT, BARS)]
    for text in draw_page(case).texts:
        if columns[0].top < text.box.top < columns[0].bottom:
            assert any(c.contains(text.box) for c in columns), text
        if CHAIN.top <= text.box.top <= CHAIN.bottom:
            assert CHAIN.left <= text.box.left and text.box.right <= CHAIN.right + 1, text


@pytest.mark.parametrize("name", ["aptos", "fifteen", "forty", "fifteen labels"])
def test_bars_are_as_long_as_the_probabilities(name: str) -> None:
    p = CASES[name].prediction
    found = bars.layout(p, BARS)
    assert len(found) == min(len(p.classes), 15) - (len(p.classes) > 15)
    assert p.index in [b.index for b in found]
    for bar in found:
        assert BARS.contains(bar.track) and bar.track.width == pytest.approx(BARS.width)
        assert bar.fill.left == bar.track.left and bar.fill.width == pytest.approx(p.probabilities[bar.index] * bar.track.width)
        assert bar.prior_x - bar.track.left == pytest.approx(p.prior[bar.index] * bar.track.width)
    assert all(not a.track.overlaps(b.track) for a, b in combinations(found, 2))


@pytest.mark.parametrize("name", ["undecided", "v2", "fifteen labels"])
def test_error_bars_reach_as_far_as_one_standard_error_of_the_score(name: str) -> None:
    case = CASES[name]
    p = case.prediction
    for sign, row in zip((-1, 1), case.likely, strict=True):
        for i in range(len(p.classes)):
            scores = p.scores.copy()
            scores[i] += sign * p.standard_error[i]
            moved = np.clip(scores, 0, 1) if case.task == "multilabel" else np.exp(scores) / np.exp(scores).sum()
            assert row[i] == pytest.approx(moved[i])
    for bar in bars.layout(p, BARS, case.likely):
        assert bar.error is not None and bar.track.left <= bar.error[0] <= bar.fill.right <= bar.error[1] <= bar.track.right
        assert bar.error[1] - bar.track.left == pytest.approx(case.likely[1, bar.index] * bar.track.width)


def test_a_single_draw_has_no_error_bar_and_a_huge_error_stays_on_the_page() -> None:
    assert CASES["aptos"].likely is None and all(bar.error is None for bar in bars.layout(CASES["aptos"].prediction, BARS))
    p = replace(CASES["undecided"].prediction, standard_error=np.full(5, 1e6))
    np.testing.assert_array_equal(likely(p, "multiclass"), [[0.0] * 5, [1.0] * 5])
    sure = replace(p, probabilities=np.array([1.0, 0, 0, 0, 0]), standard_error=np.full(5, 0.1))
    assert np.isfinite(likely(sure, "multiclass")).all() and likely(sure, "multiclass")[:, 0].tolist() == [1.0, 1.0]


def test_an_undecided_label_is_said_to_be_one() -> None:
    said = {t.string for t in draw_page(CASES["undecided"]).texts}
    assert "undecided: depends on the noise" in said
    assert not any("undecided" in t.string for t in draw_page(CASES["long"]).texts)


def test_bars_keep_the_order_of_classes_and_of_many_show_the_best_first() -> None:
    assert bars.shown_classes(CASES["fifteen"].prediction) == list(range(15))
    p = CASES["forty"].prediction
    shown = bars.shown_classes(p)
    assert shown[0] == p.index and np.all(np.diff(p.scores[shown]) <= 0)
    assert any(t.string.startswith("and 26 more classes, together") for t in draw_page(CASES["forty"]).texts)


def test_percentages_never_round_to_certainty() -> None:
    values = [0.0, 1e-9, 0.0005, 0.12345, 0.9994, 0.9999999, 1.0]
    assert [bars.percent(v) for v in values] == ["0.0 %", "< 0.1 %", "0.1 %", "12.3 %", "99.9 %", "> 99.9 %", "100.0 %"]


def test_a_repeated_region_has_one_frame_with_all_its_numbers() -> None:
    square = Box(10, 20, 458, 468)  # two pixels for one of the input
    found = frames(np.array([[0, 0], [32, 64], [0, 0], [0, 0], [192, 160], [0, 0]]), square)
    assert [f.label for f in found] == ["1, 3, 4, 6", "2", "5"]
    assert found[1].box == Box(10 + 2 * 64, 20 + 2 * 32, 10 + 2 * 96, 20 + 2 * 64)  # row down, column right
    assert found[2].box == Box(330, 404, 394, 468)
    assert [f.label for f in frames(np.zeros((6, 2), int), square)] == ["1-6"]
    assert "chosen again" in " ".join(t.string for t in draw_page(CASES["same place"]).texts)


@pytest.mark.parametrize("row,column", [(1, 5), (5, 1), (0, 6), (6, 0), (3, 3)])
@pytest.mark.parametrize("level", [0, 128, 255])
def test_one_hot_cell_lights_its_own_place(row: int, column: int, level: int) -> None:
    saliency = np.zeros((7, 7), np.float32)
    saliency[row, column] = 2.5
    square = Image.new("RGB", (350, 350), (level, level, level))
    difference = np.abs(np.asarray(heat.overlay(square, saliency), int) - np.asarray(heat.overlay(square, np.zeros((7, 7))), int)).sum(-1)
    cells = difference.reshape(7, 50, 7, 50).mean(axis=(1, 3))
    assert np.unravel_index(cells.argmax(), cells.shape) == (row, column)
    far = np.abs(np.add.outer(np.abs(np.arange(7) - row), np.abs(np.arange(7) - column))) > 2
    assert cells[far].max() == 0
    assert difference[50 * row + 25, 50 * column + 25] > 150  # clearly seen on black, grey and white


def test_the_heat_map_is_that_of_the_predicted_class() -> None:
    case = evidence()
    saliency = np.zeros((5, 7, 7), np.float32)
    saliency[case.prediction.index, 2, 4] = 1
    picture = np.asarray(draw_page(replace(case, prediction=replace(case.prediction, saliency=saliency))).finish(), int)
    cell = HEAT.width / 7
    warmth = [[np.ptp(picture[int(HEAT.top + (r + 0.5) * cell), int(HEAT.left + (c + 0.5) * cell)]) for c in range(7)] for r in range(7)]
    assert np.unravel_index(np.argmax(warmth), (7, 7)) == (2, 4)


def test_colours_grow_lighter_from_low_to_high() -> None:
    luminance = heat.colours(np.linspace(0, 1, 50)) @ [0.2126, 0.7152, 0.0722]
    assert np.all(np.diff(luminance) > 0)
    assert heat.opacity(np.array(0.0)) == 0 and np.all(np.diff(heat.opacity(np.linspace(0, 1, 50))) >= 0)


def test_a_flat_saliency_is_said_to_be_flat() -> None:
    case = evidence()
    flat = replace(case, prediction=replace(case.prediction, saliency=np.full((5, 7, 7), 3.0, np.float32)))
    assert "The same everywhere: no place stands out" in [t.string for t in draw_page(flat).texts]


def test_names_that_cannot_be_drawn_become_different_class_numbers() -> None:
    names = typeface.class_names(FOREIGN)
    assert names[:5] == ["class 0", "class 1", "Odem grosser", "class 3", "class 4 (?-Typ)"]
    assert names[6:] == ["class 6 (e)", "class 7 (e)"]
    assert len(set(names)) == len(names)
    assert all(typeface.has_glyph(letter) for name in names for letter in name if letter != " ")


def test_shortened_names_stay_different() -> None:
    names = [f"{'a' * 60} {i} {'b' * 60}" for i in range(15)]
    short = typeface.shorten_all(names, 14, 200)
    assert len(set(short)) == 15 and all(typeface.width(s, 14) <= 200 for s in short)
    assert typeface.shorten("Mild", 14, 200) == "Mild"


@pytest.mark.parametrize("name", ["fifteen", "forty", "aptos"])
def test_every_shown_class_has_a_label_beside_the_chain(name: str) -> None:
    case = CASES[name]
    labels = {t.string for t in draw_page(case).texts if t.box.top > CHAIN.top - 10 and t.box.bottom < CHAIN.bottom}
    assert {case.prediction.classes[i] for i in bars.shown_classes(case.prediction)} <= labels


def test_label_positions() -> None:
    placed = spread([5.0, 5.0, 5.1, 90.0], 10, 0, 100)
    assert np.all(np.diff(placed) >= 10 - 1e-9) and min(placed) >= 0 and placed[3] == 90
    assert spread([100.0, 100.0, 100.0], 10, 0, 100) == pytest.approx([80, 90, 100])
    assert spread([50.0] * 11, 20, 0, 100) == pytest.approx(np.arange(0, 101, 10))
    assert spread([30.0, 10.0], 5, 0, 100) == [30.0, 10.0] and spread([], 5, 0, 100) == []


def test_score_range_keeps_the_end_and_cuts_a_wild_start() -> None:
    states = np.stack([np.linspace(1000, 1, 40), np.zeros(40)], axis=1)
    states[20:, 0] = 1
    low, high, cut = score_range(states)
    assert low < 0 and 3 < high < 4 and cut
    low, high, cut = score_range(states[20:])
    assert low < 0 and 1 < high < 1.2 and not cut
    low, high, _ = score_range(np.ones((5, 3)))
    assert low < 1 < high
    assert score_range(np.full((5, 2), np.nan)) == (0.0, 1.0, False)


def test_states_that_are_not_finite_do_not_stop_the_drawing() -> None:
    case = evidence(steps=10)
    case.states[2:4, 1] = np.nan
    case.states[5, 2] = np.inf
    draw_page(case)


def test_ticks() -> None:
    assert ticks(-1.2, 3.4, 5) == [-1, 0, 1, 2, 3]
    assert step_ticks(250) == [0, 50, 100, 150, 200, 250] and step_ticks(60)[-2:] == [50, 60]
    assert [step_ticks(n) for n in (1, 2, 3)] == [[0, 1], [0, 1, 2], [0, 1, 2, 3]]
    for n in range(1, 1001):
        found = step_ticks(n)
        assert found[0] == 0 and found[-1] == n and len(found) <= 12 and sorted(set(found)) == found


def test_file_names() -> None:
    assert [file_name(s) for s in ("/a/b.png", r"C:\x\b.dcm", "array", "PIL image")] == ["b.png", "b.dcm", "array", "PIL image"]


def test_text_boxes_hold_the_ink() -> None:
    canvas = Canvas(400, 100)
    box = canvas.text(200, 50, "Quality gj", 20, (0, 0, 0), align="middle", bold=True)
    dark = np.argwhere(np.asarray(canvas.finish().convert("L")) < 100)
    (top, left), (bottom, right) = dark.min(0), dark.max(0) + 1
    assert np.allclose((left, top, right, bottom), (box.left, box.top, box.right, box.bottom), atol=1.5)


class FakeModel:
    """As much of fusedx.Model as ``explain`` needs, with a chain that is made up.  wrong: the trace is another chain."""

    def __init__(self, family: str, wrong: bool = False) -> None:
        self.family, self.wrong, self.asked = family, wrong, []
        self.manifest = SimpleNamespace(schedule=SimpleNamespace(steps=10), task="multiclass")

    def read(self, source: object) -> object:
        return read(source)

    def preprocess(self, picture: object) -> np.ndarray:
        return normalize(to_square_uint8(picture.pixels))

    def noise(self, sha256: str, *, draws: int = 1, seed: int | None = None, start: str | None = None) -> np.ndarray:
        self.asked.append((sha256, draws, seed, start))
        return np.zeros((2 if self.family == "diffmic-v2" else 10, draws, 5))

    def classify(self, source: object, *, draws: int = 1, seed: int | None = None, start: str | None = None) -> Prediction:
        p = evidence(steps=10, draws=draws, family=self.family).prediction
        return replace(p, source=str(source), image_sha256=read(source).sha256, provenance=p.provenance | {"seed": seed, "start": start})

    def trace(self, x: np.ndarray, noise: np.ndarray) -> dict[str, np.ndarray]:
        assert x.shape == (1, 3, 224, 224) and noise.shape[1:] == (1, 5)
        states = evidence(steps=10).states[:, None] + self.wrong * 1e-15
        trajectory = np.broadcast_to(states[..., None, None], (11, 1, 5, 6, 6)) if self.family == "diffmic-v2" else states
        return {"trajectory": trajectory, "y_final": states[-1]}


@pytest.mark.parametrize("family", ["diffmic-v1", "diffmic-v2"])
@pytest.mark.parametrize("draws", [1, 4])
def test_explain_takes_all_numbers_from_the_model(family: str, draws: int) -> None:
    model, source = FakeModel(family), PICTURES / "rgb_640x481.png"
    found = collect(model, source, seed=7, draws=draws, start="matched")
    assert model.asked == [(read(source).sha256, 1, 7, "matched")]
    assert np.allclose(found.states, evidence(steps=10).states) and found.states.shape == (11, 5)
    assert np.array_equal(found.square, to_square_uint8(read(source).pixels))
    strings = " ".join(t.string for t in draw_page(found).texts)
    facts = (family, "10 steps", "seed 7", "from the matched start", read(source).sha256[:12], "cdcdcdcdcdcd", "fusedx 0.1.0")
    for part in ("rgb_640x481.png", *facts, WARNING):
        assert part in strings
    assert ("draw 1 of 4" in strings) == (draws == 4) == ("Stability" in strings)
    assert ("mean of the 6 x 6 map" in strings) == (family == "diffmic-v2")


def test_a_second_opinion_is_refused() -> None:
    with pytest.raises(FusedxError, match=r"ends in .* for class 0 \(No DR\), but classify gave"):
        explain(FakeModel("diffmic-v1", wrong=True), PICTURES / "small_60x50.png")


def test_a_picture_that_changed_is_refused() -> None:
    model = FakeModel("diffmic-v1")
    model.read = lambda source: read(np.zeros((8, 8), np.uint8))
    with pytest.raises(FusedxError, match="changed"):
        explain(model, PICTURES / "small_60x50.png")


def test_chain_states_are_the_mean_of_the_map() -> None:
    trajectory = np.random.default_rng(0).normal(size=(11, 1, 4, 6, 6))
    assert np.array_equal(chain_states(trajectory), trajectory[:, 0].mean(axis=(-2, -1)))


def test_the_same_input_gives_the_same_bytes() -> None:
    def png() -> bytes:
        file = io.BytesIO()
        explain(FakeModel("diffmic-v1"), PICTURES / "gray_512x512.png", seed=1).save(file, "PNG")
        return file.getvalue()

    assert png() == png()


@pytest.mark.parametrize("name", ["photo_450x600.jpg", "rgba_97x400.png", "gray_512x512.png"])
def test_a_compiled_model(small_model: Path, name: str) -> None:
    """draws == 1 also proves, inside explain, that the traced chain is bit for bit the classified one."""
    model = fusedx.load(small_model)
    picture = explain(model, PICTURES / name, seed=3)
    assert (picture.mode, picture.size) == ("RGB", (WIDTH, HEIGHT))
    found = collect(model, PICTURES / name, seed=3, draws=1)
    assert np.array_equal(found.states[-1], model.classify(PICTURES / name, seed=3).scores)
    assert picture.tobytes() == draw_page(found).finish().tobytes()
    assert picture.tobytes() != explain(model, PICTURES / name, seed=4).tobytes()


def test_several_draws_of_a_compiled_model(small_model: Path) -> None:
    """The first draw of many is the only draw of one."""
    model = fusedx.load(small_model)
    many = collect(model, PICTURES / "small_60x50.png", seed=3, draws=4)
    one = collect(model, PICTURES / "small_60x50.png", seed=3, draws=1)
    assert many.prediction.draws == 4 and np.array_equal(many.states, one.states)
    explain(model, PICTURES / "small_60x50.png", seed=3, draws=4)
