"""Lines of a stream that must not end at its first bad one: texts, or pairs of texts, to predict from."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from bertwright.data.examples import Example, Unreadable
from bertwright.data.text_files import BOM, LONGEST_LINE
from bertwright.errors import tell


def stream_lines(file: BinaryIO, name: str) -> Iterator[Example | Unreadable]:
    """Yield one item for each line of a stream that must not end at its first bad line: its text.

    A line that is not UTF-8, holds a NUL byte, or is longer than ``LONGEST_LINE`` gives an :class:`Unreadable` in its
    place.
    """
    number = 0
    while raw := file.readline(LONGEST_LINE + 1):
        number += 1
        where = f"{name}:{number}"
        if len(raw) > LONGEST_LINE:
            while not raw.endswith(b"\n") and (raw := file.readline(LONGEST_LINE)):
                pass
            yield Unreadable(where, f"longer than {LONGEST_LINE >> 20} MiB")
            continue
        if number == 1:
            raw = raw.removeprefix(BOM)
        try:
            text = raw.decode("utf-8").removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            yield Unreadable(where, "not UTF-8")
            continue
        yield Unreadable(where, "holds a NUL byte") if "\x00" in text else Example(text=text, where=where)


def as_texts(lines: Iterable[Example | Unreadable]) -> Iterator[Example | Unreadable]:
    """Take each line of :func:`stream_lines` as one text; of the first that has a tab it is told that it is one."""
    told = False
    for line in lines:
        if not told and isinstance(line, Example) and "\t" in line.text:
            told = True
            tell(
                f"{line.where}: holds a tab, but each line is read as one text; the columns of a file are read with --input"
            )
        yield line


def as_pairs(lines: Iterable[Example | Unreadable]) -> Iterator[Example | Unreadable]:
    """Take each line of :func:`stream_lines` as two texts with a tab between; one without a tab is an Unreadable."""
    for line in lines:
        if isinstance(line, Unreadable):
            yield line
            continue
        first, tab, second = line.text.partition("\t")
        if line.text and not tab:
            yield Unreadable(line.where, "no tab between two texts")
        else:
            yield Example(text=first, pair=second, where=line.where)


def as_pairs_if_tabs(lines: Iterator[Example | Unreadable]) -> Iterator[Example | Unreadable]:
    """The same if the first line that is not blank has a tab, which is told; else as they are."""
    for line in lines:
        if isinstance(line, Unreadable) or not line.text.strip():
            yield line
        elif "\t" in line.text:
            tell(
                f"{line.where}: holds a tab, so each line is read as a pair of texts, as no recipe of the model says what "
                "it takes; put a space there if it is one text"
            )
            yield from as_pairs(itertools.chain([line], lines))
        else:
            yield line
            yield from lines
