"""Training units as batches: each epoch passes once over all of them, in an order of its own.

The order is a pure function of (seed, epoch), so that a resumed run needs nothing but its step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from bertwright.noise import Noise
from bertwright.telling import Progress
from bertwright.training.loop import Share

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Epochs:
    """How ``examples`` rows are cut: ``batch_size`` rows a batch, ``accumulate`` batches an optimizer step."""

    examples: int
    batch_size: int
    accumulate: int
    seed: int

    @property
    def steps(self) -> int:
        """Optimizer steps of one epoch; the last may be smaller."""
        return math.ceil(math.ceil(self.examples / self.batch_size) / self.accumulate)

    def batches(self, step: int) -> list[Rows]:
        """The rows of each batch of an optimizer step."""
        epoch, within = divmod(step, self.steps)
        order = _order(self.examples, self.seed, epoch)
        size = self.batch_size * self.accumulate
        rows = order[within * size : (within + 1) * size].copy()  # the cache keeps the order itself
        return [rows[i : i + self.batch_size] for i in range(0, len(rows), self.batch_size)]


@lru_cache(maxsize=1)  # asked for by every step; drawing a million rows anew takes 60 ms
def _order(examples: int, seed: int, epoch: int) -> Rows:
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, 1, 0, epoch])).permutation(examples)


@dataclass(frozen=True)
class Batch:
    """Rows of one batch, and the weight that all rows of its optimizer step have together."""

    rows: Rows
    step_weight: float


@dataclass(frozen=True)
class RowObjective:
    """An :class:`~bertwright.training.loop.Objective` over labelled rows, as functions of row numbers.

    ``loss_sum`` returns the weighted sum of the rows' losses, ``weight`` the sum of their weights: their quotient is
    the loss, however the rows are cut into batches.
    """

    epochs: Epochs
    loss_sum: Callable[[Rows, Noise], Tensor]
    weight: Callable[[Rows], float]
    tokens: Callable[[Rows], int]
    measure: Callable[[Progress], dict[str, float]]

    def batches(self, step: int, progress: float) -> Sequence[Batch]:
        """The batches of an optimizer step."""
        rows = self.epochs.batches(step)
        weight = sum(self.weight(part) for part in rows)
        return [Batch(part, weight) for part in rows]

    def share(self, batch: Batch, noise: Noise) -> Share:
        """The batch's share of the step's loss."""
        # Rows without weight, alone in a step, leave nothing to divide by.
        return Share(self.loss_sum(batch.rows, noise) / (batch.step_weight or 1.0), self.tokens(batch.rows), {})

    def validate(self, progress: Progress) -> dict[str, float]:
        """Measure the model as it is."""
        return self.measure(progress)

    def position(self) -> dict[str, Any]:
        """Nothing: the step says all."""
        return {}

    def seek(self, position: dict[str, Any]) -> None:
        """Nothing to do: the step says all."""
