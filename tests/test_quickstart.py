"""The front door: it runs to its end, shows how good the model is, and what it says to type next works."""

from __future__ import annotations

import dataclasses
import io
import json
import shlex
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import bertwright
from bertwright import finetune
from bertwright.data import acceptability
from bertwright.data.acceptability import HELD_OUT, Sentence
from bertwright.predictor import Predictor
from bertwright.quickstart import quickstart
from bertwright.training import observers
from command_line import run
from tiny_model import write_tsv

pytestmark = pytest.mark.usefixtures("plotless")


def few(sentences: tuple[Sentence, ...]) -> tuple[Sentence, ...]:
    """The first pair of partners of each construction."""
    firsts = {sentence.construction: sentence.pair for sentence in reversed(sentences)}
    return tuple(sentence for sentence in sentences if firsts[sentence.construction] == sentence.pair)


@pytest.fixture
def small(tiny_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny model in place of MiniLM, and the first pair of each construction."""

    def less(seed: int) -> acceptability.AcceptabilityData:
        whole = acceptability.generate(seed)
        return dataclasses.replace(whole, **{f.name: few(getattr(whole, f.name)) for f in dataclasses.fields(whole)})

    def on_tiny(options: dict[str, Any], **more: Any) -> bertwright.Run:
        if "resume" not in options:
            assert options["model"] == "minilm"
            options = options | {"model": tiny_dir, "max_length": 48, "device": "cpu"}
        return finetune(options, **more)

    monkeypatch.setattr("bertwright.quickstart.generate", less)
    monkeypatch.setattr("bertwright.quickstart.finetune", on_tiny)
    monkeypatch.setenv("COLUMNS", "80")


def test_it_runs_to_its_end_and_the_next_commands_work(small: None, tmp_path: Path) -> None:
    out = tmp_path / "my quick start"
    shown = run("quickstart", "--out", out, "--epochs", "1", "--threads", "1")
    assert shown.code == 0, shown.err
    metrics = json.loads((out / "metrics.json").read_text())
    lines = shown.out.splitlines()
    table = {line.split("│")[1].strip(): line.split("│")[2:] for line in lines if line.startswith("│")}
    for title, split in (("known words, known constructions", "validation"), ("new words, known constructions", "test")):
        count, accuracy = (cell.strip() for cell in table[title][:2])
        assert (count, accuracy) == (str(metrics[split]["examples"]), f"{metrics[split]['accuracy']:.3f}")
    assert {construction.replace("_", " ") for construction in HELD_OUT} <= set(table)
    begin = lines.index("go on with:")
    commands = [shlex.split(line) for line in lines[begin + 1 :]]
    assert [command[:2] for command in commands] == [
        ["bertwright", name] for name in ("predict", "evaluate", "info", "finetune")
    ]
    for command in commands[:3]:
        assert run(*command[1:]).code == 0, command
    own = write_tsv(tmp_path / "your.tsv", [("a b", "x"), ("c d", "y")] * 10, header=("COLUMN", "kind"))
    replaced = {"your.tsv": str(own), "runs/yours": str(tmp_path / "yours")}
    last = [replaced.get(word, word) for word in commands[3][1:]]
    last[-3] = "kind"  # the second COLUMN, of the label
    tiny = ("--config", "tiny", "--tokenizer", str(out / "vocab.txt"), "--steps", "1")
    assert run(*last, *tiny).code == 0


@pytest.mark.filterwarnings("ignore:.* were cut:bertwright.BertwrightWarning")
def test_its_data_can_be_read_and_are_kept_beside_the_model(small: None, tmp_path: Path) -> None:
    made = quickstart(tmp_path / "q", epochs=1, threads=1, console=Console(file=io.StringIO()))
    assert not made.interrupted
    folder = tmp_path / "q-data"
    names = {"train.tsv", "validation.tsv", "new_words.tsv", "new_constructions.tsv"}
    assert {path.name for path in folder.iterdir()} == names
    for name in names:
        labels = {row.label for row in made.model.read(folder / name)}
        assert labels == {"acceptable", "unacceptable"}


def test_a_place_that_is_taken_is_told_before_anything_is_written(small: None, tmp_path: Path) -> None:
    (tmp_path / "q").mkdir()
    (tmp_path / "q" / "mine.txt").write_text("mine")
    assert run("quickstart", "--out", tmp_path / "q").error.startswith(f"{tmp_path / 'q'}: holds something already")
    assert run("quickstart", "--out", tmp_path / "q", "--epochs", "0").error == "--epochs must be at least 1, not 0"
    assert run("quickstart", "--out", tmp_path / "q" / "mine.txt" / "x").error.endswith("choose another --out")
    assert {path.name for path in tmp_path.rglob("*")} == {"q", "mine.txt"}


def test_it_resumes_nothing_but_itself(small: None, tiny_dir: Path, tmp_path: Path) -> None:
    assert "nothing to resume" in run("quickstart", "--out", tmp_path / "q", "--resume").error
    (tmp_path / "q.training").mkdir()
    (tmp_path / "q.training" / "recipe.toml").write_text('train = "mine.tsv"\n')
    refused = run("quickstart", "--out", tmp_path / "q", "--resume").error
    assert refused.endswith("no quickstart began this run; resume it with bertwright finetune")
    assert "give one of them" in run("quickstart", "--out", tmp_path / "q", "--resume", "--overwrite").error


def test_when_stopped_it_says_how_to_go_on(small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = observers.History.record

    def stop_after_a(kind: str) -> Callable[[observers.History, dict[str, Any]], None]:
        def recorded(self: observers.History, one: dict[str, Any]) -> None:
            record(self, one)
            if one["kind"] == kind:
                signal.raise_signal(signal.SIGINT)

        return recorded

    again = f"go on with: bertwright quickstart --resume --out {tmp_path / 'q'}"
    with monkeypatch.context() as patch:
        patch.setattr(observers.History, "record", stop_after_a("step"))
        shown = run("quickstart", "--out", tmp_path / "q", "--epochs", "2", "--threads", "1")
    assert shown.code == 130
    assert shown.err.splitlines()[-1] == f"stopped: no model yet, but its state is kept; {again}"
    assert f"an unfinished run; {again}; or" in run("quickstart", "--out", tmp_path / "q").error
    other_seed = run("quickstart", "--out", tmp_path / "q", "--resume", "--seed", "3")
    assert "--seed is 3, but the run began with 0" in other_seed.error
    with monkeypatch.context() as patch:
        patch.setattr(observers.History, "record", stop_after_a("validation"))
        shown = run("quickstart", "--out", tmp_path / "q", "--resume")
    assert shown.code == 130
    last = shown.err.splitlines()[-1]
    assert last.startswith(f"stopped: {tmp_path / 'q'} holds the best so far; go on with: bertwright quickstart --resume")
    assert bertwright.load(tmp_path / "q").labels == ("acceptable", "unacceptable")
    shown = run(*shlex.split(last.partition("go on with: bertwright ")[2]))
    assert shown.code == 0
    assert "new words, new constructions" in shown.out
    assert json.loads((tmp_path / "q" / "metrics.json").read_text())["interrupted"] is False
    assert not (tmp_path / "q.training").exists()


def test_minilm_learns_from_the_built_in_data(minilm_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of an epoch on the real checkpoint, through the very same door."""

    def four_steps(options: dict[str, Any], **more: Any) -> bertwright.Run:
        return finetune(options | {"epochs": None}, steps=4, **more)

    monkeypatch.setattr("bertwright.quickstart.finetune", four_steps)
    monkeypatch.setattr(Predictor, "evaluate", measured_on_few(Predictor.evaluate))
    page = io.StringIO()
    made = quickstart(tmp_path / "q", threads=1, console=Console(file=page, width=80))
    assert "starting from minilm; freshly initialised: classifier (2 tensors)" in page.getvalue()
    assert made.metrics["validation"]["loss"] < 0.75
    assert made.model.model.config.num_hidden_layers == 6


def measured_on_few(evaluate: Callable[..., Any]) -> Callable[..., Any]:
    """Judge on the first and last ten rows of a file: the tables need every file, but not every row."""

    def on_few(self: Predictor, data: Path, **columns: Any) -> Any:
        rows = list(self.read(data))
        return evaluate(self, rows[:10] + rows[-10:], **columns)

    return on_few
