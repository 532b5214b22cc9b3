"""Slips of people in a hurry, a wrong column or task above all: each is told in terms of what was probably meant."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import bertwright
from bertwright.data.examples import Columns
from bertwright.data.readers import read_examples
from bertwright.errors import BertwrightError, BertwrightWarning
from bertwright.interrupts import Stopped
from command_line import run
from tiny_model import QUICK, Fit, rows, write_jsonl, write_tsv

pytestmark = pytest.mark.usefixtures("plotless")

Finetune = Callable[..., Any]
ALL_COLUMNS = "or, if that line is no header, all columns with --columns"


@pytest.fixture
def finetune(tiny_dir: Path, tmp_path: Path) -> Finetune:
    """Fine-tune from a file of this name and content; nothing is left where it is refused."""

    def from_file(name: str, content: str, **options: Any) -> bertwright.Run:
        file = tmp_path / name
        file.write_text(content, encoding="utf-8")
        given = QUICK | {"epochs": None, "steps": 1, "model": tiny_dir, "train": file, "out": tmp_path / "run"} | options
        try:
            return bertwright.finetune(given)
        except BertwrightError:
            assert {path.name for path in tmp_path.iterdir()} == {name}
            raise

    return from_file


TABLE = "text\tpair\tlabel\n" + "".join(f"a film {n}\ta book\t{n % 2}\n" for n in range(40))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text": "label"}, "--text and --label both name the column 'label': the answer would be read with the text; name"),
        ({"pair": "label"}, "--pair and --label both name the column 'label': the answer would be read with the text; name"),
        ({"pair": "text"}, "--text and --pair both name the column 'text': both texts are the same; name another"),
        (
            {"task": "multi-label", "labels": ["label", "text"]},
            "--text and --labels both name the column 'text': the answer would be read with the text; name another",
        ),
        ({"task": "multi-label", "labels": ["label", "label"]}, "--labels names the column 'label' twice; name it once"),
        (
            {"task": "multiple-choice", "endings": ["pair", "label"]},
            "--endings names the column 'label', and so does --label",
        ),
        ({"task": "multiple-choice", "endings": ["text", "pair"]}, "--endings names the column 'text', and so does --text"),
        (
            {"task": "tagging", "token_column": "text", "tag_column": "text"},
            "--token-column and --tag-column both name 'text': the tags would be the words",
        ),
        ({"task": "multiple-choice", "endings": ["a", "b", "a"]}, "--endings has two columns 'a'; each ending has its own"),
    ],
)
def test_an_answer_is_not_read_as_a_text(finetune: Finetune, options: dict[str, Any], message: str) -> None:
    with pytest.raises(BertwrightError, match=re.escape(message)):
        finetune("t.tsv", TABLE, **options)


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ({"tag_column": "tokens"}, "--tag-column makes 'tokens' words and tags"),
        ({"token_column": "tags"}, "--token-column makes 'tags' words and tags"),
    ],
)
def test_tags_are_not_read_from_the_field_of_the_words(finetune: Finetune, option: dict[str, str], told: str) -> None:
    line = json.dumps({"tokens": ["EU", "says"], "tags": ["B-ORG", "O"]}) + "\n"
    with pytest.raises(BertwrightError, match=rf"t\.jsonl:1: {told}: the tags would be the words"):
        finetune("t.jsonl", line * 30, task="tagging", **option)


def test_columns_of_flags_leave_the_column_of_labels_to_be_a_text(fit: Fit, tmp_path: Path) -> None:
    train = write_jsonl(tmp_path / "m.jsonl", [{"label": f"a film {n}", "good": n % 2, "bad": 1} for n in range(20)])
    run = fit(task="multi-label", train=train, text="label", labels=["good", "bad"], source="good", steps=1, epochs=None)
    assert set(run.metrics["validation"]["per_source"]) <= {"0", "1"}


def test_a_column_that_a_task_does_not_read_may_be_any(fit: Fit, tmp_path: Path) -> None:
    told = [{"text": "the cat", "choices": ["is bad", "was good"], "label": n % 2} for n in range(20)]
    train = write_jsonl(tmp_path / "c.jsonl", told)
    with pytest.warns(BertwrightWarning, match="--pair has no effect for this --task"):
        fit(task="multiple-choice", train=train, pair="text", steps=1, epochs=None)


@pytest.mark.parametrize(
    ("name", "content", "options", "advice"),
    [
        (
            "t.tsv",
            "text,label\na film,1\n",
            {},
            "(the first line has: text,label); separate the columns with --delimiter comma",
        ),
        (
            "t.csv",
            "text;label\na film;1\n",
            {},
            "(the first line has: text;label); separate the columns with --delimiter semicolon",
        ),
        ("t.csv", "text\tlabel\na film\t1\n", {"delimiter": ","}, "label); separate the columns with --delimiter tab"),
        ("t.tsv", "text\ttopic\na film\t1\n", {}, f"text, topic); name its column with --label, {ALL_COLUMNS}"),
        (
            "t.tsv",
            "a film\t1\n",
            {},
            f"for --text (the first line has: a film, 1); name its column with --text, {ALL_COLUMNS}",
        ),
        (
            "t.tsv",
            "EU\tB-ORG\nsays\tO\n",
            {},
            "B-ORG); if each line is a word with its tag, it is for models of",
        ),
        (
            "t.conll",
            "-DOCSTART- -X- -X- O\n\n",
            {},
            "-X- O); if each line is a word with its tag, it is for models of",
        ),
        (
            "t.tsv",
            "O Captain\t1\n",
            {},
            f"for --text (the first line has: O Captain, 1); name its column with --text, {ALL_COLUMNS}",
        ),
        ("t.tsv", "LABEL\tE-MAIL\n", {}, f"has: LABEL, E-MAIL); name its column with --text, {ALL_COLUMNS}"),
        ("t.txt", "Well, a film\n", {}, f"(the first line has: Well, a film); name its column with --text, {ALL_COLUMNS}"),
        ("t.json", "[]", {"task": "tagging"}, "a .json file is one value, not rows: write a JSON object a line into"),
    ],
)
def test_a_first_line_without_the_column_says_what_to_do(
    finetune: Finetune, name: str, content: str, options: dict[str, Any], advice: str
) -> None:
    with pytest.raises(BertwrightError) as caught:
        finetune(name, content, **options)
    assert advice in str(caught.value)


def test_rows_that_cannot_be_set_aside_say_why(finetune: Finetune) -> None:
    few = "text\tlabel\n" + "".join(f"a film {n}\t{n}\n" for n in range(40))
    with pytest.warns(BertwrightWarning, match="40 labels in 40 training rows"), pytest.raises(BertwrightError) as caught:
        finetune("t.tsv", few)
    assert str(caught.value).endswith(
        "t.tsv: of 40 rows none can be set aside for validation (10% of each label): do --task and the options that name "
        "columns fit the file? If they do, give --validation"
    )
    with pytest.raises(BertwrightError, match=r"2 rows are too few to set 0\.1 of them aside; raise"):
        finetune("t.tsv", "text\tlabel\na\t1\nb\t0\n")


def test_a_list_of_texts_for_a_model_that_names_the_columns(fit: Fit, tmp_path: Path) -> None:
    train = write_tsv(tmp_path / "bare.tsv", rows(40), header=())
    model = fit(train=train, columns=["text", "label"], steps=1, epochs=None).model
    texts = tmp_path / "texts.txt"
    texts.write_text("a good film\na dull day\n")
    with pytest.raises(BertwrightError, match=r"give '' for a file with a header, or text where each line is a text$"):
        list(model.read(texts, labelled=False))
    assert [row.text for row in model.read(texts, labelled=False, columns="text")] == ["a good film", "a dull day"]


def test_a_table_on_standard_input_is_told_once(tiny_run: Path, tiny_dir: Path) -> None:
    piped = b"a good film\nthe film\t1\na book\t0\n"
    told = (
        "note: standard input:2: holds a tab, but each line is read as one text; the columns of a file are read with --input"
    )
    for command in (("predict", tiny_run), ("vectors", tiny_dir)):
        shown = run(*command, "-", stdin=piped)
        assert shown.code == 0
        assert shown.err.count("holds a tab") == shown.err.splitlines().count(told) == 1
        assert len(shown.out.splitlines()) == 3
    assert "holds a tab" not in run("predict", tiny_run, "-", stdin=b"a film\n").err


MARKS = "text\tgood\tbad\tnever\n" + "".join(f"a film {n}\t{n % 2}\t{(n + 1) % 2}\t0\n" for n in range(40))


def test_labels_that_no_row_has_or_that_exclude_each_other_are_told(finetune: Finetune) -> None:
    with pytest.warns(BertwrightWarning) as told:
        finetune("t.tsv", MARKS, task="multi-label", labels=["good", "bad", "never"])
    said = [str(one.message) for one in told]
    assert "--labels: no training row has never, so there is nothing to learn it from" in said
    assert "each training row has exactly one label; if that is always so, --task classification is made for it" in said


def test_scores_that_are_two_classes_are_told(finetune: Finetune) -> None:
    with pytest.warns(BertwrightWarning, match="all training rows have the score 0 or 1; if these are classes, give --task"):
        finetune("t.tsv", TABLE, task="regression")


def test_skipped_records_have_one_shape(fit: Fit, tmp_path: Path) -> None:
    asked = [
        {"question": "who?", "context": f"the cat {n}", "answers": [{"text": "cat", "answer_start": 4}]} for n in range(9)
    ]
    train = write_jsonl(tmp_path / "q.jsonl", asked)
    options = {"task": "question-answering", "train": train, "validation": train, "steps": 1, "epochs": None, "stride": 4}
    model = fit(**options).model
    shown = run("predict", model.directory, "-", stdin=b"no tab\n\twhere\nwho?\tthe cat\n")
    unread, empty, answered = shown.out.splitlines()
    assert unread.startswith('{"question": null, "predicted": null, "skipped": "no tab between two texts"')
    assert empty.startswith('{"question": "", "predicted": null, "skipped": "empty"')
    assert answered.startswith('{"question": "who?", "predicted": ')


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None,), "predict takes a text, or a list of them, not None"),
        ((3,), "predict takes a text, or a list of them, not 3"),
        ((b"text",), "predict takes a text, or a list of them, not b'text'"),
        ((["a"], 3), "predict takes a second text for each text, in a list, not 3"),
        ((["a", "b"], "cd"), "predict takes a second text for each text, in a list, not 'cd'"),
        (("a", 3), "text 1 is 3, of type int, not a string"),
    ],
)
def test_what_is_no_list_of_texts(tiny_run: Path, arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(BertwrightError) as caught:
        bertwright.load(tiny_run).predict(*arguments)
    assert str(caught.value) == message


def test_a_pretrained_model_cannot_be_judged_on_labels(tmp_path: Path, minilm_dir: Path) -> None:
    test = write_tsv(tmp_path / "t.tsv", rows(4))
    assert run("evaluate", "minilm", test).error.startswith("minilm: has no classifier; fine-tune it first with: ")


def test_the_folder_of_an_unfinished_run_is_no_model(tmp_path: Path) -> None:
    folder = tmp_path / "run.training"
    folder.mkdir()
    for command in (("info", folder), ("predict", folder, "a text")):
        assert run(*command).error == (
            f"{folder}: an unfinished run, which is no model yet; go on with it by --resume --out {tmp_path / 'run'}"
        )


def test_what_does_not_depend_on_rows_is_told_before_they_are_read(
    tiny_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def first_alone(*given: Any) -> Iterator[Any]:
        yield next(iter(read_examples(*given)))
        raise AssertionError("the second row was read")

    monkeypatch.setattr("bertwright.tasks.task.read_examples", first_alone)
    train = write_tsv(tmp_path / "t.tsv", rows(40))
    given = ("finetune", "--train", train, "--out", tmp_path / "run", "--model")
    assert run(*given, "./nowhere").error == "./nowhere: no such file or directory"
    assert run(*given, tiny_dir, "--max-length", 24, "--freeze", "first:3").error.startswith("--freeze first:3: the model")
    missing = tmp_path / "none.tsv"
    assert run(*given, "./nowhere", "--test", missing).error.startswith(f"{missing}: cannot be read: ")
    assert run(*given, "./nowhere", "--label", "topic").error.startswith(f"{train}:1: no column 'topic' for --label")


@pytest.mark.parametrize(("interrupt", "code"), [(KeyboardInterrupt(), 130), (Stopped("", 15), 143)])
def test_an_interrupt_while_reading_says_that_nothing_is_lost(
    tiny_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interrupt: BaseException, code: int
) -> None:
    def interrupted(*_: object) -> None:
        raise interrupt

    monkeypatch.setattr("bertwright.tasks.task.read_examples", interrupted)
    train = write_tsv(tmp_path / "t.tsv", rows(40))
    done = run("finetune", "--train", train, "--model", tiny_dir, "--max-length", 24, "--out", tmp_path / "run")
    assert (done.code, done.err.splitlines()[-1]) == (code, "stopped: before training; nothing is written")
    assert {path.name for path in tmp_path.iterdir()} == {"t.tsv"}


def test_a_second_file_is_not_left_out_silently(tiny_run: Path, tmp_path: Path) -> None:
    a, b = (write_tsv(tmp_path / f"{name}.tsv", rows(4)) for name in "ab")
    assert run("predict", tiny_run, "--input", a, "--input", b).error == (
        f"--input is given 2 times, as {a} and {b}, but names one: join the files, or leave one out"
    )
    said = run("predict", tiny_run, "a film", "--format", "csv", "--format=jsonl")
    assert (said.code, json.loads(said.out)["text"]) == (0, "a film")
    assert said.err == "note: --format is given 2 times; the last counts: jsonl\n"
    said = run("predict", tiny_run, "--input", a, "--columns", "first,text", "--columns", "last")
    assert "2 columns where 3 are expected (first, text, last)" in said.error
    assert "is given" not in run("predict", tiny_run, "--", "--format", "csv", "--format", "csv").err  # texts
    said = run("predict", tiny_run, "--input", a, "--columns", "a,b,c", "--columns", "", "--input", "", "--input", a)
    assert (said.code, said.err) == (0, "")


def test_a_header_beside_columns_is_no_row(finetune: Finetune) -> None:
    with pytest.raises(BertwrightError, match=r"t\.tsv:1: this line is a header, as it has the names of --columns; leave"):
        finetune("t.tsv", TABLE, columns=["text", "pair", "label"])
    with pytest.raises(BertwrightError, match=r"t\.tsv:1: the header has two columns 'text'; give each its own name there"):
        finetune("t.tsv", "text\ttext\tlabel\na\tb\t1\n")


def test_fields_in_quotes_are_told(finetune: Finetune) -> None:
    quoted = '"text"\t"label"\n' + "".join(f'"film {n}"\t"{n % 2}"\n' for n in range(30))
    with pytest.raises(BertwrightError) as caught:
        finetune("t.tsv", quoted)
    assert str(caught.value).endswith('(the first line has: "text", "label"); the fields are in quotes: give --quoting csv')
    told = (
        "30 of 30 texts are in quotes, which are taken as part of them; if they only enclose the fields, give --quoting csv"
    )
    bare = quoted.replace('"text"\t"label"', "text\tlabel")
    finetune("t.tsv", bare, quoting="literal")  # as was asked for
    with pytest.warns(BertwrightWarning, match=told):
        finetune("t.tsv", bare, overwrite=True)


def test_a_mistyped_model_or_the_data_in_its_place_are_told(tiny_run: Path, tmp_path: Path) -> None:
    data = write_tsv(tmp_path / "t.tsv", rows(4))
    wrong = tiny_run.with_name(tiny_run.name + "x")
    assert run("evaluate", wrong, data).error.startswith(f"{wrong} is no directory of a model; did you mean '{tiny_run}'?")
    assert run("evaluate", data, tiny_run).error == (
        f"{data} is a file; the model comes first: bertwright evaluate {tiny_run} {data}"
    )
    for command in (("predict", data, "a film"), ("evaluate", data, data, "--out", tmp_path / "e")):
        assert run(*command).error.startswith(f"{data}: not a weights file; name its directory")


def test_sentences_without_empty_lines_between_are_told(finetune: Finetune) -> None:
    words = "".join(f"word{n} {'B-X' if n % 3 else 'O'}\n" for n in range(400))
    told = r"t\.conll: 400 words in 1 sentence; an empty line ends a sentence: are they missing\?"
    with pytest.warns(BertwrightWarning, match=told), pytest.raises(BertwrightError, match="1 rows are too few"):
        finetune("t.conll", words, task="tagging")


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (
            [f"{n / 4}" for n in range(20)],
            "the labels of the training rows are 20 numbers; if they are scores, give --task regression",
        ),
        (["Pos", "neg", "pos"], "'Pos' and 'pos' are two labels; if they mean one, --label-names gives both its name"),
        (["1", "0", "1.0"], "'1' and '1.0' are two labels"),
    ],
)
def test_labels_that_are_odd_are_told(finetune: Finetune, labels: list[str], told: str) -> None:
    with pytest.warns(BertwrightWarning, match=re.escape(told)):
        finetune("t.tsv", "text\tlabel\n" + "".join(f"film {n}\t{labels[n % len(labels)]}\n" for n in range(240)))


def test_labels_with_another_separator_are_told(finetune: Finetune) -> None:
    lines = "".join(f"film {n}\t{['a; b', 'b; c', 'c; a'][n % 3]}\n" for n in range(30))
    with pytest.warns(BertwrightWarning, match="exactly one label, such as 'a; b'; if these are several, give --label-sep"):
        finetune("t.tsv", "text\tlabel\n" + lines, task="multi-label")


def test_rows_of_training_among_those_of_a_test_are_told(fit: Fit, tmp_path: Path) -> None:
    empty = ("", "1")
    train = write_tsv(tmp_path / "t.tsv", [*rows(60), empty])
    other = write_tsv(tmp_path / "o.tsv", [("an other row, which nobody has seen", "1"), *rows(1), empty])
    with pytest.warns(BertwrightWarning) as told:
        fit(train=train, validation=other, test=train, steps=1, epochs=None)
    lines = [str(one.message) for one in told if "training rows too" in str(one.message)]
    assert lines == [
        "validation rows: 1 of 3 are training rows too; their scores say little of new texts",
        "test rows: 60 of 61 are training rows too; their scores say little of new texts",
    ]


def test_empty_texts_are_counted(fit: Fit, tmp_path: Path) -> None:
    train = write_tsv(tmp_path / "t.tsv", [*rows(57), *[("", "1")] * 3])
    with pytest.warns(BertwrightWarning, match="training rows: 3 of 60 are empty; they are taken like others"):
        fit(train=train, validation=write_tsv(tmp_path / "v.tsv", rows(9)), steps=1, epochs=None)


def test_files_that_are_no_text_are_told_as_what_they_are(finetune: Finetune, tmp_path: Path) -> None:
    for magic, told in ((b"PK\x03\x04\x14\0", "an Excel workbook"), (b"\x1f\x8b\x08\0", "compressed by gzip; unpack it")):
        (tmp_path / "b.csv").write_bytes(magic)
        with pytest.raises(BertwrightError, match=told):
            next(read_examples(tmp_path / "b.csv", Columns()))
    (tmp_path / "b.csv").unlink()
    with pytest.raises(BertwrightError, match=r"t\.csv:1: a carriage return stands inside the line; save the file with a"):
        finetune("t.csv", "text,label\ra film,1\r")


def test_one_delimiter_for_all_files_is_told(finetune: Finetune) -> None:
    with pytest.raises(BertwrightError, match="--delimiter tab, which holds for all files"):
        finetune("t.txt", "text\tlabel\na film\t1\n", delimiter=";")


def test_the_ending_of_output_says_its_format(tiny_run: Path, tmp_path: Path) -> None:
    assert run("predict", tiny_run, "a film", "--output", tmp_path / "p.csv").code == 0
    assert (tmp_path / "p.csv").read_text().startswith("text,")
    said = run("predict", tiny_run, "a film", "--output", tmp_path / "p.csv", "--format", "jsonl").error
    assert said == "--format is jsonl, but --output ends in .csv: change one of them"


def test_a_task_that_is_not_installed_is_named_with_its_model(tiny_run: Path, tmp_path: Path) -> None:
    model = shutil.copytree(tiny_run, tmp_path / "model")
    recipe = model / "recipe.toml"
    recipe.write_text(recipe.read_text().replace('task = "classification"', 'task = "grading"'))
    assert run("predict", model, "a film").error.startswith(
        f"{recipe}: the task is 'grading', which is not installed (known"
    )
