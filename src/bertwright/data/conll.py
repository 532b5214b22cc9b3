"""Read sentences with tags: CoNLL's columns, a word a line, and JSON lines or Parquet with tokens and tags or spans.

Every problem names its file and line. Nothing is skipped: what cannot be read ends the reading.
"""

from __future__ import annotations

import bisect
import csv
import dataclasses
import itertools
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertwright.data.readers import holds_objects, is_quoted, lines_of, opening, read_objects, separator_of
from bertwright.data.tagged import TaggedExample, words_of
from bertwright.data.tags import OUTSIDE
from bertwright.errors import BertwrightError, did_you_mean, tell

DOCUMENT = "-DOCSTART-"  # in the first column: a document begins, and the line is no word
_UNIVERSAL = ".conllu"  # of Universal Dependencies: comments, and words that stand for several
_BLANKS = " \t"  # no other white space separates columns: it may be a word in some data
_WIDE_SPACES = re.compile(f"[{_BLANKS}]+")
# What headers call the columns of words and of tags.
_WORD_HEADS = frozenset({"word", "words", "token", "tokens", "form", "text"})
_TAG_HEADS = frozenset({"tag", "tags", "pos", "ner", "label", "labels", "chunk", "upos", "xpos"}) | frozenset(
    {"pos_tag", "pos_tags", "ner_tag", "ner_tags", "chunk_tag", "chunk_tags"}
)


@dataclass(frozen=True)
class TagColumns:
    """Where words and tags are.

    In columns, ``token`` and ``tag`` are numbers from 1 or one of ``names``, which a header gives too; None: the first
    and the last, and those of form and UPOS in CoNLL-U. In JSON lines and Parquet they are fields; None: ``tokens``, and
    ``tags`` or ``spans``. ``quoting`` is auto (quotes enclose fields in .csv), literal or csv. What ``drop`` matches is
    left out of each word. Unless ``labelled``, tags are not looked for.
    """

    token: str | None = None
    tag: str | None = None
    text: str = "text"
    names: tuple[str, ...] = ()
    delimiter: str | None = None
    quoting: str = "auto"
    drop: str | None = None
    labelled: bool = True


class _Notices:
    """What a reader changed of what a file says: told once for the whole file, with how often and where first."""

    def __init__(self) -> None:
        self._times: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def add(self, what: str, where: str, text: str) -> None:
        """It happened once more."""
        self._times[what] += 1
        self._first.setdefault(what, f"{where}, {text!r}")

    def tell(self, path: Path) -> None:
        """Tell all of it."""
        for what, times in self._times.items():
            tell(f"{path}: {times:,} {what} (the first: {self._first[what]})")


_WIDENED = "spans begin or end inside a word, and were widened to whole words, each in one span only"
_NO_WORDS = "lines without a word were left out"
_RAW = "texts with spans are cut into words as they stand: --drop-from-token has no effect on them"
_LEFT_OUT = "spans were left out, as each word of theirs is in a span before them"


def read_tagged(path: Path, columns: TagColumns) -> Iterator[TaggedExample]:
    """Yield the sentences of a file in order: JSON lines (.jsonl, .ndjson), Parquet, else columns.

    Columns are separated by tabs if the first line with a word has one, else by blanks, in .csv by commas if it has one;
    a delimiter settles it. If that line holds the names that ``columns`` looks for, it is a header. Empty lines and lines
    that begin with -DOCSTART- stand between sentences.

    Raises:
        BertwrightError: the file is missing, not to be read or empty, or a sentence cannot be read (names the line).
    """
    notices = _Notices()
    rows = (_object_sentences if holds_objects(path) else _column_sentences)(path, columns, notices)
    empty = True
    for example in rows:
        empty = False
        yield example
    if empty:
        raise BertwrightError(f"{path}: the file has no sentences; is it the right one?")
    notices.tell(path)


def _cleaned(word: str, columns: TagColumns, where: str, notices: _Notices) -> str:
    """The word without what is to be dropped.

    Raises:
        BertwrightError: nothing is left of it.
    """
    if columns.drop is None:
        return word
    try:
        rest = re.sub(columns.drop, "", word)
    except re.error as error:
        raise BertwrightError(f"--drop-from-token: {columns.drop!r} is no regular expression: {error}") from None
    if not rest:
        raise BertwrightError(
            f"{where}: --drop-from-token {columns.drop!r} leaves nothing of the word {word!r}; one that asks for a "
            f"character before it does, such as {'(?<=.)' + columns.drop!r}"
        )
    if rest != word and not columns.labelled:  # where texts are to be answered, not learned from
        notices.add(f"words lost what --drop-from-token {columns.drop!r} matches, as in training", where, word)
    return rest


# ------------------------------------------------------------------------------------------------------------- columns


def _column_sentences(path: Path, columns: TagColumns, notices: _Notices) -> Iterator[TaggedExample]:
    words: list[str] = []
    tags: list[str] = []
    begin = seen = texts = 0
    for number, row in _word_lines(path, columns, notices):
        if row is not None:
            if not words:
                begin = number
            words.append(row[0])
            tags.append(row[1])
            seen, texts = seen + 1, texts + (" " in row[0])
        elif words:
            yield TaggedExample.of_words(words, f"{path}:{begin}", tags if columns.labelled else None)
            words, tags = [], []
    if texts >= 10 and 2 * texts > seen:
        tell(
            f"{path}: {texts:,} of {seen:,} words hold blanks; if each line is a text with its label, leave --task tagging "
            "out; else name the column of words with --token-column"
        )


def _word_lines(path: Path, columns: TagColumns, notices: _Notices) -> Iterator[tuple[int, tuple[str, str] | None]]:
    """Yield (line number, word and tag), and None in their place between sentences and at the end."""
    universal = path.suffix.lower() == _UNIVERSAL
    if universal and columns.delimiter is not None:
        tell(f"{path}: --delimiter has no effect on CoNLL-U, whose columns are separated by tabs")
    if universal and columns.quoting == "csv":
        tell(f"{path}: --quoting csv has no effect on CoNLL-U, where a quote is a character like others")
    separator = "\t" if universal else None if columns.delimiter is None else separator_of(columns.delimiter)
    quoted = not universal and is_quoted(path, columns.quoting)
    token_place, tag_place, width, number = 0, 0, 0, 0
    with opening(path) as file:
        for number, line in lines_of(file, str(path)):
            where = f"{path}:{number}"
            if "\r" in line.rstrip("\r"):
                raise BertwrightError(
                    f"{where}: a carriage return stands inside the line; save the file with a line feed at the "
                    "end of each line"
                )
            if not line.strip(_BLANKS + (separator or "")):
                yield number, None
                continue
            if line.startswith(DOCUMENT):
                yield number, None
                continue
            if universal and line.startswith("#"):
                continue
            if not width and separator is None:
                separator = _separator_in(line, columns, quoted)
                quoted = quoted and separator is not None
            cells = _cells(line, separator, quoted, where)
            if quoted and (not any(cells) or cells[0].startswith(DOCUMENT)):
                yield number, None
                continue
            if not width:
                width = len(cells)
                if header := _has_header(columns, cells, where):
                    columns = dataclasses.replace(columns, names=tuple(cells))
                token_place, tag_place = _places(columns, width, universal, where)
                if header:
                    continue
            elif len(cells) != width:
                hint = (
                    "; quotes are taken literally here, see --quoting" if '"' in line and not (quoted or universal) else ""
                )
                raise BertwrightError(
                    f"{where}: {len(cells)} columns where {width} are expected, as in the lines before; they are "
                    f"separated by {'blanks' if separator is None else repr(separator)}, see --delimiter{hint}"
                )
            if universal and not cells[0].isdecimal():
                continue  # a word that the next lines take apart, or one that is not in the text
            if number == 1:
                _refuse_header(columns, cells, token_place, tag_place, where)
            word, tag = cells[token_place], cells[tag_place].strip()
            if not word or (columns.labelled and not tag):
                raise BertwrightError(f"{where}: the {'tag' if word else 'word'} is missing; fill it in")
            yield number, (_cleaned(word, columns, where, notices), tag)
    yield number, None


def _separator_in(line: str, columns: TagColumns, quoted: bool) -> str | None:
    """What separates the columns of a file by its first line with a word; None: blanks, where no quotes are."""
    if "\t" in line.strip(_BLANKS):
        return "\t"
    if quoted and "," in line.strip(_BLANKS + ","):  # a comma at an end may be a word
        return ","
    return "\t" if columns.quoting == "csv" else None


def _cells(line: str, separator: str | None, quoted: bool, where: str) -> list[str]:
    if separator is None:
        return _WIDE_SPACES.split(line.strip(_BLANKS))
    line = line.rstrip(_BLANKS if separator == "\t" else " ")
    try:
        cells = next(csv.reader([line], delimiter=separator, strict=True)) if quoted else line.split(separator)
    except csv.Error as error:
        raise BertwrightError(
            f"{where}: cannot read this row: {error}; a field in quotes ends in its line here, see --quoting and --delimiter"
        ) from None
    # A blank may be a word of its own, between two tabs.
    return [cell.strip(_BLANKS) or cell for cell in cells]


def _has_header(columns: TagColumns, cells: Sequence[str], where: str) -> bool:
    """Whether the first line with a word is a header: it holds a name that is given for a column.

    Raises:
        BertwrightError: it holds it twice.
    """
    if columns.names:
        return False
    # Where only words are wanted, the first of them may happen to be called as the column of tags was.
    places = ((columns.token, cells), (columns.tag, cells if columns.labelled else cells[1:]))
    names = [name for name, among in places if name is not None and not name.isdecimal() and name in among]
    for name in names:
        if cells.count(name) > 1:
            raise BertwrightError(f"{where}: the header has two columns {name!r}; give each its own name")
    return bool(names)


def _refuse_header(columns: TagColumns, cells: Sequence[str], token_place: int, tag_place: int, where: str) -> None:
    """Raise BertwrightError for the first line of a file if it is a header that nobody asked for."""
    heads = [cell.lower() for cell in cells]
    if not (heads[token_place] in _WORD_HEADS or (columns.labelled and heads[tag_place] in _TAG_HEADS)):
        return
    words = [number for number, head in enumerate(heads) if head in _WORD_HEADS]
    if words and not _TAG_HEADS.isdisjoint(heads):
        token = token_place if token_place in words else words[0]
        how = f"--token-column {shlex.quote(cells[token])}"
        if columns.labelled:
            how += f" --tag-column {shlex.quote(cells[tag_place])}"
        raise BertwrightError(
            f"{where}: {', '.join(map(repr, cells))[:200]} look like a header; name the columns with {how}"
            f"{', without --columns' if columns.names else ''} (the line is then taken as the header), or delete the line; "
            "if it is a word, put an empty line before it"
        )


def _places(columns: TagColumns, width: int, universal: bool, where: str) -> tuple[int, int]:
    if columns.names and len(columns.names) != width:
        raise BertwrightError(f"{where}: {width} columns, but --columns names {len(columns.names)}: give each its name")
    token_place = _place(columns.token, "--token-column", 2 if universal else 1, columns.names, width, where)
    if not columns.labelled:
        return token_place, token_place
    tag_place = _place(columns.tag, "--tag-column", 4 if universal else width, columns.names, width, where)
    if tag_place == token_place:
        raise BertwrightError(
            f"{where}: column {tag_place + 1} of {width} would hold both words and tags; "
            "see --token-column, --tag-column and --delimiter"
        )
    return token_place, tag_place


def _place(given: str | None, option: str, default: int, names: Sequence[str], width: int, where: str) -> int:
    if given is not None and given in names:
        return names.index(given)
    number = default if given is None else int(given) if given.isdecimal() else 0
    if not 1 <= number <= width:
        known = f", or one of {', '.join(names)}" if names else "; names are given with --columns or by a header"
        raise BertwrightError(f"{where}: {option} is {given or default!r}; use a number from 1 to {width}{known}")
    return number - 1


# ---------------------------------------------------------------------------------------------------------- JSON lines


def _object_sentences(path: Path, columns: TagColumns, notices: _Notices) -> Iterator[TaggedExample]:
    for where, row in read_objects(path):
        read = _of_tokens if (columns.token or "tokens") in row else _of_text
        example = read(row, columns, where, notices)
        if example.places or not columns.labelled:
            yield example
        else:
            notices.add(_NO_WORDS, where, example.text)


def _of_tokens(row: Mapping[str, Any], columns: TagColumns, where: str, notices: _Notices) -> TaggedExample:
    words = _names(row[columns.token or "tokens"], "tokens", where)
    words = [_cleaned(word, columns, where, notices) for word in words]
    if not columns.labelled:
        return TaggedExample.of_words(words, where)
    tags = _names(_field(row, columns.tag or "tags", where), "tags", where)
    if len(tags) != len(words):
        raise BertwrightError(f"{where}: {len(words)} tokens but {len(tags)} tags; each token needs its own")
    return TaggedExample.of_words(words, where, tags)


def _of_text(row: Mapping[str, Any], columns: TagColumns, where: str, notices: _Notices) -> TaggedExample:
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
