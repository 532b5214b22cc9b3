"""Rows with any number of labels, in every format."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bertwright.data.examples import Columns
from bertwright.data.labelled import read_labelled
from bertwright.errors import BertwrightError
from tiny_model import write_csv, write_jsonl, write_tsv

FLAGS = Columns(label=None, labels=("good", "long"))


def found(path: Path, columns: Columns, separator: str = ",") -> list[tuple[str, tuple[str, ...] | None]]:
    return [(row.text, row.labels) for row in read_labelled(path, columns, separator)]


def error(path: Path, columns: Columns, separator: str = ",") -> str:
    with pytest.raises(BertwrightError) as caught:
        found(path, columns, separator)
    return str(caught.value).replace(str(path), "{file}")


def test_a_text_cell_is_split(tmp_path: Path) -> None:
    path = write_tsv(tmp_path / "rows.tsv", [("a", "x, y"), ("b", ""), ("c", " z "), ("d", "y,x,y")])
    assert found(path, Columns()) == [("a", ("x", "y")), ("b", ()), ("c", ("z",)), ("d", ("y", "x"))]


@pytest.mark.parametrize("separator", ["|", "; ", "<>"])
def test_the_separator_is_any_text(tmp_path: Path, separator: str) -> None:
    path = write_csv(tmp_path / "rows.csv", [("a", f"x{separator}y, z")])
    assert found(path, Columns(), separator) == [("a", ("x", "y, z"))]


def test_lists_come_from_json_lines_and_parquet(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    rows: list[dict[str, Any]] = [{"text": "a", "label": ["x", "y, z"]}, {"text": "b", "label": []}]
    assert found(write_jsonl(tmp_path / "rows.jsonl", rows), Columns()) == [("a", ("x", "y, z")), ("b", ())]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    assert found(tmp_path / "rows.parquet", Columns()) == [("a", ("x", "y, z")), ("b", ())]


def test_numbers_are_names_as_in_a_single_label(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{"text": "a", "label": [1, 2.0, 0.5]}, {"text": "b", "label": 3}])
    assert found(path, Columns()) == [("a", ("1", "2", "0.5")), ("b", ("3",))]


def test_labels_get_their_names(tmp_path: Path) -> None:
    called = (("2", "anger"), ("27", "neutral"), ("long", "lengthy"))
    path = write_tsv(tmp_path / "rows.tsv", [("a", "2,27"), ("b", "3, 2")])
    assert found(path, Columns(label_names=called)) == [("a", ("anger", "neutral")), ("b", ("3", "anger"))]
    path = write_csv(tmp_path / "rows.csv", [("a", "1", "1")], ("text", "good", "long"))
    assert found(path, replace(FLAGS, label_names=called)) == [("a", ("good", "lengthy"))]


def test_columns_of_0_and_1_are_labels(tmp_path: Path) -> None:
    header = ("text", "good", "long")
    path = write_csv(tmp_path / "rows.csv", [("a", "1", "0"), ("b", "0", "0"), ("c", "True", "1")], header)
    assert found(path, FLAGS) == [("a", ("good",)), ("b", ()), ("c", ("good", "long"))]
    rows = [{"text": "a", "good": True, "long": 0}, {"text": "b", "good": 0.0, "long": 1}]
    assert found(write_jsonl(tmp_path / "rows.jsonl", rows), FLAGS) == [("a", ("good",)), ("b", ("long",))]
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([rows[1]]), tmp_path / "rows.parquet")
    assert found(tmp_path / "rows.parquet", FLAGS) == [("b", ("long",))]


def test_pairs_sources_and_rows_without_answers(tmp_path: Path) -> None:
    path = write_tsv(tmp_path / "rows.tsv", [("a", "b", "x", "s")], ("one", "two", "tags", "from"))
    (row,) = read_labelled(path, Columns(text="one", pair="two", label="tags", source="from"), ",")
    assert (row.text, row.pair, row.labels, row.source, row.answer, row.characters) == ("a", "b", ("x",), "s", ["x"], 2)
    (row,) = read_labelled(path, Columns(text="one", label=None), ",")
    assert (row.labels, row.answer) == (None, None)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"label": None}, "the labels (column 'label') are missing; a row without labels has an empty list"),
        ({"label": ["x", None]}, "a label (column 'label') is None, not a name or a number"),
        ({"label": [["x"]]}, "a label (column 'label') is ['x'], not a name or a number"),
        ({"label": {"x": 1}}, "a label (column 'label') is {'x': 1}, not a name or a number"),
        ({"label": ["x", " "]}, "a label (column 'label') is empty, in ['x', ' ']; see --label-separator"),
        ({"label": "x,,y"}, "a label (column 'label') is empty, in 'x,,y'; see --label-separator"),
        ({}, "no column 'label' for --label (columns: text)"),
    ],
)
def test_what_are_no_labels_is_named_with_its_line(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    rows = [{"text": "a", "label": []}, {"text": "b"} | row]
    assert error(write_jsonl(tmp_path / "rows.jsonl", rows), Columns()) == "{file}:2: " + message


def test_columns_of_labels_may_hold_floats(tmp_path: Path) -> None:
    path = write_tsv(tmp_path / "rows.tsv", [("a", "1.0", "0.0"), ("b", "0", "true")], ("text", "good", "long"))
    assert found(path, FLAGS) == [("a", ("good",)), ("b", ("long",))]


@pytest.mark.parametrize("value", ["2", "yes", "", None, "0.5"])
def test_a_column_that_has_neither_0_nor_1_is_named(tmp_path: Path, value: object) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"text": "a", "good": value, "long": 0}) + "\n")
    assert error(path, FLAGS) == f"{{file}}:1: the column 'good' has {value!r}, where --labels wants 0 or 1"


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = write_tsv(tmp_path / "rows.tsv", [("a", "1")], ("text", "good"))
    assert error(path, FLAGS).startswith("{file}:1: no column 'long' for --labels (the first line has: text, good)")


def test_no_separator_and_no_rows_are_refused(tmp_path: Path) -> None:
    path = write_tsv(tmp_path / "rows.tsv", [])
    assert error(path, Columns()) == "{file}: the file has no rows; is it the right one?"
    assert error(path, Columns(), "").startswith("--label-separator is empty")


def test_a_list_that_was_written_into_a_table_is_no_label(tmp_path: Path) -> None:
    path = write_tsv(tmp_path / "rows.tsv", [("a", "x,y"), ("b", "['sports', 'politics']")])
    assert error(path, Columns()) == (
        "{file}:3: the labels (column 'label') are \"['sports', 'politics']\", a list written into a table; write them with "
        "',' between, or the rows as JSON lines or Parquet"
    )
    path = write_tsv(tmp_path / "rows.tsv", [("a", "[news], [a]")])
    assert found(path, Columns()) == [("a", ("[news]", "[a]"))]
