"""What people give by mistake: one line that names it and the remedy, exit code 2, and nothing left behind."""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from bertwright.training.options import flag
from command_line import run
from tiny_model import QUICK, full_disk, rows, write_csv, write_jsonl, write_tsv

pytestmark = pytest.mark.usefixtures("plotless")
QUICKLY = [part for name, value in QUICK.items() for part in (flag(name), str(value))]
Refused = Callable[..., str]


def contents(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.fixture
def refused(tiny_dir: Path, tmp_path: Path) -> Refused:
    """Run ``finetune`` with these further arguments, see that it changes nothing on the disk, and return its error."""

    def finetune(*arguments: object, model: Path = tiny_dir) -> str:
        before = contents(tmp_path)
        error = run("finetune", "--model", model, "--out", tmp_path / "run", *QUICKLY, *arguments).error
        assert contents(tmp_path) == before
        return error

    return finetune


@pytest.fixture
def train(tmp_path: Path) -> Path:
    return write_tsv(tmp_path / "train.tsv", rows(40))


# ----------------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("empty.tsv", b"", "{file}: the file has no rows; is it the right one?"),
        ("empty.jsonl", b"", "{file}: the file has no rows; is it the right one?"),
        ("header.tsv", b"text\tlabel\n", "{file}: the file has no rows; is it the right one?"),
        ("cut.tsv", b"text\tlabel\na\t1\nb\n", "{file}:3: 1 columns where 2 are expected (text, label); quotes are taken"),
        ("long.tsv", b"text\tlabel\na\t1\nb\t0\tc\n", "{file}:3: 3 columns where 2 are expected (text, label); quotes are"),
        ("ragged.csv", b'text,label\n"a\nb",1\nc\n', "{file}:4: 1 columns where 2 are expected (text, label)"),
        ("ragged.jsonl", b'{"text": "a", "label": 1}\n{"text": "b"}\n', "{file}:2: no column 'label' for --label (columns:"),
        ("name.tsv", b"txet\tlabel\na\t1\n", "{file}:1: no column 'text' for --text; did you mean 'txet'? (the first"),
        (
            "no.tsv",
            b"a good film\t1\nbad\t0\n",
            "{file}:1: no column 'text' for --text (the first line has: a good film",
        ),
        ("label.tsv", b"text\tlabel\na\t1\nb\t\n", "{file}:3: the label (column 'label') is missing; fill it in or leave"),
        ("null.jsonl", b'{"text": "a", "label": null}\n', "{file}:1: the label (column 'label') is missing; fill it in"),
        ("one.tsv", b"text\tlabel\na\tx\nb\tx\n", "{file}:2: all 2 training rows have the label 'x'; a classifier needs"),
        ("nul.tsv", b"text\tlabel\na\t1\nb\x00\t0\n", "{file}:3: the line holds a NUL byte; save the file as UTF-8 text"),
        ("latin.tsv", b"text\tlabel\nna\xefve\t1\n", "{file}:2: byte 0xef at position 3 is not UTF-8; save the file as"),
        ("utf16.tsv", "text\tlabel\n".encode("utf-16"), "{file}:1: the line holds a NUL byte; save the file as UTF-8 text"),
        ("open.csv", b'text,label\n"a,1\nb,0\n', "{file}:2: cannot read this row: unexpected end of data; see --quoting"),
        (
            "twice.tsv",
            b"text\ttext\tlabel\na\tb\t1\n",
            "{file}:1: the header has two columns 'text'; give each its",
        ),
        ("bad.jsonl", b'{"text": "a", "label": 1\n', "{file}:1: not JSON: "),
        ("list.jsonl", b'["a", 1]\n', "{file}:1: a JSON object is expected on each line, not "),
    ],
)
def test_a_training_file_that_cannot_be_used(
    refused: Refused, tmp_path: Path, name: str, content: bytes, error: str
) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    assert refused("--train", file).startswith(error.format(file=file))


@pytest.mark.parametrize("option", ["--train", "--validation", "--test"])
def test_a_missing_file(refused: Refused, train: Path, tmp_path: Path, option: str) -> None:
    missing = tmp_path / "none.tsv"
    given = {"--train": train} | {option: missing}
    error = refused(*(part for pair in given.items() for part in pair))
    assert error == f"{missing}: cannot be read: No such file or directory; is the name right?"


def test_no_training_file_and_no_place(refused: Refused, train: Path) -> None:
    assert refused() == "--train is missing: name the file with the training rows, or a known data set"
    assert run("finetune", "--train", train).error.startswith("--out is missing: name the directory")


@pytest.mark.parametrize("option", ["--validation", "--test"])
def test_a_label_that_training_does_not_have(refused: Refused, train: Path, tmp_path: Path, option: str) -> None:
    other = write_tsv(tmp_path / "other.tsv", [("a film", "1"), ("a book", "good")])
    error = refused("--train", train, option, other)
    assert error == f"{other}:3: the label 'good' does not occur in the training rows (known: 0, 1)"


def test_labels_in_parquet(refused: Refused, tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="needs the parquet extra")
    from pyarrow.parquet import write_table

    file = tmp_path / "rows.parquet"
    write_table(arrow.table({"text": ["a", "b", "c"], "label": [1, None, 0]}), file)
    assert refused("--train", file).startswith(f"{file}: row 2: the label (column 'label') is missing; fill it in")
    file.write_bytes(file.read_bytes()[:-10])
    assert refused("--train", file).startswith(f"{file}: not a readable Parquet file: ")


def test_evaluating_rows_with_an_unseen_label(tiny_run: Path, tmp_path: Path) -> None:
    file = write_csv(tmp_path / "t.csv", [("a film", "1"), ("two\nlines", "2")])
    before = contents(tmp_path)
    error = run("evaluate", tiny_run, file, "--out", tmp_path / "e").error
    assert error == f"{file}:3: the label '2' does not occur in the training rows (known: 0, 1)"
    assert contents(tmp_path) == before


# ---------------------------------------------------------------------------------------------------------------- models


def test_a_directory_that_is_no_model(refused: Refused, train: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    error = refused("--train", train, model=folder)
    assert error.startswith(f"{folder / 'config.json'}: No such file or directory; a model directory needs the config.json")
    assert run("predict", folder, "a").error == error


@pytest.fixture
def copied(tiny_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_dir, tmp_path / "copied"))


def test_a_truncated_weights_file(refused: Refused, train: Path, copied: Path) -> None:
    weights = copied / "model.safetensors"
    whole = weights.read_bytes()
    for size in (0, 5, 2000, len(whole) - 1):
        weights.write_bytes(whole[:size])
        assert refused("--train", train, model=copied).startswith(f"{weights}: cut short or not safetensors ("), size


def test_a_vocabulary_that_does_not_fit_the_weights(refused: Refused, train: Path, copied: Path, tmp_path: Path) -> None:
    size = len((copied / "vocab.txt").read_text().splitlines())
    more = tmp_path / "more.txt"
    more.write_text((copied / "vocab.txt").read_text() + "further\nwords\n")
    error = refused("--train", train, "--tokenizer", more)
    assert error.startswith(
        f"{more}: the vocabulary has {size + 2} entries but the model only {size} word embeddings; take the"
    )
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | {"vocab_size": size + 1}))
    assert "vocab_size of config.json, or the vocabulary, is not that of the weights" in refused(
        *("--train", train), model=copied
    )


def test_a_name_that_is_no_model(refused: Refused, train: Path) -> None:
    assert refused("--train", train, "--model", "./nowhere") == "./nowhere: no such file or directory"


# -------------------------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--max-length", "49"], "--max-length 49 is more than the 48 positions of {model}; give at most that"),
        (["--max-length", "2"], "--max-length must be at least 3, not 2"),
        (["--batch-size", "0"], "--batch-size must be at least 1, not 0"),
        (["--freeze", "all"], "--freeze is 'all'; use none, encoder, or first:N"),
        (["--freeze", "first:"], "--freeze is 'first:'; use none, encoder, or first:N"),
        (["--freeze", "first:-1"], "--freeze is 'first:-1'; use none, encoder, or first:N"),
        (["--freeze", "first:3"], "--freeze first:3: the model has only 2 layers"),
        (
            ["--class-weights", "2=3"],
            "--class-weights: no class '2' (classes: 0, 1); use none, balanced, or name=weight,name=weight",
        ),
        (["--config", "tiny"], "--model starts from a checkpoint, --config from random weights: give one of them"),
        (["--text", "txt"], "{train}:1: no column 'txt' for --text; did you mean 'text'? (the first line has: text, label)"),
        (["--columns", "text,text"], "--columns has two columns 'text'; give each its own name"),
        (["--delimiter", "ab"], "--delimiter must be one character, tab, comma or semicolon, not 'ab'"),
        (["--validation-fraction", "0.001"], "{train}: 40 rows are too few to set 0.001 of them aside; raise"),
        (["--device", "tpu"], "--device is 'tpu'; did you mean 'cpu'? (known: auto, cpu, cuda)"),
        (["--resume"], "{out}.training: nothing to resume; leave --resume out to begin a run"),
        (["--recipe", "none.toml"], "none.toml: cannot read this recipe file: No such file or directory"),
        (["--learning-rate", "1e30"], "the "),
    ],
)
def test_a_setting_that_cannot_be(
    refused: Refused, train: Path, tiny_dir: Path, tmp_path: Path, arguments: list[str], error: str
) -> None:
    expected = error.format(train=train, model=tiny_dir, out=tmp_path / "run")
    assert refused("--train", train, *arguments).startswith(expected)


def test_a_loss_that_is_no_number_says_when_and_what_to_try(refused: Refused, train: Path) -> None:
    error = refused("--train", train, "--learning-rate", "1e30", "--epochs", "2")
    assert " became " in error
    assert " at step 2 (epoch 1); nothing of this step was kept. Try a lower --learning-rate" in error


def test_a_place_that_is_taken(refused: Refused, train: Path, tiny_run: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_run, tmp_path / "run")
    error = refused("--train", train)
    assert error == f"{tmp_path / 'run'}: holds something already; choose another --out, or replace it with --overwrite"
    (tmp_path / "run.training").mkdir()
    (tmp_path / "run.training" / "recipe.toml").touch()
    assert refused("--train", train).startswith(f"{tmp_path / 'run.training'}: an unfinished run; go on with: ")


# ------------------------------------------------------------------------------------------------------------- full disks


def test_a_full_disk_while_saving(refused: Refused, train: Path) -> None:
    for epochs in ("1", "2"):  # at the end, and at the first state
        with full_disk():
            error = refused("--train", train, "--epochs", epochs)
        assert error.startswith("cannot write ")
        assert "File too large" in error


def test_a_full_disk_while_predicting(tiny_run: Path, tmp_path: Path) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text('{"text": "good"}\n' * 1000)
    with full_disk():
        error = run("predict", tiny_run, "--input", file, "--output", tmp_path / "out.jsonl", "--device", "cpu").error
    assert error.startswith(f"cannot write {tmp_path / 'out.jsonl'}: File too large")
    assert contents(tmp_path) == {"texts.jsonl"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_standard_output(tiny_run: Path) -> None:
    command = [sys.executable, "-m", "bertwright", "predict", str(tiny_run), "a good film", "--device", "cpu"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=300)
    assert done.returncode == 2
    assert done.stderr == "error: the output: No space left on device\n"


# ------------------------------------------------------------------------------------------------------ around a model


@pytest.mark.parametrize("command", ["evaluate", "predict"])
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--device", "tpu"], "--device is 'tpu'; did you mean 'cpu'? (known: auto, cpu, cuda)"),
        (["--precision", "fp16"], "--precision is 'fp16'"),
        (["--threads", "-1"], "--threads is -1; use a number above 0, or 0 for one a core"),
        (["--text", ""], "--text is empty; give it a value, or leave it out"),
    ],
)
def test_a_setting_that_cannot_be_with_a_model(
    tiny_run: Path, train: Path, command: str, arguments: list[str], error: str
) -> None:
    given = (train,) if command == "evaluate" else ("--input", train)
    assert run(command, tiny_run, *given, *arguments).error.startswith(error)


def test_an_unknown_metric_is_told_before_the_work(tiny_run: Path, train: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("bertwright.predictor.inference.run")
    assert run("evaluate", tiny_run, train, "--metric", "f2").error.startswith("--metric is 'f2'")


def test_label_and_text_the_wrong_way_round_is_told(tiny_dir: Path, tmp_path: Path) -> None:
    file = write_tsv(tmp_path / "t.tsv", [(f"{text} {number}", label) for number, (text, label) in enumerate(rows(40))])
    swapped = ("--train", file, "--validation", file, "--text", "label", "--label", "text", "--steps", "1")
    told = run("finetune", "--model", tiny_dir, "--out", tmp_path / "run", *QUICKLY, *swapped).err
    assert f"note: {file}:2: 40 labels in 40 training rows; does --label name the right column?" in told


def test_a_long_text_with_a_slash_is_a_text(tiny_run: Path) -> None:
    assert run("predict", tiny_run, "and/or" * 100).code == 0


def test_an_unfinished_run_in_the_place_of_a_model(tmp_path: Path) -> None:
    (tmp_path / "run.training").mkdir()
    for command in (("info",), ("predict", "a text"), ("evaluate", "a.tsv", "--out", "x")):
        error = run(command[0], tmp_path / "run", *command[1:]).error
        hint = f"(an unfinished run is in {tmp_path / 'run'}.training: go on with it by --resume)"
        assert error == f"{tmp_path / 'run'}: no such file or directory {hint}"


def test_weights_may_be_read_by_whom_the_other_files_may(tiny_run: Path) -> None:
    assert len({path.stat().st_mode for path in tiny_run.iterdir() if path.is_file()}) == 1


def test_a_file_among_the_texts_is_told(tiny_run: Path, train: Path) -> None:
    told = run("predict", tiny_run, train).err
    assert f"note: {train} is read as a text; the rows of a file are read with --input" in told


def test_an_evaluation_in_the_place_of_another_is_told(tiny_run: Path, train: Path, tmp_path: Path) -> None:
    told = f"note: {tmp_path / 'e'}: the evaluation that was there is replaced; --out keeps both"
    assert [told in run("evaluate", tiny_run, train, "--out", tmp_path / "e").err for _ in range(2)] == [False, True]


def test_two_columns_for_the_second_text(tiny_run: Path, train: Path) -> None:
    error = run("predict", tiny_run, "--input", train, "--pair", "a", "--pair", "b").error
    assert error == "--pair is given 2 times; with --input it names one column"


def test_an_evaluation_replaces_files_of_its_own_and_no_others(tiny_run: Path, train: Path, tmp_path: Path) -> None:
    error = run("evaluate", tiny_run, train, "--out", tiny_run).error
    assert error == f"{tiny_run}: holds a model, whose files would be mixed up with these; choose another --out"
    assert run("evaluate", tiny_run, train, "--out", train).error.startswith(f"{train}: a file is there where a directory")
    many, place = write_tsv(tmp_path / "many.tsv", rows(400)), tmp_path / "e"
    (place / "notes").mkdir(parents=True)
    for _ in range(2):
        assert run("evaluate", tiny_run, train, "--out", place).code == 0
    before = contents(place)
    assert before == {"notes", "metrics.json", "predictions.jsonl"}
    metrics = (place / "metrics.json").read_bytes()
    with full_disk():
        assert "File too large" in run("evaluate", tiny_run, many, "--out", place).error
    assert contents(place) == before
    assert (place / "metrics.json").read_bytes() == metrics


def test_a_config_of_fewer_layers_than_the_weights_have(tiny_run: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_run, tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    (tmp_path / "run" / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    error = run("predict", tmp_path / "run", "good").error
    assert error.startswith(f"{tmp_path / 'run' / 'config.json'}: describes a smaller model than the weights are of: ")


def test_info_of_a_damaged_run(tiny_run: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_run, tmp_path / "run")
    for content in ("{", "[]", "{}", '{"validation": {"accuracy": 1}}'):
        (tmp_path / "run" / "metrics.json").write_text(content)
        shown = run("info", tmp_path / "run")
        if content == "{}":
            assert shown.code == 0
        else:
            assert shown.error.startswith(f"{tmp_path / 'run' / 'metrics.json'}: damaged (")


def test_another_vocabulary_than_the_checkpoints(
    train: Path, tiny_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join((tiny_dir / "vocab.txt").read_text().split()[:60]) + "\n")
    arguments = ("finetune", "--model", tiny_dir, "--tokenizer", vocabulary, "--train", train, *QUICKLY, "--steps", "1")
    assert "its own" not in run(*arguments, "--out", tmp_path / "rounded").err
    monkeypatch.setattr("bertwright.starting_point.ROUNDED_UP_BY", 0)
    told = run(*arguments, "--out", tmp_path / "other")
    assert told.code == 0
    assert f"note: {vocabulary}: the vocabulary has 60 entries, the model " in told.err
    assert "with another vocabulary than its own, a checkpoint is worth little" in told.err


# -------------------------------------------------------------------------------------------- odd, but as it should be


def test_odd_files_that_are_right(tiny_dir: Path, tmp_path: Path) -> None:
    plain = write_tsv(tmp_path / "plain.tsv", rows(40))
    quoted = [(f'"{text}', label) for text, label in rows(40)]  # a quote that never closes is a character in .tsv
    made = {
        "crlf.tsv": plain.read_bytes().replace(b"\n", b"\r\n"),
        "bom.tsv": b"\xef\xbb\xbf" + plain.read_bytes(),
        "unended.tsv": plain.read_bytes().rstrip(b"\n"),
        "blank.tsv": plain.read_bytes().replace(b"\n", b"\n\n"),
    }
    for name, content in made.items():
        (tmp_path / name).write_bytes(content)
    numbers = [{"text": text, "label": int(label)} for text, label in rows(40)]
    files = [plain, *(tmp_path / name for name in made), write_csv(tmp_path / "c.csv", rows(40))]
    files += [write_jsonl(tmp_path / "n.jsonl", numbers), write_tsv(tmp_path / "q.tsv", quoted)]
    weights = []
    for file in files:
        out = tmp_path / f"of-{file.name}"
        arguments = ("--model", tiny_dir, "--train", file, "--out", out, *QUICKLY, "--epochs", "1")
        assert run("finetune", *arguments).code == 0, file
        weights.append((out / "model.safetensors").read_bytes())
        first = json.loads((out / "validation" / "predictions.jsonl").read_text().splitlines()[0])
        assert first["text"].startswith('"') == (file.name == "q.tsv")
    assert len(set(weights[:-1])) == 1
    assert weights[-1] != weights[0]


def test_an_empty_value_takes_back_what_a_recipe_had(tiny_dir: Path, train: Path, tmp_path: Path) -> None:
    arguments = ("--model", tiny_dir, *QUICKLY, "--epochs", "1")
    assert run("finetune", *arguments, "--train", train, "--test", train, "--out", tmp_path / "first").code == 0
    recipe = tmp_path / "first" / "recipe.toml"
    assert run("finetune", "--recipe", recipe, "--test", "", "--out", tmp_path / "second").code == 0
    assert (tmp_path / "first" / "test").is_dir()
    assert not (tmp_path / "second" / "test").exists()
    assert run("finetune", "--recipe", recipe, "--text", "", "--out", "x").error == (
        "--text is empty; give it a value, or leave it out"
    )


def test_what_is_written_never_takes_the_place_of_what_is_read(tiny_run: Path, tmp_path: Path) -> None:
    model = tiny_run
    texts = write_tsv(tmp_path / "texts.tsv", rows(3))
    lines = write_jsonl(tmp_path / "texts.jsonl", [{"text": "good film"}])
    (tmp_path / "link.tsv").symlink_to(texts)
    metrics = model / "metrics.json"
    for given, kept, message in (
        (("predict", model, "--input", texts, "--output", tmp_path / "link.tsv"), texts, "is the file that is read"),
        (("predict", model, "a", "--output", metrics), metrics, f"is a file of the model in {model}; name another"),
        (("vectors", model, "--input", lines, "--text", "text", "--out", lines), lines, "is the file that is read"),
    ):
        before = kept.read_bytes()
        said = run(*given)
        assert (said.code, said.out) == (2, "")
        assert message in said.err
        assert len(said.err.splitlines()) == 1
        assert kept.read_bytes() == before
    (tmp_path / "config.link").symlink_to(model / "config.json")
    linked = run("predict", model, "a", "--output", tmp_path / "config.link").error
    assert linked.endswith(f"config.link is a file of the model in {model}; name another")
    evaluated = run("evaluate", model, texts, "--out", tmp_path)
    assert evaluated.error == f"{tmp_path}: holds texts.tsv, which is read and could be replaced; choose another --out"
    assert run("predict", model, "a", "--output", tmp_path).error == f"--output {tmp_path} is a directory; name a file in it"
    (tmp_path / "v.jsonl").write_text("old")
    said = run("vectors", model, "good film", "--out", tmp_path / "v.jsonl")
    assert (said.code, "v.jsonl is there and will be replaced" in said.err) == (0, True)


def test_standard_input_and_output_that_are_files_are_kept(tiny_run: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("a good film\n")
    for command, option, place, told in (
        ("predict", "--output", texts, "is the file that is read, and would be lost"),
        ("predict", "--output", Path("/dev/stdout"), "leads to a file that would be replaced; leave --output out"),
    ):
        with texts.open() as stdin, (tmp_path / "all").open("w") as stdout:
            said = subprocess.run(
                [sys.executable, "-m", "bertwright", command, str(tiny_run), "-", option, str(place)],
                stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=120,
            )  # fmt: skip
        assert (said.returncode, texts.read_text()) == (2, "a good film\n")
        assert f"{option} {place} {told}" in said.stderr


def test_a_model_with_pickled_weights_is_a_model_too(tiny_run: Path, tmp_path: Path) -> None:
    for name in ("config.json", "vocab.txt", "pytorch_model.bin"):
        (tmp_path / name).write_text("{}")
        if name == "config.json":
            assert run("predict", tiny_run, "a film", "--output", tmp_path / "vocab.txt").code == 0
    for name in ("vocab.txt", "pytorch_model.bin"):
        said = run("predict", tiny_run, "a film", "--output", tmp_path / name).error
        assert said.endswith(f"{name} is a file of the model in {tmp_path}; name another")


def test_a_folder_with_another_programs_config_is_no_model(
    tiny_run: Path, tiny_dir: Path, train: Path, tmp_path: Path
) -> None:
    project = tmp_path / "project"
    (project / "src").mkdir(parents=True)
    (project / "config.json").write_text('{"app": "mine"}')
    said = run("finetune", "--model", tiny_dir, "--train", train, *QUICKLY, "--out", project, "--overwrite").error
    assert said == f"{project}: holds something that is no model, and is not replaced; choose another --out"
    assert run("evaluate", tiny_run, train, "--out", project).code == 0
    assert {"config.json", "src", "metrics.json"} <= {path.name for path in project.iterdir()}


def test_other_files_beside_a_model_or_another_programs_config_are_replaced(tiny_run: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"app": "mine"}')
    for target in (tmp_path / "README.md", tiny_run / "mine.jsonl"):
        for told in (False, True):
            said = run("predict", tiny_run, "a good film", "--output", target)
            assert (said.code, f"{target} is there and will be replaced" in said.err) == (0, told)
    (tiny_run / "mine.jsonl").unlink()


def test_a_refusal_does_not_say_that_something_will_be_replaced(tiny_run: Path, train: Path, tmp_path: Path) -> None:
    (tmp_path / "old.jsonl").write_text("old")
    said = run("predict", tmp_path / "nowhere", "a", "--output", tmp_path / "old.jsonl")
    assert (said.code, len(said.err.splitlines())) == (2, 1)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_line_is_answered_into_a_named_pipe_before_the_next_comes(tiny_run: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    command = [sys.executable, "-m", "bertwright", "predict", str(tiny_run), "-", "--output", str(pipe)]
    answers: queue.Queue[str] = queue.Queue()

    def read() -> None:
        with pipe.open() as lines:
            for line in lines:
                answers.put(line)

    threading.Thread(target=read, daemon=True).start()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        for text in ("a good film", "a bad film"):
            process.stdin.write(text + "\n")
            process.stdin.flush()
            assert json.loads(answers.get(timeout=120))["text"] == text
        process.stdin.close()
        assert process.wait(60) == 0


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_numpys_vectors_do_not_go_to_a_pipe(tiny_run: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "v.npy")
    said = run("vectors", tiny_run, "a film", "--out", tmp_path / "v.npy").error
    assert said == f"--out {tmp_path / 'v.npy'}: a .npy file cannot be a pipe; one of .jsonl or .parquet can"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_is_written_to_and_read_from(tiny_dir: Path, tiny_run: Path, train: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    command = [sys.executable, "-m", "bertwright", "predict", str(tiny_run), "a good film", "--output", str(pipe)]
    told: list[str] = []
    reading = threading.Thread(target=lambda: told.append(pipe.read_text()), daemon=True)
    reading.start()
    assert subprocess.run(command, capture_output=True, timeout=120).returncode == 0
    reading.join(60)
    assert json.loads(told[0])["text"] == "a good film"
    assert pipe.is_fifo()
    many = "text\tlabel\n" + "".join(f"{text} {n}\t{label}\n" for n in range(600) for text, label in rows(10))
    other = tmp_path / "other"
    os.mkfifo(other)

    def write() -> None:  # one after the other, the first with more than a pipe holds
        pipe.write_text(many)
        other.write_bytes(train.read_bytes())

    writing = threading.Thread(target=write, daemon=True)
    writing.start()
    given = ("--model", tiny_dir, "--train", pipe, "--validation", other, *QUICKLY, "--steps", "1")
    said = run("finetune", *given, "--out", tmp_path / "run")
    writing.join(60)
    assert said.code == 0
