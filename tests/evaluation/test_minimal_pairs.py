"""Accuracies over minimal pairs against hand counts and other libraries' intervals; tables, picture and files."""

from __future__ import annotations

import dataclasses
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.image import imread
from rich.cells import cell_len
from rich.console import Console
from scipy.stats import binomtest, norm  # type: ignore[import-untyped]

from bertwright.data.blimp import MinimalPair
from bertwright.errors import BertwrightError
from bertwright.evaluation.minimal_pairs import (
    PairAccuracies,
    measure_pairs,
    minimal_pairs_report,
    pair_accuracies,
    plot_phenomena,
    write_minimal_pairs,
)

NASTY = ["[red]", "负面的评论" * 12, "tab\there", "\x1b[31mred\x1b[0m", "x" * 300, "$a$_b^", "$"]


def judged(counts: dict[tuple[str, str], tuple[int, int, int]]) -> PairAccuracies:
    """Of (phenomenon, set): so many right, wrong and tied pairs."""
    rows = [
        (name, phenomenon, margin)
        for (phenomenon, name), (right, wrong, tied) in counts.items()
        for margin in [0.5] * right + [-2.0] * wrong + [0.0] * tied
    ]
    np.random.default_rng(0).shuffle(rows)
    sets, phenomena, margins = zip(*rows, strict=True)
    return pair_accuracies([str(name) for name in sets], [str(name) for name in phenomena], [float(m) for m in margins])


COUNTS = {("agreement", "b"): (3, 1, 0), ("agreement", "a"): (1, 0, 1), ("binding", "c"): (10, 10, 0)}


def test_counts_by_hand() -> None:
    found = judged(COUNTS)
    assert found.per_set["a"].accuracy == 0.5  # a tie is wrong
    assert (found.per_set["a"].pairs, found.per_set["a"].right, found.per_set["a"].ties) == (2, 1, 1)
    assert found.per_phenomenon["agreement"].accuracy == pytest.approx((0.75 + 0.5) / 2)
    assert found.over_sets.accuracy == pytest.approx((0.75 + 0.5 + 0.5) / 3)
    assert found.over_pairs.accuracy == pytest.approx(14 / 26)
    assert found.over_phenomena.accuracy == pytest.approx((0.625 + 0.5) / 2)
    for one in (found.over_sets, found.over_pairs, found.over_phenomena):
        assert (one.sets, one.pairs, one.right, one.ties) == (3, 26, 14, 1)
    assert list(found.per_set) == ["a", "b", "c"]
    assert list(found.per_phenomenon) == ["agreement", "binding"]
    assert found.phenomenon_of == {"a": "agreement", "b": "agreement", "c": "binding"}


@given(st.integers(0, 60), st.integers(0, 60))
def test_the_interval_of_a_set_is_wilsons(right: int, wrong: int) -> None:
    if right + wrong == 0:
        right = 1
    found = judged({("p", "a"): (right, wrong, 0)})
    wanted = binomtest(right, right + wrong).proportion_ci(method="wilson")
    for one in (found.per_set["a"], found.per_phenomenon["p"], found.over_sets, found.over_pairs, found.over_phenomena):
        assert list(one.interval_95) == pytest.approx([wanted.low, wanted.high], abs=1e-12)


def test_the_interval_of_a_mean_is_the_textbooks_where_pairs_are_many() -> None:
    shares = (0.9, 0.6, 0.55, 0.75)
    n = 20_000
    found = judged({("p", str(number)): (round(share * n), n - round(share * n), 0) for number, share in enumerate(shares)})
    half = norm.ppf(0.975) * math.sqrt(sum(share * (1 - share) / n for share in shares)) / len(shares)
    low, high = found.over_sets.interval_95
    assert low == pytest.approx(np.mean(shares) - half, abs=half * 0.01)
    assert high == pytest.approx(np.mean(shares) + half, abs=half * 0.01)


def test_the_interval_of_a_mean_holds_the_truth() -> None:
    # Small sets, some of them nearly always right: where the usual formulas fail.
    truth = np.array([0.99, 0.5, 0.97, 0.8])
    draws = np.random.default_rng(0).binomial(12, truth, size=(400, 4))
    held = 0
    for rights in draws.tolist():
        low, high = judged({("p", str(i)): (right, 12 - right, 0) for i, right in enumerate(rights)}).over_sets.interval_95
        held += low <= truth.mean() <= high
    assert 0.92 <= held / len(draws) <= 0.99


tallies = st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 3)).filter(lambda counts: sum(counts) > 0)


@given(st.dictionaries(st.tuples(st.just("p") | st.just("q"), st.text(max_size=3)), tallies, min_size=1, max_size=6))
def test_intervals_surround_what_they_belong_to(counts: dict[tuple[str, str], tuple[int, int, int]]) -> None:
    counts = {(phenomenon, phenomenon + name): tally for (phenomenon, name), tally in counts.items()}
    found = judged(counts)
    means = (found.over_sets, found.over_pairs, found.over_phenomena)
    for one in (*means, *found.per_set.values(), *found.per_phenomenon.values()):
        low, high = one.interval_95
        assert 0 <= low <= one.accuracy <= high <= 1
        assert high - low > 0.001
    fields = found.to_dict()
    assert json.loads(json.dumps(fields, allow_nan=False)) == fields


def test_what_cannot_be_counted() -> None:
    with pytest.raises(BertwrightError, match="there are no pairs"):
        pair_accuracies([], [], [])
    with pytest.raises(BertwrightError, match="the set 'a' belongs to 'p' and to 'q'"):
        pair_accuracies(["a", "a"], ["p", "q"], [1.0, 1.0])


def rendered(found: PairAccuracies, title: str = "title") -> list[str]:
    page = io.StringIO()
    Console(file=page, width=80, color_system=None).print(minimal_pairs_report(found, title))
    return [line.rstrip() for line in page.getvalue().splitlines()]


def test_the_table_says_what_was_counted() -> None:
    lines = rendered(judged({("p", f"set {number}"): (number, 10 - number, 0) for number in range(8)} | COUNTS))
    row = next(line for line in lines if line.startswith("agreement")).split()
    assert row[:4] == ["agreement", "2", "6", "62.5%"]
    assert row[-1] == "1"
    assert next(line for line in lines if line.startswith("mean over sets")).split()[3:6] == ["11", "106", "41.4%"]
    assert any(line.startswith("all pairs alike") for line in lines)
    assert any("The 5 hardest sets of 11" in line for line in lines)
    hardest = [line.split()[:2] for line in lines if line.startswith("set ")]
    assert hardest == [["set", "sets"], *(["set", str(number)] for number in range(5))]


def test_equal_sets_need_no_second_mean() -> None:
    lines = rendered(judged({("p", "a"): (5, 5, 0), ("q", "b"): (7, 3, 0)}))
    assert not any("alike" in line or "hardest" in line for line in lines)


@settings(max_examples=50)
@given(st.lists(st.text(max_size=60) | st.sampled_from(NASTY), min_size=1, max_size=9, unique=True), st.text(max_size=30))
def test_any_names_fit_a_terminal(names: list[str], title: str) -> None:
    found = judged({(name, name): (0, 1, 1) for name in names})
    found = dataclasses.replace(
        found,
        over_sets=dataclasses.replace(found.over_sets, pairs=10_000_000, ties=1_000_000, interval_95=(1.0, 1.0)),
    )
    assert all(cell_len(line) <= 80 for line in rendered(found, title))


@pytest.mark.parametrize("phenomena", [1, 12])
def test_the_picture_grows_with_the_phenomena(phenomena: int, tmp_path: Path) -> None:
    counts = {(f"p{p} {NASTY[p % len(NASTY)]}", f"s{p}-{s}"): (p, 12 - p, 0) for p in range(phenomena) for s in range(3)}
    plot_phenomena(judged(counts), tmp_path / "p.png")
    height, width, _ = imread(tmp_path / "p.png").shape
    assert 900 < width < 1300
    assert 150 * (0.36 * phenomena + 0.8) < height < 150 * (0.36 * phenomena + 2.4)


def test_files(tmp_path: Path) -> None:
    found = judged(COUNTS)
    predictions = [{"set": "a", "good": "日本"}, {"set": "b", "good": "x"}]
    folder = tmp_path / "new" / "evaluation"
    write_minimal_pairs(folder, found, found.to_dict(), predictions)
    assert sorted(path.name for path in folder.iterdir()) == ["metrics.json", "phenomena.png", "predictions.jsonl"]
    assert json.loads((folder / "metrics.json").read_text()) == found.to_dict()
    assert [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()] == predictions
    assert "日本" in (folder / "predictions.jsonl").read_text()


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BertwrightError, match=r"cannot write .*choose a place that"):
        write_minimal_pairs(tmp_path / "file" / "evaluation", judged(COUNTS), {}, [])


def test_only_a_strictly_higher_score_is_right() -> None:
    pairs = [MinimalPair("a", "b", name, "p", str(place), "") for place, name in enumerate("aaab")]
    good, bad = np.array([-1.0, -2.0, -3.0, 0.5]), np.array([-2.0, -1.0, -3.0, 0.25])
    found = measure_pairs(pairs, good=good, bad=bad, about={"score": "pll"})
    assert found.accuracies.per_set["a"].right == 1
    assert found.accuracies.per_set["a"].ties == 1
    assert [one["right"] for one in found.predictions] == [True, False, False, True]
    assert found.metrics["accuracy"] == pytest.approx((1 / 3 + 1) / 2)
    assert found.metrics["accuracy_over_pairs"]["accuracy"] == 0.5
    assert found.metrics["score"] == "pll"
    assert found.predictions[1] == {
        "set": "a", "phenomenon": "p", "pair": "1", "good": "a", "bad": "b",
        "good_score": -2.0, "bad_score": -1.0, "right": False,
    }  # fmt: skip
    json.dumps(found.metrics, allow_nan=False)


def test_scores_that_are_no_numbers_are_told() -> None:
    pairs = [MinimalPair("a", "b", "s", "p", str(place), f"file:{place + 1}") for place in range(3)]
    for value in (np.nan, np.inf, -np.inf):
        with pytest.raises(BertwrightError, match=r"^file:2: the model's score is not a finite number"):
            measure_pairs(pairs, good=np.zeros(3), bad=np.array([0, value, 0]), about={})
