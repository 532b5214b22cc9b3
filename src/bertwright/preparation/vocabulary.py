"""Learn a WordPiece vocabulary from raw text (Wu et al. 2016, section 4.1; Devlin et al. 2019, section 3).

The trainer is that of the `tokenizers` library, which joins the most frequent pair of neighbouring pieces again and again
(as byte-pair encoding does; Google never published its own trainer). Left to itself it gives another vocabulary at each
run, and keeps the whole corpus; what is done here about both is said where it is done.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
import tokenizers
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text
from tokenizers import models, pre_tokenizers, trainers

from bertwright.atomic import atomic_directory
from bertwright.data.corpus import CorpusFormat, Skipped, check_apart, corpus_files, input_bytes, read_documents, refuse
from bertwright.data.words import EvenSample, WordCounts, blocks_of, characters_of
from bertwright.errors import BertwrightError, tell
from bertwright.telling import teller
from bertwright.tokenizer import LONGEST_WORD, Tokenizer

HEAD = ("[PAD]", *(f"[unused{number}]" for number in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""The first 104 entries, as in bert-base-uncased: the special tokens have BERT's ids 0, 100, 101, 102 and 103. The unused
entries between them, which no text matches, are for tokens that a user adds later without changing the model's shape."""

MULTIPLE = 64
"""Sizes are multiples of this, for which GPUs compute the product with the word embeddings much quicker."""

SMALLEST = 256
SMALLEST_SAMPLE, LARGEST_SAMPLE = 1 << 20, 2047 << 20
"""Bytes. A sample holds some blocks at least; and the library counts pairs of characters in 32 bits."""

REPORT_FILE = "vocabulary.json"
SKIPPED_FILE = "skipped.jsonl"

_CHARACTERS_AT_MOST = 3 / 4  # of what there is room for: a vocabulary of nothing else would have no words
_FED_AT_ONCE = 8192  # words


@dataclass(frozen=True)
class VocabularyReport:
    """What was read, what was learned, and how it does on text that was set aside.

    A word is what BERT splits a text into before it looks for pieces: a mark of punctuation is one, and so is a Chinese
    character. ``fertility`` is pieces for each word, ``continued_share`` the share of words of two pieces or more,
    ``unknown_rate`` that of words that become [UNK] (the three of Rust et al. 2021, section 3, and Ács 2019).
    """

    size: int
    characters: int  # entries of one character, with ## or without
    joined: int  # entries that the trainer joined of others
    unused: int
    documents: int
    bytes: int  # of text, in UTF-8
    sampled_bytes: int  # of which the vocabulary was learned, or tried on
    words: int  # that it was learned from
    distinct_words: int
    character_coverage: float  # share of all characters in those words that the vocabulary has
    heldout_bytes: int
    heldout_words: int
    fertility: float
    continued_share: float
    unknown_rate: float
    skipped: int
    seconds: float


@dataclass(frozen=True)
class TrainedVocabulary:
    """A tokenizer, where it was written to, and what is to be said about it."""

    tokenizer: Tokenizer
    out: Path
    report: VocabularyReport


def train_vocabulary(
    corpus: str | Path | Sequence[str | Path],
    *,
    out: str | os.PathLike[str],
    size: int = 16_000,
    lowercase: bool = True,
    min_frequency: int = 2,
    character_coverage: float = 0.9999,
    sample_bytes: int = 256 << 20,
    heldout: float = 0.01,
    seed: int = 0,
    format: CorpusFormat | None = None,
    strict: bool = False,
    overwrite: bool = False,
    console: Console | None = None,
) -> TrainedVocabulary:
    """Learn a vocabulary and write it as a directory that `Tokenizer.from_directory` and `transformers` open.

    The same text and options give the same files to the last byte, on any number of threads. Beside the tokenizer's own
    files lie `REPORT_FILE` and, where something was skipped, `SKIPPED_FILE`, which lists it.

    Args:
        corpus: Files, folders and data sets of the hub; see :func:`bertwright.data.corpus.corpus_files`.
        out: The directory to write.
        size: Entries, the 104 of `HEAD` included; rounded up to a `MULTIPLE`, which is told. Where the text does not
            give as many, the vocabulary is as large as it gives, rounded up with unused entries at its end; that is told.
        lowercase: Make an uncased vocabulary, which has no accents either, as BERT's; else a cased one, with accents.
            Chinese characters are words of their own in both.
        min_frequency: A character, or a pair of pieces, that occurs less often becomes no entry.
        character_coverage: Share of all characters of the text that the vocabulary must have, the most frequent ones
            first. A word with any other becomes [UNK].
        sample_bytes: Bytes of text, at most, to learn from. Of a larger corpus an even random sample of blocks of up to
            64 Ki characters is taken, which is told; it is what is held in memory.
        heldout: Share of those bytes that is not learned from, but that the report's rates are measured on.
        seed: Of the choice of sample and held-out text.
        format: How documents lie in files.
        strict: Whether the first unreadable line or record ends it all.
        overwrite: Replace a directory that is there.
        console: Where progress is shown; default: standard error. ``Console(quiet=True)`` shows nothing.

    Raises:
        BertwrightError: A value above is out of bounds, `out` is there or lies in the corpus, or the corpus cannot be
                read or holds no words.
    """
    began = time.monotonic()
    files = corpus_files(corpus)
    check_apart(Path(out).resolve(), files, corpus)
    format = format or CorpusFormat()
    _check(size, min_frequency, character_coverage, sample_bytes, heldout)
    options = {
        "size": size,
        "lowercase": lowercase,
        "min_frequency": min_frequency,
        "character_coverage": character_coverage,
        "sample_bytes": sample_bytes,
        "heldout": heldout,
        "seed": seed,
        "format": asdict(format),
    }
    if size % MULTIPLE:
        size = _rounded(size)
        tell(f"a vocabulary of {size:,} entries instead of {options['size']:,}: sizes are multiples of {MULTIPLE}")
    if overwrite and Path(out).is_dir() and any(Path(out).iterdir()) and not (Path(out) / "vocab.txt").is_file():
        raise BertwrightError(f"{out}: holds something that is no vocabulary, and is not replaced; choose another --out")
    with atomic_directory(Path(out), overwrite=overwrite) as folder, _Steps(console or Console(stderr=True)) as steps:
        sample = EvenSample(sample_bytes, seed)
        documents, skipped = _read(files, format, sample, folder, strict, steps)
        if sample.bytes < sample.seen_bytes:
            what = f"an even sample of {_megabytes(sample.bytes)} of {_megabytes(sample.seen_bytes)} of text"
            tell(f"the vocabulary is learned from {what}; --sample-megabytes sets how much")
        learn, held = sample.split(heldout)
        tried_on = held or learn
        counts = _count(learn, lowercase, steps)
        del learn  # hundreds of megabytes
        words = counts.total()
        if not words:
            raise BertwrightError(f"{files[0]}: no words in the {documents:,} documents of the corpus; is it text?")
        characters = characters_of(words.items())
        alphabet = _alphabet(characters, counts, min_frequency, character_coverage, size - len(HEAD))
        joined = _join(words, alphabet, min_frequency, size - len(HEAD), steps)
        entries = [*HEAD, *alphabet, *joined]
        if len(entries) < size:
            what = f"the text gives {len(entries):,} entries, not {size:,}"
            size = _rounded(len(entries))
            tell(f"{what}: the vocabulary has {size:,}; more text, or a lower --min-frequency, gives more")
        filling = [f"[unused{99 + number}]" for number in range(size - len(entries))]
        tokenizer = Tokenizer.from_vocab(entries + filling, lowercase=lowercase)
        if not held:
            tell("the corpus is too small to set text aside: the report's rates are of the text that was learned from")
        tried = _try_on(tokenizer, tried_on)
        report = VocabularyReport(
            size=size,
            characters=len(alphabet),
            joined=len(joined),
            unused=99 + len(filling),
            documents=documents,
            bytes=sample.seen_bytes,
            sampled_bytes=sample.bytes,
            words=words.total(),
            distinct_words=len(words),
            character_coverage=sum(characters[entry] for entry in alphabet if len(entry) == 1) / characters.total(),
            heldout_bytes=sum(map(len, held)),
            heldout_words=tried.words if held else 0,
            fertility=tried.pieces / max(1, tried.words),
            continued_share=tried.continued / max(1, tried.words),
            unknown_rate=tried.unknown / max(1, tried.words),
            skipped=skipped,
            seconds=time.monotonic() - began,
        )
        tokenizer.save(folder)
        # How long it took is no property of the vocabulary, and would make equal ones differ.
        found = {name: value for name, value in asdict(report).items() if name != "seconds"}
        content = {"options": options, "report": found, "tokenizers": tokenizers.__version__}
        (folder / REPORT_FILE).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return TrainedVocabulary(tokenizer, Path(out), report)


def vocabulary_table(trained: TrainedVocabulary) -> Table:
    """Return the report as a table for a terminal of 80 columns."""
    report = trained.report
    table = Table(title=Text(f"Vocabulary: {trained.out}", style="bold"), title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("note")
    on = f"on {_megabytes(report.heldout_bytes)} of text set aside" if report.heldout_words else "on the text itself"
    learned = f"{report.distinct_words:,} distinct ones, of {_megabytes(report.sampled_bytes - report.heldout_bytes)}"
    for name, value, note in (
        ("entries", f"{report.size:,}", f"{report.characters:,} characters, {report.unused:,} unused, 5 special"),
        ("documents", f"{report.documents:,}", f"{_megabytes(report.bytes)} of text, {report.skipped:,} skipped"),
        ("words learned from", f"{report.words:,}", learned),
        ("characters covered", f"{report.character_coverage:.4%}", "of all in these words"),
        ("fertility", f"{report.fertility:.3f}", f"pieces for each word, {on}"),
        ("continued words", f"{report.continued_share:.2%}", "of two pieces or more"),
        ("unknown words", f"{report.unknown_rate:.4%}", "that become [UNK]"),
        ("time", f"{report.seconds:.1f} s", f"{report.bytes / 1e6 / max(report.seconds, 1e-9):.1f} MB of text/s"),
    ):
        table.add_row(name, value, note)
    return table


def _check(size: int, min_frequency: int, coverage: float, sample_bytes: int, heldout: float) -> None:
    if size < SMALLEST:
        raise BertwrightError(f"--vocab-size {size}: make it at least {SMALLEST}; {len(HEAD)} entries are BERT's own")
    if min_frequency < 1:
        raise BertwrightError(f"--min-frequency {min_frequency}: make it at least 1")
    if not 0 < coverage <= 1:
        raise BertwrightError(f"--character-coverage {coverage}: make it more than 0 and at most 1")
    if not SMALLEST_SAMPLE <= sample_bytes <= LARGEST_SAMPLE:
        limits = f"at least {SMALLEST_SAMPLE >> 20} and at most {LARGEST_SAMPLE >> 20}"
        raise BertwrightError(f"a sample of {sample_bytes:,} bytes: make --sample-megabytes {limits}")
    if not 0 < heldout <= 0.5:
        raise BertwrightError(f"--heldout {heldout}: make it more than 0 and at most 0.5")


def _rounded(size: int) -> int:
    return -(-size // MULTIPLE) * MULTIPLE


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 100_000 else f"{count / 1e3:,.1f} kB"


def _read(
    files: Sequence[Path], format: CorpusFormat, sample: EvenSample, folder: Path, strict: bool, steps: _Steps
) -> tuple[int, int]:
    """Fill the sample from all of the corpus; return the number of documents and that of things skipped."""
    listed: TextIO | None = None
    documents = skipped = 0

    def skip(one: Skipped) -> None:
        nonlocal listed, skipped
        skipped += 1
        if listed is None:
            listed = (folder / SKIPPED_FILE).open("w", encoding="utf-8")
        listed.write(json.dumps(asdict(one), ensure_ascii=False) + "\n")

    steps.begin("reading", "MB/s", input_bytes(files))
    try:
        for document in read_documents(files, format, refuse if strict else skip, steps.advance):
            documents += 1
            steps.note(f"{documents:,} documents")
            for block in blocks_of(document.text):
                sample.offer(block)
    finally:
        if listed is not None:
            listed.close()
    if skipped:
        tell(f"{skipped:,} of the lines, records and files could not be read and were skipped; {SKIPPED_FILE} lists them")
    return documents, skipped


def _count(blocks: Sequence[bytes], lowercase: bool, steps: _Steps) -> WordCounts:
    counts = WordCounts(lowercase=lowercase)
    steps.begin("counting words", "MB/s", sum(map(len, blocks)))
    for block in blocks:
        counts.add(block.decode())
        steps.advance(len(block))
    return counts


def _alphabet(characters: Counter[str], counts: WordCounts, min_frequency: int, coverage: float, room: int) -> list[str]:
    """Return the entries of one character: bare and, unless it is always a word of its own, as a continuation."""
    entries: list[str] = []
    covered, wanted = 0, coverage * characters.total()
    for character, count in sorted(characters.items(), key=lambda item: (-item[1], item[0])):
        if covered >= wanted or count < min_frequency:
            break
        new = [character] if counts.is_isolated(character) else [character, f"##{character}"]
        if len(entries) + len(new) > room * _CHARACTERS_AT_MOST:
            share = covered / characters.total()
            tell(f"the vocabulary has room for the characters of {share:.3%} of the text only; --vocab-size makes room")
            break
        entries += new
        covered += count
    return sorted(entries, key=lambda entry: (len(entry), entry))


def _join(words: Counter[str], alphabet: Sequence[str], min_frequency: int, room: int, steps: _Steps) -> list[str]:
    """Return the entries that the trainer joins, in its order, which is about that of their frequency.

    The library numbers continuations of one character in the order in which it meets them in a hash table, which differs
    from run to run, and among pairs that are equally frequent it takes the one with the smaller numbers. So it is given
    all entries of one character beforehand, as if they were special tokens: then every number, and every choice, is
    determined by the words and their counts. It takes words only, so each is given as often as it occurs; those with
    other characters are left out, because it would close the gap and learn from words that never were.
    """
    known = {entry for entry in alphabet if len(entry) == 1}
    fed = {word: count for word, count in words.items() if len(word) <= LONGEST_WORD and known.issuperset(word)}
    core = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordPieceTrainer(
        vocab_size=room, min_frequency=min_frequency, special_tokens=list(alphabet), show_progress=False
    )
    steps.begin("learning pieces", "M words/s", sum(fed.values()))
    core.train_from_iterator(_repeated(fed.items(), steps), trainer)
    numbers = core.get_vocab(with_added_tokens=False)
    return sorted(numbers.keys() - set(alphabet), key=numbers.__getitem__)


def _repeated(words: Iterable[tuple[str, int]], steps: _Steps) -> Iterator[str]:
    texts: list[str] = []
    held = 0
    for word, count in words:
        while count:
            now = min(count, _FED_AT_ONCE)
            texts.append(f"{word} " * now)
            held += now
            count -= now
            if held >= _FED_AT_ONCE:
                yield "".join(texts)
                steps.advance(held)
                texts, held = [], 0
    yield "".join(texts)


@dataclass(frozen=True)
class _Tried:
    words: int
    pieces: int
    continued: int
    unknown: int


def _try_on(tokenizer: Tokenizer, blocks: Iterable[bytes]) -> _Tried:
    entries = tokenizer.tokens(range(tokenizer.vocab_size))
    continues = np.array([entry.startswith("##") for entry in entries])
    words = pieces = continued = unknown = 0
    for block in blocks:
        encoded = tokenizer.encode_batch(block.decode().split("\n"))
        # [CLS] and [SEP] stand between texts, so that none goes on in the next; they are no words.
        ids = np.array([id for one in encoded for id in one.input_ids])
        starts = ~continues[ids]
        around = 2 * len(encoded)
        pieces += len(ids) - around
        words += int(starts.sum()) - around
        continued += int((starts[:-1] & ~starts[1:]).sum())
        unknown += int((ids == tokenizer.unk_id).sum())
    return _Tried(words, pieces, continued, unknown)


class _Steps:
    """A bar with rate and time left for one step after the other on a terminal; elsewhere a line every half minute."""

    def __init__(self, console: Console) -> None:
        self._say = teller(console)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TextColumn("{task.fields[rate]}", style="progress.data.speed"),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._title, self._unit, self._note, self._total, self._done = "", "", "", 0, 0
        self._began = self._said = time.monotonic()

    def __enter__(self) -> _Steps:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def begin(self, title: str, unit: str, total: int | None) -> None:
        """Go on to the next step, of `total` bytes, characters or words, None if nobody knows; `unit` is of millions."""
        for task in self._bar.task_ids:
            self._bar.remove_task(task)
        self._bar.add_task(title, total=total, rate="")
        self._title, self._unit, self._note, self._total, self._done = title, unit, "", total or 0, 0
        self._began = time.monotonic()

    def note(self, text: str) -> None:
        """Say something beside the rate."""
        self._note = f", {text}"

    def advance(self, count: int) -> None:
        """Move the bar by `count`."""
        self._done += count
        now = time.monotonic()
        rate = f"{self._done / 1e6 / max(now - self._began, 1e-9):.1f} {self._unit}{self._note}"
        if not self._bar.disable:
            self._bar.update(self._bar.task_ids[0], completed=self._done, rate=rate)
        elif now - self._said > 30:
            self._said = now
            share = f"{self._done / self._total:.0%}, " if self._total else ""
            self._say(f"{self._title}: {share}{rate}")
