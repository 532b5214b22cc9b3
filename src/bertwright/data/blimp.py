"""BLiMP's minimal pairs of English grammar, out of folders, files and archives.

Warstadt et al. 2020, arXiv 1912.00582: 67 sets of 1,000 pairs, each set one contrast of grammar, the sets in 12 phenomena.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import json
import lzma
import tarfile
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from bertwright.data.text_files import lines_of
from bertwright.errors import BertwrightError, did_you_mean

JSON_LINES = (".jsonl", ".ndjson")
ARCHIVES: dict[str, Any] = {
    ".tar": Path.open,
    ".tar.xz": lzma.open,
    ".txz": lzma.open,
    ".tar.gz": gzip.open,
    ".tgz": gzip.open,
    ".tar.bz2": bz2.open,
}
LARGEST_ARCHIVE = 512 << 20  # bytes when decompressed; BLiMP has 29 million
_DAMAGED = (OSError, EOFError, tarfile.TarError, lzma.LZMAError, zlib.error)

# The data files put two sets about the animacy of subjects apart; the paper's 12 phenomena, and scores
# published since, count them here.
_PUBLISHED_AS = {"s-selection": "argument_structure"}


@dataclass(frozen=True, slots=True)
class MinimalPair:
    """Two sentences that differ in one point of grammar."""

    good: str
    bad: str
    set: str
    """``UID`` of the data."""
    phenomenon: str
    """``linguistics_term`` of the data, ``s-selection`` as argument_structure, where the paper has it."""
    number: str | None
    """``pairID`` of the data, of its set."""
    where: str


def read_pairs(path: str | Path, only: Sequence[str] = ()) -> list[MinimalPair]:
    """Read minimal pairs in BLiMP's format: JSON lines with sentence_good, sentence_bad, UID and linguistics_term.

    Args:
        path: a JSON-lines file; a folder, of which every such file is read, in the order of their names; or a tar
            archive of them (.tar, .tar.xz, .tar.gz, .tar.bz2). Of an archive nothing is written to the disk.
        only: names of sets or phenomena to keep; none keeps all.

    Raises:
        BertwrightError: nothing to read there; an archive that is damaged or larger than 512 MiB; a line that is no
            such pair, or a pair that was there already; a name in ``only`` that the data does not have.
    """
    path = Path(path)
    pairs: list[MinimalPair] = []
    seen: dict[tuple[str, str], str] = {}
    with _one_line(path):
        for name, file in _files(path):
            for number, line in lines_of(file, name):
                if not line.strip():
                    continue
                pair = _pair(line, f"{name}:{number}")
                if pair.number is not None:
                    before = seen.setdefault((pair.set, pair.number), pair.where)
                    if before != pair.where:
                        raise BertwrightError(
                            f"{pair.where}: pair {pair.number} of {pair.set} stands at {before} already; delete one"
                        )
                pairs.append(pair)
    if not pairs:
        raise BertwrightError(f"{path}: holds no minimal pairs; give BLiMP's .jsonl files, their folder or their archive")
    known = {pair.set for pair in pairs} | {pair.phenomenon for pair in pairs}
    for wanted in only:
        if wanted not in known:
            raise BertwrightError(f"{path}: no set or phenomenon {wanted!r}{did_you_mean(wanted, known)}")
    return [pair for pair in pairs if not only or pair.set in only or pair.phenomenon in only]


def sample(pairs: Sequence[MinimalPair], per_set: int) -> list[MinimalPair]:
    """Return ``per_set`` pairs of each set, evenly spaced over it; of a smaller set all.

    Raises:
        BertwrightError: ``per_set`` is below 1.
    """
    if per_set < 1:
        raise BertwrightError(f"{per_set} pairs of each set leave nothing to judge by; take at least 1")
    sets: defaultdict[str, list[MinimalPair]] = defaultdict(list)
    for pair in pairs:
        sets[pair.set].append(pair)
    return [
        members[place * len(members) // count]
        for members in sets.values()
        for count in [min(per_set, len(members))]
        for place in range(count)
    ]


def _files(path: Path) -> Iterator[tuple[str, BinaryIO]]:
    """Yield (name for messages, open file) of every JSON-lines file there."""
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if _is_wanted(file.name) and file.is_file():
                with file.open("rb") as opened:
                    yield str(file), opened
    elif opener := next((how for ending, how in ARCHIVES.items() if path.name.lower().endswith(ending)), None):
        with opener(path, "rb") as opened:
            yield from _members(path, opened)
    elif path.suffix.lower() in JSON_LINES or not path.exists():
        with path.open("rb") as opened:
            yield str(path), opened
    else:
        endings = ", ".join((*JSON_LINES, *ARCHIVES))
        raise BertwrightError(f"{path}: cannot tell its format by its name; give a folder or a file that ends in {endings}")


def _is_wanted(name: str) -> bool:
    """Whether it is a JSON-lines file, and none that macOS puts beside one in an archive."""
    return name.lower().endswith(JSON_LINES) and not name.startswith(".")


def _members(path: Path, archive: BinaryIO) -> Iterator[tuple[str, BinaryIO]]:
    # As a stream, nothing is sought, extracted or followed: a member's name is only ever shown.
    with tarfile.open(fileobj=io.BufferedReader(_Bounded(path, archive)), mode="r|") as tar:
        for member in tar:
            if member.isreg() and not member.issparse() and _is_wanted(member.name.rpartition("/")[2]):
                # Not None for a regular file.
                yield f"{path}/{member.name}", cast(BinaryIO, tar.extractfile(member))


class _Bounded(io.RawIOBase):
    """A decompressed archive that ends in an error where it grows past what any data of this kind has."""

    def __init__(self, path: Path, archive: BinaryIO) -> None:
        self._path = path
        self._archive = archive
        self._left = LARGEST_ARCHIVE

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Fill the buffer as far as there is data."""
        data = self._archive.read(min(len(buffer), self._left + 1))
        self._left -= len(data)
        if self._left < 0:
            raise BertwrightError(
                f"{self._path}: holds more than {LARGEST_ARCHIVE >> 20} MiB, which are no minimal pairs; "
                "give a folder of its .jsonl files if they are"
            )
        buffer[: len(data)] = data
        return len(data)


@contextlib.contextmanager
def _one_line(path: Path) -> Iterator[None]:
    """Turn what the file system or a damaged archive raises into one line."""
    try:
        yield
    except _DAMAGED as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise BertwrightError(f"{path}: cannot be read: {error.strerror or error}; is the name right?") from error
        raise BertwrightError(f"{path}: cut short or no archive of its kind ({error}); fetch it again") from error


def _pair(line: str, where: str) -> MinimalPair:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BertwrightError(f"{where}: not JSON: {error}") from None
    if not isinstance(row, dict):
        raise BertwrightError(f"{where}: a JSON object is expected on each line, not {line[:40]!r}")
    good, bad, uid, term = _texts(row, ("sentence_good", "sentence_bad", "UID", "linguistics_term"), where)
    number = row.get("pairID")
    if number is not None and not isinstance(number, str | int):
        raise BertwrightError(f"{where}: pairID is {number!r}, not a text or a number")
    return MinimalPair(good, bad, uid, _PUBLISHED_AS.get(term, term), None if number is None else str(number), where)


def _texts(row: Mapping[str, Any], names: Iterable[str], where: str) -> list[str]:
    values = []
    for name in names:
        value = row.get(name)
        if not isinstance(value, str) or not value.strip():
            shown = "missing" if name not in row else f"{value!r}, not a text"
            raise BertwrightError(f"{where}: {name} is {shown}; each line needs it, as in BLiMP's files")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise BertwrightError(f"{where}: {name} holds half a character (\\ud800 to \\udfff)") from None
        values.append(value)
    return values
