"""What the options of a pretraining mean, and what is refused."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertwright.data.instances import OBJECTIVES
from bertwright.errors import BertwrightError
from bertwright.training.pretraining_recipe import Phase, PretrainingRecipe, at


def test_lengths_and_batches_may_change_on_the_way() -> None:
    recipe = PretrainingRecipe(max_length="128:0.9,512:0.1", batch_tokens="4096")
    assert recipe.lengths == (Phase(0.9, 128), Phase(1.0, 512))
    assert recipe.step_tokens == (Phase(1.0, 4096),)
    values = [at(recipe.lengths, progress) for progress in (0, 0.5, 0.8999, 0.9, 0.95, 1.0)]
    assert values == [128, 128, 128, 512, 512, 512]


@given(st.lists(st.tuples(st.integers(8, 512), st.integers(1, 20)), min_size=2, max_size=5))
def test_each_phase_has_its_part(parts: list[tuple[int, int]]) -> None:
    whole = sum(part for _, part in parts)
    recipe = PretrainingRecipe(max_length=", ".join(f"{value}:{part / whole:.9f}" for value, part in parts))
    counted = [at(recipe.lengths, (step + 0.5) / whole) for step in range(whole)]
    assert counted == [value for value, part in parts for _ in range(part)]


@pytest.mark.parametrize(
    ("text", "seconds"), [("20m", 1200), ("1h30m", 5400), ("90s", 90), ("2d", 172800), ("1d2h3m4s", 93784), (" 5m ", 300)]
)
def test_times(text: str, seconds: float) -> None:
    assert PretrainingRecipe(max_time=text).max_seconds == seconds


def test_without_a_time_there_is_no_end_by_the_clock() -> None:
    assert PretrainingRecipe().max_seconds == math.inf


@pytest.mark.parametrize(("text", "rates"), [("0.15", (0.15, 0.15)), ("0.3:0.15", (0.3, 0.15)), ("1", (1.0, 1.0))])
def test_masking_rates(text: str, rates: tuple[float, float]) -> None:
    assert PretrainingRecipe(masking_rate=text).masking_rates == rates


@pytest.mark.parametrize(
    ("option", "value", "read", "message"),
    [
        ("max_length", "long", "lengths", "--max-length is 'long'; give a number, or parts such as 128:0.9,512:0.1"),
        ("max_length", "128,512", "lengths", "--max-length is '128,512'; give a number"),
        ("max_length", "128:0.5", "lengths", "the parts sum to 0.5; make them sum to 1"),
        ("max_length", "128:0.5,512:0.6", "lengths", "the parts sum to 1.1; make them sum to 1"),
        ("max_length", "", "lengths", "--max-length is ''"),
        ("max_length", "4", "lengths", "4 is too short; give at least 8"),
        ("batch_tokens", "0", "step_tokens", "--batch-tokens is '0'"),
        ("batch_tokens", "-5", "step_tokens", "--batch-tokens is '-5'"),
        ("masking_rate", "0", "masking_rates", "--masking-rate is '0'; give a share such as 0.15"),
        ("masking_rate", "0.1:0.2:0.3", "masking_rates", "--masking-rate is '0.1:0.2:0.3'"),
        ("masking_rate", "1.5", "masking_rates", "--masking-rate is '1.5'"),
        ("max_time", "soon", "max_seconds", "--max-time is 'soon'; give a time such as 20m, 1h30m or 90s"),
        ("max_time", "", "max_seconds", "--max-time is ''"),
        ("max_time", "0m", "max_seconds", "--max-time is '0m'"),
        ("max_time", "20", "max_seconds", "--max-time is '20'"),
    ],
)
def test_what_cannot_be_read_is_named(option: str, value: str, read: str, message: str) -> None:
    given_: dict[str, Any] = {option: value}
    recipe = PretrainingRecipe(**given_)
    with pytest.raises(BertwrightError) as caught:
        getattr(recipe, read)
    assert message in str(caught.value)


def test_options_without_effect_are_told() -> None:
    recipe = PretrainingRecipe(steps=5, epochs=3, revision="main", micro_tokens=64, accumulate=2)
    assert recipe.without_effect() == [
        "--epochs has no effect beside --steps",
        "--revision has no effect without --model",
        "--micro-tokens has no effect beside --accumulate",
    ]
    assert PretrainingRecipe(max_time="5m", epochs=3).without_effect() == ["--epochs has no effect beside --max-time"]
    assert PretrainingRecipe().without_effect() == []


def test_it_survives_its_file(tmp_path: Any) -> None:
    recipe = PretrainingRecipe.of(
        {"config": "mini", "max_length": "128:0.9,512:0.1", "learning_rate": 2e-3, "whole_words": True}
    )
    (tmp_path / "pretraining.toml").write_text(recipe.to_toml())
    assert PretrainingRecipe.of(PretrainingRecipe.read(tmp_path / "pretraining.toml")) == recipe


def test_its_objectives_are_those_that_instances_are_drawn_for() -> None:
    (objective,) = (f for f in dataclasses.fields(PretrainingRecipe) if f.name == "objective")
    assert objective.metadata["choices"] == OBJECTIVES  # written out there, so that --help need not wait for torch


def test_numbers_are_taken_where_a_number_is_enough() -> None:
    recipe = PretrainingRecipe.of({"max_length": 64, "batch_tokens": 4096, "masking_rate": 0.2})
    assert (recipe.lengths, recipe.step_tokens, recipe.masking_rates) == ((Phase(1.0, 64),), (Phase(1.0, 4096),), (0.2, 0.2))
