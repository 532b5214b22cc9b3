"""Tagged sentences in JSON lines and Parquet, and a line for each thing that is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bertwright.data.tag_columns import TagColumns
from bertwright.data.tag_files import read_tagged
from bertwright.errors import BertwrightError, BertwrightWarning


def read_json(path: Path, *rows: Any, **how: Any) -> list[tuple[str, list[str], list[str]]]:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return [(one.where, one.words, list(one.tags or ())) for one in read_tagged(path, TagColumns(**how))]


def test_tokens_and_tags(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    row = {"tokens": ["EU", "rejects"], "tags": ["B-ORG", "O"], "id": 1}
    assert read_json(path, row) == [(f"{path}:1", ["EU", "rejects"], ["B-ORG", "O"])]
    named = {"words": ["a1"], "ner": ["O"]}
    assert read_json(path, named, token="words", tag="ner", drop="1$") == [(f"{path}:1", ["a"], ["O"])]
    assert read_json(path, {"tokens": []}, {"text": ""}, labelled=False) == [(f"{path}:1", [], []), (f"{path}:2", [], [])]


def test_lines_without_a_word_are_left_out_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [{"tokens": [], "tags": []}, {"tokens": ["a"], "tags": ["O"]}, {"text": " ", "spans": []}]
    with pytest.warns(BertwrightWarning) as told:
        assert read_json(path, *rows) == [(f"{path}:2", ["a"], ["O"])]
    assert [str(one.message) for one in told] == [f"{path}: 2 lines without a word were left out (the first: {path}:1, '')"]


def test_what_is_dropped_from_words_has_no_effect_on_raw_texts(tmp_path: Path) -> None:
    with pytest.warns(BertwrightWarning, match="1 texts with spans are cut into words as they stand: --drop-from-token has"):
        read_json(tmp_path / "a.jsonl", {"text": "a1 b", "spans": []}, drop="1$")


def test_parquet_holds_what_json_lines_hold(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the parquet extra")
    import pyarrow

    rows = [{"tokens": ["Ann", "sat"], "tags": ["B-PER", "O"]}, {"tokens": ["Bo"], "tags": ["B-PER"]}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    found = list(read_tagged(tmp_path / "a.parquet", TagColumns()))
    assert [(one.words, one.tags) for one in found] == [(row["tokens"], tuple(row["tags"])) for row in rows]
    assert found[1].where == f"{tmp_path}/a.parquet: row 2"


def test_character_spans_become_tags_of_words(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    text = "Angela Merkel's trip to New York, 李开复。"
    found = [(text.index(part), len(part), label) for part, label in (("李开复", "PER"), ("New York", "LOC"))]
    spans = [{"start": at, "end": at + size, "label": label} for at, size, label in found]
    spans.append({"start": 0, "end": 14, "label": "PER"})  # with the apostrophe
    spans[-1]["end"] = 13
    ((_, words, tags),) = read_json(path, {"text": text, "spans": spans})
    assert list(zip(words, tags, strict=True)) == [
        ("Angela", "B-PER"), ("Merkel", "I-PER"), ("'s", "O"), ("trip", "O"), ("to", "O"), ("New", "B-LOC"),
        ("York", "I-LOC"), (",", "O"), ("李", "B-PER"), ("开", "I-PER"), ("复", "I-PER"), ("。", "O"),
    ]  # fmt: skip
    blank = {"body": "a b c", "found": [{"start": 1, "end": 4, "label": "X"}]}  # blanks around it are no part of it
    assert read_json(path, blank, text="body", tag="found")[0][2] == ["O", "B-X", "O"]


def test_spans_inside_of_words_are_widened_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [
        {"text": "a pro-Russian mob", "spans": [{"start": 6, "end": 13, "label": "MISC"}]},
        {"text": "US-China talks", "spans": [{"start": 0, "end": 2, "label": "A"}, {"start": 3, "end": 14, "label": "B"}]},
    ]
    with pytest.warns(BertwrightWarning) as told:
        found = read_json(path, *rows)
    assert [tags for _, _, tags in found] == [["O", "B-MISC", "O"], ["B-A", "B-B"]]
    assert [str(one.message) for one in told] == [
        f"{path}: 3 spans begin or end inside a word, and were widened to whole words, each in one span only "
        f"(the first: {path}:1, 'Russian')"
    ]


def test_spans_whose_words_are_taken_are_left_out_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    spans = [{"start": 0, "end": 6, "label": "PER"}, {"start": 6, "end": 10, "label": "MISC"}]
    with pytest.warns(BertwrightWarning) as told:
        assert read_json(path, {"text": "Merkelplan here", "spans": spans})[0][2] == ["B-PER", "O"]
    assert [str(one.message) for one in told] == [
        f"{path}: 1 spans begin or end inside a word, and were widened to whole words, each in one span only "
        f"(the first: {path}:1, 'Merkel')",
        f"{path}: 1 spans were left out, as each word of theirs is in a span before them (the first: {path}:1, 'plan')",
    ]


def test_what_training_dropped_from_words_is_told_in_predicting(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"tokens": ["iPhone6", "good"]}) + "\n")
    columns = TagColumns(drop="[0-9]", labelled=False)
    with pytest.warns(BertwrightWarning) as told:
        assert [example.words for example in read_tagged(path, columns)] == [["iPhone", "good"]]
    assert [str(one.message) for one in told] == [
        f"{path}: 1 words lost what --drop-from-token '[0-9]' matches, as in training (the first: {path}:1, 'iPhone6')"
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"tokens": ["a"], "tags": []}, "1 tokens but 0 tags; each token needs its own"),
        ({"tokens": ["a"], "tag": ["O"]}, "no field 'tags' for --tag-column; did you mean 'tag'? (fields: tokens, tag)"),
        ({"tokens": ["a"], "tags": [3]}, "number 1 of the tags is 3, not a text; write the names of tags, not their num"),
        ({"tokens": ["a", ""], "tags": ["O", "O"]}, "number 2 of the tokens is '', not a text"),
        ({"tokens": "a b", "tags": ["O"]}, "the tokens are 'a b', not a list"),
        ({"word": ["a"]}, "neither 'tokens', a list of words, nor 'text', a text; see --token-column and --text (fields:"),
        ({"text": 3, "spans": []}, "'text' is 3, not a text"),
        ({"text": "a"}, "no field 'spans' for --tag-column (fields: text)"),
        ({"text": "a b", "spans": [{"start": 1, "end": 2, "label": "X"}]}, "the span from 1 to 2 holds no word"),
        ({"text": "a", "spans": [{"start": 0, "end": 2, "label": "X"}]}, "a span from 0 to 2 is not in a text of 1 char"),
        ({"text": "a", "spans": [{"start": 1, "end": 1, "label": "X"}]}, "a span from 1 to 1 is not in a text of 1 char"),
        ({"text": "a", "spans": [{"start": 0, "end": 1}]}, "{'start': 0, 'end': 1} is no span; it needs start and end, "),
        ({"text": "a", "spans": [{"start": True, "end": 1, "label": "X"}]}, "{'start': True, 'end': 1, 'label': 'X'} is"),
        ({"text": "a", "spans": {"start": 0}}, "{'start': 0} is no span"),
        ({"text": "a", "spans": ["x"]}, "'x' is no span"),
        (
            {"text": "a b", "spans": [{"start": 0, "end": 3, "label": "X"}, {"start": 2, "end": 3, "label": "Y"}]},
            "the spans 'X' to 3 and 'Y' from 2 overlap; keep one",
        ),
    ],
)
def test_what_is_wrong_with_a_line_of_json_is_said(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    path = tmp_path / "a.jsonl"
    with pytest.raises(BertwrightError) as caught:
        read_json(path, {"tokens": ["a"], "tags": ["O"]}, row)
    assert str(caught.value).startswith(f"{path}:2: {message}")
