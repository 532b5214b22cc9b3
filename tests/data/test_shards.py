"""The prepared corpus on disk: what is written is read back, and damage is told in one line."""

from __future__ import annotations

import dataclasses
import json
import string
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertwright.data.shards import (
    MANIFEST,
    Count,
    FileEntry,
    Manifest,
    Shard,
    TokenCorpus,
    continues_word,
    token_dtype,
    write_shard,
)
from bertwright.errors import BertwrightError
from bertwright.tokenizer import SPECIAL_TOKENS, Tokenizer

Documents = list[list[list[int]]]
WORDS = Tokenizer.from_vocab(
    [*SPECIAL_TOKENS.values(), *string.ascii_lowercase, *("##" + c for c in string.ascii_lowercase), "##"]
)
TRAIN: list[Documents] = [[[[5, 6], [7]], [[8, 9, 10]]], [[[11], [12, 13], [5]]]]
HELDOUT: Documents = [[[5, 5, 5]]]


def shard(folder: Path, part: str, documents: Documents, vocab_size: int = WORDS.vocab_size) -> Count:
    folder.mkdir(parents=True, exist_ok=True)
    sentences = [sentence for document in documents for sentence in document]
    tokens = [token for sentence in sentences for token in sentence]
    write_shard(folder, part, tokens, [len(s) for s in sentences], [len(d) for d in documents], vocab_size)
    return Count(len(documents), len(sentences), len(tokens))


def read_back(shard: Shard) -> Documents:
    tokens, sentences, documents = shard.tokens, shard.sentences, shard.documents
    return [
        [tokens[sentences[s] : sentences[s + 1]].tolist() for s in range(documents[d], documents[d + 1])]
        for d in range(len(documents) - 1)
    ]


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """A corpus of two shards; only the second has something set aside."""
    out = tmp_path / "tokens"
    counts = {"train": {f"{n:05d}": shard(out / "shards" / f"{n:05d}", "train", d) for n, d in enumerate(TRAIN)}}
    counts["heldout"] = {"00001": shard(out / "shards" / "00001", "heldout", HELDOUT)}
    WORDS.save(out / "tokenizer")
    np.save(out / "continues.npy", continues_word(WORDS))
    manifest = Manifest(
        tokenizer_digest=WORDS.digest,
        vocab_size=WORDS.vocab_size,
        special_ids={"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4},
        format={"documents": "auto"},
        heldout=0.1,
        seed=0,
        shard_bytes=1,
        made_with={"bertwright": "0"},
        duplicates=1,
        skipped=2,
        empty_documents=3,
        empty_sentences=4,
        parts={part: sum(shards.values(), Count()) for part, shards in counts.items()},
        shards=counts,
        files={p.relative_to(out).as_posix(): FileEntry.of(p) for p in sorted(out.rglob("*")) if p.is_file()},
    )
    (out / MANIFEST).write_text(manifest.to_json())
    return out


def test_parts_are_read_back(prepared: Path) -> None:
    train, heldout = TokenCorpus.open(prepared), TokenCorpus.open(prepared, "heldout")
    assert [read_back(shard) for shard in train.shards] == TRAIN
    assert [read_back(shard) for shard in heldout.shards] == [HELDOUT]
    assert (train.count, heldout.count) == (Count(3, 6, 10), Count(1, 1, 3))
    assert [shard.count for shard in train.shards] == [Count(2, 3, 6), Count(1, 3, 4)]
    assert train.shards[0].sentences.dtype == train.shards[0].documents.dtype == np.int64
    assert train.shards[0].tokens.dtype == np.uint16
    train.verify()


@settings(max_examples=40, deadline=None)
@given(
    documents=st.lists(
        st.lists(st.lists(st.integers(0, 69_999), min_size=1, max_size=5), min_size=1, max_size=4), min_size=1, max_size=6
    )
)
def test_any_documents_are_read_back(documents: Documents, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("shard")
    count = shard(folder, "train", documents, vocab_size=70_000)
    written = Shard(folder, "train", count)
    assert read_back(written) == documents
    assert written.tokens.dtype == np.uint32
    assert [len(written.documents), len(written.sentences), len(written.tokens)] == [
        count.documents + 1,
        count.sentences + 1,
        count.tokens,
    ]


@pytest.mark.parametrize(("vocab_size", "kind"), [(5, "<u2"), (65_535, "<u2"), (65_536, "<u4"), (250_000, "<u4")])
def test_ids_take_as_little_room_as_they_need(vocab_size: int, kind: str) -> None:
    assert token_dtype(vocab_size) == np.dtype(kind)
    assert np.array([vocab_size - 1]).astype(token_dtype(vocab_size)) == vocab_size - 1


def test_arrays_are_mapped_and_nothing_stays_open(prepared: Path) -> None:
    corpus = TokenCorpus.open(prepared)
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir())) if descriptors.is_dir() else 0
    total = sum(int(shard.tokens.sum()) for shard in corpus.shards)
    assert total == sum(token for documents in TRAIN for d in documents for s in d for token in s)
    assert not before or len(list(descriptors.iterdir())) == before
    tokens = corpus.shards[0].tokens
    assert isinstance(tokens, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        tokens[0] = 1


def test_shards_come_in_the_order_of_their_numbers(prepared: Path) -> None:
    corpus = TokenCorpus.open(prepared)
    names = {"100000": Count(), "99999": Count(), "00002": Count()}
    manifest = dataclasses.replace(corpus.manifest, shards={"train": names, "heldout": {}})
    assert [s.directory.name for s in dataclasses.replace(corpus, manifest=manifest).shards] == ["00002", "99999", "100000"]


def test_pieces_that_continue_a_word(prepared: Path) -> None:
    continues = TokenCorpus.open(prepared).continues
    assert continues.dtype == np.uint8
    assert len(continues) == WORDS.vocab_size
    assert WORDS.tokens(np.flatnonzero(continues).tolist()) == ["##" + c for c in string.ascii_lowercase]


def test_manifest_round_trip(prepared: Path) -> None:
    text = (prepared / MANIFEST).read_text()
    manifest = Manifest.from_json(text, "here")
    assert manifest.to_json() == text
    assert manifest == TokenCorpus.open(prepared).manifest


def test_digest_tells_corpora_apart(prepared: Path) -> None:
    digest = TokenCorpus.open(prepared).digest
    assert TokenCorpus.open(prepared, "heldout").digest == digest
    change(prepared, lambda manifest: manifest["files"]["shards/00000/train.tokens.npy"].update(sha256="0" * 64))
    assert TokenCorpus.open(prepared).digest != digest


def test_tokenizer_comes_with_the_corpus(prepared: Path) -> None:
    corpus = TokenCorpus.open(prepared)
    assert corpus.tokenizer().digest == WORDS.digest
    corpus.check_tokenizer(WORDS, "vocab")
    cased = Tokenizer.from_vocab(WORDS.tokens(range(WORDS.vocab_size)), lowercase=False)
    with pytest.raises(BertwrightError, match=r"another tokenizer than vocab .* --tokenizer vocab$"):
        corpus.check_tokenizer(cased, "vocab")
    cased.save(prepared / "tokenizer")
    with pytest.raises(BertwrightError, match="tokenizer: not the tokenizer that the corpus was made with"):
        corpus.tokenizer()


def change(prepared: Path, edit: Callable[[dict], object]) -> None:  # type: ignore[type-arg]
    given = json.loads((prepared / MANIFEST).read_text())
    edit(given)
    (prepared / MANIFEST).write_text(json.dumps(given))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")


TOKENS = "shards/00001/train.tokens.npy"
DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing array": (lambda out: (out / TOKENS).unlink(), r"shards/00001/train\.tokens\.npy: missing; prepare"),
    "truncated": (lambda out: truncate(out / TOKENS), r"train\.tokens\.npy: truncated: 135 bytes where 136 were written"),
    "longer": (lambda out: (out / TOKENS).write_bytes(bytes(200)), "altered: 200 bytes where 136 were written"),
    "no continues": (lambda out: (out / "continues.npy").unlink(), r"continues\.npy: missing"),
    "no manifest": (lambda out: (out / MANIFEST).unlink(), "holds no manifest.json; name what `bertwright prepare` wrote"),
    "not JSON": (lambda out: (out / MANIFEST).write_text("{"), r"manifest\.json: no manifest of a prepared corpus"),
    "not UTF-8": (lambda out: (out / MANIFEST).write_bytes(b'"\xff"'), r"manifest\.json: no manifest of a prepared"),
    "a list": (lambda out: (out / MANIFEST).write_text("[]"), "no manifest of a prepared corpus"),
    "other version": (
        lambda out: change(out, lambda m: m.update(version=7)),
        "version 7 of the format, where this bertwright",
    ),
    "field missing": (lambda out: change(out, lambda m: m.pop("seed")), "a damaged manifest"),
    "field too many": (lambda out: change(out, lambda m: m.update(more=1)), "a damaged manifest"),
    "part missing": (lambda out: change(out, lambda m: m["shards"].pop("heldout")), "a damaged manifest"),
    "odd count": (lambda out: change(out, lambda m: m["parts"].update(train=3)), "a damaged manifest"),
    "file unknown": (lambda out: change(out, lambda m: m["files"].pop(TOKENS)), "it says nothing of shards/00001/train.tok"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_told_on_opening(prepared: Path, name: str) -> None:
    damage, message = DAMAGE[name]
    damage(prepared)
    with pytest.raises(BertwrightError, match=message) as caught:
        TokenCorpus.open(prepared)
    assert "\n" not in str(caught.value)


def test_altered_content_is_found_by_verify(prepared: Path) -> None:
    flip(prepared / TOKENS)
    corpus = TokenCorpus.open(prepared)
    with pytest.raises(BertwrightError, match=r"train\.tokens\.npy: altered since it was written \(another SHA-256\)"):
        corpus.verify()


def test_verify_reads_both_parts_and_the_tokenizer(prepared: Path) -> None:
    corpus = TokenCorpus.open(prepared)
    for name in ("shards/00001/heldout.documents.npy", "tokenizer/vocab.txt"):
        whole = (prepared / name).read_bytes()
        flip(prepared / name)
        with pytest.raises(BertwrightError, match=name):
            corpus.verify()
        (prepared / name).write_bytes(whole)
    corpus.verify()


def test_verify_reads_no_more_than_the_shards_that_it_is_given(prepared: Path) -> None:
    flip(prepared / TOKENS)
    corpus = TokenCorpus.open(prepared)
    corpus.verify(corpus.shards[:1])
    with pytest.raises(BertwrightError, match=r"train\.tokens\.npy: altered since"):
        corpus.verify(corpus.shards[1:])


def test_an_array_that_is_none(prepared: Path) -> None:
    corpus = TokenCorpus.open(prepared)
    (prepared / TOKENS).write_bytes(bytes(136))
    with pytest.raises(BertwrightError, match=r"train\.tokens\.npy: cannot be read"):
        _ = corpus.shards[1].tokens
    (prepared / TOKENS).unlink()
    with pytest.raises(BertwrightError, match=r"train\.tokens\.npy: missing"):
        _ = corpus.shards[1].tokens


def test_no_such_corpus_or_part(prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(BertwrightError, match="nowhere: no such directory; name what `bertwright prepare` wrote"):
        TokenCorpus.open(tmp_path / "nowhere")
    with pytest.raises(BertwrightError, match="part is 'test'; a prepared corpus has train and heldout"):
        TokenCorpus.open(prepared, "test")


@pytest.mark.parametrize(
    "arguments",
    [("train", [5], [2], [1], 9), ("train", [5], [1], [2], 9), ("train", [5], [1, 0], [2], 9), ("train", [9], [1], [1], 9)],
)
def test_what_cannot_be_is_not_written(tmp_path: Path, arguments: tuple[str, list[int], list[int], list[int], int]) -> None:
    with pytest.raises(AssertionError):
        write_shard(tmp_path, *arguments)
    assert not list(tmp_path.iterdir())
