"""The one rule of what a changed label is."""

from __future__ import annotations

import numpy as np

from fusedx import agreement

A = np.array([[0.2, 0.9, 0.6], [0.7, 0.7, 0.1], [1.4, 0.5, -0.3]])
B = np.array([[0.8, 0.9, 0.6], [0.6, 0.7, 0.1], [1.2, 0.5, 0.4]])


def test_labels_are_classes_or_one_a_class() -> None:
    assert agreement.changed(agreement.labels(A, "multiclass"), agreement.labels(B, "multiclass")).tolist() == [False, True, False]
    assert agreement.changed(agreement.labels(A, "multilabel"), agreement.labels(B, "multilabel")).tolist() == [True, False, False]
    np.testing.assert_array_equal(agreement.labels(A, "multilabel"), np.clip(A, 0.0, 1.0) > 0.5)  # of probabilities just as well


def test_a_shift_is_the_largest_of_a_class() -> None:
    np.testing.assert_allclose(agreement.shifts(A, B), [0.6, 0.1, 0.7])
