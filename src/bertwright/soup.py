"""One model out of several seeds' runs: the mean of their weights (Wortsman et al. 2022, arXiv 2203.05482)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

Weights = dict[str, Tensor]
Judge = Callable[[Weights], Mapping[str, float]]


@dataclass(frozen=True)
class Ingredient:
    """The best weights of one seed's run, and how good they are: the higher, the better."""

    seed: int
    score: float
    file: Path


@dataclass(frozen=True)
class Soup:
    """The mean of some seeds' weights, and what it scores on validation."""

    kind: str
    seeds: tuple[int, ...]
    validation: Mapping[str, float]
    weights: Weights

    def describe(self) -> dict[str, Any]:
        """All but the weights, as JSON."""
        return {"kind": self.kind, "seeds": list(self.seeds), "validation": dict(self.validation)}


def mean_weights(files: Sequence[Path]) -> Weights:
    """Return the mean of the weights in these files, added up in float64, as float32."""
    total: Weights = {}
    for file in files:
        for name, value in load_file(file).items():
            total[name] = total[name].add_(value) if name in total else value.to(torch.float64)
    return {name: (value / len(files)).float() for name, value in total.items()}


def uniform(ingredients: Sequence[Ingredient], judge: Judge) -> Soup:
    """The mean of all."""
    weights = mean_weights([one.file for one in ingredients])
    return Soup("uniform", tuple(one.seed for one in ingredients), judge(weights), weights)


def greedy(ingredients: Sequence[Ingredient], judge: Judge, score: Callable[[Mapping[str, float]], float]) -> Soup | None:
    """The mean of the best and of those of the others, best first, that do not make it worse; None: of no other."""
    best, *others = sorted(ingredients, key=lambda one: -one.score)
    chosen, highest, soup = [best], best.score, None
    for one in others:
        weights = mean_weights([other.file for other in (*chosen, one)])
        validation = judge(weights)
        if score(validation) >= highest:
            chosen.append(one)
            highest = score(validation)
            soup = Soup("greedy", tuple(other.seed for other in chosen), validation, weights)
    return soup


def best_of(
    soups: Sequence[Soup], ingredients: Sequence[Ingredient], score: Callable[[Mapping[str, float]], float]
) -> Soup | None:
    """The best soup if it is better than each of its ingredients; of equals the first."""
    highest, best = max((one.score for one in ingredients), default=-math.inf), None
    for soup in soups:
        if score(soup.validation) > highest:
            highest, best = score(soup.validation), soup
    return best
