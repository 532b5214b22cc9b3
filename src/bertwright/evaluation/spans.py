"""How good tags are: the spans that they mark, exactly right or wrong, and the words; numbers, tables, a picture.

A span is right if its borders and its type are, as in the CoNLL evaluation script (Tjong Kim Sang and De Meulder, 2003)
and in seqeval. Where tags mark no spans, each word counts as a span whose type is its tag.

Shapes: B sentences, W words of all of them, N spans (begin, end, type; words counted through all sentences), T types,
R resamples of the bootstrap, K different sentences as the bootstrap sees them, X counts that a score is made of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group
from rich.text import Text

from bertwright.arrays import FloatArray, IntArray
from bertwright.evaluation import bootstrap
from bertwright.evaluation.canvas import BLUE, SKY_BLUE, VERMILION, caption, drawable_labels, new_figure, save
from bertwright.evaluation.report import per_class_table, scores_table

DRAWN_UP_TO = 40  # types; of more, those with the lowest F1


@dataclass(frozen=True)
class Tagged:
    """Sentences as they are tagged: the code of each word's tag, and the spans that the tags mark, spans_N3."""

    code_W: IntArray
    spans_N3: IntArray

    @classmethod
    def word_by_word(cls, code_W: IntArray) -> Tagged:
        """Tags that mark no spans: each word is one."""
        at_W = np.arange(len(code_W))
        return cls(code_W, np.stack([at_W, at_W + 1, code_W], axis=1))


@dataclass(frozen=True)
class SpanCounts:
    """What all scores are made of, for each sentence.

    ``spans_B3T`` counts the spans of each type that are right, predicted, and true; ``words_B2`` the words whose tag is
    right, and all.
    """

    spans_B3T: IntArray
    words_B2: IntArray

    @classmethod
    def of(cls, true: Tagged, predicted: Tagged, lengths_B: IntArray, types: int) -> SpanCounts:
        """Compare what is predicted with what is true, in sentences of these lengths."""
        sentence_W = np.repeat(np.arange(len(lengths_B)), lengths_B)
        words = len(sentence_W)

        def keys(spans_N3: IntArray) -> IntArray:
            begin_N, end_N, type_N = spans_N3.T
            return np.asarray((begin_N * (words + 1) + end_N) * types + type_N)

        def counts(spans_N3: IntArray) -> IntArray:
            cells = sentence_W[spans_N3[:, 0]] * types + spans_N3[:, 2]
            return np.bincount(cells, minlength=len(lengths_B) * types).reshape(-1, types)

        right_N3 = predicted.spans_N3[np.isin(keys(predicted.spans_N3), keys(true.spans_N3))]
        right_W = true.code_W == predicted.code_W
        return cls(
            np.stack([counts(right_N3), counts(predicted.spans_N3), counts(true.spans_N3)], axis=1),
            np.stack([np.bincount(sentence_W[right_W], minlength=len(lengths_B)), lengths_B], axis=1),
        )

    def cells(self, metric: str) -> IntArray:
        """The counts of each sentence that this metric is made of: cells_BX."""
        if metric == "accuracy":
            return self.words_B2
        return self.spans_B3T.reshape(len(self.spans_B3T), -1) if metric == "f1_macro" else self.spans_B3T.sum(axis=2)


def _ratio(part: FloatArray, whole: FloatArray) -> FloatArray:
    """Zero where there is nothing to divide by, as seqeval has it."""
    return np.asarray(part / np.maximum(whole, 1))


def _f1_macro(cells_RX: FloatArray) -> FloatArray:
    """Mean F1 of the types that occur among the true or the predicted spans."""
    right_RT, predicted_RT, true_RT = np.moveaxis(cells_RX.reshape(len(cells_RX), 3, -1), 1, 0)
    seen_RT = predicted_RT + true_RT
    return _ratio(_ratio(2 * right_RT, seen_RT).sum(axis=1), (seen_RT > 0).sum(axis=1).astype(np.float64))


_FORMULAS: dict[str, Callable[[FloatArray], FloatArray]] = {
    "f1": lambda cells_R3: _ratio(2 * cells_R3[:, 0], cells_R3[:, 1] + cells_R3[:, 2]),
    "precision": lambda cells_R3: _ratio(cells_R3[:, 0], cells_R3[:, 1]),
    "recall": lambda cells_R3: _ratio(cells_R3[:, 0], cells_R3[:, 2]),
    "f1_macro": _f1_macro,
    "accuracy": lambda cells_R2: _ratio(cells_R2[:, 0], cells_R2[:, 1]),
}


def score(counts: SpanCounts, metric: str) -> float:
    """One of f1, precision, recall (over all spans), f1_macro (the mean over types) and accuracy (of words)."""
    return float(_FORMULAS[metric](counts.cells(metric).sum(axis=0, keepdims=True).astype(np.float64))[0])


def interval(counts: SpanCounts, metric: str, samples: int = bootstrap.SAMPLES, seed: int = 0) -> list[float]:
    """The 95 % percentile interval of a score, by bootstrap over sentences; those with the same counts are alike."""
    cells_KX, count_K = np.unique(counts.cells(metric), axis=0, return_counts=True)

    def scores(draws_RK: IntArray) -> FloatArray:
        return _FORMULAS[metric](draws_RK.astype(np.float64) @ cells_KX.astype(np.float64))

    return bootstrap.grouped_interval(count_K, scores, samples=samples, seed=seed)


def tagging_metrics(
    true: Tagged, counts: SpanCounts, types: Sequence[str], metrics: Sequence[str], headline: str
) -> dict[str, Any]:
    """Measure tags on labelled sentences.

    Returns:
        A dict that JSON can hold: ``examples`` (sentences), ``words``, each of ``metrics``, ``majority_accuracy`` (of
        always giving the most frequent tag), ``spans`` (how many are ``true``, ``predicted``, ``right``), ``per_class``
        (type to ``precision``, ``recall``, ``f1``, ``support``; types that occur only), and ``headline`` with
        ``metric``, ``value``, ``interval_95`` and ``samples``.
    """
    totals_3T = counts.spans_B3T.sum(axis=0)
    right, predicted, wanted = totals_3T.sum(axis=1).tolist()
    return {
        "examples": len(counts.words_B2),
        "words": len(true.code_W),
        **{name: score(counts, name) for name in metrics},
        "majority_accuracy": float(np.bincount(true.code_W).max() / len(true.code_W)),
        "spans": {"true": wanted, "predicted": predicted, "right": right},
        "per_class": {
            name: {
                "precision": hits / max(given, 1),
                "recall": hits / max(support, 1),
                "f1": 2 * hits / (given + support),
                "support": support,
            }
            for name, (hits, given, support) in zip(types, totals_3T.T.tolist(), strict=True)
            if given + support
        },
        "headline": {
            "metric": headline,
            "value": score(counts, headline),
            "interval_95": interval(counts, headline),
            "samples": bootstrap.SAMPLES,
        },
    }


def tagging_report(metrics: Mapping[str, Any], titles: Mapping[str, str], title: str, *, plain: bool) -> Group:
    """Return the scores and those of each type as tables for a terminal of 80 columns."""
    sizes = f"{metrics['words']:,} words"
    if not plain:
        sizes += "; of {true:,} spans and {predicted:,} predicted ones, {right:,} are the same".format(**metrics["spans"])
    always = f"Always the most frequent tag is right for {metrics['majority_accuracy']:.1%} of the words."
    note = Text(f"{sizes}. {always}", style="dim")
    return Group(scores_table(metrics, titles, title), "", per_class_table(dict(metrics)), "", note)


def plot_types(metrics: Mapping[str, Any], path: Path) -> None:
    """Draw the F1 of each type as a bar, its precision and recall as marks, and how often it occurs.

    Raises:
        BertwrightError: ``path`` cannot be written.
    """
    per_class: Mapping[str, Mapping[str, Any]] = metrics["per_class"]
    names = sorted(per_class, key=lambda name: (-per_class[name]["f1"], name))
    left_out = max(len(names) - DRAWN_UP_TO, 0)
    names = names[left_out:]
    labels = drawable_labels(names)
    figure = new_figure(7.0, 1.5 + 0.34 * len(names))
    axes = figure.add_subplot()
    places = range(len(names))
    axes.barh(places, [per_class[name]["f1"] for name in names], color=SKY_BLUE, height=0.7, label="F1")
    for which, color, mark in (("precision", BLUE, "|"), ("recall", VERMILION, "x")):
        values = [per_class[name][which] for name in names]
        axes.plot(values, places, mark, color=color, markersize=9 if mark == "|" else 5, markeredgewidth=1.6, label=which)
    texts = [f"{text}  ({per_class[name]['support']:,})" for text, name in zip(labels.texts, names, strict=True)]
    # Labels are text, never formulas, whatever dollar signs they hold.
    axes.set_yticks(places, labels=texts, fontsize=9, fontfamily=labels.families, parse_math=False)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1.01), xlabel="share, of exact matches")
    # Above the axes, where no bar can lie under it.
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), frameon=False, fontsize=9, borderaxespad=0, ncols=3)
    better = f"{left_out:,} types with a higher F1 are not drawn" if left_out else ""
    caption(figure, ["in brackets: how often it occurs", better, labels.note])
    save(figure, path)
