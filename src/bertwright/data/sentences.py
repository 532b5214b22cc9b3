"""Sentences of a text, in any language that the library `sentencex` knows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sentencex import segment

if TYPE_CHECKING:
    from bertwright.data.corpus import CorpusFormat

# The library looks for the partner of each opening quote through all of the text behind it, so that a long line would
# take time with the square of its length. Hardly a paragraph is longer than a window.
_WINDOW = 4096  # characters
_LONGEST_SENTENCE = 4 * _WINDOW

# The library takes every white space for one byte, and panics at the initials of "J.\u00a0S. Bach".
_WIDE_BLANK = re.compile("[\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]")

# No sentence begins with these: the library now and then cuts between a quotation and what follows it.
_NEVER_FIRST = frozenset(",;:!?)]}，、；：。．！？）」』】》〉］｝”")

# The first that makes up a tenth of the letters decides. Japanese has Chinese characters beside its own.
_SCRIPTS = {
    "ja": "\u3041-\u30ff",
    "zh": "\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff",
    "ko": "\u1100-\u11ff\uac00-\ud7a3",
    "ru": "\u0400-\u04ff",
    "el": "\u0370-\u03ff",
    "ar": "\u0600-\u06ff",
    "he": "\u0590-\u05ff",
    "hi": "\u0900-\u097f",
    "th": "\u0e00-\u0e7f",
}
_ANY_SCRIPT = re.compile(f"[{''.join(_SCRIPTS.values())}]")
_EACH_SCRIPT = tuple((language, re.compile(f"[{characters}]")) for language, characters in _SCRIPTS.items())
_LOOKED_AT = 256  # characters, spread evenly over the text


def split_sentences(text: str, format: CorpusFormat) -> list[str]:
    """Return the sentences of a text in order, none of them empty, without blanks around them.

    A line break always ends a sentence. With ``format.sentences == "line"`` nothing else does, as in the files that BERT
    itself was trained on; with ``"split"`` the library `sentencex` finds the ends within a line. No character but white
    space is lost. A sentence over 16,384 characters is cut at a blank. A pure function, safe to call in any process.
    """
    lines = (line.strip() for line in text.split("\n"))
    if format.sentences == "line":
        return [line for line in lines if line]
    language = language_of(text) if format.language == "auto" else format.language
    return [sentence for line in lines if line for sentence in _sentences_of_line(line, language)]


def language_of(text: str) -> str:
    """Guess a language from the script of a text: zh, ja, ko, ru, el, ar, he, hi or th, and en for all others.

    It decides which abbreviations end no sentence. The marks at which sentences end are known in every script alike.
    """
    if text.isascii():
        return "en"
    sample = text[:: -(-len(text) // _LOOKED_AT)]
    foreign = "".join(_ANY_SCRIPT.findall(sample))
    if not foreign:
        return "en"
    letters = sum(map(str.isalpha, sample))
    return next((language for language, script in _EACH_SCRIPT if 10 * len(script.findall(foreign)) > letters), "en")


def _sentences_of_line(line: str, language: str) -> list[str]:
    sentences: list[str] = []
    short_ascii = len(line) <= _WINDOW and line.isascii()
    for part in segment(language, line) if short_ascii else _parts(line, language):
        leftover = sentences and not part[0].isalnum() and _is_leftover(part.lstrip())
        if leftover and len(sentences[-1]) < _LONGEST_SENTENCE:
            sentences[-1] += part
        else:
            sentences.append(part)
    return [sentence.strip() for sentence in sentences]


def _is_leftover(part: str) -> bool:
    return part[:1] in _NEVER_FIRST or not any(map(str.isalnum, part))


def _parts(line: str, language: str) -> Iterator[str]:
    """Yield the parts that the library cuts `line` into, looking at a window of it at a time."""
    plain = _WIDE_BLANK.sub(" ", line)  # as long as `line`, so that places agree
    start, width = 0, _WINDOW
    while start < len(line):
        end = start + width
        lengths = [len(part) for part in segment(language, plain[start:end])]
        if end < len(line):
            if len(lengths) > 1:
                lengths.pop()  # the last part may go on behind the window
            elif width < _LONGEST_SENTENCE:
                width *= 2
                continue
            else:
                blank = plain.rfind(" ", start, end)
                lengths = [width if blank < 0 else blank + 1 - start]
        for length in lengths:
            yield line[start : start + length]
            start += length
        width = _WINDOW
