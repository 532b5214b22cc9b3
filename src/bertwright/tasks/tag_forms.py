"""What the tags of words look like: marks of spans or tags as they stand, and what is a slip of the pen among them."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Sequence

from bertwright.data.readers import is_delimited
from bertwright.data.tagged import TaggedExample
from bertwright.data.tags import OUTSIDE, marks_span, scheme_of_tags
from bertwright.errors import BertwrightError, tell
from bertwright.training.recipe import Recipe

_ALMOST = re.compile(r"[BIMELSUWbimelsuw][-_:.].+")  # what somebody may mean as the mark of a span
_SURELY_SPANS = 0.9  # of the words; where so many tags mark spans or none, another one is a slip of the pen


def are_spans(counts: Counter[str], examples: Sequence[TaggedExample]) -> bool:
    """Whether tags mark spans: all but O are letters of a scheme with their types.

    Raises:
        BertwrightError: nearly all are, but not every one.
    """
    others = {tag: count for tag, count in counts.items() if tag != OUTSIDE}
    strange = [tag for tag in others if not marks_span(tag)]
    if not any("-" in tag for tag in others if marks_span(tag)):
        # Bare letters cut a text into words, where there is nothing else and one of them begins a word.
        return not strange and "B" in others
    if strange and counts.total() - sum(others[tag] for tag in strange) >= _SURELY_SPANS * counts.total():
        check_marks(counts, examples)
    return not strange


def tell_of_marks(counts: Counter[str], recipe: Recipe, where: str) -> None:
    """Tell of tags that are no marks of spans, but may be meant so."""
    others = [tag for tag in counts if tag != OUTSIDE]
    strange = [tag for tag in others if not marks_span(tag)]
    meant = OUTSIDE in counts and all(map(_ALMOST.fullmatch, others)) and any(tag[0] in "BIbi" for tag in others)
    if recipe.scheme == "auto" and strange and meant:
        tell(
            f"{where}: tags such as {strange[0]!r} are taken as they stand, word by word; if they mark spans, write them "
            "with a capital letter and a hyphen, such as B-PER"
        )


def check_marks(counts: Counter[str], examples: Sequence[TaggedExample]) -> None:
    """Raise BertwrightError for a tag that marks no span, where the others do."""
    strange = next((tag for tag in counts if tag != OUTSIDE and not marks_span(tag)), None)
    if strange is not None:
        raise BertwrightError(
            f"{first_with(strange, examples)}: the tag {strange!r} is neither O nor a letter (B, I, E, S, M, L, U, W), a "
            "hyphen and a type, as most tags are; mend it, or take tags as they stand with --scheme plain"
            + _if_header(strange, examples)
        )


def _if_header(tag: str, examples: Sequence[TaggedExample]) -> str:
    """What to do if a tag is the name of a column: it stands in the first line of a file of columns."""
    for example in examples:
        path, _, line = example.where.rpartition(":")
        if line == "1" and (example.tags or ("",))[0] == tag and is_delimited(path):
            return f"; if line 1 is a header, --tag-column {shlex.quote(tag)}, without --columns, takes it as one"
    return ""


def first_with(tag: str, examples: Sequence[TaggedExample]) -> str:
    """The first word with this tag."""
    return word_at([one for example in examples for one in example.tags or ()].index(tag), examples)


def word_at(place: int, examples: Sequence[TaggedExample]) -> str:
    """Where the word is that stands at this place among the words of all sentences."""
    for example in examples:
        if place < len(example.places):
            return f"{example.where}, word {place + 1} ({example.words[place]!r})"
        place -= len(example.places)
    raise AssertionError(place)


def tell_irregular(examples: Sequence[TaggedExample]) -> None:
    """Tell of tags that are not what their scheme has at their places."""
    scheme, differ = scheme_of_tags([example.tags or () for example in examples])
    if differ:
        words = sum(len(example.places) for example in examples)
        tell(
            f"{examples[0].where.rpartition(':')[0] or 'rows'}: the tags are {scheme}, but {differ:,} of {words:,} are not "
            f"what {scheme} has there; they are read as the CoNLL evaluation reads them"
        )
