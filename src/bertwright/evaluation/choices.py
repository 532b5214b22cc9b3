"""How often the right ending is chosen, at which rank it stands, and whether the probabilities can be believed.

Shapes: E examples, N the most choices that one of them has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table

from bertwright.arrays import FloatArray, IntArray, softmax
from bertwright.evaluation.bootstrap import by_source, headline
from bertwright.evaluation.canvas import (
    BLUE,
    GREY,
    SKY_BLUE,
    VERMILION,
    caption,
    drawable_labels,
    new_figure,
    per_cent,
    save,
    whole_numbers,
)
from bertwright.evaluation.metrics import calibration_error, reliability_bins
from bertwright.evaluation.report import new_table, per_source_table, scores_table

NO_SOURCE = "(none given)"
SOURCES_DRAWN_UP_TO = 24


def choice_metrics(
    scores_EN: FloatArray,
    right_E: IntArray,
    counts_E: IntArray,
    sources: Sequence[str | None],
    *,
    bootstrap_samples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure choices among endings.

    Args:
        scores_EN: logits, minus infinity where an example has fewer choices. The first highest is the prediction.
        right_E: the number of the right choice.
        counts_E: how many choices there are.
        sources: where each example comes from; all None: unknown.
        bootstrap_samples: how many resamples the interval is taken from.
        seed: of the bootstrap.

    Returns:
        A dict that JSON can hold: ``examples``, ``accuracy``, ``chance_accuracy`` (of guessing), ``majority_accuracy``
        (of always giving the number that is right most often), ``headline`` with the bootstrap's interval,
        ``calibration_error`` and ``reliability`` as for classes, ``ranks`` (how often the right choice stood first,
        second, …) and ``per_source`` (``examples`` and ``accuracy``, most examples first).
    """
    examples = np.arange(len(right_E))
    probabilities_EN = softmax(scores_EN)
    order_EN = np.argsort(-scores_EN, axis=1, kind="stable")
    rank_E = (order_EN == right_E[:, None]).argmax(1)
    correct_E = rank_E == 0
    reliability = reliability_bins(probabilities_EN[examples, order_EN[:, 0]], correct_E)

    def accuracy(rows: IntArray) -> float:
        return float(correct_E[rows].mean())

    metrics: dict[str, Any] = {
        "examples": len(right_E),
        "accuracy": accuracy(examples),
        "chance_accuracy": float((1 / counts_E).mean()),
        "majority_accuracy": float(np.bincount(right_E).max() / len(right_E)),
        "headline": headline("accuracy", accuracy, len(right_E), samples=bootstrap_samples, seed=seed),
        "calibration_error": calibration_error(reliability),
        "reliability": reliability,
        "ranks": np.bincount(rank_E, minlength=int(counts_E.max())).tolist(),
    }
    if any(source is not None for source in sources):
        metrics |= by_source([source or NO_SOURCE for source in sources], lambda rows: {"accuracy": accuracy(rows)})
    return metrics


def choice_report(metrics: Mapping[str, Any], title: str) -> RenderableType:
    """Return the scores, the ranks of the right choice, and the accuracy of each source as tables."""
    titles = {
        "accuracy": "accuracy",
        "chance_accuracy": "accuracy of guessing",
        "majority_accuracy": "always the most frequent place",
        "calibration_error": "calibration error",
    }
    parts: list[RenderableType] = [scores_table(metrics, titles, title), "", _ranks_table(metrics["ranks"])]
    if "per_source" in metrics:
        parts += ["", per_source_table(metrics["per_source"], {"accuracy": "accuracy"})]
    return Group(*parts)


def _ranks_table(ranks: Sequence[int]) -> Table:
    table = new_table("Rank of the right ending", ["rank", "examples", "share", "this or better"], ["right"] * 4)
    total = sum(ranks)
    for rank, (count, up_to) in enumerate(zip(ranks, np.cumsum(ranks).tolist(), strict=True), 1):
        table.add_row(f"{rank}", f"{count:,}", f"{count / total:.1%}", f"{up_to / total:.1%}")
    return table


def plot_choices(metrics: Mapping[str, Any], path: Path) -> None:
    """Draw how often the right ending stood at each rank and, where there are sources, the accuracy of each.

    Of more than 24 sources those with most examples are drawn, and the picture says so.

    Raises:
        BertwrightError: ``path`` cannot be written.
    """
    sources = dict(list(metrics.get("per_source", {}).items())[:SOURCES_DRAWN_UP_TO])
    figure = new_figure(8.0 if sources else 4.2, max(3.4, 1.4 + 0.3 * len(sources)))
    panels = figure.subplots(1, 2 if sources else 1, squeeze=False)[0]
    ranks = np.array(metrics["ranks"])
    panels[0].bar(np.arange(1, len(ranks) + 1), ranks / ranks.sum(), color=[BLUE, *[SKY_BLUE] * (len(ranks) - 1)])
    panels[0].set(xlabel="rank of the right ending", ylabel="share of examples")
    panels[0].set_ylim(0, 1)
    whole_numbers(panels[0].xaxis)
    per_cent(panels[0].yaxis)
    note = ""
    if sources:
        axes, places = panels[1], range(len(sources))
        labels = drawable_labels(list(sources))
        axes.barh(places, [one["accuracy"] for one in sources.values()], color=SKY_BLUE, height=0.7)
        for place, one in enumerate(sources.values()):
            axes.text(0.01, place, f"{one['examples']:,}", va="center", fontsize=8)
        axes.axvline(metrics["chance_accuracy"], color=GREY, linestyle="--", linewidth=1.2, label="guessing")
        overall = metrics["accuracy"]
        axes.axvline(overall, color=VERMILION, linewidth=1.2, label=f"all: {overall:.1%}")
        # Labels are text, never formulas, whatever dollar signs they hold.
        axes.set_yticks(places, labels=labels.texts, fontsize=9, fontfamily=labels.families, parse_math=False)
        axes.invert_yaxis()
        axes.set(xlim=(0, 1), xlabel="accuracy by source (on the bars: examples)")
        per_cent(axes.xaxis)
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), frameon=False, fontsize=9, borderaxespad=0, ncols=2)
        left_out = len(metrics["per_source"]) - len(sources)
        note = f"{left_out:,} sources with fewer examples are not drawn" if left_out else labels.note
    caption(figure, [f"{metrics['examples']:,} examples", note])
    save(figure, path)
