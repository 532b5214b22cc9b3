"""The best spans, against trying every pair of tokens; and what no span may ever be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertwright.arrays import FloatArray
from bertwright.data.inputs import Inputs
from bertwright.data.question_windows import encode_questions
from bertwright.data.squad import QuestionExample
from bertwright.tasks import spans
from bertwright.tasks.spans import best_spans, no_answer_scores
from bertwright.tokenizer import Tokenizer
from tiny_model import PLAIN

WORDS = [*PLAIN[:6], "catx", "ab", "x-y"]  # some of several pieces
contexts = st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join)
cases = st.lists(st.tuples(st.sampled_from(["the cat", "was", "a long question"]), contexts), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def tokenizer(tiny_dir: Path) -> Tokenizer:
    return Tokenizer.from_directory(tiny_dir)


def encode(tokenizer: Tokenizer, pairs: list[tuple[str, str]], max_length: int = 24) -> Inputs:
    examples = [QuestionExample("q", *pair) for pair in pairs]
    return encode_questions(tokenizer, examples, max_length=max_length, stride=3, question_length=8)


def scores(inputs: Inputs, seed: int, *, coarse: bool) -> FloatArray:
    """Random logits; coarse ones are mostly equal to each other."""
    random = np.random.default_rng(seed)
    shape = (inputs.table.tokens, 2)
    return random.integers(0, 2, shape).astype(float) if coarse else random.normal(size=shape) * 5


def tried(inputs: Inputs, outputs_R2: FloatArray, e: int, longest: int) -> list[tuple[float, int, int]]:
    """Every span of an example that may be an answer, best first, the earlier first of equal ones."""
    best: dict[tuple[int, int], float] = {}
    for w in range(inputs.starts[e], inputs.starts[e + 1]):
        window, row = inputs.details[w], int(inputs.table.read_starts[w])
        for first in range(window.begin, window.end):
            for last in range(first, min(first + longest, window.end)):
                if window.context.first_N[first] and window.context.last_N[last]:
                    score = outputs_R2[row + window.prefix + first - window.begin, 0]
                    score += outputs_R2[row + window.prefix + last - window.begin, 1]
                    best[first, last] = max(best.get((first, last), -np.inf), score)
    return sorted(((score, *span) for span, score in best.items()), key=lambda one: (-one[0], one[1], one[2]))


@settings(max_examples=150, deadline=None)
@given(
    pairs=cases,
    seed=st.integers(0, 99),
    coarse=st.booleans(),
    longest=st.integers(1, 40),
    count=st.sampled_from([1, 2, 5, 20]),
)
def test_the_best_spans_are_those_of_trying_all(
    tokenizer: Tokenizer, pairs: list[tuple[str, str]], seed: int, coarse: bool, longest: int, count: int
) -> None:
    inputs = encode(tokenizer, pairs)
    outputs = scores(inputs, seed, coarse=coarse)
    found = best_spans(outputs, inputs, longest=longest, count=count)
    for e in range(len(pairs)):
        ks = slice(found.starts_E1[e], found.starts_E1[e + 1])
        got = list(zip(found.score_K[ks].tolist(), found.first_K[ks].tolist(), found.last_K[ks].tolist(), strict=True))
        assert got == tried(inputs, outputs, e, longest)[:count]
        assert (found.example_K[ks] == e).all()


@settings(max_examples=60, deadline=None)
@given(pairs=cases, seed=st.integers(0, 99))
def test_a_span_is_whole_words_of_the_context_in_one_window(
    tokenizer: Tokenizer, pairs: list[tuple[str, str]], seed: int
) -> None:
    inputs = encode(tokenizer, pairs)
    outputs = scores(inputs, seed, coarse=False)
    # The question, [CLS] and [SEP] are given the highest scores of all: nothing of them may come out.
    for w, window in enumerate(inputs.details):
        row = int(inputs.table.read_starts[w])
        outputs[row : row + window.prefix] += 100
        outputs[int(inputs.table.read_starts[w + 1]) - 1] += 100
    found = best_spans(outputs, inputs, longest=6, count=20)
    for e, first, last in zip(found.example_K, found.first_K, found.last_K, strict=True):
        assert first <= last < first + 6
        windows = inputs.details[inputs.starts[e] : inputs.starts[e + 1]]
        assert any(window.begin <= first and last < window.end for window in windows)
        context = windows[0].context
        begin, end = context.begins_N[first], context.ends_N[last]
        assert context.text == pairs[e][1]
        assert begin == 0 or not (context.text[begin - 1].isalnum() and context.text[begin].isalnum())
        assert end == len(context.text) or not (context.text[end - 1].isalnum() and context.text[end].isalnum())
        assert np.isfinite(found.score_K).all()


def test_windows_searched_together_or_apart_give_the_same(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = encode(tokenizer, [("the cat", "was so very " * n) for n in range(12)])
    outputs = scores(inputs, 0, coarse=True)
    together = best_spans(outputs, inputs, longest=5, count=7)
    monkeypatch.setattr(spans, "_CELLS_AT_ONCE", 1)
    apart = best_spans(outputs, inputs, longest=5, count=7)
    for name in ("example_K", "first_K", "last_K", "score_K", "starts_E1"):
        np.testing.assert_array_equal(getattr(together, name), getattr(apart, name))


def test_no_answer_scores_lowest_where_some_window_is_sure_of_an_answer(tokenizer: Tokenizer) -> None:
    inputs = encode(tokenizer, [("the cat", "was so very " * 8), ("the", "cat")])
    outputs = scores(inputs, 1, coarse=False)
    firsts = outputs[inputs.table.starts[:-1]].sum(1)
    count = int(inputs.starts[1])
    assert count > 1
    assert no_answer_scores(outputs, inputs).tolist() == [firsts[:count].min(), firsts[count]]


def test_a_longest_answer_beyond_all_windows_takes_no_more_than_they_hold(tokenizer: Tokenizer) -> None:
    inputs = encode(tokenizer, [("what", "the cat sat on the mat")])
    outputs = scores(inputs, 0, coarse=False)
    found, wanted = (best_spans(outputs, inputs, longest=longest, count=5) for longest in (10**9, 40))
    assert found.score_K.tolist() == wanted.score_K.tolist()
    assert found.last_K.tolist() == wanted.last_K.tolist()
