"""Accuracy over minimal pairs, for each set, each phenomenon and all of them: numbers, tables, a picture, files.

Nothing is trained: does a model find the grammatical sentence of a pair the more probable one? A pair is right if its
margin, the good sentence's score less the bad one's, is above 0; equal scores are counted as ties, and are wrong, as in
BLiMP's own code. Chance is one half. In seven of BLiMP's pairs both sentences are the same, so no model gets them all.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from bertwright.arrays import FloatArray
from bertwright.data.blimp import MinimalPair
from bertwright.errors import BertwrightError
from bertwright.evaluation.canvas import GREY, SKY_BLUE, VERMILION, caption, drawable_labels, new_figure, save
from bertwright.evaluation.files import write_evaluation
from bertwright.evaluation.report import literal, shortened

CHANCE = 0.5
NAME_COLUMNS = 28
HARDEST_SETS = 5
_Z = 1.959963984540054  # of a normal distribution, 95 % lie within so many deviations


@dataclass(frozen=True, slots=True)
class Accuracy:
    """A share of right pairs, or a mean of such shares, with the interval that 95 % of samples of pairs would give."""

    accuracy: float
    interval_95: tuple[float, float]
    sets: int
    pairs: int
    right: int
    ties: int


@dataclass(frozen=True)
class PairAccuracies:
    """How often the good sentence of a pair had the higher score."""

    over_sets: Accuracy
    """The mean over sets: BLiMP's published figure."""
    over_pairs: Accuracy
    """All pairs alike; the same where sets are equally large."""
    over_phenomena: Accuracy
    """The mean over phenomena of the mean over their sets."""
    per_phenomenon: dict[str, Accuracy]
    """Means over the sets of a phenomenon, in alphabetical order."""
    per_set: dict[str, Accuracy]
    """In alphabetical order."""
    phenomenon_of: dict[str, str]
    """The phenomenon of each set."""

    def to_dict(self) -> dict[str, Any]:
        """The fields of ``metrics.json``."""
        return {
            "accuracy": self.over_sets.accuracy,
            "interval_95": list(self.over_sets.interval_95),
            **{
                f"accuracy_over_{name}": {"accuracy": one.accuracy, "interval_95": list(one.interval_95)}
                for name, one in (("pairs", self.over_pairs), ("phenomena", self.over_phenomena))
            },
            **{name: getattr(self.over_sets, name) for name in ("sets", "pairs", "right", "ties")},
            "per_phenomenon": {name: _plain(one) for name, one in self.per_phenomenon.items()},
            "per_set": {name: {"phenomenon": self.phenomenon_of[name], **_plain(one)} for name, one in self.per_set.items()},
        }


def _plain(accuracy: Accuracy) -> dict[str, Any]:
    return asdict(accuracy) | {"interval_95": list(accuracy.interval_95)}


def pair_accuracies(
    sets: Sequence[str], phenomena: Sequence[str], margins: npt.NDArray[np.float64] | Sequence[float]
) -> PairAccuracies:
    """Count the right pairs of each set and take means.

    Args:
        sets: the set of each pair.
        phenomena: the phenomenon of each pair.
        margins: for each pair, by how much the good sentence's score is higher; none of them NaN.

    Raises:
        BertwrightError: there are no pairs, or a set belongs to two phenomena.
    """
    if not len(sets):
        raise BertwrightError("there are no pairs to judge; give at least one")
    phenomenon_of: dict[str, str] = {}
    counts: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for name, phenomenon, margin in zip(sets, phenomena, margins, strict=True):
        if (before := phenomenon_of.setdefault(name, phenomenon)) != phenomenon:
            raise BertwrightError(f"the set {name!r} belongs to {before!r} and to {phenomenon!r}; give each its own name")
        assert not math.isnan(margin)
        count = counts[name]
        count[0] += 1
        count[1] += bool(margin > 0)
        count[2] += bool(margin == 0)
    tallies = {name: _Tally(*counts[name]) for name in sorted(counts)}
    sets_of: dict[str, list[str]] = {name: [] for name in sorted(set(phenomena))}
    for name in tallies:
        sets_of[phenomenon_of[name]].append(name)
    everything = list(tallies.values())
    by_phenomenon = [([tallies[name] for name in names], 1 / len(names)) for names in sets_of.values()]
    return PairAccuracies(
        over_sets=_mean(everything, [1.0] * len(everything)),
        over_pairs=_mean(everything, [float(tally.pairs) for tally in everything]),
        over_phenomena=_mean(
            [tally for group, _ in by_phenomenon for tally in group],
            [weight for group, weight in by_phenomenon for _ in group],
        ),
        per_phenomenon={
            name: _mean(group, [1.0] * len(group)) for name, (group, _) in zip(sets_of, by_phenomenon, strict=True)
        },
        per_set={name: _mean([tally], [1.0]) for name, tally in tallies.items()},
        phenomenon_of={name: phenomenon_of[name] for name in tallies},
    )


@dataclass(frozen=True, slots=True)
class _Tally:
    pairs: int
    right: int
    ties: int

    @property
    def share(self) -> float:
        return self.right / self.pairs

    def wilson(self) -> tuple[float, float]:
        """The 95 % score interval of a proportion (Wilson 1927)."""
        n, p = self.pairs, self.share
        centre = (p + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
        half = _Z * math.sqrt(p * (1 - p) / n + _Z**2 / (4 * n**2)) / (1 + _Z**2 / n)
        return min(max(centre - half, 0.0), p), max(min(centre + half, 1.0), p)


def _mean(tallies: Sequence[_Tally], weights: Sequence[float]) -> Accuracy:
    """The weighted mean of the shares, its interval made of theirs (Zou and Donner 2008; of one set, it is Wilson's).

    Unlike the bootstrap, it has a width also where all pairs of a set are right.
    """
    total = sum(weights)
    below = above = 0.0
    for tally, weight in zip(tallies, weights, strict=True):
        low, high = tally.wilson()
        below += (weight / total * (tally.share - low)) ** 2
        above += (weight / total * (high - tally.share)) ** 2
    value = sum(weight * tally.share for tally, weight in zip(tallies, weights, strict=True)) / total
    return Accuracy(
        accuracy=value,
        interval_95=(max(value - math.sqrt(below), 0.0), min(value + math.sqrt(above), 1.0)),
        sets=len(tallies),
        pairs=sum(tally.pairs for tally in tallies),
        right=sum(tally.right for tally in tallies),
        ties=sum(tally.ties for tally in tallies),
    )


@dataclass(frozen=True)
class PairsEvaluation:
    """How a model did, in all and pair by pair."""

    accuracies: PairAccuracies
    metrics: dict[str, Any]
    predictions: list[dict[str, Any]]


def measure_pairs(
    pairs: Sequence[MinimalPair], *, good: FloatArray, bad: FloatArray, about: Mapping[str, Any]
) -> PairsEvaluation:
    """Judge the scores of each pair's two sentences.

    Args:
        pairs: what was scored.
        good: the score of each pair's good sentence; higher is more probable.
        bad: the score of each pair's bad sentence.
        about: how they were scored; it becomes part of the metrics as it is.

    Raises:
        BertwrightError: a score is no finite number.
    """
    if not (np.isfinite(good).all() and np.isfinite(bad).all()):
        first = int((~(np.isfinite(good) & np.isfinite(bad))).argmax())
        raise BertwrightError(
            f"{pairs[first].where}: the model's score is not a finite number; try --precision float32, and if that does "
            "not help, its weights are damaged"
        )
    accuracies = pair_accuracies([pair.set for pair in pairs], [pair.phenomenon for pair in pairs], good - bad)
    predictions = [
        {
            "set": pair.set,
            "phenomenon": pair.phenomenon,
            "pair": pair.number,
            "good": pair.good,
            "bad": pair.bad,
            "good_score": good_score,
            "bad_score": bad_score,
            "right": good_score > bad_score,
        }
        for pair, good_score, bad_score in zip(pairs, good.tolist(), bad.tolist(), strict=True)
    ]
    return PairsEvaluation(accuracies, {"task": "blimp", **about, **accuracies.to_dict()}, predictions)


def minimal_pairs_report(accuracies: PairAccuracies, title: str) -> Group:
    """Return the tables of an evaluation, within 80 columns: the phenomena, all of them, and the hardest sets."""
    phenomena = _table(title, "phenomenon")
    for name, one in accuracies.per_phenomenon.items():
        _add(phenomena, name, one)
    phenomena.add_section()
    _add(phenomena, "mean over sets", accuracies.over_sets, style="bold")
    if accuracies.over_pairs.accuracy != accuracies.over_sets.accuracy:
        _add(phenomena, "all pairs alike", accuracies.over_pairs)
    hardest = sorted(accuracies.per_set, key=lambda name: accuracies.per_set[name].accuracy)[:HARDEST_SETS]
    if len(accuracies.per_set) <= len(hardest):
        return Group(phenomena)
    sets = _table(f"The {len(hardest)} hardest sets of {len(accuracies.per_set)}", "set")
    for name in hardest:
        _add(sets, name, accuracies.per_set[name])
    return Group(phenomena, "", sets)


def _table(title: str, first: str) -> Table:
    table = Table(
        title=Text(literal(title), style="bold"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column(first, no_wrap=True, width=NAME_COLUMNS)
    for header in ("sets", "pairs", "accuracy", "95% interval", "ties"):
        table.add_column(header, justify="right", no_wrap=True)
    return table


def _add(table: Table, name: str, one: Accuracy, style: str | None = None) -> None:
    low, high = one.interval_95
    cells = [f"{one.sets}", f"{one.pairs:,}", f"{one.accuracy:.1%}", f"{100 * low:.1f} to {100 * high:.1f}", f"{one.ties:,}"]
    table.add_row(Text(shortened(literal(name), NAME_COLUMNS)), *cells, style=style)


def plot_phenomena(accuracies: PairAccuracies, path: Path) -> None:
    """Draw the accuracy of each phenomenon with its interval, a dot for each of its sets, and chance.

    Raises:
        BertwrightError: ``path`` cannot be written.
    """
    names = list(accuracies.per_phenomenon)
    figure = new_figure(7.0, 1.6 + 0.36 * len(names))
    axes = figure.add_subplot()
    values = [accuracies.per_phenomenon[name].accuracy for name in names]
    intervals = [accuracies.per_phenomenon[name].interval_95 for name in names]
    errors = [
        [value - low for value, (low, _) in zip(values, intervals, strict=True)],
        [high - value for value, (_, high) in zip(values, intervals, strict=True)],
    ]
    places = range(len(names))
    axes.barh(places, values, xerr=errors, color=SKY_BLUE, height=0.7, error_kw={"elinewidth": 1, "capsize": 2})
    row = {name: place for place, name in enumerate(names)}
    dots = [(one.accuracy, row[accuracies.phenomenon_of[name]]) for name, one in accuracies.per_set.items()]
    axes.plot(*zip(*dots, strict=True), "o", color="black", markersize=2.5, alpha=0.7, label="a set")
    axes.axvline(CHANCE, color=GREY, linestyle="--", linewidth=1.2, label="chance")
    mean = accuracies.over_sets.accuracy
    axes.axvline(mean, color=VERMILION, linewidth=1.2, label=f"mean over sets: {mean:.1%}")
    labels = drawable_labels([name.replace("_", " ") for name in names])
    # Labels are text, never formulas, whatever dollar signs they hold.
    axes.set_yticks(places, labels=labels.texts, fontsize=9, fontfamily=labels.families, parse_math=False)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1.005), xlabel="share of pairs whose good sentence scores higher")
    # Above the axes, where no bar can lie under it.
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), frameon=False, fontsize=9, borderaxespad=0, ncols=3)
    caption(figure, [labels.note])
    save(figure, path)


def write_minimal_pairs(
    folder: Path, accuracies: PairAccuracies, metrics: Mapping[str, Any], predictions: Iterable[Mapping[str, Any]]
) -> None:
    """Write ``metrics.json``, ``predictions.jsonl`` and ``phenomena.png`` into ``folder``, which is made if need be.

    Raises:
        BertwrightError: the folder cannot be written, or holds a model; an evaluation there stays whole.
    """

    def draw(_: object, __: object, target: Path) -> None:
        plot_phenomena(accuracies, target / "phenomena.png")

    write_evaluation(folder, metrics, list(predictions), draw, {})
