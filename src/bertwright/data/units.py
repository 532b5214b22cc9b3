"""From documents to shards: the corpus is cut into units of about the same size, and each becomes a shard.

Where the cuts are depends on the text alone. So units can be done by any process, in any order, and done again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain, compress
from pathlib import Path

import numpy as np

from bertwright.atomic import atomic_directory, atomic_write_text
from bertwright.data.corpus import CorpusFormat, Skipped, read_documents, refuse
from bertwright.data.sentences import split_sentences
from bertwright.data.shards import PARTS, SHARDS, VERSION, Count, FileEntry, token_dtype, write_shard
from bertwright.data.word_memory import WordMemory
from bertwright.tokenizer import Tokenizer

_DIGEST = 16  # bytes: among 2^40 documents, the chance that two agree by accident is 2^-49
_NONE = bytes(_DIGEST)


@dataclass(slots=True)
class Read:
    """What was read since the unit before."""

    documents: int = 0  # those of the unit included
    duplicates: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    text_bytes: int = 0  # UTF-8
    input_bytes: int = 0  # of the files as they lie on the disk, perhaps compressed


@dataclass(frozen=True, slots=True)
class Unit:
    """Documents that one process turns into one shard, as UTF-8; ``heldout`` tells for each whether it is set aside."""

    number: int
    texts: list[bytes]
    heldout: list[bool]
    digest: str
    read: Read


@dataclass(frozen=True, slots=True)
class Record:
    """What became of a unit. ``key`` stands for its text and for all that decides the result."""

    key: str
    parts: Mapping[str, Count]
    files: Mapping[str, FileEntry]  # by their names in the shard's directory
    empty_documents: int = 0
    empty_sentences: int = 0


@dataclass(frozen=True, slots=True)
class Finished:
    """A unit that is done, in this run or (``kept``) in an earlier one that was stopped."""

    number: int
    read: Read
    record: Record
    kept: bool


class Seen:
    """A set of digests in about 32 bytes each, where Python's own takes more than a hundred."""

    def __init__(self) -> None:
        self._table = bytearray(1024 * _DIGEST)
        self._count = 0

    def add(self, digest: bytes) -> bool:
        """Add a digest; False if it was there."""
        place = self._place(digest)
        if self._table[place : place + _DIGEST] == digest:
            return False
        self._table[place : place + _DIGEST] = digest
        self._count += 1
        if 3 * self._count * _DIGEST > 2 * len(self._table):
            old, self._table = self._table, bytearray(2 * len(self._table))
            for start in range(0, len(old), _DIGEST):
                if (kept := bytes(old[start : start + _DIGEST])) != _NONE:
                    place = self._place(kept)
                    self._table[place : place + _DIGEST] = kept
        return True

    def _place(self, digest: bytes) -> int:
        """Where the digest is, or the empty place where it belongs."""
        table = self._table
        place = int.from_bytes(digest[:8], "little") * _DIGEST % len(table)
        while (there := table[place : place + _DIGEST]) != digest and there != _NONE:
            place = (place + _DIGEST) % len(table)
        return place


def read_units(
    files: Sequence[Path], format: CorpusFormat, *, heldout: float, seed: int, unit_bytes: int, strict: bool
) -> Iterator[Unit]:
    """Read a corpus and gather its documents into units of ``unit_bytes`` of text, or up to a document more.

    Exact duplicates are left out. Whether a document is set aside is decided by its text and the seed, wherever it
    stands. The last unit is smaller and may be empty: it carries what was read after the one before.

    Args:
        files: What `corpus_files` returned.
        format: How documents lie in them.
        heldout: Share of documents to set aside.
        seed: Another seed sets others aside.
        unit_bytes: UTF-8 text of a unit.
        strict: Raise for what cannot be read, instead of having the units carry it.

    Raises:
        BertwrightError: as `bertwright.data.corpus.read_documents`.
    """
    read = Read()
    seen = Seen()
    salt = hashlib.sha256(f"heldout {seed}".encode()).digest()
    number, size, texts, aside, digests = 0, 0, list[bytes](), list[bool](), list[bytes]()

    def skip(one: Skipped) -> None:
        read.skipped.append(one)

    def advance(count: int) -> None:
        read.input_bytes += count

    def unit() -> Unit:
        content = hashlib.sha256(b"".join(digests) + bytes(aside)).hexdigest()
        return Unit(number, texts, aside, content, read)

    for document in read_documents(files, format, refuse if strict else skip, advance):
        text = document.text.encode()
        read.documents += 1
        read.text_bytes += len(text)
        digest = hashlib.blake2b(text, digest_size=_DIGEST).digest()
        if not seen.add(digest):
            read.duplicates += 1
            continue
        draw = int.from_bytes(hashlib.blake2b(digest, digest_size=8, key=salt).digest(), "little")
        texts.append(text)
        digests.append(digest)
        aside.append(draw < heldout * 2.0**64)
        size += len(text)
        if size >= unit_bytes:
            yield unit()
            number, size, texts, aside, digests, read = number + 1, 0, [], [], [], Read()
    yield unit()


class UnitTokenizer:
    """Makes shards of units, below a folder; one that is there already, whole and of the same text, is kept.

    A shard is written to ``folder/tokens/shards/NNNNN``, then its record to ``folder/records/NNNNN.json``. Both appear
    whole or not at all.
    """

    def __init__(self, tokenizer: Tokenizer, format: CorpusFormat, made_with: Mapping[str, str], folder: Path) -> None:
        """Write into ``folder``. ``made_with`` has the versions of the software: another one makes shards anew."""
        self._format = format
        self._folder = folder
        self._vocab_size = tokenizer.vocab_size
        self._dtype = token_dtype(tokenizer.vocab_size)
        self._unk_id = tokenizer.unk_id
        self._memory = WordMemory(tokenizer, self._dtype)
        self._key = json.dumps(
            [VERSION, dict(made_with), tokenizer.digest, format.sentences, format.language], sort_keys=True
        )

    def __call__(self, unit: Unit) -> Finished:
        """Split the unit into sentences, those into ids, and write its shard.

        Raises:
            BertwrightError: the disk is full or cannot be written.
        """
        key = hashlib.sha256(f"{self._key} {unit.digest}".encode()).hexdigest()
        name = shard_name(unit.number)
        record_file, shard = self._folder / "records" / f"{name}.json", self._folder / "tokens" / SHARDS / name
        if (record := _read_record(record_file, key, shard)) is not None:
            return Finished(unit.number, unit.read, record, kept=True)
        record_file.unlink(missing_ok=True)
        shutil.rmtree(shard, ignore_errors=True)
        if not unit.texts:
            return Finished(unit.number, unit.read, Record(key, {}, {}), kept=False)
        with atomic_directory(shard, overwrite=False) as directory:
            record = self._write(unit, key, directory)
        atomic_write_text(record_file, json.dumps(asdict(record)))
        return Finished(unit.number, unit.read, record, kept=False)

    def _write(self, unit: Unit, key: str, directory: Path) -> Record:
        split = [split_sentences(text.decode(), self._format) for text in unit.texts]
        ids = self._memory.encode(list(chain.from_iterable(split)))
        lengths = np.fromiter(map(len, ids), np.int64, len(ids)) // self._dtype.itemsize
        document_of = np.repeat(np.arange(len(split)), [len(sentences) for sentences in split])
        aside = np.array(unit.heldout)[document_of]
        parts = {}
        for part, belongs in zip(PARTS, (~aside, aside), strict=True):
            wanted = belongs & (lengths > 0)
            if not wanted.any():
                continue
            tokens = np.frombuffer(b"".join(compress(ids, wanted)), self._dtype)
            document_lengths = np.unique(document_of[wanted], return_counts=True)[1]
            write_shard(directory, part, tokens, lengths[wanted], document_lengths, self._vocab_size)
            unknown = int(np.count_nonzero(tokens == self._unk_id))
            parts[part] = Count(len(document_lengths), int(wanted.sum()), len(tokens), unknown)
        kept_documents = sum(count.documents for count in parts.values())
        return Record(
            key,
            parts,
            {path.name: FileEntry.of(path) for path in sorted(directory.iterdir())},
            empty_documents=len(split) - kept_documents,
            empty_sentences=int((lengths == 0).sum()),
        )


def shard_name(number: int) -> str:
    """The name of a shard's directory."""
    return f"{number:05d}"


def _read_record(file: Path, key: str, shard: Path) -> Record | None:
    """The record of a finished shard, if it has this key and its files are there."""
    try:
        given = json.loads(file.read_bytes())
        if given["key"] != key:
            return None
        given["parts"] = {part: Count(**count) for part, count in given["parts"].items()}
        given["files"] = {name: FileEntry(**entry) for name, entry in given["files"].items()}
        whole = all((shard / name).stat().st_size == entry.bytes for name, entry in given["files"].items())
        return Record(**given) if whole else None
    except (OSError, ValueError, TypeError, KeyError):
        return None
