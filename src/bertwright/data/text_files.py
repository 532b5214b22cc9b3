"""Text files as they are opened and read, line by line: strict, and in bounded memory.

What the system says about a file, and what is no text, ends in one line that names the place.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from bertwright.errors import BertwrightError

LONGEST_LINE = 16 << 20  # bytes; a longer line is a wrong file, not a text
BOM = b"\xef\xbb\xbf"
_NO_TEXT = {  # what such files begin with
    b"PK\x03\x04": "a zip archive or an Excel workbook, not text; save it as CSV, or unpack it",
    b"\x1f\x8b": "compressed by gzip; unpack it first",
    b"\xfd7zXZ\x00": "compressed by xz; unpack it first",
}


@contextlib.contextmanager
def opening(path: Path) -> Iterator[BinaryIO]:
    """Open a file; what the system says about it, also later on, becomes one line.

    Raises:
        BertwrightError: it is missing, or cannot be read.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise BertwrightError(f"{path}: cannot be read: {error.strerror or error}; is the name right?") from None
    with file:
        try:
            yield file
        except OSError as error:
            raise BertwrightError(f"{path}: reading it failed: {error.strerror or error}") from None


def lines_of(file: BinaryIO, name: str) -> Iterator[tuple[int, str]]:
    """Yield (line number, text without its line ending) of UTF-8 text, a byte order mark left out.

    Raises:
        BertwrightError: a line is not UTF-8, holds a NUL byte, or is longer than ``LONGEST_LINE``.
    """
    number = 0
    while raw := file.readline(LONGEST_LINE + 1):
        number += 1
        if len(raw) > LONGEST_LINE:
            raise BertwrightError(f"{name}:{number}: the line is longer than {LONGEST_LINE >> 20} MiB; is this a text file?")
        if number == 1:
            raw = raw.removeprefix(BOM)
            for magic, what in _NO_TEXT.items():
                if raw.startswith(magic):
                    raise BertwrightError(f"{name}: {what}")
        if b"\x00" in raw:
            raise BertwrightError(f"{name}:{number}: the line holds a NUL byte; save the file as UTF-8 text")
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            bad = raw[error.start]
            raise BertwrightError(
                f"{name}:{number}: byte 0x{bad:02x} at position {error.start + 1} is not UTF-8; save the file as UTF-8"
            ) from None
        yield number, text.removesuffix("\n").removesuffix("\r")


def stray_return(where: str) -> BertwrightError:
    """The error for a carriage return that ends no line."""
    return BertwrightError(
        f"{where}: a carriage return stands inside the line; save the file with a line feed at the end of each line"
    )
