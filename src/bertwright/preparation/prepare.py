"""From raw text to a prepared corpus: read once, split and tokenised on all cores, restartable at any instant.

Until the prepared corpus appears, by one rename, everything lies in ``<out>.preparing``: finished shards, and a record of
each. The next call reads the corpus again, which is quick, and keeps every shard whose text and options are the same.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import importlib.metadata
import io
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO

import numpy as np
from rich.console import Console

from bertwright.atomic import (
    atomic_directory,
    atomic_write_bytes,
    atomic_write_stream,
    atomic_write_text,
    check_replaceable,
    move_into_place,
    siblings,
)
from bertwright.data.corpus import CorpusFormat, check_apart, corpus_files, input_bytes
from bertwright.data.shards import CONTINUES, MANIFEST, SHARDS, SKIPPED, TOKENIZER, FileEntry, Manifest, continues_word
from bertwright.data.units import UnitTokenizer, read_units
from bertwright.errors import BertwrightError, tell
from bertwright.hub import resolve
from bertwright.interrupts import Stopped
from bertwright.preparation.on_ray import in_ray
from bertwright.preparation.report import Prepared, ProgressBar, Tally
from bertwright.preparation.workers import in_processes
from bertwright.tokenizer import Tokenizer
from bertwright.version import VERSION

ENGINES = ("local", "ray")
SHARD_BYTES = 8 << 20
_PATIENCE = 5.0  # seconds for the workers of a killed run to end
_ANY_TEXT = CorpusFormat()


def prepare(
    corpus: str | Path | Sequence[str | Path],
    tokenizer: Tokenizer | str | Path,
    out: str | Path,
    *,
    format: CorpusFormat = _ANY_TEXT,
    heldout: float = 0.005,
    seed: int = 0,
    workers: int = 0,
    shard_bytes: int = SHARD_BYTES,
    strict: bool = False,
    overwrite: bool = False,
    engine: str = "local",
    console: Console | None = None,
) -> Prepared:
    """Turn raw text into the prepared corpus that pretraining reads; see `bertwright.data.shards`.

    What is written depends on the text and the options alone: its bytes are the same with any number of workers, with
    either engine, and after any number of stops and kills. Memory: about 150 MB and seven times ``shard_bytes`` for
    each worker, and 24 to 48 bytes for each document, by which a duplicate is known.

    Args:
        corpus: Files, folders and data sets of the hub, as `bertwright.data.corpus.corpus_files` takes them.
        tokenizer: A tokenizer; or a directory that holds one, a vocab.txt, an alias or a hub id.
        out: Directory to write.
        format: How documents and sentences are told apart.
        heldout: Share of the documents to set aside for evaluation; their text and the seed choose, not their order.
        seed: Another seed sets others aside.
        workers: Processes; 0 for one on each core.
        shard_bytes: UTF-8 text that makes a shard, up to a document more.
        strict: Raise for what cannot be read, instead of skipping and listing it.
        overwrite: Replace what `out` holds.
        engine: "local", or "ray" for all machines of a Ray cluster; then `out` must be a place that all of them see.
        console: Where to show progress; None shows none.

    Raises:
        BertwrightError: an option cannot be; `out` is taken or cannot be written; the corpus holds no text or, with
            `strict`, something unreadable; a worker died; or another call is at work on the same `out`.
        Stopped: Ctrl-C or SIGTERM; the message says how to go on.
    """
    if not 0 <= heldout < 1:
        raise BertwrightError(f"--heldout is {heldout}; make it a share of the documents, 0 or more and below 1")
    if workers < 0:
        raise BertwrightError(f"--workers is {workers}; make it a number of processes, or 0 for one on each core")
    if shard_bytes < 1:
        raise BertwrightError(f"shard_bytes is {shard_bytes}; a shard needs some text")
    if engine not in ENGINES:
        raise BertwrightError(f"--engine is {engine!r}; use {' or '.join(ENGINES)}")
    if format.sentences == "line" and format.language != _ANY_TEXT.language:
        tell("--language has no effect beside --sentences line: it is for the splitter, which is not asked")
    out = Path(out).resolve()
    files = corpus_files(corpus)
    check_apart(out, files, corpus)
    _check_out(out, overwrite)
    if not isinstance(tokenizer, Tokenizer):
        tokenizer = _read_tokenizer(tokenizer, out)
    units = functools.partial(read_units, files, format, heldout=heldout, seed=seed, unit_bytes=shard_bytes, strict=strict)
    bar = ProgressBar(input_bytes(files), console or Console(quiet=True))
    tally, began = Tally(), time.monotonic()
    with _claimed(out.with_name(out.name + ".preparing")) as (folder, lock):
        made_with = _made_with(format)
        make = functools.partial(UnitTokenizer, tokenizer, format, made_with, folder)
        results = in_ray(make, units, workers) if engine == "ray" else in_processes(make, units(), workers, keep_open=[lock])
        try:
            with contextlib.closing(results), bar, atomic_write_stream(folder / "tokens" / SKIPPED) as skipped:
                for unit in results:
                    tally.add(unit)
                    skipped.writelines(json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in unit.read.skipped)
                    bar.show(tally)
        except KeyboardInterrupt as stop:
            kept = f"{len(tally.files):,} finished shards are kept in {folder}"
            number = stop.signal if isinstance(stop, Stopped) else signal.SIGINT
            raise Stopped(f"{kept}; the same command goes on from there", number) from None
        _check_tally(tally, heldout)
        manifest = Manifest(
            tokenizer_digest=tokenizer.digest,
            vocab_size=tokenizer.vocab_size,
            special_ids={name: getattr(tokenizer, f"{name}_id") for name in ("pad", "unk", "cls", "sep", "mask")},
            format=asdict(format),
            heldout=heldout,
            seed=seed,
            shard_bytes=shard_bytes,
            made_with=made_with,
            duplicates=tally.duplicates,
            skipped=tally.skipped,
            empty_documents=tally.empty_documents,
            empty_sentences=tally.empty_sentences,
            parts=tally.parts(),
            shards=tally.shards,
            files=_complete(folder / "tokens", tokenizer, tally),
        )
        atomic_write_text(folder / "tokens" / MANIFEST, manifest.to_json())
        try:
            move_into_place(folder / "tokens", out, siblings(out)[1] if overwrite else None)
        except OSError as error:
            raise BertwrightError(f"{out}: {error.strerror}; all shards are kept in {folder}; call again") from error
        shutil.rmtree(folder, ignore_errors=True)
    seconds = time.monotonic() - began
    return Prepared(
        out=out,
        manifest=manifest,
        skipped=tuple(tally.first_skipped),
        shards=len(tally.files),
        kept=tally.kept,
        seconds=seconds,
        tokens_per_second=tally.new_tokens / seconds,
    )


def _check_out(out: Path, overwrite: bool) -> None:
    if out.exists():
        check_replaceable(out, overwrite)
    if out.is_dir() and any(out.iterdir()) and not (out / MANIFEST).is_file():
        raise BertwrightError(
            f"{out}: holds something that is no prepared corpus, and is not replaced; choose another --out"
        )


def _read_tokenizer(source: str | Path, out: Path) -> Tokenizer:
    path = resolve(source)
    if path.resolve().is_relative_to(out):
        raise BertwrightError(f"{out}: holds the tokenizer {source}; choose another --out")
    if path.is_dir():
        return Tokenizer.from_directory(path)
    if path.suffix != ".txt":
        raise BertwrightError(f"{path}: no vocabulary; name a vocab.txt, or the directory of a tokenizer")
    return Tokenizer.from_vocab(path)


def _made_with(format: CorpusFormat) -> dict[str, str]:
    """Versions of the software that decides where sentences end and what their ids are."""
    deciding = ("tokenizers", "sentencex") if format.sentences == "split" else ("tokenizers",)
    return {"bertwright": VERSION} | {name: importlib.metadata.version(name) for name in deciding}


@contextlib.contextmanager
def _claimed(folder: Path) -> Iterator[tuple[Path, int]]:
    """Make the folder of the unfinished corpus and lock it, for as long as this process and its workers live.

    Yields the folder and the descriptor of the lock, which the workers inherit: one that outlives a killed caller for a
    moment must not write between the shards of the next.
    """
    give_up = time.monotonic() + _PATIENCE
    with contextlib.ExitStack() as stack:
        while True:
            file = stack.enter_context(_lock_file(folder))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                if time.monotonic() > give_up:
                    what = "another `bertwright prepare` is at work here"
                    raise BertwrightError(f"{folder}: {what}; wait for it, or choose another --out") from None
                time.sleep(0.05)
            except OSError:  # a file system without locks: two calls at once are then for the user to avoid
                break
            else:
                # The call that held the lock before may have removed the file since it was opened.
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(file.fileno()), Path(file.name).stat()):
                        break
        try:
            yield folder, file.fileno()
        finally:
            if folder.is_dir() and not any((folder / "records").glob("*")):
                shutil.rmtree(folder, ignore_errors=True)


def _lock_file(folder: Path) -> IO[str]:
    try:
        for name in ("records", f"tokens/{SHARDS}"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        return (folder / "lock").open("a")
    except OSError as error:
        raise BertwrightError(f"{folder}: cannot be made: {error.strerror}; choose another --out") from error


def _check_tally(tally: Tally, heldout: float) -> None:
    parts = tally.parts()
    if not tally.tokens:
        raise BertwrightError(f"none of the {tally.documents:,} documents of the corpus holds a token; is it text?")
    if not parts["train"].documents:
        raise BertwrightError(f"--heldout {heldout} sets every document aside; give a smaller share, or more documents")
    if heldout and not parts["heldout"].documents:
        share = f"--heldout {heldout} of {parts['train'].documents:,} documents sets none aside"
        tell(f"{share}, so there is nothing to evaluate on; give a larger share, or another --seed")


def _complete(tokens: Path, tokenizer: Tokenizer, tally: Tally) -> dict[str, FileEntry]:
    """Add to the shards what else belongs to a prepared corpus, remove what does not; return all files but the manifest."""
    shutil.rmtree(tokens / TOKENIZER, ignore_errors=True)
    with atomic_directory(tokens / TOKENIZER, overwrite=False) as directory:
        tokenizer.save(directory)
    array = io.BytesIO()
    np.save(array, continues_word(tokenizer), allow_pickle=False)
    atomic_write_bytes(tokens / CONTINUES, array.getvalue())
    belong = {tokens / name for name in (TOKENIZER, CONTINUES, SKIPPED, SHARDS)}
    belong |= {tokens / SHARDS / name for name in tally.files}
    for path in [*tokens.iterdir(), *(tokens / SHARDS).iterdir()]:
        if path not in belong:  # of a run that was killed, or that read more text
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    own = [tokens / CONTINUES, tokens / SKIPPED, *sorted((tokens / TOKENIZER).iterdir())]
    files = {path.relative_to(tokens).as_posix(): FileEntry.of(path) for path in own}
    for name, entries in tally.files.items():
        files |= {f"{SHARDS}/{name}/{file}": entry for file, entry in entries.items()}
    return files
