"""The recipe: one place for every option, strict about names, types and limits."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertwright.errors import BertwrightError
from bertwright.training.options import flag
from bertwright.training.recipe import Recipe, preset

FIELDS = dataclasses.fields(Recipe)


def test_the_defaults_are_valid_and_every_option_has_a_help_text_and_a_section() -> None:
    assert Recipe.of({}) == Recipe()
    for field in FIELDS:
        assert field.metadata["help"].endswith((".", "?")), field.name
        assert field.metadata["section"] in {"Model", "Data", "Training", "Machine", "Output"}
    assert flag("learning_rate") == "--learning-rate"


def test_later_sources_win() -> None:
    recipe = Recipe.of({"epochs": 2, "seed": 1, "clip": 0.5}, {"epochs": 3, "seed": 5}, {"epochs": 4})
    assert (recipe.epochs, recipe.seed, recipe.clip) == (4, 5, 0.5)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("", "no option 'lerning_rate'; did you mean 'learning_rate'?"),
        ("mine.toml", "mine.toml: no option 'lerning_rate'; did you mean 'learning_rate'?"),
    ],
)
def test_an_unknown_option_is_named_with_the_closest_known_one(where: str, message: str) -> None:
    with pytest.raises(BertwrightError) as caught:
        Recipe.of({"lerning_rate": 1.0}, where=where)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("epochs", "4", "a whole number"),
        ("epochs", 4.0, "a whole number"),
        ("epochs", True, "a whole number"),
        ("learning_rate", "fast", "a number"),
        ("learning_rate", False, "a number"),
        ("model", 3, "a text"),
        ("overwrite", 1, "true or false"),
        ("overwrite", "true", "true or false"),
        ("columns", 3, "a list of names"),
        ("columns", ["a", 3], "a list of names"),
        ("dropout", "none", "a number"),
        ("text", None, "a text"),
    ],
)
def test_a_wrong_type_is_refused_and_never_converted(name: str, value: object, wanted: str) -> None:
    with pytest.raises(BertwrightError) as caught:
        Recipe.of({name: value})
    assert str(caught.value) == f"{flag(name)} must be {wanted}, not {value!r}"


@pytest.mark.parametrize(
    ("name", "bad", "good", "message"),
    [
        ("batch_size", 0, 1, "--batch-size must be at least 1, not 0"),
        ("epochs", -1, 1, "--epochs must be at least 1, not -1"),
        ("max_length", 2, 3, "--max-length must be at least 3, not 2"),
        ("learning_rate", 0.0, 1e-9, "--learning-rate must be above 0, not 0.0"),
        ("learning_rate", float("nan"), 1.0, "--learning-rate must be a finite number, not nan"),
        ("learning_rate", float("inf"), 1e30, "--learning-rate must be a finite number, not inf"),
        ("validation_fraction", 0.0, 0.01, "--validation-fraction must be above 0, not 0.0"),
        ("validation_fraction", 0.95, 0.9, "--validation-fraction must be at most 0.9, not 0.95"),
        ("warmup", 1.5, 1.0, "--warmup must be at most 1, not 1.5"),
        ("dropout", 1.0, 0.0, "--dropout must be at most 0.99, not 1.0"),
        ("layer_decay", 0.0, 1e-9, "--layer-decay must be above 0, not 0.0"),
        ("layer_decay", 1.1, 1.0, "--layer-decay must be at most 1, not 1.1"),
        ("label_smoothing", 1.0, 0.99, "--label-smoothing must be at most 0.99, not 1.0"),
        ("r_drop", -0.1, 0.0, "--r-drop must be at least 0, not -0.1"),
        ("average", 1.0, 0.9999, "--average must be at most 0.99999, not 1.0"),
        ("reinit_layers", -1, 0, "--reinit-layers must be at least 0, not -1"),
        ("keep", "soups", "soup", "--keep is 'soups'; did you mean 'soup'? (known: best, soup)"),
        ("seed", 2**32, 2**32 - 1, "--seed must be at most 4294967295, not 4294967296"),
        (
            "schedule",
            "liner",
            "linear",
            "--schedule is 'liner'; did you mean 'linear'? (known: linear, cosine, constant, trapezoid)",
        ),
        ("quoting", "x", "csv", "--quoting is 'x' (known: auto, literal, csv)"),
    ],
)
def test_limits_are_checked_to_the_very_value(name: str, bad: Any, good: Any, message: str) -> None:
    assert getattr(Recipe.of({name: good}), name) == good
    with pytest.raises(BertwrightError) as caught:
        Recipe.of({name: bad})
    assert str(caught.value) == message


def test_what_python_users_hold_is_taken() -> None:
    recipe = Recipe.of(
        {"epochs": np.int64(3), "learning_rate": np.float32(0.5), "clip": 2, "train": Path("a/b.tsv"), "columns": "x, y ,z"}
    )
    assert (recipe.epochs, recipe.learning_rate, recipe.clip, recipe.train) == (3, 0.5, 2.0, str(Path("a/b.tsv")))
    assert [type(value) for value in (recipe.epochs, recipe.learning_rate, recipe.clip)] == [int, float, float]
    assert recipe.columns == ("x", "y", "z")


# A key in TOML may hold any text but lone surrogates.
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "model": texts,
            "train": texts,
            "columns": st.lists(texts).map(tuple),
            "delimiter": texts,
            "learning_rate": st.floats(1e-12, 1e12),
            "adam_epsilon": st.floats(5e-324, 1),
            "dropout": st.floats(0, 0.99),
            "seed": st.integers(0, 2**32 - 1),
            "steps": st.integers(1, 10**15),
            "tensorboard": st.booleans(),
        },
    )
)
def test_toml_gives_the_very_same_recipe_back(tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any]) -> None:
    recipe = Recipe.of(values)
    file = tmp_path_factory.getbasetemp() / "recipe.toml"
    file.write_text(recipe.to_toml(), encoding="utf-8", newline="")
    assert Recipe.of(Recipe.read(file)) == recipe


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"epochs = 3\nseed = = 4\n", "not a TOML file: Invalid value (at line 2, column 8)"),
        (b"model = '\xff'\n", "not a TOML file: 'utf-8' codec can't decode byte 0xff"),
        (b"epoch = 3\n", "no option 'epoch'; did you mean 'epochs'?"),
        (b"[training]\nepochs = 3\n", "no option 'training'"),
        (b"epochs = 0\n", "epochs must be at least 1, not 0"),
        (b"train = 2001-01-01\n", "train must be a text, not datetime.date(2001, 1, 1)"),
    ],
)
def test_a_bad_recipe_file_is_named_with_what_is_wrong(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_bytes(content)
    with pytest.raises(BertwrightError) as caught:
        Recipe.read(file)
    assert str(caught.value).startswith(f"{file}: {message}")


def test_a_recipe_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(BertwrightError, match=r"none\.toml: cannot read this recipe file: No such file"):
        Recipe.read(tmp_path / "none.toml")
    with pytest.raises(BertwrightError, match="cannot read this recipe file: Is a directory"):
        Recipe.read(tmp_path)


def test_the_book_preset_has_the_settings_of_the_chapter() -> None:
    recipe = Recipe.of(preset("book"))
    assert (recipe.max_length, recipe.batch_size, recipe.epochs, recipe.learning_rate) == (128, 32, 4, 2e-5)
    assert (recipe.adam_epsilon, recipe.weight_decay, recipe.warmup, recipe.schedule, recipe.clip) == (
        *(1e-8, 0.1, 0.0, "linear", 1.0),
    )
    assert (recipe.validation_fraction, recipe.split_seed, recipe.metric) == (0.1, 2018, "matthews_correlation")


def test_an_unknown_preset_is_named_with_the_known_ones() -> None:
    with pytest.raises(BertwrightError, match=r"no preset 'bok'; did you mean 'book'\? \(known: book\)"):
        preset("bok")


@pytest.mark.parametrize(
    ("values", "idle"),
    [
        ({}, []),
        ({"head_size": 64}, ["--head-size has no effect without --head-layers"]),
        ({"head_size": 64, "head_layers": 1}, []),
        ({"steps": 5, "epochs": 2}, ["--epochs has no effect beside --steps"]),
        ({"config": "tiny", "revision": "v1"}, ["--revision has no effect beside --config"]),
        (
            {"validation": "v.tsv", "validation_fraction": 0.2, "split_seed": 1},
            [
                "--validation-fraction has no effect beside --validation",
                "--split-seed has no effect beside --validation",
            ],
        ),
        ({"r_drop": 1.0, "dropout": 0.0}, ["--r-drop has no effect with --dropout 0"]),
        ({"r_drop": 1.0, "dropout": 0.1, "layer_decay": 0.9, "freeze": "first:1"}, []),
        ({"layer_decay": 0.9, "freeze": "encoder"}, ["--layer-decay has no effect with --freeze encoder"]),
        ({"reinit_layers": 1, "config": "tiny"}, ["--reinit-layers has no effect beside --config"]),
        ({"keep": "soup"}, ["--keep has no effect with one seed"]),
        ({"keep": "soup", "seeds": 2, "init_seed": 0}, []),
        ({"train": "a.jsonl", "columns": ("a",)}, ["--columns has no effect where no file is delimited text"]),
        ({"train": "a.parquet", "delimiter": ";"}, ["--delimiter has no effect where no file is delimited text"]),
        ({"train": "a.jsonl", "test": "b.csv", "quoting": "csv"}, []),
    ],
)
def test_options_without_effect_are_known(values: dict[str, Any], idle: list[str]) -> None:
    assert Recipe.of(values).without_effect() == idle
