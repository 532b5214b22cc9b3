"""Training instances: the walk of BERT's preparation, its rates on real text, and every sentence in its place."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import lzma
import math
import random as plain_random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bertwright import Tokenizer
from bertwright.data.instances import NO_PAIR, OBJECTIVES, Instances, batches, draw_instances, join, pack
from bertwright.data.shards import TextInMemory
from bertwright.errors import BertwrightError

CLS, SEP = 900_001, 900_002
PAIRS = ("mlm+nsp", "mlm+sop")

corpora = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=12), min_size=1, max_size=8)
"""Documents as the lengths of their sentences."""


def section_of(documents: Sequence[Sequence[int]]) -> TextInMemory:
    """A section whose tokens are their own places, so that a packed batch shows where its text came from."""
    lengths = [length for document in documents for length in document]
    sentences = np.array([0, *itertools.accumulate(lengths)])
    return TextInMemory(np.arange(sum(lengths)), sentences, np.array([0, *itertools.accumulate(map(len, documents))]))


def draw(section: TextInMemory, objective: str = "mlm+nsp", max_length: int = 128, **options: Any) -> Instances:
    return draw_instances(section, objective, max_length, **({"seed": 1, "epoch": 0, "number": 0} | options))


def lengths_of(section: TextInMemory) -> list[list[int]]:
    each = np.diff(section.sentences).tolist()
    return [each[a:b] for a, b in itertools.pairwise(section.documents.tolist())]


def document_of(section: TextInMemory, tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.searchsorted(section.sentences[section.documents], tokens, side="right") - 1


def unused(section: TextInMemory, drawn: Instances) -> int:
    """How many tokens of the section are in no part of any instance."""
    steps = np.zeros(len(section.tokens) + 1, np.int64)
    for start, length in ((drawn.a_start, drawn.a_length), (drawn.b_start, drawn.b_length)):
        np.add.at(steps, start, 1)
        np.add.at(steps, start + length, -1)
    return int((np.cumsum(steps)[:-1] == 0).sum())


def same(one: Instances, other: Instances) -> bool:
    pairs = [(getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(Instances)]
    return all(np.array_equal(a, b) for a, b in pairs)


def z_of(hits: int, of: int, probability: float) -> float:
    return (hits - of * probability) / math.sqrt(of * probability * (1 - probability))


@pytest.fixture(scope="module")
def wiki(shared: Path) -> TextInMemory:
    """A section of real text: the beginning of enwiki-2018, cut into sentences at every '. '."""
    with lzma.open(shared / "pretrain" / "enwiki-2018.txt.xz", "rt", encoding="utf-8") as file:
        text = file.read(3_000_000).rpartition("\n\n")[0]
    tokenizer = Tokenizer.from_vocab(shared / "vocab" / "bert-base-uncased" / "vocab.txt")
    documents = [
        [sentence for line in document.splitlines() for sentence in line.split(". ") if sentence.strip()]
        for document in text.split("\n\n")
    ]
    encoded = tokenizer.encode_batch([sentence for document in documents for sentence in document])
    sentences = [each.input_ids[1:-1] for each in encoded]
    assert all(sentences), "no sentence of this text is empty"
    return TextInMemory(
        np.concatenate(sentences).astype(np.uint16),
        np.array([0, *itertools.accumulate(map(len, sentences))]),
        np.array([0, *itertools.accumulate(map(len, documents))]),
    )


# ---- rates on real text


@pytest.mark.parametrize("max_length", [128, 512])
def test_half_the_pairs_truly_follow(wiki: TextInMemory, max_length: int) -> None:
    drawn = [draw(wiki, max_length=max_length, epoch=epoch) for epoch in range(3)]
    labels = np.concatenate([each.label for each in drawn])
    assert len(labels) > 5_000
    assert sum(each.unpaired for each in drawn) == 0
    assert set(labels.tolist()) == {0, 1}
    assert abs(z_of(int((labels == 0).sum()), len(labels), 0.5)) < 4


def test_half_the_pairs_are_swapped(wiki: TextInMemory) -> None:
    drawn = draw(wiki, "mlm+sop")
    assert abs(z_of(int((drawn.label == 1).sum()), len(drawn), 0.5)) < 4
    assert np.array_equal(drawn.a_start > drawn.b_start, drawn.label == 1)
    assert np.array_equal(document_of(wiki, drawn.a_start), document_of(wiki, drawn.b_start))


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("fraction", [0.1, 0.5])
def test_short_targets(wiki: TextInMemory, objective: str, fraction: float) -> None:
    drawn = draw(wiki, objective, short_fraction=fraction)
    room = 126 if objective == "mlm" else 125
    values = room - 1  # 2 .. room, of which the last is not short
    short = drawn.target[drawn.target < room]
    assert abs(z_of(len(short), len(drawn), fraction * (values - 1) / values)) < 4
    assert short.min() >= 2
    assert drawn.target.max() == room
    deviation = math.sqrt(((values - 1) ** 2 - 1) / 12 / len(short))
    assert abs(float(short.mean()) - (2 + room - 1) / 2) < 4 * deviation


def test_a_tenth_is_short_by_default_except_for_mlm(wiki: TextInMemory) -> None:
    for objective in PAIRS:
        assert same(draw(wiki, objective), draw(wiki, objective, short_fraction=0.1))
    assert same(draw(wiki, "mlm"), draw(wiki, "mlm", short_fraction=0.0))


@pytest.mark.parametrize("objective", PAIRS)
@pytest.mark.parametrize("max_length", [64, 128, 512])
def test_the_second_part_follows_the_first(wiki: TextInMemory, objective: str, max_length: int) -> None:
    drawn = draw(wiki, objective, max_length)
    follows = drawn.label == 0
    a_end = (drawn.a_start + drawn.a_length)[follows]
    b_start, b_end = drawn.b_start[follows], (drawn.b_start + drawn.b_length)[follows]
    # Between the parts lies one end of a sentence, and around it nothing but what the cut to length took away.
    seam = wiki.sentences[np.searchsorted(wiki.sentences, a_end)]
    assert (seam <= b_start).all()
    full = drawn.lengths[follows] == max_length
    assert np.array_equal(a_end[~full], b_start[~full])
    assert np.isin(a_end[~full], wiki.sentences).all()
    assert 0.1 < float((a_end == b_start).mean()) < 1
    assert np.array_equal(document_of(wiki, drawn.a_start[follows]), document_of(wiki, b_end - 1))


def test_random_second_parts_come_from_other_documents(wiki: TextInMemory) -> None:
    drawn = draw(wiki)
    chance = drawn.label == 1
    a, b = document_of(wiki, drawn.a_start[chance]), document_of(wiki, drawn.b_start[chance])
    assert (a != b).all()
    ends = (drawn.b_start + drawn.b_length - 1)[chance]
    assert np.array_equal(b, document_of(wiki, ends))
    # Documents are equally likely, however long they are.
    documents = len(wiki.documents) - 1
    assert abs(float(b.mean()) - (documents - 1) / 2) < 4 * documents / math.sqrt(12 * len(b))


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("max_length", [32, 128, 512])
def test_no_sentence_is_lost(wiki: TextInMemory, objective: str, max_length: int) -> None:
    drawn = draw(wiki, objective, max_length)
    assert unused(wiki, drawn) <= drawn.truncated
    if objective == "mlm":
        assert unused(wiki, drawn) == 0
        assert int(drawn.a_length.sum()) == len(wiki.tokens)
    assert drawn.lengths.max() == max_length
    assert (drawn.a_length > 0).all()


# ---- against a slow walk through the same text


def slow_pairs(section: TextInMemory, room: int, short_fraction: float, seed: int) -> list[tuple[int, int, int]]:
    """(tokens of A, tokens of B, label) of mlm+nsp, one sentence and one token at a time."""
    random = plain_random.Random(seed)
    documents = lengths_of(section)
    result = []
    for number, document in enumerate(documents):
        here = 0
        while here < len(document):
            short = random.random() < short_fraction
            target = random.randint(2, room) if short else room
            follows = len(document) > 1 and random.random() < 0.5
            chunk: list[int] = []
            while here + len(chunk) < len(document) and sum(chunk) < target:
                chunk.append(document[here + len(chunk)])
            used = len(chunk)
            if follows and len(chunk) == 1:
                if here + 1 < len(document):
                    chunk.append(document[here + 1])
                    used = 2
                else:
                    chunk.insert(0, document[here - 1])
            split = random.randint(1, len(chunk) - 1) if len(chunk) > 1 else 1
            a, b = sum(chunk[:split]), sum(chunk[split:])
            if not follows:
                used = split
                other = random.choice([d for d in range(len(documents)) if d != number])
                first = random.randrange(len(documents[other]))
                b = 0
                for length in documents[other][first:]:
                    b += length
                    if b >= target - a:
                        break
            result.append((*slow_cut(a, b, room), 0 if follows else 1))
            here += used
    return result


def slow_cut(a: int, b: int, room: int) -> tuple[int, int]:
    while a + b > room:
        if a > b:
            a -= 1
        else:
            b -= 1
    return a, b


def far_apart(one: npt.NDArray[np.int64], other: npt.NDArray[np.int64]) -> float:
    """Kolmogorov and Smirnov's statistic of two samples, scaled: by chance above 2.2 once in eight thousand times."""
    at = np.union1d(one, other)
    shares = [np.searchsorted(np.sort(each), at, side="right") / len(each) for each in (one, other)]
    return float(np.abs(shares[0] - shares[1]).max()) * math.sqrt(len(one) * len(other) / (len(one) + len(other)))


@pytest.mark.parametrize(("max_length", "fraction"), [(128, 0.1), (64, 1.0), (256, 0.0)])
def test_pairs_are_distributed_as_by_a_slow_walk(wiki: TextInMemory, max_length: int, fraction: float) -> None:
    # Documents of a few sentences are where the rules for ends of documents show.
    lengths = [document[i : i + size] for document in lengths_of(wiki) for i, size in ((0, 1), (1, 2), (3, 9))]
    section = section_of([document for document in lengths if document])
    slow = np.array([row for seed in (1, 2) for row in slow_pairs(section, max_length - 3, fraction, seed)])
    drawn = [draw(section, max_length=max_length, short_fraction=fraction, epoch=epoch) for epoch in range(4)]
    fast = np.concatenate([np.stack([each.a_length, each.b_length, each.label], axis=1) for each in drawn])
    assert abs(len(fast) / 4 - len(slow) / 2) < 0.02 * len(slow) / 2
    for label in (0, 1):
        a, b = slow[slow[:, 2] == label], fast[fast[:, 2] == label]
        for column in (a[:, 0], b[:, 0]), (a[:, 1], b[:, 1]), (a[:, :2].sum(1), b[:, :2].sum(1)):
            assert far_apart(*column) < 2.2
            deviation = math.hypot(*(float(each.std()) / math.sqrt(len(each)) for each in column))
            assert abs(float(column[0].mean() - column[1].mean())) < 4 * deviation
    shares = [float(each[:, 2].mean()) for each in (slow, fast)]
    assert abs(shares[0] - shares[1]) < 4 * 0.5 * math.hypot(1 / math.sqrt(len(slow)), 1 / math.sqrt(len(fast)))


@settings(max_examples=200, deadline=None)
@given(corpora, st.integers(3, 30), st.integers(0, 2**63))
def test_texts_are_those_of_a_slow_walk(documents: list[list[int]], max_length: int, seed: int) -> None:
    room = max_length - 2
    expected = []
    place = 0
    for document in documents:
        start, length = place, 0
        for sentence in document:
            pieces = [room] * (sentence // room) + [sentence % room] * (sentence % room > 0)
            for piece in pieces:
                if length + piece > room:
                    expected.append((start, length))
                    start, length = place, 0
                length += piece
                place += piece
        expected.append((start, length))
    drawn = draw(section_of(documents), "mlm", max_length, seed=seed)
    assert list(zip(drawn.a_start.tolist(), drawn.a_length.tolist(), strict=True)) == expected
    assert np.array_equal(drawn.lengths, drawn.a_length + 2)
    assert not drawn.b_length.any()
    assert set(drawn.label.tolist()) == {NO_PAIR}
    assert (drawn.truncated, drawn.unpaired) == (0, 0)


@settings(max_examples=100, deadline=None)
@given(corpora, st.integers(12, 40), st.integers(0, 1000))
def test_short_texts_hold_what_their_target_has_room_for(documents: list[list[int]], max_length: int, seed: int) -> None:
    section = section_of(documents)
    drawn = draw(section, "mlm", max_length, seed=seed, short_fraction=1.0)
    ends = set(section.sentences[section.documents].tolist())
    for start, length, target in zip(drawn.a_start.tolist(), drawn.a_length.tolist(), drawn.target.tolist(), strict=True):
        first, end = (bisect.bisect_left(section.sentences.tolist(), x) for x in (start, start + length))
        assert (section.sentences[first], section.sentences[end]) == (start, start + length)
        assert length <= target or end == first + 1
        assert start + length in ends or section.sentences[end + 1] - start > target


# ---- the procedure on small corpora, exactly


@settings(max_examples=400, deadline=None)
@given(corpora, st.sampled_from(PAIRS), st.integers(0, 2**63), st.integers(0, 5))
def test_every_step_of_the_walk(documents: list[list[int]], objective: str, seed: int, epoch: int) -> None:
    """With room for any two parts nothing is cut, and each pair shows all that was decided about it."""
    if objective == "mlm+nsp" and len(documents) == 1:
        documents = [*documents, [3]]
    section = section_of(documents)
    room = max(2 * max(map(sum, documents)), 2)
    drawn = draw(section, objective, room + 3, seed=seed, epoch=epoch, short_fraction=1.0)
    at = {token: sentence for sentence, token in enumerate(section.sentences.tolist())}
    edges = section.documents.tolist()
    here = 0
    for i in range(len(drawn)):
        label, target = int(drawn.label[i]), int(drawn.target[i])
        a_first, a_end = (at[int(x)] for x in (drawn.a_start[i], drawn.a_start[i] + drawn.a_length[i]))
        b_first, b_end = (at[int(x)] for x in (drawn.b_start[i], drawn.b_start[i] + drawn.b_length[i]))
        if objective == "mlm+sop" and label == 1:
            a_first, a_end, b_first, b_end = b_first, b_end, a_first, a_end
        document = bisect.bisect_right(edges, here) - 1
        chunk_end = here + 1
        while chunk_end < edges[document + 1] and section.sentences[chunk_end] - section.sentences[here] < target:
            chunk_end += 1
        assert a_end > a_first
        if label == NO_PAIR:
            assert (objective, len(documents[document])) == ("mlm+sop", 1)
            assert (a_first, a_end, b_end - b_first) == (here, here + 1, 0)
            here = a_end
        elif label == 0 or objective == "mlm+sop":
            if chunk_end - here > 1 or chunk_end < edges[document + 1]:
                assert (a_first, b_first, b_end) == (here, a_end, max(chunk_end, here + 2))
            else:
                assert (a_first, a_end, b_first, b_end) == (here - 1, here, here, here + 1)
                assert here > edges[document]
            here = b_end
        else:
            assert a_first == here
            assert a_end == chunk_end if chunk_end == here + 1 else a_end < chunk_end
            other = bisect.bisect_right(edges, b_first) - 1
            assert other != document
            b_last = b_first + 1
            missing = target - (section.sentences[a_end] - section.sentences[a_first])
            while b_last < edges[other + 1] and section.sentences[b_last] - section.sentences[b_first] < missing:
                b_last += 1
            assert b_end == b_last
            here = a_end
    assert here == edges[-1]
    assert drawn.truncated == 0
    assert unused(section, drawn) == 0
    lone = {d for d, document in enumerate(documents) if len(document) == 1}
    assert drawn.unpaired == len(lone)
    assert sorted(drawn.order.tolist()) == list(range(len(drawn)))


@settings(max_examples=300, deadline=None)
@given(corpora, st.sampled_from(PAIRS), st.integers(5, 30), st.floats(0, 1), st.integers(0, 2**63))
def test_whatever_the_corpus(documents: list[list[int]], objective: str, max_length: int, short: float, seed: int) -> None:
    if objective == "mlm+nsp" and len(documents) == 1:
        documents = documents * 2
    section = section_of(documents)
    drawn = draw(section, objective, max_length, seed=seed, short_fraction=short)
    assert (drawn.lengths <= max_length).all()
    assert np.array_equal(drawn.lengths, drawn.a_length + drawn.b_length + np.where(drawn.label == NO_PAIR, 2, 3))
    assert (drawn.a_length >= 1).all()
    assert np.array_equal(drawn.b_length == 0, drawn.label == NO_PAIR)
    a, b = document_of(section, drawn.a_start), document_of(section, drawn.b_start)
    assert np.array_equal(a, document_of(section, drawn.a_start + drawn.a_length - 1))
    assert np.array_equal(b, document_of(section, drawn.b_start + np.maximum(drawn.b_length - 1, 0)))
    paired = drawn.label != NO_PAIR
    apart = drawn.label == 1 if objective == "mlm+nsp" else np.zeros(len(drawn), np.bool_)
    assert np.array_equal((a != b)[paired], apart[paired])
    in_order = np.where(drawn.label == 1, 1, -1) * (drawn.a_start - drawn.b_start) > 0
    assert in_order[paired & ~apart].all()
    assert unused(section, drawn) <= drawn.truncated
    assert sorted(drawn.order.tolist()) == list(range(len(drawn)))


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(5, 40), st.sampled_from(PAIRS))
def test_the_longer_part_is_cut(a: int, b: int, max_length: int, objective: str) -> None:
    section = section_of([[a, b]] * 20)
    drawn = draw(section, objective, max_length, short_fraction=0.0)
    own = drawn.label == 0
    room = max_length - 3
    assert own.any()
    kept = slow_cut(a, b, room)
    assert set(zip(drawn.a_length[own].tolist(), drawn.b_length[own].tolist(), strict=True)) == {kept}
    if objective == "mlm+sop":
        assert drawn.truncated == 20 * (max(a + b, room) - room)
        swapped = drawn.label == 1
        assert set(zip(drawn.a_length[swapped].tolist(), drawn.b_length[swapped].tolist(), strict=True)) <= {
            slow_cut(b, a, room)
        }
    else:
        # What is missing of a part of its own text, pair by pair; a random second part has its own place.
        whole = np.where(
            own, a + b, np.diff(section.sentences)[np.searchsorted(section.sentences, drawn.a_start, "right") - 1]
        )
        kept_tokens = drawn.a_length + np.where(own, drawn.b_length, 0)
        assert drawn.truncated == int((whole - kept_tokens).sum())


def test_tokens_are_cut_from_the_front_or_the_back_by_the_toss_of_a_coin() -> None:
    section = section_of([[200, 100]] * 4000)
    drawn = draw(section, max_length=128, short_fraction=0.0)
    own = drawn.label == 0
    for start, sentence, cut in (drawn.a_start, 0, 200 - 63), (drawn.b_start, 200, 100 - 62):
        front = start[own] % 300 - sentence
        assert 0 <= front.min() <= front.max() <= cut
        assert abs(z_of(int(front.sum()), cut * len(front), 0.5)) < 4
        spread = float(front.var()) / (cut / 4)
        assert abs(spread - 1) < 4 * math.sqrt(2 / len(front))


def test_the_length_of_the_first_part_is_uniform() -> None:
    drawn = draw(section_of([[1] * 8] * 6000), max_length=11, short_fraction=0.0)
    first = drawn.a_start % 8 == 0
    assert int(first.sum()) == 6000
    counts = Counter(drawn.a_length[first].tolist())
    assert set(counts) == set(range(1, 8))
    assert all(abs(z_of(count, 6000, 1 / 7)) < 4 for count in counts.values())


def test_other_documents_and_their_sentences_are_equally_likely() -> None:
    documents = [[1] * 4, [1] * 2, [1] * 5, [1] * 3]
    section = section_of(documents)
    counts: Counter[tuple[int, int]] = Counter()
    for epoch in range(4000):
        drawn = draw(section, max_length=20, epoch=epoch)
        chance = drawn.label == 1
        counts.update(zip(document_of(section, drawn.a_start[chance]).tolist(), drawn.b_start[chance].tolist(), strict=True))
    for own in range(4):
        of = sum(count for (a, _), count in counts.items() if a == own)
        for place in range(14):
            other = int(document_of(section, np.array([place]))[0])
            if other == own:
                assert (own, place) not in counts
            else:
                assert abs(z_of(counts[own, place], of, 1 / 3 / len(documents[other]))) < 4


def test_documents_of_one_sentence_are_counted() -> None:
    section = section_of([[4]] * 30 + [[3, 3]])
    drawn = draw(section)
    alone = drawn.a_start < 120
    assert drawn.unpaired == int(alone.sum()) == 30
    assert (drawn.label[alone] == 1).all()
    drawn = draw(section, "mlm+sop")
    assert drawn.unpaired == 30
    assert drawn.label[:30].tolist() == [NO_PAIR] * 30
    assert drawn.lengths[:30].tolist() == [6] * 30
    assert len(drawn) == 31


def test_the_smallest_lengths() -> None:
    pairs = draw(section_of([[1, 2], [5], [3, 1, 1]]), max_length=5)
    assert set(pairs.a_length.tolist()) == set(pairs.b_length.tolist()) == {1}
    texts = draw(section_of([[1, 2], [5]]), "mlm", 3)
    assert texts.a_length.tolist() == [1] * 8
    assert texts.a_start.tolist() == list(range(8))


def test_a_walk_of_a_million_steps() -> None:
    """A document of any length is followed to its end, and no step of it is taken in Python."""
    drawn = draw(section_of([[5] * 3_000_001, [5]]), "mlm", 17)
    assert np.array_equal(drawn.a_start, np.append(np.arange(0, 15_000_005, 15), 15_000_005))
    assert drawn.a_length[-3:].tolist() == [15, 5, 5]


# ---- a pure function of (seed, epoch, number)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_drawn_again_they_are_the_same(objective: str) -> None:
    section = section_of([[1, 2, 3, 4] * 5] * 20)
    first = draw(section, objective, 32, seed=5, epoch=2, number=3, short_fraction=0.3)
    assert same(first, draw(section, objective, 32, seed=5, epoch=2, number=3, short_fraction=0.3))
    for change in {"seed": 6}, {"epoch": 3}, {"number": 4}:
        other = draw(section, objective, 32, **({"seed": 5, "epoch": 2, "number": 3, "short_fraction": 0.3} | change))
        assert not same(first, other)
        assert not np.array_equal(first.order, other.order)


def test_epochs_sections_and_seeds_draw_independently() -> None:
    section = section_of([[4]] + [[3, 2]] * 2000)
    streams = [
        draw(section, "mlm+sop", seed=seed, epoch=epoch, number=number).label[1:]
        for seed, epoch, number in itertools.product((0, 1, 2**63), (0, 1), (0, 1))
    ]
    for one, other in itertools.combinations(streams, 2):
        assert abs(z_of(int((one == other).sum()), 2000, 0.5)) < 4


# ---- batches


@settings(max_examples=100, deadline=None)
@given(corpora, st.integers(9, 30), st.integers(0, 60), st.integers(0, 100))
def test_batches_are_filled_in_order(documents: list[list[int]], max_length: int, more: int, seed: int) -> None:
    drawn = draw(section_of(documents), "mlm", max_length, seed=seed)
    budget = int(drawn.lengths.max()) + more
    expected, filled = [0], 0
    for place, length in enumerate(drawn.lengths[drawn.order].tolist()):
        if filled + length > budget:
            expected.append(place)
            filled = 0
        filled += length
    assert batches(drawn, budget).tolist() == [*expected, len(drawn)]


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("budget", [8192, 32768])
def test_batches_are_nearly_full(wiki: TextInMemory, objective: str, budget: int) -> None:
    drawn = draw(wiki, objective)
    offsets = batches(drawn, budget)
    tokens = np.add.reduceat(drawn.lengths[drawn.order], offsets[:-1])
    assert tokens.max() <= budget
    # The last batch has what is left.
    assert float(tokens[:-1].mean()) / budget > 0.99


def test_a_budget_below_the_longest_sequence_is_refused() -> None:
    drawn = draw(section_of([[20, 20]] * 3), max_length=30)
    with pytest.raises(BertwrightError, match="a batch of 29 tokens has no room for a sequence of 30"):
        batches(drawn, 29)
    assert batches(drawn, 30).tolist() == list(range(len(drawn) + 1))


def test_an_empty_section_has_no_batches() -> None:
    empty = TextInMemory(np.zeros(0, np.uint16), np.zeros(1, np.int64), np.zeros(1, np.int64))
    for objective in OBJECTIVES:
        drawn = draw(empty, objective)
        assert len(drawn) == 0
        assert batches(drawn, 128).tolist() == [0]


# ---- packing


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_packing(objective: str, tmp_path: Path) -> None:
    section = section_of([[3, 5, 2], [1], [4, 4, 6, 2, 1], [9, 9]])
    np.save(tmp_path / "tokens.npy", section.tokens.astype(np.uint16))
    mapped = dataclasses.replace(section, tokens=np.load(tmp_path / "tokens.npy", mmap_mode="r"))
    drawn = draw(section, objective, 16)
    which = drawn.order[: len(drawn) - 1]
    batch, labels_B = pack(mapped, drawn, which, cls_id=CLS, sep_id=SEP)
    chosen = which[np.argsort(drawn.lengths[which], kind="stable")]
    ids: list[int] = []
    types: list[int] = []
    positions: list[int] = []
    for i in chosen.tolist():
        a = range(drawn.a_start[i], drawn.a_start[i] + drawn.a_length[i])
        b = range(drawn.b_start[i], drawn.b_start[i] + drawn.b_length[i])
        second = [*b, SEP] if b else []
        ids += [CLS, *a, SEP, *second]
        types += [0] * (len(a) + 2) + [1] * len(second)
        positions += range(drawn.lengths[i])
    assert batch.input_ids_T.tolist() == ids
    assert batch.token_type_ids_T.tolist() == types
    assert batch.position_ids_T.tolist() == positions
    assert batch.sequences.lengths == tuple(drawn.lengths[chosen].tolist())
    assert which[batch.order].tolist() == chosen.tolist()
    assert labels_B.tolist() == drawn.label[chosen].tolist()
    assert {t.dtype for t in (batch.input_ids_T, batch.token_type_ids_T, batch.position_ids_T, labels_B)} == {torch.int64}


def test_packed_pairs_show_that_the_text_goes_on(wiki: TextInMemory) -> None:
    """What the model sees of an uncut following pair is the text itself, [SEP] in its middle."""
    drawn = draw(wiki)
    uncut = np.flatnonzero((drawn.label == 0) & (drawn.lengths < 128))
    assert len(uncut) > 100
    batch, labels_B = pack(wiki, drawn, uncut, cls_id=CLS, sep_id=SEP)
    assert not labels_B.any()
    starts = batch.sequences.offsets_B1.tolist()
    for (begin, end), i in zip(itertools.pairwise(starts), uncut[batch.order].tolist(), strict=True):
        ids = [id for id in batch.input_ids_T[begin:end].tolist() if id not in (CLS, SEP)]
        assert ids == wiki.tokens[drawn.a_start[i] : drawn.a_start[i] + len(ids)].tolist()


def test_all_batches_of_an_epoch_hold_every_instance_once(wiki: TextInMemory) -> None:
    drawn = draw(wiki)
    offsets = batches(drawn, 4096).tolist()
    lengths = 0
    for begin, end in itertools.pairwise(offsets):
        batch, _ = pack(wiki, drawn, drawn.order[begin:end], cls_id=101, sep_id=102)
        assert batch.tokens <= 4096
        lengths += batch.tokens
    assert lengths == int(drawn.lengths.sum())


@given(st.lists(corpora, min_size=1, max_size=4))
def test_joined_sections_are_the_section_of_all_documents(parts: list[list[list[int]]]) -> None:
    whole = section_of([document for part in parts for document in part])
    joined = join([section_of(part) for part in parts])
    assert joined.sentences.tolist() == whole.sentences.tolist()
    assert joined.documents.tolist() == whole.documents.tolist()
    assert joined.tokens.tolist() == [token for part in parts for token in section_of(part).tokens.tolist()]


# ---- what is refused


@pytest.mark.parametrize(
    ("objective", "options", "message"),
    [
        ("mlm+nps", {}, r"unknown objective 'mlm\+nps'; did you mean 'mlm\+nsp'\?; there are mlm\+nsp, mlm, mlm\+sop"),
        ("mlm+nsp", {"max_length": 4}, r"max_length=4 has no room for 3 special tokens .* needs at least 5"),
        ("mlm+sop", {"max_length": 0}, "needs at least 5"),
        (
            "mlm",
            {"max_length": 2},
            "max_length=2 has no room for 2 special tokens and a token of text; 'mlm' needs at least 3",
        ),
        ("mlm", {"short_fraction": 1.5}, "the fraction of short instances is 1.5; give a number from 0 to 1"),
        ("mlm+nsp", {"short_fraction": math.nan}, "the fraction of short instances is nan"),
    ],
)
def test_bad_options(objective: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(BertwrightError, match=message):
        draw(section_of([[1, 2], [3]]), objective, **options)


def test_next_sentences_need_a_second_document() -> None:
    section = section_of([[5, 4, 3]])
    with pytest.raises(BertwrightError, match=r"section 7 of the corpus is a single document, but 'mlm\+nsp' takes half"):
        draw(section, number=7)
    assert len(draw(section, "mlm")) == len(draw(section, "mlm+sop")) == 1
