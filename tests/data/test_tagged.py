"""From raw text to words and back: places that are right, words that data with tags have, and windows that cut none."""

from __future__ import annotations

import itertools
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertwright.data.tagged import TaggedExample, joined, words_of
from bertwright.data.word_windows import encode_words, windows
from bertwright.tokenizer import Tokenizer
from tiny_model import PLAIN, SPECIAL


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The cat  sat.", "The|cat|sat|."),
        ("“Hello,” she said...", "“|Hello|,|”|she|said|..."),
        ("John Smith's dog, in the U.S., barked.", "John|Smith|'s|dog|,|in|the|U.S.|,|barked|."),
        ("George W. Bush and plan B.", "George|W.|Bush|and|plan|B|."),
        ("well-known AT&T paid $3.5 (35%) -- see e-mail/@tom #now", None),
        ("李开复在Google工作。", "李|开|复|在|Google|工|作|。"),
        ("東京タワー（1958年）", "東|京|タ|ワ|ー|（|1958|年|）"),
        ("그는 서울에 갔다", "그는|서울에|갔다"),
        (unicodedata.normalize("NFD", "ガンダム"), "|".join(unicodedata.normalize("NFD", c) for c in "ガンダム")),
        ("ﾊﾞｽ", "ﾊﾞ|ｽ"),
        ("葛\U000e0100城市", "葛\U000e0100|城|市"),
        ("*\ufe0f\u20e3 ok", "*\ufe0f\u20e3|ok"),
        ("cafe\u0301, no\u0308", "cafe\u0301|,|no\u0308"),
        ("\u203c\ufe0fWow\u203c\ufe0f ok!\ufe0f", "\u203c\ufe0f|Wow|\u203c\ufe0f|ok|!\ufe0f"),
        ("*\ufe0f\u20e3hello", "*\ufe0f\u20e3|hello"),
        ("'s", "'|s"),
        ("x's ''quoted''", "x|'s|''|quoted|''"),
        ("\u200b a\u3000b\xa0c\t\n", "\u200b|a|b|c"),
        ("@ # @a", "@|#|@a"),
        ("", ""),
        (" \n", ""),
    ],
)
def test_words_of_raw_text(text: str, words: str | None) -> None:
    expected = words.split("|") if words else []
    if words is None:
        expected = ["well-known", "AT&T", "paid", "$", "3.5", "(", "35", "%", ")", "--", "see", "e-mail/@tom", "#now"]
    assert [text[begin:end] for begin, end in words_of(text)] == expected


@given(st.text(st.characters(codec="utf-8") | st.sampled_from(" .,'s@#李カ("), max_size=60))
@settings(max_examples=150)
def test_words_are_in_order_hold_no_blank_and_all_else(text: str) -> None:
    places = words_of(text)
    at = 0
    for begin, end in places:
        assert at <= begin < end
        assert not text[at:begin].strip()
        assert not any(character.isspace() for character in text[begin:end])
        at = end
    assert not text[at:].strip()
    for begin, end in places:  # a word of punctuation is a run of one character
        if all(unicodedata.category(c)[0] == "P" for c in text[begin:end]) and text[begin] not in "@#":
            assert len(set(text[begin:end])) == 1


@given(st.lists(st.text(min_size=1, max_size=5), max_size=8))
def test_words_keep_their_places_in_the_text_that_is_made_of_them(words: list[str]) -> None:
    assert TaggedExample.of_words(words, "w").words == words


def test_no_space_is_put_between_words_of_a_script_without_spaces() -> None:
    assert joined(["李", "开", "复", "，", "Google", "CEO", "。"])[0] == "李开复， Google CEO 。"
    assert joined([]) == ("", ())
    assert joined(["葛\U000e0100", "城"])[0] == "葛\U000e0100城"


# -------------------------------------------------------------------------------------------------------------- windows


@given(st.lists(st.integers(1, 12), min_size=1, max_size=60), st.integers(1, 24))
@settings(max_examples=150)
def test_windows_hold_whole_words_and_read_each_once(sizes: list[int], room: int) -> None:
    found = windows(sizes, room)
    assert [n for w in found for n in range(w.first, w.last)] == list(range(len(sizes)))
    for w in found:
        assert w.begin <= w.first < w.last <= w.end
        assert sum(sizes[w.begin : w.end]) <= room or w.end == w.begin + 1
    if sum(sizes) <= room:
        assert len(found) == 1


@given(st.lists(st.integers(1, 3), min_size=1, max_size=80), st.integers(12, 30))
@settings(max_examples=100)
def test_a_word_is_read_in_the_window_where_it_has_most_context(sizes: list[int], room: int) -> None:
    found = windows(sizes, room)

    def context(word: int, number: int) -> float:
        w = found[number]
        left = sum(sizes[w.begin : word]) if w.begin else float("inf")
        right = sum(sizes[word + 1 : w.end]) if w.end < len(sizes) else float("inf")
        return min(left, right)

    for number, w in enumerate(found):
        for word in range(w.first, w.last):
            others = [context(word, k) for k, o in enumerate(found) if o.begin <= word < o.end]
            assert context(word, number) == max(others)
            assert context(word, number) >= room // 4 - 3


def test_a_long_sentence_takes_time_that_grows_with_its_length() -> None:
    assert len(windows([1] * 50_000, 126)) == pytest.approx(50_000 / 63, rel=0.01)


def test_sentences_are_encoded_word_by_word() -> None:
    tokenizer = Tokenizer.from_vocab([*SPECIAL, *PLAIN, "un", "##like", "##ly", ".", "a"])
    words = [["unlikely", "the", "\u200b", "cat", "a.b"], ["the"] * 13, ["a." * 7, "a"], ["cat"]]
    inputs = encode_words(tokenizer, [TaggedExample.of_words(one, "w") for one in words], 12)
    table = inputs.table
    assert table.reads is not None
    shown = [
        (tokenizer.tokens(table.input_ids[table.starts[i] : table.starts[i + 1]].tolist()), table.reads[a:b].tolist())
        for i, (a, b) in enumerate(itertools.pairwise(table.read_starts.tolist()))
    ]
    assert shown == [
        (["[CLS]", "un", "##like", "##ly", "the", "[UNK]", "cat", "a", ".", "[UNK]", "[SEP]"], [1, 4, 5, 6, 7]),
        (["[CLS]", *["the"] * 10, "[SEP]"], [1, 2, 3, 4, 5, 6, 7, 8]),
        (["[CLS]", *["the"] * 8, "[SEP]"], [4, 5, 6, 7, 8]),
        (["[CLS]", *["a", "."] * 5, "[SEP]"], [1]),
        (["[CLS]", "a", "[SEP]"], [1]),
        (["[CLS]", "cat", "[SEP]"], [1]),
    ]
    assert inputs.starts.tolist() == [0, 1, 3, 5, 6]
    assert inputs.cut.tolist() == [0, 0, 4, 0]
    assert list(inputs.details) == [1, 0, 0, 0, 0, 0]
