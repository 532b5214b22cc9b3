"""Classes of a text or a pair of texts: acceptability, sentiment, intent, entailment (Devlin et al. 2019, section 4.1).

Shapes: B sequences, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import RenderableType
from torch import Tensor

from bertwright.arrays import FloatArray, IntArray, softmax
from bertwright.data.examples import Example
from bertwright.data.inputs import Inputs
from bertwright.errors import MANY, BertwrightError, tell
from bertwright.evaluation.bootstrap import by_source
from bertwright.evaluation.classes import classes_report
from bertwright.evaluation.metrics import METRICS, classification_metrics, matthews_per_batch, metrics_of
from bertwright.evaluation.plots import plot_confusion, plot_matthews_per_batch, plot_reliability
from bertwright.model import BertConfig, SequenceClassifier
from bertwright.tasks import labels as names
from bertwright.tasks.regularisation import classes_apart
from bertwright.tasks.task import fine
from bertwright.tasks.texts import OfTexts, TextLoss
from bertwright.training.recipe import Recipe

FEW_ROWS = (
    8_000  # for training; RTE and CoLA, which have fewer, were better on validation after ten epochs (docs/small-data.md)
)


@dataclass(frozen=True)
class Classification(OfTexts):
    """Single-label classification into ``classes``; a label's index is its class."""

    classes: tuple[str, ...]

    SUMMARY = "one label for each text, or for each pair of texts"
    METRICS: ClassVar = {
        "accuracy": "accuracy",
        "f1_macro": "F1, macro",
        "matthews_correlation": "Matthews correlation",
        "f1": "F1 of the second of two classes",
    }
    OPTIONS = OfTexts.OPTIONS | {"class_weights", "label_smoothing", "r_drop"}
    PROBLEM = names.SINGLE_LABEL

    @classmethod
    def epochs(cls, rows: int) -> int:
        """More passes over few rows."""
        return 10 if rows < FEW_ROWS else super().epochs(rows)

    @classmethod
    def learn(cls, examples: Sequence[Example], recipe: Recipe) -> Self:
        """Take the labels from training rows: numbers by value, names by alphabet, renamed ones as what they were."""
        labels = {example.label for example in examples if example.label is not None}
        if len(labels) < 2:
            only = next(iter(labels), None)
            raise BertwrightError(
                f"{examples[0].where}: all {len(examples)} training rows have the label {only!r}; "
                "a classifier needs at least two classes: does --label name the right column?"
            )
        if len(examples) >= MANY and len(labels) > len(examples) / 2:
            tell(
                f"{examples[0].where}: {len(labels):,} labels in {len(examples):,} training rows; "
                "does --label name the right column?"
            )
        given = recipe.names_of_labels()
        classes = names.in_order(labels, given)
        names.tell_odd(classes)
        names.tell_unused(given, classes)
        return cls(classes)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], where: str) -> Self:
        """Take the labels from a saved ``config.json``."""
        problem = config.get("problem_type") or cls.PROBLEM
        if problem != cls.PROBLEM:
            raise BertwrightError(f"{where}: problem_type is {problem!r}; only {cls.PROBLEM} can be loaded")
        labels = names.from_config(config, where)
        if len(labels) < 2:
            raise BertwrightError(f"{where}: id2label has {len(labels)} labels; a classifier needs at least two classes")
        return cls(labels)

    def to_config(self) -> dict[str, Any]:
        """The fields that a saved ``config.json`` has for this task."""
        return super().to_config() | {"problem_type": self.PROBLEM} | names.to_config(self.classes)

    def build(self, config: BertConfig, *, head_layers: int, head_size: int) -> SequenceClassifier:
        """The model for this task, with fresh weights."""
        return SequenceClassifier(config, len(self.classes), head_layers=head_layers, head_size=head_size)

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self.classes

    @property
    def metrics(self) -> Mapping[str, str]:
        """F1 of one class only where there are two."""
        return {name: self.METRICS[name] for name in metrics_of(len(self.classes))}

    def check(self, examples: Sequence[Example], recipe: Recipe, *, labelled: bool) -> None:
        """Raise BertwrightError for a pair in place of a text, or for a label that training did not have."""
        super().check(examples, recipe, labelled=labelled)
        if labelled:
            self.targets(examples)

    def targets(self, examples: Sequence[Example]) -> IntArray:
        """Return the class of each row; a label that training did not have is an error that names the row."""
        return names.targets(examples, self.classes)

    def describe(self, inputs: Inputs) -> str:
        """How often each label occurs, and how many texts are longer than a window."""
        return f"labels: {names.balance(self.classes, self._counts(inputs))}{self.describe_windows(inputs)}"

    def class_weights(self, setting: str, inputs: Inputs | None) -> FloatArray:
        """Loss weights of the classes."""
        counts_C = np.zeros(len(self.classes), dtype=np.int64) if inputs is None else self._counts(inputs)
        return names.weights(setting, self.classes, counts_C)

    def _counts(self, inputs: Inputs) -> IntArray:
        return np.bincount(self.targets(inputs.examples), minlength=len(self.classes))

    def text_loss(self, examples: Sequence[Example], weights_C: FloatArray) -> TextLoss:
        """Cross-entropy, in float32 or finer."""
        targets = self.targets(examples)
        targets_B, weights = torch.from_numpy(targets), torch.from_numpy(weights_C)

        def losses(logits_XC: Tensor, texts: IntArray, smoothing: float = 0.0) -> Tensor:
            logits_XC = fine(logits_XC)
            targets_X = targets_B[torch.from_numpy(texts)].to(logits_XC.device)
            return F.cross_entropy(logits_XC, targets_X, weights.to(logits_XC), reduction="none", label_smoothing=smoothing)

        return TextLoss(weights_C[targets], losses, partial(losses, smoothing=1.0), classes_apart)

    def scores(self, outputs_RC: FloatArray, inputs: Inputs) -> dict[str, float]:
        """Compute each metric that may pick the best epoch."""
        targets_B, predicted_B = self.targets(inputs.examples), self.pooled(outputs_RC, inputs).argmax(1)
        return {name: METRICS[name](targets_B, predicted_B, len(self.classes)) for name in self.metrics}

    def measure(self, outputs_RC: FloatArray, inputs: Inputs, headline: str) -> dict[str, Any]:
        """The full measurement of an evaluation."""
        targets, logits_BC = self.targets(inputs.examples), self.pooled(outputs_RC, inputs)
        probabilities = softmax(logits_BC)
        metrics = classification_metrics(targets, probabilities, list(self.classes), headline=headline)
        predicted = logits_BC.argmax(1)
        metrics["matthews_per_batch"] = matthews_per_batch(targets, predicted)

        def scores(rows: IntArray) -> dict[str, float]:
            return {name: METRICS[name](targets[rows], predicted[rows], len(self.classes)) for name in self.metrics}

        return metrics | by_source([example.source for example in inputs.examples], scores)

    def decode(self, outputs_RC: FloatArray, inputs: Inputs) -> list[dict[str, Any]]:
        """Turn logits into predictions by name: the label, its probability, all probabilities and the logits.

        A text that was read in several windows says in how many.
        """
        predictions = []
        logits_BC = self.pooled(outputs_RC, inputs)
        for logits, probabilities, windows in zip(logits_BC, softmax(logits_BC), self.told_windows(inputs), strict=True):
            best = int(probabilities.argmax())
            predictions.append(
                {
                    "predicted": self.classes[best],
                    "probability": float(probabilities[best]),
                    "probabilities": dict(zip(self.classes, probabilities.tolist(), strict=True)),
                    "logits": logits.tolist(),
                }
                | windows
            )
        return predictions

    def table(self, records: Iterable[Mapping[str, Any]]) -> Iterator[list[Any]]:
        """Predictions as rows of a CSV file: a column for each class's probability."""
        first, last = ("text", "pair", "predicted", "probability"), ("skipped", "cut")
        yield [*first, *(f"probability of {label}" for label in self.classes), *last]
        for record in records:
            probabilities = record.get("probabilities", {})
            yield [
                *(record.get(name) for name in first),
                *(probabilities.get(label) for label in self.classes),
                *(record.get(name) for name in last),
            ]

    def report(self, metrics: Mapping[str, Any], title: str) -> RenderableType:
        """Scores, classes, sources and the confusion matrix as tables."""
        return classes_report(dict(metrics), title)

    def draw(self, metrics: Mapping[str, Any], records: Sequence[Mapping[str, Any]], folder: Path) -> None:
        """Draw confusion matrix, reliability, and Matthews correlation by batch."""
        plot_confusion(dict(metrics), folder / "confusion.png")
        plot_reliability(dict(metrics), folder / "reliability.png")
        plot_matthews_per_batch(metrics["matthews_per_batch"], metrics["matthews_correlation"], folder / "matthews.png")
