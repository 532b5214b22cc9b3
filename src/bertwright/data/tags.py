"""Tags of words that mark spans: which scheme they are written in, the spans they mark, and how to write these again.

A tag is ``O``, outside of any span, or a letter, a hyphen and the type of the span: ``B-PER``. The letter says where in
its span a word stands. Schemes differ in the letters they use; all of them are read by one rule, that of the CoNLL
evaluation script (and of seqeval's default mode), which makes a span of any sequence of tags.

Shapes: W words of some sentences end to end, C different tags, N spans: for each the word where it begins, the one after
its end, and the index of its type (spans_N3, in order, without overlaps).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from bertwright.arrays import BoolArray, IntArray

OUTSIDE = "O"
PLAIN = "plain"
"""What stands in the place of a scheme where tags mark no spans: parts of speech."""

SCHEMES = {
    "IOB2": "BIIB",
    "IOB1": "IIII",
    "IOE2": "IIEE",
    "IOBES": "BIES",
    "BILOU": "BILU",
    "BMES": "BMES",
    "BMEW": "BMEW",
    "IO": "IIII",
}
"""The letters of a scheme: of the first word of a span, of those between, of the last one, and of an only one.

IOB1 has a B besides, for the first word of a span right after another one of its type; in IO the two become one.
"""

_MARK = re.compile(r"([BIMELSUW])(?:-(.+))?", re.DOTALL)
_FIRST, _LAST, _ONLY = "B", "EL", "SUW"
_NO_TYPE = "_"  # of a bare letter, as in the segmentation of Chinese words; seqeval calls it so too


@dataclass(frozen=True)
class TagSet:
    """Different tags that mark spans; a tag's index is its code."""

    tags: tuple[str, ...]

    @cached_property
    def types(self) -> tuple[str, ...]:
        """The types of spans that occur, in alphabetical order."""
        return tuple(sorted({type_of(tag) for tag in self.tags if tag != OUTSIDE}))

    @cached_property
    def _meaning(self) -> tuple[IntArray, BoolArray, BoolArray]:
        """By code: the type (-1: outside), whether the tag always begins a span, and whether it always ends one."""
        places = {name: place for place, name in enumerate(self.types)}
        type_C = [-1 if tag == OUTSIDE else places[type_of(tag)] for tag in self.tags]
        begins_C = [tag != OUTSIDE and tag[0] in _FIRST + _ONLY for tag in self.tags]
        ends_C = [tag != OUTSIDE and tag[0] in _LAST + _ONLY for tag in self.tags]
        return np.array(type_C, dtype=np.int64), np.array(begins_C, dtype=bool), np.array(ends_C, dtype=bool)

    def spans(self, code_W: IntArray, lengths: Sequence[int] | IntArray) -> IntArray:
        """Return spans_N3 of sentences of these ``lengths``, given the code of each word's tag.

        A word begins a span if its tag says so, or if it is inside of a type that the word before it is not, or if that
        one ends a span (Tjong Kim Sang and De Meulder, 2003, ``conlleval``; the same as seqeval without a mode).
        """
        if not len(code_W):
            return np.zeros((0, 3), dtype=np.int64)
        type_C, begins_C, ends_C = self._meaning
        type_W = type_C[code_W]
        before_W = np.concatenate([[-1], type_W[:-1]])
        ended_W = np.concatenate([[False], ends_C[code_W][:-1]])
        firsts = (np.cumsum(lengths) - lengths)[np.asarray(lengths) > 0]
        before_W[firsts] = -1
        outside_W = type_W < 0
        begin_W = ~outside_W & (begins_C[code_W] | ended_W | (before_W != type_W))
        begin_N = np.flatnonzero(begin_W)
        # No span runs into the next sentence: its first word, with nothing before it, begins a span or is outside of one.
        stops = np.append(np.flatnonzero(begin_W | outside_W), len(code_W))
        end_N = stops[np.searchsorted(stops, begin_N, side="right")]
        return np.stack([begin_N, end_N, type_W[begin_N]], axis=1)


def marks_span(tag: str) -> bool:
    """Whether a tag other than O is a letter of a scheme, alone or with a type."""
    return _MARK.fullmatch(tag) is not None


def type_of(tag: str) -> str:
    """The type of the span that a tag other than O is part of."""
    match = _MARK.fullmatch(tag)
    assert match is not None, tag
    return match[2] or _NO_TYPE


def in_full(tag: str) -> str:
    """The tag as :func:`write_tags` writes it: a bare letter with the type that it stands for."""
    return tag if tag == OUTSIDE or not marks_span(tag) else f"{tag[0]}-{type_of(tag)}"


def write_tags(spans_N3: IntArray, types: Sequence[str], lengths: Sequence[int] | IntArray, scheme: str) -> list[str]:
    """Write spans in sentences of these ``lengths`` as tags of a scheme, the opposite of :meth:`TagSet.spans`.

    In IO, spans that touch and have one type become one; every other scheme keeps all spans.
    """
    tags = [OUTSIDE] * int(np.sum(lengths))
    letter_W = _letters(spans_N3, lengths, scheme)
    at = np.flatnonzero(letter_W != OUTSIDE)
    type_N = np.repeat(spans_N3[:, 2], spans_N3[:, 1] - spans_N3[:, 0])
    for place, letter, kind in zip(at.tolist(), letter_W[at].tolist(), type_N.tolist(), strict=True):
        tags[place] = f"{letter}-{types[kind]}"
    return tags


def _letters(spans_N3: IntArray, lengths: Sequence[int] | IntArray, scheme: str) -> npt.NDArray[np.str_]:
    """The letter of each word in a scheme."""
    first, inside, last, only = tuple(SCHEMES[scheme])
    begin_N, end_N, type_N = spans_N3.T
    words = int(np.sum(lengths))
    depth = np.bincount(begin_N, minlength=words + 1) - np.bincount(end_N, minlength=words + 1)
    letter_W = np.where(np.cumsum(depth)[:words] > 0, inside, OUTSIDE)
    letter_W[end_N - 1] = last
    letter_W[begin_N] = np.where(end_N == begin_N + 1, only, first)
    if scheme == "IOB1":
        touching = (begin_N[1:] == end_N[:-1]) & (type_N[1:] == type_N[:-1]) & ~np.isin(begin_N[1:], np.cumsum(lengths))
        letter_W[begin_N[1:][touching]] = "B"
    return letter_W


def scheme_of_labels(labels: Iterable[str]) -> str:
    """The scheme that a model's labels belong to, by their letters alone; PLAIN if one of them marks no span."""
    names = set(labels) - {OUTSIDE}
    if not names or not all(map(marks_span, names)):
        return PLAIN
    letters = {name[0] for name in names}
    return "IO" if letters == {"I"} else _candidates(letters)[0]


def scheme_of_tags(sentences: Sequence[Sequence[str]]) -> tuple[str, int]:
    """Find the scheme in which the tags of sentences are written, all of which are O or mark spans.

    Returns:
        The scheme whose writing of these spans differs least from what was given, and how many tags differ.
    """
    flat = [tag for tags in sentences for tag in tags]
    tag_set = TagSet(tuple(dict.fromkeys(flat)))
    lengths = [len(tags) for tags in sentences]
    code_W = codes(flat, tag_set.tags)
    spans_N3 = tag_set.spans(code_W, lengths)
    given_W = np.array([tag[0] for tag in tag_set.tags] or [OUTSIDE])[code_W]
    differences = {
        scheme: int((given_W != _letters(spans_N3, lengths, scheme)).sum())
        for scheme in _candidates({tag[0] for tag in tag_set.tags if tag != OUTSIDE})
    }
    scheme = min(differences, key=lambda name: differences[name])
    return scheme, differences[scheme]


def codes(tags: Sequence[str], known: Sequence[str]) -> IntArray:
    """The place of each tag among the known ones."""
    places = {tag: place for place, tag in enumerate(known)}
    return np.fromiter((places[tag] for tag in tags), np.int64, len(tags))


def _candidates(letters: set[str]) -> tuple[str, ...]:
    """Schemes that use these letters."""
    if "M" in letters or "W" in letters:
        return ("BMEW",) if "W" in letters else ("BMES",)
    if letters & {"L", "U"}:
        return ("BILOU",)
    if "E" in letters and not letters & {"B", "S"}:
        return ("IOE2",)
    if letters & {"E", "S"}:
        return ("IOBES",)
    return ("IOB2", "IOB1") if "B" in letters else ("IOB1",)
