"""Readers of choices: the published formats, names of one's own, and one line for each mistake."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertwright.data.choices import ChoiceExample, read_choices, stream_choices
from bertwright.data.examples import Columns, Unreadable
from bertwright.errors import BertwrightError, BertwrightWarning

SWAG = [
    *("video-id", "fold-ind", "startphrase", "sent1", "sent2", "gold-source"),
    *("ending0", "ending1", "ending2", "ending3", "label"),
]
SWAG_ROW = [
    *("v1", "7", 'A man, "Al", sits. He', 'A man, "Al", sits.', "He", "gold"),
    *("sings.", "flies.", "melts.", "is\na cat.", "2"),
]


def put(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def read(path: Path, *endings: str, **columns: Any) -> list[ChoiceExample]:
    return list(read_choices(path, Columns(**columns), endings))


def swag(path: Path, rows: list[list[str]], header: list[str], ending: str = "\n") -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator=ending).writerows([header, *rows])
    return path


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("numbered", [False, True])
def test_swags_own_csv(tmp_path: Path, ending: str, numbered: bool) -> None:
    # As published its first column numbers the rows and has no name; as elsewhere it is left out.
    row, header = (["0", *SWAG_ROW], ["", *SWAG]) if numbered else (SWAG_ROW, SWAG)
    (example,) = read(swag(tmp_path / "train.csv", [row], header, ending))
    assert (example.start, example.lead, example.label) == ('A man, "Al", sits.', "He", 2)
    assert [text.split() for text in example.continuations()] == [
        ["He", "sings."], ["He", "flies."], ["He", "melts."], ["He", "is", "a", "cat."],
    ]  # fmt: skip
    assert example.endings[0] == "sings."
    assert example.where == f"{tmp_path}/train.csv:2"
    assert example.source is None
    (other,) = read(tmp_path / "train.csv", text="startphrase", source="gold-source")
    assert (other.start, other.lead, other.source) == ('A man, "Al", sits. He', "", "gold")


def test_answers_may_be_written_as_floats_unless_an_ending_is_that(tmp_path: Path) -> None:
    rows = [[*SWAG_ROW[:-1], "2.0"], [*SWAG_ROW[:-5], "0.0", "1.0", "2.0", "3.00", "1.0"]]
    one, two = read(swag(tmp_path / "train.csv", rows, SWAG))
    assert (one.label, two.label) == (2, 1)
    rows = [[*SWAG_ROW[:-5], "4", "3.0", "2.5", "0", "3.0"]]
    (three,) = read(swag(tmp_path / "other.csv", rows, SWAG))
    assert three.label == 1


def test_swags_test_file_has_no_answers(tmp_path: Path) -> None:
    path = swag(tmp_path / "test.csv", [["0", *SWAG_ROW[:-1]]], ["", *SWAG[:-1]])
    (example,) = read(path, label=None)
    assert example.label is None
    with pytest.raises(
        BertwrightError, match=r"test.csv:2: no column 'label' for --label \(columns: , video-id, .*, ending3\)$"
    ):
        read(path)


def test_codahs_table_without_a_header(tmp_path: Path) -> None:
    lines = ['n\tHe said "no. It\ta\tb\tc\td\t1', "", "\t3 + 4 =\t3\t7\t12\t0", "q\tx\tyes\tno\t1\r"]
    path = put(tmp_path / "c.tsv", "\ufeff" + "\n".join(lines) + "\n")
    first, second, third = read(path)
    assert (first.source, first.start, first.endings, first.label) == ("n", 'He said "no. It', ("a", "b", "c", "d"), 1)
    assert (second.source, second.endings, second.label) == ("", ("3", "7", "12"), 0)
    assert (third.endings, third.label) == (("yes", "no"), 1)
    assert [example.label for example in read(path, label=None)] == [None] * 3
    names = ("k", "t", "e0", "e1", "e2", "e3", "l")
    table = put(tmp_path / "n.tsv", lines[0] + "\n")
    named = read(table, *names[2:6], names=names, text="t", label="l", source="k")
    assert [(e.start, e.endings, e.label, e.source) for e in named] == [
        (first.start, first.endings, first.label, first.source)
    ]


@pytest.mark.parametrize(
    "row",
    [
        {"startphrase": "s", "choices": ["a", "b", "c"], "answer": 2},
        {"start": "s", "endings": ["a", "b", "c"], "label": 2},
        {"start": "s", "endings": ["a", "b", "c"], "label": 2.0},
        {"start": "s", "endings": ["a", "b", "c"], "label": "2"},
        {"start": "s", "endings": ["a", "b", "c"], "label": " c "},
        {"text": "s", "ending0": "a", "ending1": "b", "ending2": "c", "ending3": None, "label": "c"},
    ],
)
def test_json_lines(tmp_path: Path, row: dict[str, Any]) -> None:
    (example,) = read(put(tmp_path / "c.jsonl", json.dumps(row) + "\n"))
    assert (example.start, example.endings, example.label, example.lead) == ("s", ("a", "b", "c"), 2, "")


def test_names_of_ones_own(tmp_path: Path) -> None:
    row = {"premise": "p", "choice1": "x", "choice2": "y", "right": 1, "question": "cause"}
    path = put(tmp_path / "copa.jsonl", json.dumps(row))
    (example,) = read(path, "choice1", "choice2", text="premise", label="right", source="question")
    assert (example.start, example.endings, example.label, example.source) == ("p", ("x", "y"), 1, "cause")
    (listed,) = read(
        put(tmp_path / "l.jsonl", '{"t": "p", "many": ["x", 2], "label": 2}'.replace("2}", "1}")), "many", text="t"
    )
    assert listed.endings == ("x", "2")


def test_parquet(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the parquet extra")
    import pyarrow

    table = {"startphrase": ["s", "t"], "choices": [["a", "b"], ["c", "d", "e"]], "answer": [1, 0]}
    parquet.write_table(pyarrow.table(table), tmp_path / "c.parquet")
    assert [(e.start, e.endings, e.label) for e in read(tmp_path / "c.parquet")] == [
        ("s", ("a", "b"), 1), ("t", ("c", "d", "e"), 0),
    ]  # fmt: skip


def test_rows_of_a_table_may_have_different_numbers_of_endings(tmp_path: Path) -> None:
    text = "start,ending0,ending1,ending2,label\ns,a,b,c,2\nt,a,b,,1\n"
    assert [len(e.endings) for e in read(put(tmp_path / "c.csv", text))] == [3, 2]


endings = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="\t\r\n\x00"), min_size=1), min_size=2, max_size=6
)


@given(
    st.lists(st.tuples(endings.filter(lambda all: all == [e for e in all if e.strip()]), st.data()), min_size=1, max_size=5)
)
@settings(max_examples=40, deadline=None)
def test_json_and_csv_hold_the_same(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[list[str], Any]]) -> None:
    folder = tmp_path_factory.mktemp("c")
    answers = [data.draw(st.integers(0, len(found) - 1)) for found, data in rows]
    as_json = [
        json.dumps({"start": "s", "endings": found, "label": a}, ensure_ascii=False)
        for (found, _), a in zip(rows, answers, strict=True)
    ]
    (folder / "c.jsonl").write_text("\n".join(as_json), encoding="utf-8", newline="\n")
    header = ["start", *(f"ending{i}" for i in range(6)), "label"]
    table = [["s", *found, *[""] * (6 - len(found)), str(a)] for (found, _), a in zip(rows, answers, strict=True)]
    swag(folder / "c.csv", table, header)
    for name in ("c.jsonl", "c.csv"):
        found = read(folder / name)
        assert [(e.endings, e.label) for e in found] == [(tuple(f), a) for (f, _), a in zip(rows, answers, strict=True)]


HEADER = "start,ending0,ending1,label\n"
MISTAKES = [
    ("c.tsv", "", "c.tsv: the file has no rows; is it the right one?"),
    (
        "c.tsv",
        "kind\tstart\ta\tb\tlabel\n",
        "c.tsv:1: a file without a header has kind, beginning, two or more endings and the number of the right one, but "
        "this line has 5 columns, the last of them 'label'; if there is a header, it must name ending0, ending1, …, or "
        "those of --endings",
    ),
    ("c.tsv", "n\ts\ta\t1\n", "c.tsv:1: a file without a header has"),
    ("c.tsv", "n\ts\ta\tb\t2\n", "c.tsv:1: the answer is 2, but 2 endings are 0 to 1"),
    ("c.tsv", "n\ts\ta\t\tb\t2\n", "c.tsv:1: ending 1 is empty, but a later one is not; fill it in or leave the row out"),
    (
        "c.csv",
        f"{HEADER}s,a,b,c\n",
        "c.csv:2: the answer 'c' is neither the number of an ending, from 0, nor its text; give its number",
    ),
    ("c.csv", f"{HEADER}s,a,b,\n", "c.csv:2: the answer is missing; fill it in or leave the row out"),
    ("c.csv", f"{HEADER}s,a,,0\n", "c.csv:2: 1 endings; at least two are needed to choose from"),
    ("c.csv", f"{HEADER}s,a,b\n", "c.csv:2: 3 columns where 4 are expected"),
    (
        "c.csv",
        "begin,ending0,ending1,label\ns,a,b,0\n",
        "c.csv:2: no beginning: neither text, startphrase, start, nor sent1 and sent2 (columns: begin, ending0, ending1, "
        "label); name its column with --text",
    ),
    (
        "c.jsonl",
        '{"start": "s", "label": 0}',
        "c.jsonl:1: no endings: neither a list choices or endings, nor ending0, ending1, … (columns: start, label); name "
        "their columns with --endings",
    ),
    ("c.jsonl", '{"start": "s", "endings": "a", "label": 0}', "c.jsonl:1: the endings (column 'endings') are 'a', not a"),
    ("c.jsonl", '{"start": "s", "endings": ["a", ["b"]], "label": 0}', "c.jsonl:1: ending 1 is ['b'], not a text or a"),
    (
        "c.jsonl",
        '{"start": "s", "endings": ["1", "0"], "label": "1"}',
        "c.jsonl:1: the answer '1' is the text of ending 0, or the number of another; write the number without quotes",
    ),
    (
        "c.jsonl",
        '{"start": "s", "endings": ["a", "a"], "label": "a"}',
        "c.jsonl:1: the answer 'a' is the text of several endings; give its number",
    ),
    (
        "c.csv",
        "video-id,startphrase,sent1,sent2,gold-ending,distractor-0\nv,a b,a,b,c,d\n",
        "c.csv:2: no endings: neither a list choices or endings, nor ending0, ending1, … (columns: video-id, startphrase",
    ),
    ("c.jsonl", '{"start": "s", "endings": ["a", "b"], "label": -1}', "c.jsonl:1: the answer is -1, but 2 endings are 0"),
    ("c.jsonl", '{"start": "s", "endings": ["a", "b"], "label": true}', "c.jsonl:1: the answer True is neither"),
    ("c.jsonl", '{"start": "s", "endings": ["a", "b"], "label": null}', "c.jsonl:1: the answer is missing"),
    ("c.jsonl", '{"start": null, "endings": ["a", "b"], "label": 0}', "c.jsonl:1: the text (column 'start') is missing"),
    ("c.jsonl", '{"start": ["s"], "endings": ["a", "b"], "label": 0}', "c.jsonl:1: the text (column 'start') is ['s']"),
]


@pytest.mark.parametrize(("name", "text", "message"), MISTAKES)
def test_each_mistake_is_one_line_with_file_line_value_and_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path / name, text)
    with pytest.raises(BertwrightError) as caught:
        read(Path(name))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_uneven_rows_are_left_out_where_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("start,ending0,ending1,label\na,b,c,0\na,b\nd,e,f,1\n")
    with pytest.raises(BertwrightError, match="2 columns where 4 are expected"):
        list(read_choices(path, Columns(), ()))
    with pytest.warns(BertwrightWarning, match=r"left out 1 rows .*\(lines 3\)"):
        assert [one.start for one in read_choices(path, Columns(uneven_rows="skip"), ())] == ["a", "d"]


def test_a_stream_goes_on_past_bad_lines() -> None:
    lines = [b"s\ta\tb", b"", b"only a text", b"s\ta", b"s\ta\t \tb", b"\xff\ta\tb", b"\t\t", b"t\ta\tb\tc"]
    found = list(stream_choices(io.BytesIO(b"\n".join(lines)), "in"))
    assert [item.where for item in found] == [f"in:{number}" for number in range(1, 9)]
    assert found[0] == ChoiceExample("s", ("a", "b"), "in:1")
    assert found[7] == ChoiceExample("t", ("a", "b", "c"), "in:8")
    reasons = [item.reason if isinstance(item, Unreadable) else None for item in found]
    too_few = "not a beginning and two or more endings, a tab before each"
    assert reasons == [None, None, too_few, too_few, "an ending is empty", "not UTF-8", None, None]
    assert found[1] == ChoiceExample("", (), "in:2")


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("name", "count", "sources"),
    [
        ("codah/train.tsv", 1665, set("inopqr") | {""}),
        ("codah/dev.tsv", 556, set("inopqr")),
        ("codah/test.tsv", 555, set("inopqr") | {""}),
        ("swag-sample.jsonl", 300, {None}),
    ],
)
def test_published_files(shared: Path, name: str, count: int, sources: set[str | None]) -> None:
    found = read(shared / "choice" / name)
    assert len(found) == count
    assert {example.source for example in found} == sources
    assert all(len(example.endings) == 4 and example.label in range(4) for example in found)
    sums = {example.start: example for example in found if example.start == "1 + 2 is"}
    if name == "codah/train.tsv":  # its endings are numbers; the answer is still the number of one
        assert (sums["1 + 2 is"].endings, sums["1 + 2 is"].label) == (("2", "1", "3", "5"), 2)
