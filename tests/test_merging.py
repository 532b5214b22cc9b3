"""What wins over what: defaults, a known data set, a recipe or preset, and flags."""

from __future__ import annotations

import dataclasses
import types
from pathlib import Path
from typing import Any

import pytest

from bertwright import Recipe
from bertwright.errors import BertwrightError
from bertwright.merging import merged, with_rows
from bertwright.training.recipe import preset

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def rte(tmp_path: Path) -> Path:
    for name in ("train.tsv", "dev.tsv"):
        (tmp_path / name).write_text("index\tsentence1\tsentence2\tlabel\n0\ta\tb\tentailment\n")
    return tmp_path


def test_a_known_data_set_says_what_nobody_else_does(rte: Path) -> None:
    result = merged(None, {"dataset": "RTE", "data": rte, "out": "x"})
    recipe = result.recipe
    assert (recipe.dataset, recipe.data, recipe.task) == ("rte", str(rte), "classification")
    assert (recipe.text, recipe.pair, recipe.label) == ("sentence1", "sentence2", "label")
    assert (recipe.metric, recipe.max_length, recipe.batch_size) == ("accuracy", 256, Recipe.batch_size)
    assert result.about == (
        f"rte: does a sentence follow from another? (train: train.tsv, validation: a part of it set aside, "
        f"test: dev.tsv; of {rte})"
    )
    assert result.given == {"dataset": "rte", "data": rte, "out": "x"}


def test_flags_win_over_all_and_a_recipe_over_what_merely_suits(rte: Path) -> None:
    begin = {"metric": "f1_macro", "text": "sentence", "columns": ["sentence", "label"], "train": "cola.tsv", "epochs": 9}
    flags = {"dataset": "rte", "data": rte, "label": "mine", "max_length": 30}
    recipe = merged(begin, flags).recipe
    assert (recipe.metric, recipe.epochs) == ("f1_macro", 9)  # of the recipe
    assert (recipe.text, recipe.columns, recipe.train) == ("sentence1", (), str(rte / "train.tsv"))  # not of its data
    assert (recipe.label, recipe.max_length) == ("mine", 30)
    assert merged(preset("book"), flags).recipe.metric == "matthews_correlation"


def test_in_a_recipe_its_own_words_win_over_the_data_set_it_names(rte: Path) -> None:
    begin = {"dataset": "rte", "data": str(rte), "text": "sentence2", "test": "mine.tsv"}
    recipe = merged(begin, {}).recipe
    assert (recipe.text, recipe.pair, recipe.test) == ("sentence2", "sentence2", "mine.tsv")
    assert recipe.train == str(rte / "train.tsv")
    assert merged(Recipe.of(begin), {}).recipe == recipe


def test_a_recipe_that_a_run_wrote_says_the_same_again_also_of_another_directory(rte: Path, tmp_path: Path) -> None:
    wrote = merged(None, {"dataset": "rte", "data": rte, "epochs": 2, "max_length": 128}).recipe
    saved = {name: value for name, value in dataclasses.asdict(wrote).items() if value is not None}
    assert merged(saved, {}).recipe == wrote
    assert merged(wrote, {}).recipe == wrote
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("train.tsv", "dev.tsv"):
        (rte / name).rename(elsewhere / name)
    for begin in (saved, wrote):
        moved = merged(begin, {"data": elsewhere}).recipe
        there = {"data": str(elsewhere), "train": str(elsewhere / "train.tsv"), "test": str(elsewhere / "dev.tsv")}
        assert moved == dataclasses.replace(wrote, **there)  # type: ignore[arg-type]


def test_the_same_name_again_keeps_the_directory_and_another_one_does_not(rte: Path) -> None:
    begin = {"dataset": "rte", "data": str(rte)}
    assert merged(begin, {"dataset": "rte"}).recipe.data == str(rte)
    other = merged(begin, {"dataset": "sst2"}).recipe
    assert (other.data, other.train) == (None, "hub:nyu-mll/glue:sst2:train")


def test_epochs_take_the_place_of_the_steps_of_a_recipe_and_all_else_is_told() -> None:
    longer = merged({"train": "t.tsv", "steps": 3}, {"epochs": 2}).recipe
    assert (longer.steps, longer.epochs, longer.without_effect()) == (None, 2, [])
    idle = merged({"train": "t.tsv", "r_drop": 1.0}, {"dropout": 0.0}).recipe
    assert (idle.r_drop, idle.without_effect()) == (1.0, ["--r-drop has no effect with --dropout 0"])


def test_files_in_place_of_a_data_sets_own_are_told(rte: Path) -> None:
    given = {"dataset": "rte", "data": rte}
    told = merged(None, given | {"test": "mine.tsv", "validation": "aside.tsv"}).about
    assert told is not None
    assert told.endswith(f"test: dev.tsv; of {rte}); in place of its own: --validation aside.tsv, --test mine.tsv")
    assert str(merged(None, given | {"test": None}).about).endswith("); in place of its own: --test none")


def test_a_model_that_a_known_data_set_brings_is_told(tmp_path: Path) -> None:
    for part in ("train", "dev", "test"):
        (tmp_path / f"weiboNER_2nd_conll.{part}").write_text("北0\tB-GPE.NAM\n京1\tI-GPE.NAM\n\n", encoding="utf-8")
    given = {"dataset": "weibo_ner", "data": str(tmp_path), "out": str(tmp_path / "run")}
    hint = "; starts from bert-base-chinese, unless --model names another"
    assert str(merged(None, given).about).endswith(hint)
    for own in ({"model": "mine"}, {"model": "bert-base-chinese"}, {"config": "tiny", "tokenizer": "mine"}):
        assert hint not in str(merged(None, given | own).about)


def test_steps_take_the_place_of_the_epochs_of_a_recipe() -> None:
    begin = {"train": "t.tsv", "epochs": 4}
    for recipe in (begin, Recipe.of(begin)):
        shorter = merged(recipe, {"steps": 3}).recipe
        assert (shorter.steps, shorter.epochs, shorter.without_effect()) == (3, None, [])
        both = merged(recipe, {"steps": 3, "epochs": 2}).recipe
        assert both.without_effect() == ["--epochs has no effect beside --steps"]


def test_what_has_no_effect_beside_what_was_asked_for_is_left_out(rte: Path) -> None:
    assert merged(None, {"dataset": "banking77", "steps": 3}).recipe.epochs == Recipe.epochs
    assert merged(None, {"dataset": "rte"}).recipe.quoting == Recipe.quoting  # of rows of the hub
    for given in ({"dataset": "mnli", "validation": "mine.tsv", "steps": 3}, {"dataset": "qqp"}):
        assert merged(None, given).recipe.without_effect() == []
    random = {"dataset": "chnsenticorp", "config": "tiny"}
    assert merged(None, {"dataset": "chnsenticorp"}).recipe.model == "bert-base-chinese"
    assert merged(None, random).recipe.model == Recipe.model


def test_a_resumed_run_asks_for_no_files() -> None:
    given = {"dataset": "RTE", "data": "nowhere", "resume": True, "out": "x"}
    assert merged(None, given).given["dataset"] == "rte"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": "x"}, "--data goes with the name of a known data set"),
        ({"dataset": "rtt"}, "did you mean 'rte'"),
        ({"train": "a", "also_test": ["b.tsv"]}, "--also-test is 'b.tsv'; use name=path"),
        ({"train": "a", "also_test": ["a/b=b.tsv"]}, "--also-test is 'a/b=b.tsv'; use name=path"),
        ({"train": "a", "also_test": ["a=b", "a=c"]}, "--also-test names two test sets 'a'"),
        ({"train": "a", "label_names": ["0"]}, "--label-names has '0'; use label=name"),
        ({"train": "a", "label_names": ["0=a", "0=b"]}, "--label-names names the label '0' twice"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BertwrightError, match=message):
        merged(None, options)


def test_a_data_set_of_a_task_that_is_not_here_fails_when_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bertwright.tasks.TASKS", {"classification": "bertwright.tasks.classification:Classification"})
    with pytest.raises(BertwrightError, match="--task is 'tagging'"):
        merged(None, {"dataset": "conll2003"})


def test_sources_on_the_hub_are_pinned_together(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[str] = []

    def dataset_info(self: Any, name: str, **_: Any) -> Any:
        asked.append(name)
        return types.SimpleNamespace(sha=COMMIT)

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", dataset_info)
    monkeypatch.setattr("bertwright.merging.local_file", lambda source, say: tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    recipe = with_rows(merged(None, {"dataset": "mnli", "test": "mine.tsv"}).recipe, lambda line: None)
    assert asked == ["nyu-mll/glue"]
    assert recipe.train == f"hub:nyu-mll/glue@{COMMIT}:mnli:train"
    assert recipe.test == "mine.tsv"
    assert recipe.also_test == (f"mismatched=hub:nyu-mll/glue@{COMMIT}:mnli:validation_mismatched",)
    assert with_rows(recipe, lambda line: None) == recipe
    assert len(asked) == 1
