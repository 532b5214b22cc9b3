"""Means of weights against sums by hand, and the greedy choice against a plain account of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from bertwright import soup
from bertwright.soup import Ingredient, Weights


def written(folder: Path, values: Sequence[float]) -> list[Path]:
    """Files of one weight each."""
    files = [folder / f"{number}.safetensors" for number in range(len(values))]
    for file, value in zip(files, values, strict=True):
        save_file({"w": torch.tensor([value, -value]), "b": torch.tensor(value)}, file)
    return files


def score(scores: Mapping[str, float]) -> float:
    return scores["accuracy"]


def nearness(weights: Weights) -> dict[str, float]:
    """Best where ``b`` is 1."""
    return {"accuracy": -abs(float(weights["b"]) - 1)}


def ingredients(folder: Path, values: Sequence[float]) -> list[Ingredient]:
    files = written(folder, values)
    return [Ingredient(10 + i, -abs(value - 1), files[i]) for i, value in enumerate(values)]


def test_the_mean_is_exact_to_the_last_bit_of_float32(tmp_path: Path) -> None:
    # Added up in float32, the ones would be lost.
    files = written(tmp_path, [2.0**24, 1.0, 1.0, 2.0])
    found = soup.mean_weights(files)
    assert found["w"].tolist() == [2**22 + 1, -(2**22) - 1]
    assert {name: value.dtype for name, value in found.items()} == {"w": torch.float32, "b": torch.float32}


def test_the_uniform_soup_is_of_all_in_their_order(tmp_path: Path) -> None:
    made = soup.uniform(ingredients(tmp_path, [3.0, 0.0, 1.5]), nearness)
    assert (made.kind, made.seeds, float(made.weights["b"])) == ("uniform", (10, 11, 12), 1.5)
    assert made.describe() == {"kind": "uniform", "seeds": [10, 11, 12], "validation": {"accuracy": -0.5}}


@pytest.mark.parametrize(
    ("values", "seeds", "mean"),
    [
        # 1.25 is best; with 0.5: 0.875, better; with 2 as well: 1.25, worse than that.
        ([2.0, 1.25, 0.5], (11, 12), 0.875),
        # An equally good mean is taken too, as the paper has it.
        ([0.5, 0.5], (10, 11), 0.5),
        # Nothing helps the best.
        ([1.0, 0.0, 3.0], None, None),
        ([1.0], None, None),
    ],
)
def test_the_greedy_soup_takes_what_does_not_make_it_worse(
    tmp_path: Path, values: list[float], seeds: tuple[int, ...] | None, mean: float | None
) -> None:
    made = soup.greedy(ingredients(tmp_path, values), nearness, score)
    assert (made and (made.seeds, float(made.weights["b"]))) == (seeds and (seeds, mean))


@given(st.lists(st.integers(-8, 16), min_size=1, max_size=6))
@settings(max_examples=30, deadline=None)
def test_greedy_is_never_worse_than_the_best_and_is_what_a_plain_account_gives(
    tmp_path_factory: pytest.TempPathFactory, quarters: list[int]
) -> None:
    values = [value / 4 for value in quarters]
    made = soup.greedy(ingredients(tmp_path_factory.mktemp("soup"), values), nearness, score)
    order = sorted(range(len(values)), key=lambda i: abs(values[i] - 1))
    chosen = order[:1]
    for i in order[1:]:
        before, after = (sum(values[j] for j in some) / len(some) for some in (chosen, [*chosen, i]))
        if abs(torch.tensor(after).item() - 1) <= abs(torch.tensor(before).item() - 1):
            chosen = [*chosen, i]
    assert (made.seeds if made is not None else (10 + order[0],)) == tuple(10 + i for i in chosen)
    if made is not None:
        assert score(made.validation) >= -abs(values[order[0]] - 1)


def test_a_soup_is_kept_only_where_it_is_better_than_every_seed(tmp_path: Path) -> None:
    equal = ingredients(tmp_path, [0.5, 0.5])
    as_good = [soup.uniform(equal, nearness)]
    assert soup.best_of(as_good, equal, score) is None
    apart = ingredients(tmp_path, [0.5, 1.5])
    made = [soup.uniform(apart, nearness), soup.greedy(apart, nearness, score)]
    found = [one for one in made if one is not None]
    assert [score(one.validation) for one in found] == [0, 0]
    assert soup.best_of(found, apart, score) is found[0]
    assert soup.best_of([], apart, score) is None
