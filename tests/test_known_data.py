"""Known data sets end to end: by name, from a directory and from a hub, on the command line and in Python."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

import bertwright
from bertwright import BertwrightError, Recipe
from bertwright.data.catalog import KNOWN
from bertwright.tasks import TASKS
from command_line import run
from hub_stand_in import HubStandIn, Repository
from tiny_model import QUICK, rows, write_tsv

pytestmark = pytest.mark.usefixtures("plotless")
SETTINGS = QUICK | {"epochs": 1, "batch_size": 16}
PAIRS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    # Folder, columns with t, p and l for text, pair and label, and the labels as they stand in the file.
    "mrpc": ("MRPC", ("l:Quality", "#1 ID", "#2 ID", "t:#1 String", "p:#2 String"), ("1", "0")),
    "qqp": ("QQP", ("id", "qid1", "qid2", "t:question1", "p:question2", "l:is_duplicate"), ("1", "0")),
    "qnli": ("QNLI", ("index", "t:question", "p:sentence", "l:label"), ("entailment", "not_entailment")),
    "rte": ("RTE", ("index", "t:sentence1", "p:sentence2", "l:label"), ("entailment", "not_entailment")),
    "wnli": ("WNLI", ("index", "t:sentence1", "p:sentence2", "l:label"), ("1", "0")),
    "sst2": ("SST-2", ("t:sentence", "l:label"), ("1", "0")),
    "cola": ("CoLA", ("gj04", "l:", "*", "t:"), ("1", "0")),
    "stsb": ("STS-B", ("index", "genre", "t:sentence1", "p:sentence2", "l:score"), ("4.500", "0.250", "1.000")),
}


def write_split(path: Path, columns: tuple[str, ...], labels: tuple[str, ...], count: int, seed: int, header: bool) -> None:
    """Rows of the tiny model's words, with a quote that encloses nothing in every text."""
    lines = []
    for number, (text, label) in enumerate(rows(count, seed, labels=(labels[0], labels[1]))):
        cells = {
            "t": f'"{text}',
            "p": f"{text} was",
            "l": labels[2] if label == labels[1] and number % 4 == 1 and labels[2:] else label,
        }
        lines.append([cells.get(column[0], str(number)) if column[1:2] == ":" else str(number) for column in columns])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tsv(path, lines, [column.split(":")[-1] for column in columns] if header else ())


def glue(root: Path, name: str) -> Path:
    folder, columns, labels = PAIRS[name]
    write_split(root / folder / "train.tsv", columns, labels, 60, 0, name != "cola")
    write_split(root / folder / "dev.tsv", columns, labels, 20, 1, name != "cola")
    return root


def mnli(root: Path) -> Path:
    columns, labels = ("index", "t:sentence1", "p:sentence2", "l:gold_label"), ("entailment", "neutral", "contradiction")
    for seed, (file, count) in enumerate({"train": 60, "dev_matched": 20, "dev_mismatched": 24}.items()):
        write_split(root / "MNLI" / f"{file}.tsv", columns, labels, count, seed, True)
    return root


def tune(model: Path, **options: Any) -> bertwright.Run:
    return bertwright.finetune(SETTINGS, model=model, console=Console(quiet=True), **options)


@pytest.mark.parametrize("name", PAIRS)
def test_each_of_glue_is_one_call(name: str, tiny_dir: Path, tmp_path: Path) -> None:
    if KNOWN[name].task not in TASKS:
        pytest.skip(f"the task {KNOWN[name].task} is not among those of this version")
    result = tune(tiny_dir, dataset=name, data=glue(tmp_path, name), out=tmp_path / "run", validation_fraction=0.2)
    assert (result.metrics["validation"]["examples"], result.metrics["test"]["examples"]) == (12, 20)
    names = dict(given.split("=") for given in KNOWN[name].reading.get("label_names", ()))
    if KNOWN[name].task == "classification":
        assert set(result.model.labels) == set(names.values())
        config = json.loads((tmp_path / "run" / "config.json").read_text())
        assert set(config["label2id"]) == set(names.values())
    first = json.loads((tmp_path / "run" / "test" / "predictions.jsonl").read_text().splitlines()[0])
    assert first["text"].startswith('"')  # quotes are literal
    assert ("pair" in first) == (name not in ("cola", "sst2"))
    again = bertwright.load(tmp_path / "run").evaluate(result.model.recipe.test or "")
    assert again.metrics == result.metrics["test"]


def test_the_command_gives_what_the_call_gives(tiny_dir: Path, tmp_path: Path) -> None:
    called = tune(tiny_dir, dataset="rte", data=glue(tmp_path, "rte"), out=tmp_path / "called")
    flags = [part for option, value in SETTINGS.items() for part in (f"--{option.replace('_', '-')}", value)]
    typed = run("finetune", "RTE", "--data", tmp_path, "--model", tiny_dir, *flags, "--out", tmp_path / "typed")
    assert typed.code == 0, typed.err
    assert "rte: does a sentence follow from another? (train: train.tsv, validation: a part of it set aside" in typed.err
    metrics = json.loads((tmp_path / "typed" / "metrics.json").read_text())
    assert metrics["test"] == called.metrics["test"]
    assert (tmp_path / "typed" / "model.safetensors").read_bytes() == (called.out / "model.safetensors").read_bytes()
    repeated = run("finetune", "--recipe", tmp_path / "typed" / "recipe.toml", "--out", tmp_path / "again")
    assert repeated.code == 0, repeated.err
    assert json.loads((tmp_path / "again" / "metrics.json").read_text())["test"] == metrics["test"]
    assert "The data: rte" in (tmp_path / "typed" / "README.md").read_text()
    wrong = run("finetune", "rte", "--dataset", "cola", "--out", tmp_path / "no")
    assert wrong.error == "rte and --dataset cola: name one data set"


def test_mnli_reports_matched_and_mismatched_everywhere(
    tiny_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    flags = [part for option, value in SETTINGS.items() for part in (f"--{option.replace('_', '-')}", value)]
    out = tmp_path / "run"
    shown = run(
        *("finetune", "mnli", "--data", mnli(tmp_path), "--model", tiny_dir, *flags),
        *("--seeds", 2, "--validation-fraction", 0.2, "--out", out),
    )
    assert shown.code == 0, shown.err
    metrics = json.loads((out / "metrics.json").read_text())
    assert (metrics["test"]["examples"], metrics["test-mismatched"]["examples"]) == (20, 24)
    assert metrics["test"]["accuracy"] != metrics["test-mismatched"]["accuracy"] or metrics["test"] != metrics["validation"]
    assert list(metrics["over_seeds"]) == ["validation", "test", "test-mismatched"]
    assert all("test-mismatched" in seed for seed in metrics["seeds"])
    mean = sum(seed["test-mismatched"]["accuracy"] for seed in metrics["seeds"]) / 2
    assert metrics["over_seeds"]["test-mismatched"]["accuracy"]["mean"] == pytest.approx(mean)
    assert json.loads((out / "test-mismatched" / "metrics.json").read_text()) == metrics["test-mismatched"]
    assert len((out / "test-mismatched" / "predictions.jsonl").read_text().splitlines()) == 24
    card = (out / "README.md").read_text()
    assert f"| test-mismatched | 24 | {metrics['test-mismatched']['accuracy']:.4f} |" in card
    assert shown.out.count("test-mismatched") == 1 + 4  # the heading of its report, and two seeds with their mean and sd
    assert max(cell_len(line) for line in shown.out.splitlines() if str(out) not in line) <= 80
    assert "test-mismatched" in run("info", out).out
    again = bertwright.load(out).evaluate(tmp_path / "MNLI" / "dev_mismatched.tsv")
    assert again.metrics == metrics["test-mismatched"]


def test_a_broken_row_of_qqp_is_left_out_and_told(tiny_dir: Path, tmp_path: Path) -> None:
    file = glue(tmp_path, "qqp") / "QQP" / "train.tsv"
    lines = file.read_text().splitlines()
    lines[5:5] = ["7\t8\t9\thow is", "the day?\twhat day is it?\t0"]
    file.write_text("\n".join(lines) + "\n")
    with pytest.warns(
        bertwright.BertwrightWarning, match=r"left out 2 rows of another number of columns than 6 \(lines 6, 7\)"
    ):
        result = tune(tiny_dir, dataset="qqp", data=tmp_path, out=tmp_path / "run", validation_fraction=0.2)
    assert result.metrics["validation"]["examples"] == 12  # a fifth of 60
    with pytest.raises(BertwrightError, match=r"train\.tsv:6: 4 columns where 6 are expected"):
        tune(tiny_dir, dataset="qqp", data=tmp_path, out=tmp_path / "strict", uneven_rows="error")


def test_further_test_sets_and_label_names_of_ones_own(tiny_dir: Path, tmp_path: Path) -> None:
    train, test = write_tsv(tmp_path / "train.tsv", rows(40)), write_tsv(tmp_path / "a.tsv", rows(10, seed=1))
    named = write_tsv(tmp_path / "b.tsv", rows(8, seed=2, labels=("good", "bad")))
    options = {"train": train, "also_test": f"a={test},b={named}", "label_names": "1=good,0=bad"}
    result = tune(tiny_dir, **options, out=tmp_path / "run")
    assert result.model.labels == ("bad", "good")
    assert "test" not in result.metrics
    assert [result.metrics[f"test-{name}"]["examples"] for name in "ab"] == [10, 8]
    assert Recipe.read(tmp_path / "run" / "recipe.toml")["also_test"] == [f"a={test}", f"b={named}"]
    held = run(
        "finetune",
        "--train",
        train,
        "--also-test",
        f"a={tmp_path / 'run' / 'a.tsv'}",
        "--out",
        tmp_path / "run",
        "--overwrite",
    )
    assert "holds what --also-test names" in held.error


def test_offline_without_data_one_line_says_what_to_do(
    tiny_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", no_network)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    said = run("finetune", "rte", "--model", tiny_dir, "--out", tmp_path / "run").error
    assert said == (
        "hub:nyu-mll/glue:rte:train: the hub cannot be reached (no route to host), and no copy is here; if you have its "
        "files, name their directory with --data: train.tsv and dev.tsv (there or in RTE), or the Parquet files of the "
        "hub's nyu-mll/glue"
    )
    assert not (tmp_path / "run.training").exists()
    assert not (tmp_path / "run").exists()


def test_tasks_lists_both_within_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = run("tasks")
    assert shown.code == 0, shown.err
    lines = shown.out.splitlines()
    assert max(map(cell_len, lines)) <= 80
    for name in (*TASKS, *KNOWN):
        assert any(line.startswith(f"{name} ") for line in lines), name
    assert any(line.split()[:4] == ["rte", "classification", "2,490", "277"] for line in lines)


def parquet(texts: list[tuple[str, str]]) -> bytes:
    import datasets

    features = datasets.Features(
        {
            "sentence1": datasets.Value("string"),
            "sentence2": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["entailment", "not_entailment"]),
        }
    )
    given = [{"sentence1": text, "sentence2": "is it", "label": int(label)} for text, label in texts]
    file = io.BytesIO()
    datasets.disable_progress_bars()
    datasets.Dataset.from_list(given, features=features).to_parquet(file)
    return file.getvalue()


def test_the_hub_is_read_through_its_own_library_once_and_pinned(
    tiny_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("datasets", reason="needs the hub-datasets extra (datasets)")
    card = "---\nconfigs:\n- config_name: rte\n  data_files:\n"
    for split in ("train", "validation", "test"):
        card += f"  - split: {split}\n    path: rte/{split}-*\n"
    files = {"README.md": f"{card}---\n".encode()}
    for split, count in {"train": 60, "validation": 20, "test": 4}.items():
        files[f"rte/{split}-00000-of-00001.parquet"] = parquet(rows(count, seed=count))
    # The libraries read their environment when they are imported: a process of its own.
    environment = os.environ | {
        "HF_HOME": str(tmp_path / "hf"), "XDG_CACHE_HOME": str(tmp_path / "cache"), "NO_PROXY": "127.0.0.1",
        "HF_HUB_OFFLINE": "0", "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }  # fmt: skip
    flags = [part for option, value in SETTINGS.items() for part in (f"--{option.replace('_', '-')}", str(value))]

    command = [sys.executable, "-m", "bertwright", "finetune", "rte", "--model", str(tiny_dir), *flags]
    with HubStandIn({"nyu-mll/glue": Repository({"main": files})}) as hub:
        environment["HF_ENDPOINT"] = hub.url
        first = subprocess.run(
            [*command, "--out", str(tmp_path / "first")], env=environment, capture_output=True, text=True, timeout=600
        )
        assert first.returncode == 0, first.stderr
        commit = Repository({"main": files}).commit("main")
        fetched = hub.fetched()
    assert any(name.startswith("train-") for name in fetched)
    assert first.stderr.count("downloading hub:nyu-mll/glue") == 2
    recipe = Recipe.read(tmp_path / "first" / "recipe.toml")
    assert recipe["train"] == f"hub:nyu-mll/glue@{commit}:rte:train"
    assert recipe["test"] == f"hub:nyu-mll/glue@{commit}:rte:validation"
    metrics = json.loads((tmp_path / "first" / "metrics.json").read_text())
    assert metrics["test"]["examples"] == 20
    assert list(metrics["test"]["per_class"]) == ["entailment", "not_entailment"]
    # The server is gone, but the recipe names the commit, whose rows are here.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    again = bertwright.finetune(recipe, out=tmp_path / "again", console=Console(quiet=True))
    assert json.loads(json.dumps(again.metrics["test"])) == metrics["test"]
    evaluated = bertwright.load(tmp_path / "first").evaluate(recipe["test"])
    assert json.loads(json.dumps(evaluated.metrics)) == metrics["test"]
