"""Beginnings and their endings: SWAG's CSV (Zellers et al. 2018), CODAH's TSV (Chen et al. 2019), JSON lines, Parquet."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from bertwright.data.delimited import cells_of, check_names, named_rows
from bertwright.data.examples import Columns, Example, Unreadable
from bertwright.data.readers import as_text, cell_of, is_delimited, is_missing, not_empty, read_objects
from bertwright.data.streamed import stream_lines
from bertwright.errors import BertwrightError

_STARTS = ("startphrase", "start")
_SWAG = ("sent1", "sent2")
_LISTS = ("choices", "endings")
_ENDING = "ending{}"  # columns ending0, ending1, …
_ANSWERS = ("label", "answer")
_WHOLE = re.compile(r"(\d+)(\.0+)?")
_TEXT, _LABEL = Columns().text, Columns().label  # where nothing else was asked for, published names are looked for too


@dataclass(frozen=True, slots=True)
class ChoiceExample:
    """A beginning, two or more endings, and which of them is right, counted from 0.

    ``lead`` are words that every ending goes on from: SWAG's ``sent2``, the beginning of the sentence that they end.
    """

    start: str
    endings: tuple[str, ...]
    where: str
    lead: str = ""
    label: int | None = None
    source: str | None = None

    @property
    def answer(self) -> int | None:
        """The number of the right ending."""
        return self.label

    @property
    def characters(self) -> int:
        """How much text all its sequences hold."""
        return (len(self.start) + len(self.lead)) * len(self.endings) + sum(map(len, self.endings))

    def continuations(self) -> list[str]:
        """What follows the beginning, for each ending."""
        return [f"{self.lead} {ending}" if self.lead else ending for ending in self.endings]


def read_choices(path: Path, columns: Columns, endings: Sequence[str]) -> Iterator[ChoiceExample]:
    """Yield the examples of a file in order; its name's ending says its format.

    Args:
        path: the file.
        columns: which columns hold beginning (``text``), answer (``label``; None: not looked for) and source. Where
            text and label have their defaults, columns are also found by the names of published files: ``sent1`` with
            ``sent2``, ``startphrase``, ``start``; ``answer``.
        endings: columns of the endings, or the one that lists them; none: ``choices``, ``endings``, or ``ending0`` …

    Delimited text whose first line names no endings, nor a beginning as SWAG does, has no header, and is CODAH's: kind,
    beginning, endings, answer.
    An answer is the number of the right ending, counted from 0, or its text.

    Raises:
        BertwrightError: the file is missing, not to be read or empty, or a row cannot be read (names the line).
    """
    check_names(endings, "--endings", "each ending has its own")
    for role, name in (("text", columns.text), ("label", columns.label)):
        if name in endings:
            raise BertwrightError(f"--endings names the column {name!r}, and so does --{role}; each ending has its own")
    yield from not_empty(_examples(path, columns, endings), path)


def _examples(path: Path, columns: Columns, endings: Sequence[str]) -> Iterator[ChoiceExample]:
    # The columns are looked for row by row, as not all have to be there.
    table = dataclasses.replace(columns, text=None, pair=None, label=None, source=None)
    if not is_delimited(path):
        for where, row in read_objects(path, table):
            yield _example(row, columns, endings, where)
        return
    rows = cells_of(path, table)
    first = list(itertools.islice(rows, 1))
    known = {*endings, *_LISTS, _ENDING.format(0), *_SWAG, _STARTS[0]}
    if columns.names or not known.isdisjoint(first[0][1] if first else ()):
        for where, named in named_rows(itertools.chain(first, rows), path, table):
            yield _example(_answer_as_number(named, columns), columns, endings, where)
        return
    for number, cells in itertools.chain(first, rows):
        if cells != [""]:
            yield _codah(cells, columns, f"{path}:{number}")


def _codah(cells: list[str], columns: Columns, where: str) -> ChoiceExample:
    if len(cells) < 5 or not cells[-1].strip().isdecimal():
        raise BertwrightError(
            f"{where}: a file without a header has kind, beginning, two or more endings and the number of the right one, "
            f"but this line has {len(cells)} columns, the last of them {cells[-1][:40]!r}; if there is a header, it must "
            f"name {_ENDING.format(0)}, {_ENDING.format(1)}, …, or those of --endings"
        )
    kind, start, *endings, answer = cells
    found = _endings(endings, where)
    label = None if columns.label is None else _place(int(answer), found, where)
    return ChoiceExample(start, found, where, label=label, source=kind.strip())


def _answer_as_number(row: Mapping[str, Any], columns: Columns) -> Mapping[str, Any]:
    """In a table, where all is text, a number is that of an ending, even where an ending is a number too.

    2 may be written as 2.0, unless an ending is just that: a column of whole numbers becomes one of floats as soon as one
    of its answers is missing.
    """
    name = _answer_column(row, columns)
    number = None if name is None else _WHOLE.fullmatch(row[name].strip())
    if name is None or number is None or (number[2] and any(row[other] == row[name] for other in row if other != name)):
        return row
    return {**row, name: int(number[1])}


def _answer_column(row: Mapping[str, Any], columns: Columns) -> str | None:
    names = _ANSWERS if columns.label == _LABEL else (columns.label,)
    return next((name for name in names if name in row), None)


def _example(row: Mapping[str, Any], columns: Columns, endings: Sequence[str], where: str) -> ChoiceExample:
    start, lead = _start(row, columns, where)
    found = _endings(_listed(row, endings, where), where)
    label = None
    if columns.label is not None:
        name = _answer_column(row, columns) or columns.label
        label = _place(cell_of(row, name, "label", where), found, where)
    source = None if columns.source is None else _text(row, columns.source, "source", where)
    return ChoiceExample(start, found, where, lead, label, source)


def _start(row: Mapping[str, Any], columns: Columns, where: str) -> tuple[str, str]:
    assert columns.text is not None
    if columns.text in row or columns.text != _TEXT:
        return _text(row, columns.text, "text", where), ""
    if all(name in row for name in _SWAG):
        return _text(row, _SWAG[0], "text", where), _text(row, _SWAG[1], "text", where)
    name = next((name for name in _STARTS if name in row), None)
    if name is None:
        raise BertwrightError(
            f"{where}: no beginning: neither {_TEXT}, {', '.join(_STARTS)}, nor {' and '.join(_SWAG)} "
            f"(columns: {', '.join(row)[:200]}); name its column with --text"
        )
    return _text(row, name, "text", where), ""


def _listed(row: Mapping[str, Any], names: Sequence[str], where: str) -> list[Any]:
    if len(names) == 1 or not names:
        name = next((name for name in names or _LISTS if name in row), None)
        if name is not None and isinstance(row[name], list | tuple):
            return list(row[name])
        if name is not None:
            raise BertwrightError(f"{where}: the endings (column {name!r}) are {row[name]!r:.40}, not a list of texts")
    if not names:
        numbered = (_ENDING.format(number) for number in itertools.count())
        names = list(itertools.takewhile(row.__contains__, numbered))
    if not names:
        raise BertwrightError(
            f"{where}: no endings: neither a list {' or '.join(_LISTS)}, nor {_ENDING.format(0)}, {_ENDING.format(1)}, … "
            f"(columns: {', '.join(row)[:200]}); name their columns with --endings"
        )
    return [cell_of(row, name, "endings", where) for name in names]


def _endings(values: Sequence[Any], where: str) -> tuple[str, ...]:
    endings = ["" if is_missing(value) else value for value in values]
    while endings and isinstance(endings[-1], str) and not endings[-1].strip():
        endings.pop()  # in a table, a row with fewer endings than others leaves its last cells empty
    for number, ending in enumerate(endings):
        text = as_text(ending)
        if text is None or isinstance(ending, bool):
            raise BertwrightError(f"{where}: ending {number} is {ending!r:.40}, not a text or a number")
        if not text.strip():
            raise BertwrightError(
                f"{where}: ending {number} is empty, but a later one is not; fill it in or leave the row out"
            )
    if len(endings) < 2:
        raise BertwrightError(f"{where}: {len(endings)} endings; at least two are needed to choose from")
    return tuple(str(as_text(ending)) for ending in endings)


def _place(value: Any, endings: tuple[str, ...], where: str) -> int:
    """The number of the right ending, given as such or as its text."""
    if is_missing(value) or value == "":
        raise BertwrightError(f"{where}: the answer is missing; fill it in or leave the row out")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        if not 0 <= value < len(endings):
            raise BertwrightError(f"{where}: the answer is {value}, but {len(endings)} endings are 0 to {len(endings) - 1}")
        return value
    given = value.strip() if isinstance(value, str) else value
    places = [place for place, ending in enumerate(endings) if ending.strip() == given]
    if isinstance(given, str) and given.isdecimal() and places != [int(given)]:
        if not places:
            return _place(int(given), endings, where)
        raise BertwrightError(
            f"{where}: the answer {value!r} is the text of ending {places[0]}, or the number of another; "
            "write the number without quotes"
        )
    if len(places) != 1:
        which = "the text of several endings" if places else "neither the number of an ending, from 0, nor its text"
        raise BertwrightError(f"{where}: the answer {value!r:.60} is {which}; give its number")
    return places[0]


def _text(row: Mapping[str, Any], name: str, role: str, where: str) -> str:
    value = cell_of(row, name, role, where)
    if is_missing(value):
        raise BertwrightError(f"{where}: the {role} (column {name!r}) is missing; fill it in or leave the row out")
    text = as_text(value)
    if text is None or isinstance(value, bool):
        raise BertwrightError(f"{where}: the {role} (column {name!r}) is {value!r:.40}, not a text or a number")
    return text


def stream_choices(file: BinaryIO, name: str) -> Iterator[ChoiceExample | Unreadable]:
    """Yield one item for each line of a stream: a beginning and two or more endings, a tab before each.

    A line that cannot be read, or has fewer endings or an empty one, gives an :class:`Unreadable` in its place; an empty
    line gives an example with nothing in it.
    """
    for item in stream_lines(file, name):
        if not isinstance(item, Example):
            yield item
            continue
        start, *endings = item.text.split("\t")
        if not item.text.strip():
            yield ChoiceExample("", (), item.where)
        elif len(endings) < 2:
            yield Unreadable(item.where, "not a beginning and two or more endings, a tab before each")
        elif not all(ending.strip() for ending in endings):
            yield Unreadable(item.where, "an ending is empty")
        else:
            yield ChoiceExample(start, tuple(endings), item.where)
