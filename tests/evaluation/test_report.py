"""Reports that stay within 80 columns and show every name as it is, whatever the names are."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.measure import Measurement

from bertwright.evaluation.bootstrap import by_source
from bertwright.evaluation.classes import classes_report, confusion_table, metrics_table
from bertwright.evaluation.metrics import METRICS, classification_metrics
from bertwright.evaluation.report import literal, per_class_table, per_source_table, seeds_table, shortened
from bertwright.tasks import TASKS, task_class

TITLES = {"accuracy": "accuracy", "matthews_correlation": "Matthews"}
NASTY = [
    "[red]",
    "[/bold]",
    "负面的评论" * 12,
    "tab\there\nand there",
    "\x1b[31mred\x1b[0m",
    "👩‍👩‍👧 family",
    "x" * 300,
    "\ud800",
]


def measured(names: list[str], examples: int = 60, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    true = rng.integers(0, len(names), examples)
    probabilities = rng.dirichlet(np.ones(len(names)), examples)
    found = classification_metrics(true, probabilities, names, bootstrap_samples=20)
    sources = [names[index] for index in rng.integers(0, len(names), examples)]
    return found | by_source(sources, lambda rows: {name: len(rows) / examples for name in METRICS})


def rendered(what: RenderableType, width: int = 80) -> list[str]:
    page = io.StringIO()
    Console(file=page, width=width, color_system=None).print(what)
    return page.getvalue().splitlines()


def needed(what: RenderableType) -> int:
    console = Console(width=500)
    return Measurement.get(console, console.options, what).maximum


nasty_text = st.text(min_size=0, max_size=60) | st.sampled_from(NASTY)


@given(st.lists(nasty_text, min_size=2, max_size=14, unique=True), st.text(max_size=200))
@settings(max_examples=40, deadline=None)
def test_nothing_is_wider_than_80_columns_or_cut_to_fit(names: list[str], title: str) -> None:
    metrics = measured(names)
    lines = rendered(classes_report(metrics, title))
    assert max(cell_len(line) for line in lines) <= 80
    assert all(character.isprintable() for line in lines for character in line)
    # Tables that need no more than 80 columns are not squeezed, so no number in them loses a digit.
    tables = [per_class_table(metrics), per_source_table(metrics["per_source"], TITLES), confusion_table(metrics)]
    assert all(needed(table) <= 80 for table in tables if table is not None)


@given(st.text(max_size=80), st.integers(1, 40))
def test_shortened_text_fits_and_keeps_both_ends(text: str, columns: int) -> None:
    text = literal(text)
    short = shortened(text, columns)
    if cell_len(text) <= columns:
        assert short == text
    else:
        assert cell_len(short) <= columns
        head, tail = short.split("…")[0], short.split("…")[-1]
        assert text.startswith(head)
        assert text.endswith(tail)


def test_shortened_counts_wide_characters_twice() -> None:
    assert shortened("负面的评论", 10) == "负面的评论"
    assert shortened("负面的评论", 9) == "负面…评论"
    assert shortened("card_payment_wrong_exchange_rate", 20) == "card_payme…ange_rate"


def test_names_are_shown_literally() -> None:
    text = "\n".join(rendered(classes_report(measured(["[red]", "a[/b]", "tab\t", "[link=x]y"]), "[blue]Title\x07")))
    for shown in ("[red]", "a[/b]", r"tab\t", "[link=x]y", r"[blue]Title\x07"):
        assert shown in text


def test_the_headline_comes_first_with_its_interval_and_accuracy_beside_its_baseline() -> None:
    true, sure = np.array([0, 0, 0, 1]), np.eye(2)[[0, 0, 1, 1]]
    metrics = classification_metrics(true, sure, ["a", "b"], headline="matthews_correlation", bootstrap_samples=1000)
    rows = rendered(metrics_table(metrics, "Four rows"))
    low, high = metrics["headline"]["interval_95"]
    assert rows[0].strip() == "Four rows"
    assert rows[3].split() == [
        *("Matthews", "correlation", "0.577", "95%", "interval"),
        *(f"{low:.3f}", "to", f"{high:.3f},", "1,000", "resamples"),
    ]
    (accuracy,) = [row for row in rows if row.startswith("accuracy")]
    assert accuracy.split() == ["accuracy", "0.750", "always", "the", "most", "frequent", "class:", "0.750"]
    (examples,) = [row for row in rows if row.startswith("examples")]
    assert examples.split() == ["examples", "4"]


def test_accuracy_as_headline_has_both_interval_and_baseline() -> None:
    rows = rendered(metrics_table(measured(["a", "b"]), "t"))
    assert "95% interval" in rows[3]
    assert "always the most frequent class" in rows[4]
    assert sum(row.startswith("accuracy") for row in rows) == 1


def test_notes_are_shown() -> None:
    names = ["present", "also present", "absent"]
    metrics = classification_metrics([0, 1], np.eye(3)[[0, 1]], names, bootstrap_samples=5)
    text = " ".join(" ".join(rendered(metrics_table(metrics, "t"))).split())
    assert "ROC AUC - undefined: no example of class 'absent'" in text
    assert "the mean leaves out 1 of 3 classes" in text


def test_up_to_twelve_classes_are_all_listed_in_their_order() -> None:
    names = [f"n{index}" for index in range(12)]
    lines = rendered(per_class_table(measured(names)))
    assert [line.split()[0] for line in lines[3:]] == names
    assert lines[0].strip() == "Classes"


def test_of_more_classes_the_ten_worst_are_listed_and_the_title_says_so() -> None:
    metrics = measured([f"n{index}" for index in range(13)], examples=400)
    lines = rendered(per_class_table(metrics))
    assert lines[0].strip() == "The 10 classes of 13 with the lowest F1"
    listed = [line.split()[0] for line in lines[3:]]
    f1 = {name: scores["f1"] for name, scores in metrics["per_class"].items()}
    assert [f1[name] for name in listed] == sorted(f1.values())[:10]


def test_among_equally_bad_classes_those_with_examples_come_first() -> None:
    names = [f"n{index}" for index in range(20)]
    true = np.array([19] * 3 + [18] * 2 + [0])
    metrics = classification_metrics(true, np.eye(20)[[0] * 5 + [0]], names, bootstrap_samples=1)
    lines = rendered(per_class_table(metrics))
    assert [line.split()[0] for line in lines[3:5]] == ["n19", "n18"]


def test_per_class_numbers() -> None:
    metrics = classification_metrics([0, 0, 1, 1], np.eye(2)[[0, 1, 1, 1]], ["a", "b"], bootstrap_samples=5)
    lines = rendered(per_class_table(metrics))
    assert lines[3].split() == ["a", "1.000", "0.500", "0.667", "2"]
    assert lines[4].split() == ["b", "0.667", "1.000", "0.800", "2"]


def test_sources_keep_their_order() -> None:
    sources = {
        "gj04": {"examples": 1234, "accuracy": 0.5, "matthews_correlation": -0.25},
        "bc01": {"examples": 2, "accuracy": 1.0, "matthews_correlation": 0.0},
    }
    lines = rendered(per_source_table(sources, TITLES))
    assert lines[3].split() == ["gj04", "1,234", "0.500", "-0.250"]
    assert lines[4].split() == ["bc01", "2", "1.000", "0.000"]


@pytest.mark.parametrize("classes", [2, 3])
def test_sources_have_the_f1_of_the_second_of_two_classes(classes: int) -> None:
    metrics = measured([f"c{n}" for n in range(classes)])
    lines = rendered(classes_report(metrics, "t"))
    titles = lines[next(n for n, line in enumerate(lines) if "Sources" in line) + 1]
    assert titles.split()[-1] == ("F1" if classes == 2 else "macro")


def test_without_sources_there_is_no_table_of_them() -> None:
    metrics = measured(["a", "b"])
    assert any("Sources" in line for line in rendered(classes_report(metrics, "t")))
    del metrics["per_source"]
    assert not any("Sources" in line for line in rendered(classes_report(metrics, "t")))


@pytest.mark.parametrize("classes", [2, 5, 8])
def test_confusion_matrix_has_every_count(classes: int) -> None:
    names = [f"long class name {index}" for index in range(classes)]
    metrics = measured(names, examples=300)
    metrics["confusion_matrix"][0][1] = 1_234_567
    table = confusion_table(metrics)
    assert table is not None
    counts = [[int(cell) for cell in line.split()[-classes:]] for line in rendered(table)[-classes:]]
    assert counts == metrics["confusion_matrix"]
    assert needed(table) <= 80


@pytest.mark.parametrize(("classes", "count"), [(9, 1), (8, 10**12)])
def test_a_confusion_matrix_that_cannot_fit_is_left_out_and_told(classes: int, count: int) -> None:
    metrics = measured([f"n{index}" for index in range(classes)])
    metrics["confusion_matrix"][0][0] = count
    assert confusion_table(metrics) is None
    lines = rendered(classes_report(metrics, "t"))
    assert f"The confusion matrix of {classes} classes is too wide to show." in lines


def test_one_label_for_every_row_is_told() -> None:
    surely_b = np.array([[0.1, 0.9]] * 3)
    for true, told in (([0, 1, 0], True), ([1, 1, 1], False)):
        shown = "\n".join(rendered(classes_report(classification_metrics(true, surely_b, ["a", "[b]"]), "t")))
        assert ("Every row is given the label [b]: the model tells nothing apart." in shown) == told


@pytest.mark.parametrize("task", sorted(TASKS))
def test_every_task_has_its_scores_over_seeds_in_80_columns(task: str) -> None:
    split = "test-mismatched" if task == "classification" else "validation"
    titles = task_class(task).METRICS
    scores = dict.fromkeys(titles, -0.1234)
    over = {split: {name: {"mean": -0.1234, "standard_deviation": 0.0567} for name in titles}}
    seeds = [{"seed": seed, "validation": scores, split: scores} for seed in (2018, 2019)]
    lines = rendered(seeds_table({"seed": 2018, "seeds": seeds, "over_seeds": over}, titles))
    assert not any("…" in line or len(line) > 80 for line in lines)
    assert [line.split()[1:] for line in lines if line.startswith(split)] == [
        ["2018", "(kept)", *["-0.123"] * len(titles)],
        ["2019", *["-0.123"] * len(titles)],
        ["mean", *["-0.1234"] * len(titles)],
        ["sd", *["0.0567"] * len(titles)],
    ]
