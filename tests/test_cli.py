"""The command line as people use it: what they see, where results go, and how it ends."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.cells import cell_len
from rich.console import Console

import bertwright
import bertwright.__main__
from bertwright import Recipe, cli, finetune
from bertwright.training.options import flag
from command_line import Result, run
from tiny_model import QUICK, rows, write_csv, write_jsonl, write_tsv

pytestmark = pytest.mark.usefixtures("plotless")
COMMANDS = ("finetune", "evaluate", "predict", "info", "tokenize", "quickstart")


@pytest.fixture(autouse=True)
def terminal_of_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def records(result: Result) -> list[dict[str, Any]]:
    assert result.code == 0, result.err
    return [json.loads(line) for line in result.out.splitlines()]


# ---------------------------------------------------------------------------------------------------------------- help


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_helps_name_no_default_where_that_of_training_holds(command: str) -> None:
    shown = " ".join(run(command, "--help").out.split())
    assert "Column separator. " in shown
    assert "as in SWAG" not in shown
    assert "the last" not in shown


def test_the_version_says_what_runs() -> None:
    shown = run("--version")
    assert shown.code == 0
    assert shown.out.startswith(f"bertwright {bertwright.__version__}, torch {torch.__version__}, Python 3.")
    assert shown.out.count("\n") == 1


def test_an_interrupt_while_the_commands_are_imported_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    class Interrupted:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "bertwright.cli":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "bertwright.cli")
    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])
    with pytest.raises(SystemExit) as end:
        bertwright.__main__.main()
    assert end.value.code == 130
    assert capsys.readouterr().err == "stopped: interrupted\n"


def test_help_names_every_command_and_is_what_one_gets_for_no_command() -> None:
    shown = run("--help")
    assert shown.code == 0
    assert all(f" {command} " in shown.out for command in COMMANDS)
    assert run() == shown


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_an_example_and_fits_80_columns(command: str) -> None:
    shown = run(command, "--help")
    assert shown.code == 0
    assert f"Example: bertwright {command}" in shown.out
    assert max(cell_len(line) for line in shown.out.splitlines()) <= 80
    assert "((" not in shown.out
    assert "(default" not in shown.out


def test_finetune_has_a_flag_for_every_option_with_its_default_in_plain_words() -> None:
    text = " ".join(run("finetune", "--help").out.replace("│", " ").split())
    for field in dataclasses.fields(Recipe):
        assert f"{flag(field.name)} <" in text, field.name
        if field.default not in (None, (), False) or (field.default == 0 and field.type == "int"):
            assert f"[default: {field.default}]" in text, field.name
    assert "Peak learning rate. [default: 5e-05]" in text
    assert "0: never. [default: 0]" in text


@pytest.mark.parametrize(
    ("typed", "error"),
    [
        (["evaluat"], r"No such command 'evaluat'. Did you mean 'evaluate'\?; see bertwright --help"),
        (
            ["finetune", "--lerning-rate", "1"],
            "No such option: --lerning-rate .*--learning-rate.*; see bertwright finetune --help",
        ),
        (["finetune", "--batch-size", "many"], "--batch-size must be a whole number, not 'many'"),
        (["finetune", "--learning-rate", "fast"], "--learning-rate must be a number, not 'fast'"),
        (["finetune", "--out"], "Option '--out' requires an argument.*"),
        (["evaluate"], "Missing argument .*; see bertwright evaluate --help"),
        (["predict", "m", "a", "--threads", "x"], "Invalid value for '--threads'.*; see bertwright predict --help"),
        (["finetune", "--preset", "bok", "--out", "x"], r"no preset 'bok'; did you mean 'book'\? \(known: book\)"),
        (["predict", "m"], "give texts, or - for standard input, or --input FILE: one of them"),
        (["predict", "m", "a", "--input", "f"], "give texts, or - for standard input, or --input FILE: one of them"),
        (["predict", "m", "-", "a"], "give texts, or - for standard input, or --input FILE: one of them"),
        (["predict", "m", "a", "--format", "xml"], "--format is 'xml'; use jsonl or csv"),
        (["predict", "m", "a", "--text", "x"], "--text says how to read a file: give it with --input"),
        (
            ["evaluate", "owner/name", "f.tsv"],
            "owner/name is no directory of a model; for one of the hub, say with .*",
        ),
    ],
)
def test_a_wrong_command_line_ends_in_one_line_with_a_remedy(typed: list[str], error: str) -> None:
    assert re.fullmatch(error, run(*typed).error)


# ------------------------------------------------------------------------------------------------------------- finetune


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_tsv(tmp_path / "train.tsv", rows(40))


def test_defaults_give_way_to_a_preset_that_to_a_recipe_and_that_to_flags(
    tiny_dir: Path, data: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text(
        f'model = "{tiny_dir}"\ntrain = "{data}"\nweight_decay = 0.2\nwarmup = 0.5\nmax_length = 20\nsteps = 1\n'
    )
    out = tmp_path / "run"
    shown = run("finetune", "--preset", "book", "--recipe", recipe, "--warmup", "0.25", "--out", out, "--device", "cpu")
    assert shown.code == 0, shown.err
    assert "has no effect" not in shown.err  # the recipe's steps take the place of the preset's epochs
    made = Recipe.read(out / "recipe.toml")
    assert made["schedule"] == Recipe.schedule  # a default
    assert (made["adam_epsilon"], made["metric"], made["learning_rate"]) == (1e-8, "matthews_correlation", 2e-5)  # preset
    assert (made["weight_decay"], made["max_length"]) == (0.2, 20)  # the recipe's
    assert made["warmup"] == 0.25  # the flag's
    history = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    assert history[0]["learning_rate"] <= 2e-5


def test_a_run_says_what_it_does_and_how_good_it_is_within_80_columns(tiny_dir: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shown = run(
        *("finetune", "--model", tiny_dir, "--train", data, "--test", data, "--out", out, "--seeds", "2", "--epochs", "1"),
        *("--max-length", "24", "--device", "cpu"),
    )
    assert shown.code == 0, shown.err
    said = [line for line in shown.err.splitlines() if not line.startswith("note: ")]
    assert "note: test rows: 36 of 40 are training rows too; their scores say little of new texts" in shown.err
    assert said[0] == "36 training rows; 4 set aside for validation (10% of each label, seed 2018)"
    assert said[1] == "labels: 0 (18), 1 (18)"
    assert said[3] == f"starting from {tiny_dir}; freshly initialised: classifier (2 tensors)"
    assert [line.partition(":")[0] for line in said[4:]] == ["seed 0 (1 of 2)", "epoch 1", "seed 1 (2 of 2)", "epoch 1"]
    titles = shown.out.splitlines()
    assert f"{out}: validation" in " ".join(shown.out.split())
    assert "True classes (rows) and predicted classes (columns)" in titles
    assert "Over seeds" in shown.out
    assert titles[-1] == f"written to {out}"
    assert max(cell_len(line.rstrip()) for line in titles[:-1]) <= 80


def test_a_note_is_one_line_whatever_it_quotes(tiny_dir: Path, tmp_path: Path) -> None:
    train = write_tsv(tmp_path / "t.tsv", rows(40), header=("te\x1b[31mxt", "label"))
    error = run("finetune", "--train", train, "--model", tiny_dir, "--out", tmp_path / "o", "--max-length", 24).error
    assert "\x1b" not in error
    assert r"te\x1b[31mxt" in error


def test_what_is_noted_and_what_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    from bertwright.errors import tell

    def warning(*_: object) -> None:
        tell("three texts were cut")
        warnings.simplefilter("default")
        warnings.warn("deprecated", DeprecationWarning, stacklevel=1)

    monkeypatch.setattr("bertwright.describe.model_table", warning)
    noted, warned = run("info", "x").err.splitlines()
    assert noted == "note: three texts were cut"
    assert warned.startswith("warning: deprecated (test_cli.py:")


# -------------------------------------------------------------------------------------------------------------- predict


def test_predict_takes_texts_given_here(tiny_run: Path) -> None:
    found = records(run("predict", tiny_run, "the good film", "你好", "", "--device", "cpu"))
    assert [record["text"] for record in found] == ["the good film", "你好", ""]
    assert found[0]["predicted"] == "1"
    assert found[2] == {"text": "", "predicted": None, "skipped": "empty"}


def test_predict_answers_every_line_of_standard_input(tiny_run: Path) -> None:
    lines = [
        b"the good film",
        b"",
        b"bad \xff\xfe",
        b"nul \x00",
        b"cat " * 100,
        "ein Wört\r".encode(),
        b"x" * (17 << 20),
        b"last",
    ]
    shown = run("predict", tiny_run, "-", "--device", "cpu", stdin=b"\n".join(lines))
    found = records(shown)
    assert [record["text"] for record in found] == [
        *("the good film", "", None, None, "cat " * 100, "ein Wört", None, "last"),
    ]
    assert [record.get("skipped") for record in found] == [
        *(None, "empty", "not UTF-8", "holds a NUL byte", None, None, "longer than 16 MiB", None),
    ]
    assert found[2]["where"] == "standard input:3"
    assert found[4]["cut"] == 78
    assert shown.err == "note: 8 rows: 4 skipped, 1 cut to the longest length\n"


def test_predict_keeps_the_order_of_a_long_stream(tiny_run: Path) -> None:
    lines = [f"{'good' if number % 3 else 'bad'} {number}" for number in range(10_000)]
    shown = run("predict", tiny_run, "-", "--device", "cpu", stdin="\n".join(lines).encode() + b"\n")
    assert [record["text"] for record in records(shown)] == lines
    assert shown.err == ""


def test_predict_reads_files_without_labels(tiny_run: Path, tmp_path: Path) -> None:
    texts = ["the good film", 'a "quoted", bad day', "two\nlines", ""]
    files = [
        write_csv(tmp_path / "a.csv", [[text] for text in texts], header=["text"]),
        write_jsonl(tmp_path / "a.jsonl", [{"text": text, "other": None} for text in texts]),
    ]
    try:
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.table({"text": texts}), tmp_path / "a.parquet")
        files.append(tmp_path / "a.parquet")
    except ImportError:
        pass
    expected = bertwright.load(tiny_run, device="cpu").predict(texts)
    for file in files:
        assert records(run("predict", tiny_run, "--input", file, "--device", "cpu")) == expected, file


def test_predict_says_how_to_read_a_file(tiny_run: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text('7;"a good; film"\n8;cold\n')
    how = ["--columns", "id, body", "--text", "body", "--delimiter", "semicolon", "--quoting", "csv"]
    found = records(run("predict", tiny_run, "--input", file, *how, "--device", "cpu"))
    assert [record["text"] for record in found] == ["a good; film", "cold"]


def test_predict_writes_a_file_whole_or_not_at_all(tiny_run: Path, tmp_path: Path) -> None:
    output = tmp_path / "deep" / "out.jsonl"
    shown = run("predict", tiny_run, "the good film", "--output", output, "--device", "cpu")
    assert (shown.code, shown.out) == (0, "")
    first = output.read_text()
    assert json.loads(first)["predicted"] == "1"
    broken = write_tsv(tmp_path / "b.tsv", [("one", "1"), ("two",)])
    error = run("predict", tiny_run, "--input", broken, "--output", output, "--device", "cpu").error
    assert error.startswith(f"{broken}:3: 1 columns where 2 are expected")
    assert output.read_text() == first
    assert [path.name for path in output.parent.iterdir()] == ["out.jsonl"]


def test_predict_writes_csv_that_reads_back(tiny_run: Path) -> None:
    texts = ["the good, film", 'say "bad"', "two\nlines", "", "cat " * 40]
    shown = run("predict", tiny_run, *texts, "--format", "csv", "--device", "cpu")
    table = list(csv.DictReader(io.StringIO(shown.out)))
    expected = bertwright.load(tiny_run, device="cpu").predict(texts)
    assert [row["text"] for row in table] == texts
    assert [row["predicted"] or None for row in table] == [answer["predicted"] for answer in expected]
    assert [row["skipped"] for row in table] == ["", "", "", "empty", ""]
    assert [row["cut"] for row in table] == ["", "", "", "", "18"]
    for row, answer in zip(table, expected, strict=True):
        if answer["predicted"] is not None:
            assert float(row["probability of 1"]) == answer["probabilities"]["1"]


@pytest.fixture(scope="module")
def pair_run(tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    table = [{"a": "good film", "b": "cat", "label": 1}, {"a": "cat", "b": "bad", "label": 0}] * 10
    options = {"train": write_jsonl(folder / "p.jsonl", table), "text": "a", "pair": "b", "out": folder / "run"}
    return finetune(QUICK, model=tiny_dir, console=Console(quiet=True), **options).out


def test_predict_takes_pairs_every_way(pair_run: Path, tmp_path: Path) -> None:
    expected = bertwright.load(pair_run, device="cpu").predict(["good film", "cat"], ["cat", "bad day"])
    given = run("predict", pair_run, "good film", "cat", "--pair", "cat", "--pair", "bad day", "--device", "cpu")
    assert records(given) == expected
    streamed = run("predict", pair_run, "-", "--device", "cpu", stdin=b"good film\tcat\ncat\tbad day\nno tab\n")
    assert records(streamed)[:2] == expected
    assert records(streamed)[2]["skipped"] == "no tab between two texts"
    file = write_tsv(tmp_path / "f.tsv", [("good film", "cat"), ("cat", "bad day")], header=("a", "second"))
    assert records(run("predict", pair_run, "--input", file, "--pair", "second", "--device", "cpu")) == expected
    assert run("predict", pair_run, "alone").error.startswith("text 1: this model takes pairs")
    assert run("predict", pair_run, "a", "b", "--pair", "c").error == "2 texts but 1 --pair; each text needs its own"
    assert run("predict", pair_run, "-", "--pair", "c").error.startswith("--pair goes with texts given here")


def test_predict_says_once_that_lines_are_pairs_where_no_recipe_does(pair_run: Path, tmp_path: Path) -> None:
    foreign = shutil.copytree(pair_run, tmp_path / "foreign")
    (foreign / "recipe.toml").unlink()
    lines = b"good film\tcat\ncat\tbad day\n"
    streamed = run("predict", foreign, "-", "--device", "cpu", stdin=lines)
    assert records(streamed) == records(run("predict", pair_run, "-", "--device", "cpu", stdin=lines))
    assert streamed.code == 0
    assert streamed.err.count("\n") == 1
    assert "standard input:1: holds a tab, so each line is read as a pair of texts" in streamed.err


# ----------------------------------------------------------------------------------------------- evaluate, info, tokenize


def test_evaluate_writes_beside_the_model_unless_told_where(tiny_run: Path, tmp_path: Path) -> None:
    model = shutil.copytree(tiny_run, tmp_path / "model")
    file = write_tsv(tmp_path / "unseen rows.tsv", rows(20, seed=5))
    shown = run("evaluate", model, file, "--device", "cpu")
    assert shown.code == 0, shown.err
    folder = model / "evaluation-unseen rows"
    assert {path.name for path in folder.iterdir()} == {"metrics.json", "predictions.jsonl"}
    assert shown.out.splitlines()[-1] == f"numbers, rows and plots are in {folder}"
    assert run("evaluate", model, file, "--out", tmp_path / "there", "--metric", "f1_macro", "--device", "cpu").code == 0
    assert json.loads((tmp_path / "there" / "metrics.json").read_text())["headline"]["metric"] == "f1_macro"
    assert run("evaluate", model, file, "--metric", "f2").error.startswith("--metric is 'f2'")


def test_info_of_a_run_and_of_a_checkpoint(tiny_run: Path, tiny_dir: Path) -> None:
    text = " ".join(run("info", tiny_run).out.replace("│", " ").split())
    metrics = json.loads((tiny_run / "metrics.json").read_text())["test"]["headline"]
    low, high = metrics["interval_95"]
    for shown in (
        "layers x width 2 x 16, 4 heads",
        "positions 48 tokens at most",
        "parts embeddings, encoder, pooler, classifier",
        "labels 0, 1",
        "text column text",
        "longest text 24 tokens",
        f"test accuracy {metrics['value']:.4f} (95% interval {low:.4f} to {high:.4f})",
    ):
        assert shown in text
    plain = run("info", tiny_dir)
    assert plain.code == 0
    assert "classifier" not in plain.out
    assert "labels" not in plain.out


def test_tokenize_shows_what_the_model_sees(tiny_dir: Path) -> None:
    shown = run("tokenize", "good cats", "the", "--model", tiny_dir)
    assert shown.code == 0
    table = [line.replace("│", " ").split() for line in shown.out.splitlines() if line.startswith("│")]
    tokenizer = bertwright.Tokenizer.from_directory(tiny_dir)
    ids = tokenizer.encode("good cats").input_ids
    assert table[:5] == [[tokenizer.token(i), str(i), "0", "1"] for i in ids]
    assert table[5:][-2:] == [["[PAD]", "0", "0", "0"]] * 2
    pair = run("tokenize", "good", "--pair", "bad day", "--max-length", "5", "--model", tiny_dir / "vocab.txt")
    assert "bad" in pair.out
    assert "1 tokens were cut" in pair.out


# ----------------------------------------------------------------------------------------------------------- how it ends


def test_a_terminated_command_ends_with_143(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("bertwright.describe.model_table", stop)
    assert run("info", "x") == Result(143, "", "stopped: interrupted\n")


def test_main_is_what_python_m_runs() -> None:
    found = subprocess.run([sys.executable, "-m", "bertwright", "--help"], capture_output=True, text=True, check=True)
    assert "Usage: bertwright" in found.stdout
    assert cli.main.__doc__


def start(*arguments: object, **options: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "bertwright", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, **options)


def test_a_reader_that_has_seen_enough_is_no_error(tiny_run: Path, tmp_path: Path) -> None:
    file = write_tsv(tmp_path / "long.tsv", [(f"a good film, number {number}",) for number in range(8000)], header=("text",))
    with start("predict", tiny_run, "--input", file, "--device", "cpu") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["text"] == "a good film, number 0"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_a_run_goes_on_when_nobody_reads_how_it_goes(tiny_dir: Path, data: Path, tmp_path: Path) -> None:
    typed = ("--model", tiny_dir, "--train", data, "--max-length", 24, "--epochs", 3, "--threads", 1)
    with start("finetune", *typed, "--out", tmp_path / "run") as process:
        assert process.stderr is not None
        assert process.stdout is not None
        process.stderr.readline()
        process.stderr.close()
        assert b"accuracy" in process.stdout.read()
    assert process.returncode == 0
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["interrupted"] is False


@pytest.mark.parametrize(("number", "seeds"), [(signal.SIGINT, 1), (signal.SIGTERM, 2)])
def test_ctrl_c_keeps_the_best_so_far_and_resume_ends_with_the_same_bits(
    tiny_dir: Path, data: Path, tmp_path: Path, number: int, seeds: int
) -> None:
    options = QUICK | {"model": str(tiny_dir), "train": str(data), "learning_rate": 1e-3, "save_every": 1000}
    options |= {"epochs": 20, "seeds": seeds}
    out = tmp_path / "stopped"
    typed = [part for name, value in options.items() for part in (flag(name), value)]
    with start("finetune", *typed, "--out", out) as process:
        assert process.stderr is not None
        begun = 0
        while begun < seeds:  # stopped in the last seed, with most of its epochs still to come
            begun += process.stderr.readline().startswith(b"epoch 2: ")
        process.send_signal(number)
        said = process.stderr.read().decode().splitlines()
    assert process.returncode == 128 + number
    assert said[-1] == f"stopped: {out} holds the best so far; go on with: bertwright finetune --resume --out {out}"
    assert "Traceback" not in "".join(said)
    assert bertwright.load(out).predict("the good film")[0]["predicted"] in ("0", "1")
    assert run("finetune", "--out", out, "--resume").code == 0  # the very command that was named
    whole = finetune(options, out=tmp_path / "whole", console=Console(quiet=True))
    assert (out / "model.safetensors").read_bytes() == (whole.out / "model.safetensors").read_bytes()
