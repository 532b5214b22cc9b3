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
from bertwright.data.windows import encode_windows, pooled
from bertwright.errors import MANY, BertwrightError, tell
from bertwright.evaluation.bootstrap import by_source
from bertwright.evaluation.classes import classes_report
from bertwright.evaluation.metrics import METRICS, classification_metrics, matthews_per_batch, metrics_of
from bertwright.evaluation.plots import plot_confusion, plot_matthews_per_batch, plot_reliability
from bertwright.model import BertConfig, SequenceClassifier
from bertwright.tasks import labels as names
from bertwright.tasks.regularisation import classes_apart, weighted
from bertwright.tasks.task import Loss, Task, fine
from bertwright.tokenizer import Tokenizer
from bertwright.training.recipe import Recipe

FEW_ROWS = (
    8_000  # for training; RTE and CoLA, which have fewer, were better on validation after ten epochs (docs/small-data.md)
)


@dataclass(frozen=True)
class Classification(Task):
    """Single-label classification into ``classes``; a label's index is its class."""

    classes: tuple[str, ...]

    SUMMARY = "one label for each text, or for each pair of texts"
    ARCHITECTURE = "BertForSequenceClassification"
    PIPELINE = "text-classification"
    METRICS: ClassVar = {
        "accuracy": "accuracy",
        "f1_macro": "F1, macro",
        "matthews_correlation": "Matthews correlation",
        "f1": "F1 of the second of two classes",
    }
    OPTIONS = Task.OPTIONS | {"class_weights", "stride", "label_smoothing", "r_drop"}
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
        index = {name: i for i, name in enumerate(self.classes)}
        for example in examples:
            if example.label not in index:
                raise names.unknown(example.label, self.classes, example.where)
        return np.array([index[example.label or ""] for example in examples], dtype=np.int64)

    def encode(self, tokenizer: Tokenizer, examples: Sequence[Example], recipe: Recipe) -> Inputs:
        """Encode each text as one sequence that is cut, or with a stride as windows of the whole text."""
        if recipe.stride is None:
            return super().encode(tokenizer, examples, recipe)
        return encode_windows(tokenizer, examples, recipe.max_length, recipe.stride)

    def describe(self, inputs: Inputs) -> str:
        """How often each label occurs, and how many texts are longer than a window."""
        long = inputs.counts[inputs.counts > 1]
        split = f"; {len(long):,} longer texts in {int(long.sum()):,} windows" if len(long) else ""
        return f"labels: {names.balance(self.classes, self._counts(inputs))}{split}"

    def class_weights(self, setting: str, inputs: Inputs | None) -> FloatArray:
        """Loss weights of the classes."""
        counts_C = np.zeros(len(self.classes), dtype=np.int64) if inputs is None else self._counts(inputs)
        return names.weights(setting, self.classes, counts_C)

    def _counts(self, inputs: Inputs) -> IntArray:
        return np.bincount(self.targets(inputs.examples), minlength=len(self.classes))

    def loss(self, inputs: Inputs, weights_C: FloatArray) -> Loss:
        """Cross-entropy of each window, in float32 or finer; the windows of a text together weigh as much as one text."""
        counts = inputs.counts
        if len(inputs.table) == len(counts):  # a window is a text
            return self.example_loss(inputs, weights_C)
        targets, share = np.repeat(self.targets(inputs.examples), counts), np.repeat(1 / counts, counts)
        targets_W, share_W, weights = torch.from_numpy(targets), torch.from_numpy(share), torch.from_numpy(weights_C)

        def total(logits_WC: Tensor, units: IntArray, smoothing: float = 0.0) -> Tensor:
            which = torch.from_numpy(units)
            losses_W = _cross_entropy(logits_WC, targets_W[which], weights, "none", smoothing)
            return losses_W @ share_W[which].to(losses_W)

        weight_U = weights_C[targets] * share
        return Loss(weight_U, total, partial(total, smoothing=1.0), weighted(classes_apart, weight_U))

    def example_loss(self, inputs: Inputs, weights_C: FloatArray) -> Loss:
        """Cross-entropy of each text, in float32 or finer."""
        counts, targets = inputs.counts, self.targets(inputs.examples)
        targets_B, weights = torch.from_numpy(targets), torch.from_numpy(weights_C)

        def total(logits_WC: Tensor, units: IntArray, smoothing: float = 0.0) -> Tensor:
            logits_BC = pooled(logits_WC, counts[units])
            return _cross_entropy(logits_BC, targets_B[torch.from_numpy(units)], weights, "sum", smoothing)

        weight_U = weights_C[targets]
        return Loss(weight_U, total, partial(total, smoothing=1.0), weighted(classes_apart, weight_U))

    def _logits(self, outputs_RC: FloatArray, inputs: Inputs) -> FloatArray:
        """A row for each text, whatever the number of its windows."""
        return np.asarray(pooled(torch.from_numpy(outputs_RC), inputs.counts).numpy())

    def scores(self, outputs_RC: FloatArray, inputs: Inputs) -> dict[str, float]:
        """Compute each metric that may pick the best epoch."""
        targets_B, predicted_B = self.targets(inputs.examples), self._logits(outputs_RC, inputs).argmax(1)
        return {name: METRICS[name](targets_B, predicted_B, len(self.classes)) for name in self.metrics}

    def measure(self, outputs_RC: FloatArray, inputs: Inputs, headline: str) -> dict[str, Any]:
        """The full measurement of an evaluation."""
        targets, logits_BC = self.targets(inputs.examples), self._logits(outputs_RC, inputs)
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
        logits_BC = self._logits(outputs_RC, inputs)
        for logits, probabilities, windows in zip(logits_BC, softmax(logits_BC), inputs.counts.tolist(), strict=True):
            best = int(probabilities.argmax())
            predictions.append(
                {
                    "predicted": self.classes[best],
                    "probability": float(probabilities[best]),
                    "probabilities": dict(zip(self.classes, probabilities.tolist(), strict=True)),
                    "logits": logits.tolist(),
                }
                | ({"windows": windows} if windows > 1 else {})
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


def _cross_entropy(logits_BC: Tensor, targets_B: Tensor, weights_C: Tensor, reduction: str, smoothing: float) -> Tensor:
    logits_BC = fine(logits_BC)
    return F.cross_entropy(
        logits_BC, targets_B.to(logits_BC.device), weights_C.to(logits_BC), reduction=reduction, label_smoothing=smoothing
    )
