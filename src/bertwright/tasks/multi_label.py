"""Any number of labels for a text or a pair of texts: topics, tags, moods; each label is a decision of its own.

Shapes: B sequences, C labels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Group, RenderableType
from torch import Tensor

from bertwright.arrays import BoolArray, FloatArray, IntArray, sigmoid
from bertwright.data.inputs import Inputs
from bertwright.data.labelled import LabelledText, read_labelled
from bertwright.data.splits import stratified_split
from bertwright.errors import MANY, BertwrightError, tell
from bertwright.evaluation.label_sets import HALF, SCORES, LabelSets, label_set_metrics, tuned_thresholds
from bertwright.evaluation.plots import plot_label_scores
from bertwright.evaluation.report import per_class_table, per_source_table, scores_table
from bertwright.model import BertConfig, SequenceClassifier
from bertwright.tasks import labels as names
from bertwright.tasks.regularisation import labels_apart
from bertwright.tasks.task import fine
from bertwright.tasks.texts import OfTexts, TextLoss
from bertwright.training.recipe import Recipe


@dataclass(frozen=True)
class MultiLabel(OfTexts):
    """Each of ``classes`` is given to a text or not, by a probability of its own and from its threshold on.

    ``thresholds`` of None are 0.5, and ``separator`` stands between labels in tables. The other two are of training
    alone: ``tuning`` is ``--thresholds``, and ``log_odds`` are those of each label among the training rows, where a fresh
    head begins: most labels are rare, and to learn that from a probability of 0.5 takes the first epochs.
    """

    classes: tuple[str, ...]
    thresholds: tuple[float, ...] | None = field(default=None, compare=False)
    tuning: str = field(default="half", compare=False)
    log_odds: tuple[float, ...] = field(default=(), compare=False)
    separator: str = field(default=Recipe.label_separator, compare=False)

    SUMMARY = "any number of labels for each text, or for each pair of texts"
    METRICS: ClassVar = {"f1_micro": "F1, micro", "f1_macro": "F1, macro", "subset_accuracy": "subset accuracy"}
    OPTIONS = OfTexts.OPTIONS | {"class_weights", "labels", "label_separator", "thresholds", "r_drop"}
    PROBLEM = names.MULTI_LABEL

    # ------------------------------------------------------------------------------------------- examples

    @classmethod
    def read(cls, path: Path, recipe: Recipe, *, labelled: bool) -> Iterator[LabelledText]:
        """Yield the examples of a file."""
        yield from read_labelled(path, cls.columns(recipe, labelled=labelled), recipe.label_separator)

    @classmethod
    def answer_columns(cls, recipe: Recipe) -> Mapping[str, Any]:
        """One column of labels, or one for each of them."""
        return {"labels": recipe.labels} if recipe.labels else super().answer_columns(recipe)

    @classmethod
    def split(cls, examples: Sequence[LabelledText], fraction: float, seed: int) -> tuple[list[int], list[int], str]:
        """Set examples aside at random."""
        inside, aside = stratified_split([None] * len(examples), fraction, seed)
        return inside, aside, "at random"

    def check(self, examples: Sequence[LabelledText], recipe: Recipe, *, labelled: bool) -> None:
        """Raise BertwrightError for a pair in place of a text, or for a label that training did not have."""
        super().check(examples, recipe, labelled=labelled)
        if labelled:
            self.targets(examples)

    # ----------------------------------------------------------------------------------- task and model

    @classmethod
    def learn(cls, examples: Sequence[LabelledText], recipe: Recipe) -> Self:
        """Take the labels from ``--labels``, or those that training rows have: numbers, then names, in order.

        Raises:
            BertwrightError: both ``--label`` and ``--labels`` say where they are.
        """
        if recipe.labels and recipe.label != Recipe.label:
            raise BertwrightError("--label and --labels both say where the labels are: give one of them")
        labels = {label for example in examples for label in example.labels or ()}
        occurring = names.in_order(labels, recipe.names_of_labels())
        classes = tuple(dict.fromkeys(map(cls.columns(recipe).called, recipe.labels))) or occurring
        names.tell_unused(recipe.names_of_labels(), classes)
        if not classes:
            raise BertwrightError(
                f"{examples[0].where}: none of the {len(examples)} training rows has a label; "
                "does --label name the right column?"
            )
        task = cls(classes, separator=recipe.label_separator, tuning=recipe.thresholds)
        counts_C = task.targets(examples).sum(0)
        if never := [name for name, count in zip(classes, counts_C.tolist(), strict=True) if not count]:
            tell(f"--labels: no training row has {', '.join(never)[:200]}, so there is nothing to learn it from")
        if len(examples) >= MANY and len(classes) > 1 and all(len(example.labels or ()) == 1 for example in examples):
            tell(_each_has_one(classes, "" if recipe.labels else recipe.label_separator))
        positive_C = counts_C * task.positive_weights(recipe.class_weights, counts_C, len(examples))
        odds_C = (positive_C + 0.5) / (len(examples) - counts_C + 0.5)  # half an example more, that none be 0
        return dataclasses.replace(task, log_odds=tuple(np.log(odds_C).tolist()))

    @classmethod
    def from_config(cls, config: Mapping[str, Any], where: str) -> Self:
        """Take labels and thresholds from a saved ``config.json``; one of ``transformers`` has no thresholds."""
        problem = names.problem_of(config)
        if problem != cls.PROBLEM:
            raise BertwrightError(f"{where}: problem_type is {problem!r}; only {cls.PROBLEM} can be loaded")
        classes = names.from_config(config, where)
        separator = config.get("label_separator", Recipe.label_separator)
        if not isinstance(separator, str) or not separator:
            raise BertwrightError(f"{where}: label_separator is {separator!r}; make it a text, such as ','")
        found = config.get("thresholds")
        if found is None:
            return cls(classes, separator=separator)
        values = found if isinstance(found, Mapping) and found.keys() == set(classes) else {}
        if not values or not all(isinstance(value, int | float) and 0 <= value <= 1 for value in values.values()):
            raise BertwrightError(f"{where}: thresholds is damaged: it must map each label to a number from 0 to 1")
        return cls(classes, tuple(float(values[name]) for name in classes), separator=separator)

    def to_config(self) -> dict[str, Any]:
        """The fields that a saved ``config.json`` has for this task; ``transformers`` keeps the last two unread."""
        thresholds = dict(zip(self.classes, self._thresholds_C().tolist(), strict=True))
        config = super().to_config() | {"problem_type": self.PROBLEM} | names.to_config(self.classes)
        return config | {"thresholds": thresholds, "label_separator": self.separator}

    def build(self, config: BertConfig, *, head_layers: int, head_size: int) -> SequenceClassifier:
        """The model, its head fresh: its first probabilities are about as high as each label is frequent."""
        model = SequenceClassifier(config, len(self.classes), head_layers=head_layers, head_size=head_size)
        if self.log_odds:
            with torch.no_grad():
                model.last.bias.copy_(torch.tensor(self.log_odds))
        return model

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the labels."""
        return self.classes

    def targets(self, examples: Sequence[LabelledText]) -> BoolArray:
        """Return which labels each row has, shape (B, C); a label that training did not have names the row."""
        index = {name: i for i, name in enumerate(self.classes)}
        targets_BC = np.zeros((len(examples), len(self.classes)), dtype=np.bool_)
        for row, example in enumerate(examples):
            if example.labels is None:
                raise BertwrightError(f"{example.where}: the labels are missing; a row without labels has an empty list")
            for label in example.labels:
                if label not in index:
                    raise names.unknown(label, self.classes, example.where)
                targets_BC[row, index[label]] = True
        return targets_BC

    def describe(self, inputs: Inputs) -> str:
        """How often each label occurs, and how many a text has."""
        targets_BC = self.targets(inputs.examples)
        without = int((~targets_BC.any(1)).sum())
        return (
            f"labels: {names.balance(self.classes, targets_BC.sum(0))}; {targets_BC.sum() / len(targets_BC):.2f} a row"
            + (f", {without:,} rows have none" if without else "")
            + self.describe_windows(inputs)
        )

    # ------------------------------------------------------------------------------------------ training

    def class_weights(self, setting: str, inputs: Inputs | None) -> FloatArray:
        """How much each label counts where it is true."""
        rows = [] if inputs is None else inputs.examples
        return self.positive_weights(setting, self.targets(rows).sum(0), len(rows))

    def positive_weights(self, setting: str, counts_C: IntArray, rows: int) -> FloatArray:
        """Weights by ``--class-weights``; ``balanced`` is rows without the label by rows with it, 1 where none has it."""
        if setting == "balanced":
            return np.where(counts_C > 0, (rows - counts_C) / np.maximum(counts_C, 1), 1.0)
        return names.weights(setting, self.classes, counts_C)

    def text_loss(self, examples: Sequence[LabelledText], weights_C: FloatArray) -> TextLoss:
        """Binary cross-entropy, the mean over labels, in float32 or finer; weights are of true labels alone."""
        all_BC, weights = torch.from_numpy(self.targets(examples)), torch.from_numpy(weights_C)

        def losses(logits_XC: Tensor, texts: IntArray) -> Tensor:
            logits_XC = fine(logits_XC)
            targets_XC = all_BC[torch.from_numpy(texts)].to(logits_XC)
            return F.binary_cross_entropy_with_logits(
                logits_XC, targets_XC, pos_weight=weights.to(logits_XC), reduction="none"
            ).mean(1)

        return TextLoss(np.ones(len(examples)), losses, apart=labels_apart)

    # ---------------------------------------------------------------------------- predictions and measures

    def tuned(self, outputs_RC: FloatArray, inputs: Inputs) -> Self:
        """The same task with the thresholds that give the best F1 on these examples, as ``--thresholds`` says."""
        if self.tuning == "half":
            return self
        per_label = self.tuning == "per-label"
        probabilities_BC = sigmoid(self.pooled(outputs_RC, inputs))
        thresholds_C = tuned_thresholds(self.targets(inputs.examples), probabilities_BC, per_label=per_label)
        return dataclasses.replace(self, thresholds=tuple(thresholds_C.tolist()))

    def _thresholds_C(self) -> FloatArray:
        return np.array(self.thresholds or (HALF,) * len(self.classes))

    def scores(self, outputs_RC: FloatArray, inputs: Inputs) -> dict[str, float]:
        """Compute each metric that may pick the best epoch."""
        probabilities_BC = sigmoid(self.pooled(outputs_RC, inputs))
        sets = LabelSets(self.targets(inputs.examples), probabilities_BC >= self._thresholds_C())
        return {name: score(sets, np.arange(len(probabilities_BC))) for name, score in SCORES.items()}

    def measure(self, outputs_RC: FloatArray, inputs: Inputs, headline: str) -> dict[str, Any]:
        """The full measurement of an evaluation."""
        sources = [example.source for example in inputs.examples]
        true_BC, probabilities_BC = self.targets(inputs.examples), sigmoid(self.pooled(outputs_RC, inputs))
        return label_set_metrics(true_BC, probabilities_BC, self._thresholds_C(), self.classes, headline, sources)

    def decode(self, outputs_RC: FloatArray, inputs: Inputs) -> list[dict[str, Any]]:
        """The labels of each text, most probable first, all probabilities and the logits."""
        thresholds_C = self._thresholds_C()
        predictions = []
        logits_BC = self.pooled(outputs_RC, inputs)
        for logits_C, probabilities_C, windows in zip(logits_BC, sigmoid(logits_BC), self.told_windows(inputs), strict=True):
            given = [c for c in np.argsort(-probabilities_C, kind="stable") if probabilities_C[c] >= thresholds_C[c]]
            predictions.append(
                {
                    "predicted": [self.classes[c] for c in given],
                    "probabilities": dict(zip(self.classes, probabilities_C.tolist(), strict=True)),
                    "logits": logits_C.tolist(),
                }
                | windows
            )
        return predictions

    def table(self, records: Iterable[Mapping[str, Any]]) -> Iterator[list[Any]]:
        """Predictions as rows of a CSV file: labels as training reads them, and a column for each one's probability."""
        if mixed := [label for label in self.classes if self.separator in label]:
            tell(
                f"the label {mixed[0]!r} holds {self.separator!r}, which stands between the labels of a CSV file too; "
                "--format jsonl keeps them apart"
            )
        last = ("skipped", "cut")
        yield ["text", "pair", "predicted", *(f"probability of {label}" for label in self.classes), *last]
        for record in records:
            predicted, probabilities = record.get("predicted"), record.get("probabilities", {})
            yield [
                record.get("text"),
                record.get("pair"),
                None if predicted is None else self.separator.join(predicted),
                *(probabilities.get(label) for label in self.classes),
                *(record.get(name) for name in last),
            ]

    def report(self, metrics: Mapping[str, Any], title: str) -> RenderableType:
        """Scores, labels and sources as tables."""
        titles = {**self.METRICS, "precision_micro": "precision, micro", "recall_micro": "recall, micro"}
        counts = {"labels_per_example": "labels a text", "predicted_per_example": "predicted a text"}
        notes = {"f1_macro": metrics.get("f1_macro_note", "")}
        scores = scores_table(metrics, titles | counts, title, notes)
        parts: list[RenderableType] = [scores, "", per_class_table(metrics)]
        if metrics.get("per_source"):
            parts += ["", per_source_table(metrics["per_source"], self.METRICS)]
        return Group(*parts)

    def draw(self, metrics: Mapping[str, Any], records: Sequence[Mapping[str, Any]], folder: Path) -> None:
        """Draw F1, precision and recall of the most frequent labels."""
        plot_label_scores(metrics["per_class"], folder / "labels.png")


def _each_has_one(classes: Sequence[str], separator: str) -> str:
    for other in sorted({";", "|", "/", ","} - {separator}) if separator else ():
        if 2 * sum(other in name for name in classes) > len(classes):
            return (
                f"each training row has exactly one label, such as {next(name for name in classes if other in name)!r}; if "
                f"these are several, give --label-separator {other!r}"
            )
    return "each training row has exactly one label; if that is always so, --task classification is made for it"
