"""Delimited text: a row a line, cells separated by tabs, commas or whatever else, quotes literal or not."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from bertwright.data.examples import Columns
from bertwright.data.text_files import LONGEST_LINE, lines_of, opening, stray_return
from bertwright.errors import MANY, BertwrightError, did_you_mean, tell

_SEPARATORS = {"tab": "\t", "comma": ",", "semicolon": ";"}  # as --delimiter names them
_TAG = re.compile(r"O|[BI]-\S+")  # what words are tagged with, and no header ends in


def cells_of(path: Path, columns: Columns) -> Iterator[tuple[int, list[str]]]:
    """Yield (number of its first line, cells) of each row of delimited text, the header among them; [""] if blank.

    Raises:
        BertwrightError: the file is missing or not to be read, or a row cannot be read (names the line).
    """
    refuse_json(path)
    comma = path.suffix.lower() == ".csv"
    delimiter = separator_of(columns.delimiter) if columns.delimiter else ("," if comma else "\t")
    with opening(path) as file:
        rows = _quoted_rows if is_quoted(path, columns.quoting) else _literal_rows
        yield from rows(file, str(path), delimiter)


def refuse_json(path: Path) -> None:
    """Raise BertwrightError for a file that is one JSON value, by its name, where rows are wanted."""
    if path.suffix.lower() == ".json":
        raise BertwrightError(
            f"{path}: a .json file is one value, not rows: write a JSON object a line into a .jsonl file; SQuAD's files are "
            "read with --task question-answering"
        )


def is_quoted(path: Path, quoting: str) -> bool:
    """Whether quotes enclose fields, by ``--quoting`` and, where that is auto, by the file's name."""
    return quoting == "csv" or (quoting == "auto" and path.suffix.lower() == ".csv")


def named_rows(rows: Iterator[tuple[int, list[str]]], path: Path, columns: Columns) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield (where, cells by name) of delimited rows, named by ``columns`` or by the first of them.

    Raises:
        BertwrightError: a wanted column is missing, two have one name, or a row has another number of cells.
    """
    names: Sequence[str] = columns.names
    check_names(names, "--columns", "give each its own name")
    uneven: list[int] = []
    quotes = Quotes(path, columns)
    for number, cells in rows:
        where = f"{path}:{number}"
        if number == 1 and names and _repeats(names, cells, columns):
            raise BertwrightError(
                f"{where}: this line is a header, as it has the names of --columns; leave --columns out (with a trained "
                "model: --columns ''), or take the line out of the file"
            )
        if not names:
            names = cells
            check_names(names, f"{where}: the header", "give each its own name there")
            missing = [(option, name) for option, name in columns.wanted().items() if name not in names]
            if missing:
                role, name = missing[0]
                option = f"--{role.partition(' ')[0]}"
                remedy, sure = _remedy(names, option, columns)
                raise BertwrightError(
                    f"{where}: no column {name!r} for {option}{'' if sure else did_you_mean(name, names)} (the first line "
                    f"has: {', '.join(names)[:200]}); {remedy}"
                )
            continue
        if cells == [""] and len(names) > 1:
            continue  # a blank line; in a file of one column it is a row with an empty text
        if len(cells) != len(names) and columns.uneven_rows == "skip":
            uneven.append(number)
            continue
        if len(cells) != len(names):
            hint = "" if is_quoted(path, columns.quoting) else "; quotes are taken literally here, see --quoting"
            if columns.names and number == 1:
                hint = "; the names are those of --columns, give '' for a file with a header"
                if len(cells) == 1 and list(columns.wanted()) == ["text"]:
                    hint += f", or {columns.text} where each line is a text"
            raise BertwrightError(
                f"{where}: {len(cells)} columns where {len(names)} are expected ({', '.join(names)[:200]}){hint}"
            )
        row = dict(zip(names, cells, strict=True))
        quotes.see(row)
        yield where, row
    quotes.tell()
    if uneven:
        places = ", ".join(map(str, uneven[:5])) + (", …" if len(uneven) > 5 else "")
        tell(f"{path}: left out {len(uneven):,} rows of another number of columns than {len(names)} (lines {places})")


def _remedy(names: Sequence[str], option: str, columns: Columns) -> tuple[str, bool]:
    """What may help where the first line of a table does not have the column of an option, and whether it is sure to."""
    wanted = set(columns.wanted().values())
    if any(map(_TAG.fullmatch, " ".join(names).split()[-1:])):
        return "if each line is a word with its tag, it is for models of --task tagging", False
    for between, sign in _SEPARATORS.items():
        if len(names) == 1 and not wanted.isdisjoint(name.strip('"') for name in names[0].split(sign)):
            every = ", which holds for all files" if columns.delimiter else ""
            return f"separate the columns with --delimiter {between}{every}", True
    if not wanted.isdisjoint(name[1:-1] for name in names if Quotes.around(name)):
        return "the fields are in quotes: give --quoting csv", True
    return f"name its column with {option}, or, if that line is no header, all columns with --columns", False


def _repeats(names: Sequence[str], cells: Sequence[str], columns: Columns) -> bool:
    """Whether a line has, where the wanted columns are, their very names."""
    here = dict(zip(names, cells, strict=False))
    wanted = set(columns.wanted().values())
    return bool(wanted) and all(here.get(name, "").strip() == name for name in wanted)


class Quotes:
    """Watches whether texts are in quotes that are taken as part of them."""

    def __init__(self, path: Path, columns: Columns) -> None:
        self._path, self._text = path, columns.text or ""
        self._watched = columns.quoting == "auto" and not is_quoted(path, columns.quoting)
        self._rows = self._enclosed = 0

    @staticmethod
    def around(cell: str) -> bool:
        """Whether quotes enclose all of it."""
        return len(cell) > 1 and cell[0] == cell[-1] == '"'

    def see(self, row: Mapping[str, str]) -> None:
        """Count a row."""
        if self._watched and self._text in row:
            self._rows += 1
            self._enclosed += self.around(row[self._text])

    def tell(self) -> None:
        """Tell it, where most of many texts are."""
        if self._rows >= MANY and 2 * self._enclosed > self._rows:
            tell(
                f"{self._path}: {self._enclosed:,} of {self._rows:,} texts are in quotes, which are taken as part of them; "
                "if they only enclose the fields, give --quoting csv"
            )


def check_names(names: Sequence[str], what: str, remedy: str) -> None:
    """Raise BertwrightError where two columns have one name."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise BertwrightError(f"{what} has two columns {name!r}; {remedy}")
        seen.add(name)


def separator_of(given: str) -> str:
    """The character that ``--delimiter`` names, by itself or as tab, comma or semicolon.

    Raises:
        BertwrightError: it is more than one, or one that cannot separate columns.
    """
    separator = (_SEPARATORS | {"\\t": "\t"}).get(given, given)
    if len(separator) != 1 or separator in '"\r\n':
        raise BertwrightError(f"--delimiter must be one character, tab, comma or semicolon, not {given!r}")
    return separator


def _literal_rows(file: BinaryIO, name: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in lines_of(file, name):
        yield number, line.split(delimiter)


def _quoted_rows(file: BinaryIO, name: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_LINE))  # 128 KiB, unless told, is less than a long text
    reader = csv.reader((line + "\n" for _, line in lines_of(file, name)), delimiter=delimiter, strict=True)
    first = 1
    try:
        for cells in reader:
            yield first, cells or [""]
            first = reader.line_num + 1
    except csv.Error as error:
        if "new-line character" in str(error):
            raise stray_return(f"{name}:{first}") from None
        raise BertwrightError(f"{name}:{first}: cannot read this row: {error}; see --quoting and --delimiter") from None
