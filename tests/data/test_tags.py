"""Schemes of tags: read as seqeval reads them, told apart, and written again without a loss."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities

from bertwright.data.tags import (
    OUTSIDE,
    PLAIN,
    SCHEMES,
    TagSet,
    codes,
    in_full,
    scheme_of_labels,
    scheme_of_tags,
    write_tags,
)

# The letters of each scheme as seqeval knows them.
THEIR_LETTERS = str.maketrans({"M": "I", "L": "E", "U": "S", "W": "S"})

Found = list[tuple[str, int, int]]


def spans_of(sentences: Sequence[Sequence[str]]) -> Found:
    """(type, begin, last word), words counted through all sentences."""
    flat = [tag for tags in sentences for tag in tags]
    tag_set = TagSet(tuple(dict.fromkeys(flat)))
    found = tag_set.spans(codes(flat, tag_set.tags), [len(tags) for tags in sentences])
    return [(tag_set.types[kind], begin, end - 1) for begin, end, kind in found.tolist()]


def theirs(sentences: Sequence[Sequence[str]]) -> Found:
    found, at = [], 0
    for tags in sentences:
        simple = [tag[0].translate(THEIR_LETTERS) + tag[1:] for tag in tags]
        found += [(kind, at + begin, at + last) for kind, begin, last in get_entities(simple)]
        at += len(tags)
    return found


def letters_of(scheme: str) -> str:
    return "".join(sorted({*SCHEMES[scheme], *("B" if scheme == "IOB1" else "")}))


def any_tags(letters: str) -> st.SearchStrategy[list[list[str]]]:
    tag = st.sampled_from([OUTSIDE, *(f"{letter}-{kind}" for letter in letters for kind in ("PER", "LOC", "x-y"))])
    return st.lists(st.lists(tag, max_size=12), min_size=1, max_size=4)


@st.composite
def marked(draw: st.DrawFn) -> tuple[list[int], list[tuple[int, int, int]]]:
    """Lengths of sentences, and spans of two types in them, many of which touch."""
    lengths, spans, at = draw(st.lists(st.integers(0, 9), min_size=1, max_size=4)), [], 0
    for length in lengths:
        place = 0
        while place < length:
            size = draw(st.integers(1, min(4, length - place)))
            kind = draw(st.integers(-1, 1))
            if kind >= 0:
                spans.append((at + place, at + place + size, kind))
            place += size
        at += length
    return lengths, spans


@pytest.mark.parametrize("scheme", SCHEMES)
@given(st.data())
@settings(max_examples=20, deadline=None)
def test_any_tags_of_any_scheme_mark_the_spans_that_seqeval_finds(scheme: str, data: st.DataObject) -> None:
    sentences = data.draw(any_tags(letters_of(scheme)))
    assert spans_of(sentences) == theirs(sentences)


@given(any_tags("BIMELSUW"))
@settings(max_examples=60, deadline=None)
def test_so_do_tags_of_all_schemes_at_once(sentences: list[list[str]]) -> None:
    assert spans_of(sentences) == theirs(sentences)


@pytest.mark.parametrize("scheme", [scheme for scheme in SCHEMES if scheme not in ("IO", "IOE2")])
@given(marked())
@settings(max_examples=20, deadline=None)
def test_what_is_written_in_a_scheme_is_read_again(scheme: str, given: tuple[list[int], list[tuple[int, int, int]]]) -> None:
    lengths, spans = given
    flat = write_tags(np.array(spans, dtype=np.int64).reshape(-1, 3), ("LOC", "PER"), lengths, scheme)
    ends = np.cumsum(lengths).tolist()
    sentences = [flat[end - length : end] for end, length in zip(ends, lengths, strict=True)]
    assert spans_of(sentences) == [(("LOC", "PER")[kind], begin, end - 1) for begin, end, kind in spans]
    found, differ = scheme_of_tags(sentences)
    assert differ == 0
    assert found == scheme or len({tag[0] for tag in flat} - {OUTSIDE}) < len(letters_of(scheme))


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        ("IOB1", "I-A I-A B-A I-B O I-A"),
        ("IOB2", "B-A I-A B-A B-B O B-A"),
        ("IOE2", "I-A E-A E-A E-B O E-A"),
        ("IOBES", "B-A E-A S-A S-B O S-A"),
        ("BILOU", "B-A L-A U-A U-B O U-A"),
        ("BMES", "B-A E-A S-A S-B O S-A"),
        ("BMEW", "B-A E-A W-A W-B O W-A"),
        ("IO", "I-A I-A I-A I-B O I-A"),
    ],
)
def test_schemes_by_hand(scheme: str, expected: str) -> None:
    spans = np.array([[0, 2, 0], [2, 3, 0], [3, 4, 1], [5, 6, 0]])
    assert write_tags(spans, ("A", "B"), [6], scheme) == expected.split()


def test_a_sentence_ends_a_span_and_what_touches_across_it_needs_no_b() -> None:
    assert spans_of([["O", "I-A"], ["I-A", "I-A"]]) == [("A", 1, 1), ("A", 2, 3)]
    assert write_tags(np.array([[1, 2, 0], [2, 4, 0]]), ("A",), [2, 2], "IOB1") == ["O", "I-A", "I-A", "I-A"]


@pytest.mark.parametrize(
    ("tags", "scheme", "differ"),
    [
        ("I-A I-A O I-B", "IOB1", 0),
        ("I-A B-A O I-B", "IOB1", 0),
        ("B-A I-A O B-B", "IOB2", 0),
        ("B-A I-A O B-B O B-A B-B I-A", "IOB2", 1),
        ("B-A M-A E-A S-A", "BMES", 0),
        ("B-A I-A E-A S-A", "IOBES", 0),
        ("B-A I-A I-A S-A", "IOBES", 1),
        ("B-A I-A L-A U-A", "BILOU", 0),
        ("I-A E-A O E-A", "IOE2", 0),
        ("B M E S", "BMES", 0),
        ("O O", "IOB1", 0),
    ],
)
def test_a_scheme_is_told_and_what_breaks_it_counted(tags: str, scheme: str, differ: int) -> None:
    assert scheme_of_tags([tags.split()]) == (scheme, differ)


@pytest.mark.parametrize(
    ("labels", "scheme"),
    [
        ("O B-A I-A", "IOB2"),
        ("O I-A I-B", "IO"),
        ("O B-A B-B", "IOB2"),
        ("O B-A I-A E-A S-A", "IOBES"),
        ("B-A M-A E-A S-A O", "BMES"),
        ("O B-A I-A NN", PLAIN),
        ("NOUN VERB", PLAIN),
        ("LABEL_0 LABEL_1", PLAIN),
        ("O", PLAIN),
    ],
)
def test_the_scheme_of_labels(labels: str, scheme: str) -> None:
    assert scheme_of_labels(labels.split()) == scheme


def test_types_may_hold_hyphens_and_letters_may_have_none() -> None:
    assert spans_of([["B-x-y", "I-x-y", "B", "I", "O"]]) == [("x-y", 0, 1), ("_", 2, 3)]
    assert [in_full(tag) for tag in ("B", "O", "B-x", "NN")] == ["B-_", "O", "B-x", "NN"]
    assert spans_of([[], []]) == []
