"""Rows of a live stream, such as a pipe from a running program: answers are due when nothing more has come yet."""

from __future__ import annotations

import io
import os
import select
import stat
import sys
from collections.abc import Callable, Iterator
from typing import BinaryIO, TypeVar, cast

Row = TypeVar("Row")

PATIENCE = 0.05  # seconds after which a stream counts as waiting
_AT_ONCE = 1 << 16  # bytes


class Arriving(Iterator[Row]):
    """Rows made of lines that may come one by one."""

    def __init__(self, rows: Iterator[Row], lines: LiveLines) -> None:
        self._rows = rows
        self._lines = lines

    def __next__(self) -> Row:
        return next(self._rows)

    def waits(self) -> bool:
        """Whether the next row has not come yet; takes up to ``PATIENCE`` seconds."""
        return not self._lines.ready()


class LiveLines:
    """The lines of a pipe, socket or terminal. Nothing else may read from it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._held = bytearray()
        self._searched = 0  # so many bytes of these hold no line feed
        self._ended = False

    def readline(self, limit: int) -> bytes:
        """The next line with its line feed, or so many bytes of a longer one; empty at the end."""
        while (end := self._line_end()) == 0 and len(self._held) < limit and not self._ended:
            more = os.read(self._descriptor, _AT_ONCE)
            self._ended = not more
            self._held += more
        size = min(end or len(self._held), limit)
        line = bytes(self._held[:size])
        del self._held[:size]
        self._searched = 0
        return line

    def ready(self) -> bool:
        """Whether a line can be read, or a part of it, or there are no more."""
        if self._ended or self._line_end():
            return True
        return bool(select.select([self._descriptor], [], [], PATIENCE)[0])

    def _line_end(self) -> int:
        end = self._held.find(b"\n", self._searched) + 1
        self._searched = 0 if end else len(self._held)
        return end


def arriving(file: BinaryIO, read: Callable[[BinaryIO], Iterator[Row]]) -> Iterator[Row]:
    """What ``read`` makes of a file's lines: Arriving where it is live and the system can tell what has come."""
    try:
        descriptor = file.fileno()
        mode = os.fstat(descriptor).st_mode
    except (OSError, io.UnsupportedOperation):  # bytes in memory, say
        return read(file)
    if stat.S_ISREG(mode) or sys.platform == "win32":
        return read(file)
    lines = LiveLines(descriptor)
    return Arriving(read(cast("BinaryIO", lines)), lines)  # readers of streams ask for lines alone
