"""What keeps few examples from being learned by heart: labels that are smoothed, and two passes that must agree.

Shapes: U training units, R rows that a head gives, C numbers of each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bertwright.arrays import FloatArray, IntArray
from bertwright.tasks.task import Loss, fine
from bertwright.training.recipe import Recipe


@dataclass(frozen=True)
class TrainingLoss:
    """A task's loss, with what a recipe adds to it in training; validation and reports have the loss alone.

    ``smoothing`` mixes into each label an equal share of every class (Szegedy et al. 2016, section 7). With
    ``agreement`` above 0 every unit is passed twice through the model, with other dropout masks; the loss is the mean of
    both passes', and ``agreement`` times how far their outputs lie apart (R-Drop, Liang et al. 2021, arXiv 2106.14448).
    """

    loss: Loss
    smoothing: float = 0.0
    agreement: float = 0.0

    @classmethod
    def of(cls, loss: Loss, recipe: Recipe, *, masks: bool = True) -> Self:
        """What ``recipe`` asks for, as far as the task has it; without dropout ``masks`` two passes are one and the same."""
        return cls(
            loss,
            smoothing=recipe.label_smoothing if loss.even is not None else 0.0,
            agreement=recipe.r_drop if masks and loss.divergence is not None else 0.0,
        )

    def rows(self, units: IntArray) -> IntArray:
        """``units`` or sequences as often as they are to be passed through the model, each time all of them in order."""
        return np.tile(units, 2) if self.agreement else units

    def sum(self, outputs_RC: Tensor, units: IntArray) -> Tensor:
        """The loss over ``units``, as a sum that their weights divide, of the outputs for :meth:`rows` of them."""
        if not self.agreement:
            return self._smoothed(outputs_RC, units)
        assert self.loss.divergence is not None
        first_RC, second_RC = outputs_RC.chunk(2)
        both = self._smoothed(first_RC, units) + self._smoothed(second_RC, units)
        return both / 2 + self.agreement * self.loss.divergence(first_RC, second_RC, units)

    def _smoothed(self, outputs_RC: Tensor, units: IntArray) -> Tensor:
        total = self.loss.sum(outputs_RC, units)
        if not self.smoothing:
            return total
        assert self.loss.even is not None
        return (1 - self.smoothing) * total + self.smoothing * self.loss.even(outputs_RC, units)


def classes_apart(first_RC: Tensor, second_RC: Tensor) -> Tensor:
    """Divergence_R of two outputs of which each row's softmax is a distribution: the mean of KL both ways.

    What is at minus infinity in both is no class of its row.
    """
    first_RC, second_RC = F.log_softmax(fine(first_RC), -1), F.log_softmax(fine(second_RC), -1)
    difference_RC = (first_RC - second_RC).masked_fill(first_RC.isneginf() & second_RC.isneginf(), 0.0)
    return ((first_RC.exp() - second_RC.exp()) * difference_RC).sum(-1) / 2


def labels_apart(first_RC: Tensor, second_RC: Tensor) -> Tensor:
    """Divergence_R of two outputs of which each number's sigmoid is a probability: KL both ways, the mean over all."""
    first_RC, second_RC = fine(first_RC), fine(second_RC)
    return ((first_RC.sigmoid() - second_RC.sigmoid()) * (first_RC - second_RC)).mean(-1) / 2


def values_apart(first_RC: Tensor, second_RC: Tensor) -> Tensor:
    """Divergence_R of two outputs that are values: the squared difference, summed over the numbers of a row."""
    return (fine(first_RC) - fine(second_RC)).square().sum(-1)


def weighted(
    apart: Callable[[Tensor, Tensor], Tensor],
    weight_R: FloatArray,
    rows: Callable[[IntArray], IntArray] | None = None,
) -> Callable[[Tensor, Tensor, IntArray], Tensor]:
    """The ``divergence`` of a Loss: that of each row with its weight.

    ``rows`` gives the rows of units, where these are not one row each.
    """
    weights = torch.from_numpy(weight_R)

    def divergence(first_RC: Tensor, second_RC: Tensor, units: IntArray) -> Tensor:
        apart_R = apart(first_RC, second_RC)
        which = units if rows is None else rows(units)
        return (apart_R * weights[torch.from_numpy(which)].to(apart_R)).sum()

    return divergence
