"""Intervals by resampling, and scores by source."""

from __future__ import annotations

import numpy as np
import pytest

from bertwright.arrays import IntArray
from bertwright.errors import BertwrightError
from bertwright.evaluation.bootstrap import by_source, headline


def test_the_interval_of_a_mean_is_that_of_its_standard_error() -> None:
    values = np.random.default_rng(1).normal(5, 2, size=500)
    found = headline("mean", lambda rows: float(values[rows].mean()), 500, samples=4000)
    error = values.std() / np.sqrt(500)
    assert found["metric"] == "mean"
    assert found["samples"] == 4000
    assert found["value"] == values.mean()
    assert found["interval_95"] == pytest.approx([values.mean() - 1.96 * error, values.mean() + 1.96 * error], abs=0.02)


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.arange(30.0)

    def mean(rows: IntArray) -> float:
        return float(values[rows].mean())

    assert headline("m", mean, 30, seed=3) == headline("m", mean, 30, seed=3)
    assert headline("m", mean, 30, seed=3) != headline("m", mean, 30, seed=4)


def test_examples_are_drawn_with_replacement() -> None:
    drawn: list[IntArray] = []

    def note(rows: IntArray) -> float:
        drawn.append(rows)
        return 0.0

    headline("m", note, 50, samples=20)
    *resamples, whole = drawn
    assert whole.tolist() == list(range(50))
    assert all(len(rows) == 50 and set(rows) <= set(range(50)) for rows in resamples)
    assert np.mean([len(set(rows.tolist())) for rows in resamples]) == pytest.approx(50 * (1 - np.exp(-1)), abs=3)


@pytest.mark.parametrize(("examples", "samples"), [(0, 10), (10, 0)])
def test_nothing_to_draw_is_refused(examples: int, samples: int) -> None:
    with pytest.raises(BertwrightError, match=f"{examples} examples and {samples} samples"):
        headline("m", lambda rows: 0.0, examples, samples=samples)


def test_sources_come_with_the_most_frequent_first_then_by_name() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    found = by_source(["c", "b", "a", "b", "a"], lambda rows: {"sum": float(values[rows].sum())})
    assert list(found["per_source"].items()) == [
        ("a", {"examples": 2, "sum": 8}),
        ("b", {"examples": 2, "sum": 6}),
        ("c", {"examples": 1, "sum": 1}),
    ]


def test_without_a_source_for_each_example_there_is_no_table() -> None:
    assert by_source(["a", None], lambda rows: {"n": 1.0}) == {}
