"""Measures of label sets and their thresholds, each against another's arithmetic."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support

from bertwright.errors import BertwrightError
from bertwright.evaluation.label_sets import LabelSets, best_threshold, label_set_metrics, tuned_thresholds

Bools = np.ndarray[Any, np.dtype[np.bool_]]
Floats = np.ndarray[Any, np.dtype[np.float64]]
shapes = st.tuples(st.integers(1, 25), st.integers(2, 4))
# Tenths, so that many probabilities are equal.
decisions = shapes.flatmap(
    lambda shape: st.tuples(
        arrays(np.bool_, shape), arrays(np.float64, shape, elements=st.integers(0, 10).map(lambda i: i / 10))
    )
)


@given(decisions)
@settings(max_examples=60, deadline=None)
def test_scores_are_those_of_scikit_learn(both: tuple[Bools, Floats]) -> None:
    true_BC, probabilities_BC = both
    names = [f"label {c}" for c in range(true_BC.shape[1])]
    found = label_set_metrics(true_BC, probabilities_BC, np.full(len(names), 0.5), names, "f1_micro", samples=2)
    predicted_BC = probabilities_BC >= 0.5
    assert found["f1_micro"] == pytest.approx(f1_score(true_BC, predicted_BC, average="micro", zero_division=0))
    if true_BC.any() or predicted_BC.any():
        # NaN leaves out what occurs nowhere, as here.
        expected = f1_score(true_BC, predicted_BC, average="macro", zero_division=np.nan)
        assert found["f1_macro"] == pytest.approx(expected)
    assert found["subset_accuracy"] == pytest.approx(accuracy_score(true_BC, predicted_BC))
    columns = precision_recall_fscore_support(true_BC, predicted_BC, average=None, zero_division=0)
    for name, *expected_scores in zip(names, *columns, strict=True):
        scores = found["per_class"][name]
        assert [scores[key] for key in ("precision", "recall", "f1", "support")] == pytest.approx(expected_scores)
    micro = precision_recall_fscore_support(true_BC, predicted_BC, average="micro", zero_division=0)
    assert [found["precision_micro"], found["recall_micro"]] == pytest.approx(micro[:2])
    assert ("f1_macro_note" in found) == bool((~true_BC.any(0) & ~predicted_BC.any(0)).any())


@given(decisions)
@settings(max_examples=60, deadline=None)
def test_no_threshold_is_better_than_the_tuned_one(both: tuple[Bools, Floats]) -> None:
    true_BC, probabilities_BC = both

    def f1(threshold: float) -> float:
        given = probabilities_BC >= threshold
        return float(2 * (true_BC & given).sum() / max(true_BC.sum() + given.sum(), 1))

    tuned = best_threshold(true_BC, probabilities_BC)
    assert 0 <= tuned <= 1
    assert f1(tuned) == pytest.approx(max(f1(tenth / 10) for tenth in range(11)))
    rows = np.arange(len(true_BC))
    shared = tuned_thresholds(true_BC, probabilities_BC, per_label=False)
    own = tuned_thresholds(true_BC, probabilities_BC, per_label=True)
    assert shared.tolist() == [tuned] * true_BC.shape[1]
    tallies = [LabelSets(true_BC, probabilities_BC >= thresholds).tallies(rows) for thresholds in (shared, own)]
    shared_f1, own_f1 = (2 * hits / np.maximum(true + predicted, 1) for hits, true, predicted in tallies)
    assert (own_f1 >= shared_f1 - 1e-12).all()


def test_a_threshold_lies_half_way_between_two_probabilities() -> None:
    true = np.array([True, True, False, True, False])
    assert best_threshold(true, np.array([0.9, 0.8, 0.4, 0.6, 0.1])) == pytest.approx(0.5)
    assert best_threshold(true, np.array([0.9, 0.8, 0.1, 0.8, 0.1])) == pytest.approx(0.45)
    assert best_threshold(np.array([True]), np.array([0.3])) == pytest.approx(0.15)
    close = np.nextafter(0.7, 1)
    assert best_threshold(np.array([True, False]), np.array([close, 0.7])) == close


def test_without_a_true_label_there_is_nothing_to_tune_by() -> None:
    none = np.zeros((3, 2), dtype=np.bool_)
    probabilities = np.full((3, 2), 0.2)
    assert tuned_thresholds(none, probabilities, per_label=True).tolist() == [0.5, 0.5]
    one = np.array([[True, False], [True, False], [False, False]])
    first, second = tuned_thresholds(one, np.array([[0.9, 0.1], [0.8, 0.1], [0.3, 0.1]]), per_label=True)
    assert first == second == pytest.approx(0.55)  # the second label takes the one for all


def test_a_measurement_is_json_and_its_interval_is_around_its_value() -> None:
    random = np.random.default_rng(0)
    true_BC = random.random((300, 3)) < 0.3
    noisy_BC = np.clip(true_BC * 0.5 + random.random((300, 3)) * 0.5, 0, 1)
    found = label_set_metrics(true_BC, noisy_BC, np.array([0.4, 0.5, 0.6]), "abc", "f1_macro", ["s"] * 200 + ["t"] * 100)
    low, high = found["headline"]["interval_95"]
    assert low < found["f1_macro"] == found["headline"]["value"] < high
    assert high - low < 0.15
    assert found["labels_per_example"] == pytest.approx(true_BC.sum() / 300)
    assert [found["per_class"][name]["threshold"] for name in "abc"] == [0.4, 0.5, 0.6]
    assert {name: part["examples"] for name, part in found["per_source"].items()} == {"s": 200, "t": 100}
    assert found["per_source"]["s"]["f1_micro"] == pytest.approx(
        f1_score(true_BC[:200], noisy_BC[:200] >= [0.4, 0.5, 0.6], average="micro")
    )
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@pytest.mark.parametrize(
    ("true", "probabilities", "message"),
    [
        (np.zeros((0, 2), bool), np.zeros((0, 2)), r"truth of shape \(0, 2\), probabilities of \(0, 2\)"),
        (np.zeros((2, 2), bool), np.zeros((3, 2)), r"truth of shape \(2, 2\), probabilities of \(3, 2\)"),
        (np.zeros((2, 3), bool), np.zeros((2, 3)), "2 thresholds for 2 labels"),
        (np.zeros((1, 2), bool), np.array([[0.5, np.nan]]), "a probability is not in 0 to 1"),
        (np.zeros((1, 2), bool), np.array([[0.5, 1.5]]), "a probability is not in 0 to 1"),
    ],
)
def test_what_cannot_be_measured_is_refused(true: Bools, probabilities: Floats, message: str) -> None:
    with pytest.raises(BertwrightError, match=message):
        label_set_metrics(true, probabilities, np.full(2, 0.5), ["a", "b"], "f1_micro")
