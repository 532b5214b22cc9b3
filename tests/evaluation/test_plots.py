"""Plots that show the numbers they were given, survive any label, and are never half written."""

from __future__ import annotations

import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from bertwright.errors import BertwrightError
from bertwright.evaluation import canvas, plots
from bertwright.evaluation.metrics import classification_metrics, matthews_per_batch
from bertwright.evaluation.plots import plot_confusion, plot_matthews_per_batch, plot_reliability, plot_training


def measured(names: list[str], examples: int = 300, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(len(names), 0.2), examples)
    true = np.array([rng.choice(len(names), p=row) for row in probabilities])
    return classification_metrics(true, probabilities, names, bootstrap_samples=1)


def run(steps: int, epoch: int, *metrics: str) -> list[dict[str, Any]]:
    history: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        history.append({"kind": "step", "step": step, "loss": 1 + math.sin(step), "learning_rate": 1e-5})
        if step % epoch == 0:
            scores = dict.fromkeys(metrics, step / steps)
            history.append({"kind": "validation", "step": step, "epoch": step // epoch, "loss": 1 / step} | scores)
    return history


def pixels(path: Path) -> npt.NDArray[np.float64]:
    """The picture as grey levels, having checked that it is a PNG of 150 dpi and a sane size with something on it."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.info["dpi"] == pytest.approx((150, 150), abs=0.5)
        width, height = image.size
        grey = np.asarray(image.convert("L"), dtype=np.float64)
    assert 500 <= width <= 4000
    assert 400 <= height <= 4000
    assert grey.std() > 5
    assert (grey > 250).mean() > 0.05
    return grey


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that would have been saved."""
    figures: list[Any] = []
    monkeypatch.setattr(plots, "save", lambda figure, _: figures.append(figure))
    return figures


def tick_labels(axis: Any) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]


def legend_texts(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


@pytest.mark.parametrize("classes", [2, 12, 77])
def test_confusion_is_a_picture(classes: int, tmp_path: Path) -> None:
    plot_confusion(measured([f"class {index}" for index in range(classes)]), tmp_path / "confusion.png")
    pixels(tmp_path / "confusion.png")


def test_confusion_of_few_classes_has_every_count(drawn: list[Any]) -> None:
    metrics = measured([f"class {index}" for index in range(12)], examples=3000)
    plot_confusion(metrics, "x.png")
    axes = drawn[0].axes[0]
    counts = {text.get_position(): text.get_text() for text in axes.texts}
    for row, line in enumerate(metrics["confusion_matrix"]):
        assert [counts[column, row] for column in range(12)] == [f"{count:,}" for count in line]
    shares = np.asarray(axes.images[0].get_array())
    assert shares.sum(axis=1) == pytest.approx(np.ones(12))
    assert tick_labels(axes.xaxis) == tick_labels(axes.yaxis) == list(metrics["per_class"])


def test_confusion_past_twelve_classes_has_labels_but_no_numbers(drawn: list[Any]) -> None:
    metrics = measured([f"class {index}" for index in range(77)])
    plot_confusion(metrics, "x.png")
    axes = drawn[0].axes[0]
    assert not axes.texts
    assert tick_labels(axes.xaxis) == tick_labels(axes.yaxis) == list(metrics["per_class"])
    drawn[0].draw_without_rendering()
    boxes = [label.get_window_extent() for label in axes.yaxis.get_ticklabels()]
    assert all(upper.y0 >= lower.y1 for upper, lower in pairwise(boxes)), "labels lie on each other"


def test_confusion_of_very_many_classes_labels_every_nth_and_says_so(drawn: list[Any]) -> None:
    names = [f"class {index}" for index in range(310)]
    plot_confusion(measured(names), "x.png")
    assert tick_labels(drawn[0].axes[0].yaxis) == names[::3]
    assert "every 3rd class is labelled" in drawn[0].get_supxlabel()


def test_a_class_without_examples_is_an_empty_row(drawn: list[Any]) -> None:
    metrics = classification_metrics([0, 1], np.eye(3)[[0, 1]], ["a", "b", "c"], bootstrap_samples=1)
    plot_confusion(metrics, "x.png")
    assert np.asarray(drawn[0].axes[0].images[0].get_array()).tolist() == np.diag([1.0, 1.0, 0.0]).tolist()


NASTY = [
    "正面",
    "a $x^$",
    "[red]",
    "tab\tnewline\n",
    "\x00\x1b[0m",
    "👩‍👩‍👧",
    "हिन्दी",
    "",
    "%s {} \\frac",
    "x" * 400,
    "\u202eback",
]


def test_labels_no_font_can_draw_become_numbers(drawn: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canvas, "CJK_FONTS", ())
    plot_confusion(measured(NASTY), "x.png")
    labels = tick_labels(drawn[0].axes[0].yaxis)
    assert labels[:9] == ["#0", "a $x^$", "[red]", "#3", "#4", "#5", "#6", "#7", "%s {} \\frac"]
    assert labels[9:] == ["x" * 16 + "…" + "x" * 15, "#10"]
    assert "no installed font can draw 7 of the names" in drawn[0].get_supxlabel()


def test_nasty_labels_draw_without_warnings(tmp_path: Path) -> None:
    plot_confusion(measured(NASTY), tmp_path / "nasty.png")
    pixels(tmp_path / "nasty.png")


def test_an_installed_font_draws_what_the_plain_one_cannot(drawn: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    # STIX comes with matplotlib too, so it can stand in for a Chinese font on any machine.
    monkeypatch.setattr(canvas, "CJK_FONTS", ("Not Installed", "STIXGeneral"))
    plain, other = (canvas._codepoints(canvas._font_file(family)) for family in (canvas.PLAIN_FONT, "STIXGeneral"))
    only_there = next(chr(point) for point in sorted(other - plain) if chr(point).isprintable())
    name = f"a label with {only_there}"
    plot_confusion(measured([name, "plain", "\U000e0001"]), "x.png")
    axis = drawn[0].axes[0].yaxis
    assert tick_labels(axis) == [name, "plain", "#2"]
    assert axis.get_ticklabels()[0].get_fontfamily() == ["DejaVu Sans", "STIXGeneral"]
    drawn[0].draw_without_rendering()


def test_reliability_is_a_picture(tmp_path: Path) -> None:
    plot_reliability(measured(["a", "b", "c"]), tmp_path / "reliability.png")
    pixels(tmp_path / "reliability.png")


def test_reliability_shows_accuracy_gap_and_count_of_each_filled_bin(drawn: list[Any]) -> None:
    metrics = measured(["a", "b", "c"])
    plot_reliability(metrics, "x.png")
    top, bottom = drawn[0].axes
    filled = [b for b in metrics["reliability"] if b["count"]]
    assert len(filled) < 15
    bars, gaps = top.patches[: len(filled)], top.patches[len(filled) :]
    assert [bar.get_x() for bar in bars] == pytest.approx([b["low"] for b in filled])
    assert [bar.get_height() for bar in bars] == pytest.approx([b["accuracy"] for b in filled])
    assert [gap.get_y() + gap.get_height() for gap in gaps] == pytest.approx([b["confidence"] for b in filled])
    assert [bar.get_height() for bar in bottom.patches] == [b["count"] for b in filled]
    assert f"{metrics['calibration_error']:.3f}" in top.get_title()


@pytest.mark.parametrize("batches", [1, 17, 300])
def test_matthews_is_a_picture(batches: int, tmp_path: Path) -> None:
    values = np.random.default_rng(0).uniform(-1, 1, batches).tolist()
    plot_matthews_per_batch(values, 0.3, tmp_path / "matthews.png")
    pixels(tmp_path / "matthews.png")


def test_matthews_shows_each_batch_and_the_whole(drawn: list[Any]) -> None:
    rng = np.random.default_rng(0)
    values = matthews_per_batch(rng.integers(0, 2, 100), rng.integers(0, 2, 100))
    assert min(values) < 0
    plot_matthews_per_batch(values, 0.123, "x.png")
    (axes,) = drawn[0].axes
    assert [bar.get_height() for bar in axes.patches] == pytest.approx(values)
    assert [bar.get_center()[0] for bar in axes.patches] == pytest.approx([1, 2, 3, 4])
    assert axes.get_ylim()[0] < min(values)
    assert "all examples: 0.123" in legend_texts(axes)


def test_training_is_a_picture(tmp_path: Path) -> None:
    plot_training(run(900, 300, "accuracy", "f1_macro"), tmp_path / "training.png")
    pixels(tmp_path / "training.png")


def test_training_shows_every_loss_and_metric(drawn: list[Any]) -> None:
    history = run(40, 10, "accuracy", "f1_macro")
    plot_training([*history, {"kind": "checkpoint", "step": 40}], "x.png")
    losses, accuracy, f1 = drawn[0].axes
    training, validation = losses.lines
    assert training.get_xdata().tolist() == list(range(1, 41))
    assert training.get_ydata() == pytest.approx([r["loss"] for r in history if r["kind"] == "step"])
    assert validation.get_xdata().tolist() == [10, 20, 30, 40]
    assert validation.get_ydata() == pytest.approx([r["loss"] for r in history if r["kind"] == "validation"])
    assert [axes.get_ylabel() for axes in (accuracy, f1)] == ["accuracy", "f1 macro"]
    assert accuracy.lines[0].get_ydata().tolist() == [0.25, 0.5, 0.75, 1.0]
    (epochs,) = losses.child_axes
    assert dict(zip(epochs.get_xticks(), tick_labels(epochs.xaxis), strict=True)) == {
        10: "1",
        20: "2",
        30: "3",
        40: "4",
    }
    assert drawn[0].get_supxlabel() == ""


def test_a_long_run_is_drawn_as_means_and_ranges(drawn: list[Any]) -> None:
    history = run(4001, 5000)
    history[500]["loss"] = 90.0
    plot_training(history, "x.png")
    (losses,) = drawn[0].axes
    (mean,) = losses.lines
    loss = np.array([record["loss"] for record in history])
    assert len(mean.get_xdata()) <= 400
    assert mean.get_ydata()[:3] == pytest.approx([loss[start : start + 11].mean() for start in (0, 11, 22)])
    assert losses.dataLim.ymax == 90.0, "a spike must not vanish in a mean"
    assert legend_texts(losses) == ["training, range of 11 steps", "training, mean of 11 steps"]


@pytest.mark.parametrize("steps", [30, 3000])
def test_losses_that_are_not_finite_are_counted(steps: int, tmp_path: Path, drawn: list[Any]) -> None:
    history = run(steps, 5000)
    history[3]["loss"], history[4]["loss"] = math.nan, math.inf
    plot_training(history, tmp_path / "x.png")
    assert drawn[0].get_supxlabel() == f"2 of {steps:,} losses are not finite"
    drawn[0].draw_without_rendering()


def test_validation_alone_several_times_an_epoch(drawn: list[Any]) -> None:
    history = [{"kind": "validation", "step": s, "epoch": 1 + s // 25, "loss": 1.0} for s in (10, 20, 30, 40)]
    history[1]["accuracy"] = 0.5
    plot_training(history, "x.png")
    losses, accuracy = drawn[0].axes
    assert accuracy.lines[0].get_xdata().tolist() == [20]
    assert losses.child_axes[0].get_xticks().tolist() == [20, 40]


def test_many_epochs_are_marked_now_and_then(drawn: list[Any]) -> None:
    plot_training(run(100, 1), "x.png")
    assert tick_labels(drawn[0].axes[0].child_axes[0].xaxis) == [str(epoch) for epoch in range(7, 101, 7)]


def test_what_only_later_steps_have_is_drawn_from_there_on(drawn: list[Any]) -> None:
    history = run(6, 1)
    steps = [record for record in history if record["kind"] == "step"]
    later = [record | {"tokens_per_second": 10.0 * record["step"]} if record in steps[3:] else record for record in history]
    plot_training(later, "x.png", beside=["tokens_per_second"])
    (line,) = drawn[0].axes[-1].lines
    assert line.get_xdata().tolist() == [record["step"] for record in steps[3:]]
    assert line.get_ydata().tolist() == [10.0 * record["step"] for record in steps[3:]]


@pytest.mark.parametrize(
    ("history", "complaint"),
    [
        ([], "nothing to draw"),
        ([{"kind": "checkpoint", "step": 3}], "nothing to draw"),
        ([{"kind": "step", "step": 1, "loss": 1.0}, {"kind": "step", "step": 2}], "record 1 .* no 'loss'"),
        ([{"kind": "validation", "loss": 2.0}], "record 0 .* no 'step'"),
    ],
)
def test_histories_that_cannot_be_drawn(history: list[dict[str, Any]], complaint: str, tmp_path: Path) -> None:
    with pytest.raises(BertwrightError, match=complaint):
        plot_training(history, tmp_path / "x.png")
    assert not list(tmp_path.iterdir())


def test_no_batches_cannot_be_drawn(tmp_path: Path) -> None:
    with pytest.raises(BertwrightError, match="no batches"):
        plot_matthews_per_batch([], 0.0, tmp_path / "x.png")


def test_a_plot_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "plot.png"
    plot_matthews_per_batch([0.5], 0.5, path)
    before = path.read_bytes()
    plot_matthews_per_batch([0.1, 0.9], 0.5, str(path))
    after = path.read_bytes()
    assert after != before

    def held(temporary: Path, _: Path) -> None:
        assert temporary.stat().st_size > 0
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "replace", held)
    with pytest.raises(BertwrightError, match=r"plot\.png: Permission denied"):
        plot_matthews_per_batch([0.2], 0.5, path)
    assert path.read_bytes() == after
    assert list(tmp_path.iterdir()) == [path]


def test_places_that_take_no_plot(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(BertwrightError, match=r"cannot write .*x\.png: (Not a directory|File exists); choose"):
        plot_matthews_per_batch([0.5], 0.5, file / "x.png")
    with pytest.raises(BertwrightError, match=r"x\.pdf; plots are PNG files"):
        plot_matthews_per_batch([0.5], 0.5, tmp_path / "x.pdf")
    assert list(tmp_path.iterdir()) == [file]


def test_threads_draw_the_same_pictures_as_one(tmp_path: Path) -> None:
    metrics = measured(["bad", "good", "负面"])

    def draw(name: str) -> bytes:
        plot_confusion(metrics, tmp_path / f"{name}.png")
        return (tmp_path / f"{name}.png").read_bytes()

    alone = draw("alone")
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(draw, "wxyz")) == [alone] * 4


def test_pyplot_is_never_loaded(tmp_path: Path) -> None:
    script = (
        "import sys; from bertwright.evaluation.plots import plot_matthews_per_batch as plot; "
        f"plot([0.5], 0.5, {str(tmp_path / 'x.png')!r}); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
