"""How well classes were told apart, as tables for a terminal."""

from __future__ import annotations

from typing import Any

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bertwright.evaluation.report import (
    NAME_COLUMNS,
    WIDTH,
    literal,
    new_table,
    per_class_table,
    per_source_table,
    scores_table,
    shortened,
    shown_name,
    shown_score,
)

NOTE_COLUMNS = 90  # of a remark that quotes a name, over as many lines as it takes
CONFUSION_UP_TO = 8  # classes
SHORTEST_NAME = 8  # columns; a confusion matrix that leaves less to the names of its rows is not shown

_TITLES = {
    "accuracy": "accuracy", "f1_macro": "F1, macro", "matthews_correlation": "Matthews correlation", "roc_auc": "ROC AUC",
    "calibration_error": "calibration error",
}  # fmt: skip
_SHORT_TITLES = {"accuracy": "accuracy", "matthews_correlation": "Matthews", "f1_macro": "F1, macro", "f1": "F1"}


def classes_report(metrics: dict[str, Any], title: str) -> Group:
    """Return every table that ``metrics`` of ``classification_metrics`` gives, the scores first, within 80 columns.

    Where ``metrics["per_source"]`` holds what ``by_source`` returned, its table is among them. A confusion matrix
    that does not fit is left out, and a line says so.
    """
    parts: list[RenderableType] = [metrics_table(metrics, title), "", per_class_table(metrics)]
    given = [any(column) for column in zip(*metrics["confusion_matrix"], strict=True)]
    if sum(given) == 1 and metrics["majority_accuracy"] < 1:
        only = list(metrics["per_class"])[given.index(True)]
        note = f"Every row is given the label {shortened(literal(only), NAME_COLUMNS)}: the model tells nothing apart."
        parts.insert(1, Text(note, style="bold red"))
    if metrics.get("per_source"):
        titles = {name: title for name, title in _SHORT_TITLES.items() if name in metrics}
        parts += ["", per_source_table(metrics["per_source"], titles)]
    confusion = confusion_table(metrics)
    if confusion is None:
        left_out = f"The confusion matrix of {len(metrics['per_class']):,} classes is too wide to show."
        return Group(*parts, "", Text(left_out, style="dim"))
    # A table's own title would be wrapped to its width, which two short names make very narrow.
    heading = Text("True classes (rows) and predicted classes (columns)", style="bold")
    return Group(*parts, "", heading, confusion)


def metrics_table(metrics: dict[str, Any], title: str) -> Table:
    """Return the scores: first the headline with its interval, then the others, accuracy beside its baseline."""
    notes = {
        "accuracy": f"always the most frequent class: {shown_score(metrics['majority_accuracy'])}",
        "f1_macro": metrics.get("f1_macro_note", ""),
        "roc_auc": shortened(literal(metrics.get("roc_auc_note", "")), NOTE_COLUMNS),
        "calibration_error": "confidence against accuracy, 15 bins",
    }
    titles = dict(_TITLES)
    if "f1" in metrics:
        titles["f1"] = f"F1 of {shortened(literal(list(metrics['per_class'])[1]), NAME_COLUMNS)}"
    return scores_table(metrics, titles, title, notes)


def confusion_table(metrics: dict[str, Any]) -> Table | None:
    """Return the confusion matrix, a row a true class, or None past 8 classes and where 80 columns cannot hold it."""
    names = list(metrics["per_class"])
    counts = [[str(count) for count in row] for row in metrics["confusion_matrix"]]
    if len(names) > CONFUSION_UP_TO:
        return None
    widest_count = max(len(count) for row in counts for count in row)
    widest_name = max(cell_len(literal(name)) for name in names)
    gaps = 2 * len(names)
    # Counts are never shortened: the names of rows and columns share what they leave.
    room_for_row_name = WIDTH - gaps - len(names) * max(widest_count, SHORTEST_NAME - 2)
    row_columns = min(NAME_COLUMNS, widest_name, max(room_for_row_name, SHORTEST_NAME))
    columns = min(max(widest_count, widest_name), (WIDTH - gaps - row_columns) // len(names))
    if columns < widest_count:
        return None
    table = new_table(None, [], [])
    table.add_column("", no_wrap=True, width=row_columns)
    for name in names:
        table.add_column(shown_name(name, columns), justify="right", no_wrap=True, width=columns)
    for index, (name, row) in enumerate(zip(names, counts, strict=True)):
        cells = [Text(count, style="bold" if index == column else "") for column, count in enumerate(row)]
        table.add_row(shown_name(name, row_columns), *cells)
    return table
