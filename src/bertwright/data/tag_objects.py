"""Read tagged sentences from JSON lines and Parquet: tokens and tags, or a text and its spans in characters."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bertwright.data.readers import read_objects
from bertwright.data.tag_columns import Notices, TagColumns, cleaned
from bertwright.data.tagged import TaggedExample, words_of
from bertwright.data.tags import OUTSIDE
from bertwright.errors import BertwrightError, did_you_mean

_WIDENED = "spans begin or end inside a word, and were widened to whole words, each in one span only"
_NO_WORDS = "lines without a word were left out"
_RAW = "texts with spans are cut into words as they stand: --drop-from-token has no effect on them"
_LEFT_OUT = "spans were left out, as each word of theirs is in a span before them"


def object_sentences(path: Path, columns: TagColumns, notices: Notices) -> Iterator[TaggedExample]:
    """Yield the sentences of a file in order, those without a word left out.

    Raises:
        BertwrightError: the file is missing or not to be read, or a row is no tagged sentence (names the line).
    """
    for where, row in read_objects(path):
        read = _of_tokens if (columns.token or "tokens") in row else _of_text
        example = read(row, columns, where, notices)
        if example.places or not columns.labelled:
            yield example
        else:
            notices.add(_NO_WORDS, where, example.text)


def _of_tokens(row: Mapping[str, Any], columns: TagColumns, where: str, notices: Notices) -> TaggedExample:
    words = _names(row[columns.token or "tokens"], "tokens", where)
    words = [cleaned(word, columns, where, notices) for word in words]
    if not columns.labelled:
        return TaggedExample.of_words(words, where)
    if (columns.tag or "tags") == (columns.token or "tokens"):
        given = "--token-column" if columns.tag is None else "--tag-column"
        raise BertwrightError(
            f"{where}: {given} makes {columns.tag or 'tags'!r} words and tags: the tags would be the words"
        )
    tags = _names(_field(row, columns.tag or "tags", where), "tags", where)
    if len(tags) != len(words):
        raise BertwrightError(f"{where}: {len(words)} tokens but {len(tags)} tags; each token needs its own")
    return TaggedExample.of_words(words, where, tags)


def _of_text(row: Mapping[str, Any], columns: TagColumns, where: str, notices: Notices) -> TaggedExample:
    if columns.text not in row:
        fields = ", ".join(row)
        raise BertwrightError(
            f"{where}: neither {columns.token or 'tokens'!r}, a list of words, nor {columns.text!r}, a text; "
            f"see --token-column and --text (fields: {fields})"
        )
    text = row[columns.text]
    if not isinstance(text, str):
        raise BertwrightError(f"{where}: {columns.text!r} is {text!r}, not a text")
    places = words_of(text)
    if not columns.labelled:
        return TaggedExample(text, places, where)
    if columns.drop is not None:
        notices.add(_RAW, where, text[:20])
    spans = _spans(_field(row, columns.tag or "spans", where), text, where)
    tags = [OUTSIDE] * len(places)
    begins, ends = [begin for begin, _ in places], [end for _, end in places]
    for begin, end, label in spans:
        inside = range(bisect.bisect_right(ends, begin), bisect.bisect_left(begins, end))
        free = [n for n in inside if tags[n] == OUTSIDE]
        if not inside:
            raise BertwrightError(f"{where}: the span from {begin} to {end} holds no word")
        if not free:
            notices.add(_LEFT_OUT, where, text[begin:end])
        elif len(free) < len(inside) or (places[inside[0]][0], places[inside[-1]][1]) != _trimmed(text, begin, end):
            notices.add(_WIDENED, where, text[begin:end])
        for number, n in enumerate(free):
            tags[n] = f"{'I' if number else 'B'}-{label}"
    return TaggedExample(text, places, where, tuple(tags))


def _spans(given: Any, text: str, where: str) -> list[tuple[int, int, str]]:
    spans: list[tuple[int, int, str]] = []
    for span in given if isinstance(given, list) else [given]:
        begin, end, label = [span.get(name) for name in ("start", "end", "label")] if isinstance(span, dict) else [None] * 3
        if type(begin) is not int or type(end) is not int or not isinstance(label, str) or not label:
            raise BertwrightError(
                f"{where}: {span!r} is no span; it needs start and end, the characters from and up to which it goes, "
                "and a label"
            )
        if not 0 <= begin < end <= len(text):
            raise BertwrightError(f"{where}: a span from {begin} to {end} is not in a text of {len(text)} characters")
        spans.append((begin, end, label))
    spans.sort()
    for (_, end, label), (begin, _, other) in itertools.pairwise(spans):
        if begin < end:
            raise BertwrightError(f"{where}: the spans {label!r} to {end} and {other!r} from {begin} overlap; keep one")
    return spans


def _trimmed(text: str, begin: int, end: int) -> tuple[int, int]:
    """A span without the white space at its ends."""
    inside = text[begin:end]
    return begin + len(inside) - len(inside.lstrip()), end - len(inside) + len(inside.rstrip())


def _field(row: Mapping[str, Any], name: str, where: str) -> Any:
    if name not in row:
        raise BertwrightError(
            f"{where}: no field {name!r} for --tag-column{did_you_mean(name, row)} (fields: {', '.join(row)})"
        )
    return row[name]


def _names(given: Any, what: str, where: str) -> list[str]:
    if not isinstance(given, list):
        raise BertwrightError(f"{where}: the {what} are {given!r}, not a list")
    for number, value in enumerate(given, 1):
        if not (isinstance(value, str) and value):
            cure = "; write the names of tags, not their numbers" if what == "tags" and isinstance(value, int) else ""
            raise BertwrightError(f"{where}: number {number} of the {what} is {value!r}, not a text{cure}")
    return given
