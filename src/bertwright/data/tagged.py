"""Sentences as words with tags, and how a raw text becomes words and words become a text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Place = tuple[int, int]

# Scripts without spaces between words, of which each character is a word: Chinese characters (those that BERT's own
# tokenizer sets apart), kana, and the punctuation that goes with them.
_ALONE = (
    "\u3001-\u303f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40"
    "\uff5b-\uff9f\U00020000-\U0002a6df\U0002a700-\U0002ceaf\U0002f800-\U0002fa1f"
)
# What belongs to the character before it: accents, the marks of kana, enclosing marks, variants of a character or emoji.
_MARKS = (
    "\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\u3099\u309a\ufe00-\ufe0f\ufe20-\ufe2f\uff9e\uff9f"
    "\U000e0100-\U000e01ef"
)
_FIRST_ALONE = _ALONE[0]  # a quick answer for most words
_IS_ALONE = re.compile(f"[{_ALONE}]")
_ENDS_ALONE = re.compile(f"[{_ALONE}][{_MARKS}]*\\Z")
_MARK = re.compile(f"[{_MARKS}]")
_RUN = re.compile(f"[{_ALONE}][{_MARKS}]*|[^\\s{_ALONE}]+")
_INITIALS = re.compile(r"(?:[^\W\d_]\.){2,}")  # U.S.
_INITIAL = re.compile(r"[^\W\d_]\.")  # George W. Bush
_POSSESSIVE = re.compile(r".['’][sS]", re.DOTALL)


@dataclass(frozen=True, slots=True)
class TaggedExample:
    """A text, the place of each of its words, and their tags as the file has them. ``where`` names its file and line."""

    text: str
    places: tuple[Place, ...]
    where: str
    tags: tuple[str, ...] | None = None

    @classmethod
    def of_words(cls, words: Sequence[str], where: str, tags: Sequence[str] | None = None) -> TaggedExample:
        """Make an example of words, whose text is :func:`joined` of them."""
        text, places = joined(words)
        return cls(text, places, where, None if tags is None else tuple(tags))

    @property
    def words(self) -> list[str]:
        """The words themselves."""
        return [self.text[begin:end] for begin, end in self.places]

    @property
    def answer(self) -> tuple[str, ...] | None:
        """The tags."""
        return self.tags

    @property
    def characters(self) -> int:
        """How much text it holds."""
        return len(self.text)


def joined(words: Sequence[str]) -> tuple[str, tuple[Place, ...]]:
    """Put words together to a text: a space between two, but none between two of a script without spaces.

    Returns:
        The text, and the place of each word in it.
    """
    parts: list[str] = []
    places: list[Place] = []
    at = 0
    for number, word in enumerate(words):
        if number and (word[0] < _FIRST_ALONE or not (_ENDS_ALONE.search(words[number - 1]) and _IS_ALONE.match(word))):
            parts.append(" ")
            at += 1
        parts.append(word)
        places.append((at, at + len(word)))
        at += len(word)
    return "".join(parts), tuple(places)


def words_of(text: str) -> tuple[Place, ...]:
    """Find the words of a raw text, in the way that data with tags mostly have them.

    White space separates words. Punctuation and currency signs at either end of a word are words of their own (a run of
    one character, such as ``...``, is one), and so is ``'s`` at its end; ``@name``, ``#topic`` and initials (``U.S.``,
    ``George W. Bush``) stay whole. Each Chinese character and each kana is a word.
    """
    return tuple(place for run in _RUN.finditer(text) for place in _peeled(text, *run.span()))


def _peeled(text: str, begin: int, end: int) -> Iterator[Place]:
    """The words of a run without white space: its punctuation from both ends, and what is between."""
    while begin < end and _is_punctuation(text[begin]) and not _is_handle(text, begin, end):
        after = _past_marks(text, _run_end(text, begin, end), end)
        yield begin, after
        begin = after
    tail: list[Place] = []
    while (before := _before_marks(text, begin, end)) > begin:
        if not _is_punctuation(text[before - 1]) or _is_initials(text, begin, end):
            break
        before -= 1
        while before > begin and text[before - 1] == text[before]:
            before -= 1
        tail.append((before, end))
        end = before
    if end - begin > 2 and _POSSESSIVE.fullmatch(text, end - 3, end):
        tail.append((end - 2, end))
        end -= 2
    if begin < end:
        yield begin, end
    yield from reversed(tail)


def _run_end(text: str, begin: int, end: int) -> int:
    after = begin + 1
    while after < end and text[after] == text[begin]:
        after += 1
    return after


def _past_marks(text: str, begin: int, end: int) -> int:
    while begin < end and _MARK.match(text, begin):
        begin += 1
    return begin


def _before_marks(text: str, begin: int, end: int) -> int:
    while end > begin and _MARK.match(text, end - 1):
        end -= 1
    return end


def _is_punctuation(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] == "P" or category == "Sc"


def _is_handle(text: str, begin: int, end: int) -> bool:
    return text[begin] in "@#" and begin + 1 < end and not _is_punctuation(text[begin + 1])


def _is_initials(text: str, begin: int, end: int) -> bool:
    if _INITIALS.fullmatch(text, begin, end):
        return True
    # At the end of a text a single letter is more likely the end of a sentence.
    return bool(_INITIAL.fullmatch(text, begin, end)) and text[begin].isupper() and bool(text[end:].strip())
