"""Sentences: found in any script, nothing of a text lost, and quick whatever the text."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest
import sentencex
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bertwright.data import sentences
from bertwright.data.corpus import CorpusFormat
from bertwright.data.sentences import language_of, split_sentences

SPLIT = CorpusFormat()
LINES = CorpusFormat(sentences="line")


def squeezed(text: str) -> str:
    return "".join(text.split())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \n\t\n\u3000", []),
        ("no end", ["no end"]),
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("A first\nline. And more\n\nafter a blank", ["A first", "line.", "And more", "after a blank"]),
        ("Dr. Smith paid 3.5 USD to J. S. Bach. Really.", ["Dr. Smith paid 3.5 USD to J. S. Bach.", "Really."]),
        ("今天天气很好。我们去公园吧！你好吗？好", ["今天天气很好。", "我们去公园吧！", "你好吗？", "好"]),
        (
            "「真對不起。」她說。他說：「很帥呢。」，對婚姻沒有動搖。",
            ["「真對不起。」", "她說。", "他說：「很帥呢。」，對婚姻沒有動搖。"],
        ),
        ("今日は。いい天気ですね！", ["今日は。", "いい天気ですね！"]),
        ("यह एक है। वह दो है।", ["यह एक है।", "वह दो है।"]),
        ("Это г. Москва. Да.", ["Это г. Москва.", "Да."]),
        ("He left. ) Then . he came.", ["He left. ) Then .", "he came."]),
    ],
)
def test_sentences_end_where_a_reader_would_end_them(text: str, expected: list[str]) -> None:
    assert split_sentences(text, SPLIT) == expected


@pytest.mark.parametrize("blank", ["\u00a0", "\u3000", "\u2009", "\u2028", "\u0085", "\u202f"])
def test_white_space_of_several_bytes_before_initials_is_no_danger(blank: str) -> None:
    # sentencex 1.0.32 panics at the second of them, left to itself.
    text = f"George{blank}W.{blank}Bush came. And{blank}J.{blank}S.{blank}Bach too.{blank}End."
    found = split_sentences(text, SPLIT)
    assert squeezed("".join(found)) == squeezed(text)
    assert found[0] == f"George{blank}W.{blank}Bush came."


def test_one_sentence_a_line_is_taken_as_it_is() -> None:
    assert split_sentences(" One. Two.\n\n三。四。\r\n", LINES) == ["One. Two.", "三。四。"]


nasty = st.text(
    st.sampled_from(
        " .!?\"'“”‘’()[]«»abAB12。！？…、，；」』）\u3000\u2028\x0b\x85\xa0\t*-/•1i)\u0301😀\u200b\ufeff߉\x1cé中日한\n,"
    )
    | st.characters(exclude_categories=["Cs"], exclude_characters="\x00"),
    max_size=60,
)


@settings(max_examples=400)
@given(nasty, st.sampled_from(["auto", "en", "zh", "ja", "de", "th", "xx"]))
@example("\u3000B.", "en")
@example('x. "', "en")
def test_no_character_is_lost_and_no_sentence_is_empty(text: str, language: str) -> None:
    for format in (CorpusFormat(language=language), LINES):
        found = split_sentences(text, format)
        assert all(sentence and sentence == sentence.strip() and "\n" not in sentence for sentence in found)
        assert squeezed("".join(found)) == squeezed(text)


def test_a_long_line_has_the_sentences_that_its_parts_have() -> None:
    expected = [f"Sentence {number} has so many words, as Mr. Jones said." for number in range(4000)]
    assert split_sentences(" ".join(expected), SPLIT) == expected
    chinese = [f"第{number}句話說了很多，但是沒有意思。" for number in range(4000)]
    assert split_sentences("".join(chinese), SPLIT) == chinese


@pytest.mark.parametrize("piece", ["“", "“你。”", "“Open. Never ", '"', "(", "a. ", "。", "a", "1. x "])
def test_the_library_never_sees_much_of_a_long_line(monkeypatch: pytest.MonkeyPatch, piece: str) -> None:
    # It takes time with the square of what it sees of the first of these: minutes for a book that is one line.
    seen: list[int] = []

    def segment(language: str, text: str) -> list[str]:
        seen.append(len(text))
        return sentencex.segment(language, text)  # type: ignore[no-any-return]

    monkeypatch.setattr(sentences, "segment", segment)
    text = piece * (60_000 // len(piece))
    found = split_sentences(text, SPLIT)
    assert max(seen) <= 1 << 14
    assert sum(seen) < 3 * len(text)
    assert squeezed("".join(found)) == squeezed(text)
    assert max(map(len, found)) <= 1 << 15


def test_a_sentence_without_end_is_cut_at_a_blank() -> None:
    words = " ".join(["word"] * 50_000)
    found = split_sentences(words, SPLIT)
    assert all(16_000 < len(sentence) <= 1 << 14 for sentence in found[:-1])
    assert " ".join(found) == words


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("", "en"),
        ("plain", "en"),
        ("Ünïcödé", "en"),
        ("汉语 and a few words", "zh"),
        ("これは日本語の文章です", "ja"),
        ("한국어", "ko"),
        ("по-русски", "ru"),
        ("ελληνικά", "el"),
        ("العربية", "ar"),
        ("עברית", "he"),
        ("हिन्दी", "hi"),
        ("ภาษาไทย", "th"),
        ("An English text of some length that names 北京 once.", "en"),
        ("x" * 1000 + "汉语" * 1000, "zh"),
    ],
)
def test_the_script_tells_the_language(text: str, language: str) -> None:
    assert language_of(text) == language


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("source", "ends"),
    [("zh/zhwiki/zhwiki.txt.xz", "。！？；.!?」”…）"), ("pretrain/enwiki-2018.txt.xz", ".!?\"'”’)…")],
)
def test_real_text_falls_into_sentences_that_end_like_sentences(shared: Path, source: str, ends: str) -> None:
    with lzma.open(shared / source) as file:
        text = file.read(1 << 19).decode(errors="ignore")
    inside = ended = 0
    for document in text.split("\n\n"):
        for line in document.split("\n"):
            found = split_sentences(line, SPLIT)
            assert squeezed("".join(found)) == squeezed(line)
            # A line may be a heading, so only those that are followed by another say something.
            inside += len(found[:-1])
            ended += sum(sentence[-1] in ends for sentence in found[:-1])
    assert inside > 1500
    assert ended / inside > 0.99
