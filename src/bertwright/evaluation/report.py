"""An evaluation as tables for a terminal of 80 columns.

Class and source names come from data, so they are shown literally: what looks like markup is text, control characters
are spelled out, and long names lose their middle.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

WIDTH = 80  # columns of a terminal
NAME_COLUMNS = 32
ALL_CLASSES_UP_TO = 12  # past it only the worst are listed
WORST_CLASSES = 10
_HEADER_COLUMNS = 12  # of a score, where there is one column for each


def scores_table(
    metrics: Mapping[str, Any], titles: Mapping[str, str], title: str, notes: Mapping[str, str] | None = None
) -> Table:
    """Return a measurement's scores by ``titles``: the headline first, with its interval where it has one.

    ``notes`` are remarks on some of them.
    """
    headline = metrics["headline"]
    table = new_table(title, ["metric", "value", "note"], ["left", "right", "left"], wrapped="note")
    first = headline["metric"]
    for name in sorted(titles, key=lambda name: name != first):
        remarks = [notes[name]] if notes and notes.get(name) else []
        if name == first and "interval_95" in headline:
            low, high = headline["interval_95"]
            remarks.insert(0, f"95% interval {shown_score(low)} to {shown_score(high)}, {headline['samples']:,} resamples")
        note = Text("\n".join(remarks))
        table.add_row(Text(titles[name]), shown_score(metrics[name]), note, style="bold" if name == first else None)
    table.add_row("examples", f"{metrics['examples']:,}", "")
    return table


def per_class_table(metrics: Mapping[str, Any]) -> Table:
    """Return precision, recall, F1 and support of each class, and its threshold where it has one.

    Of more than 12 classes those 10 with the lowest F1 are shown.
    """
    per_class: dict[str, dict[str, Any]] = metrics["per_class"]
    shown = list(per_class)
    title = "Classes"
    if len(per_class) > ALL_CLASSES_UP_TO:
        # Among equals the one with most examples tells most.
        shown = sorted(shown, key=lambda name: (per_class[name]["f1"], -per_class[name]["support"]))[:WORST_CLASSES]
        title = f"The {WORST_CLASSES} classes of {len(per_class):,} with the lowest F1"
    titles = {"precision": "precision", "recall": "recall", "f1": "F1"}
    titles |= {"threshold": "threshold"} if all("threshold" in per_class[name] for name in shown) else {}
    table = new_table(title, ["class", *titles.values(), "examples"], ["left", *["right"] * (len(titles) + 1)])
    for name in shown:
        scores = per_class[name]
        cells = [shown_score(scores[column]) for column in titles]
        table.add_row(shown_name(name, NAME_COLUMNS), *cells, f"{scores['support']:,}")
    return table


def per_source_table(sources: Mapping[str, Mapping[str, Any]], titles: Mapping[str, str]) -> Table:
    """Return the scores of each source, in their order, by ``titles``."""
    table = new_table("Sources", ["source", "examples", *titles.values()], ["left", *["right"] * (1 + len(titles))])
    for name, scores in sources.items():
        cells = [shown_score(scores[column]) for column in titles]
        table.add_row(shown_name(name, NAME_COLUMNS), f"{scores['examples']:,}", *cells)
    return table


def seeds_table(metrics: dict[str, Any], titles: Mapping[str, str]) -> Table:
    """Return mean and standard deviation over seeds, and each seed's own scores by ``titles``; what is kept is marked."""
    names = [name for name in titles if name in metrics["seeds"][0]["validation"]]
    headers = ["split", "seed", *(textwrap.fill(titles[name], _HEADER_COLUMNS) for name in names)]
    table = new_table("Over seeds", headers, ["left", "left", *["right"] * len(names)])
    soup = metrics.get("soup", {}).get("kept")
    for split, scores in metrics["over_seeds"].items():
        for summary in metrics["seeds"]:
            mark = " (kept)" if summary["seed"] == metrics["seed"] and soup is None else ""
            table.add_row(split, f"{summary['seed']}{mark}", *(shown_score(summary[split][name]) for name in names))
        for row, field in (("mean", "mean"), ("sd", "standard_deviation")):
            table.add_row(split, row, *(f"{scores[name][field]:.4f}" for name in names), style="bold")
        if soup is not None:
            table.add_row(split, "soup (kept)", *(shown_score(metrics[split][name]) for name in names))
    return table


def measured_splits(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The measurements that a run's ``metrics.json`` holds, by name: ``validation``, ``test``, and each ``test-NAME``."""
    names = [name for name in metrics if name in ("validation", "test") or name.startswith("test-")]
    return {name: metrics[name] for name in names}


def literal(text: str) -> str:
    """Spell out characters that move the cursor, change colours or cannot be encoded: a tab becomes ``\\t``."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def shortened(text: str, columns: int) -> str:
    """Return ``text`` in at most ``columns`` terminal columns, a Chinese character taking two, both of its ends kept.

    Names of classes often differ in their last word only.
    """
    if cell_len(text) <= columns:
        return text
    head, tail = "", ""
    for character in text:
        if cell_len(head + character) > columns // 2:
            break
        head += character
    for character in reversed(text):
        if cell_len(f"{head}…{character}{tail}") > columns:
            break
        tail = character + tail
    return f"{head}…{tail}"


def new_table(title: str | None, headers: Sequence[str], justify: Sequence[Any], wrapped: str = "") -> Table:
    """An empty table in the style of all reports; only the column ``wrapped`` breaks its lines."""
    table = Table(
        title=None if title is None else Text(literal(title), style="bold"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
    )
    for header, side in zip(headers, justify, strict=True):
        table.add_column(header, justify=side, no_wrap=header != wrapped)
    return table


def shown_name(name: str, columns: int) -> Text:
    """A name from the data, no wider than so many columns of a terminal, and nothing in it a command to that."""
    return Text(shortened(literal(name), columns))


def shown_score(value: float | None) -> str:
    """A score to three digits, or a hyphen where there is none."""
    return "-" if value is None else f"{value:.3f}"


def pretraining_report(metrics: dict[str, Any], title: str) -> Table:
    """Return what a pretraining measured on held-out text, and how fast it went."""
    training = metrics["training"]
    table = new_table(title, ["measure", "value"], ["left", "right"])
    for name, value in metrics["heldout"].items():
        table.add_row(f"held-out {name.replace('_', ' ').replace('mlm', 'MLM').replace('nsp', 'NSP')}", shown_score(value))
    table.add_row("steps", f"{training['steps']:,}")
    table.add_row("tokens", f"{training['tokens']:,}")
    table.add_row("tokens a second", f"{training['tokens_per_second']:,.0f}")
    table.add_row("of the machine's peak", f"{training['fraction_of_peak']:.0%}")
    table.add_row("minutes", f"{training['seconds_in_all'] / 60:.1f}")
    return table


def guesses_table(filled: dict[str, Any]) -> Table:
    """What a model would put in the masks of a text: a row for each guess, with the text it makes."""
    table = new_table(filled["text"], ["mask", "token", "probability", "text"], ["right", "left", "right", "left"])
    for number, guesses in enumerate(filled["masks"], 1):
        for guess in guesses:
            token, text = shortened(literal(guess["token"]), 16), shortened(literal(guess["text"]), 40)
            table.add_row(f"{number}", Text(token), f"{guess['probability']:.4f}", Text(text))
        table.add_section()
    return table
