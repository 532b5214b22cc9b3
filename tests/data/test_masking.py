"""Masking: exact counts, rates within binomial error, whole words, and the same bits from (seed, step, micro-batch)."""

from __future__ import annotations

import itertools
import lzma
import math
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
from torch import Tensor

from bertwright import Tokenizer
from bertwright.data.masking import mask, rate_at
from bertwright.data.packing import PackedBatch, Rows, TokenTable
from bertwright.errors import BertwrightError

CLS, SEP, MASK, UNUSED = 2, 3, 4, 5
SPECIAL = (0, 1, CLS, SEP, UNUSED)  # [MASK] is special without being named
V = 200
FIRST = 6  # the lowest ordinary id
CONTINUES = (np.arange(V) >= 150).astype(np.uint8)

Masked = tuple[PackedBatch, Rows, Tensor]


def masked(batch: PackedBatch, seed: int = 1, step: int = 0, micro_batch: int = 0, **options: Any) -> Masked:
    vocabulary: dict[str, Any] = {"mask_id": MASK, "special_ids": SPECIAL, "vocab_size": V}
    return mask(batch, seed, step, micro_batch, **vocabulary, **options)


def packed(sequences: Sequence[Sequence[int]]) -> PackedBatch:
    table = TokenTable(sequences, [[0] * len(ids) for ids in sequences])
    return table.pack(np.arange(len(sequences)))


def random_batch(sequences: int, length: int, seed: int = 0) -> PackedBatch:
    """``[CLS] A [SEP] B [SEP]`` of random ordinary ids, ``length`` of them in each part."""
    ids = np.random.default_rng(seed).integers(FIRST, V, (sequences, 2, length)).tolist()
    return packed([[CLS, *a, SEP, *b, SEP] for a, b in ids])


def same(one: Masked, other: Masked) -> bool:
    return (
        torch.equal(one[0].input_ids_T, other[0].input_ids_T)
        and torch.equal(one[1].index_R, other[1].index_R)
        and one[1].counts == other[1].counts
        and torch.equal(one[2], other[2])
    )


def z_of(hits: int, of: int, probability: float) -> float:
    return (hits - of * probability) / math.sqrt(of * probability * (1 - probability))


def words_of(ids: Sequence[int], special: set[int], continues: npt.NDArray[np.uint8]) -> list[list[int]]:
    """The words of a batch as lists of places, slowly."""
    words: list[list[int]] = []
    open_word = False
    for place, id in enumerate(ids):
        if id in special:
            open_word = False
        elif open_word and continues[id]:
            words[-1].append(place)
        else:
            words.append([place])
            open_word = True
    return words


ordinary = st.integers(FIRST, V - 1)
sequences = st.lists(
    st.tuples(st.lists(ordinary | st.just(1), max_size=12), st.lists(ordinary, max_size=12)).map(
        lambda parts: [CLS, *parts[0], SEP, *parts[1], SEP]
    ),
    min_size=1,
    max_size=6,
)


@pytest.fixture(scope="module")
def tokenizer(shared: Path) -> Tokenizer:
    return Tokenizer.from_vocab(shared / "vocab" / "bert-base-uncased" / "vocab.txt")


@pytest.fixture(scope="module")
def wiki(shared: Path, tokenizer: Tokenizer) -> PackedBatch:
    """Real text: the first paragraphs of enwiki-2018, packed whole."""
    with lzma.open(shared / "pretrain" / "enwiki-2018.txt.xz", "rt", encoding="utf-8") as file:
        text = file.read(800_000)
    encoded = tokenizer.encode_batch([line for line in text.splitlines() if line.strip()], max_length=128)
    return packed([each.input_ids for each in encoded])


def options_for(tokenizer: Tokenizer) -> dict[str, Any]:
    entries = [tokenizer.token(id) for id in range(tokenizer.vocab_size)]
    special = [id for id, entry in enumerate(entries) if entry.startswith("[unused")]
    special += [tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id]
    return {"mask_id": tokenizer.mask_id, "special_ids": special, "vocab_size": tokenizer.vocab_size}


def continuations(tokenizer: Tokenizer) -> npt.NDArray[np.uint8]:
    return np.array([tokenizer.token(id).startswith("##") for id in range(tokenizer.vocab_size)], np.uint8)


# ---- rates on real text


@pytest.mark.parametrize("whole_words", [False, True])
@pytest.mark.parametrize("rate", [0.15, 0.4])
def test_rates_on_real_text(wiki: PackedBatch, tokenizer: Tokenizer, whole_words: bool, rate: float) -> None:
    options = options_for(tokenizer)
    continues = continuations(tokenizer) if whole_words else None
    after, rows, targets_M = mask(wiki, 3, 7, **options, rate=rate, continues=continues)
    special = np.isin(wiki.input_ids_T.numpy(), [*options["special_ids"], tokenizer.mask_id])
    eligible = int((~special).sum())
    M = len(targets_M)
    assert eligible > 100_000
    assert round(rate * eligible) == M

    ids_M = after.input_ids_T[rows.index_R]
    is_mask = int((ids_M == tokenizer.mask_id).sum())
    unchanged = int((ids_M == targets_M).sum())
    random = M - is_mask - unchanged
    # A random token is the token itself once in the vocabulary's size.
    again = 0.1 / (tokenizer.vocab_size - len(options["special_ids"]) - 1)
    assert abs(z_of(is_mask, M, 0.8)) < 4
    assert abs(z_of(random, M, 0.1 - again)) < 4
    assert abs(z_of(unchanged, M, 0.1 + again)) < 4
    assert not np.isin(targets_M.numpy(), options["special_ids"]).any()
    assert not np.isin(ids_M.numpy(), options["special_ids"]).any()
    assert not special[rows.index_R.numpy()].any()


def test_whole_words_on_real_text(wiki: PackedBatch, tokenizer: Tokenizer) -> None:
    options, continues = options_for(tokenizer), continuations(tokenizer)
    _, rows, _ = mask(wiki, 0, 0, **options, continues=continues)
    chosen = set(rows.index_R.tolist())
    words = words_of(wiki.input_ids_T.tolist(), {*options["special_ids"], tokenizer.mask_id}, continues)
    assert max(map(len, words)) > 4
    assert {len(chosen & set(word)) / len(word) for word in words} == {0.0, 1.0}
    # Words of any length are as likely.
    for pieces in (1, 2, 3):
        alike = [word for word in words if len(word) == pieces]
        hit = sum(word[0] in chosen for word in alike)
        taken = sum(word[0] in chosen for word in words)
        assert abs(z_of(hit, len(alike), taken / len(words))) < 4


# ---- what is chosen


@settings(max_examples=300, deadline=None)
@given(sequences, st.floats(0.001, 1), st.integers(0, 2**63), st.integers(0, 2**40), st.booleans())
def test_whatever_the_batch(texts: list[list[int]], rate: float, seed: int, step: int, whole_words: bool) -> None:
    batch = packed(texts)
    before = batch.input_ids_T.clone()
    continues = CONTINUES if whole_words else None
    after, rows, targets_M = masked(batch, seed, step, rate=rate, continues=continues)
    assert torch.equal(batch.input_ids_T, before)
    chosen = rows.index_R.tolist()
    assert chosen == sorted(set(chosen))
    assert rows.counts == tuple(
        sum(begin <= place < end for place in chosen)
        for begin, end in itertools.pairwise(batch.sequences.offsets_B1.tolist())
    )
    assert torch.equal(targets_M, before[rows.index_R])
    others = torch.ones_like(before, dtype=torch.bool)
    others[rows.index_R] = False
    assert torch.equal(after.input_ids_T[others], before[others])
    assert not set(targets_M.tolist()) & {*SPECIAL, MASK}
    assert not set(after.input_ids_T[rows.index_R].tolist()) & set(SPECIAL)
    assert {rows.index_R.dtype, targets_M.dtype, after.input_ids_T.dtype} == {torch.int64}
    for unchanged in "token_type_ids_T", "position_ids_T", "sequences", "order":
        assert getattr(after, unchanged) is getattr(batch, unchanged)

    words = words_of(before.tolist(), {*SPECIAL, MASK}, CONTINUES)
    eligible = sum(map(len, words))
    budget = min(max(round(rate * eligible), 1), eligible)
    if not whole_words:
        assert len(chosen) == budget
    elif eligible:
        assert {len(set(word) & set(chosen)) / len(word) for word in words} <= {0.0, 1.0}
        shortest = min(map(len, words))
        if shortest > budget:
            assert len(chosen) == shortest
        else:
            assert len(chosen) <= budget
            # No word that was left would still have fitted.
            assert all(len(word) > budget - len(chosen) for word in words if word[0] not in chosen)


@pytest.mark.parametrize("continues", [None, CONTINUES])
def test_every_eligible_place_is_as_likely(continues: npt.NDArray[np.uint8] | None) -> None:
    ids = [CLS, *range(10, 20), SEP, 1, *range(20, 29), SEP]
    batch = packed([ids, ids])
    counts: Counter[int] = Counter()
    for step in range(3000):
        counts.update(masked(batch, step=step, rate=0.25, continues=continues)[1].index_R.tolist())
    eligible = [place for place, id in enumerate(batch.input_ids_T.tolist()) if id not in SPECIAL]
    assert set(counts) == set(eligible)
    share = round(0.25 * len(eligible)) / len(eligible)
    assert all(abs(z_of(counts[place], 3000, share)) < 4 for place in eligible)


def test_pieces_stay_with_the_word_before_them_within_their_part() -> None:
    # The second part begins with a piece whose word was cut off, and so does the text after an unknown word.
    batch = packed([[CLS, 10, 150, SEP, 151, 152, 11, 1, 153, SEP]])
    words = [{1, 2}, {4, 5}, {6}, {8}]
    seen = set()
    for step in range(200):
        chosen = set(masked(batch, step=step, rate=0.34, continues=CONTINUES)[1].index_R.tolist())
        assert len(chosen) == 2
        seen.add(frozenset(chosen))
    assert seen == {frozenset({1, 2}), frozenset({4, 5}), frozenset({6, 8})}
    assert set().union(*seen) == set().union(*words)


def test_one_position_at_least() -> None:
    batch = packed([[CLS, 10, 11, SEP]])
    assert len(masked(batch, rate=0.01)[2]) == 1
    long_word = packed([[CLS, 10, 150, 151, SEP, 11, 152, SEP]])
    for step in range(20):
        assert masked(long_word, step=step, rate=0.15, continues=CONTINUES)[1].index_R.tolist() == [5, 6]


@pytest.mark.parametrize("continues", [None, CONTINUES])
def test_nothing_to_mask(continues: npt.NDArray[np.uint8] | None) -> None:
    batch = packed([[CLS, 1, 1, SEP], [CLS, SEP]])
    after, rows, targets_M = masked(batch, continues=continues)
    assert torch.equal(after.input_ids_T, batch.input_ids_T)
    assert rows.counts == (0, 0)
    assert len(rows.index_R) == len(targets_M) == 0


def test_a_rate_of_one_takes_everything() -> None:
    batch = random_batch(4, 20)
    for continues in (None, CONTINUES):
        _, rows, targets_M = masked(batch, rate=1.0, continues=continues)
        assert rows.counts == (40,) * 4
        assert len(targets_M) == 160


# ---- what is put in


def test_random_tokens_are_uniform_over_ordinary_ids() -> None:
    batch = random_batch(200, 60)
    counts: Counter[int] = Counter()
    for step in range(3):
        after, rows, _ = masked(batch, step=step, rate=1.0, replace=(0.0, 1.0, 0.0))
        counts.update(after.input_ids_T[rows.index_R].tolist())
    assert set(counts) == set(range(FIRST, V))
    of = counts.total()
    assert of == 3 * 200 * 120
    chi = sum((count - of / (V - FIRST)) ** 2 for count in counts.values()) / (of / (V - FIRST))
    freedom = V - FIRST - 1
    assert abs(chi - freedom) < 4 * math.sqrt(2 * freedom)
    assert all(abs(z_of(count, of, 1 / (V - FIRST))) < 5 for count in counts.values())


@pytest.mark.parametrize("replace", [(1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.5, 0.25, 0.25)])
def test_other_shares(replace: tuple[float, float, float]) -> None:
    after, rows, targets_M = masked(random_batch(100, 60), rate=0.5, replace=replace)
    ids_M = after.input_ids_T[rows.index_R]
    M = len(ids_M)
    again = replace[1] / (V - FIRST)
    found = [
        int((ids_M == MASK).sum()),
        int(((ids_M != MASK) & (ids_M != targets_M)).sum()),
        int((ids_M == targets_M).sum()),
    ]
    for count, share in zip(found, (replace[0], replace[1] - again, replace[2] + again), strict=True):
        assert count == M * share if share in (0.0, 1.0) else abs(z_of(count, M, share)) < 4


# ---- the same bits from (seed, step, micro-batch)


@settings(max_examples=50, deadline=None)
@given(sequences, st.integers(0, 2**63), st.integers(0, 2**40), st.integers(0, 2**40), st.booleans())
def test_masked_again_it_is_the_same(texts: list[list[int]], seed: int, step: int, number: int, whole_words: bool) -> None:
    continues = CONTINUES if whole_words else None
    first = masked(packed(texts), seed, step, number, continues=continues)
    masked(random_batch(2, 5), seed, step + 1)
    assert same(first, masked(packed(texts), seed, step, number, continues=continues))


@pytest.mark.parametrize("continues", [None, CONTINUES])
def test_seeds_steps_and_micro_batches_choose_independently(continues: npt.NDArray[np.uint8] | None) -> None:
    batch = random_batch(20, 60)
    E = 20 * 120
    chosen = [
        set(masked(batch, *key, rate=0.5, continues=continues)[1].index_R.tolist())
        for key in itertools.product((0, 1, 2**63), (0, 1, 2**32), (0, 1))
    ]
    for one, other in itertools.combinations(chosen, 2):
        # Of two independent halves of the tokens a quarter is in both; words of several pieces widen the spread.
        assert abs(len(one & other) - E / 4) < 5 * math.sqrt(E / 16) * 1.5


# ---- schedules and refusals


def test_the_rate_goes_linearly() -> None:
    assert [rate_at(progress, 0.3, 0.15) for progress in (0.0, 0.5, 1.0)] == pytest.approx([0.3, 0.225, 0.15])
    assert rate_at(1.2, 0.1, 0.4) == pytest.approx(0.4)
    assert rate_at(0.7, 0.15, 0.15) == 0.15


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 0.0}, "the masking rate is 0.0; give a share above 0 and at most 1"),
        ({"rate": 15}, "the masking rate is 15"),
        ({"rate": math.nan}, "the masking rate is nan"),
        ({"replace": (0.8, 0.1, 0.2)}, r"with probabilities \(0.8, 0.1, 0.2\): give three that sum to 1"),
        ({"replace": (1.1, -0.1, 0.0)}, "give three that sum to 1"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BertwrightError, match=message):
        masked(random_batch(1, 4), **options)
