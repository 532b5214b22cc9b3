"""Exact match and F1 of answers, as SQuAD's official scripts compute them (Rajpurkar et al. 2016, section 6.1; 2018, 5).

Both are fractions here, from 0 to 1, where the scripts print percents. In text that is mostly Chinese or Japanese, which
has no blanks between words, F1 counts characters and punctuation of any script is left out, as MLQA does it.

Shapes: B questions.
"""

from __future__ import annotations

import math
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bertwright.arrays import FloatArray
from bertwright.errors import BertwrightError
from bertwright.evaluation import bootstrap
from bertwright.evaluation.canvas import BLUE, SKY_BLUE, caption, new_figure, save
from bertwright.evaluation.report import scores_table

TITLES = {"f1": "F1", "exact_match": "exact match"}
QUESTION_WORDS = ("what", "who", "when", "where", "which", "why", "how")
OTHER = "other"
LENGTHS = ((0, 0), (1, 1), (2, 2), (3, 4), (5, 8), (9, 16), (17, math.inf))  # words of an answer, or characters

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
# Ideographs and kana; Hangul is written with blanks.
_UNSPACED = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_WORD = re.compile("[a-z]+")


@dataclass(frozen=True, slots=True)
class Judged:
    """What each question scored: ``exact_B`` is 0 or 1, ``f1_B`` from 0 to 1."""

    exact_B: FloatArray
    f1_B: FloatArray


def normalised(text: str) -> str:
    """An answer as the official scripts compare it: lower case, no punctuation, no articles, single blanks."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def characters(text: str) -> list[str]:
    """An answer in text without blanks between words: lower case, no punctuation, each ideograph or kana by itself."""
    kept = "".join(c for c in text.lower().translate(_NO_PUNCTUATION) if unicodedata.category(c)[0] != "P")
    return _UNSPACED.sub(lambda found: f" {found[0]} ", kept).split()


@lru_cache(maxsize=4096)
def is_unspaced(context: str) -> bool:
    """Whether more than half of a text's letters are ideographs or kana."""
    if context.isascii():
        return False
    letters = sum(c.isalpha() for c in context)
    return 2 * len(_UNSPACED.findall(context)) > letters


def exact_match_and_f1(
    answer: str, gold: Sequence[str], *, unspaced: bool = False, all_have_answers: bool = False
) -> tuple[float, float]:
    """Whether an answer is one of the true ones (1.0 or 0.0), and its best F1 with one of them, once all are normalised.

    F1 is that of the words (characters if ``unspaced``) that both have. An empty answer says that there is none, which is
    right where there is no true one.

    The scripts of v1.1 and v2.0 differ on true answers of which normalising leaves nothing, such as a point: v2.0's leaves
    them out; v1.1's, which is for data whose questions all have answers, has them equal to any other such answer, with an
    F1 of 0.
    """
    words = characters if unspaced else _words
    found = words(answer)
    if all_have_answers:
        given = [words(one) for one in gold]
        return float(found in given), max(_overlap(found, one) if one else 0.0 for one in given)
    true = [kept for one in dict.fromkeys(gold) if (kept := words(one))] or [[]]
    return float(found in true), max(_overlap(found, one) for one in true)


def judge(answers: Sequence[str], gold: Sequence[Sequence[str]], contexts: Sequence[str]) -> Judged:
    """Score an answer for each question against its true ones; an empty answer says that there is none."""
    known = all(gold)
    scores = [
        exact_match_and_f1(answer, true, unspaced=is_unspaced(context), all_have_answers=known)
        for answer, true, context in zip(answers, gold, contexts, strict=True)
    ]
    exact_and_f1_B2 = np.array(scores).reshape(-1, 2)
    return Judged(exact_and_f1_B2[:, 0], exact_and_f1_B2[:, 1])


def best_threshold(margin_B: FloatArray, answered_B: FloatArray, declined_B: FloatArray) -> tuple[float, float]:
    """Where to stop answering: the threshold with the highest mean score, and that score.

    A question is answered if its margin, how much better "no answer" scored than the best answer, is no more than the
    threshold. It lies halfway between two margins, so that it also holds for others; of equally good ones, the nearest
    to 0 is taken.

    Args:
        margin_B: the margins.
        answered_B: what each question scores if it is answered.
        declined_B: what it scores if not.
    """
    order = np.argsort(margin_B, kind="stable")
    margins = margin_B[order]
    gains = np.append(0.0, np.cumsum((answered_B - declined_B)[order]))
    between = np.minimum((margins[1:] + margins[:-1]) / 2, np.nextafter(margins[1:], -np.inf))
    none, all_of_them = min(0.0, np.nextafter(margins[0], -np.inf)), max(0.0, margins[-1])
    thresholds = np.concatenate([[none], between, [all_of_them]])
    # Equal margins are answered all or none.
    thresholds[1:-1][margins[1:] == margins[:-1]] = np.nan
    scores = (declined_B.sum() + gains) / len(margins)
    scores[np.isnan(thresholds)] = -np.inf
    good = np.flatnonzero(scores >= scores.max() - 1e-12)
    best = good[np.abs(thresholds[good]).argmin()]
    return float(thresholds[best]), float(scores[best])


def answer_metrics(
    judged: Judged,
    gold: Sequence[Sequence[str]],
    questions: Sequence[str],
    contexts: Sequence[str],
    *,
    headline: str,
    seed: int = 0,
) -> dict[str, Any]:
    """Summarise scores, as a dict that JSON can hold.

    Returns:
        ``examples``, ``exact_match`` and ``f1``; ``answerable`` and ``unanswerable`` with the same three where both
        occur; ``by_question_word`` and ``by_answer_length`` (of the shortest true answer, in words; in characters for
        text without blanks), where they tell anything; ``characters``, how many questions were judged by characters;
        and ``headline`` with its interval from resampled questions.

    Raises:
        BertwrightError: there are no questions.
    """
    if not len(gold):
        raise BertwrightError("there are no questions to judge; give at least one")
    answerable = np.array([bool(true) for true in gold])
    unspaced = [is_unspaced(context) for context in contexts]
    metrics: dict[str, Any] = _means(judged, np.ones(len(gold), dtype=bool))
    if answerable.any() and not answerable.all():
        metrics["answerable"], metrics["unanswerable"] = _means(judged, answerable), _means(judged, ~answerable)
    if sum(unspaced):
        metrics["characters"] = sum(unspaced)
    words = np.array([question_word(question) for question in questions])
    if (words != OTHER).any():
        metrics["by_question_word"] = _groups(judged, {word: words == word for word in (*QUESTION_WORDS, OTHER)})
    lengths = np.array([_shortest(true, how) for true, how in zip(gold, unspaced, strict=True)])
    if answerable.any():
        buckets = {_range(low, high): (lengths >= low) & (lengths <= high) for low, high in LENGTHS}
        metrics["by_answer_length"] = _groups(judged, buckets)
    values_B = {"f1": judged.f1_B, "exact_match": judged.exact_B}[headline]
    metrics["headline"] = bootstrap.headline(headline, lambda rows: float(values_B[rows].mean()), len(gold), seed=seed)
    return metrics


def question_word(question: str) -> str:
    """The first word that says what is asked for (what, who, when, …), or ``other``."""
    words = {"whom": "who", "whose": "who"}
    found = (words.get(word, word) for word in _WORD.findall(question.lower()))
    return next((word for word in found if word in QUESTION_WORDS), OTHER)


def answers_report(metrics: Mapping[str, Any], title: str) -> RenderableType:
    """Scores, and those of parts of the questions, as tables for a terminal of 80 columns."""
    notes = {}
    if "unanswerable" in metrics:
        share = metrics["unanswerable"]["examples"] / metrics["examples"]
        notes = dict.fromkeys(TITLES, f'always "no answer": {share:.3f}')
    parts: list[RenderableType] = [scores_table(metrics, TITLES, title, notes)]
    if "threshold" in metrics:
        threshold, better, best = (metrics[name] for name in ("threshold", "best_threshold", "best_f1"))
        shown = "none: it always answers" if threshold is None else f"{threshold:.2f}"
        told = f"no-answer threshold {shown}; the best for these questions is {better:.2f}: F1 {best:.3f}"
        parts += ["", Text(told, style="dim")]
    both = {name: metrics[name] for name in ("answerable", "unanswerable") if name in metrics}
    groups = {
        "questions": both,
        "question word": metrics.get("by_question_word"),
        "words in the answer" if "characters" not in metrics else "length of the answer": metrics.get("by_answer_length"),
    }
    for name, group in groups.items():
        if group:
            parts += ["", _group_table(name, group)]
    return Group(*parts)


def plot_answers(metrics: Mapping[str, Any], path: Path) -> None:
    """Draw F1 and exact match by question word and by length of the answer, with the number of questions.

    Raises BertwrightError where ``path`` does not end in .png or cannot be written.
    """
    groups = {
        "word that asks": metrics.get("by_question_word"),
        "words (or characters) in the shortest true answer; 0: there is none": metrics.get("by_answer_length"),
    }
    drawn = {title: group for title, group in groups.items() if group}
    if not drawn:
        return
    figure = new_figure(7.0, 2.9 * len(drawn))
    for axes, (title, group) in zip(figure.subplots(len(drawn), 1, squeeze=False)[:, 0], drawn.items(), strict=True):
        at = np.arange(len(group))
        for shift, name, colour in ((-0.2, "f1", BLUE), (0.2, "exact_match", SKY_BLUE)):
            axes.bar(at + shift, [one[name] for one in group.values()], 0.38, color=colour, label=TITLES[name])
        axes.set_xticks(at, labels=[f"{key}\n{one['examples']:,}" for key, one in group.items()], fontsize=9)
        axes.set(xlabel=title, ylim=(0, 1))
        axes.grid(axis="y", alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False, fontsize=9)
    caption(figure, [f"{metrics['examples']:,} questions; under each group how many of them are its own"])
    save(figure, path)


def _group_table(name: str, group: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, collapse_padding=True)
    table.add_column(name)
    for column in ("examples", *TITLES.values()):
        table.add_column(column, justify="right")
    for key, scores in group.items():
        table.add_row(Text(key), f"{scores['examples']:,}", *(f"{scores[metric]:.3f}" for metric in TITLES))
    return table


def _words(text: str) -> list[str]:
    return normalised(text).split()


def _overlap(answer: list[str], true: list[str]) -> float:
    if not answer or not true:
        return float(answer == true)
    common = sum((Counter(answer) & Counter(true)).values())
    if not common:
        return 0.0
    precision, recall = common / len(answer), common / len(true)
    return 2 * precision * recall / (precision + recall)


def _means(judged: Judged, which_B: npt.NDArray[np.bool_]) -> dict[str, Any]:
    exact, overlap = judged.exact_B[which_B], judged.f1_B[which_B]
    return {"examples": int(which_B.sum()), "exact_match": float(exact.mean()), "f1": float(overlap.mean())}


def _groups(judged: Judged, which: Mapping[str, npt.NDArray[np.bool_]]) -> dict[str, dict[str, Any]]:
    return {name: _means(judged, one) for name, one in which.items() if one.any()}


def _shortest(gold: Sequence[str], unspaced: bool) -> int:
    words = characters if unspaced else _words
    return min((len(words(one)) or 1 for one in gold), default=0)


def _range(low: int, high: float) -> str:
    return f"{low}+" if high == math.inf else str(low) if low == high else f"{low}-{high}"
