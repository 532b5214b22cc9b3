"""One file a task. ``TASKS`` names all that are learned; nothing else in the package knows one by its name."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bertwright.errors import BertwrightError, did_you_mean

if TYPE_CHECKING:
    from bertwright.tasks.task import Task

# By the name that --task takes: module and class, imported when they are asked for.
TASKS: dict[str, str] = {
    "classification": "bertwright.tasks.classification:Classification",
    "question-answering": "bertwright.tasks.question_answering:QuestionAnswering",
    "multiple-choice": "bertwright.tasks.multiple_choice:MultipleChoice",
    "multi-label": "bertwright.tasks.multi_label:MultiLabel",
    "regression": "bertwright.tasks.regression:Regression",
    "tagging": "bertwright.tasks.tagging:Tagging",
}


def task_class(name: str) -> type[Task]:
    """The class of a task.

    Raises:
        BertwrightError: there is no such task.
    """
    if name not in TASKS:
        raise BertwrightError(f"--task is {name!r}{did_you_mean(name, TASKS)} (known: {', '.join(TASKS)})")
    module, _, kind = TASKS[name].partition(":")
    found: type[Task] = getattr(importlib.import_module(module), kind)
    return found


def task_of(config: Mapping[str, Any], where: str) -> str:
    """The name of the task that a ``config.json`` from elsewhere was saved for.

    Raises:
        BertwrightError: it is none of these.
    """
    architectures = config.get("architectures") or []
    if not isinstance(architectures, list):
        raise BertwrightError(f"{where}: architectures is {architectures!r:.60}; make it a list of names")
    for name in TASKS:
        if task_class(name).opens(config):
            return name
    made = ", ".join(map(str, architectures)) or "a model without 'architectures'"
    problem = config.get("problem_type")
    raise BertwrightError(
        f"{where}: {made}{f' with problem_type {problem!r}' if problem else ''} is of no task known here "
        f"({', '.join(TASKS)})"
    )


def options_of_tasks() -> set[str]:
    """The names of all options that only some tasks read."""
    return set().union(*(task_class(name).OPTIONS for name in TASKS))
