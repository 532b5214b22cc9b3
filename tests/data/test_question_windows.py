"""Windows over contexts: those of the tokenizer of `transformers`, and the way back to words and characters."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertwright.data.question_windows import Context, encode_questions, slices
from bertwright.data.squad import QuestionExample
from bertwright.errors import BertwrightError, BertwrightWarning
from bertwright.tokenizer import Tokenizer
from tiny_model import BAD, GOOD, PLAIN, SPECIAL

WORDS = [*GOOD, *BAD, *PLAIN, "goodx", "abc", "x-y", "…", "«the»"]
texts = st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join)


def examples(*pairs: tuple[str, str]) -> list[QuestionExample]:
    return [QuestionExample(f"q {number}", *pair) for number, pair in enumerate(pairs)]


@settings(deadline=None)
@given(st.integers(0, 200), st.integers(1, 60), st.data())
def test_slices_cover_everything_and_share_what_they_should(length: int, room: int, data: st.DataObject) -> None:
    shared = data.draw(st.integers(0, room - 1))
    cut = slices(length, room, shared)
    assert cut[0][0] == 0
    assert cut[-1][1] == length
    assert all(end - begin <= room for begin, end in cut)
    for before, after in itertools.pairwise(cut):
        assert before[1] - after[0] == shared
        assert before[1] - before[0] == room
        assert after[1] > before[1], "a window that shows nothing new"


@pytest.fixture(scope="module")
def tokenizer(tiny_dir: Path) -> Tokenizer:
    return Tokenizer.from_directory(tiny_dir)


@settings(max_examples=40, deadline=None)
@given(pairs=st.lists(st.tuples(texts.filter(str.strip), texts), min_size=1, max_size=4), length=st.integers(16, 60))
def test_sequences_are_those_of_transformers(
    tokenizer: Tokenizer, oracle: object, pairs: list[tuple[str, str]], length: int
) -> None:
    longest = (length - 3) // 2
    pairs = [(" ".join(q.split()[: longest // 4] or ["the"]), c) for q, c in pairs]  # no piece of a question is cut
    given = examples(*pairs)
    inputs = encode_questions(tokenizer, given, max_length=length, stride=4, question_length=longest)
    wanted = oracle(  # type: ignore[operator]
        [q for q, _ in pairs], [c for _, c in pairs], max_length=length, stride=4, truncation="only_second",
        return_overflowing_tokens=True, return_offsets_mapping=True,
    )  # fmt: skip
    table = inputs.table
    got = [table.input_ids[a:b].tolist() for a, b in itertools.pairwise(table.starts)]
    types = [table.token_type_ids[a:b].tolist() for a, b in itertools.pairwise(table.starts)]
    assert got == wanted["input_ids"]
    assert types == wanted["token_type_ids"]
    assert np.repeat(np.arange(len(pairs)), np.diff(inputs.starts)).tolist() == wanted["overflow_to_sample_mapping"]
    for window, offsets in zip(inputs.details, wanted["offset_mapping"], strict=True):
        shown = slice(window.begin, window.end)
        places = list(zip(window.context.begins_N[shown].tolist(), window.context.ends_N[shown].tolist(), strict=True))
        assert places == offsets[window.prefix : -1]
    assert table.reads is not None
    assert table.reads.tolist() == [place for ids in got for place in range(len(ids))]
    assert not inputs.cut.any()


@pytest.fixture(scope="module")
def oracle(tiny_dir: Path) -> object:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_dir)


def context_of(tokenizer: Tokenizer, text: str) -> Context:
    inputs = encode_questions(tokenizer, examples(("the", text)), max_length=48, stride=0, question_length=8)
    context: Context = inputs.details[0].context
    return context


def test_words_are_whole(tokenizer: Tokenizer) -> None:
    context = context_of(tokenizer, "goodx cat-abc was")  # go ##... : letters of their own where no word fits
    pieces = tokenizer.tokens(context.ids_N.tolist())
    assert [piece for piece, first in zip(pieces, context.first_N, strict=True) if not first] == [
        piece for piece in pieces if piece.startswith("##")
    ]
    assert context.last_N.tolist() == [*context.first_N.tolist()[1:], True]
    for begin, end, whole in [(1, 3, "goodx"), (0, 5, "goodx"), (6, 7, "cat"), (7, 10, "cat-"), (8, 11, "cat-abc")]:
        tokens = context.tokens_of((begin, end))
        assert tokens is not None
        found = context.text[context.begins_N[tokens[0]] : context.ends_N[tokens[1]]]
        assert found == whole if begin < 7 else found in whole or whole in found
    assert context.tokens_of((5, 6)) is None  # a blank
    assert context_of(tokenizer, "").tokens_of((0, 0)) is None


def test_a_context_that_many_questions_share_is_encoded_once(tokenizer: Tokenizer) -> None:
    inputs = encode_questions(
        tokenizer, examples(("was", "the cat"), ("is", "the " + "cat")), max_length=20, stride=2, question_length=8
    )
    assert inputs.details[0].context is inputs.details[1].context


def test_long_questions_are_cut_and_counted(tokenizer: Tokenizer) -> None:
    inputs = encode_questions(
        tokenizer, examples(("the cat was good", "the film"), ("the", "x")), max_length=20, stride=2, question_length=3
    )
    assert inputs.cut.tolist() == [1, 0]
    with pytest.warns(BertwrightWarning, match=r"rows: 1 of 2 texts are longer than --question-length 3 and were cut \(1"):
        inputs.tell_cut("rows", 20)


def test_an_empty_context_still_has_its_window(tokenizer: Tokenizer) -> None:
    inputs = encode_questions(tokenizer, examples(("the cat", "")), max_length=20, stride=2, question_length=8)
    assert tokenizer.tokens(inputs.table.input_ids.tolist()) == ["[CLS]", "the", "cat", "[SEP]", "[SEP]"]


def test_a_stride_that_would_keep_windows_from_moving_on_is_narrowed_and_told(tokenizer: Tokenizer) -> None:
    pairs = examples(("the cat", "was " * 30), ("the", "cat"))
    with pytest.warns(BertwrightWarning, match="--stride 128 is more than half of what --max-length 16 leaves .* of 1 q"):
        inputs = encode_questions(tokenizer, pairs, max_length=16, stride=128, question_length=8)
    first, second = inputs.details[:2]
    assert first.end - second.begin == (16 - 5) // 2


def test_a_length_without_room_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(BertwrightError, match="--max-length 4 has no room for question and context; make it at least 5"):
        encode_questions(tokenizer, examples(("the", "cat")), max_length=4, stride=0, question_length=8)
    inputs = encode_questions(tokenizer, examples(("the cat", "cat was")), max_length=5, stride=0, question_length=8)
    assert inputs.table.lengths.tolist() == [5, 5]


def test_chinese_answers_may_begin_and_end_at_any_character() -> None:
    text = "战国无双3是由光荣Koei开发的。"
    letters = [letter for c in "koei" for letter in (c, f"##{c}")]
    chinese = Tokenizer.from_vocab([*SPECIAL, *dict.fromkeys(c for c in text if not c.isascii()), "3", *letters])
    context = context_of(chinese, text)
    assert chinese.unk_id not in context.ids_N
    for answer in ("光荣", "荣", "国无双3", "3", "光荣koei", "。"):
        begin = text.lower().index(answer)
        tokens = context.tokens_of((begin, begin + len(answer)))
        assert tokens is not None
        assert text[context.begins_N[tokens[0]] : context.ends_N[tokens[1]]].lower() == answer
    assert context.first_N.sum() == len(text) - len("oei")


@pytest.mark.parametrize(
    ("text", "answer", "pieces"),
    [
        ("그는 서울에서 왔다", "서울", ["그는", "서울", "##에서", "왔다"]),
        ("東京タワーはどこ", "タワー", ["東", "京", "タワー", "##はどこ"]),
        ("the goodx", "goodx", ["the", "good", "##x"]),
    ],
)
def test_an_answer_may_be_a_part_of_what_some_scripts_write_together(text: str, answer: str, pieces: list[str]) -> None:
    tokenizer = Tokenizer.from_vocab([*SPECIAL, *pieces], lowercase=False)
    context = context_of(tokenizer, text)
    assert tokenizer.tokens(context.ids_N.tolist()) == pieces
    begin = text.index(answer)
    for part in (answer, answer[:4]):
        tokens = context.tokens_of((begin, begin + len(part)))
        assert tokens is not None
        assert text[context.begins_N[tokens[0]] : context.ends_N[tokens[1]]] == answer
