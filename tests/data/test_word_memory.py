"""Ids from memory are the ids of the tokenizer, whatever the text, the vocabulary and what was remembered before."""

from __future__ import annotations

import string
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bertwright.data import word_memory
from bertwright.data.shards import token_dtype
from bertwright.data.word_memory import WordMemory
from bertwright.tokenizer import SPECIAL_TOKENS, Tokenizer

LETTERS = [*string.ascii_letters, *string.digits, *string.punctuation, "é", "中", "文", "，"]
ENTRIES = [*SPECIAL_TOKENS.values(), *LETTERS, *("##" + letter for letter in LETTERS), "the", "a##b"]
UNCASED = Tokenizer.from_vocab(ENTRIES, lowercase=True)
CASED = Tokenizer.from_vocab(ENTRIES, lowercase=False)
ONE_WORD_CHINESE = Tokenizer.from_vocab([*ENTRIES, "中文"], chinese_characters=False)


def with_added(*tokens: tokenizers.AddedToken) -> Tokenizer:
    settings = {"lowercase": True, "strip_accents": None, "handle_chinese_chars": True}
    return Tokenizer("a test", ENTRIES, settings, {len(ENTRIES) + number: token for number, token in enumerate(tokens)})


TOKENIZERS = {
    "uncased": UNCASED,
    "cased": CASED,
    "Chinese words": ONE_WORD_CHINESE,
    "added": with_added(tokenizers.AddedToken("<user>"), tokenizers.AddedToken("c++", normalized=True, single_word=True)),
    "added with a blank": with_added(tokenizers.AddedToken("the end"), tokenizers.AddedToken("[e", lstrip=True)),
    "added Chinese": with_added(tokenizers.AddedToken("中文", normalized=False), tokenizers.AddedToken("文a", rstrip=True)),
}

# What blanks, ideographs, accents, control characters and special tokens do at the edge of a word.
ODD = ["[SEP]", "[MASK]", "[SEP", "[", "<user>", "c++", "the end", "中文", "文a", "́", "é", "İ", "ß", "Σς", "\t", "\u00a0"]
ODD += [
    "\u3000",
    "\u200b",
    "\u2028",
    "\x1f",
    "\x85",
    "\ufffd",
    "ﬁ",
    "가",
    "𠀀",
    "豈",
    "，",
    "“",
    "x" * 120,
    "the",
    "a##b",
    "|",
]
texts = st.lists(st.one_of(st.sampled_from(ODD), st.text(max_size=4), st.just(" ")), max_size=12).map("".join)


def expected(tokenizer: Tokenizer, sentences: list[str]) -> list[list[int]]:
    return [tokenizer.encode(sentence).input_ids[1:-1] for sentence in sentences]


def remembered(memory: WordMemory, sentences: list[str], dtype: np.dtype[np.uint16]) -> list[list[int]]:
    return [np.frombuffer(ids, dtype).tolist() for ids in memory.encode(sentences)]


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=60, deadline=None)
@example([["the end", "the  end", " the end "], ["中文a 中文", "[SEP]x[SEP]", "a [SEP] b"]])
@example([["c++", "xc++", "(c++)", "c++ c++x"], ["[SEP]" * 3, "", " "]])
@given(calls=st.lists(st.lists(texts, max_size=5), min_size=1, max_size=3))
def test_ids_are_those_of_the_tokenizer(name: str, calls: list[list[str]]) -> None:
    tokenizer = TOKENIZERS[name]
    dtype = token_dtype(tokenizer.vocab_size)
    memory = WordMemory(tokenizer, dtype)
    for sentences in calls:
        assert remembered(memory, sentences, dtype) == expected(tokenizer, sentences)


@pytest.mark.parametrize("kind", ["<u2", "<u4"])
def test_forgetting_changes_nothing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_memory, "_MOST_WORDS", 20)
    monkeypatch.setattr(word_memory, "_SENTENCES_AT_ONCE", 3)
    monkeypatch.setattr(word_memory, "_AT_ONCE", 2)
    monkeypatch.setattr(word_memory, "_WORTH_KEEPING", 4)
    sentences = [f"the {number} the{number:05} {number % 7}" for number in range(50)]
    dtype = np.dtype(kind)
    assert remembered(WordMemory(UNCASED, dtype), sentences, dtype) == expected(UNCASED, sentences)


def test_words_are_split_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    encode_batch = Tokenizer.encode_batch

    def counting(self: Tokenizer, texts: list[str]) -> object:
        asked.extend(texts)
        return encode_batch(self, texts)

    memory = WordMemory(UNCASED, "<u2")
    monkeypatch.setattr(Tokenizer, "encode_batch", counting)
    first = memory.encode(["the cat 中文", "the dog"])
    assert len(asked) == 1
    assert memory.encode(["the cat 中文", "the dog", "dog cat the 文中"])[:2] == first
    assert len(asked) == 1


@pytest.mark.shared_data
@pytest.mark.parametrize("vocab", ["bert-base-uncased", "bert-base-chinese"])
def test_published_vocabularies_divide_words(shared: Path, vocab: str) -> None:
    tokenizer = Tokenizer.from_directory(shared / "vocab" / vocab)
    memory = WordMemory(tokenizer, "<u2")
    assert memory._words("a 中b") == ["a", "中", "b"]
    sentences = ["Naïve—café costs $5.00 (or 4€)…", "中国是世界上历史最悠久的国家之一。", "[SEP] 東京は、日本の首都。"]
    assert remembered(memory, sentences, token_dtype(tokenizer.vocab_size)) == expected(tokenizer, sentences)
