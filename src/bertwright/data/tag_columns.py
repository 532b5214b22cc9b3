"""Where a file of tagged sentences has words and tags, and what its readers share."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from bertwright.errors import BertwrightError, tell


@dataclass(frozen=True)
class TagColumns:
    """Where words and tags are.

    In columns, ``token`` and ``tag`` are numbers from 1 or one of ``names``, which a header gives too; None: the first
    and the last, and those of form and UPOS in CoNLL-U. In JSON lines and Parquet they are fields; None: ``tokens``, and
    ``tags`` or ``spans``. ``quoting`` is auto (quotes enclose fields in .csv), literal or csv. What ``drop`` matches is
    left out of each word. Unless ``labelled``, tags are not looked for.

    Raises:
        BertwrightError: words and tags are in one place.
    """

    token: str | None = None
    tag: str | None = None
    text: str = "text"
    names: tuple[str, ...] = ()
    delimiter: str | None = None
    quoting: str = "auto"
    drop: str | None = None
    labelled: bool = True

    def __post_init__(self) -> None:
        if self.labelled and self.token is not None and self.token == self.tag:
            raise BertwrightError(f"--token-column and --tag-column both name {self.token!r}: the tags would be the words")


class Notices:
    """What a reader changed of what a file says: told once for the whole file, with how often and where first."""

    def __init__(self) -> None:
        self._times: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def add(self, what: str, where: str, text: str) -> None:
        """It happened once more."""
        self._times[what] += 1
        self._first.setdefault(what, f"{where}, {text!r}")

    def tell(self, path: Path) -> None:
        """Tell all of it."""
        for what, times in self._times.items():
            tell(f"{path}: {times:,} {what} (the first: {self._first[what]})")


def cleaned(word: str, columns: TagColumns, where: str, notices: Notices) -> str:
    """The word without what is to be dropped.

    Raises:
        BertwrightError: nothing is left of it.
    """
    if columns.drop is None:
        return word
    try:
        rest = re.sub(columns.drop, "", word)
    except re.error as error:
        raise BertwrightError(f"--drop-from-token: {columns.drop!r} is no regular expression: {error}") from None
    if not rest:
        raise BertwrightError(
            f"{where}: --drop-from-token {columns.drop!r} leaves nothing of the word {word!r}; one that asks for a "
            f"character before it does, such as {'(?<=.)' + columns.drop!r}"
        )
    if rest != word and not columns.labelled:  # where texts are to be answered, not learned from
        notices.add(f"words lost what --drop-from-token {columns.drop!r} matches, as in training", where, word)
    return rest
