"""Rows of a live stream, such as a pipe from a running program: answers are due when nothing more has come yet."""

from __future__ import annotations

import io
import os
import select
import time
from collections.abc import Callable, Iterator
from typing import BinaryIO, TypeVar, cast

Row = TypeVar("Row")

PATIENCE = 0.05  # seconds, from its first row, in which more rows may join a chunk
_AT_ONCE = 1 << 16  # bytes
_LONGEST = 1 << 25  # bytes of a line that is still waited for; readers take no longer ones


class Arriving(Iterator[Row]):
    """Rows made of lines that may come one by one."""

    def __init__(self, rows: Iterator[Row], lines: LiveLines) -> None:
        self._rows = rows
        self._lines = lines

    def __next__(self) -> Row:
        return next(self._rows)

    def comes(self, until: float) -> bool:
        """Whether the next row is here by this time of ``time.monotonic``, or there are no more."""
        return self._lines.ready(until)


class LiveLines:
    """The lines of a pipe, socket or terminal."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file
        self._held = bytearray()
        self._searched = 0  # so many bytes of these hold no line feed
        self._ended = False

    def readline(self, limit: int) -> bytes:
        """The next line with its line feed, or so many bytes of a longer one; empty at the end."""
        while (end := self._line_end()) == 0 and len(self._held) < limit and not self._ended:
            self._read()
        size = min(end or len(self._held), limit)
        line = bytes(self._held[:size])
        del self._held[:size]
        self._searched = 0
        return line

    def ready(self, until: float) -> bool:
        """Whether by then a whole line is here, or the end; what has come of a line is kept meanwhile."""
        poll = select.poll()
        poll.register(self._file.fileno(), select.POLLIN)
        while not (self._line_end() or self._ended or len(self._held) >= _LONGEST):
            if not poll.poll(max(until - time.monotonic(), 0) * 1000):
                return False
            self._read()
        return True

    def _read(self) -> None:
        more = self._file.read1(_AT_ONCE)
        self._ended = not more
        self._held += more

    def _line_end(self) -> int:
        end = self._held.find(b"\n", self._searched) + 1
        self._searched = 0 if end else len(self._held)
        return end


def arriving(file: BinaryIO, read: Callable[[BinaryIO], Iterator[Row]]) -> Iterator[Row]:
    """What ``read`` makes of a file's lines: Arriving where they may come one by one and the system tells when."""
    if not (isinstance(file, io.BufferedReader) and isinstance(file.raw, io.FileIO) and hasattr(select, "poll")):
        return read(file)
    if file.seekable() or not os.get_blocking(file.fileno()):
        return read(file)
    lines = LiveLines(file)
    return Arriving(read(cast("BinaryIO", lines)), lines)  # readers of streams ask for lines alone
