"""Tasks whose head gives one row for a text or a pair: the text read as one sequence, or whole in several windows.

Shapes: B texts, W windows of all of them, C numbers that the head gives for each; a row X is either.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bertwright.arrays import FloatArray, IntArray
from bertwright.data import windows
from bertwright.data.inputs import Inputs
from bertwright.tasks.regularisation import weighted
from bertwright.tasks.task import Loss, Task
from bertwright.tokenizer import Tokenizer
from bertwright.training.recipe import Recipe

Losses = Callable[[Tensor, IntArray], Tensor]


@dataclass(frozen=True)
class TextLoss:
    """The loss of single texts: ``of`` takes outputs_XC and the text that each row is of, and returns losses_X.

    These losses have the weights of their texts, ``weight_B``, in them. ``even`` and ``apart`` are what Loss calls
    ``even`` and ``divergence``, a row each, ``apart`` without weights.
    """

    weight_B: FloatArray
    of: Losses
    even: Losses | None = None
    apart: Callable[[Tensor, Tensor], Tensor] | None = None


class OfTexts(Task):
    """A task of texts or pairs that may be longer than the model has positions."""

    OPTIONS = Task.OPTIONS | {"stride"}

    def encode(self, tokenizer: Tokenizer, examples: Sequence[Any], recipe: Recipe) -> Inputs:
        """Encode each text as one sequence that is cut, or with a stride as windows of the whole text."""
        if recipe.stride is None:
            return super().encode(tokenizer, examples, recipe)
        return windows.encode_windows(tokenizer, examples, recipe.max_length, recipe.stride)

    @abstractmethod
    def text_loss(self, examples: Sequence[Any], weights_C: FloatArray) -> TextLoss:
        """The loss of each of these examples, by what a head says of it or of one of its windows."""

    def loss(self, inputs: Inputs, weights_C: FloatArray) -> Loss:
        """That of each window, with what its text is to have; the windows of a text together weigh as much as one text."""
        counts_B = inputs.counts
        owner_W, share_W = np.repeat(np.arange(len(counts_B)), counts_B), np.repeat(1 / counts_B, counts_B)
        single = self.text_loss(inputs.examples, weights_C)

        def summed(losses: Losses) -> Losses:
            def total(outputs_XC: Tensor, units: IntArray) -> Tensor:
                losses_X = losses(outputs_XC, owner_W[units])
                return (losses_X * torch.from_numpy(share_W[units]).to(losses_X)).sum()

            return total

        return _of(single, single.weight_B[owner_W] * share_W, summed)

    def example_loss(self, inputs: Inputs, weights_C: FloatArray) -> Loss:
        """That of each text, by the mean of what the head says of its windows."""
        counts_B, single = inputs.counts, self.text_loss(inputs.examples, weights_C)

        def summed(losses: Losses) -> Losses:
            return lambda outputs_WC, units: losses(windows.pooled(outputs_WC, counts_B[units]), units).sum()

        return _of(single, single.weight_B, summed)

    def pooled(self, outputs_RC: FloatArray, inputs: Inputs) -> FloatArray:
        """Return outputs_BC: a row for each text, whatever the number of its windows."""
        return np.asarray(windows.pooled(torch.from_numpy(outputs_RC), inputs.counts).numpy())

    def describe_windows(self, inputs: Inputs) -> str:
        """How many texts are longer than a window, as the end of a line about them; nothing if none is."""
        long = inputs.counts[inputs.counts > 1]
        return f"; {len(long):,} longer texts in {int(long.sum()):,} windows" if len(long) else ""

    def told_windows(self, inputs: Inputs) -> list[dict[str, int]]:
        """What the prediction of each text says of its windows, where it was read in several."""
        return [{"windows": count} if count > 1 else {} for count in inputs.counts.tolist()]


def _of(single: TextLoss, weight_U: FloatArray, summed: Callable[[Losses], Losses]) -> Loss:
    return Loss(
        weight_U,
        summed(single.of),
        None if single.even is None else summed(single.even),
        None if single.apart is None else weighted(single.apart, weight_U),
    )
