"""From the name of a known data set, and perhaps a directory, to the options of a run on it.

A directory is recognised by what it holds: all files of one of the data set's layouts, whose first row reads as it should.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertwright.data.catalog import KNOWN, Known, Layout, Parts
from bertwright.data.examples import Columns
from bertwright.data.hub_rows import HubSource
from bertwright.data.readers import read_examples
from bertwright.errors import BertwrightError, did_you_mean


@dataclass(frozen=True)
class Located:
    """A known data set in one of its forms, as options.

    ``reading`` says what is learned, from which files, and how they are written; ``settings`` suit the data set, but
    another choice is as good; ``about`` is a line for people.
    """

    reading: dict[str, Any]
    settings: dict[str, Any]
    about: str


def known_name(name: str) -> str:
    """The name that KNOWN has for a data set; capitals, ``-`` and ``_`` make no difference: SST-2 is sst2.

    Raises:
        BertwrightError: there is none of this name.
    """
    by_letters = {_letters(known): known for known in KNOWN}
    if _letters(name) in by_letters:
        return by_letters[_letters(name)]
    file = "; a file of your own goes to --train" if Path(name).suffix or "/" in name else did_you_mean(name, KNOWN)
    raise BertwrightError(f"{name!r} is no known data set{file} (known: {', '.join(KNOWN)})")


def locate(name: str, data: str | Path | None) -> Located:
    """The options of a known data set: of its files in the directory ``data``, or of the hub.

    Raises:
        BertwrightError: there is none of this name, the directory does not hold it, or the hub has it not.
    """
    name = known_name(name)
    known = KNOWN[name]
    if data is not None:
        layout, found = _recognised(name, known, Path(data))
        where, shown, reading = str(data), found.each(lambda path: Path(path).name), layout.reading
    elif known.hub is not None:
        hub = known.hub
        found = hub.parts.each(lambda split: str(HubSource(hub.name, hub.revision, hub.config, split)))
        where, shown, reading = f"the hub's {hub.name}", hub.parts, hub.reading
    else:
        raise BertwrightError(f"{name}: give the directory of its files by --data: {_expected(known)}")
    files = {
        "dataset": name,
        "data": None if data is None else str(data),
        "task": known.task,
        "train": found.train,
        "validation": found.validation,
        "test": found.test,
        "also_test": tuple(f"{name}={path}" for name, path in found.also_test.items()),
    }
    return Located(
        files | dict(known.reading) | dict(reading),
        dict(known.settings),
        f"{name}: {known.title} ({_used(shown)}; of {where})",
    )


def offline_remedy(name: str) -> str:
    """What to do where the hub cannot be read."""
    return f"if you have its files, name their directory with --data: {_expected(KNOWN[name])}"


def _letters(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def _used(parts: Parts) -> str:
    validation = "a part of it set aside" if parts.validation is None else parts.validation
    tests = [part for part in (parts.test, *parts.also_test.values()) if part is not None]
    return f"train: {parts.train}, validation: {validation}, test: {' and '.join(tests) or 'none'}"


def _layouts(known: Known) -> tuple[Layout, ...]:
    return known.layouts + (() if known.hub is None else known.hub.copies())


def _expected(known: Known) -> str:
    """The files of each layout, for people."""
    ways = []
    for layout in known.layouts:
        inside = f" (there or in {' or '.join(layout.folders)})" if layout.folders else ""
        ways.append(" and ".join(layout.parts.all()) + inside)
    if known.hub is not None:
        ways.append(f"the Parquet files of the hub's {known.hub.name}")
    return ", or ".join(ways)


def _recognised(name: str, known: Known, directory: Path) -> tuple[Layout, Parts]:
    if not directory.is_dir():
        what = "a file" if directory.exists() else "no such directory"
        raise BertwrightError(f"{directory}: {what}; --data takes the directory of {name}'s files: {_expected(known)}")
    unfit = ""
    for layout in _layouts(known):
        for folder in (directory, *(directory / inside for inside in layout.folders)):
            places = {part: _only(folder, part) for part in layout.parts.all()}
            missing = [part for part, place in places.items() if place is None]
            if not missing:
                found = layout.parts.each(lambda part, places=places: str(places[part]))  # type: ignore[misc]
                misfit = _misfit(Path(found.train), dict(known.reading) | dict(layout.reading))
                if misfit is None:
                    return layout, found
                unfit = unfit or f"{found.train} is not of {name}: {misfit}"
            elif len(missing) < len(places):
                unfit = unfit or f"{folder}: {' and '.join(missing)} of {name} is missing"
    raise BertwrightError(f"{unfit or f'{directory}: holds no files of {name}'}; expected: {_expected(known)}")


def _only(folder: Path, pattern: str) -> Path | None:
    """The file of this name, or the one that matches the pattern."""
    found = sorted(folder.glob(pattern))
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise BertwrightError(
            f"{folder}: {names} all could be {pattern}; leave one of them there, or use --train and --test"
        )
    return found[0] if found else None


def _misfit(path: Path, reading: Mapping[str, Any]) -> str | None:
    """What is wrong with a file's first row, as far as it is a table of texts; None where all is right."""
    if "text" not in reading:
        return None  # not a table of texts; its own reader is as strict
    names = dict(label.split("=", 1) for label in reading.get("label_names", ()))
    fields = {field.name for field in dataclasses.fields(Columns)} - {"names", "label_names"}
    columns = Columns(
        **{field: reading[field] for field in fields if field in reading},
        names=tuple(reading.get("columns", ())),
        label_names=tuple(names.items()),
    )
    try:
        first = next(read_examples(path, columns))
    except BertwrightError as error:
        return str(error)
    if names and first.label not in names.values():
        return f"{first.where}: the label is {first.label!r}, not one of: {', '.join(names.values())}"
    return None
