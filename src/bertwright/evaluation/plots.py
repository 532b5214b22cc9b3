"""Pictures of an evaluation and of a training run, as PNG files, drawn on what `bertwright.evaluation.canvas` has."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.cells import cell_len

from bertwright.errors import BertwrightError
from bertwright.evaluation.canvas import (
    BLUE,
    GREEN,
    GREY,
    SKY_BLUE,
    VERMILION,
    caption,
    drawable_labels,
    new_figure,
    save,
    whole_numbers,
)

NUMBERED_CELLS_UP_TO = 12  # classes; past it the counts would be too small to read
LABELS_DRAWN_UP_TO = 40
LABELLED_TICKS_UP_TO = 150  # classes; past it only every n-th has its name beside it
EPOCHS_MARKED_UP_TO = 15  # past it only every n-th is marked
SEPARATE_STEPS_UP_TO = 400  # past it training losses are drawn as the mean and range of as many windows


def plot_confusion(metrics: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Draw ``metrics["confusion_matrix"]``, coloured by the share of each true class, with counts up to 12 classes.

    Labels are the names in ``metrics["per_class"]``. One that no installed font can draw is shown as ``#`` and its
    position in that list, and past 150 classes only every n-th is shown; the picture says either under the matrix.

    Raises BertwrightError where ``path`` does not end in .png or cannot be written.
    """
    from matplotlib.colors import PowerNorm

    confusion_CC = np.asarray(metrics["confusion_matrix"], dtype=np.int64)
    labels = drawable_labels(list(metrics["per_class"]))
    num_classes = len(confusion_CC)
    few = num_classes <= NUMBERED_CELLS_UP_TO
    every = math.ceil(num_classes / LABELLED_TICKS_UP_TO)
    font_size = 9.0 if few else 6.5
    longest = max(cell_len(text) for text in labels.texts)
    label_inches = longest * font_size * 0.6 / 72
    side = max(2.4, num_classes * 0.62) if few else max(4.0, min(num_classes, LABELLED_TICKS_UP_TO) * 0.15)

    figure = new_figure(side + label_inches + 1.8, side + label_inches + 1.4)
    axes = figure.add_subplot()
    support_C1 = confusion_CC.sum(axis=1, keepdims=True)
    share_CC = confusion_CC / np.maximum(support_C1, 1)
    # The square root keeps rare confusions visible beside a strong diagonal when there are no numbers to read.
    norm = PowerNorm(1.0 if few else 0.5, vmin=0.0, vmax=1.0)
    image = axes.imshow(share_CC, cmap="Blues", norm=norm, interpolation="nearest")
    if few:
        for row, column in np.ndindex(confusion_CC.shape):
            ink = "white" if share_CC[row, column] > 0.55 else "black"
            count = f"{confusion_CC[row, column]:,}"
            size = font_size if len(count) < 6 else font_size - 2.5
            axes.text(column, row, count, ha="center", va="center", color=ink, fontsize=size)

    ticks = range(0, num_classes, every)
    shown = [labels.texts[tick] for tick in ticks]
    turn = 0 if label_inches < 0.9 * side / num_classes else 90
    # Labels are text, never formulas, whatever dollar signs they hold.
    axes.set_xticks(ticks, labels=shown, fontsize=font_size, fontfamily=labels.families, parse_math=False, rotation=turn)
    axes.set_yticks(ticks, labels=shown, fontsize=font_size, fontfamily=labels.families, parse_math=False)
    title_size = 10 if side < 8 else 14
    axes.set_xlabel("predicted class", fontsize=title_size)
    axes.set_ylabel("true class", fontsize=title_size)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, aspect=30, ticks=None if few else [0, 0.01, 0.05, 0.2, 0.5, 1])
    bar.set_label("share of the true class" + ("" if few else " (square-root scale)"), fontsize=title_size)
    notes = [labels.note, f"every {_ordinal(every)} class is labelled" if every > 1 else ""]
    caption(figure, [f"{int(support_C1.sum()):,} examples", *notes])
    save(figure, path)


def plot_reliability(metrics: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Draw accuracy against confidence in the bins of ``metrics["reliability"]``, and how many examples each holds.

    The diagonal is perfect calibration (Guo et al., 2017, "On Calibration of Modern Neural Networks", figure 1).

    Raises BertwrightError where ``path`` does not end in .png or cannot be written.
    """
    bins = [b for b in metrics["reliability"] if b["count"]]
    low = np.array([b["low"] for b in bins])
    width = np.array([b["high"] for b in bins]) - low
    accuracy = np.array([b["accuracy"] for b in bins])
    confidence = np.array([b["confidence"] for b in bins])

    figure = new_figure(5.2, 6.2)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    top.bar(low, accuracy, width, align="edge", color=SKY_BLUE, edgecolor="white", label="accuracy of the bin")
    top.bar(
        low,
        confidence - accuracy,
        width,
        bottom=accuracy,
        align="edge",
        fill=False,
        edgecolor=VERMILION,
        hatch="////",
        linewidth=0.8,
        label="gap to its confidence",
    )
    top.plot([0, 1], [0, 1], color="black", linestyle="--", linewidth=1, label="perfect calibration")
    top.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
    top.set_title(f"expected calibration error {metrics['calibration_error']:.3f}", fontsize=11)
    top.legend(loc="upper left", fontsize=9)
    bottom.bar(low, [b["count"] for b in bins], width, align="edge", color=GREY, edgecolor="white")
    bottom.set(xlabel="confidence (probability of the predicted class)", ylabel="examples")
    whole_numbers(bottom.yaxis, nbins=3)
    save(figure, path)


def plot_matthews_per_batch(values: Sequence[float], total: float, path: str | os.PathLike[str]) -> None:
    """Draw the Matthews correlation of each batch (``matthews_per_batch``) and, as a line, that of all examples.

    Raises BertwrightError where there are no values, or ``path`` does not end in .png or cannot be written.
    """
    if not len(values):
        raise BertwrightError("there are no batches to draw; give at least one value")
    figure = new_figure(min(14.0, max(6.0, 1.5 + 0.22 * len(values))), 4.0)
    axes = figure.add_subplot()
    axes.bar(range(1, len(values) + 1), values, width=0.8 if len(values) <= 200 else 1.0, color=BLUE)
    axes.axhline(0, color="black", linewidth=0.8)
    flat = [number for number, value in enumerate(values, 1) if value == 0]
    axes.plot(flat, [0.0] * len(flat), "o", color=BLUE, markersize=4)  # a bar without height would not be seen
    axes.axhline(total, color=VERMILION, linestyle="--", linewidth=1.5, label=f"all examples: {total:.3f}")
    axes.set(xlim=(0.4, len(values) + 0.6), ylim=(min(0.0, *values, total) * 1.08, 1.05))
    whole_numbers(axes.xaxis)
    axes.set(xlabel="batch", ylabel="Matthews correlation")
    # Above the axes, where no bar can lie under it.
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), frameon=False, fontsize=9, borderaxespad=0)
    save(figure, path)


def plot_predicted(true: Sequence[float], predicted: Sequence[float], path: str | os.PathLike[str]) -> None:
    """Draw a point for each example, its predicted number over its true one, and the line where both are equal.

    Raises BertwrightError where there are no numbers, or ``path`` does not end in .png or cannot be written.
    """
    if not len(true):
        raise BertwrightError("there are no predictions to draw; give at least one")
    figure = new_figure(5.6, 5.2)
    axes = figure.add_subplot()
    low, high = min(*true, *predicted), max(*true, *predicted)
    margin = 0.04 * (high - low) or 0.5
    # Many points lie over each other: the more there are, the fainter each one.
    faint = min(0.8, max(0.05, 300 / len(true)))
    axes.plot([low, high], [low, high], color="black", linestyle="--", linewidth=1, label="predicted = true")
    axes.scatter(true, predicted, s=12, color=BLUE, alpha=faint, linewidths=0)
    axes.set(xlim=(low - margin, high + margin), ylim=(low - margin, high + margin))
    axes.set(xlabel="true score", ylabel="predicted score")
    axes.legend(loc="upper left", fontsize=9)
    axes.grid(alpha=0.3)
    caption(figure, [f"{len(true):,} examples"])
    save(figure, path)


def plot_label_scores(per_label: Mapping[str, Mapping[str, float]], path: str | os.PathLike[str]) -> None:
    """Draw F1 of each label as a bar, its precision and recall as marks, the label with most examples first.

    ``per_label`` maps names to ``f1``, ``precision``, ``recall`` and ``support``. Of more than 40 labels those with most
    examples are drawn, which the picture says.

    Raises BertwrightError where ``path`` does not end in .png or cannot be written.
    """
    shown = sorted(per_label, key=lambda name: -per_label[name]["support"])[:LABELS_DRAWN_UP_TO]
    labels = drawable_labels(shown)
    places = np.arange(len(shown))
    figure = new_figure(6.4, 1.3 + 0.24 * len(shown))
    axes = figure.add_subplot()
    axes.barh(places, [per_label[name]["f1"] for name in shown], color=SKY_BLUE, height=0.75, label="F1")
    for mark, colour, name in ((">", BLUE, "precision"), ("<", VERMILION, "recall")):
        axes.scatter([per_label[one][name] for one in shown], places, marker=mark, color=colour, s=18, label=name)
    ticks = [f"{text} ({int(per_label[name]['support']):,})" for text, name in zip(labels.texts, shown, strict=True)]
    axes.set_yticks(places, labels=ticks, fontsize=7.5, fontfamily=labels.families, parse_math=False)
    axes.set(xlim=(0, 1.02), ylim=(len(shown) - 0.4, -0.6))
    axes.grid(alpha=0.3, axis="x")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, frameon=False, fontsize=9)
    left_out = f"the {len(shown)} most frequent of {len(per_label):,} labels" if len(shown) < len(per_label) else ""
    caption(figure, [left_out, labels.note])
    save(figure, path)


def plot_training(history: Sequence[dict[str, Any]], path: str | os.PathLike[str], *, beside: Sequence[str] = ()) -> None:
    """Draw training and validation loss over the steps of a run, and under them a panel for each validation metric.

    ``beside`` names values of the steps, such as ``gradient_norm``, that get a panel each too.

    ``history`` holds ``{"kind": "step", "step": int, "loss": float, "learning_rate": float}`` and ``{"kind":
    "validation", "step": int, "epoch": int, "loss": float, <metric>: float, ...}`` in the order they happened; records
    of other kinds are not drawn. Past 400 steps the training loss is drawn as the mean and the range of windows of
    steps, which the legend says. Losses that are not finite leave gaps, and the picture counts them.

    Raises BertwrightError where there is nothing to draw, a record lacks its step or loss, or ``path`` does not end in
    .png or cannot be written.
    """
    for number, record in enumerate(history):
        missing = {"step", "loss"} - record.keys() if record.get("kind") in ("step", "validation") else set()
        if missing:
            raise BertwrightError(f"record {number} of the history has no '{min(missing)}'; each one needs step and loss")
    steps = [record for record in history if record.get("kind") == "step"]
    validations = [record for record in history if record.get("kind") == "validation"]
    if not steps and not validations:
        raise BertwrightError("the history holds no step and no validation; there is nothing to draw")
    described = {"kind", "step", "epoch", "loss"}
    metric_names = list(dict.fromkeys(name for record in validations for name in record if name not in described))

    heights = [2.0] + [1.0] * (len(metric_names) + len(beside))
    figure = new_figure(7.0, 1.0 + 1.6 * sum(heights))
    panels = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0]
    if steps:
        _draw_training_loss(panels[0], _column(steps, "step"), _column(steps, "loss"))
    if validations:
        at, loss = _column(validations, "step"), _column(validations, "loss")
        panels[0].plot(at, loss, color=VERMILION, marker="o", markersize=4, linewidth=1.5, label="validation")
        _mark_epochs(panels[0], validations)
    panels[0].set_ylabel("loss")
    panels[0].legend(fontsize=9)
    for panel, name in zip(panels[1:], metric_names, strict=False):
        measured = [record for record in validations if name in record]
        at, value = _column(measured, "step"), _column(measured, name)
        panel.plot(at, value, color=GREEN, marker="o", markersize=4, linewidth=1.5)
        panel.set_ylabel(name.replace("_", " "), parse_math=False)
    for panel, name in zip(panels[1 + len(metric_names) :], beside, strict=True):
        having = [record for record in steps if name in record]  # a run may have gone on from an older version's state
        panel.plot(_column(having, "step"), _column(having, name), color=SKY_BLUE, linewidth=0.8)
        panel.set_ylabel(name.replace("_", " "), parse_math=False)
    for panel in panels:
        panel.grid(alpha=0.3)
    panels[-1].set_xlabel("step")
    whole_numbers(panels[-1].xaxis)
    lost = int((~np.isfinite(_column([*steps, *validations], "loss"))).sum())
    caption(figure, [f"{lost:,} of {len(steps) + len(validations):,} losses are not finite" if lost else ""])
    save(figure, path)


def _draw_training_loss(panel: Any, step: npt.NDArray[np.float64], loss: npt.NDArray[np.float64]) -> None:
    if len(loss) <= SEPARATE_STEPS_UP_TO:
        panel.plot(step, loss, color=BLUE, linewidth=1.2, label="training")
        return
    window = math.ceil(len(loss) / SEPARATE_STEPS_UP_TO)
    starts = range(0, len(loss), window)
    # A window with a loss that is not finite has no honest mean, so it becomes a gap.
    whole = [loss[start : start + window] for start in starts]
    mean, low, high = (
        [summary(part) if np.isfinite(part).all() else math.nan for part in whole] for summary in (np.mean, min, max)
    )
    at = [step[start : start + window].mean() for start in starts]
    panel.fill_between(at, low, high, color=BLUE, alpha=0.25, linewidth=0, label=f"training, range of {window:,} steps")
    panel.plot(at, mean, color=BLUE, linewidth=1.2, label=f"training, mean of {window:,} steps")


def _mark_epochs(panel: Any, validations: Sequence[dict[str, Any]]) -> None:
    # Where an epoch is validated more than once, its last validation is its end.
    end_of = {record["epoch"]: record["step"] for record in validations if "epoch" in record}
    every = math.ceil(len(end_of) / EPOCHS_MARKED_UP_TO)
    marked = sorted(end_of)[every - 1 :: every] if end_of else []
    if marked:
        ends = panel.secondary_xaxis("top")
        ends.set_xticks([end_of[epoch] for epoch in marked], labels=[str(epoch) for epoch in marked])
        ends.set_xlabel("end of epoch")


def _column(records: Sequence[dict[str, Any]], name: str) -> npt.NDArray[np.float64]:
    return np.array([record[name] for record in records], dtype=np.float64)


def _ordinal(number: int) -> str:
    endings = {1: "st", 2: "nd", 3: "rd"}
    return f"{number}{'th' if number % 100 in (11, 12, 13) else endings.get(number % 10, 'th')}"
