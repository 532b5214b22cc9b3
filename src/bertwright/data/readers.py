"""Read rows from delimited files, JSON lines and Parquet: streaming, and strict about what they hold.

Every problem names its file and line. A row that cannot be read ends the reading, unless the user has asked to skip such.
"""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from bertwright.data.examples import Columns, Example, Unreadable
from bertwright.data.hub_classes import classes_of, named
from bertwright.data.hub_rows import is_hub
from bertwright.errors import BertwrightError, did_you_mean, tell

T = TypeVar("T")

LONGEST_LINE = 16 << 20  # bytes; a longer line is a wrong file, not a text
_BOM = b"\xef\xbb\xbf"
_SEPARATORS = {"tab": "\t", "comma": ",", "semicolon": ";"}  # as --delimiter names them
_TAG = re.compile(r"O|[BI]-\w+")  # what words are tagged with, and no header ends in
JSON_LINES, _PARQUET = (".jsonl", ".ndjson"), (".parquet",)  # endings of file names


def is_delimited(path: str | Path) -> bool:
    """Whether :func:`read_examples` takes a file of this name for delimited text."""
    return Path(path).suffix.lower() not in (*JSON_LINES, *_PARQUET) and not is_hub(path)


def holds_objects(path: Path) -> bool:
    """Whether :func:`read_objects` takes a file of this name: JSON lines or Parquet."""
    return path.suffix.lower() in (*JSON_LINES, *_PARQUET)


def read_examples(path: str | Path, columns: Columns) -> Iterator[Example]:
    """Yield the rows of a file in order; its name's ending says its format.

    ``.jsonl`` and ``.ndjson`` are JSON lines, ``.parquet`` is Parquet (needs the parquet extra), ``.csv`` and all
    others are delimited text.

    Raises:
        BertwrightError: the file is missing, not to be read or empty, or a row cannot be read (names the line).
    """
    for where, row in read_rows(path, columns):
        yield example_of(row, columns, where)


def read_rows(path: str | Path, columns: Columns) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (where, cells by column name) of each row; see :func:`read_examples`, which makes examples of them."""
    path = Path(path)
    if is_delimited(path):
        yield from not_empty(named_rows(cells_of(path, columns), path, columns), path)
    else:
        yield from not_empty(read_objects(path, columns), path)


def read_objects(path: Path, columns: Columns | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (where, row) of a file of JSON lines or Parquet; of Parquet the wanted columns, or all if none is wanted.

    Raises:
        BertwrightError: the file is missing or not to be read, or lacks a wanted column (Parquet).
    """
    if path.suffix.lower() in JSON_LINES:
        return json_lines(path)
    return _parquet(path, list(columns.wanted().values()) or None if columns is not None else None)


def not_empty(rows: Iterator[T], path: Path) -> Iterator[T]:
    """Yield the rows of a file.

    Raises:
        BertwrightError: there is none.
    """
    empty = True
    for row in rows:
        empty = False
        yield row
    if empty:
        raise BertwrightError(f"{path}: the file has no rows; is it the right one?")


@contextlib.contextmanager
def opening(path: Path) -> Iterator[BinaryIO]:
    """Open a file; what the system says about it, also later on, becomes one line.

    Raises:
        BertwrightError: it is missing, or cannot be read.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise BertwrightError(f"{path}: cannot be read: {error.strerror or error}; is the name right?") from None
    with file:
        try:
            yield file
        except OSError as error:
            raise BertwrightError(f"{path}: reading it failed: {error.strerror or error}") from None


def example_of(row: Mapping[str, Any], columns: Columns, where: str) -> Example:
    """Make an example of a row's cells.

    Raises:
        BertwrightError: a column is not there, or a cell is missing or neither a text nor a number.
    """
    values: dict[str, str] = {}
    for role, name in columns.wanted().items():
        value = cell_of(row, name, role, where)
        if is_missing(value) or (role == "label" and str(value).strip() == ""):
            raise BertwrightError(f"{where}: the {role} (column {name!r}) is missing; fill it in or leave the row out")
        text = as_text(value)
        if text is None or (isinstance(value, bool) and role != "label"):
            raise BertwrightError(f"{where}: the {role} (column {name!r}) is {value!r}, not a text or a number")
        values[role] = columns.called(text) if role == "label" else text
    return Example(where=where, **values)


def cell_of(row: Mapping[str, Any], name: str, role: str, where: str) -> Any:
    """Return the cell of a column.

    Raises:
        BertwrightError: there is no such column.
    """
    if name not in row:
        known = ", ".join(row)[:200]
        raise BertwrightError(f"{where}: no column {name!r} for --{role}{did_you_mean(name, row)} (columns: {known})")
    return row[name]


def is_missing(value: Any) -> bool:
    """Whether a cell holds nothing: null, or the NaN that tables have in its stead."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def as_text(value: Any) -> str | None:
    """A cell's text: a whole number without a point, true and false as JSON spells them; None of what is none of these."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, str | int | float) else None


def lines_of(file: BinaryIO, name: str) -> Iterator[tuple[int, str]]:
    """Yield (line number, text without its line ending) of UTF-8 text, a byte order mark left out.

    Raises:
        BertwrightError: a line is not UTF-8, holds a NUL byte, or is longer than ``LONGEST_LINE``.
    """
    number = 0
    while raw := file.readline(LONGEST_LINE + 1):
        number += 1
        if len(raw) > LONGEST_LINE:
            raise BertwrightError(f"{name}:{number}: the line is longer than {LONGEST_LINE >> 20} MiB; is this a text file?")
        if number == 1:
            raw = raw.removeprefix(_BOM)
        if b"\x00" in raw:
            raise BertwrightError(f"{name}:{number}: the line holds a NUL byte; save the file as UTF-8 text")
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            bad = raw[error.start]
            raise BertwrightError(
                f"{name}:{number}: byte 0x{bad:02x} at position {error.start + 1} is not UTF-8; save the file as UTF-8"
            ) from None
        yield number, text.removesuffix("\n").removesuffix("\r")


def stream_lines(file: BinaryIO, name: str) -> Iterator[Example | Unreadable]:
    """Yield one item for each line of a stream that must not end at its first bad line: its text.

    A line that is not UTF-8, holds a NUL byte, or is longer than ``LONGEST_LINE`` gives an :class:`Unreadable` in its
    place.
    """
    number = 0
    while raw := file.readline(LONGEST_LINE + 1):
        number += 1
        where = f"{name}:{number}"
        if len(raw) > LONGEST_LINE:
            while not raw.endswith(b"\n") and (raw := file.readline(LONGEST_LINE)):
                pass
            yield Unreadable(where, f"longer than {LONGEST_LINE >> 20} MiB")
            continue
        if number == 1:
            raw = raw.removeprefix(_BOM)
        try:
            text = raw.decode("utf-8").removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            yield Unreadable(where, "not UTF-8")
            continue
        yield Unreadable(where, "holds a NUL byte") if "\x00" in text else Example(text=text, where=where)


def as_texts(lines: Iterable[Example | Unreadable]) -> Iterator[Example | Unreadable]:
    """Take each line of :func:`stream_lines` as one text; of the first that has a tab it is told that it is one."""
    told = False
    for line in lines:
        if not told and isinstance(line, Example) and "\t" in line.text:
            told = True
            tell(
                f"{line.where}: holds a tab, but each line is read as one text; the columns of a file are read with --input"
            )
        yield line


def as_pairs(lines: Iterable[Example | Unreadable]) -> Iterator[Example | Unreadable]:
    """Take each line of :func:`stream_lines` as two texts with a tab between; one without a tab is an Unreadable."""
    for line in lines:
        if isinstance(line, Unreadable):
            yield line
            continue
        first, tab, second = line.text.partition("\t")
        if line.text and not tab:
            yield Unreadable(line.where, "no tab between two texts")
        else:
            yield Example(text=first, pair=second, where=line.where)


def as_pairs_if_tabs(lines: Iterator[Example | Unreadable]) -> Iterator[Example | Unreadable]:
    """The same if the first line that is not blank has a tab, which is told; else as they are."""
    for line in lines:
        if isinstance(line, Unreadable) or not line.text.strip():
            yield line
        elif "\t" in line.text:
            tell(
                f"{line.where}: holds a tab, so each line is read as a pair of texts, as no recipe of the model says what "
                "it takes; put a space there if it is one text"
            )
            yield from as_pairs(itertools.chain([line], lines))
        else:
            yield line
            yield from lines


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
    for number, cells in rows:
        where = f"{path}:{number}"
        if not names:
            names = cells
            check_names(names, f"{where}: the header", "name the columns with --columns")
            missing = [(option, name) for option, name in columns.wanted().items() if name not in names]
            if missing:
                role, name = missing[0]
                option = f"--{role.partition(' ')[0]}"
                raise BertwrightError(
                    f"{where}: no column {name!r} for {option}{did_you_mean(name, names)} (the first line has: "
                    f"{', '.join(names)[:200]}); {_remedy(names, option, columns.wanted().values())}"
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
        yield where, dict(zip(names, cells, strict=True))
    if uneven:
        places = ", ".join(map(str, uneven[:5])) + (", …" if len(uneven) > 5 else "")
        tell(f"{path}: left out {len(uneven):,} rows of another number of columns than {len(names)} (lines {places})")


def _remedy(names: Sequence[str], option: str, wanted: Collection[str]) -> str:
    """What may help where the first line of a table does not have the column of an option."""
    if any(map(_TAG.fullmatch, " ".join(names).split()[-1:])):
        return "if each line is a word with its tag, give --task tagging"
    for between, sign in _SEPARATORS.items():
        if len(names) == 1 and not set(wanted).isdisjoint(names[0].split(sign)):
            return f"separate the columns with --delimiter {between}"
    return f"name its column with {option}, or, if that line is no header, all columns with --columns"


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
        raise BertwrightError(f"{name}:{first}: cannot read this row: {error}; see --quoting and --delimiter") from None


def json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (file and line, object) for each line of a file that is not blank.

    Raises:
        BertwrightError: the file cannot be read, or a line is no JSON object.
    """
    with opening(path) as file:
        for number, line in lines_of(file, str(path)):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                if "\\u" in line:  # an escape can spell half a character, which no text can hold
                    json.dumps(row, ensure_ascii=False).encode()
            except UnicodeEncodeError:
                raise BertwrightError(f"{path}:{number}: holds an escape of half a character (\\ud800 to \\udfff)") from None
            except (ValueError, RecursionError) as error:
                raise BertwrightError(f"{path}:{number}: not JSON: {error}") from None
            if not isinstance(row, dict):
                raise BertwrightError(f"{path}:{number}: a JSON object is expected on each line, not {line[:40]!r}")
            yield f"{path}:{number}", row


def _parquet(path: Path, wanted: list[str] | None) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise BertwrightError(f"{path}: reading Parquet needs: pip install pyarrow") from None
    try:
        with opening(path) as opened, pyarrow.parquet.ParquetFile(opened) as file:
            known = file.schema_arrow.names
            classes = classes_of(file.schema_arrow.metadata or {})
            for name in wanted or ():
                if name not in known:
                    raise BertwrightError(
                        f"{path}: no column {name!r}{did_you_mean(name, known)} (columns: {', '.join(known)})"
                    )
            number = 0
            for batch in file.iter_batches(batch_size=4096, columns=wanted):
                for row in batch.to_pylist():
                    number += 1
                    by_name = {name: named(row[name], classes[name]) for name in classes if name in row}
                    yield f"{path}: row {number}", row | by_name
    except pyarrow.ArrowException as error:
        first_line = str(error).partition("\n")[0]
        raise BertwrightError(f"{path}: not a readable Parquet file: {first_line}") from None
