"""Texts with any number of labels: a list in one column, or a column of 0 and 1 for each label."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertwright.data.examples import Columns
from bertwright.data.readers import as_text, cell_of, example_of, is_missing, read_rows
from bertwright.errors import BertwrightError

# What a list is written as where a table has no lists.
_LIST = re.compile(r"""\s*\[\s*(['"].*)?\]\s*""", re.DOTALL)
# A column of whole numbers becomes one of floats as soon as a value of it is missing.
_FLAGS = {"1": True, "0": False, "1.0": True, "0.0": False, "true": True, "false": False}


@dataclass(frozen=True, slots=True)
class LabelledText:
    """A text, or a pair of texts, and its labels: none (None) where they are not known, an empty tuple where it has none."""

    text: str
    where: str
    pair: str | None = None
    labels: tuple[str, ...] | None = None
    source: str | None = None

    @property
    def answer(self) -> list[str] | None:
        """The labels."""
        return None if self.labels is None else list(self.labels)

    @property
    def characters(self) -> int:
        """How much text both parts hold."""
        return len(self.text) + len(self.pair or "")


def read_labelled(path: Path, columns: Columns, separator: str) -> Iterator[LabelledText]:
    """Yield the rows of a file in order, in any format of :func:`bertwright.data.readers.read_rows`.

    With ``columns.labels`` each of these columns says 0 or 1 for the label that it is named after. Else
    ``columns.label`` holds the labels: a list, or a text with ``separator`` between them; without either, a row has
    none. A label that a row names twice counts once.

    Raises:
        BertwrightError: as :func:`read_rows`; labels are missing, empty or no names, or a column has neither 0 nor 1.
    """
    if not separator:
        raise BertwrightError("--label-separator is empty; give the characters that stand between labels")
    plain = dataclasses.replace(columns, label=None, labels=())
    for where, row in read_rows(path, columns):
        example = example_of(row, plain, where)
        labels: tuple[str, ...] | None = None
        if columns.labels:
            has = [name for name in columns.labels if _flag(cell_of(row, name, "labels", where), name, where)]
            labels = tuple(map(columns.called, has))
        elif columns.label is not None:
            labels = _listed(cell_of(row, columns.label, "label", where), columns.label, separator, where)
            labels = tuple(dict.fromkeys(map(columns.called, labels)))
        yield LabelledText(example.text, where, example.pair, labels, example.source)


def _flag(value: Any, name: str, where: str) -> bool:
    found = _FLAGS.get(str(as_text(value)).strip().lower())
    if found is None:
        raise BertwrightError(f"{where}: the column {name!r} has {value!r}, where --labels wants 0 or 1")
    return found


def _listed(value: Any, column: str, separator: str, where: str) -> tuple[str, ...]:
    if is_missing(value):
        raise BertwrightError(f"{where}: the labels (column {column!r}) are missing; a row without labels has an empty list")
    if isinstance(value, str) and _LIST.fullmatch(value):
        raise BertwrightError(
            f"{where}: the labels (column {column!r}) are {value!r:.60}, a list written into a table; write them with "
            f"{separator!r} between, or the rows as JSON lines or Parquet"
        )
    if isinstance(value, str):
        parts: list[Any] = value.split(separator) if value.strip() else []
    else:
        parts = list(value) if isinstance(value, list | tuple) else [value]
    labels = [as_text(part) for part in parts]
    for part, label in zip(parts, labels, strict=True):
        if label is None or isinstance(part, Mapping):
            raise BertwrightError(f"{where}: a label (column {column!r}) is {part!r}, not a name or a number")
        if not label.strip():
            raise BertwrightError(f"{where}: a label (column {column!r}) is empty, in {value!r}; see --label-separator")
    return tuple(dict.fromkeys(label.strip() for label in labels if label is not None))
