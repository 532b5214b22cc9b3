"""A trained model that answers: predict, evaluate, save. ``bertwright.load`` gives one."""

from __future__ import annotations

import dataclasses
import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from bertwright import atomic, checkpoint, inference
from bertwright.data.arriving import arriving
from bertwright.data.examples import Unreadable
from bertwright.data.hub_rows import local_file
from bertwright.data.inputs import Inputs
from bertwright.errors import BertwrightError, tell
from bertwright.machine import Machine
from bertwright.model import BertConfig, Headed
from bertwright.next_sentence import as_classifier
from bertwright.tasks import TASKS, options_of_tasks, task_class, task_of
from bertwright.tasks.task import Task, chosen_metric
from bertwright.telling import Progress, silent
from bertwright.tokenizer import Tokenizer
from bertwright.training.options import flag
from bertwright.training.recipe import ANSWERS, READING, Recipe

_CHUNK = 2048  # rows that a stream holds at a time
_CHUNK_CHARACTERS = 4_000_000  # and characters, so that a few huge texts do not fill the memory


@dataclass(frozen=True, repr=False)
class Evaluation:
    """What :meth:`Predictor.evaluate` measured, and every row's prediction."""

    metrics: dict[str, Any]
    predictions: list[dict[str, Any]]

    def __repr__(self) -> str:
        headline = self.metrics["headline"]
        return f"<Evaluation: {headline['metric']} {headline['value']:.4f} of {self.metrics['examples']:,} examples>"


@dataclass(repr=False)
class Predictor:
    """Model, tokenizer and task together."""

    model: Headed
    tokenizer: Tokenizer
    task: Task
    recipe: Recipe
    machine: Machine
    directory: Path | None = None

    def __repr__(self) -> str:
        return f"<Predictor: {self.recipe.task}, {self.directory or 'not saved'}, on {self.machine.device}>"

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes; empty for a task without."""
        return self.task.labels

    def read(self, path: str | Path, *, labelled: bool = True, **how: Any) -> Iterator[Any]:
        """Yield the examples of a file.

        Args:
            path: the file, or ``hub:owner/name:config:split``.
            labelled: whether answers are looked for.
            how: options of the recipe that say how to read a file, where they differ from training's.

        Raises:
            BertwrightError: no such option, or the file cannot be read.
        """
        for option in how:
            if option not in READING:
                raise BertwrightError(f"no option {option!r} says how to read a file (known: {', '.join(READING)})")
        for option in sorted(how.keys() & (options_of_tasks() - self.task.OPTIONS)):
            tell(f"{flag(option)} has no effect for the task {self.recipe.task}")
        recipe = Recipe.of({f.name: getattr(self.recipe, f.name) for f in dataclasses.fields(Recipe)}, how)
        reasons = recipe.ineffective()  # of the files' formats it says what holds for those of training
        for option in ANSWERS:
            if option in how and reasons.get(option):
                tell(f"{flag(option)} has no effect {reasons[option]}")
        yield from self.task.read(local_file(path), recipe, labelled=labelled)

    def read_stream(self, file: BinaryIO, name: str, *, live: bool = False) -> Iterator[Any]:
        """Give an example, or an Unreadable, for each line of a stream.

        With ``live``, predictions for the lines of a pipe come as these do, in place of many at once; the numbers of a
        text may then differ in their last digits by what else came in the same moment.
        """

        def read(lines: BinaryIO) -> Iterator[Any]:
            return self.task.read_stream(lines, name, self.recipe)

        return arriving(file, read) if live else read(file)

    def encode(self, examples: Sequence[Any]) -> Inputs:
        """Tokenize examples, none longer than the recipe's ``max_length``."""
        inputs = self.task.encode(self.tokenizer, examples, self.recipe)
        inputs.check_segments(self.model.config.type_vocab_size, str(self.directory or "the model"))
        return inputs

    def outputs(self, inputs: Inputs, progress: Progress = silent) -> npt.NDArray[np.float64]:
        """Return what the head gives for encoded examples: a row for each token that it reads, in their order."""
        return inference.run(self.model, inputs.table, self.machine, progress)

    def examples(self, texts: str | Sequence[Any], pairs: Any = None) -> list[Any]:
        """Make examples of texts, and of what goes with each, if the task wants something beside a text.

        Raises:
            BertwrightError: texts and what goes with them differ in number, or one is of the wrong type.
        """
        if not isinstance(texts, Iterable) or isinstance(texts, bytes):
            raise BertwrightError(f"predict takes a text, or a list of them, not {texts!r:.60}")
        several = not isinstance(texts, str) and pairs is not None
        if several and (not isinstance(pairs, Iterable) or isinstance(pairs, str | bytes)):
            raise BertwrightError(f"predict takes a second text for each text, in a list, not {pairs!r:.60}")
        firsts = [texts] if isinstance(texts, str) else list(texts)
        if isinstance(texts, str) and pairs is not None:
            pairs = [pairs]
        seconds = [None] * len(firsts) if pairs is None else list(pairs)
        if len(seconds) != len(firsts):
            raise BertwrightError(f"{len(firsts)} texts but {len(seconds)} second texts; each text needs its own")
        both = enumerate(zip(firsts, seconds, strict=True), 1)
        return [self.task.example(first, second, f"text {number}") for number, (first, second) in both]

    def predict(self, texts: str | Sequence[Any], pairs: Any = None) -> list[dict[str, Any]]:
        """Predict for texts, or for pairs of texts, or whatever the task wants beside a text (see its documentation).

        Returns:
            For each text: ``text`` (and ``pair``), ``predicted``, what the task says of it (for classes their
            ``probabilities`` and ``logits``), and ``cut`` if tokens were left out because the text is longer than
            ``max_length``.

        Raises:
            BertwrightError: texts and pairs differ in number, one is no string, or the model wants pairs and got none.
        """
        return list(self.predict_rows(self.examples(texts, pairs)))

    def predict_rows(self, rows: Iterable[Any]) -> Iterator[dict[str, Any]]:
        """Predict for a stream of examples of any length in bounded memory, one record for each, in order.

        An empty text or an unreadable row gets no prediction: its record has ``"predicted": None`` and says why under
        ``"skipped"``. A text cut to ``max_length`` tells under ``"cut"`` how many tokens were left out.

        Raises:
            BertwrightError: a row is a pair where the model was trained on single texts, or the other way round.
        """
        iterator = iter(rows)
        while chunk := inference.chunk(iterator, _CHUNK, _CHUNK_CHARACTERS):
            yield from self._predict_chunk(chunk)

    def _predict_chunk(self, chunk: Sequence[Any]) -> Iterator[dict[str, Any]]:
        readable = [row for row in chunk if not isinstance(row, Unreadable) and not self.task.is_empty(row)]
        self.task.check(readable, self.recipe, labelled=False)
        answers: deque[dict[str, Any]] = deque()
        cut: deque[int] = deque()
        if readable:
            inputs = self.encode(readable)
            answers.extend(self.task.decode(self.outputs(inputs), inputs))
            cut.extend(inputs.cut.tolist())
        for row in chunk:
            if isinstance(row, Unreadable):
                yield {self.task.READS: None, "predicted": None, "skipped": row.reason, "where": row.where}
                continue
            record = self.task.record(row)
            if self.task.is_empty(row):
                yield record | {"predicted": None, "skipped": "empty"}
                continue
            record |= answers.popleft()
            left_out = cut.popleft()
            yield record | ({"cut": left_out} if left_out else {})

    def evaluate(
        self, data: str | Path | Sequence[Any], *, metric: str | None = None, progress: Progress = silent, **how: Any
    ) -> Evaluation:
        """Measure the model on labelled rows.

        Args:
            data: a file, or rows that were read already.
            metric: what heads the report; default: the recipe's.
            progress: called after each batch with the tokens done, and all.
            how: options of the recipe that say how to read a file, where they differ from training's.

        Raises:
            BertwrightError: the file cannot be read, or holds a label that the model does not have.
        """
        if isinstance(data, str | Path):
            name = str(data)
            data = list(self.read(data, **how))
        elif how:
            raise BertwrightError(f"evaluate: {next(iter(how))} says how to read a file, but rows were given")
        else:
            name = "rows"
        if not data:
            raise BertwrightError("evaluate: there are no rows to judge by; give at least one")
        for row in data:
            if not hasattr(row, "where"):
                raise BertwrightError(f"evaluate takes a file, or rows as read() gives them, not {row!r:.60}")
        chosen_metric(self.task, metric or self.recipe.metric)
        self.task.check(data, self.recipe, labelled=True)  # before any arithmetic, so that a wrong label is told at once
        self.task.tell_empty(data, name)
        inputs = self.encode(data)
        inputs.tell_cut(name, self.recipe.max_length)
        return self.measure(inputs, metric, outputs=self.outputs(inputs, progress))

    def measure(
        self, inputs: Inputs, metric: str | None = None, *, outputs: npt.NDArray[np.float64] | None = None
    ) -> Evaluation:
        """Measure the model on labelled rows that :meth:`encode` encoded; see :meth:`evaluate`.

        ``outputs`` are what :meth:`outputs` gave for them, where that is known already.
        """
        if outputs is None:
            outputs = self.outputs(inputs)
        headline = chosen_metric(self.task, metric or self.recipe.metric)
        # The loss picks epochs; a report is headed by something a reader can interpret.
        headline = next(iter(self.task.metrics)) if headline == "loss" else headline
        metrics = self.task.measure(outputs, inputs, headline)
        loss = self.task.example_loss(inputs, self.task.class_weights("none", None))
        metrics["loss"] = loss.mean(outputs)
        answers = self.task.decode(outputs, inputs)
        records = [
            self.task.record(row) | self.task.truth(row) | answer
            for row, answer in zip(inputs.examples, answers, strict=True)
        ]
        return Evaluation(metrics, records)

    def save(self, directory: Path) -> None:
        """Write what ``transformers`` and :func:`load` open: config, weights, tokenizer, recipe."""
        config = self.model.config.to_dict() | self.task.to_config()
        if len(self.model.head):
            # transformers has no class with such a head; promising one would make it start a random classifier.
            config["architectures"] = ["BertModel"]
        checkpoint.write_weights(directory, checkpoint.export_tensors(self.model, prefix="bert."))
        atomic.atomic_write_text(directory / "config.json", json.dumps(config, indent=2, ensure_ascii=False) + "\n")
        atomic.atomic_write_text(directory / Recipe.FILE, self.recipe.to_toml())
        self.tokenizer.save(directory, max_length=self.model.config.max_position_embeddings)


def load(
    directory: str | Path,
    *,
    device: str = "auto",
    precision: str = "auto",
    threads: int = 0,
    revision: str | None = None,
) -> Predictor:
    """Load a fine-tuned model: a directory that bertwright or ``transformers`` wrote, or a hub id of one.

    A pretrained model with a head for next sentence prediction opens as what that is, a classifier of pairs.

    Raises:
        BertwrightError: it is not there, damaged, or no classifier.
    """
    found = checkpoint.read(directory, revision=revision)
    held = as_classifier(found)
    where = str(held.config_path)
    config = BertConfig.from_dict(held.config, where)
    recipe_file = held.directory / Recipe.FILE
    if not any(name.startswith(checkpoint.TASK_HEADS) for name in held.tensors):
        raise BertwrightError(
            f"{directory}: has no classifier; fine-tune it first with: bertwright finetune --model {directory}"
        )
    if recipe_file.exists():
        recipe = Recipe.of(Recipe.read(recipe_file))
    else:
        name = task_of(held.config, where)
        pairs = {} if held is found else {"pair": "pair"}
        recipe = Recipe.of(task_class(name).DEFAULTS, {"max_length": config.max_position_embeddings, "task": name}, pairs)
    if recipe.task not in TASKS:
        raise BertwrightError(
            f"{recipe_file}: the task is {recipe.task!r}, which is not installed (known: {', '.join(TASKS)})"
        )
    judge = task_class(recipe.task).from_config(held.config, where)
    head_layers = recipe.head_layers if "head.0.weight" in held.tensors else 0
    model = judge.build(config, head_layers=head_layers, head_size=recipe.head_size)
    report = checkpoint.load_into(model, held.tensors, where=str(directory))
    if report.new:
        hint = f"; is {Recipe.FILE} of another model?" if any(name.startswith("head.") for name in held.tensors) else ""
        raise BertwrightError(f"{directory}: the weights are incomplete ({report.describe()}){hint}")
    if unread := [name for name in report.left if name.startswith(("embeddings.", "encoder.", *checkpoint.TASK_HEADS))]:
        raise BertwrightError(
            f"{where}: describes a smaller model than the weights are of: {unread[0]} and {len(unread) - 1} more tensors "
            "have no place in it; bring back the config.json that belongs to them"
        )
    tokenizer = Tokenizer.from_directory(held.directory)
    tokenizer.check_fits(config.vocab_size, str(held.directory))
    machine = Machine.choose(device, precision, threads)
    model.to(machine.device).requires_grad_(False)
    recipe = dataclasses.replace(recipe, max_length=min(recipe.max_length, config.max_position_embeddings))
    return Predictor(model, tokenizer, judge, recipe, machine, held.directory)
