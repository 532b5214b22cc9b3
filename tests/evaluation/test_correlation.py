"""Measures of predicted numbers, each against another's arithmetic."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score, root_mean_squared_error

from bertwright.errors import BertwrightError
from bertwright.evaluation.correlation import pearson, r_squared, ranks, regression_metrics, spearman

Array = np.ndarray[Any, np.dtype[np.float64]]

# Quarters, so that many values are equal, as in scores that people give.
scores = st.integers(2, 40).flatmap(
    lambda n: st.tuples(*[arrays(np.float64, n, elements=st.integers(-8, 8).map(lambda i: i / 4))] * 2)
)


@given(scores)
@settings(max_examples=60, deadline=None)
def test_correlations_and_errors_are_those_of_scipy_and_scikit_learn(both: tuple[Array, Array]) -> None:
    from scipy import stats  # type: ignore[import-untyped]

    true_B, predicted_B = both
    assume(np.ptp(true_B) > 0 and np.ptp(predicted_B) > 0)
    found = regression_metrics(true_B, predicted_B, "pearson", samples=2)
    np.testing.assert_array_equal(ranks(true_B), stats.rankdata(true_B))
    assert found["pearson"] == pytest.approx(stats.pearsonr(true_B, predicted_B).statistic, abs=1e-12)
    assert found["spearman"] == pytest.approx(stats.spearmanr(true_B, predicted_B).statistic, abs=1e-12)
    assert found["r_squared"] == pytest.approx(r2_score(true_B, predicted_B), abs=1e-9)
    assert found["mean_squared_error"] == pytest.approx(mean_squared_error(true_B, predicted_B))
    assert found["root_mean_squared_error"] == pytest.approx(root_mean_squared_error(true_B, predicted_B))
    assert found["mean_absolute_error"] == pytest.approx(mean_absolute_error(true_B, predicted_B))


@given(scores, st.floats(1e-3, 1e3), st.floats(-1e3, 1e3))
@settings(max_examples=30, deadline=None)
def test_correlations_do_not_depend_on_unit_and_zero(both: tuple[Array, Array], unit: float, zero: float) -> None:
    true_B, predicted_B = both
    assert pearson(true_B, predicted_B * unit + zero) == pytest.approx(pearson(true_B, predicted_B), abs=1e-8)
    assert pearson(predicted_B, true_B) == pytest.approx(pearson(true_B, predicted_B), abs=1e-12)
    assert spearman(true_B, np.exp(predicted_B)) == pytest.approx(spearman(true_B, predicted_B), abs=1e-12)


@pytest.mark.parametrize("scale", [1e-200, 1e-8, 1e8, 1e150])
def test_no_scale_of_scores_is_lost(scale: float) -> None:
    true_B = np.array([1.0, 2.0, 3.0, 5.0])
    predicted_B = np.array([1.5, 1.0, 4.0, 4.0])
    assert pearson(true_B * scale, predicted_B) == pytest.approx(np.corrcoef(true_B, predicted_B)[0, 1])


def test_what_is_undefined_is_zero_and_said() -> None:
    found = regression_metrics([1, 2, 3], [2, 2, 2], "spearman", samples=5)
    assert (found["pearson"], found["spearman"], found["r_squared"]) == (0, 0, 0)
    assert found["correlation_note"] == "undefined, shown as 0: all predicted values are one"
    assert r_squared(np.ones(3), np.arange(3.0)) == 0
    assert "correlation_note" not in regression_metrics([1, 2], [1, 3], "spearman", samples=5)


def test_one_example_is_enough() -> None:
    found = regression_metrics([1], [3], "pearson", samples=5)
    assert found["examples"] == 1
    assert found["mean_absolute_error"] == 2
    assert found["headline"]["interval_95"] == [0, 0]


def test_the_headline_has_an_interval_around_its_value_and_everything_is_json() -> None:
    random = np.random.default_rng(0)
    true_B = random.normal(size=400)
    found = regression_metrics(true_B, true_B + random.normal(size=400), "pearson", ["a"] * 300 + ["b"] * 100)
    low, high = found["headline"]["interval_95"]
    # Fisher's interval of a correlation between normal variables.
    z, half = math.atanh(found["pearson"]), 1.96 / math.sqrt(397)
    assert (low, high) == pytest.approx((math.tanh(z - half), math.tanh(z + half)), abs=0.02)
    assert found["headline"]["value"] == found["pearson"]
    assert found["true_range"] == [true_B.min(), true_B.max()]
    assert [part["examples"] for part in found["per_source"].values()] == [300, 100]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@pytest.mark.parametrize(
    ("true", "predicted", "message"),
    [
        ([], [], r"true values of shape \(0,\) and predicted ones of shape \(0,\); give one of each an example"),
        ([1, 2], [1], r"true values of shape \(2,\) and predicted ones of shape \(1,\)"),
        ([1, math.nan], [1, 2], "the true value of row 1 is nan; give finite numbers"),
        ([1, 2], [math.inf, 2], "the predicted value of row 0 is inf; give finite numbers"),
    ],
)
def test_what_cannot_be_measured_is_refused(true: list[float], predicted: list[float], message: str) -> None:
    with pytest.raises(BertwrightError, match=message):
        regression_metrics(true, predicted, "pearson")
