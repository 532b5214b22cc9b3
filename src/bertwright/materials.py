"""What the seeds of a fine-tuning share: rows read, split, checked and encoded, and the weights that each starts from."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bertwright.data.hub_rows import local_file
from bertwright.data.inputs import Inputs
from bertwright.errors import BertwrightError, tell
from bertwright.machine import Machine
from bertwright.starting_point import StartingPoint, starting_point
from bertwright.tasks import task_class
from bertwright.tasks.task import Task, chosen_metric
from bertwright.telling import Say
from bertwright.training.recipe import Recipe


@dataclass(frozen=True)
class Split:
    """One part of the data, read and encoded."""

    name: str
    inputs: Inputs


@dataclass(frozen=True)
class Materials:
    """All that the seeds of a run share."""

    recipe: Recipe
    machine: Machine
    start: StartingPoint
    task: Task
    metric: str
    train: Split
    validation: Split
    tests: tuple[Split, ...]

    def score(self, validation: Mapping[str, float]) -> float:
        """How good a model is by its validation: the higher, the better."""
        return -validation["loss"] if self.metric == "loss" else validation[self.metric]

    def as_bytes(self) -> Iterator[bytes]:
        """What the saved states of a run depend on: the weights to start from, the encoded rows, and their answers."""
        yield json.dumps(self.start.config.to_dict()).encode()
        yield json.dumps(self.task.to_config()).encode()
        for name in sorted(self.start.tensors):
            yield name.encode()
            yield self.start.tensors[name].flatten().view(torch.uint8).numpy().tobytes()
        for part in (self.train.inputs, self.validation.inputs):
            yield part.table.input_ids.tobytes()
            yield part.table.lengths.tobytes()
            yield json.dumps([row.answer for row in part.examples]).encode()


def _begun(file: Path, rows: Iterable[Any]) -> Iterator[Any]:
    """The rows of the file; what is wrong with it or its first row is raised now."""
    rows = iter(rows)
    if file.is_fifo():  # of two pipes, the one that is written first has to be read to its end first
        return rows
    return itertools.chain(list(itertools.islice(rows, 1)), rows)


def _tell_known(task: Task, examples: Sequence[Any], seen: Set[tuple[Any, ...]], name: str) -> None:
    """Warn where many examples are among those that were ``seen`` in training; a few short ones recur in any data."""
    known = sum(task.content(example) in seen for example in examples)
    if 10 * known >= len(examples):
        tell(f"{name}: {known:,} of {len(examples):,} are training rows too; their scores say little of new texts")


def _none_aside(rows: int, fraction: float, how: str) -> str:
    if rows * fraction < 1:
        return (
            f"{rows} rows are too few to set {fraction:g} of them aside; raise --validation-fraction, or give --validation"
        )
    return (
        f"of {rows:,} rows none can be set aside for validation ({fraction:.0%} {how}): do --task and the options that name "
        "columns fit the file? If they do, give --validation"
    )


def gather(recipe: Recipe, machine: Machine, say: Say) -> Materials:
    """Read, split, check and encode the rows that a recipe names, and read the checkpoint that it starts from.

    Raises:
        BertwrightError: anything about them that a user can mend.
    """
    if recipe.train is None:
        raise BertwrightError("--train is missing: name the file with the training rows, or a known data set")
    kind = task_class(recipe.task)
    # What can be told at once is told before all rows are read, or a checkpoint is fetched, which may take a while.
    chosen_metric(kind, recipe.metric)

    def begin(source: str) -> Iterator[Any]:
        file = local_file(source)
        return _begun(file, kind.read(file, recipe, labelled=True))

    training_rows = begin(recipe.train)
    validation_rows = None if recipe.validation is None else begin(recipe.validation)
    test_rows = {name: begin(source) for name, source in recipe.test_sets().items()}
    start = starting_point(recipe)
    rows = list(training_rows)
    task = kind.learn(rows, recipe)
    metric = chosen_metric(task, recipe.metric)
    task.class_weights(recipe.class_weights, None)  # a wrong setting is told before the work
    if validation_rows is not None:
        validation = list(validation_rows)
        say(f"{len(rows):,} training rows, {len(validation):,} validation rows")
    else:
        inside, aside, how = task.split(rows, recipe.validation_fraction, recipe.split_seed)
        if not aside:
            raise BertwrightError(f"{recipe.train}: {_none_aside(len(rows), recipe.validation_fraction, how)}")
        validation, rows = [rows[i] for i in aside], [rows[i] for i in inside]
        say(
            f"{len(rows):,} training rows; {len(validation):,} set aside for validation "
            f"({len(aside) / (len(inside) + len(aside)):.0%} {how}, seed {recipe.split_seed})"
        )
    tests = {name: list(rows_of) for name, rows_of in test_rows.items()}
    seen = {task.content(row) for row in rows if not task.is_empty(row)}  # empty ones are told of by themselves
    for name, part in {"training": rows, "validation": validation, **tests}.items():
        task.check(part, recipe, labelled=True)
        task.tell_empty(part, f"{name} rows")
        if part is not rows:
            _tell_known(task, part, seen, f"{name} rows")
    if recipe.epochs is None and recipe.steps is None:
        recipe = dataclasses.replace(recipe, epochs=kind.epochs(len(rows)))
        say(f"{recipe.epochs} epochs, the default for so many rows; --epochs sets another number")
    start = start.of(task, recipe, say)
    recipe = dataclasses.replace(recipe, revision=start.commit or recipe.revision)  # so that the recipe repeats the run

    def split(name: str, examples: Sequence[Any]) -> Split:
        inputs = task.encode(start.tokenizer, examples, recipe)
        inputs.tell_cut(f"{name} rows", recipe.max_length)
        inputs.check_segments(start.config.type_vocab_size, start.origin)
        return Split(name, inputs)

    training = split("training", rows)
    say(task.describe(training.inputs))
    say(f"{training.inputs.table.tokens:,} training tokens, {training.inputs.table.lengths.mean():.1f} a sequence")
    return Materials(
        recipe,
        machine,
        start,
        task,
        metric,
        training,
        split("validation", validation),
        tuple(split(name, examples) for name, examples in tests.items()),
    )
