"""Lines of text files, plain or compressed: in bounded memory, and on past what cannot be read."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from bertwright.errors import BertwrightError

LONGEST_LINE = 64 << 20
"""Bytes. A longer line comes in pieces, cut where a sentence ends, so that memory stays bounded."""

_PLAIN_STEP = 1 << 18
# A few bytes can stand for very many: of 4 KiB, zstandard, which knows no limit, makes at most 128 MiB.
_COMPRESSED_STEP = 4096
_XZ_MEMORY = 1 << 28  # bytes; what `xz -9` wrote takes a quarter of it
_SENTENCE_ENDS = tuple(end.encode() for end in (". ", "! ", "? ", "。", "！", "？", "؟ ", "। "))
_BOM = b"\xef\xbb\xbf"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")

Report = Callable[[int, str], None]
"""Takes the number of a line and why it, or what follows it, cannot be read."""


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


class _DamageError(Exception):
    """A file cannot be read from here on."""


def _zstandard() -> Any:
    import zstandard  # an extra

    return zstandard.ZstdDecompressor().decompressobj()


COMPRESSIONS: dict[str, Callable[[], _Decompressor]] = {
    ".gz": partial(zlib.decompressobj, wbits=31),
    ".xz": partial(lzma.LZMADecompressor, memlimit=_XZ_MEMORY),
    ".bz2": bz2.BZ2Decompressor,
    ".zst": _zstandard,
}
"""What to read a file with, by the ending of its name. A file may hold several members, one after the other."""


def text_lines(path: Path, report: Report, advanced: Callable[[int], None]) -> Iterator[tuple[int, str, bool]]:
    """Yield (line number, text without its line end, whether the line goes on) of a file of UTF-8.

    A byte order mark is left out. A line over `LONGEST_LINE` comes in pieces that are marked to go on, all but the
    last. So is what there is of the last line of a file that ends in damage.

    Args:
        path: Its ending says whether it is compressed; see `COMPRESSIONS`.
        report: Called for a line that is not UTF-8 or holds a NUL byte, and where the file is damaged, cut off or fails
            to be read. What came before damage is yielded all the same.
        advanced: Called with the number of bytes that were read of the file, compressed as it is.

    Raises:
        BertwrightError: A library is missing.
    """
    for number, raw, more in _raw_lines(path, report, advanced):
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            if not (more and error.reason == "unexpected end of data"):
                report(number, f"byte 0x{raw[error.start]:02x} at position {error.start + 1} is not UTF-8")
                continue
            text = raw[: error.start].decode()  # damage came in the middle of a character
        if "\x00" in text:
            report(number, "holds a NUL byte")
            continue
        yield number, text, more


def cut_line(line: bytes) -> Iterator[bytes]:
    """Yield `line`, UTF-8, in pieces of at most `LONGEST_LINE` bytes.

    Cut where a sentence ends, else at a blank, each looked for in the last 64 KiB of a piece, else between characters.
    """
    while len(line) > LONGEST_LINE:
        window = line[max(0, LONGEST_LINE - (1 << 16)) : LONGEST_LINE]
        after = max(window.rfind(end) + len(end) if end in window else 0 for end in _SENTENCE_ENDS)
        after = after or window.rfind(b" ") + 1
        place = LONGEST_LINE - len(window) + after if after else LONGEST_LINE
        while line[place] & 0xC0 == 0x80 and place > 1:  # inside a character
            place -= 1
        yield line[:place]
        line = line[place:]
    yield line


def _raw_lines(path: Path, report: Report, advanced: Callable[[int], None]) -> Iterator[tuple[int, bytes, bool]]:
    number, size, damaged = 1, 0, False
    parts: list[bytes] = []  # of the line that is not complete yet
    try:
        for chunk in _chunks(path, advanced):
            pieces = chunk.split(b"\n")
            last = len(pieces) - 1
            for index, piece in enumerate(pieces):
                parts.append(piece)
                size += len(piece)
                if index == last and size <= LONGEST_LINE:
                    break
                *full, line = cut_line(b"".join(parts))
                for one in full:
                    yield number, one, True
                if index == last:
                    parts, size = [line], len(line)
                else:
                    yield number, line.removesuffix(b"\r"), False
                    parts, size = [], 0
                    number += 1
    except _DamageError as damage:
        report(number, str(damage))
        damaged = True
    if size:
        yield number, b"".join(parts), damaged


def _chunks(path: Path, advanced: Callable[[int], None]) -> Iterator[bytes]:
    """Yield the text's bytes as they come, without a byte order mark."""
    chunks = _stored(path, advanced) if path.suffix.lower() not in COMPRESSIONS else _decompressed(path, advanced)
    begin = b""
    for chunk in chunks:
        begin += chunk
        if len(begin) >= len(_BOM):
            break
    if begin.startswith(_UTF_16):
        raise _DamageError("the file is UTF-16; save it as UTF-8")
    yield begin.removeprefix(_BOM)
    yield from chunks


def _stored(path: Path, advanced: Callable[[int], None], step: int = _PLAIN_STEP) -> Iterator[bytes]:
    try:
        with path.open("rb", buffering=_PLAIN_STEP) as file:
            while data := file.read(step):
                advanced(len(data))
                yield data
    except OSError as error:
        raise _DamageError(f"cannot be read: {error.strerror or error}") from error


def _decompressed(path: Path, advanced: Callable[[int], None]) -> Iterator[bytes]:
    new = COMPRESSIONS[path.suffix.lower()]
    member: _Decompressor | None = None
    for data in _stored(path, advanced, _COMPRESSED_STEP):
        while data:
            if member is None:
                data = data.lstrip(b"\x00")  # padding between members, and behind the last
                if not data:
                    break
                try:
                    member = new()
                except ImportError:
                    raise BertwrightError(f"{path}: reading it needs: pip install zstandard") from None
            try:
                text = member.decompress(data)
            except Exception as error:  # each library has errors of its own
                raise _DamageError(f"damaged: {error}; what comes before is used") from error
            yield text
            data, member = (member.unused_data, None) if member.eof else (b"", member)
    if member is not None:
        raise _DamageError("cut off: the compressed data ends too early; what comes before is used")
