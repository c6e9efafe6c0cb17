"""A result that is not the published chain's says so wherever it appears."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import fusedx
from fusedx.cli import commands
from fusedx.explain.evidence import collect
from fusedx.explain.page import draw_page

PICTURE = Path(__file__).parent / "golden" / "preprocess" / "photo_450x600.png"


@pytest.fixture(scope="module")
def model(small_model: Path) -> fusedx.Model:
    return fusedx.load(small_model)


@pytest.fixture(scope="module")
def picture() -> Path:
    return next(p for p in sorted(PICTURE.parent.iterdir()) if p.suffix in (".png", ".jpg") and "photo" in p.name)


def test_a_prediction_says_so(model: fusedx.Model, picture: Path) -> None:
    exact, few = model.classify(picture), model.classify(picture, solver="unipc", solver_steps=7, draws=3)
    assert exact.provenance["approximate"] is None
    assert few.provenance["approximate"] == {"solver": "unipc", "steps": 7}
    assert json.loads(json.dumps(few.to_dict()))["provenance"]["approximate"]["steps"] == 7
    assert few.timing["rows"] == 21 and few.probabilities.tobytes() != exact.probabilities.tobytes()


@pytest.mark.parametrize("solver", ["ddim", "dpmpp-2m", "unipc"])
def test_bits_do_not_depend_on_the_batch_or_the_start_of_others(model: fusedx.Model, picture: Path, solver: str) -> None:
    rng = np.random.default_rng(0)
    others = [rng.integers(0, 256, (40, 50, 3), dtype=np.uint8) for _ in range(6)]
    alone = model.classify(picture, solver=solver, solver_steps=5, draws=2, start="matched")
    among = model.classify([*others[:4], picture, *others[4:]], solver=solver, solver_steps=5, draws=2, start="matched")[4]
    assert alone.scores.tobytes() == among.scores.tobytes()
    assert alone.scores.tobytes() != model.classify(picture, solver=solver, solver_steps=5, draws=2).scores.tobytes()


def test_backends_agree(small_model: Path, picture: Path) -> None:
    pytest.importorskip("fusedx._native")
    few = {"solver": "dpmpp-2m", "solver_steps": 9}
    one, other = (fusedx.load(small_model, backend=name).classify(picture, **few) for name in ("native", "python"))
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"solver": "unipc", "solver_steps": 251}, "from 1 to 250"),
        ({"solver": "unipc"}, "needs solver_steps"),
        ({"solver_step": 5}, "no setting"),
    ],
)
def test_impossible_settings_are_refused(model: fusedx.Model, picture: Path, settings: dict, words: str) -> None:
    with pytest.raises(fusedx.ConfigError, match=words):
        model.classify(picture, **settings)
    with pytest.raises(fusedx.ConfigError, match=words):
        model.stream([picture], **settings)


def test_a_runner_without_solvers_says_where_they_run(model: fusedx.Model, small_model: Path, picture: Path) -> None:
    other = fusedx.load(small_model)

    class Device:
        name, precision = "triton", "fp32"

    other._engine.chains = Device()  # type: ignore[assignment]
    with pytest.raises(fusedx.ConfigError, match="on a CPU alone"):
        other.classify(picture, solver="ddim", solver_steps=5)


def test_the_explanation_draws_the_solvers_own_steps_and_is_marked(model: fusedx.Model, picture: Path) -> None:
    evidence = collect(model, picture, solver="ddim", solver_steps=6)
    assert evidence.steps == 6 and len(evidence.states) == 7
    texts = [text.string for text in draw_page(evidence).texts]
    assert any("APPROXIMATE: ddim, 6 steps" in text for text in texts) and any("ddim, 6 steps · 1 draw" in text for text in texts)
    assert not any("APPROXIMATE" in text.string for text in draw_page(collect(model, picture)).texts)


def test_tables_and_the_summary_say_so_and_a_run_is_not_continued_by_another(small_model: Path, picture: Path, tmp_path: Path) -> None:
    out = tmp_path / "t.csv"
    line = ["classify", str(small_model), str(picture), "-o", str(out), "--solver", "ddim", "--solver-steps", "5"]
    done = CliRunner().invoke(commands, line)
    assert done.exit_code == 0 and "approximate: ddim in 5 steps" in done.stderr
    with open(out, newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["solver"], row["solver_steps"], row["temperature"]) == ("ddim", "5", "")
    assert CliRunner().invoke(commands, [*line, "--resume"]).exit_code == 0
    other = CliRunner().invoke(commands, [*line[:-1], "6", "--resume"])
    assert other.exit_code == 2 and "computed with solver_steps 5" in other.stderr
