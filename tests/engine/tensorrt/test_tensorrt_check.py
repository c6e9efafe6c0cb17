"""The check refuses every kind of wrong plan that has been reported, names where, and accepts what is merely rounded."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from typed_emulator import Emulator

from fusedx.engine.encoder import onnx_file
from fusedx.engine.encoder.tensorrt.check import (
    CLEAR,
    IMAGES,
    TOLERANCE,
    WrongPlanError,
    check_plan,
    make_references,
    region_margins,
)  # fmt: skip
from fusedx.engine.encoder.tensorrt.typed import typed
from fusedx.engine.errors import UnavailableError
from fusedx.kernels.prior_tail import region_scores, select_regions

BUCKETS = (1, 2, 4, 8, 16)


@pytest.fixture(scope="module")
def right(toy_encoder):
    return Emulator(typed(onnx_file.read(toy_encoder), "fp32")).run


@pytest.fixture(scope="module")
def references(right):
    return make_references(right, "fp16")


def wrong(right, change, bucket=None):
    """A plan whose batches of ``bucket`` images (every batch: None) are changed after the fact."""

    def run(images):
        out = right(images)
        return change({k: v.copy() for k, v in out.items()}) if bucket in (None, len(images)) else out

    return run


def permuted(name, order):
    def change(out):
        out[name] = out[name][order(len(out[name]))]
        return out

    return change


def at(name, row, value):
    def change(out):
        out[name][row] = value
        return out

    return change


WRONG = {
    # what: (change, bucket, output, text)
    "rows swapped": (permuted("feature", lambda n: np.r_[1, 0, 2:n]), 8, "feature", "row 0, feature.*it is the result of row 1's image"),
    "rows moved by one": (permuted("saliency", lambda n: np.roll(np.arange(n), 1)), 4, "saliency", "it is the result of row"),
    "first row everywhere": (permuted("prior", lambda n: np.zeros(n, int)), 2, "prior", "row 1, prior"),
    "last row not computed": (at("feature", -1, np.nan), 16, "feature", "row 15, feature.*NaN"),
    "last row zero": (at("y_local", -1, 0.0), 8, "y_local", "row 7, y_local: relative error 1.0e"),
    "one infinity": (at("feature", (3, 2), np.inf), 4, "feature", "row 3, feature.*bf16 has float32's range"),
    "regions in another order": (permuted("patch_locations", lambda n: np.arange(n)[::-1]), 2, "patch_locations", "relative error inf"),
    "a row that is only nearly right": (lambda o: o | {"prior": o["prior"] * 1.03}, 8, "prior", "row 0, prior: relative error 3.0e-02"),
    "one image alone wrong": (at("saliency", 0, 0.0), 1, "saliency", "batch of 1, row 0"),
    "an output missing": (lambda o: {k: v for k, v in o.items() if k != "prior"}, 2, "prior", "has no output prior"),
    "a bucket too short": (lambda o: {k: v[:-1] for k, v in o.items()}, 4, "saliency", r"shape \[3, .*expected \[4, "),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_plans(what, right, references):
    change, bucket, output, text = WRONG[what]
    with pytest.raises(WrongPlanError, match=text) as caught:
        check_plan(wrong(right, change, bucket), references, BUCKETS, "fp16")
    assert (caught.value.bucket, caught.value.output) == (bucket, output)
    assert isinstance(caught.value, UnavailableError)


@pytest.mark.parametrize("bucket", BUCKETS)
def test_every_bucket_sees_every_image(bucket, right, references):
    seen = []

    def run(images):
        seen.append(images.copy())
        return right(images)

    check_plan(run, references, (bucket,), "fp32")
    assert {len(images) for images in seen} == {bucket}
    assert {image.tobytes() for images in seen for image in images} == {image.tobytes() for image in references.images}


def test_results_of_the_batch_before(right, references):
    """A run that does nothing: the device still holds what the last one of that size wrote."""
    kept = {}

    def run(images):
        return kept.setdefault(len(images), right(images))

    with pytest.raises(WrongPlanError):
        check_plan(run, references, BUCKETS, "fp16")


def test_an_output_that_ignores_the_image(right, references):
    constant = right(references.images[:1])
    with pytest.raises(WrongPlanError):
        check_plan(lambda images: {k: np.repeat(v, len(images), axis=0) for k, v in constant.items()}, references, BUCKETS, "bf16")


def test_right_plans_and_their_bits(right, references, caplog):
    caplog.set_level(logging.INFO, "fusedx")

    def one_by_one(images):
        rows = [right(image[None]) for image in images]
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

    report = check_plan(one_by_one, references, BUCKETS, "fp32")
    assert report.equal_rows and report.equal_buckets and set(report.errors) == set(references.rows)
    assert max(report.errors.values()) < 1e-5 and "one image gives equal bits" in caplog.text

    def by_batch(images):
        out = one_by_one(images)
        return out | {"feature": out["feature"] * np.float32(1 + 1e-5 * len(images))}

    report = check_plan(by_batch, references, BUCKETS, "fp16")
    assert report.equal_rows and not report.equal_buckets and "depend on the batch" in report.describe()

    def by_row(images):
        out = one_by_one(images)
        return out | {"feature": out["feature"] * (1 + 1e-5 * np.arange(len(images), dtype=np.float32))[:, None]}

    report = check_plan(by_row, references, BUCKETS, "fp16")
    assert not report.equal_rows and "depend on the row" in report.describe()
    assert 1e-6 < report.errors["feature"] < 1e-3


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_is_within_the_tolerance(precision, toy_encoder, right):
    run = Emulator(typed(onnx_file.read(toy_encoder), precision)).run
    report = check_plan(run, make_references(right, precision), BUCKETS, precision)
    assert max(report.errors.values()) < TOLERANCE[precision] / 2
    with pytest.raises(WrongPlanError):  # and beyond float32's
        check_plan(run, make_references(right, "fp32"), BUCKETS, "fp32")


def test_images_are_chosen_for_clear_regions(references):
    assert len(references.images) == IMAGES and references.clear.all()
    assert (region_margins(references.rows["saliency"]) >= CLEAR["fp16"]).all()
    cells = select_regions(region_scores(references.rows["saliency"].astype(np.float64)))
    assert np.array_equal(np.stack([cells // 7, cells % 7], axis=-1) * 32, references.rows["patch_locations"])


def test_margins_of_ties():
    saliency = np.random.default_rng(0).normal(size=(2, 3, 7, 7))
    saliency[1, :, 0, 0] = saliency[1, :, 6, 6] = saliency[1].max() + 1
    margins = region_margins(saliency)
    assert margins[0] > 0 and margins[1] == 0
    assert region_margins(np.zeros((1, 3, 7, 7)))[0] == 0


def test_near_ties_are_not_held_against_the_plan(right, caplog):
    """Where the choice is unclear, what follows from it is not compared, what precedes it is, and a person is told."""

    def tied(images):
        out = {k: v.copy() for k, v in right(images).items()}
        out["saliency"][:, :, 0, 0] = out["saliency"][:, :, 0, 1] = 9
        return out

    references = make_references(tied, "fp16")
    assert not references.clear.any() and "no test image has a clear choice" in caplog.text

    def other_choice(out):
        return out | {"patch_locations": out["patch_locations"] + 32, "y_local": -out["y_local"], "prior": out["prior"][:, ::-1]}

    report = check_plan(wrong(tied, other_choice), references, BUCKETS, "fp16")
    assert set(report.errors) == {"saliency", "feature"}
    with pytest.raises(WrongPlanError, match="feature"):
        check_plan(wrong(tied, at("feature", 0, 0.0)), references, BUCKETS, "fp16")


def test_a_model_that_tells_nothing_apart(right):
    constant = right(np.zeros((1, 3, 224, 224), np.float32))
    with pytest.raises(UnavailableError, match="no plan of it can be checked"):
        make_references(lambda images: {k: np.repeat(v, len(images), axis=0) for k, v in constant.items()}, "fp16")


def test_a_reference_that_is_not_finite(right):
    """Nothing compares well with NaN, so no plan passes."""
    references = make_references(right, "fp16")
    references.rows["feature"][...] = np.nan
    with pytest.raises(WrongPlanError, match="feature"):
        check_plan(right, references, (1,), "fp16")
