"""Windows: nothing is lost, neighbours share what they should, and the mean over them is a mean."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bertwright.data.examples import Example
from bertwright.data.inputs import Inputs, encode_texts
from bertwright.data.windows import encode_windows, pooled, window_begins
from bertwright.errors import BertwrightError
from bertwright.tokenizer import Tokenizer

WORDS = [f"w{number}" for number in range(60)]
TOKENIZER = Tokenizer.from_vocab(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])
CLS, SEP = TOKENIZER.cls_id, TOKENIZER.sep_id


def text(tokens: int, begin: int = 0) -> str:
    return " ".join(WORDS[begin : begin + tokens])


def sequences(inputs: Inputs) -> list[tuple[list[int], list[int]]]:
    ends = inputs.table.starts
    return [
        (inputs.table.input_ids[b:e].tolist(), inputs.table.token_type_ids[b:e].tolist())
        for b, e in itertools.pairwise(ends.tolist())
    ]


@given(st.integers(0, 3000), st.integers(1, 200), st.data())
def test_windows_are_full_cover_all_share_enough_and_are_as_few_as_can_be(
    tokens: int, room: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(0, room - 1))
    begins = window_begins(tokens, room, stride)
    assert begins[0] == 0
    if tokens <= room:
        assert len(begins) == 1
        return
    assert begins[-1] == tokens - room
    gaps = np.diff(begins)
    assert (gaps >= 1).all()
    assert (room - gaps >= stride).all()
    assert gaps.max() - gaps.min() <= 1
    assert (len(begins) - 2) * (room - stride) + room < tokens  # one window less, as far apart as may be, would not do


@given(st.lists(st.integers(0, 60), min_size=1, max_size=6), st.integers(4, 30), st.data())
@settings(deadline=None, max_examples=50)
def test_the_windows_of_a_text_hold_all_of_it(lengths: list[int], max_length: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(0, max_length - 3))
    examples = [Example(text(length), f"row {i}") for i, length in enumerate(lengths)]
    inputs = encode_windows(TOKENIZER, examples, max_length, stride)
    assert not inputs.cut.any()
    assert inputs.counts.sum() == len(inputs.table)
    found = sequences(inputs)
    for number, length in enumerate(lengths):
        windows = found[inputs.starts[number] : inputs.starts[number + 1]]
        seen: set[int] = set()
        for ids, segments in windows:
            assert len(ids) <= max_length
            assert (ids[0], ids[-1]) == (CLS, SEP)
            assert segments == [0] * len(ids)
            assert ids[1:-1] == list(range(ids[1], ids[1] + len(ids) - 2)) if len(ids) > 2 else length == 0
            seen.update(ids[1:-1])
        assert seen == set(range(5, 5 + length))


@pytest.mark.parametrize("pairs", [False, True])
def test_texts_that_fit_are_encoded_as_without_windows(pairs: bool) -> None:
    examples = [Example(text(n), "r", pair=text(9 - n, 30) if pairs else None) for n in (0, 3, 7)]
    with_windows, without = encode_windows(TOKENIZER, examples, 12, 4), encode_texts(TOKENIZER, examples, 12)
    assert sequences(with_windows) == sequences(without)
    assert with_windows.starts.tolist() == without.starts.tolist()
    assert with_windows.cut.tolist() == without.cut.tolist()


def test_of_a_pair_the_longer_text_is_split_and_the_shorter_stands_in_every_window() -> None:
    short, long = text(3), text(10, 20)
    first = encode_windows(TOKENIZER, [Example(short, "r", pair=long)], 12, 2)  # 6 tokens a window, 4 of them new
    second = encode_windows(TOKENIZER, [Example(long, "r", pair=short)], 12, 2)
    a = [CLS, 5, 6, 7, SEP]
    parts = [list(range(25, 31)), list(range(29, 35))]
    assert sequences(first) == [([*a, *part, SEP], [0] * 5 + [1] * 7) for part in parts]
    b = [*a[1:-1], SEP]
    assert sequences(second) == [([CLS, *part, SEP, *b], [0] * 8 + [1] * 4) for part in parts]
    equal = encode_windows(TOKENIZER, [Example(text(8), "r", pair=text(8, 20))], 16, 1)
    assert {tuple(ids[:10]) for ids, _ in sequences(equal)} == {(CLS, *range(5, 13), SEP)}


def test_windows_that_could_not_move_on_are_refused() -> None:
    with pytest.raises(BertwrightError, match=r"--stride 10 is all that .* --max-length 12 holds.*; give at most 9"):
        encode_windows(TOKENIZER, [Example("w1", "f:1")], 12, 10)
    encode_windows(TOKENIZER, [Example(text(60), "f:1")], 12, 9)
    with pytest.raises(BertwrightError) as caught:
        encode_windows(TOKENIZER, [Example("w1", "f:1", pair="w2"), Example(text(8), "f:2", pair=text(9))], 16, 5)
    assert str(caught.value) == (
        "f:2: the shorter text of this pair has 8 tokens and stands in every window; that leaves 5 for the longer one, "
        "no more than --stride 5; give a larger --max-length"
    )


@given(st.lists(st.integers(1, 5), min_size=1, max_size=10), st.integers(0, 1000))
def test_pooling_is_the_mean_over_the_windows_of_each_text(counts: list[int], seed: int) -> None:
    logits = torch.from_numpy(np.random.default_rng(seed).normal(size=(sum(counts), 3)))
    found = pooled(logits, np.array(counts))
    expected = torch.stack([part.mean(0) for part in torch.split(logits, counts)])
    torch.testing.assert_close(found, expected)
    alone = [i for i, count in enumerate(counts) if count == 1]
    begins = np.cumsum([0, *counts])
    assert torch.equal(found[alone], logits[begins[alone]])
