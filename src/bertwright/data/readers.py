"""Read rows from delimited files, JSON lines and Parquet: streaming, and strict about what they hold.

Every problem names its file and line. A row that cannot be read ends the reading, unless the user has asked to skip such.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from bertwright.data.delimited import cells_of, named_rows
from bertwright.data.examples import Columns, Example
from bertwright.data.hub_classes import classes_of, named
from bertwright.data.hub_rows import is_hub
from bertwright.data.text_files import lines_of, opening
from bertwright.errors import BertwrightError, did_you_mean

T = TypeVar("T")

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
