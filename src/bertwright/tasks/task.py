"""What a task is: how its examples are read, encoded, headed, scored by a loss, decoded into predictions and measured.

A task of texts or pairs of texts inherits reading and encoding from here and adds its head, loss and measures. The loop,
the commands and the model directories know tasks by this interface alone.

Shapes: U training units, B examples, R rows that the head reads, C numbers that it gives for each.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Self

import numpy as np
import torch
from rich.console import RenderableType
from torch import Tensor

from bertwright.arrays import FloatArray, IntArray
from bertwright.data.examples import Columns, Example
from bertwright.data.inputs import Inputs, encode_texts
from bertwright.data.readers import read_examples
from bertwright.data.splits import stratified_split
from bertwright.data.streamed import as_pairs, as_pairs_if_tabs, as_texts, stream_lines
from bertwright.errors import BertwrightError, did_you_mean, tell
from bertwright.evaluation.report import scores_table
from bertwright.model import BertConfig, Headed
from bertwright.tasks.labels import problem_of
from bertwright.tokenizer import Tokenizer
from bertwright.training.recipe import Recipe


@dataclass(frozen=True)
class Loss:
    """The loss over training units, as a sum that a sum of weights divides.

    ``sum`` takes the head's outputs_RC for some units, unit after unit, and the numbers of these units; ``weight_U`` is
    the weight of each unit. So batches of any size, accumulated, give what one large batch would give.

    A task whose labels are classes can have ``even``, the same sum as if every class had an equal share of each label
    (what ``--label-smoothing`` mixes in). ``divergence`` takes two outputs for the same units and is the weighted sum of
    how far they lie apart (what ``--r-drop`` adds). Without them these options belong not in the task's OPTIONS.
    """

    weight_U: FloatArray
    sum: Callable[[Tensor, IntArray], Tensor]
    even: Callable[[Tensor, IntArray], Tensor] | None = None
    divergence: Callable[[Tensor, Tensor, IntArray], Tensor] | None = None

    def mean(self, outputs_RC: FloatArray) -> float:
        """The loss over all units, given the outputs for all of them."""
        total = self.sum(torch.from_numpy(outputs_RC), np.arange(len(self.weight_U)))
        return float(total) / (float(self.weight_U.sum()) or 1.0)


def fine(outputs_RC: Tensor) -> Tensor:
    """The outputs in float32, or finer if they are: no loss is computed in half precision."""
    return outputs_RC if outputs_RC.dtype == torch.float64 else outputs_RC.float()


class Task(ABC):
    """A task; the methods here are those of texts or pairs of texts, and each can be another task's own."""

    SUMMARY: ClassVar[str]  # one line for people
    ARCHITECTURE: ClassVar[str] = "BertForSequenceClassification"  # what transformers calls the model
    PROBLEM: ClassVar[str | None] = None  # the problem_type of a sequence classifier
    PIPELINE: ClassVar[str] = "text-classification"  # what model hubs call the task
    METRICS: ClassVar[Mapping[str, str]]  # what can pick the best epoch, beside the loss, and its title; first: default
    READS: ClassVar[str] = "text"  # what a record calls the text that is predicted from
    ASKED: ClassVar[tuple[str, str]] = ('"a text"', '["a text"]')  # what predict takes, as a shell and as Python has it
    DEFAULTS: ClassVar[Mapping[str, Any]] = {}  # options of a recipe whose default is another for this task
    # Of the options that not all tasks read, those that this one does.
    OPTIONS: ClassVar[frozenset[str]] = frozenset(
        {"text", "pair", "label", "label_names", "source", "columns", "delimiter", "quoting", "uneven_rows"}
    )

    # ------------------------------------------------------------------------------------------- examples

    @classmethod
    def read(cls, path: Path, recipe: Recipe, *, labelled: bool) -> Iterator[Any]:
        """Yield the examples of a file; unless ``labelled``, answers are not looked for.

        Raises:
            BertwrightError: the file is missing, not to be read or empty, or an example cannot be read (names the line).
        """
        yield from read_examples(path, cls.columns(recipe, labelled=labelled))

    @classmethod
    def columns(cls, recipe: Recipe, *, labelled: bool = True) -> Columns:
        """The columns of a table that a recipe names, where this task reads them."""
        answers = {"source": recipe.source, **cls.answer_columns(recipe)} if labelled else {}
        return Columns(
            text=recipe.text,
            pair=recipe.pair if "pair" in cls.OPTIONS else None,
            names=recipe.columns,
            delimiter=recipe.delimiter,
            quoting=recipe.quoting,
            uneven_rows=recipe.uneven_rows,
            label_names=tuple(recipe.names_of_labels().items()),
            **({"label": None} | answers),
        )

    @classmethod
    def answer_columns(cls, recipe: Recipe) -> Mapping[str, Any]:
        """Those with the answers, as Columns calls them."""
        return {"label": recipe.label}

    @classmethod
    def read_stream(cls, file: BinaryIO, name: str, recipe: Recipe) -> Iterator[Any]:
        """Yield an example, or an Unreadable, for each line of a stream."""
        lines, pairs = stream_lines(file, name), takes_pairs(recipe)
        yield from as_texts(lines) if pairs is False else as_pairs(lines) if pairs else as_pairs_if_tabs(lines)

    @classmethod
    def example(cls, text: Any, second: Any, where: str) -> Any:
        """Make an example of what a caller gave: a text, and whatever this task wants beside it.

        Raises:
            BertwrightError: it is of the wrong type.
        """
        for value in (text, second):
            if not isinstance(value, str) and (value is text or value is not None):
                raise BertwrightError(f"{where} is {value!r}, of type {type(value).__name__}, not a string")
        return Example(text=text, pair=second, where=where)

    @classmethod
    def split(cls, examples: Sequence[Any], fraction: float, seed: int) -> tuple[list[int], list[int], str]:
        """Set examples aside for validation: (places that stay, places set aside, how, for people)."""
        inside, aside = stratified_split([example.answer for example in examples], fraction, seed)
        return inside, aside, "of each label"

    @classmethod
    def epochs(cls, rows: int) -> int:
        """How often to pass over so many training rows, where the user does not say."""
        return 4

    def check(self, examples: Sequence[Any], recipe: Recipe, *, labelled: bool) -> None:
        """Raise BertwrightError for an example that the model cannot take, or an answer that cannot be judged by."""
        known = takes_pairs(recipe)
        paired = any(row.pair is not None for row in examples[:1]) if known is None else known
        for row in examples:
            if paired != (row.pair is not None):
                needs = "pairs: give each text its second text, with --pair" if paired else "single texts, not pairs"
                raise BertwrightError(f"{row.where}: this model takes {needs}")

    def content(self, example: Any) -> tuple[Any, ...]:
        """What there is to predict from: equal for two examples that are the same but for their answers."""
        return example.text, example.pair

    def tell_empty(self, examples: Sequence[Any], name: str) -> None:
        """Warn of examples that hold nothing."""
        if empty := sum(map(self.is_empty, examples)):
            tell(f"{name}: {empty:,} of {len(examples):,} are empty; they are taken like others")

    def is_empty(self, example: Any) -> bool:
        """Whether there is nothing to predict from."""
        return not (example.text.strip() or example.pair)

    def record(self, example: Any) -> dict[str, Any]:
        """The example itself, as its prediction's record begins."""
        return {"text": example.text} | ({} if example.pair is None else {"pair": example.pair})

    def truth(self, example: Any) -> dict[str, Any]:
        """What an evaluation's record says of a labelled example, before the prediction."""
        return ({} if example.source is None else {"source": example.source}) | {"true": example.answer}

    # ----------------------------------------------------------------------------------- task and model

    @classmethod
    @abstractmethod
    def learn(cls, examples: Sequence[Any], recipe: Recipe) -> Self:
        """Make the task of training examples: its labels, say."""

    @classmethod
    @abstractmethod
    def from_config(cls, config: Mapping[str, Any], where: str) -> Self:
        """Make the task of a saved ``config.json``.

        Raises:
            BertwrightError: it is damaged, or another task's.
        """

    @classmethod
    def opens(cls, config: Mapping[str, Any]) -> bool:
        """Whether a ``config.json`` that came without a recipe is this task's.

        Of sequence classifiers the kind of problem decides; one without ``architectures`` is taken for such.
        """
        made = config.get("architectures") or ((cls.ARCHITECTURE,) if cls.PROBLEM else ())
        return cls.ARCHITECTURE in made and cls.PROBLEM in (None, problem_of(config))

    def to_config(self) -> dict[str, Any]:
        """The fields that a saved ``config.json`` has for this task."""
        return {"architectures": [self.ARCHITECTURE]}

    def asked(self, recipe: Recipe) -> tuple[str, str]:
        """ASKED, for a model of this recipe: of a task that takes texts or pairs of them, what it was trained on."""
        paired = recipe.pair is not None and self.ASKED is Task.ASKED
        return ('"a text" --pair "its second text"', '["a text"], ["its second text"]') if paired else self.ASKED

    @abstractmethod
    def build(self, config: BertConfig, *, head_layers: int, head_size: int) -> Headed:
        """The model for this task, with fresh weights."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes; empty where there are none."""
        return ()

    @property
    def metrics(self) -> Mapping[str, str]:
        """Those of METRICS that are measured with these labels; first: default."""
        return self.METRICS

    def encode(self, tokenizer: Tokenizer, examples: Sequence[Any], recipe: Recipe) -> Inputs:
        """Encode examples as the model takes them."""
        return encode_texts(tokenizer, examples, recipe.max_length)

    def describe(self, inputs: Inputs) -> str:
        """One line about training examples."""
        return f"labels: {', '.join(self.labels)[:200]}" if self.labels else f"{len(inputs.examples):,} examples"

    # ------------------------------------------------------------------------------------------ training

    def units(self, inputs: Inputs) -> IntArray:
        """Where the training units begin among the sequences, U + 1 places; a batch is made of whole units."""
        return np.arange(len(inputs.table) + 1)

    def class_weights(self, setting: str, inputs: Inputs | None) -> FloatArray:
        """Loss weights of the classes, one each, by ``--class-weights``; without inputs the setting is checked alone."""
        return np.ones(max(len(self.labels), 1))

    @abstractmethod
    def loss(self, inputs: Inputs, weights_C: FloatArray) -> Loss:
        """The loss over these inputs."""

    def example_loss(self, inputs: Inputs, weights_C: FloatArray) -> Loss:
        """The loss that a model is judged by; that of training, unless this takes the parts of an example one by one."""
        return self.loss(inputs, weights_C)

    # ---------------------------------------------------------------------------- predictions and measures

    def tuned(self, outputs_RC: FloatArray, inputs: Inputs) -> Self:
        """The same task, what it decides by (a threshold, say) set to what is best on these labelled examples.

        Training calls it with the validation examples: before each epoch is scored, and for the model that it keeps.
        """
        return self

    @abstractmethod
    def scores(self, outputs_RC: FloatArray, inputs: Inputs) -> dict[str, float]:
        """Compute each of METRICS: what is computed after every epoch."""

    @abstractmethod
    def measure(self, outputs_RC: FloatArray, inputs: Inputs, headline: str) -> dict[str, Any]:
        """The full measurement of an evaluation: ``examples``, METRICS, and ``headline`` with its interval."""

    @abstractmethod
    def decode(self, outputs_RC: FloatArray, inputs: Inputs) -> list[dict[str, Any]]:
        """Turn outputs into predictions for people, one for each example; ``predicted`` is the answer."""

    @classmethod
    def beside(cls, texts: Sequence[str], given: Sequence[str]) -> Sequence[Any] | None:
        """What goes with each text, of the ``--pair`` that a command line has beside them; None: nothing.

        Raises:
            BertwrightError: it does not fit the texts.
        """
        if given and len(given) != len(texts):
            raise BertwrightError(f"{len(texts)} texts but {len(given)} --pair; each text needs its own")
        return given or None

    def table(self, records: Iterable[Mapping[str, Any]]) -> Iterator[list[Any]]:
        """Predictions as rows of a CSV file, its header first."""
        yield ["text", "pair", "predicted", "skipped", "cut"]
        for record in records:
            yield [record.get(name) for name in ("text", "pair", "predicted", "skipped", "cut")]

    def report(self, metrics: Mapping[str, Any], title: str) -> RenderableType:
        """A measurement as tables for a terminal of 80 columns."""
        return scores_table(metrics, self.metrics, title)

    def files(self, records: Iterable[Mapping[str, Any]]) -> dict[str, str | None]:
        """Further files of an evaluation, by name, made of its records: what the official scripts of a task take.

        None for a file that these records do not give, so that none of an earlier evaluation stays beside them.
        """
        return {}

    def draw(self, metrics: Mapping[str, Any], records: Sequence[Mapping[str, Any]], folder: Path) -> None:  # noqa: B027
        """Write the plots of a measurement and of its rows into a folder; nothing where there is nothing to see."""


def chosen_metric(kind: Task | type[Task], name: str | None) -> str:
    """The metric of this name, or a task's first.

    Raises:
        BertwrightError: the task has no such metric.
    """
    known = [*(kind.metrics if isinstance(kind, Task) else kind.METRICS), "loss"]
    if name is not None and name not in known:
        raise BertwrightError(f"--metric is {name!r}{did_you_mean(name, known)} (known: {', '.join(known)})")
    return name or known[0]


def takes_pairs(recipe: Recipe) -> bool | None:
    """Whether a model takes pairs of texts; None if it came without a recipe, and takes what the first row is."""
    return None if recipe.train is None and recipe.pair is None else recipe.pair is not None
