"""A number for a text or a pair of texts: similarity, a rating, a grade (Devlin et al. 2019, appendix B.1: STS-B).

Shapes: B sequences.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Group, RenderableType
from torch import Tensor

from bertwright.arrays import FloatArray, IntArray
from bertwright.data.examples import Example
from bertwright.data.inputs import Inputs
from bertwright.data.splits import stratified_split
from bertwright.errors import MANY, BertwrightError, tell
from bertwright.evaluation.correlation import MEASURES, regression_metrics
from bertwright.evaluation.plots import plot_predicted
from bertwright.evaluation.report import per_source_table, scores_table
from bertwright.model import BertConfig, SequenceClassifier
from bertwright.tasks import labels as names
from bertwright.tasks.regularisation import values_apart
from bertwright.tasks.task import fine
from bertwright.tasks.texts import OfTexts, TextLoss
from bertwright.training.recipe import Recipe


@dataclass(frozen=True)
class Regression(OfTexts):
    """One number for each text, learned by its squared error.

    ``mean`` and ``deviation`` are those of the training scores: a fresh head begins at that mean, with weights of that
    size, so that scores of any scale are learned alike. Nothing of it remains outside the weights: what the model gives
    is the score itself.
    """

    mean: float = field(default=0.0, compare=False)
    deviation: float = field(default=1.0, compare=False)

    SUMMARY = "a number for each text, or for each pair of texts"
    OPTIONS = OfTexts.OPTIONS | {"r_drop"}
    METRICS: ClassVar = {
        "pearson": "Pearson correlation",
        "spearman": "Spearman correlation",
        "r_squared": "R squared",
    }
    PROBLEM = names.REGRESSION

    # ------------------------------------------------------------------------------------------- examples

    @classmethod
    def split(cls, examples: Sequence[Example], fraction: float, seed: int) -> tuple[list[int], list[int], str]:
        """Set examples aside at random."""
        inside, aside = stratified_split([None] * len(examples), fraction, seed)
        return inside, aside, "at random"

    def check(self, examples: Sequence[Example], recipe: Recipe, *, labelled: bool) -> None:
        """Raise BertwrightError for a pair in place of a text, or for a score that is no finite number."""
        super().check(examples, recipe, labelled=labelled)
        if labelled:
            targets(examples)

    def truth(self, example: Example) -> dict[str, Any]:
        """What an evaluation's record says of a labelled example."""
        return super().truth(example) | {"true": score(example)}

    # ----------------------------------------------------------------------------------- task and model

    @classmethod
    def learn(cls, examples: Sequence[Example], recipe: Recipe) -> Self:
        """Take the scale of the scores from training rows."""
        scores_B = targets(examples)
        if np.ptp(scores_B) == 0:
            raise BertwrightError(
                f"{examples[0].where}: all {len(examples)} training rows have the score {scores_B[0]:g}, so there is "
                "nothing to learn: does --label name the right column?"
            )
        values = np.unique(scores_B)
        if len(scores_B) >= MANY and len(values) == 2:
            low, high = values.tolist()
            tell(f"all training rows have the score {low:g} or {high:g}; if these are classes, give --task classification")
        return cls(float(scores_B.mean()), float(scores_B.std()))

    @classmethod
    def from_config(cls, config: Mapping[str, Any], where: str) -> Self:
        """Check that a saved ``config.json`` is of one number."""
        problem = names.problem_of(config)
        outputs = len(names.from_config(config, where))
        if problem != cls.PROBLEM or outputs != 1:
            raise BertwrightError(f"{where}: {problem} with {outputs} outputs; only regression with one can be loaded")
        return cls()

    def to_config(self) -> dict[str, Any]:
        """The fields that a saved ``config.json`` has for this task."""
        return super().to_config() | {"problem_type": self.PROBLEM} | names.to_config(("score",))

    def build(self, config: BertConfig, *, head_layers: int, head_size: int) -> SequenceClassifier:
        """The model, its head fresh: its outputs scatter around the mean of the training scores, on their scale."""
        model = SequenceClassifier(config, 1, head_layers=head_layers, head_size=head_size)
        with torch.no_grad():
            model.last.weight.mul_(self.deviation)
            model.last.bias.fill_(self.mean)
        return model

    def describe(self, inputs: Inputs) -> str:
        """The range, mean and deviation of the scores."""
        scores_B = targets(inputs.examples)
        return (
            f"scores: {scores_B.min():g} to {scores_B.max():g}, mean {scores_B.mean():.4g}, "
            f"standard deviation {scores_B.std():.4g}{self.describe_windows(inputs)}"
        )

    # ------------------------------------------------------------------------------------------ training

    def text_loss(self, examples: Sequence[Example], weights_C: FloatArray) -> TextLoss:
        """Squared error, in float32 or finer."""
        targets_B = torch.from_numpy(targets(examples))

        def losses(outputs_X1: Tensor, texts: IntArray) -> Tensor:
            outputs_X1 = fine(outputs_X1)
            return F.mse_loss(outputs_X1[:, 0], targets_B[torch.from_numpy(texts)].to(outputs_X1), reduction="none")

        return TextLoss(np.ones(len(examples)), losses, apart=values_apart)

    # ---------------------------------------------------------------------------- predictions and measures

    def scores(self, outputs_RC: FloatArray, inputs: Inputs) -> dict[str, float]:
        """Compute each metric that may pick the best epoch."""
        true_B, predicted_B = targets(inputs.examples), self.pooled(outputs_RC, inputs)[:, 0]
        return {name: measure(true_B, predicted_B) for name, measure in MEASURES.items()}

    def measure(self, outputs_RC: FloatArray, inputs: Inputs, headline: str) -> dict[str, Any]:
        """The full measurement of an evaluation."""
        sources = [example.source for example in inputs.examples]
        return regression_metrics(targets(inputs.examples), self.pooled(outputs_RC, inputs)[:, 0], headline, sources)

    def decode(self, outputs_RC: FloatArray, inputs: Inputs) -> list[dict[str, Any]]:
        """The score of each text."""
        values_B, windows = self.pooled(outputs_RC, inputs)[:, 0].tolist(), self.told_windows(inputs)
        return [{"predicted": value} | several for value, several in zip(values_B, windows, strict=True)]

    def report(self, metrics: Mapping[str, Any], title: str) -> RenderableType:
        """Correlations, errors and sources as tables."""
        titles = {
            **self.METRICS,
            "root_mean_squared_error": "root mean squared error",
            "mean_absolute_error": "mean absolute error",
        }
        parts: list[RenderableType] = [scores_table(metrics, titles, title)]
        if "correlation_note" in metrics:
            parts += ["", f"The correlations are {metrics['correlation_note']}."]
        if metrics.get("per_source"):
            parts += ["", per_source_table(metrics["per_source"], self.METRICS)]
        return Group(*parts)

    def draw(self, metrics: Mapping[str, Any], records: Sequence[Mapping[str, Any]], folder: Path) -> None:
        """Draw predicted against true scores."""
        true, predicted = ([float(record[name]) for record in records] for name in ("true", "predicted"))
        plot_predicted(true, predicted, folder / "scores.png")


def targets(examples: Sequence[Example]) -> FloatArray:
    """Return the score of each row, shape (B,); see :func:`score`."""
    return np.array([score(example) for example in examples], dtype=np.float64)


def score(example: Example) -> float:
    """Return the score of a row.

    Raises:
        BertwrightError: it is no finite number, with file and line.
    """
    text = example.label or ""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    # Python also reads 1_000 as a thousand, which in a file of data is rather a name.
    if not math.isfinite(value) or "_" in text:
        raise BertwrightError(f"{example.where}: the score {example.label!r} is no finite number; write it like 3.5")
    return value
