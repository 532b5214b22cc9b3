"""The public face: few names, quick to import, and the same numbers as the command line's to the last digit."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import bertwright
from bertwright import finetune
from bertwright.training.options import flag
from bertwright.training.recipe import Recipe
from command_line import run
from tiny_model import QUICK, rows, write_tsv

pytestmark = pytest.mark.usefixtures("plotless")


def test_every_public_name_is_there_and_says_what_it_is() -> None:
    for name in bertwright.__all__:
        assert getattr(bertwright, name).__doc__, name
    assert set(bertwright.__all__) == set(bertwright._HOME)
    with pytest.raises(AttributeError, match="module 'bertwright' has no attribute 'finetun'"):
        _ = bertwright.finetun


def test_no_public_name_is_hidden_by_the_module_that_it_comes_from() -> None:
    for name, home in bertwright._HOME.items():
        importlib.import_module(f"bertwright.{home}")
        assert not isinstance(getattr(bertwright, name), type(bertwright)), name


def test_the_package_is_typed_and_its_import_waits_for_nothing_heavy() -> None:
    assert (Path(bertwright.__file__).parent / "py.typed").exists()
    heavy = "{'torch', 'transformers', 'sklearn', 'matplotlib', 'numpy', 'pyarrow', 'tokenizers'}"
    for module in ("bertwright", "bertwright.cli"):
        code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert found.stdout == "[]\n", module


def test_predicting_waits_for_no_library_of_measures_and_pictures() -> None:
    heavy = "{'transformers', 'sklearn', 'matplotlib', 'pandas'}"
    names = "bertwright.predictor, bertwright.describe, bertwright.masked_lm, bertwright.finetuning"
    code = f"import sys, {names}; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def flags(options: dict[str, Any]) -> list[str]:
    """The command line of a recipe's options."""
    given = [[flag(name)] if value is True else [flag(name), str(value)] for name, value in options.items()]
    return [part for one in given for part in one]


def without_times(metrics: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metrics.items() if name != "training"}


@pytest.fixture(scope="module")
def both(tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two directories that the same run made: by the command line and by Python."""
    folder = tmp_path_factory.mktemp("both")
    options = QUICK | {
        "model": str(tiny_dir),
        "train": str(write_tsv(folder / "train.tsv", [(f"s{i % 2}", *row) for i, row in enumerate(rows(60))], header=())),
        "columns": "source,text,label",
        "source": "source",
        "class_weights": "balanced",
        "schedule": "cosine",
        "metric": "f1_macro",
    }
    typed = run("finetune", *flags(options), "--out", folder / "typed")
    assert typed.code == 0, typed.err
    finetune(options, out=folder / "called", console=Console(quiet=True))
    return folder / "typed", folder / "called"


def test_finetune_gives_the_same_bits_and_numbers(both: tuple[Path, Path]) -> None:
    typed, called = both
    same = {path.relative_to(typed): path.read_bytes() for path in typed.rglob("*") if path.is_file()}
    assert set(same) == {path.relative_to(called) for path in called.rglob("*") if path.is_file()}
    for file, content in same.items():
        if file.name in ("metrics.json", "recipe.toml", "history.jsonl"):
            continue  # they hold times and the directory's own name
        assert (called / file).read_bytes() == content, file
    for name in ("metrics.json", "validation/metrics.json"):
        first, second = (json.loads((folder / name).read_text()) for folder in both)
        assert without_times(first) == without_times(second), name
    first, second = (Recipe.read(folder / "recipe.toml") for folder in both)
    assert first | {"out": ""} == second | {"out": ""}


def test_evaluate_gives_the_same_numbers(both: tuple[Path, Path], tmp_path: Path) -> None:
    typed, called = both
    file = write_tsv(tmp_path / "test.tsv", rows(31, seed=1), header=("text", "label"))
    shown = run("evaluate", typed, file, "--columns", "", "--source", "", "--out", tmp_path / "e", "--device", "cpu")
    assert shown.code == 0, shown.err
    result = bertwright.load(called, device="cpu").evaluate(file, columns=(), source=None)
    assert json.loads((tmp_path / "e" / "metrics.json").read_text()) == result.metrics
    lines = (tmp_path / "e" / "predictions.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == result.predictions
    assert f"{result.metrics['accuracy']:.3f}" in shown.out


def test_predict_gives_the_same_numbers(both: tuple[Path, Path]) -> None:
    typed, called = both
    texts = [text for text, _ in rows(20, seed=2)] + ["", "a «wörd» 你好", "cat " * 40]
    shown = run("predict", typed, *texts, "--device", "cpu")
    assert shown.code == 0
    assert [json.loads(line) for line in shown.out.splitlines()] == bertwright.load(called, device="cpu").predict(texts)
