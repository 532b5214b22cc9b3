"""A prepared corpus on disk: tokens of whole documents, ready to be read, or mapped into memory.

    manifest.json                     what the corpus is, and the size and SHA-256 of every other file
    tokenizer/                        a copy of the tokenizer that made the ids
    continues.npy                     uint8 [vocabulary]: 1 for an entry that continues a word, such as ``##ing``
    skipped.jsonl                     what of the input could not be read, and why
    shards/00000/train.tokens.npy     uint16, or uint32 for 65,536 entries or more; no special tokens
    shards/00000/train.sentences.npy  int64 [sentences + 1]: sentence s is tokens[sentences[s] : sentences[s + 1]]
    shards/00000/train.documents.npy  int64 [documents + 1]: document d is sentences documents[d] to documents[d + 1] - 1
    shards/00000/heldout.*.npy        the same of the documents that are set aside for evaluation

No sentence and no document is empty. A shard that would hold no document is not there.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bertwright.errors import BertwrightError
from bertwright.tokenizer import Tokenizer

VERSION = 1
PARTS = ("train", "heldout")
MANIFEST = "manifest.json"
SHARDS = "shards"
TOKENIZER = "tokenizer"
CONTINUES = "continues.npy"
SKIPPED = "skipped.jsonl"
_ARRAYS = ("tokens", "sentences", "documents")
_ANEW = "prepare the corpus anew"

TokenArray = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]
OffsetArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Count:
    """How much a shard, or a part of a corpus, holds; ``unknown`` of its tokens are ``[UNK]``."""

    documents: int = 0
    sentences: int = 0
    tokens: int = 0
    unknown: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(*(a + b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)))


@dataclass(frozen=True, slots=True)
class FileEntry:
    """Size in bytes and SHA-256 in hex of one file."""

    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> FileEntry:
        """Measure a file."""
        with path.open("rb") as file:
            return cls(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


@dataclass(frozen=True)
class Manifest:
    """What a prepared corpus is. Two with equal manifests hold the same bytes.

    ``special_ids`` maps ``pad``, ``unk``, ``cls``, ``sep`` and ``mask`` to ids. ``format``, ``heldout``, ``seed`` and
    ``shard_bytes`` are the options of `bertwright.preparation.prepare`. ``shards`` maps the part to the name and the
    count of each of its shards; ``files`` maps paths below the directory, with ``/``, to what lies there.
    """

    tokenizer_digest: str
    vocab_size: int
    special_ids: Mapping[str, int]
    format: Mapping[str, str]
    heldout: float
    seed: int
    shard_bytes: int
    made_with: Mapping[str, str]
    duplicates: int
    skipped: int
    empty_documents: int
    empty_sentences: int
    parts: Mapping[str, Count]
    shards: Mapping[str, Mapping[str, Count]]
    files: Mapping[str, FileEntry]
    version: int = VERSION

    def to_json(self) -> str:
        """The manifest as the text of manifest.json: the same for the same content."""
        return json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, where: str) -> Manifest:
        """Read what `to_json` wrote; ``where`` names it in messages.

        Raises:
            BertwrightError: it is no JSON, no manifest, or one of another version.
        """
        try:
            given = json.loads(text)
            version = given["version"]
        except (ValueError, TypeError, KeyError) as error:
            raise BertwrightError(f"{where}: no manifest of a prepared corpus ({error}); {_ANEW}") from None
        if version != VERSION:
            raise BertwrightError(
                f"{where}: version {version!r} of the format, where this bertwright has {VERSION}; {_ANEW}"
            )
        try:
            given["parts"] = {part: Count(**given["parts"][part]) for part in PARTS}
            given["shards"] = {
                part: {name: Count(**count) for name, count in given["shards"][part].items()} for part in PARTS
            }
            given["files"] = {path: FileEntry(**entry) for path, entry in given["files"].items()}
            return cls(**given)
        except (TypeError, AttributeError, KeyError) as error:
            raise BertwrightError(f"{where}: a damaged manifest ({error}); {_ANEW}") from None


@dataclass(frozen=True, slots=True)
class Shard:
    """Some documents of a part. Each of the arrays is mapped anew when it is asked for: keep it while you use it.

    Nothing is kept open, so that a corpus may have more shards than a process may have files.
    """

    directory: Path
    part: str
    count: Count

    @property
    def tokens(self) -> TokenArray:
        """Ids [tokens], read-only, mapped into memory."""
        return self._map("tokens")

    @property
    def sentences(self) -> OffsetArray:
        """Offsets into `tokens` [sentences + 1], from 0 on."""
        return self._map("sentences")

    @property
    def documents(self) -> OffsetArray:
        """Offsets into `sentences` [documents + 1], from 0 on."""
        return self._map("documents")

    def read(self) -> TextInMemory:
        """The arrays in memory: where a file shrinks meanwhile, reading raises, but a mapping ends the process (SIGBUS).

        Raises:
            BertwrightError: a file is missing, or no longer whole.
        """
        paths = (array_path(self.directory, self.part, array) for array in _ARRAYS)
        return TextInMemory(*(_load(path, mapped=False) for path in paths))

    def _map(self, array: str) -> npt.NDArray[Any]:
        return _load(array_path(self.directory, self.part, array), mapped=True)


@dataclass(frozen=True, slots=True)
class TextInMemory:
    """What a `Shard` has, or several end to end, as arrays in memory."""

    tokens: npt.NDArray[Any]
    sentences: OffsetArray
    documents: OffsetArray


@dataclass(frozen=True)
class TokenCorpus:
    """One part of a prepared corpus, opened without reading its tokens."""

    directory: Path
    part: str
    manifest: Manifest

    @classmethod
    def open(cls, directory: str | Path, part: str = "train") -> TokenCorpus:
        """Read the manifest, and check that the files of the part are there with their sizes.

        Raises:
            BertwrightError: the directory is no prepared corpus or one of another version, a file is missing or has
                another size, or the part is neither "train" nor "heldout".
        """
        folder = Path(directory)
        if part not in PARTS:
            raise BertwrightError(f"part is {part!r}; a prepared corpus has {' and '.join(PARTS)}")
        file = folder / MANIFEST
        if not file.is_file():
            there = "holds no manifest.json" if folder.is_dir() else "no such directory"
            raise BertwrightError(f"{folder}: {there}; name what `bertwright prepare` wrote")
        manifest = Manifest.from_json(file.read_bytes(), str(file))
        corpus = cls(folder, part, manifest)
        wanted = {path.relative_to(folder).as_posix() for shard in corpus.shards for path in _paths(shard)} | {CONTINUES}
        for name in sorted(wanted):
            if name not in manifest.files:
                raise BertwrightError(f"{file}: a damaged manifest (it says nothing of {name}); {_ANEW}")
            corpus._check_size(name, manifest.files[name])
        return corpus

    @property
    def count(self) -> Count:
        """Documents, sentences and tokens of the part."""
        return self.manifest.parts[self.part]

    @cached_property
    def shards(self) -> tuple[Shard, ...]:
        """The shards, in the order of the text they were made of."""
        shards = self.manifest.shards[self.part]
        in_order = sorted(shards, key=lambda name: (len(name), name))  # names are numbers, of five digits or more
        return tuple(Shard(self.directory / SHARDS / name, self.part, shards[name]) for name in in_order)

    @cached_property
    def continues(self) -> npt.NDArray[np.uint8]:
        """uint8 [vocabulary]: 1 where an entry continues the word of the token before it, else 0."""
        return _load(self.directory / CONTINUES, mapped=False)

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hex, that stands for everything in the prepared corpus."""
        return hashlib.sha256(self.manifest.to_json().encode()).hexdigest()

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that made the ids.

        Raises:
            BertwrightError: its files are damaged, or no longer those of the corpus.
        """
        tokenizer = Tokenizer.from_directory(self.directory / TOKENIZER)
        if tokenizer.digest != self.manifest.tokenizer_digest:
            raise BertwrightError(f"{self.directory / TOKENIZER}: not the tokenizer that the corpus was made with; {_ANEW}")
        return tokenizer

    def check_tokenizer(self, tokenizer: Tokenizer, source: str) -> None:
        """Check that ``tokenizer``, named ``source`` in messages, gives the ids of this corpus.

        Raises:
            BertwrightError: it is another one.
        """
        if tokenizer.digest != self.manifest.tokenizer_digest:
            sizes = f"{tokenizer.vocab_size:,} entries, the corpus {self.manifest.vocab_size:,}"
            remedy = f"prepare the corpus with --tokenizer {source}"
            raise BertwrightError(f"{self.directory}: made with another tokenizer than {source} (it has {sizes}); {remedy}")

    def verify(self, shards: Iterable[Shard] | None = None) -> None:
        """Read every file of some shards, or else of the whole corpus, of both parts, and compare its checksum.

        It takes about a second for 1 GB, with what the disk needs: pretraining, which may have a terabyte to read, does it
        for those shards that it comes to.

        Raises:
            BertwrightError: a file is missing, truncated or altered.
        """
        files = self.manifest.files
        if shards is not None:
            names = [path.relative_to(self.directory).as_posix() for shard in shards for path in _paths(shard)]
            files = {name: files[name] for name in names}
        for name, entry in files.items():
            self._check_size(name, entry)
            if FileEntry.of(self.directory / name) != entry:
                raise BertwrightError(f"{self.directory / name}: altered since it was written (another SHA-256); {_ANEW}")

    def _check_size(self, name: str, entry: FileEntry) -> None:
        path = self.directory / name
        if not path.is_file():
            raise BertwrightError(f"{path}: missing; {_ANEW}")
        if (size := path.stat().st_size) != entry.bytes:
            what = "truncated" if size < entry.bytes else "altered"
            raise BertwrightError(f"{path}: {what}: {size:,} bytes where {entry.bytes:,} were written; {_ANEW}")


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """The type of stored ids, little-endian on every machine."""
    return np.dtype("<u2" if vocab_size < 1 << 16 else "<u4")


def array_path(directory: Path, part: str, array: str) -> Path:
    """Where a shard's directory has one of its arrays."""
    return directory / f"{part}.{array}.npy"


def write_shard(
    directory: Path,
    part: str,
    tokens: npt.ArrayLike,
    sentence_lengths: npt.ArrayLike,
    document_lengths: npt.ArrayLike,
    vocab_size: int,
) -> None:
    """Write one shard into an existing directory.

    Args:
        directory: Where; the part's name is in the names of the files.
        part: "train" or "heldout".
        tokens: Ids [tokens], below `vocab_size`.
        sentence_lengths: Tokens of each sentence [sentences]; none is 0.
        document_lengths: Sentences of each document [documents]; none is 0.
        vocab_size: Decides the type of the stored ids.
    """
    ids, sentences, documents = np.asarray(tokens), np.asarray(sentence_lengths), np.asarray(document_lengths)
    assert part in PARTS
    assert ids.max(initial=0) < vocab_size
    assert sentences.sum() == len(ids)
    assert documents.sum() == len(sentences)
    assert (sentences > 0).all()
    assert (documents > 0).all()
    arrays = (ids.astype(token_dtype(vocab_size), copy=False), _offsets(sentences), _offsets(documents))
    for name, array in zip(_ARRAYS, arrays, strict=True):
        np.save(array_path(directory, part, name), array, allow_pickle=False)


def continues_word(tokenizer: Tokenizer) -> npt.NDArray[np.uint8]:
    """uint8 [vocabulary]: 1 for each entry that continues a word, so that whole words can be masked."""
    entries = tokenizer.tokens(range(tokenizer.vocab_size))
    return np.array([len(entry) > 2 and entry.startswith("##") for entry in entries], np.uint8)


def _offsets(lengths: npt.NDArray[Any]) -> OffsetArray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype("<i8")


def _paths(shard: Shard) -> list[Path]:
    return [array_path(shard.directory, shard.part, array) for array in _ARRAYS]


def _load(path: Path, *, mapped: bool) -> npt.NDArray[Any]:
    try:
        array: npt.NDArray[Any] = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except FileNotFoundError:
        raise BertwrightError(f"{path}: missing; {_ANEW}") from None
    except (OSError, ValueError, EOFError) as error:
        raise BertwrightError(f"{path}: cannot be read ({error}); {_ANEW}") from error
    return array
