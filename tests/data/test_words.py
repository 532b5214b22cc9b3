"""Counts of words: those of the library itself, and a sample that is even."""

from __future__ import annotations

import lzma
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import normalizers, pre_tokenizers

from bertwright.data import words
from bertwright.data.words import EvenSample, WordCounts, blocks_of, characters_of

any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
telling = st.text(
    st.sampled_from("aAbÉéßİǅΣς .,!-_'¿«»。、、六國豈豈𠀀中日かガｶ한국�")
    | st.sampled_from("\u1100\u0301\u0327\u200b\u200d\ufeff\t\n\r\x0b\x1c\x85\xa0\u2028\u3000\x00\x01")
)


def counted(text: str, lowercase: bool) -> Counter[str]:
    counts = WordCounts(lowercase=lowercase)
    counts.add(text)
    return counts.total()


def library(text: str, lowercase: bool) -> Counter[str]:
    normal = normalizers.BertNormalizer(lowercase=lowercase).normalize_str(text)
    return Counter(word for word, _ in pre_tokenizers.BertPreTokenizer().pre_tokenize_str(normal))


@given(any_text | telling, st.booleans())
@example("Δίας ΣΊΣΥΦΟΣ. ΟΔΟΣ", True)
@example("a\x1cb a\x85b a\x0bb a\u2028b a\tb a\rb", True)
@example("e\u0301 \u0301e 中\u0301文 中a文", True)
@example("", False)
def test_words_are_those_of_the_library(text: str, lowercase: bool) -> None:
    assert counted(text, lowercase) == library(text, lowercase)


def test_characters_of_every_kind_are_words_or_parts_of_words_as_in_the_library() -> None:
    # Of the hundred thousand ideographs and syllables a few stand for all.
    few = {"Lo": 23, "Cn": 997, "Co": 997}
    codes = (code for code in range(0x110000) if not 0xD800 <= code < 0xE000)
    characters = [chr(code) for code in codes if code % few.get(unicodedata.category(chr(code)), 1) == 0]
    assert len(characters) > 15_000
    text = " ".join(f"a{character}b" for character in characters)
    for lowercase in (True, False):
        assert counted(text, lowercase) == library(text, lowercase)


def test_counts_add_up_over_texts_and_over_a_full_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"word {number % 7}, Ünï 六七 word{number}" for number in range(100)]
    expected = sum((library(text, True) for text in texts), Counter[str]())
    monkeypatch.setattr(words, "_RAW_TOKENS", 10)
    counts = WordCounts(lowercase=True)
    for text in texts:
        counts.add(text)
        assert len(counts._raw) <= 10 + 5
    assert counts.total() == expected
    assert counts.total() == expected
    assert characters_of(expected.items()) == Counter("".join(expected.elements()))


def test_punctuation_and_chinese_characters_are_always_words_of_their_own() -> None:
    counts = WordCounts(lowercase=True)
    assert [character for character in "a1é六𠀀.。$_かカ한й\u0301" if counts.is_isolated(character)] == list("六𠀀.。$_")


# ------------------------------------------------------------------------------------------------------ blocks, sample


@given(st.text(st.sampled_from("ab \n六"), max_size=200), st.integers(1, 30))
def test_blocks_are_the_text_cut_at_white_space(text: str, limit: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words, "_BLOCK", limit)
        blocks = list(blocks_of(text))
    assert "".join(blocks) == text
    assert all(0 < len(block) <= limit for block in blocks)
    for block in blocks[:-1]:
        assert block[-1].isspace() or not any(map(str.isspace, block))


def sampled(count: int, capacity: int, seed: int = 0) -> list[str]:
    sample = EvenSample(capacity, seed)
    for number in range(count):
        sample.offer(f"block {number:06}")
    assert sample.seen_bytes == 12 * count
    learn, held = sample.split(0.2)
    assert sample.bytes == 12 * len(learn + held) <= capacity
    assert sample.split(0.2) == ([], [])
    return sorted(block.decode() for block in learn + held)


def test_a_sample_that_has_room_holds_everything() -> None:
    assert sampled(100, 1200) == [f"block {number:06}" for number in range(100)]
    assert len(sampled(100, 1199)) == 99


def test_a_smaller_sample_is_a_part_of_a_larger_one_and_the_seed_decides() -> None:
    samples = [set(sampled(5000, 12 * count)) for count in (50, 500, 2000)]
    assert [len(sample) for sample in samples] == [50, 500, 2000]
    assert samples[0] < samples[1] < samples[2]
    assert sampled(5000, 6000) == sampled(5000, 6000)
    assert sampled(5000, 6000, seed=-1) != sampled(5000, 6000)


def test_every_part_of_the_stream_is_sampled_alike() -> None:
    numbers = [int(block[6:]) for seed in range(20) for block in sampled(2000, 12 * 200, seed)]
    expected = 20 * 200 / 10
    for part in range(10):
        found = sum(200 * part <= number < 200 * (part + 1) for number in numbers)
        assert abs(found - expected) < 4 * (expected * 0.9 * 0.9) ** 0.5


def test_blocks_of_different_sizes_are_sampled_by_their_bytes() -> None:
    large = total = 0
    for seed in range(30):
        sample = EvenSample(30_000, seed)
        for number in range(400):
            sample.offer("x" * 900 if number % 2 else "y" * 100)
        learn, held = sample.split(0.1)
        large += sum(len(block) for block in learn + held if block[0] == ord("x"))
        total += sample.bytes
    assert 0.87 < large / total < 0.93


@given(st.lists(st.text("aé六", min_size=1, max_size=30), min_size=1, max_size=40), st.floats(0.001, 0.5))
def test_what_is_set_aside_is_the_share_that_was_asked_for(blocks: list[str], heldout: float) -> None:
    sample = EvenSample(1 << 20, 3)
    for number, block in enumerate(blocks):
        sample.offer(f"{number} {block}")
    learn, held = sample.split(heldout)
    order = {f"{number} {block}".encode(): number for number, block in enumerate(blocks)}
    for part in (learn, held):
        assert [order[block] for block in part] == sorted(order[block] for block in part)
    assert sorted(order) == sorted(learn + held)
    assert bool(held) == (len(blocks) > 1)
    assert learn
    if held and len(learn) > 1:
        sizes = [len(block) for block in held]
        assert sum(sizes) >= heldout * sample.bytes > sum(sizes) - max(sizes) - 1e-6


@pytest.mark.shared_data
@pytest.mark.parametrize("source", ["zh/zhwiki/zhwiki.txt.xz", "pretrain/enwiki-2018.txt.xz"])
@pytest.mark.parametrize("lowercase", [True, False])
def test_words_of_real_text_are_those_of_the_library(shared: Path, source: str, lowercase: bool) -> None:
    with lzma.open(shared / source) as file:
        text = file.read(1 << 18).decode(errors="ignore")
    assert counted(text, lowercase) == library(text, lowercase)
