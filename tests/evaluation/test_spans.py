"""Scores of tags: those of seqeval to the last digit, and an interval that is the bootstrap's own."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.image import imread
from rich.console import Console
from seqeval.metrics import accuracy_score, classification_report, f1_score, precision_score, recall_score
from sklearn.metrics import f1_score as sklearn_f1

from bertwright.data.tags import OUTSIDE, TagSet, codes
from bertwright.evaluation.spans import SpanCounts, Tagged, interval, plot_types, score, tagging_metrics, tagging_report

SPAN_METRICS = ["f1", "precision", "recall", "accuracy", "f1_macro"]
LABELS = [OUTSIDE, *(f"{letter}-{kind}" for letter in "BIES" for kind in ("LOC", "ORG", "PER"))]
Pair = tuple[list[list[str]], list[list[str]]]


@st.composite
def tagged(draw: st.DrawFn) -> Pair:
    """Sentences with true tags, and with predicted ones that agree in most places."""
    tags = st.sampled_from(LABELS)
    true = draw(st.lists(st.lists(tags, min_size=1, max_size=10), min_size=1, max_size=6))
    predicted = [[draw(tags) if draw(st.integers(0, 3)) == 0 else tag for tag in tags_] for tags_ in true]
    return true, predicted


def compared(true: list[list[str]], predicted: list[list[str]]) -> tuple[Tagged, SpanCounts, tuple[str, ...]]:
    tag_set = TagSet(tuple(LABELS))
    lengths = np.array([len(one) for one in true])

    def of(sentences: list[list[str]]) -> Tagged:
        code_W = codes([tag for one in sentences for tag in one], LABELS)
        return Tagged(code_W, tag_set.spans(code_W, lengths))

    return of(true), SpanCounts.of(of(true), of(predicted), lengths, len(tag_set.types)), tag_set.types


@given(tagged())
@settings(max_examples=50, deadline=None)
def test_scores_are_those_of_seqeval(pair: Pair) -> None:
    true_tagged, counts, types = compared(*pair)
    found = tagging_metrics(true_tagged, counts, types, SPAN_METRICS, "f1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that nothing was predicted
        expected: dict[str, Any] = {
            "f1": f1_score(*pair),
            "precision": precision_score(*pair),
            "recall": recall_score(*pair),
            "accuracy": accuracy_score(*pair),
            "f1_macro": f1_score(*pair, average="macro"),
        }
        report = classification_report(*pair, output_dict=True) if found["per_class"] else {}
    for name, value in expected.items():
        assert found[name] == pytest.approx(0.0 if np.isnan(value) else value, abs=1e-12), name
    for name, scores in found["per_class"].items():
        theirs = report[name]
        assert scores["support"] == theirs["support"]
        for ours, name_there in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score")):
            assert scores[ours] == pytest.approx(float(theirs[name_there]), abs=1e-12)
    assert len(found["per_class"]) == sum(" avg" not in name for name in report)


def test_words_are_spans_where_tags_mark_none() -> None:
    draw = np.random.default_rng(0)
    lengths = draw.integers(1, 9, 40)
    true, predicted = draw.integers(0, 6, (2, int(lengths.sum())))
    counts = SpanCounts.of(Tagged.word_by_word(true), Tagged.word_by_word(predicted), lengths, 6)
    assert score(counts, "accuracy") == pytest.approx((true == predicted).mean())
    assert score(counts, "f1") == pytest.approx((true == predicted).mean())
    assert score(counts, "f1_macro") == pytest.approx(sklearn_f1(true, predicted, average="macro"))


def random_counts(sentences: int, seed: int) -> SpanCounts:
    draw = np.random.default_rng(seed)
    true = [draw.choice(LABELS, size=draw.integers(1, 12)).tolist() for _ in range(sentences)]
    predicted = [[tag if draw.random() < 0.8 else str(draw.choice(LABELS)) for tag in tags] for tags in true]
    return compared(true, predicted)[1]


@pytest.mark.parametrize("metric", SPAN_METRICS)
def test_the_interval_is_that_of_drawing_sentences_again_and_again(metric: str) -> None:
    counts = random_counts(150, 1)
    draw = np.random.default_rng(5)
    values = []
    for _ in range(2000):
        which = draw.integers(0, 150, 150)
        values.append(score(SpanCounts(counts.spans_B3T[which], counts.words_B2[which]), metric))
    expected = np.percentile(values, [2.5, 97.5])
    found = interval(counts, metric, samples=2000)
    np.testing.assert_allclose(found, expected, atol=0.006)
    assert found == interval(counts, metric, samples=2000)
    assert found[0] < score(counts, metric) < found[1]


def test_an_interval_over_few_samples_at_once_is_one_over_all(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = random_counts(30, 2)
    whole = interval(counts, "f1")
    monkeypatch.setattr("bertwright.evaluation.bootstrap.GROUPS_AT_ONCE", 100)
    assert interval(counts, "f1") == whole


def measured(true: list[list[str]], predicted: list[list[str]]) -> dict[str, Any]:
    true_tagged, counts, types = compared(true, predicted)
    return tagging_metrics(true_tagged, counts, types, SPAN_METRICS[:4], "f1")


def test_a_measurement_by_hand() -> None:
    true = [["B-PER", "I-PER", "O", "B-LOC"], ["O"]]
    found = measured(true, [["B-PER", "I-PER", "O", "B-ORG"], ["B-ORG"]])
    assert found["spans"] == {"true": 2, "predicted": 3, "right": 1}
    assert found["f1"] == pytest.approx(2 / 5)
    assert (found["precision"], found["recall"], found["accuracy"]) == pytest.approx((1 / 3, 1 / 2, 3 / 5))
    assert found["majority_accuracy"] == 2 / 5
    assert (found["examples"], found["words"]) == (2, 5)
    assert found["per_class"]["ORG"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}
    assert found["per_class"]["PER"] == {"precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 1}
    assert found["headline"]["metric"] == "f1"


def test_without_any_span_scores_are_zero_and_nothing_fails() -> None:
    found = measured([["O", "O"]], [["O", "O"]])
    assert (found["f1"], found["accuracy"]) == (0.0, 1.0)
    assert found["per_class"] == {}


def test_the_report_fits_and_says_what_is_compared() -> None:
    found = measured([["B-PER", "I-PER", "O", "B-LOC"]] * 3, [["B-PER", "I-PER", "O", "O"]] * 3)
    console = Console(width=80, record=True, quiet=False, file=None, force_terminal=False)
    with console.capture() as page:
        console.print(tagging_report(found, {"f1": "F1 of spans", "accuracy": "accuracy of words"}, "m: test", plain=False))
    text = page.get()
    assert "F1 of spans        0.667  95% interval 0.667 to 0.667, 1,000 resamples" in text
    assert "12 words; of 6 spans and 3 predicted ones, 3 are the same." in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("types", [1, 60])
def test_the_picture_has_a_bar_for_each_type_up_to_forty(tmp_path: Path, types: int) -> None:
    per_class = {f"类型 ${n}_x$": {"precision": 0.5, "recall": 1.0, "f1": n / 60, "support": n} for n in range(types)}
    plot_types({"per_class": per_class}, tmp_path / "types.png")
    height = imread(tmp_path / "types.png").shape[0]
    assert height == pytest.approx(150 * (1.5 + 0.34 * min(types, 40)), rel=0.25)
