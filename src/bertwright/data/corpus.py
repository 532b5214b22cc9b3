"""Read raw text, document by document, out of text files, JSON lines, Parquet and data sets of the Hugging Face hub.

A corpus of any size streams through in bounded memory. What cannot be read is reported and passed over, since among
millions of documents some always are broken; pass `refuse` to have the first one end the reading instead.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertwright.data.hub_rows import HubSource, hub_rows, is_hub
from bertwright.data.lines import COMPRESSIONS, LONGEST_LINE, cut_line, text_lines
from bertwright.errors import BertwrightError, did_you_mean, tell

__all__ = [
    "LARGEST_DOCUMENT",
    "CorpusFormat",
    "Document",
    "Skipped",
    "check_apart",
    "corpus_files",
    "input_bytes",
    "read_documents",
    "refuse",
]

LARGEST_DOCUMENT = LONGEST_LINE
"""Bytes of UTF-8, 64 MiB. What is larger becomes several documents, and is told."""

_TEXT, _JSON_LINES, _PARQUET = ("", ".txt", ".text"), (".jsonl", ".ndjson", ".json"), (".parquet",)
_ARCHIVES = (".tar", ".tgz", ".zip", ".7z", ".rar")
_DOCUMENTS = ("auto", "blank-line", "file", "record")
_SENTENCES = ("split", "line")
_PARQUET_BATCH = 64  # rows held at a time: each may be a book


@dataclass(frozen=True)
class CorpusFormat:
    """How documents and sentences lie in files.

    Raises:
        BertwrightError: A value is none of those below.
    """

    documents: str = "auto"
    """What a document is. ``blank-line``: what stands between blank lines. ``file``: a whole file. ``record``: one record of
    JSON lines, Parquet or the hub, or one line of a text file. ``auto``: blank-line for text, record for all others."""
    text: str = "text"
    """The field, or column, that holds the text of a record."""
    sentences: str = "split"
    """``split``: found by `sentencex` in each line. ``line``: each line is one, as BERT itself was given them."""
    language: str = "auto"
    """For `split`: a code such as en or zh, or ``auto``: by the script of each document."""

    def __post_init__(self) -> None:
        for name, value, known in (
            ("documents", self.documents, _DOCUMENTS),
            ("sentences", self.sentences, _SENTENCES),
        ):
            if value not in known:
                raise BertwrightError(f"{name} is {value!r}{did_you_mean(value, known)}; use one of: {', '.join(known)}")
        if not re.fullmatch(r"auto|[a-z]{2,3}(-[a-z]+)*", self.language):
            raise BertwrightError(f"language is {self.language!r}; use a code such as en, de or zh, or auto")


@dataclass(frozen=True, slots=True)
class Document:
    """A text, whose paragraphs are lines, and where it begins: ``file:line``, or ``file: record n`` counted from 1."""

    text: str
    where: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something that was not read, and why."""

    where: str
    reason: str


def refuse(skipped: Skipped) -> None:
    """The callback for :func:`read_documents` under which nothing may be unreadable.

    Raises:
        BertwrightError: Always.
    """
    raise BertwrightError(f"{skipped.where}: {skipped.reason}")


def corpus_files(paths: str | Path | Iterable[str | Path]) -> list[Path]:
    """Return the files of a corpus, in the order in which they are read.

    A folder inside one of the folders that cannot be listed is returned itself: :func:`read_documents` reports it.

    Args:
        paths: Files; folders, whose files are taken in sorted order, those in folders inside too, without hidden ones;
            and data sets of the hub as ``hub:owner/name``, ``hub:owner/name:config`` or ``hub:owner/name:config:split``
            (the split is train unless named; ``@revision`` may follow the name). A file's ending says what it is: .jsonl,
            .ndjson and .json are JSON lines, .parquet is Parquet; .txt, .text and no ending at all are text; .gz, .xz,
            .bz2 or .zst may follow, except after .parquet. Of a folder, files with other endings are left out, which is
            told; a file that is named is text. A single path needs no list around it.

    Raises:
        BertwrightError: There is no such path, an archive is named, or there are no files.
    """
    found: dict[Path, Path] = {}  # by where they really are, so that none is read twice
    given = _paths(paths)
    twice = 0
    for path in given:
        if is_hub(path):
            files = [path]
            HubSource.parse(str(path))
        elif path.is_dir():
            files = _files_of_folder(path)
        elif not path.exists():
            raise BertwrightError(f"{path}: no such file or folder; for a data set of the hub write hub:owner/name")
        else:
            if set(path.suffixes[-2:]) & set(_ARCHIVES):
                raise BertwrightError(f"{path}: an archive; unpack it and name the folder")
            files = [path]
        for file in files:
            place = file if is_hub(file) else file.resolve()
            twice += place in found
            found.setdefault(place, file)
    if twice:
        tell(f"{twice:,} of the files of the corpus were named twice; each is read once")
    if not found:
        raise BertwrightError(f"{', '.join(map(str, given)) or 'corpus'}: no text, JSON lines or Parquet files there")
    return list(found.values())


def check_apart(out: Path, files: Iterable[Path], paths: str | Path | Iterable[str | Path]) -> None:
    """Check that a directory to be written holds nothing of the corpus, and will not be read as a part of it next time.

    Args:
        out: The directory, resolved.
        files: What :func:`corpus_files` made of the paths.
        paths: What it was given.

    Raises:
        BertwrightError: It does, or would be.
    """
    for path in files:
        if path.resolve().is_relative_to(out):
            raise BertwrightError(f"{out}: holds {path} of the corpus; choose another --out")
    for path in _paths(paths):
        if out.is_relative_to(path.resolve()):
            raise BertwrightError(f"{out}: lies in {path}, where it would be read as text; choose another --out")


def input_bytes(files: Iterable[Path]) -> int | None:
    """Return the size of all files together, as they lie on the disk; None where a data set of the hub is among them."""
    given = list(files)
    if any(map(is_hub, given)):
        return None
    return sum(file.stat().st_size for file in given if file.exists())


def read_documents(
    files: Sequence[Path],
    format: CorpusFormat,
    skipped: Callable[[Skipped], None],
    advanced: Callable[[int], None] = lambda count: None,
) -> Iterator[Document]:
    """Yield the documents of files, in order, none of them blank; blank lines inside are left out.

    A document over `LARGEST_DOCUMENT` is cut between lines, or within a line at the end of a sentence, into several; that
    is told. Text of records is cut into documents as `CorpusFormat.documents` says, as text of files is.

    Args:
        files: What :func:`corpus_files` returned.
        format: How documents lie in them.
        skipped: Called with each line, record, file or folder that cannot be read: not UTF-8, a NUL byte, no JSON, without
            the text or with an empty one, damaged, cut off, empty. A damaged file is used up to the damage.
        advanced: Called with the number of bytes that were read of the files, compressed as they are, since the last
            call; not called for the hub. Their sum is :func:`input_bytes` in the end.

    Raises:
        BertwrightError: There was no document at all, a library is missing, or the hub cannot be read.
    """
    first: list[Skipped] = []
    anything = False

    def skip(one: Skipped) -> None:
        if not first:
            first.append(one)
        skipped(one)

    for file in files:
        for document in _documents_of_file(file, format, skip, advanced):
            anything = True
            yield document
    if not anything:
        why = f"; {first[0].where}: {first[0].reason}" if first else ""
        raise BertwrightError(f"no text in the corpus (files: {len(files):,}){why}")


def _paths(given: str | Path | Iterable[str | Path]) -> list[Path]:
    # The characters of a string would pass for paths, "/" among them.
    return [Path(path) for path in ([given] if isinstance(given, str | Path) else given)]


def _kind(path: Path) -> str:
    """The ending that says what is in a file; an ending of a compression is passed over."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _is_known(path: Path) -> bool:
    return _kind(path) in _TEXT + _JSON_LINES or path.suffix.lower() in _PARQUET


def _files_of_folder(folder: Path) -> list[Path]:
    files: list[Path] = []
    others: Counter[str] = Counter()
    # A link may lead back to a folder above it.
    unseen, seen = [folder], {folder.resolve()}
    while unseen:
        inside = unseen.pop()
        try:
            entries = [(entry, entry.is_dir()) for entry in inside.iterdir() if not entry.name.startswith(".")]
        except OSError:
            files.append(inside)
            continue
        for entry, is_folder in entries:
            if is_folder:
                if entry.resolve() not in seen:
                    seen.add(entry.resolve())
                    unseen.append(entry)
            elif (entry.is_file() or entry.is_symlink()) and _is_known(entry):
                files.append(entry)
            else:
                others[entry.suffix.lower() or entry.name] += 1
    if others:
        endings = ", ".join(sorted(others)[:10])
        tell(
            f"{folder}: left out {others.total():,} of its files, which by their endings ({endings}) are no text, JSON "
            "lines or Parquet; name one itself to have it read as text"
        )
    return sorted(files, key=lambda file: file.parts)


# A line of a document: the number of its line or record, the line, and whether the record ends with it.
_Lines = Iterator[tuple[int, str, bool]]


def _documents_of_file(
    file: Path, format: CorpusFormat, skipped: Callable[[Skipped], None], advanced: Callable[[int], None]
) -> Iterator[Document]:
    if not is_hub(file) and file.is_dir():
        skipped(Skipped(str(file), "a folder that cannot be read; change its rights to have it"))
        advanced(file.stat().st_size)
        return
    counted = "record " if is_hub(file) or _kind(file) in _PARQUET else ""

    def place(number: int) -> str:
        return f"{file}: {counted}{number}" if counted else f"{file}:{number}"

    reported = False
    read = 0

    def advance(count: int) -> None:
        nonlocal read
        read += count
        advanced(count)

    def report(number: int, reason: str) -> None:
        nonlocal reported
        reported = True
        skipped(Skipped(place(number), reason))

    records: Iterator[tuple[int, Any]] | None = None
    if is_hub(file):
        records = _hub_records(str(file), format.text)
    elif _kind(file) in _PARQUET:
        records = _parquet_records(file, format.text, report, advance)
    elif _kind(file) in _JSON_LINES:
        records = _json_records(file, format.text, report, advance)
    by = format.documents
    if by == "auto":
        by = "blank-line" if records is None else "record"
    if records is None:
        lines: _Lines = ((number, line, by == "record") for number, line, _ in text_lines(file, report, advance))
    else:
        lines = _lines_of_records(records, report)
    anything = False
    for document in _gather(lines, by, place):
        anything = True
        yield document
    if not (anything or reported):
        skipped(Skipped(str(file), "empty"))
    if not is_hub(file) and file.exists():
        advanced(file.stat().st_size - read)  # what lies behind damage


def _gather(lines: _Lines, by: str, place: Callable[[int], str]) -> Iterator[Document]:
    gathered: list[str] = []
    size = begin = 0
    told = False
    for number, line, last in lines:
        if line and not line.isspace():
            length = len(line.encode()) + 1
            if gathered and size + length > LARGEST_DOCUMENT:
                if not told:
                    limit = f"{LARGEST_DOCUMENT >> 20} MiB"
                    tell(f"{place(begin)}: this document is longer than {limit} and was cut into several")
                    told = True
                yield Document("\n".join(gathered), place(begin))
                gathered, size = [], 0
            if not gathered:
                begin = number
            gathered.append(line)
            size += length
        elif by == "blank-line":
            last = True
        if last and by != "file":
            if gathered:
                yield Document("\n".join(gathered), place(begin))
            gathered, size, told = [], 0, False
    if gathered:
        yield Document("\n".join(gathered), place(begin))


def _lines_of_records(records: Iterator[tuple[int, Any]], report: Callable[[int, str], None]) -> _Lines:
    for number, text in records:
        try:
            if text is None:
                report(number, "the text is missing")
            elif not isinstance(text, str):
                report(number, f"the text is {repr(text)[:40]}, of type {type(text).__name__}")
            elif not text or text.isspace():
                report(number, "the text is empty")
            elif "\x00" in text:
                report(number, "holds a NUL character")
            else:
                lines = [piece.decode() for line in text.split("\n") for piece in cut_line(line.encode())]
                for place, line in enumerate(lines, 1):
                    yield number, line, place == len(lines)
        except UnicodeEncodeError:
            report(number, "holds half a character (U+D800 to U+DFFF)")


def _json_records(
    file: Path, field: str, report: Callable[[int, str], None], advanced: Callable[[int], None]
) -> Iterator[tuple[int, Any]]:
    too_long = False
    for number, line, more in text_lines(file, report, advanced):
        if more or too_long:
            if not more:
                report(number, f"longer than {LONGEST_LINE >> 20} MiB")
            too_long = more
            continue
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            report(number, f"not JSON: {error}")
            continue
        if not isinstance(record, dict):
            report(number, f"a JSON {type(record).__name__} where each line should hold an object")
        elif field not in record:
            report(number, f"no field {field!r}{did_you_mean(field, record)} (fields: {', '.join(record)[:200]})")
        else:
            yield number, record[field]


def _parquet_records(
    file: Path, column: str, report: Callable[[int, str], None], advanced: Callable[[int], None]
) -> Iterator[tuple[int, Any]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise BertwrightError(f"{file}: reading Parquet needs: pip install pyarrow") from None
    number = done = 0
    try:
        with file.open("rb") as opened, pyarrow.parquet.ParquetFile(opened) as table:
            size, rows = file.stat().st_size, table.metadata.num_rows
            known = table.schema_arrow.names
            if column not in known:
                report(1, f"no column {column!r}{did_you_mean(column, known)} (columns: {', '.join(known)[:200]})")
                return
            for batch in table.iter_batches(batch_size=_PARQUET_BATCH, columns=[column]):
                for text in batch.column(0):
                    number += 1
                    try:
                        yield number, text.as_py()
                    except UnicodeDecodeError:
                        report(number, "not UTF-8")
                advanced(size * number // rows - done)
                done = size * number // rows
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0]
        report(number + 1, f"not readable as Parquet: {reason}; what comes before is used")


def _hub_records(source: str, field: str) -> Iterator[tuple[int, Any]]:
    for number, row in enumerate(hub_rows(HubSource.parse(source)), 1):
        if field not in row:
            known = f"{did_you_mean(field, row)} (columns: {', '.join(row)[:200]})"
            raise BertwrightError(f"{source}: no column {field!r}{known}")
        yield number, row[field]
