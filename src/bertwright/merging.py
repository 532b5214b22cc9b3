"""One recipe out of all that says something: a task's defaults, a known data set, a recipe or preset, flags."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bertwright.data.hub_rows import HubSource, is_hub, local_file, pinned
from bertwright.data.known import Located, known_name, locate, offline_remedy
from bertwright.errors import BertwrightError
from bertwright.tasks import task_class
from bertwright.telling import Say
from bertwright.training.options import flag
from bertwright.training.recipe import FILES, READING, Recipe

# What belongs to a data set and would be wrong of another.
_OF_DATA = frozenset({"dataset", "data", "task", *FILES, *READING})


@dataclass(frozen=True)
class Merged:
    """The recipe of a run, what a caller gave of it, and a line about the data set, if it is a known one."""

    recipe: Recipe
    given: dict[str, Any]
    about: str | None = None


def merged(recipe: Recipe | Mapping[str, Any] | None, options: Mapping[str, Any]) -> Merged:
    """Merge ``options`` over ``recipe`` over what is known of the data set that one of them names.

    A data set named by ``options`` replaces all that ``recipe`` says of its own data. A :class:`Recipe` with training
    rows is whole: nothing is added to it.

    Raises:
        BertwrightError: an option is wrong, or the data set or its files are not known.
    """
    options = dict(options)
    whole = isinstance(recipe, Recipe) and recipe.train is not None
    if isinstance(recipe, Recipe):
        # Of a recipe that was not merged yet, a field at its default says nothing.
        begin = {
            field.name: getattr(recipe, field.name)
            for field in dataclasses.fields(recipe)
            if whole or getattr(recipe, field.name) != field.default
        }
    else:
        begin = dict(recipe or {})
    for source in (begin, options):
        if source.get("dataset") is not None:
            source["dataset"] = known_name(str(source["dataset"]))
    for name in Recipe.replaced(options):
        begin.pop(name, None)
    if options.get("model", begin.get("model")) != begin.get("model"):
        begin.pop("revision", None)  # it is of the other model
    given = begin | options
    named = options.get("dataset") is not None or options.get("data") is not None
    if given.get("dataset") is None and given.get("data") is not None:
        raise BertwrightError("--data goes with the name of a known data set: bertwright finetune NAME --data DIRECTORY")
    located = Located({}, {}, "")
    if given.get("dataset") is not None and not given.get("resume") and (named or not whole):
        same = options.get("dataset", begin.get("dataset")) == begin.get("dataset")
        data = options.get("data", begin.get("data") if same else None)
        located = locate(given["dataset"], data)
        task_class(given.get("task") or located.reading["task"])  # before options that only another version has
    if named:
        begin = {name: value for name, value in begin.items() if name not in _OF_DATA}
        order = [located.settings, begin, located.reading, options]
    else:
        order = [located.settings, located.reading, begin, options]
    chosen = Recipe.of(*order)
    # What a user did not ask for is not told to be without effect, nor to stand in the way.
    idle = chosen.idle() | ({"model"} if chosen.config else set())
    defaults = dict(task_class(chosen.task).DEFAULTS)
    for quiet in (defaults, located.settings, located.reading):
        for name in idle & quiet.keys():
            del quiet[name]
    chosen = Recipe.of(defaults, *order)
    chosen.test_sets()
    chosen.names_of_labels()
    return Merged(chosen, given, _about(located, chosen, given) if located.about else None)


def _about(located: Located, chosen: Recipe, given: Mapping[str, Any]) -> str:
    """The line about a known data set, with the model that it starts from, and files in the place of its own."""
    own = [
        f"{flag(name)} {shown if isinstance(shown := getattr(chosen, name), str) else ','.join(shown or ('none',))}"
        for name in FILES
        if getattr(chosen, name) != located.reading[name]
    ]
    its = "model" in located.settings and given.get("model") is None
    start = f"; starts from {chosen.model}, unless --model names another" if its else ""
    return located.about + start + (f"; in place of its own: {', '.join(own)}" if own else "")


def with_rows(recipe: Recipe, say: Say) -> Recipe:
    """The recipe with its sources on the hub pinned to commits; their rows are on this machine afterwards.

    Raises:
        BertwrightError: the hub cannot be read.
    """

    commits: dict[tuple[str, str | None], str | None] = {}  # all parts of a data set are of one commit

    def settled(source: str | None) -> str | None:
        if source is None or not is_hub(source):
            return source
        try:
            asked = HubSource.parse(source)
            place = (asked.name, asked.revision)
            if place not in commits:
                commits[place] = pinned(asked).revision
            exact = str(dataclasses.replace(asked, revision=commits[place]))
            local_file(exact, say)
        except BertwrightError as error:
            if recipe.dataset is None:
                raise
            raise BertwrightError(f"{error}; {offline_remedy(recipe.dataset)}") from error
        return exact

    further = [given.partition("=") for given in recipe.also_test]
    return dataclasses.replace(
        recipe,
        train=settled(recipe.train),
        validation=settled(recipe.validation),
        test=settled(recipe.test),
        also_test=tuple(f"{name}={settled(path)}" for name, _, path in further),
    )
