"""Scores against scikit-learn and torchmetrics, intervals against a bootstrap that draws rows."""

from __future__ import annotations

import json
import time
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import sklearn.metrics as oracle
from hypothesis import given, settings
from hypothesis import strategies as st

from bertwright.errors import BertwrightError
from bertwright.evaluation.metrics import (
    METRICS,
    classification_metrics,
    matthews_per_batch,
    metrics_of,
)

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


def drawn(examples: int, classes: int, skill: float = 1.0, seed: int = 0) -> tuple[IntArray, FloatArray]:
    """Labels, and probabilities that know something of them."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, classes, examples)
    logits = rng.normal(size=(examples, classes)) + skill * np.eye(classes)[true]
    odds = np.exp(2 * logits)
    return true, odds / odds.sum(axis=1, keepdims=True)


def class_names(classes: int) -> list[str]:
    return [f"class {index}" for index in range(classes)]


@st.composite
def labelled(draw: st.DrawFn) -> tuple[IntArray, IntArray, int]:
    """Few examples of up to eight classes, so that absent classes and single-class columns are common."""
    classes = draw(st.integers(2, 8))
    pairs = st.tuples(st.integers(0, classes - 1), st.integers(0, classes - 1))
    rows = np.array(draw(st.lists(pairs, min_size=1, max_size=40)), dtype=np.int64)
    return rows[:, 0], rows[:, 1], classes


def one_hot(predicted: IntArray, classes: int) -> FloatArray:
    return np.eye(classes)[predicted]


@given(labelled())
@settings(max_examples=150, deadline=None)
def test_scores_are_those_of_scikit_learn(case: tuple[IntArray, IntArray, int]) -> None:
    true, predicted, classes = case
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of single labels; bertwright must not, and it runs outside
        expected = {
            "accuracy": oracle.accuracy_score(true, predicted),
            "f1_macro": oracle.f1_score(true, predicted, average="macro", zero_division=0),
            "matthews_correlation": oracle.matthews_corrcoef(true, predicted),
            "f1": oracle.f1_score(true == 1, predicted == 1, zero_division=0),
        }
    found = {name: METRICS[name](true, predicted, classes) for name in METRICS}
    assert found == pytest.approx(expected)
    assert ("f1" in metrics_of(classes)) == (classes == 2)


@given(labelled(), st.sampled_from(metrics_of(3)))
@settings(max_examples=60, deadline=None)
def test_any_confusion_gives_a_whole_and_consistent_report(case: tuple[IntArray, IntArray, int], headline: str) -> None:
    true, predicted, classes = case
    names = class_names(classes)
    found = classification_metrics(true, one_hot(predicted, classes), names, bootstrap_samples=50, headline=headline)
    json.dumps(found, allow_nan=False)
    matrix = np.array(found["confusion_matrix"])
    assert matrix.tolist() == oracle.confusion_matrix(true, predicted, labels=range(classes)).tolist()
    assert [found["per_class"][name]["support"] for name in names] == matrix.sum(axis=1).tolist()
    assert found["accuracy"] == pytest.approx(np.trace(matrix) / matrix.sum())
    assert found["majority_accuracy"] == pytest.approx(matrix.sum(axis=1).max() / len(true))
    # A one-hot prediction is sure of itself, so what it lacks in accuracy is its calibration error.
    assert found["calibration_error"] == pytest.approx(1 - found["accuracy"])
    seen = [name for index, name in enumerate(names) if matrix[index].sum() + matrix[:, index].sum()]
    assert found["f1_macro"] == pytest.approx(np.mean([found["per_class"][name]["f1"] for name in seen]))
    assert ("f1_macro_note" in found) == (len(seen) < classes)
    assert (found["roc_auc"] is None) == ("roc_auc_note" in found) == (len(set(true.tolist())) < classes)
    low, high = found["headline"]["interval_95"]
    assert -1 <= low <= high <= 1
    assert found["headline"] == {
        "metric": headline,
        "value": found[headline],
        "interval_95": [low, high],
        "samples": 50,
    }


@pytest.mark.parametrize("classes", [2, 3, 11])
def test_every_number_has_an_oracle(classes: int) -> None:
    true, probabilities = drawn(700, classes)
    predicted = probabilities.argmax(axis=1)
    found = classification_metrics(true, probabilities, class_names(classes), bootstrap_samples=10)
    expected = oracle.classification_report(
        true, predicted, labels=range(classes), target_names=class_names(classes), output_dict=True, zero_division=0
    )
    for name in class_names(classes):
        row = found["per_class"][name]
        assert [row["precision"], row["recall"], row["f1"], row["support"]] == pytest.approx(
            [expected[name][key] for key in ("precision", "recall", "f1-score", "support")]
        )
    assert found["f1_macro"] == pytest.approx(expected["macro avg"]["f1-score"])
    assert found["matthews_correlation"] == pytest.approx(oracle.matthews_corrcoef(true, predicted))
    score = probabilities[:, 1] if classes == 2 else probabilities
    assert found["roc_auc"] == pytest.approx(oracle.roc_auc_score(true, score, multi_class="ovr", average="macro"))


@pytest.mark.parametrize(("classes", "skill"), [(2, 0.3), (2, 2.0), (5, 1.0)])
def test_calibration_error_is_that_of_torchmetrics(classes: int, skill: float) -> None:
    torch = pytest.importorskip("torch")
    calibration = pytest.importorskip("torchmetrics.functional.classification").multiclass_calibration_error
    true, probabilities = drawn(900, classes, skill)
    found = classification_metrics(true, probabilities, class_names(classes), bootstrap_samples=1)
    expected = calibration(
        torch.from_numpy(probabilities), torch.from_numpy(true), num_classes=classes, n_bins=15, norm="l1"
    )
    assert found["calibration_error"] == pytest.approx(float(expected), abs=1e-6)


def test_calibration_by_hand() -> None:
    probabilities = [[0.9, 0.1], [0.92, 0.08], [0.3, 0.7], [0.0, 1.0]]
    found = classification_metrics([0, 1, 1, 1], probabilities, ["a", "b"], bootstrap_samples=1)
    filled = [b for b in found["reliability"] if b["count"]]
    assert [(b["count"], b["accuracy"]) for b in filled] == [(1, 1.0), (2, 0.5), (1, 1.0)]
    assert [b["confidence"] for b in filled] == pytest.approx([0.7, 0.91, 1.0])
    assert found["calibration_error"] == pytest.approx(0.25 * 0.3 + 0.5 * 0.41 + 0.25 * 0.0)
    empty = [b for b in found["reliability"] if not b["count"]]
    assert len(empty) == 12
    assert all(b["confidence"] is None and b["accuracy"] is None for b in empty)


def test_a_confidence_on_an_edge_belongs_to_the_bin_below() -> None:
    edge = float(np.linspace(0, 1, 16)[9])
    found = classification_metrics([0], [[edge, 1 - edge]], ["a", "b"], bootstrap_samples=1)
    (filled,) = [b for b in found["reliability"] if b["count"]]
    assert filled["high"] == edge


def row_bootstrap(true: IntArray, predicted: IntArray, samples: int) -> dict[str, FloatArray]:
    """The textbook bootstrap of a two-class problem: draw rows, and score each draw by its plain definition."""
    rows = np.random.default_rng(7).integers(0, len(true), size=(samples, len(true)))
    t, p = true[rows].astype(float), predicted[rows].astype(float)
    f1 = [2 * ((t == c) & (p == c)).sum(axis=1) / ((t == c).sum(axis=1) + (p == c).sum(axis=1)) for c in (0, 1)]
    covariance = ((t - t.mean(axis=1, keepdims=True)) * (p - p.mean(axis=1, keepdims=True))).mean(axis=1)
    return {
        "accuracy": (t == p).mean(axis=1),
        "f1_macro": np.mean(f1, axis=0),
        "f1": f1[1],
        "matthews_correlation": covariance / (t.std(axis=1) * p.std(axis=1)),
    }


@pytest.mark.parametrize("headline", metrics_of(2))
def test_interval_is_that_of_resampled_rows(headline: str) -> None:
    true, probabilities = drawn(300, 2, skill=0.7)
    found = classification_metrics(true, probabilities, ["a", "b"], bootstrap_samples=5000, headline=headline)
    values = row_bootstrap(true, probabilities.argmax(axis=1), 5000)[headline]
    # Each end has a Monte Carlo error of about 0.04 standard deviations; a wrong resampling is off by far more.
    assert found["headline"]["interval_95"] == pytest.approx(np.percentile(values, [2.5, 97.5]), abs=0.2 * values.std())


def test_interval_of_many_classes_is_that_of_resampled_rows() -> None:
    true, probabilities = drawn(120, 5)
    predicted = probabilities.argmax(axis=1)
    rng = np.random.default_rng(3)
    draws = [rng.integers(0, len(true), len(true)) for _ in range(500)]
    for headline in metrics_of(5):
        values = np.array([METRICS[headline](true[rows], predicted[rows], 5) for rows in draws])
        found = classification_metrics(true, probabilities, class_names(5), bootstrap_samples=4000, headline=headline)[
            "headline"
        ]["interval_95"]
        assert found == pytest.approx(np.percentile(values, [2.5, 97.5]), abs=0.4 * values.std())


def test_interval_holds_the_truth_about_95_times_of_100() -> None:
    rng = np.random.default_rng(11)
    held = 0
    for seed in range(200):
        true = rng.integers(0, 2, 150)
        predicted = np.where(rng.random(150) < 0.8, true, 1 - true)
        found = classification_metrics(true, one_hot(predicted, 2), ["a", "b"], bootstrap_samples=300, seed=seed)
        low, high = found["headline"]["interval_95"]
        held += low <= 0.8 <= high
    # Three standard errors of 200 trials are 0.046.
    assert 0.90 <= held / 200 <= 0.99


def test_the_seed_fixes_the_interval_and_memory_bounds_do_not_move_it(monkeypatch: pytest.MonkeyPatch) -> None:
    true, probabilities = drawn(400, 6)

    def interval(seed: int) -> Any:
        return classification_metrics(true, probabilities, class_names(6), seed=seed)["headline"]["interval_95"]

    first = interval(1)
    assert interval(1) == first
    assert len({tuple(interval(seed)) for seed in range(8)}) > 1
    monkeypatch.setattr("bertwright.evaluation.bootstrap.GROUPS_AT_ONCE", 250)
    assert interval(1) == first


def test_a_perfect_classifier_leaves_no_doubt() -> None:
    true = np.arange(40) % 4
    found = classification_metrics(true, one_hot(true, 4), class_names(4))
    assert found["headline"]["interval_95"] == [1.0, 1.0]
    assert found["roc_auc"] == found["matthews_correlation"] == found["f1_macro"] == 1.0
    assert found["calibration_error"] == 0.0


def test_ten_thousand_rows_of_77_classes_take_no_time() -> None:
    true, probabilities = drawn(10_000, 77)
    started = time.perf_counter()
    classification_metrics(true, probabilities, class_names(77), headline="f1_macro")
    # Half a second on one core; resampling rows takes a minute. The rest is room for a busy machine.
    assert time.perf_counter() - started < 5


def test_one_class_only_in_the_labels() -> None:
    found = classification_metrics([1, 1, 1], [[0.2, 0.8], [0.6, 0.4], [0.1, 0.9]], ["no", "yes"])
    assert found["roc_auc"] is None
    assert found["roc_auc_note"] == "undefined: no example of class 'no'"
    assert found["matthews_correlation"] == 0.0
    assert found["majority_accuracy"] == 1.0
    assert found["per_class"]["no"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}


def test_classes_that_are_nowhere_are_left_out_of_the_mean_and_told() -> None:
    found = classification_metrics([0, 1], one_hot(np.array([0, 1]), 5), class_names(5))
    assert found["f1_macro"] == 1.0
    assert found["f1_macro_note"] == "the mean leaves out 3 of 5 classes, in neither the labels nor the predictions"
    assert found["roc_auc_note"] == "undefined: no example of class 'class 2' and of 2 more"


def test_a_class_that_is_never_predicted() -> None:
    found = classification_metrics([0, 1, 2], one_hot(np.array([0, 1, 1]), 3), class_names(3))
    assert found["per_class"]["class 2"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1}
    assert found["f1_macro"] == pytest.approx((1 + 2 / 3 + 0) / 3)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_narrow_floats_are_taken(dtype: type[np.floating[Any]]) -> None:
    true, probabilities = drawn(300, 20)
    found = classification_metrics(true, probabilities.astype(dtype), class_names(20), bootstrap_samples=5)
    wide = classification_metrics(true, probabilities, class_names(20), bootstrap_samples=5)
    assert found["roc_auc"] == pytest.approx(wide["roc_auc"], abs=1e-3)
    assert found["accuracy"] == pytest.approx(wide["accuracy"], abs=0.01)


GOOD = [[0.5, 0.5], [0.1, 0.9]]


@pytest.mark.parametrize(
    ("true", "probabilities", "names", "complaint"),
    [
        ([], np.zeros((0, 2)), ["a", "b"], "at least one example"),
        ([0, 1], [[0.5, 0.5], [np.nan, 0.9]], ["a", "b"], r"row 1 .* holds nan \(1 such rows\).*diverged"),
        ([0, 1], [[np.inf, 0.5], [0.1, 0.9]], ["a", "b"], "row 0 .* holds inf"),
        ([0, 1], [[0.5, 0.5], [-2.5, 3.5]], ["a", "b"], "row 1 .* holds -2.5 .*not logits"),
        ([0, 1], [[0.5, 0.5], [0.2, 0.3]], ["a", "b"], "row 1 .* sums to 0.5"),
        ([0, 1, 1], GOOD, ["a", "b"], r"shape \(2, 2\); expected \(3, 2\)"),
        ([0, 1], GOOD, ["a", "b", "c"], r"shape \(2, 2\); expected \(2, 3\)"),
        ([0, 2], GOOD, ["a", "b"], "label of row 1 is 2; 2 classes are 0 to 1"),
        ([-1, 1], GOOD, ["a", "b"], "label of row 0 is -1"),
        ([0.0, 1.0], GOOD, ["a", "b"], "float64 array .* integer class index"),
        ([[0, 1]], GOOD, ["a", "b"], r"shape \(1, 2\); give one integer"),
        ([0, 1], GOOD, ["a", "a"], "'a' is given 2 times"),
        ([0, 0], [[1.0], [1.0]], ["a"], "at least two"),
    ],
)
def test_what_a_user_can_get_wrong(true: Any, probabilities: Any, names: list[str], complaint: str) -> None:
    with pytest.raises(BertwrightError, match=complaint):
        classification_metrics(true, probabilities, names)


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    with pytest.raises(BertwrightError, match=r"unknown metric 'f1-macro'; known: accuracy, .*did you mean 'f1_macro'"):
        classification_metrics([0, 1], GOOD, ["a", "b"], headline="f1-macro")
    with pytest.raises(BertwrightError, match="bootstrap_samples is 0"):
        classification_metrics([0, 1], GOOD, ["a", "b"], bootstrap_samples=0)


@pytest.mark.parametrize("name", sorted(METRICS))
def test_metrics_refuse_what_they_cannot_score(name: str) -> None:
    with pytest.raises(BertwrightError, match="at least one example"):
        METRICS[name]([], [], 2)
    with pytest.raises(BertwrightError, match="2 true labels but 3 predicted"):
        METRICS[name]([0, 1], [0, 1, 1], 2)
    with pytest.raises(BertwrightError, match="predicted label of row 1 is 4"):
        METRICS[name]([0, 1], [0, 4], 2)


@pytest.mark.parametrize(("examples", "batch_size", "batches"), [(100, 32, 4), (64, 32, 2), (5, 32, 1), (7, 1, 7)])
def test_matthews_per_batch(examples: int, batch_size: int, batches: int) -> None:
    true, probabilities = drawn(examples, 3)
    predicted = probabilities.argmax(axis=1)
    found = matthews_per_batch(true, predicted, batch_size)
    slices = [slice(start, start + batch_size) for start in range(0, examples, batch_size)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = [oracle.matthews_corrcoef(true[part], predicted[part]) for part in slices]
    assert len(found) == batches
    assert found == pytest.approx(expected)
    assert json.loads(json.dumps(found)) == found


def test_matthews_per_batch_refuses() -> None:
    with pytest.raises(BertwrightError, match="batch_size is 0"):
        matthews_per_batch([0, 1], [0, 1], 0)
    with pytest.raises(BertwrightError, match="at least one example"):
        matthews_per_batch([], [])
    with pytest.raises(BertwrightError, match="true label of row 0 is -1; classes count from 0"):
        matthews_per_batch([-1], [0])
    with pytest.raises(BertwrightError, match="1 true labels but 2 predicted"):
        matthews_per_batch([1], [0, 1])
