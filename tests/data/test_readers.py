"""Rows from files: whatever a cell holds comes back as it was, and every problem names its file and line."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bertwright.data import text_files
from bertwright.data.examples import Columns, Example
from bertwright.data.readers import is_delimited, read_examples
from bertwright.errors import BertwrightError, BertwrightWarning

TWO = Columns(text="text", label="label")


def read(path: Path, columns: Columns = TWO) -> list[tuple[str, str | None]]:
    return [(row.text, row.label) for row in read_examples(path, columns)]


def put(folder: Path, content: bytes | str, name: str = "rows.tsv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def message(path: Path, columns: Columns = TWO) -> str:
    """The error of reading, without the path that it begins with."""
    with pytest.raises(BertwrightError) as caught:
        list(read_examples(path, columns))
    text = str(caught.value)
    assert text.startswith(str(path))
    assert "\n" not in text
    return text.removeprefix(str(path))


# No lone surrogates, which UTF-8 cannot hold, and no NUL, which the readers refuse.
characters = st.characters(exclude_categories=["Cs"], exclude_characters="\x00")
literal_cells = st.text(characters.filter(lambda c: c not in "\t\n\r"), min_size=0, max_size=20)
labels = st.text(characters.filter(lambda c: c not in "\t\n\r"), min_size=1, max_size=5).filter(lambda s: s.strip() != "")


@given(st.lists(st.tuples(literal_cells, labels), min_size=1, max_size=20))
@example([('"quoted"', "1"), ('one " only', "0"), ("  spaces  ", "1"), ("", "0"), ("\u2028\x0b\x85", "x")])
def test_tab_separated_cells_come_back_literally(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "literal.tsv"
    path.write_bytes("".join(f"{text}\t{label}\n" for text, label in [("text", "label"), *rows]).encode())
    found = list(read_examples(path, TWO))
    assert [(row.text, row.label) for row in found] == [(text, label.strip()) for text, label in rows]
    assert [row.where for row in found] == [f"{path}:{number}" for number in range(2, len(rows) + 2)]


@given(st.lists(st.tuples(st.text(characters.filter(lambda c: c != "\r"), max_size=20), labels), min_size=1, max_size=10))
@example([("two\nlines", "1"), ('a "word", and more', "0"), ("\n\n", "1"), ("", "2")])
def test_csv_cells_come_back_with_the_line_they_begin_on(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "quoted.csv"
    page = io.StringIO()
    writer = csv.writer(page, lineterminator="\n")
    writer.writerow(["text", "label"])
    begins = []
    for row in rows:
        begins.append(page.getvalue().count("\n") + 1)
        writer.writerow(row)
    path.write_bytes(page.getvalue().encode())
    found = list(read_examples(path, TWO))
    assert [(row.text, row.label) for row in found] == [(text, label.strip()) for text, label in rows]
    assert [row.where for row in found] == [f"{path}:{number}" for number in begins]


@given(st.lists(st.tuples(st.text(characters), labels | st.integers() | st.booleans()), min_size=1, max_size=10))
def test_json_lines_come_back(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, Any]]) -> None:
    path = tmp_path_factory.getbasetemp() / "rows.jsonl"
    path.write_bytes("".join(json.dumps({"label": label, "text": text}) + "\n" for text, label in rows).encode())
    spelled = {True: "true", False: "false"}
    assert read(path) == [(text, spelled[label] if isinstance(label, bool) else str(label).strip()) for text, label in rows]


PLAIN = b"text\tlabel\none\t1\ntwo\t0\n"


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        PLAIN.replace(b"\n", b"\r\n"),
        b"\xef\xbb\xbf" + PLAIN,
        PLAIN.removesuffix(b"\n"),
        b"\xef\xbb\xbf" + PLAIN.replace(b"\n", b"\r\n").removesuffix(b"\r\n"),
        PLAIN.replace(b"two", b"\ntwo") + b"\n\n",  # blank lines
    ],
)
@pytest.mark.parametrize("quoting", ["literal", "csv"])
def test_line_ends_a_byte_order_mark_and_a_missing_last_line_end_change_nothing(
    tmp_path: Path, content: bytes, quoting: str
) -> None:
    path = put(tmp_path, content)
    assert read(path, Columns(quoting=quoting)) == [("one", "1"), ("two", "0")]


@pytest.mark.parametrize(
    ("name", "quoting", "expected"),
    [
        ("a.tsv", "auto", '"a b"'),
        ("a.tsv", "csv", "a b"),
        ("a.csv", "auto", "a b"),
        ("a.csv", "literal", '"a b"'),
        ("a.txt", "auto", '"a b"'),
    ],
)
def test_quotes_mean_what_the_ending_or_the_setting_says(tmp_path: Path, name: str, quoting: str, expected: str) -> None:
    separator = "," if name.endswith(".csv") else "\t"
    path = put(tmp_path, f'text{separator}label\n"a b"{separator}1\n', name)
    assert read(path, Columns(quoting=quoting)) == [(expected, "1")]


@pytest.mark.parametrize(
    ("given_as", "character"), [("tab", "\t"), (r"\t", "\t"), ("comma", ","), ("semicolon", ";"), ("|", "|"), (" ", " ")]
)
def test_any_one_character_separates(tmp_path: Path, given_as: str, character: str) -> None:
    path = put(tmp_path, f"text{character}label\na{character}1\n")
    assert read(path, Columns(delimiter=given_as)) == [("a", "1")]


@pytest.mark.parametrize("bad", ["||", "", '"', "\n"])
def test_what_cannot_separate_is_refused(tmp_path: Path, bad: str) -> None:
    if bad == "":
        assert read(put(tmp_path, PLAIN), Columns(delimiter=bad)) == [("one", "1"), ("two", "0")]  # the same as not given
        return
    with pytest.raises(BertwrightError, match="--delimiter must be one character"):
        read(put(tmp_path, PLAIN), Columns(delimiter=bad))


def test_columns_are_named_for_a_file_without_a_header(tmp_path: Path) -> None:
    path = put(tmp_path, 'gj04\t1\t\tOur friends won\'t buy "this".\nbc01\t0\t*\tTheir\n')
    columns = Columns(text="sentence", source="source", names=("source", "label", "note", "sentence"))
    assert list(read_examples(path, columns)) == [
        Example(text='Our friends won\'t buy "this".', where=f"{path}:1", label="1", source="gj04"),
        Example(text="Their", where=f"{path}:2", label="0", source="bc01"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "columns", "expected"),
    [
        ("a.tsv", "text\tlabel\na\t1\nb\n", TWO, ":3: 1 columns where 2 are expected (text, label); quotes are"),
        ("a.tsv", "text\tlabel\na\t1\textra\n", TWO, ":2: 3 columns where 2 are expected (text, label); quotes are"),
        (
            "a.tsv",
            "text\na\n",
            Columns(names=("label", "text")),
            ":1: 1 columns where 2 are expected (label, text); the names",
        ),
        ("a.csv", 'text,label\n"a\nb",1\nc,1,2\n', TWO, ":4: 3 columns where 2 are expected (text, label)"),
        ("a.csv", 'text,label\na,1\n"open\n', TWO, ":3: cannot read this row: unexpected end of data; see --quoting"),
        ("a.csv", 'text,label\n"a"b,1\n', TWO, ":2: cannot read this row: ',' expected after '\"'; see --quoting"),
        (
            "a.tsv",
            "txt\tlabel\na\t1\n",
            TWO,
            ":1: no column 'text' for --text; did you mean 'txt'? (the first line has",
        ),
        ("a.tsv", "text\ttext\na\t1\n", TWO, ":1: the header has two columns 'text'; give each its own name there"),
        ("a.tsv", "text\tlabel\na\t\n", TWO, ":2: the label (column 'label') is missing; fill it in"),
        ("a.tsv", "text\tlabel\na\t  \n", TWO, ":2: the label (column 'label') is missing; fill it in"),
        ("a.tsv", "", TWO, ": the file has no rows; is it the right one?"),
        ("a.tsv", "text\tlabel\n", TWO, ": the file has no rows; is it the right one?"),
        ("a.jsonl", "\n\n", TWO, ": the file has no rows; is it the right one?"),
        ("a.tsv", b"text\tlabel\nab\xffc\t1\n", TWO, ":2: byte 0xff at position 3 is not UTF-8; save the file as UTF-8"),
        ("a.tsv", b"text\tlabel\na\x00\t1\n", TWO, ":2: the line holds a NUL byte; save the file as UTF-8 text"),
        ("a.csv", b"text,label\na,1\nb\x00,1\n", TWO, ":3: the line holds a NUL byte; save the file as UTF-8 text"),
        ("a.jsonl", '{"text": "a", "label": 1}\n{"text": \n', TWO, ":2: not JSON: Expecting value"),
        ("a.jsonl", '["a", 1]\n', TWO, ":1: a JSON object is expected on each line, not '[\"a\", 1]'"),
        ("a.jsonl", '{"txt": "a", "label": 1}', TWO, ":1: no column 'text' for --text; did you mean 'txt'? (columns: txt,"),
        ("a.jsonl", '{"text": "a", "label": null}', TWO, ":1: the label (column 'label') is missing"),
        ("a.jsonl", '{"text": "a", "label": NaN}', TWO, ":1: the label (column 'label') is missing"),
        ("a.jsonl", '{"text": null, "label": 1}', TWO, ":1: the text (column 'text') is missing"),
        ("a.jsonl", '{"text": ["a"], "label": 1}', TWO, ":1: the text (column 'text') is ['a'], not a text or a number"),
        ("a.jsonl", '{"text": true, "label": 1}', TWO, ":1: the text (column 'text') is True, not a text or a number"),
        ("a.jsonl", '{"text": "\\ud800", "label": 1}', TWO, ":1: holds an escape of half a character"),
        ("a.jsonl", f'{{"text": {"9" * 5000}, "label": 1}}', TWO, ":1: not JSON: Exceeds the limit"),
        ("a.jsonl", "[" * 100_000, TWO, ":1: not JSON: "),
        ("a.parquet", b"PAR1 but no more", TWO, ": not a readable Parquet file: "),
    ],
)
def test_a_bad_row_is_named_by_its_line(
    tmp_path: Path, name: str, content: bytes | str, columns: Columns, expected: str
) -> None:
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow", reason="needs the parquet extra")
    assert message(put(tmp_path, content, name), columns).startswith(expected)


def test_names_given_twice_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BertwrightError, match="--columns has two columns 'text'; give each its own name"):
        read(put(tmp_path, "a\tb\n"), Columns(names=("text", "text")))


def test_a_file_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    assert message(tmp_path / "none.tsv") == ": cannot be read: No such file or directory; is the name right?"
    assert message(tmp_path) == ": cannot be read: Is a directory; is the name right?"
    assert "File name too long" in message(tmp_path / ("x" * 300))
    if os.geteuid():  # root may read everything
        path = put(tmp_path, PLAIN)
        path.chmod(0)
        assert "Permission denied" in message(path)


def test_rows_are_read_as_they_are_asked_for(tmp_path: Path) -> None:
    path = put(tmp_path, "text\tlabel\na\t1\nb\t2\nbroken\n")
    rows = read_examples(path, TWO)
    assert [row.text for row in itertools.islice(rows, 2)] == ["a", "b"]
    with pytest.raises(BertwrightError, match=":4: 1 columns"):
        next(rows)


def test_a_blank_line_is_an_empty_text_only_where_there_is_one_column(tmp_path: Path) -> None:
    path = put(tmp_path, "text\na\n\nb\n")
    columns = Columns(label=None)
    for quoting in ("literal", "csv"):
        rows = list(read_examples(path, Columns(label=None, quoting=quoting)))
        assert [row.text for row in rows] == ["a", "", "b"]
    assert [row.where for row in read_examples(path, columns)] == [f"{path}:{number}" for number in (2, 3, 4)]


def test_a_csv_cell_may_be_as_long_as_a_line(tmp_path: Path) -> None:
    text = "word " * 40_000  # more than the csv module's own limit of 128 KiB
    assert read(put(tmp_path, f'text,label\n"{text}",1\n', "a.csv")) == [(text, "1")]


def test_a_line_that_is_no_text_is_refused_before_it_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_files, "LONGEST_LINE", 1 << 20)
    path = put(tmp_path, b"text\tlabel\n" + b"x" * (1 << 20) + b"\t1\n")
    assert message(path) == ":2: the line is longer than 1 MiB; is this a text file?"


@pytest.mark.parametrize(
    ("label", "expected"), [(1, "1"), (1.0, "1"), (0.5, "0.5"), (True, "true"), (False, "false"), (" a ", "a")]
)
def test_number_labels_are_named_as_people_write_them(tmp_path: Path, label: object, expected: str) -> None:
    assert read(put(tmp_path, json.dumps({"text": "a", "label": label}), "a.jsonl")) == [("a", expected)]


def test_which_files_are_delimited() -> None:
    assert [is_delimited(name) for name in ("a.tsv", "a.csv", "a", "a.jsonl", "a.NDJSON", "a.Parquet")] == [
        *(True, True, True, False, False, False),
    ]


def parquet(path: Path, **columns: Sequence[object]) -> Path:
    arrow = pytest.importorskip("pyarrow", reason="needs the parquet extra")
    from pyarrow.parquet import write_table

    write_table(arrow.table(dict(columns)), path)
    return path


def test_parquet_rows_come_in_order_past_one_batch(tmp_path: Path) -> None:
    count = 9000
    path = parquet(tmp_path / "a.parquet", text=[f"row {i}" for i in range(count)], label=[i % 3 for i in range(count)])
    rows = list(read_examples(path, TWO))
    assert [(row.text, row.label) for row in rows] == [(f"row {i}", str(i % 3)) for i in range(count)]
    assert rows[-1].where == f"{path}: row {count}"


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_a_null_label_in_parquet_is_named_by_its_row(tmp_path: Path, missing: float | None) -> None:
    path = parquet(tmp_path / "a.parquet", text=["a", "b"], label=[1.0, missing])
    assert message(path).startswith(": row 2: the label (column 'label') is missing")


def test_a_parquet_file_without_labels_can_be_read_for_prediction(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", text=["a", "b"], other=[{"x": 1}, None])
    assert read(path, Columns(label=None)) == [("a", None), ("b", None)]
    assert message(path) == ": no column 'label' (columns: text, other)"


def test_missing_parquet_support_is_told_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    path = put(tmp_path, b"PAR1", "a.parquet")
    assert message(path) == ": reading Parquet needs: pip install pyarrow"


# ----------------------------------------------------------------------------------------------------------- real files

COLA = Columns(text="sentence", source="source", names=("source", "label", "note", "sentence"))


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("file", "columns", "rows", "classes"),
    [
        ("cola/tokenized/in_domain_train.tsv", COLA, 8551, 2),
        ("cola/raw/in_domain_train.tsv", COLA, 8551, 2),
        ("cola/raw/out_of_domain_dev.tsv", COLA, 516, 2),
        ("textclass/banking77/train.csv", Columns(label="category"), 10_003, 77),
        ("textclass/banking77/test.csv", Columns(label="category"), 3_080, 77),
        ("zh/chnsenticorp/train.tsv", Columns(text="text_a"), 9_600, 2),
        ("glue/RTE/train.tsv", Columns(text="sentence1", pair="sentence2"), 2_490, 2),
    ],
)
def test_published_files_have_the_rows_that_they_are_said_to(
    shared: Path, file: str, columns: Columns, rows: int, classes: int
) -> None:
    found = list(read_examples(shared / file, columns))
    assert len(found) == rows
    assert len({row.label for row in found}) == classes
    assert all(row.text.strip() for row in found)


# -------------------------------------------------------------------------------------------- names and rows left out


def test_labels_get_their_names_in_every_format_and_others_stay(tmp_path: Path) -> None:
    named = Columns(label_names=(("1", "good"), ("0", "bad"), ("good", "never")))
    expected = [("a", "good"), ("b", "bad"), ("c", "good"), ("d", "2")]
    table = put(tmp_path, "text\tlabel\na\t1\nb\t 0 \nc\tgood\nd\t2\n".replace("good", "1"))
    assert read(table, named) == expected
    lines = put(tmp_path, '{"text": "a", "label": 1}\n{"text": "b", "label": 0.0}\n{"text": "d", "label": "2"}\n', "r.jsonl")
    assert read(lines, named) == [("a", "good"), ("b", "bad"), ("d", "2")]
    # One step, not two: a name that is itself among the labels is not named again.
    assert read(put(tmp_path, "text\tlabel\na\t1\n"), named) == [("a", "good")]


@given(st.lists(st.sampled_from(["ok\tyes", "broken", "too\tmany\tcells", "\tempty"]), min_size=1, max_size=12))
def test_uneven_rows_are_left_out_and_counted_only_where_asked_for(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str]
) -> None:
    path = tmp_path_factory.getbasetemp() / "uneven.tsv"
    path.write_text("\n".join(["text\tlabel", *lines, "last\tyes"]) + "\n")
    uneven = [number for number, line in enumerate(lines, 2) if line.count("\t") != 1]
    even = [tuple(line.split("\t")) for line in [*lines, "last\tyes"] if line.count("\t") == 1]
    skipping = Columns(uneven_rows="skip")
    if not uneven:
        assert read(path, skipping) == read(path) == even
        return
    assert message(path).startswith(f":{uneven[0]}: ")
    places = ", ".join(map(str, uneven[:5])) + (", …" if len(uneven) > 5 else "")
    told = rf"left out {len(uneven)} rows of another number of columns than 2 \(lines {places}\)"
    with pytest.warns(BertwrightWarning, match=told):
        assert read(path, skipping) == even
