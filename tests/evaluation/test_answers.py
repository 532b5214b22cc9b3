"""Exact match and F1 against torchmetrics' SQuAD, and the rules of v2.0 and of Chinese by example."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from torchmetrics.functional.text import squad as torchmetrics_squad

from bertwright.data.squad import read_questions
from bertwright.evaluation.answers import (
    Judged,
    answer_metrics,
    answers_report,
    best_threshold,
    exact_match_and_f1,
    is_unspaced,
    judge,
    plot_answers,
    question_word,
)

PIECES = ["the", "The", "a", "an", "cat", "Cat", "cat's", "-", "…", "$5", "5", "  ", "\t", "é", "É", "it.", "(it)", "\u00a0"]
answers = st.lists(st.sampled_from(PIECES), max_size=6).map("".join) | st.lists(st.sampled_from(PIECES)).map(" ".join)
# Of true answers that are but articles and points, torchmetrics has what neither script has.
true_answers = st.lists(answers.filter(lambda one: exact_match_and_f1(one, []) == (0.0, 0.0)), min_size=1, max_size=3)


def official(predicted: Sequence[str], gold: Sequence[Sequence[str]]) -> tuple[float, float]:
    preds = [{"prediction_text": text, "id": str(n)} for n, text in enumerate(predicted)]
    target = [
        {"answers": {"answer_start": [0] * len(true), "text": list(true)}, "id": str(n)} for n, true in enumerate(gold)
    ]
    found = torchmetrics_squad(preds, target)
    return float(found["exact_match"]) / 100, float(found["f1"]) / 100


@settings(max_examples=200, deadline=None)
@given(answers, true_answers)
def test_any_answer_scores_as_torchmetrics_has_it(answer: str, gold: list[str]) -> None:
    assert exact_match_and_f1(answer, gold) == pytest.approx(official([answer], [gold]), abs=1e-6)


@pytest.mark.shared_data
def test_crafted_answers_to_all_questions_of_squad_score_as_torchmetrics_has_it(shared: Path) -> None:
    examples = list(read_questions(shared / "squad" / "dev-v1.1.json", labelled=True))
    assert len(examples) == 10_570
    draw = random.Random(0)
    crafted, gold = [], [example.texts for example in examples]
    for example in examples:
        words = example.context.split()
        begin = draw.randrange(len(words))
        part = " ".join(words[begin : begin + draw.randint(1, 6)])
        one = draw.choice([text for text in example.texts if text != "."])
        ways = [one, f"the {one.upper()}.", f"{one} {part}", part, "", one[1:], one.replace(" ", "  "), f"“{one}”", "The a"]
        # Of true answers that are nothing but a point, torchmetrics' F1 is not that of v1.1's script.
        crafted.append(one if "." in example.texts else draw.choice(ways))
    judged = judge(crafted, gold, [example.context for example in examples])
    means = float(judged.exact_B.mean()), float(judged.f1_B.mean())
    assert means == pytest.approx(official(crafted, gold), abs=1e-5)
    assert 0.2 < means[0] < means[1] < 0.8


@pytest.mark.parametrize(
    ("answer", "gold", "scores"),
    [
        ("", [], (1, 1)),
        ("the.", [], (1, 1)),  # nothing is left of it, as v2.0's script has it
        ("cat", [], (0, 0)),
        ("", ["cat"], (0, 0)),
        ("the", ["The", "cat"], (0, 0)),
        ("black cat", ["cat", "black dog", "a black cat"], (1, 1)),
        ("black cat", ["cat"], (0, 2 / 3)),
        ("cat cat", ["cat"], (0, 2 / 3)),
        ("1,000", ["1000"], (1, 1)),
        ("mother-in-law", ["motherinlaw"], (1, 1)),
        ("theory", ["ory"], (0, 0)),  # articles are words
    ],
)
def test_scores_by_hand(answer: str, gold: list[str], scores: tuple[float, float]) -> None:
    assert exact_match_and_f1(answer, gold) == pytest.approx(scores)


@pytest.mark.parametrize(
    ("answer", "gold", "scores"),
    [
        ("光荣", "光荣", (1, 1)),
        ("《光荣》。", "光荣", (1, 1)),
        ("光荣和", "光荣", (0, 0.8)),
        ("光荣 和 Omega Force", "光荣和omega force", (1, 1)),
        ("Omega", "Omega Force", (0, 2 / 3)),
        ("カタカナ", "カナ", (0, 2 / 3)),
        ("a cat", "cat", (0, 2 / 3)),  # no articles are left out
    ],
)
def test_chinese_and_japanese_are_judged_by_character(answer: str, gold: str, scores: tuple[float, float]) -> None:
    assert exact_match_and_f1(answer, [gold], unspaced=True) == pytest.approx(scores)
    assert judge([answer], [[gold]], ["战国无双是由光荣开发的"]).f1_B.tolist() == pytest.approx([scores[1]])


def test_what_is_written_without_blanks() -> None:
    assert is_unspaced("战国无双3是由光荣和ω-force开发的战国无双系列")
    assert is_unspaced("日本語のテキスト")
    assert not is_unspaced("The word 光荣 means glory")
    assert not is_unspaced("한국어는 띄어쓰기를 합니다")
    assert not is_unspaced("")
    assert not is_unspaced("«»…")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(-4, 4), st.integers(0, 4), st.integers(0, 1)), min_size=1, max_size=12))
def test_the_best_threshold_is_best_of_all_and_gives_what_it_says(rows: list[tuple[int, int, int]]) -> None:
    margins, answered, declined = (np.array(column, dtype=float) for column in zip(*rows, strict=True))

    def mean(threshold: float) -> float:
        return float(np.where(margins > threshold, declined, answered / 4).mean())

    threshold, score = best_threshold(margins, answered / 4, declined)
    assert mean(threshold) == pytest.approx(score)
    assert score == pytest.approx(max(mean(one) for one in np.arange(-5, 5, 0.25)))
    if answered.all() and not declined.any():
        assert threshold >= max(0, margins.max())
    if not answered.any() and declined.all():
        assert threshold < min(0, margins.min()) or threshold == 0 < margins.min()


def test_the_best_threshold_of_margins_that_nothing_lies_between() -> None:
    low = 1.0
    high = np.nextafter(low, 2)
    threshold, score = best_threshold(np.array([low, high]), np.array([1.0, 0.0]), np.array([0.0, 1.0]))
    assert (threshold, score) == (low, 1.0)


@pytest.mark.parametrize(
    ("question", "word"),
    [
        ("Who sat?", "who"),
        ("In what year did who go?", "what"),
        ("To WHOM was it given?", "who"),
        ("Name the cat.", "other"),
        ("Somewhat odd?", "other"),
        ("谁?", "other"),
    ],
)
def test_what_a_question_asks_for(question: str, word: str) -> None:
    assert question_word(question) == word


def test_parts_of_the_questions_add_up(tmp_path: Path) -> None:
    gold = [["a cat"], [], ["x y z w v", "x y z"], ["one"]]
    questions = ["Who?", "Why?", "Who?", "Give one."]
    judged = Judged(np.array([1.0, 0, 0, 1]), np.array([1.0, 0, 0.5, 1]))
    metrics = answer_metrics(judged, gold, questions, ["text"] * 4, headline="f1")
    assert (metrics["examples"], metrics["exact_match"], metrics["f1"]) == (4, 0.5, 0.625)
    assert metrics["answerable"] == {"examples": 3, "exact_match": pytest.approx(2 / 3), "f1": pytest.approx(2.5 / 3)}
    assert metrics["unanswerable"] == {"examples": 1, "exact_match": 0.0, "f1": 0.0}
    words = {word: part["examples"] for word, part in metrics["by_question_word"].items()}
    assert words == {"who": 2, "why": 1, "other": 1}
    lengths = {name: part["examples"] for name, part in metrics["by_answer_length"].items()}
    assert lengths == {"0": 1, "1": 2, "3-4": 1}
    low, high = metrics["headline"]["interval_95"]
    assert 0 <= low < metrics["headline"]["value"] == 0.625 < high <= 1
    assert answer_metrics(judged, gold, questions, ["text"] * 4, headline="f1") == metrics

    console = Console(file=io.StringIO(), width=80)
    told = metrics | {"threshold": None, "best_threshold": 1.5, "best_f1": 0.75}
    console.print(answers_report(told, "title"))
    assert isinstance(console.file, io.StringIO)
    printed = console.file.getvalue()
    for line in ("no-answer threshold none: it always answers; the best for these", "unanswerable", "who", "3-4"):
        assert line in printed
    assert printed.count('always "no answer": 0.250') == 2  # the score of both measures
    assert max(map(len, printed.splitlines())) <= 80

    plot_answers(metrics, tmp_path / "answers.png")
    assert (tmp_path / "answers.png").read_bytes().startswith(b"\x89PNG")


def test_questions_that_all_have_answers_have_no_parts_by_that() -> None:
    judged = judge(["光荣"], [["光荣"]], ["战国无双是由光荣开发的"])
    metrics = answer_metrics(judged, [["光荣"]], ["谁?"], ["战国无双是由光荣开发的"], headline="exact_match")
    assert metrics["characters"] == 1
    assert metrics["headline"]["value"] == 1.0
    assert metrics["by_answer_length"] == {"2": {"examples": 1, "exact_match": 1.0, "f1": 1.0}}
    assert not metrics.keys() & {"answerable", "unanswerable", "by_question_word"}


@pytest.mark.parametrize(("answer", "scores"), [(".", (1.0, 0.0)), ("", (1.0, 0.0)), ("interventionism", (1.0, 1.0))])
def test_a_true_answer_of_nothing_but_a_point_counts_where_all_questions_have_answers(
    answer: str, scores: tuple[float, float]
) -> None:
    gold = [["interventionism", "."], ["a cat"]]
    judged = judge([answer, "cat"], gold, ["text"] * 2)
    assert (judged.exact_B[0], judged.f1_B[0]) == scores
    declining = judge([answer, "cat", ""], [*gold, []], ["text"] * 3)
    assert (declining.exact_B[0], declining.f1_B[0]) == (scores if answer == "interventionism" else (0.0, 0.0))
