"""Classes of a text or a pair of texts: acceptability, sentiment, intent, entailment (Devlin et al. 2019, section 4.1).

Shapes: B sequences, C classes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from bertwright.data.examples import Example
from bertwright.errors import BertwrightError, did_you_mean
from bertwright.evaluation.metrics import METRICS, classification_metrics, matthews_per_batch, per_source
from bertwright.model import BertConfig, SequenceClassifier

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Classification:
    """Single-label classification into ``labels``; a label's index is its class."""

    labels: tuple[str, ...]

    # What a transformers config calls this head and its loss.
    architecture = "BertForSequenceClassification"
    problem_type = "single_label_classification"

    @classmethod
    def learn(cls, examples: Sequence[Example]) -> Classification:
        """Take the labels from training rows: numbers in numeric order, names in alphabetical order."""
        labels = {example.label for example in examples if example.label is not None}
        if len(labels) < 2:
            only = next(iter(labels), None)
            raise BertwrightError(
                f"{examples[0].where}: all {len(examples)} training rows have the label {only!r}; "
                "a classifier needs at least two classes: does --label name the right column?"
            )
        return cls(tuple(sorted(labels, key=_numeric_first)))

    @classmethod
    def from_config(cls, config: Mapping[str, Any], where: str) -> Classification:
        """Take the labels from a saved ``config.json``.

        ``transformers`` leaves id2label out where it is its default: two labels named LABEL_0 and LABEL_1.

        Raises:
            BertwrightError: id2label is damaged, or the model was trained for something other than single labels.
        """
        problem = config.get("problem_type") or cls.problem_type
        if problem != cls.problem_type:
            raise BertwrightError(f"{where}: problem_type is {problem!r}; only {cls.problem_type} can be loaded")
        names = config.get("id2label", {"0": "LABEL_0", "1": "LABEL_1"})
        if not isinstance(names, dict) or set(names) != {str(i) for i in range(len(names))}:
            raise BertwrightError(f"{where}: id2label is damaged: it must map 0, 1, … to names")
        labels = tuple(str(names[str(i)]) for i in range(len(names)))
        if len(labels) < 2:
            raise BertwrightError(f"{where}: id2label has {len(labels)} labels; a classifier needs at least two classes")
        if len(set(labels)) < len(labels):
            raise BertwrightError(f"{where}: id2label gives two classes one name; give each its own")
        return cls(labels)

    def to_config(self) -> dict[str, Any]:
        """The fields that a saved ``config.json`` has for this task."""
        return {
            "architectures": [self.architecture],
            "problem_type": self.problem_type,
            "id2label": {str(i): name for i, name in enumerate(self.labels)},
            "label2id": {name: i for i, name in enumerate(self.labels)},
        }

    def build(self, config: BertConfig, *, head_layers: int, head_size: int) -> SequenceClassifier:
        """The model for this task, with fresh weights."""
        return SequenceClassifier(config, len(self.labels), head_layers=head_layers, head_size=head_size)

    def targets(self, examples: Sequence[Example]) -> IntArray:
        """Return the class of each row; a label that training did not have is an error that names the row."""
        index = {name: i for i, name in enumerate(self.labels)}
        for example in examples:
            if example.label not in index:
                close = did_you_mean(example.label or "", index)
                known = ", ".join(self.labels[:8]) + (", …" if len(self.labels) > 8 else "")
                raise BertwrightError(
                    f"{example.where}: the label {example.label!r} does not occur in the training rows{close} "
                    f"(known: {known})"
                )
        return np.array([index[example.label or ""] for example in examples], dtype=np.int64)

    def class_weights(self, setting: str, targets: IntArray) -> FloatArray:
        """Loss weights per class: ``none``, ``balanced`` (rows / (classes * rows of the class)) or name=weight,…."""
        if setting == "none":
            return np.ones(len(self.labels))
        if setting == "balanced":
            counts = np.bincount(targets, minlength=len(self.labels))
            return len(targets) / (len(self.labels) * np.maximum(counts, 1))
        weights = np.ones(len(self.labels))
        for part in setting.split(","):
            name, _, value = part.rpartition("=")
            if name.strip() not in self.labels:
                raise BertwrightError(
                    f"--class-weights: no class {name.strip()!r}{did_you_mean(name.strip(), self.labels)}; "
                    "use none, balanced, or name=weight,name=weight"
                )
            try:
                weight = float(value)
            except ValueError:
                weight = math.nan
            if not (math.isfinite(weight) and weight > 0):
                raise BertwrightError(f"--class-weights: {value!r} is no weight for {name.strip()!r}; use a number above 0")
            weights[self.labels.index(name.strip())] = weight
        return weights

    def loss_sum(self, logits_BC: Tensor, targets_B: Tensor, weights_C: Tensor) -> Tensor:
        """Return the weighted sum of the rows' cross-entropies, in float32."""
        return F.cross_entropy(logits_BC.float(), targets_B, weights_C, reduction="sum")

    def quick_measure(self, logits_BC: FloatArray, targets_B: IntArray, weights_C: FloatArray) -> dict[str, float]:
        """What is computed after every epoch: the loss and each metric that may pick the best one.

        Raises:
            BertwrightError: a logit is not finite, as after a step that was far too long.
        """
        if not np.isfinite(logits_BC).all():
            raise BertwrightError(
                "the model's outputs are no longer finite numbers: training diverged. "
                "Try a lower --learning-rate, a longer --warmup or --precision float32"
            )
        logits, targets = torch.from_numpy(logits_BC), torch.from_numpy(targets_B)
        total = F.cross_entropy(logits, targets, torch.from_numpy(weights_C), reduction="sum")
        predicted = logits_BC.argmax(1)
        values = {name: metric(targets_B, predicted, len(self.labels)) for name, metric in METRICS.items()}
        return {"loss": float(total) / float(weights_C[targets_B].sum()), **values}

    def measure(self, logits_BC: FloatArray, examples: Sequence[Example], headline: str) -> dict[str, Any]:
        """The full measurement of an evaluation."""
        targets = self.targets(examples)
        # The loss picks epochs; a report is headed by something a reader can interpret.
        headline = "accuracy" if headline == "loss" else headline
        metrics = classification_metrics(targets, softmax(logits_BC), list(self.labels), headline=headline)
        predicted = logits_BC.argmax(1)
        metrics["loss"] = self.quick_measure(logits_BC, targets, np.ones(len(self.labels)))["loss"]
        metrics["matthews_per_batch"] = matthews_per_batch(targets, predicted)
        sources = [example.source for example in examples]
        if all(source is not None for source in sources):
            metrics["per_source"] = per_source(targets, softmax(logits_BC), [str(s) for s in sources], list(self.labels))
        return metrics

    def decode(self, logits_BC: FloatArray) -> list[dict[str, Any]]:
        """Turn logits into predictions by name: the label, its probability, all probabilities and the logits."""
        predictions = []
        for logits, probabilities in zip(logits_BC, softmax(logits_BC), strict=True):
            best = int(probabilities.argmax())
            predictions.append(
                {
                    "predicted": self.labels[best],
                    "probability": float(probabilities[best]),
                    "probabilities": dict(zip(self.labels, probabilities.tolist(), strict=True)),
                    "logits": logits.tolist(),
                }
            )
        return predictions

    def describe_balance(self, targets_B: IntArray) -> str:
        """How often each label occurs, most frequent first."""
        counts = sorted(Counter(targets_B.tolist()).items(), key=lambda pair: (-pair[1], pair[0]))
        shown = ", ".join(f"{self.labels[c]} ({n:,})" for c, n in counts[:6])
        return shown + (f", … ({len(counts)} labels)" if len(counts) > 6 else "")


def softmax(logits_BC: FloatArray) -> FloatArray:
    """Return the probabilities of each row."""
    shifted = np.exp(logits_BC - logits_BC.max(1, keepdims=True))
    return np.asarray(shifted / shifted.sum(1, keepdims=True))


def _numeric_first(label: str) -> tuple[int, float, str]:
    try:
        number = float(label)
    except ValueError:
        number = math.nan
    # "nan" is a name too: as a number it would have no place in an order.
    return (1, 0.0, label) if math.isnan(number) else (0, number, label)
