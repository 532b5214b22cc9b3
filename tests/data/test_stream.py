"""The stream of batches: nothing left out, nothing twice, and any place of it can be entered again."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bertwright.data.shards import TokenCorpus
from bertwright.data.stream import Batch, Stream
from bertwright.errors import BertwrightError
from tiny_corpus import write_tiny_corpus


@pytest.fixture(scope="module")
def corpus(tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> TokenCorpus:
    return TokenCorpus.open(write_tiny_corpus(tmp_path_factory.mktemp("stream") / "tokens", tiny_dir, shards=5, count=12))


def stream_of(corpus: TokenCorpus, *, seed: int = 3, section_tokens: int = 1000) -> Stream:
    return Stream(corpus, "mlm", seed=seed, section_tokens=section_tokens)


def seen(batch: Batch) -> list[tuple[int, ...]]:
    """The texts of a batch, as ids."""
    tokens, instances = np.asarray(batch.section.tokens), batch.instances
    starts, lengths = instances.a_start[batch.which], instances.a_length[batch.which]
    return [tuple(tokens[a : a + n].tolist()) for a, n in zip(starts, lengths, strict=True)]


def a_pass(stream: Stream, number: int, max_length: int = 16, budget: int = 64) -> list[Batch]:
    batches: list[Batch] = []
    while True:
        before = stream.position()
        (batch,) = stream.take(1, max_length, budget)
        if stream.position()["pass"] > number:
            stream.seek(before)
            return batches
        batches.append(batch)


def test_a_pass_reads_every_token_once(corpus: TokenCorpus) -> None:
    wanted = Counter(int(i) for shard in corpus.shards for i in shard.tokens)
    stream = stream_of(corpus)
    orders = []
    for number in range(3):
        batches = a_pass(stream, number)
        assert Counter(i for batch in batches for text in seen(batch) for i in text) == wanted
        assert all(sum(len(text) + 2 for text in seen(batch)) <= 64 for batch in batches)
        orders.append([text for batch in batches for text in seen(batch)])
        stream.take(1, 16, 64)
        stream.seek({"pass": number + 1, "section": 0, "batch": 0, "max_length": 16, "budget": 64})
    assert orders[0] != orders[1] != orders[2]


def test_sections_hold_whole_shards_and_change_places(corpus: TokenCorpus) -> None:
    firsts = set()
    for seed in range(12):
        stream = stream_of(corpus, seed=seed, section_tokens=500)
        sizes = {id(batch.section): len(batch.section.tokens) for batch in a_pass(stream, 0)}
        assert sum(sizes.values()) == corpus.count.tokens
        assert len(sizes) > 2
        firsts.add(next(iter(sizes.values())))
    assert len(firsts) > 1


@pytest.mark.parametrize("section_tokens", [500, 10**9])
def test_from_any_position_it_goes_on_alike(corpus: TokenCorpus, section_tokens: int) -> None:
    stream = stream_of(corpus, section_tokens=section_tokens)
    positions: list[dict[str, Any]] = []
    texts = []
    for _ in range(150):
        positions.append(stream.position())
        texts.append(seen(stream.take(1, 16, 64)[0]))
    assert stream.position()["pass"] > 0, "the test should cross the end of a pass"
    for start in range(1, 150, 7):
        other = stream_of(corpus, section_tokens=section_tokens)
        other.seek(positions[start])
        assert [seen(batch) for batch in other.take(150 - start, 16, 64)] == texts[start:]


def test_another_length_or_budget_goes_on_with_the_next_section(corpus: TokenCorpus) -> None:
    stream = stream_of(corpus, section_tokens=500)
    stream.take(3, 16, 64)
    first = stream.position()
    (longer,) = stream.take(1, 40, 64)
    assert (first["pass"], first["section"]) == (0, 0)
    assert stream.position() == {"pass": 0, "section": 1, "batch": 1, "max_length": 40, "budget": 64}
    assert max(len(text) for text in seen(longer)) > 14
    stream.take(1, 40, 128)
    assert (stream.position()["pass"], stream.position()["section"]) == (0, 2)


def test_what_a_change_leaves_out_is_a_section_and_not_the_rest_of_the_pass(corpus: TokenCorpus) -> None:
    stream = stream_of(corpus, section_tokens=500)
    stream.take(1, 16, 64)
    sections = {id(batch.section): len(batch.section.tokens) for batch in a_pass(stream, 0, 16, 96)}
    left_out = corpus.count.tokens - sum(sections.values())
    assert len(sections) > 1
    assert 0 < left_out < 2 * 500 < corpus.count.tokens


def test_of_a_single_section_a_change_begins_a_new_pass(corpus: TokenCorpus) -> None:
    stream = stream_of(corpus, section_tokens=10**9)
    stream.take(3, 16, 64)
    stream.take(1, 40, 64)
    assert (stream.position()["pass"], stream.position()["section"]) == (1, 0)


@pytest.mark.parametrize("ahead", [False, True], ids=["in the first section", "in a later one"])
def test_altered_text_is_found_when_it_is_first_read(tmp_path: Path, tiny_dir: Path, ahead: bool) -> None:
    corpus = TokenCorpus.open(write_tiny_corpus(tmp_path / "tokens", tiny_dir, shards=2, count=12))
    before = stream_of(corpus, section_tokens=1)
    first = before.take(1, 16, 64)[0].section
    shards = [shard for shard in corpus.shards if np.array_equal(shard.tokens, first.tokens) != ahead]
    file = shards[0].directory / "train.tokens.npy"
    content = file.read_bytes()
    file.write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])  # as many bytes, and ids of the vocabulary
    stream = stream_of(TokenCorpus.open(corpus.directory), section_tokens=1)
    if ahead:
        stream.take(1, 16, 64)
    with pytest.raises(BertwrightError, match=r"train\.tokens\.npy: altered since it was written \(another SHA-256\)"):
        stream.take(1000, 16, 64)


SHRINKING = """
import os, sys
from pathlib import Path
from bertwright.data import stream
from bertwright.data.shards import TokenCorpus

join = stream.join

def shrink_and_join(sections):
    for file in Path(sys.argv[1]).rglob("train.*.npy"):
        os.truncate(file, 0)
    return join(sections)

stream.join = shrink_and_join
corpus = TokenCorpus.open(sys.argv[1])
print(len(stream.Stream(corpus, "mlm", seed=3).take(1, 16, 64)[0].which))
"""


def test_files_that_shrink_under_a_training_do_not_end_its_process(tmp_path: Path, tiny_dir: Path) -> None:
    """In a process of its own: had the files been mapped, it would die of SIGBUS."""
    corpus = write_tiny_corpus(tmp_path / "tokens", tiny_dir, shards=2, count=12)
    done = subprocess.run([sys.executable, "-c", SHRINKING, str(corpus)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0


@pytest.mark.parametrize(
    ("part", "remedy"), [("heldout", "a larger --heldout"), ("train", r"documents told apart \(--docu")]
)
def test_a_single_document_has_no_other_to_take_from(tmp_path: Path, tiny_dir: Path, part: str, remedy: str) -> None:
    write_tiny_corpus(tmp_path / "tokens", tiny_dir, shards=1, count=1, heldout=1)
    corpus = TokenCorpus.open(tmp_path / "tokens", part)
    with pytest.raises(BertwrightError, match=rf"its part '{part}' holds a single document, .* prepare it with {remedy}"):
        Stream(corpus, "mlm+nsp", seed=0)
    for objective in ("mlm", "mlm+sop"):
        assert Stream(corpus, objective, seed=0).take(1, 16, 64)


def test_batches_taken_together_or_apart_are_the_same(corpus: TokenCorpus) -> None:
    together = stream_of(corpus).take(40, 16, 64)
    apart = stream_of(corpus)
    assert [seen(b) for b in together] == [seen(apart.take(1, 16, 64)[0]) for _ in range(40)]


def test_other_seeds_other_orders(corpus: TokenCorpus) -> None:
    assert len({tuple(seen(stream_of(corpus, seed=seed).take(1, 16, 64)[0])) for seed in range(5)}) == 5


def test_an_empty_part_is_refused(corpus: TokenCorpus, tmp_path: Path, tiny_dir: Path) -> None:
    empty = TokenCorpus.open(write_tiny_corpus(tmp_path / "tokens", tiny_dir, shards=0))
    with pytest.raises(BertwrightError, match=r"its part 'train' holds no text; prepare it with a larger corpus"):
        stream_of(empty)
