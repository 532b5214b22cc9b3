"""Which of several endings goes on from a beginning: SWAG, CODAH (Devlin et al. 2019, section 4.4).

Each choice is a sequence of its own, ``[CLS] beginning [SEP] ending [SEP]``, and gets one score; the scores of an
example's choices are compared by a softmax. Examples may have different numbers of choices.

Shapes: U examples of a batch, N the most choices that one of them has, R choices of all of them, one score each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import RenderableType
from torch import Tensor

from bertwright.arrays import FloatArray, IntArray
from bertwright.data.choices import ChoiceExample, read_choices, stream_choices
from bertwright.data.examples import Unreadable
from bertwright.data.inputs import Inputs
from bertwright.data.packing import TokenTable
from bertwright.errors import BertwrightError
from bertwright.evaluation.choices import choice_metrics, choice_report, plot_choices
from bertwright.evaluation.plots import plot_reliability
from bertwright.model import BertConfig, SequenceClassifier
from bertwright.tasks.regularisation import classes_apart
from bertwright.tasks.task import Loss, Task, fine
from bertwright.tokenizer import Tokenizer
from bertwright.training.recipe import Recipe


@dataclass(frozen=True)
class MultipleChoice(Task):
    """One of an example's endings is right."""

    SUMMARY = "the right one of two or more endings of each text"
    ARCHITECTURE = "BertForMultipleChoice"
    PIPELINE = "multiple-choice"
    METRICS: ClassVar = {"accuracy": "accuracy"}
    ASKED = ('"a text" --pair "an ending" --pair "another"', '["a text"], [["an ending", "another"]]')
    OPTIONS = (Task.OPTIONS - {"pair", "label_names"}) | {"endings", "label_smoothing", "r_drop"}

    @classmethod
    def read(cls, path: Path, recipe: Recipe, *, labelled: bool) -> Iterator[ChoiceExample]:
        """Yield the examples of a file in one of the published formats, or with columns that the recipe names."""
        return read_choices(path, cls.columns(recipe, labelled=labelled), recipe.endings)

    @classmethod
    def read_stream(cls, file: BinaryIO, name: str, recipe: Recipe) -> Iterator[ChoiceExample | Unreadable]:
        """Yield an example, or an Unreadable, for each line: a beginning and its endings, a tab before each."""
        return stream_choices(file, name)

    @classmethod
    def example(cls, text: Any, second: Any, where: str) -> ChoiceExample:
        """Make an example of a beginning and its endings.

        Raises:
            BertwrightError: they are no string and no list of two or more strings.
        """
        if not isinstance(text, str):
            raise BertwrightError(f"{where} is {text!r}, of type {type(text).__name__}, not a string")
        if not isinstance(second, list | tuple) or len(second) < 2:
            raise BertwrightError(f"{where}: its endings are {second!r:.60}; give a list of two or more")
        for number, ending in enumerate(second):
            if not isinstance(ending, str) or not ending.strip():
                raise BertwrightError(f"{where}: ending {number} is {ending!r:.60}; give a string that is not empty")
        return ChoiceExample(text, tuple(second), where)

    @classmethod
    def beside(cls, texts: Sequence[str], given: Sequence[str]) -> Sequence[Any]:
        """All of ``--pair`` are endings of the one text."""
        if len(texts) != 1 or len(given) < 2:
            raise BertwrightError(
                f"{len(texts)} texts with {len(given)} --pair; give one text and two or more endings, each after a --pair; "
                "several texts go into a file (--input), or on standard input with a tab before each ending"
            )
        return [list(given)]

    @classmethod
    def learn(cls, examples: Sequence[ChoiceExample], recipe: Recipe) -> Self:
        """There is nothing to learn before training."""
        return cls()

    @classmethod
    def from_config(cls, config: Mapping[str, Any], where: str) -> Self:
        """There is nothing to read, but it must not be another task's."""
        made = config.get("architectures") or [cls.ARCHITECTURE]
        if cls.ARCHITECTURE not in made and "BertModel" not in made:  # BertModel: a head with layers of its own
            raise BertwrightError(f"{where}: architectures are {', '.join(map(str, made))}, not {cls.ARCHITECTURE}")
        return cls()

    def build(self, config: BertConfig, *, head_layers: int, head_size: int) -> SequenceClassifier:
        """The model for this task, with fresh weights: one output."""
        return SequenceClassifier(config, 1, head_layers=head_layers, head_size=head_size)

    def check(self, examples: Sequence[ChoiceExample], recipe: Recipe, *, labelled: bool) -> None:
        """Raise BertwrightError for what is no example of choices, or has no answer where one is needed."""
        for row in examples:
            if not isinstance(row, ChoiceExample):
                raise BertwrightError(f"{row.where}: this model chooses among endings; give a text with its endings")
            if labelled and row.label is None:
                raise BertwrightError(f"{row.where}: the answer is missing; give the number of the right ending")

    def content(self, example: ChoiceExample) -> tuple[Any, ...]:
        """Beginning and endings."""
        return example.start, example.lead, *example.endings

    def is_empty(self, example: ChoiceExample) -> bool:
        """Whether nothing is there to go on from."""
        return isinstance(example, ChoiceExample) and not (example.start.strip() or example.lead.strip())

    def record(self, example: ChoiceExample) -> dict[str, Any]:
        """The beginning; the endings follow in the ranking."""
        return {"text": example.start} | ({"lead": example.lead} if example.lead else {})

    def truth(self, example: ChoiceExample) -> dict[str, Any]:
        """The right ending and its number."""
        assert example.label is not None
        return super().truth(example) | {"true": example.endings[example.label], "true_choice": example.label}

    def encode(self, tokenizer: Tokenizer, examples: Sequence[ChoiceExample], recipe: Recipe) -> Inputs:
        """Encode each choice as a pair of beginning and ending, cut to the longest length."""
        counts = [len(example.endings) for example in examples]
        starts = [example.start for example in examples for _ in example.endings]
        endings = [ending for example in examples for ending in example.continuations()]
        encoded = tokenizer.encode_batch(starts, endings, max_length=recipe.max_length)
        table = TokenTable([e.input_ids for e in encoded], [e.token_type_ids for e in encoded])
        begins = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        cut = np.add.reduceat(np.array([e.cut for e in encoded], dtype=np.int64), begins[:-1])
        return Inputs(examples, table, begins, cut)

    def describe(self, inputs: Inputs) -> str:
        """How many endings there are, and which of them are right how often."""
        counts = inputs.counts
        each = f"{counts.min()}" if counts.min() == counts.max() else f"{counts.min()} to {counts.max()}"
        right = ", ".join(f"{place} ({n:,})" for place, n in enumerate(np.bincount(self._right(inputs)).tolist()))
        return f"{each} endings for each text; right is number {right}"

    def units(self, inputs: Inputs) -> IntArray:
        """An example with all of its choices is a training unit: they are compared with each other."""
        return inputs.starts

    def _right(self, inputs: Inputs) -> IntArray:
        return np.array([example.label for example in inputs.examples], dtype=np.int64)

    def loss(self, inputs: Inputs, weights_C: FloatArray) -> Loss:
        """Cross-entropy over the choices of each example, in float32 or finer."""
        counts, right_U = inputs.counts, torch.from_numpy(self._right(inputs))

        def total(scores_R1: Tensor, units: IntArray) -> Tensor:
            scores_R1 = fine(scores_R1)
            scores_UN = side_by_side(scores_R1[:, 0], counts[units])
            return F.cross_entropy(scores_UN, right_U[torch.from_numpy(units)].to(scores_UN.device), reduction="sum")

        def even(scores_R1: Tensor, units: IntArray) -> Tensor:
            scores_R1 = fine(scores_R1)
            log_p_UN = side_by_side(scores_R1[:, 0], counts[units]).log_softmax(1)
            log_p_UN = log_p_UN.masked_fill(log_p_UN.isneginf(), 0.0)  # a place without a choice has no share
            return -(log_p_UN.sum(1) / torch.from_numpy(counts[units]).to(log_p_UN)).sum()

        def divergence(first_R1: Tensor, second_R1: Tensor, units: IntArray) -> Tensor:
            # A place without a choice has a probability of 0 in both, whose logarithm must be a number to be compared.
            both = (side_by_side(one[:, 0], counts[units]) for one in (first_R1, second_R1))
            return classes_apart(*both).sum()

        return Loss(np.ones(len(counts)), total, even, divergence)

    def _scores(self, outputs_R1: FloatArray, inputs: Inputs) -> FloatArray:
        return np.asarray(side_by_side(torch.from_numpy(outputs_R1)[:, 0], inputs.counts).numpy())

    def scores(self, outputs_R1: FloatArray, inputs: Inputs) -> dict[str, float]:
        """Compute the accuracy."""
        return {"accuracy": float((self._scores(outputs_R1, inputs).argmax(1) == self._right(inputs)).mean())}

    def measure(self, outputs_R1: FloatArray, inputs: Inputs, headline: str) -> dict[str, Any]:
        """The full measurement of an evaluation."""
        sources = [example.source for example in inputs.examples]
        return choice_metrics(self._scores(outputs_R1, inputs), self._right(inputs), inputs.counts, sources)

    def decode(self, outputs_R1: FloatArray, inputs: Inputs) -> list[dict[str, Any]]:
        """Rank the endings, the most probable first; ``choice`` counts them from 0 in the order in which they were given."""
        scores_EN = self._scores(outputs_R1, inputs)
        probabilities_EN = torch.from_numpy(scores_EN).softmax(1).numpy()
        order_EN = np.argsort(-scores_EN, axis=1, kind="stable")
        predictions = []
        for example, scores, probabilities, order in zip(
            inputs.examples, scores_EN, probabilities_EN, order_EN.tolist(), strict=True
        ):
            ranking = [
                {
                    "choice": place,
                    "ending": example.endings[place],
                    "probability": float(probabilities[place]),
                    "logit": float(scores[place]),
                }
                for place in order[: len(example.endings)]
            ]
            best = ranking[0]
            predictions.append(
                {
                    "predicted": best["ending"],
                    "choice": best["choice"],
                    "probability": best["probability"],
                    "ranking": ranking,
                }
            )
        return predictions

    def table(self, records: Iterable[Mapping[str, Any]]) -> Iterator[list[Any]]:
        """Predictions as rows of a CSV file: choices from best to worst, and their probabilities in the same order."""
        first, last = ("text", "lead", "predicted", "choice", "probability"), ("skipped", "cut")
        yield [*first, "ranking", "probabilities", *last]
        for record in records:
            ranking = record.get("ranking", [])
            yield [
                *(record.get(name) for name in first),
                " ".join(str(one["choice"]) for one in ranking),
                " ".join(f"{one['probability']:.6g}" for one in ranking),
                *(record.get(name) for name in last),
            ]

    def report(self, metrics: Mapping[str, Any], title: str) -> RenderableType:
        """Scores, ranks and sources as tables."""
        return choice_report(metrics, title)

    def draw(self, metrics: Mapping[str, Any], records: Sequence[Mapping[str, Any]], folder: Path) -> None:
        """Draw the ranks of the right ending, the accuracy of each source, and reliability."""
        plot_choices(metrics, folder / "choices.png")
        plot_reliability(dict(metrics), folder / "reliability.png")


def side_by_side(scores_R: Tensor, counts_U: IntArray) -> Tensor:
    """Return scores_UN, an example a row; places past its number of choices hold minus infinity, a probability of 0."""
    row_R = np.repeat(np.arange(len(counts_U)), counts_U)
    column_R = np.arange(len(row_R)) - np.repeat(np.cumsum(counts_U) - counts_U, counts_U)
    places = tuple(torch.from_numpy(index).to(scores_R.device) for index in (row_R, column_R))
    return scores_R.new_full((len(counts_U), int(counts_U.max())), -torch.inf).index_put(places, scores_R)
