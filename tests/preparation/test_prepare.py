"""Preparing a corpus: ids are the tokenizer's, bytes are the same however the work was done, and kills cost nothing."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import io
import itertools
import json
import lzma
import os
import random
import shutil
import signal
import string
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import bertwright.preparation.prepare as preparing
from bertwright.data.corpus import CorpusFormat, corpus_files, read_documents
from bertwright.data.sentences import split_sentences
from bertwright.data.shards import Shard, TokenCorpus
from bertwright.errors import BertwrightError, BertwrightWarning
from bertwright.interrupts import Stopped
from bertwright.preparation import report
from bertwright.preparation.prepare import prepare
from bertwright.preparation.report import Prepared
from bertwright.tokenizer import SPECIAL_TOKENS, Tokenizer

WORDS = ("the", "cat", "sat", "mat", "river", "Moon", "naïve", "12", "unknownish", "中国", "don't", "[SEP]", "e.g.")
ENTRIES = [*SPECIAL_TOKENS.values(), "the", "cat", "river", "中", "国", *string.ascii_lowercase, *string.punctuation]
TOKENIZER = Tokenizer.from_vocab([*ENTRIES, *("##" + letter for letter in string.ascii_lowercase)])
SHARD_BYTES = 8000
SMALL = 3000  # where a run is to be stopped halfway


def text(count: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)

    def sentence() -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(2, 12))).capitalize() + draw.choice(".!?")

    def paragraph() -> str:
        return " ".join(sentence() for _ in range(draw.randint(1, 5)))

    return ["\n".join(paragraph() for _ in range(draw.randint(1, 4))) for _ in range(count)]


def write(path: Path, documents: Iterable[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n".join(documents) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """About nine shards of small documents in two files, one compressed, with a duplicate and an unreadable line."""
    folder = tmp_path / "corpus"
    documents = text(240)
    write(folder / "a.txt", [*documents[:150], documents[3]])
    with (folder / "a.txt").open("ab") as file:
        file.write(b"\nnot \xff UTF-8\n")
    with lzma.open(folder / "b.txt.xz", "wb") as compressed:
        compressed.write("\n\n".join(documents[150:]).encode())
    return folder


def one_by_one(
    make: Callable[[], Callable[[Any], Any]], jobs: Iterable[Any], workers: int, keep_open: Sequence[int]
) -> Generator[Any, None, None]:
    """The plainest way to do the work, in place of `bertwright.preparation.workers.in_processes`."""
    function = make()
    for job in jobs:
        yield function(job)


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """No processes: most tests are not about them."""
    monkeypatch.setattr(preparing, "in_processes", one_by_one)


def run(corpus: Path, out: Path, **options: Any) -> Prepared:
    given: dict[str, Any] = {"heldout": 0.1, "shard_bytes": SHARD_BYTES, "workers": 1} | options
    return prepare([corpus], given.pop("tokenizer", TOKENIZER), out, **given)


def run_plainly(corpus: Path, out: Path, **options: Any) -> dict[str, str]:
    """What is in ``out`` after a run without processes."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(preparing, "in_processes", one_by_one)
        run(corpus, out, **options)
    return contents(out)


def contents(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def sentences_of(shard: Shard) -> list[list[list[int]]]:
    tokens, sentences, documents = shard.tokens.tolist(), shard.sentences.tolist(), shard.documents.tolist()
    split = [tokens[start:end] for start, end in itertools.pairwise(sentences)]
    return [split[start:end] for start, end in itertools.pairwise(documents)]


def expected(paths: Sequence[Path], tokenizer: Tokenizer) -> list[list[list[int]]]:
    """The ids of all documents, sentence by sentence, as plainly as can be."""
    documents: dict[str, list[list[int]]] = {}
    for document in read_documents(corpus_files(paths), CorpusFormat(), lambda one: None):
        sentences = [tokenizer.encode(one).input_ids[1:-1] for one in split_sentences(document.text, CorpusFormat())]
        documents[document.text] = [ids for ids in sentences if ids]
    return [document for document in documents.values() if document]


def check_tokens(out: Path, paths: Sequence[Path], tokenizer: Tokenizer) -> None:
    parts = [TokenCorpus.open(out, part) for part in ("train", "heldout")]
    train, heldout = ([document for shard in part.shards for document in sentences_of(shard)] for part in parts)
    wanted = expected(paths, tokenizer)
    assert sorted(train + heldout) == sorted(wanted)
    kept = iter(wanted)
    assert all(document in kept for document in train)  # in the order of the text
    for part, documents in zip(parts, (train, heldout), strict=True):
        count = part.count
        assert count.documents == len(documents)
        assert count.sentences == sum(len(document) for document in documents)
        assert count.tokens == sum(len(sentence) for document in documents for sentence in document)
        flat = [token for document in documents for sentence in document for token in sentence]
        assert count.unknown == flat.count(tokenizer.unk_id)


@pytest.mark.usefixtures("in_this_process")
def test_ids_are_those_of_the_tokenizer(corpus: Path, tmp_path: Path) -> None:
    result = run(corpus, tmp_path / "tokens")
    check_tokens(tmp_path / "tokens", [corpus], TOKENIZER)
    assert result.shards > 5
    assert result.manifest == TokenCorpus.open(tmp_path / "tokens").manifest
    TokenCorpus.open(tmp_path / "tokens").verify()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus", "tokens"]


@pytest.mark.usefixtures("in_this_process")
def test_manifest_and_report(corpus: Path, tmp_path: Path) -> None:
    result = run(corpus, tmp_path / "tokens", seed=3)
    manifest = result.manifest
    assert (manifest.duplicates, manifest.skipped, manifest.empty_documents, manifest.seed) == (1, 1, 0, 3)
    assert manifest.tokenizer_digest == TOKENIZER.digest
    assert manifest.special_ids == {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
    assert set(manifest.made_with) == {"bertwright", "tokenizers", "sentencex"}
    assert manifest.parts["train"].documents + manifest.parts["heldout"].documents == 240
    on_disk = contents(tmp_path / "tokens")
    assert {name: entry.sha256 for name, entry in manifest.files.items()} == {
        name: digest for name, digest in on_disk.items() if name != "manifest.json"
    }
    (line,) = (tmp_path / "tokens" / "skipped.jsonl").read_text().splitlines()
    skipped = json.loads(line)
    assert skipped["where"].startswith(str(corpus / "a.txt:"))
    assert "0xff" in skipped["reason"]
    shown = io.StringIO()
    Console(file=shown, width=200).print(result.table())
    total = sum(count.tokens for count in manifest.parts.values())
    assert f"{total:,}, {manifest.parts['heldout'].tokens:,} of them set aside" in shown.getvalue()
    for wanted in (
        "240, ",
        "1 documents dropped as exact duplicates",
        "1 that could not be read",
        skipped["reason"],
        "tokens/s",
    ):
        assert wanted in shown.getvalue()
    assert result.tokens_per_second == pytest.approx(total / result.seconds)


@pytest.mark.usefixtures("in_this_process")
def test_tokenizer_and_special_cases_come_along(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "vocab").mkdir()
    TOKENIZER.save(tmp_path / "vocab")
    run(corpus, tmp_path / "one")
    run(corpus, tmp_path / "two", tokenizer=tmp_path / "vocab")
    run(corpus, tmp_path / "three", tokenizer=str(tmp_path / "vocab" / "vocab.txt"))
    with pytest.raises(BertwrightError, match=r"notes\.md: .*no vocabulary"):
        run(corpus, tmp_path / "four", tokenizer=write(tmp_path / "notes.md", []))
    assert contents(tmp_path / "one") == contents(tmp_path / "two") == contents(tmp_path / "three")
    opened = TokenCorpus.open(tmp_path / "one")
    assert opened.tokenizer().digest == TOKENIZER.digest
    assert opened.continues.sum() == 26


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_bytes_do_not_depend_on_the_workers(corpus: Path, tmp_path: Path, workers: int) -> None:
    run(corpus, tmp_path / "tokens", workers=workers)
    assert contents(tmp_path / "tokens") == run_plainly(corpus, tmp_path / "plain")


# A run in a process of its own, as slow as a large corpus, so that it can be stopped halfway.
SCRIPT = """
import signal, sys, time
import bertwright.preparation.prepare
from bertwright.data.units import read_units

def slowly(*given, **options):
    for unit in read_units(*given, **options):
        time.sleep(float(sys.argv[4]))
        yield unit

bertwright.preparation.prepare.read_units = slowly
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored from birth where the tests run in the background
corpus, tokenizer, out, _, shard_bytes = sys.argv[1:]
bertwright.preparation.prepare.prepare([corpus], tokenizer, out, heldout=0.1, shard_bytes=int(shard_bytes), workers=2)
"""


def start(corpus: Path, out: Path, pause: float) -> subprocess.Popen[str]:
    vocab = out.with_name("vocab")
    if not vocab.exists():
        vocab.mkdir()
        TOKENIZER.save(vocab)
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(corpus), str(vocab), str(out), str(pause), str(SMALL)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(out: Path) -> dict[str, tuple[int, int]]:
    """Shards that are done, each with what changes when it is written again."""
    folder = out.with_name(out.name + ".preparing")
    stats = {path.stem: (folder / "tokens" / "shards" / path.stem).stat() for path in (folder / "records").glob("*.json")}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in stats.items()}


def test_kills_cost_nothing(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "tokens"
    draw = random.Random(0)
    kept: dict[str, tuple[int, int]] = {}
    for _ in range(3):
        process = start(corpus, out, pause=0.05)
        wanted = len(kept) + draw.randint(1, 3)
        deadline = time.monotonic() + 60
        while len(list((tmp_path / "tokens.preparing" / "records").glob("*.json"))) < wanted:
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
        time.sleep(draw.random() * 0.1)
        process.kill()
        process.communicate()
        now = finished(out)
        assert now.items() >= kept.items()  # nothing was made again
        kept = now
    assert not out.exists()
    result = run(corpus, out, workers=2, shard_bytes=SMALL)
    assert len(kept) <= result.kept < result.shards
    assert {(path.stat().st_ino, path.stat().st_mtime_ns) for path in (out / "shards").iterdir()} >= set(kept.values())
    assert contents(out) == run_plainly(corpus, tmp_path / "plain", shard_bytes=SMALL)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus", "plain", "tokens", "vocab"]


@pytest.mark.slow
def test_twenty_kills_at_random_moments(corpus: Path, tmp_path: Path) -> None:
    plain = run_plainly(corpus, tmp_path / "plain", shard_bytes=SMALL)
    draw = random.Random(1)
    out = tmp_path / "tokens"
    kills = 0
    while kills < 20:
        process = start(corpus, out, pause=0.0)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(draw.uniform(0.2, 2.5))
        process.kill()
        said = process.communicate()[1]
        kills += process.returncode == -signal.SIGKILL
        if process.returncode == 0:
            assert contents(out) == plain
            shutil.rmtree(out)
        else:
            assert process.returncode == -signal.SIGKILL, said
            # Killed between the rename and the end, it may be there: then it is whole.
            if out.exists():
                assert contents(out) == plain
                shutil.rmtree(out)
    run(corpus, out, shard_bytes=SMALL)
    assert contents(out) == plain


def test_an_interrupt_says_how_to_go_on(corpus: Path, tmp_path: Path) -> None:
    process = start(corpus, tmp_path / "tokens", pause=0.2)
    while not list((tmp_path / "tokens.preparing" / "records").glob("*.json")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=20)[1]
    assert process.returncode != 0
    assert said.splitlines()[-1].endswith(
        f"are kept in {tmp_path / 'tokens.preparing'}; the same command goes on from there"
    )
    assert not (tmp_path / "tokens").exists()
    assert run(corpus, tmp_path / "tokens", shard_bytes=SMALL).kept >= 1


@pytest.mark.parametrize(
    ("stop", "number"), [(KeyboardInterrupt(), signal.SIGINT), (Stopped("", signal.SIGTERM), signal.SIGTERM)]
)
def test_signal_is_kept(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: BaseException, number: int
) -> None:
    def stopped(make: Any, jobs: Any, workers: int, keep_open: Any) -> Generator[Any, None, None]:
        function = make()
        yield function(next(jobs))
        raise stop

    monkeypatch.setattr(preparing, "in_processes", stopped)
    with pytest.raises(Stopped, match=r"1 finished shards are kept in .*tokens\.preparing") as caught:
        run(corpus, tmp_path / "tokens")
    assert caught.value.signal == number


def stopped_run(corpus: Path, out: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    """A run that makes all shards and stops before the end."""

    def stop(*_: object) -> None:
        raise BertwrightError("stop here")

    with monkeypatch.context() as patched:
        patched.setattr(preparing, "_check_tally", stop)
        with pytest.raises(BertwrightError, match="stop here"):
            run(corpus, out, **options)


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("change", ["heldout", "seed", "tokenizer", "sentences", "shard_bytes", "nothing"])
def test_shards_are_kept_only_where_they_would_be_the_same(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    cased = Tokenizer.from_vocab(TOKENIZER.tokens(range(TOKENIZER.vocab_size)), lowercase=False)
    others: dict[str, dict[str, Any]] = {
        "heldout": {"heldout": 0.3},
        "seed": {"seed": 1},
        "tokenizer": {"tokenizer": cased},
        "sentences": {"format": CorpusFormat(sentences="line")},
        "shard_bytes": {"shard_bytes": SHARD_BYTES * 2},
        "nothing": {},
    }
    stopped_run(corpus, tmp_path / "tokens", monkeypatch, **others[change])
    result = run(corpus, tmp_path / "tokens")
    run(corpus, tmp_path / "plain")
    assert contents(tmp_path / "tokens") == contents(tmp_path / "plain")
    if change in ("heldout", "seed"):  # a small shard may happen to have the same documents set aside
        assert result.kept < result.shards / 2
    else:
        assert result.kept == (result.shards if change == "nothing" else 0)


@pytest.mark.usefixtures("in_this_process")
def test_only_changed_text_is_done_again(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped_run(corpus, tmp_path / "tokens", monkeypatch)
    content = (corpus / "a.txt").read_bytes()
    (corpus / "a.txt").write_bytes(content.replace(b"cat", b"sat", 1))
    result = run(corpus, tmp_path / "tokens")
    assert 0 < result.shards - result.kept <= 2  # a later occurrence may have moved no cut
    check_tokens(tmp_path / "tokens", [corpus], TOKENIZER)


@pytest.mark.usefixtures("in_this_process")
def test_shards_of_a_larger_corpus_and_of_kills_are_removed(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_run(corpus, tmp_path / "tokens", monkeypatch)
    tokens = tmp_path / "tokens.preparing" / "tokens"
    (tokens / "shards" / ".00003.0a1b2c3d.partial").mkdir()
    (tokens / ".skipped.jsonl.0a1b2c3d.partial").touch()
    (tokens / "tokenizer").mkdir()
    (tokens / "tokenizer" / "old").touch()
    (corpus / "b.txt.xz").unlink()
    run(corpus, tmp_path / "tokens")
    run(corpus, tmp_path / "plain")
    assert contents(tmp_path / "tokens") == contents(tmp_path / "plain")


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("damage", ["record", "truncated", "missing", "older record"])
def test_a_damaged_shard_is_made_again(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    stopped_run(corpus, tmp_path / "tokens", monkeypatch)
    record = tmp_path / "tokens.preparing" / "records" / "00002.json"
    array = tmp_path / "tokens.preparing" / "tokens" / "shards" / "00002" / "train.tokens.npy"
    if damage == "record":
        record.write_text("{")
    elif damage == "older record":
        record.write_text(json.dumps(json.loads(record.read_text()) | {"more": 1}))
    elif damage == "truncated":
        array.write_bytes(array.read_bytes()[:-1])
    else:
        array.unlink()
    result = run(corpus, tmp_path / "tokens")
    assert result.shards - result.kept == 1
    TokenCorpus.open(tmp_path / "tokens").verify()


@pytest.mark.usefixtures("in_this_process")
def test_text_without_tokens_is_dropped_and_counted(tmp_path: Path) -> None:
    documents = ["the cat.\n\u200b\u200b\nthe river.", "\u200b \u200d", "cats"]
    out = tmp_path / "tokens"
    result = run(write(tmp_path / "a.txt", documents), out, heldout=0.0)
    manifest = result.manifest
    assert (manifest.empty_documents, manifest.parts["train"].documents, manifest.parts["train"].sentences) == (1, 2, 3)
    assert manifest.empty_sentences >= 2
    assert manifest.parts["heldout"].documents == 0
    assert TokenCorpus.open(out, "heldout").shards == ()
    check_tokens(out, [tmp_path / "a.txt"], TOKENIZER)


@pytest.mark.usefixtures("in_this_process")
def test_large_vocabularies_take_four_bytes(tmp_path: Path) -> None:
    entries = [*ENTRIES, *(f"entry{number}" for number in range(70_000))]
    big = Tokenizer.from_vocab(entries)
    path = write(tmp_path / "a.txt", ["the entry69999 entry7", "river entry65536 entry65535"])
    run(path, tmp_path / "tokens", heldout=0.0, tokenizer=big)
    (shard,) = TokenCorpus.open(tmp_path / "tokens").shards
    assert shard.tokens.dtype == np.uint32
    check_tokens(tmp_path / "tokens", [path], big)


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heldout": 1.0}, "--heldout is 1.0"),
        ({"heldout": -0.1}, "--heldout is -0.1"),
        ({"workers": -1}, "--workers is -1"),
        ({"shard_bytes": 0}, "shard_bytes is 0"),
        ({"engine": "spark"}, "--engine is 'spark'; use local or ray"),
        ({"strict": True}, r"a\.txt:\d+: byte 0xff"),
        ({"tokenizer": "./nowhere"}, "nowhere: no such file or directory"),
        ({"heldout": 0.999999}, "sets every document aside"),
    ],
)
def test_options_that_cannot_be(corpus: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(BertwrightError, match=message):
        run(corpus, tmp_path / "tokens", **options)
    assert not (tmp_path / "tokens").exists()


@pytest.mark.usefixtures("in_this_process")
def test_nothing_to_prepare(tmp_path: Path) -> None:
    with pytest.raises(BertwrightError, match=r"no text in the corpus \(files: 1\)"):
        run(write(tmp_path / "a.txt", []), tmp_path / "tokens")
    with pytest.raises(BertwrightError, match="missing: no such file"):
        run(tmp_path / "missing", tmp_path / "tokens")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]  # no folder of work stays behind
    with pytest.raises(BertwrightError, match="none of the 1 documents of the corpus holds a token"):
        run(write(tmp_path / "a.txt", ["\u200b"]), tmp_path / "tokens")
    with pytest.warns(BertwrightWarning, match="--heldout 0.001 of 1 documents sets none aside"):
        run(write(tmp_path / "a.txt", ["the cat"]), tmp_path / "tokens", heldout=0.001)


@pytest.mark.usefixtures("in_this_process")
def test_a_single_path_needs_no_list(corpus: Path, tmp_path: Path) -> None:
    wanted = run(corpus, tmp_path / "a").manifest
    paths: list[str | Path] = [corpus, str(corpus)]
    for number, path in enumerate(paths):
        assert prepare(path, TOKENIZER, tmp_path / f"b{number}", heldout=0.1, shard_bytes=SHARD_BYTES).manifest == wanted
    with pytest.raises(BertwrightError, match=r"lies in .*corpus, where it would be read as text"):
        prepare(str(corpus), TOKENIZER, corpus / "tokens")


@pytest.mark.usefixtures("in_this_process")
def test_a_language_without_a_splitter_has_no_effect_which_is_told(corpus: Path, tmp_path: Path) -> None:
    with pytest.warns(BertwrightWarning, match="--language has no effect beside --sentences line"):
        run(corpus, tmp_path / "tokens", format=CorpusFormat(sentences="line", language="en"))
    run(corpus, tmp_path / "split", format=CorpusFormat(language="en"))
    run(corpus, tmp_path / "line", format=CorpusFormat(sentences="line"))


@pytest.mark.usefixtures("in_this_process")
def test_what_is_there_is_spared(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "tokens"
    run(corpus, out)
    before = contents(out)
    with pytest.raises(BertwrightError, match=r"tokens: already there; .* --overwrite"):
        run(corpus, out, seed=1)
    assert contents(out) == before
    run(corpus, out, seed=1, overwrite=True)
    assert contents(out) != before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus", "tokens"]
    (tmp_path / "file").touch()
    with pytest.raises(BertwrightError, match="a file is there"):
        run(corpus, tmp_path / "file", overwrite=True)
    with pytest.raises(BertwrightError, match=r"holds .*a\.txt of the corpus; choose another --out"):
        run(corpus, corpus, overwrite=True)
    with pytest.raises(BertwrightError, match=r"lies in .*corpus, where it would be read as text"):
        run(corpus, corpus / "tokens")
    (tmp_path / "vocab").mkdir()
    TOKENIZER.save(tmp_path / "vocab")
    with pytest.raises(BertwrightError, match="vocab: holds something that is no prepared corpus, and is not replaced"):
        run(corpus, tmp_path / "vocab", tokenizer=tmp_path / "vocab", overwrite=True)
    with pytest.raises(BertwrightError, match="holds the tokenizer"):
        run(corpus, out, tokenizer=out / "tokenizer", overwrite=True)
    assert (corpus / "a.txt").exists()
    assert (tmp_path / "vocab" / "vocab.txt").exists()


@pytest.mark.usefixtures("in_this_process")
def test_two_calls_do_not_mix(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "_PATIENCE", 0.1)
    folder = tmp_path / "tokens.preparing"
    folder.mkdir()
    with (folder / "lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(BertwrightError, match=r"tokens\.preparing: another `bertwright prepare` is at work here"):
            run(corpus, tmp_path / "tokens")
    run(corpus, tmp_path / "tokens")


@pytest.mark.usefixtures("in_this_process")
def test_no_place_to_work(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BertwrightError, match=r"tokens\.preparing: cannot be made: Not a directory; choose another --out"):
        run(corpus, tmp_path / "file" / "tokens")


@pytest.mark.usefixtures("in_this_process")
def test_progress_on_a_terminal_and_in_a_log(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    run(corpus, tmp_path / "one", console=Console(file=terminal, force_terminal=True, width=120))
    last = [line for line in terminal.getvalue().splitlines() if "documents" in line][-1]
    tokens = sum(count.tokens for count in TokenCorpus.open(tmp_path / "one").manifest.parts.values())
    assert f"241 documents, {tokens:,} tokens" in last
    assert "MB/s" in last
    monkeypatch.setattr(report, "_EVERY", 0.0)
    log = io.StringIO()
    result = run(corpus, tmp_path / "two", console=Console(file=log))
    lines = log.getvalue().splitlines()
    assert len(lines) >= result.shards
    assert lines[-1].startswith(f"preparing: 241 documents, {tokens:,} tokens, ")
    assert lines[-1].endswith(" MB/s, 0 s left")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the ray extra")
def test_ray_writes_the_same_bytes(corpus: Path, tmp_path: Path) -> None:
    vocab = tmp_path / "vocab"
    vocab.mkdir()
    TOKENIZER.save(vocab)
    # In a process of its own: Ray leaves threads and sockets behind, and warns.
    script = (
        "import ray, sys; ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)\n"
        "from bertwright.preparation.prepare import prepare; from bertwright.errors import BertwrightError\n"
        "given = dict(heldout=0.1, shard_bytes=8000, engine='ray')\n"
        "prepare([sys.argv[1]], sys.argv[2], sys.argv[3], **given)\n"
        "try: prepare([sys.argv[1]], sys.argv[2], sys.argv[3], strict=True, overwrite=True, **given)\n"
        "except BertwrightError as error: print(error)\n"
    )
    arguments = [sys.executable, "-c", script, str(corpus), str(vocab), str(tmp_path / "tokens")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "byte 0xff at position 5 is not UTF-8" in done.stdout
    assert contents(tmp_path / "tokens") == run_plainly(corpus, tmp_path / "plain")


def test_ray_is_an_extra(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BertwrightError, match=r"--engine ray needs: pip install 'bertwright\[ray\]'"):
        run(corpus, tmp_path / "tokens", engine="ray")


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("name", "vocab"),
    [("pretrain/enwiki-2018.txt.xz", "bert-base-uncased"), ("zh/zhwiki/zhwiki.txt.xz", "bert-base-chinese")],
)
def test_real_text(shared: Path, tmp_path: Path, name: str, vocab: str) -> None:
    with lzma.open(shared / name) as file:
        start = file.read(1_500_000).decode(errors="ignore")
    path = write(tmp_path / "text.txt", [start])
    tokenizer = Tokenizer.from_directory(shared / "vocab" / vocab)
    result = run(path, tmp_path / "tokens", workers=2, tokenizer=tokenizer, shard_bytes=200_000, heldout=0.05)
    check_tokens(tmp_path / "tokens", [path], tokenizer)
    assert result.manifest.parts["heldout"].documents > 0
    assert sum(count.unknown for count in result.manifest.parts.values()) < 0.02 * result.manifest.parts["train"].tokens
