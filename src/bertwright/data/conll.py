"""Read tagged sentences from CoNLL's columns: a word a line, its tag in another column, empty lines between sentences."""

from __future__ import annotations

import csv
import dataclasses
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from bertwright.data.delimited import check_names, is_quoted, separator_of
from bertwright.data.tag_columns import Notices, TagColumns, cleaned
from bertwright.data.tagged import TaggedExample
from bertwright.data.text_files import lines_of, opening, stray_return
from bertwright.errors import BertwrightError, tell

DOCUMENT = "-DOCSTART-"  # in the first column: a document begins, and the line is no word
_UNIVERSAL = ".conllu"  # of Universal Dependencies: comments, and words that stand for several
_LONG, _FEW = 150, 20  # words of a sentence, more than a file has on average; sentences, fewer than most have
_BLANKS = " \t"  # no other white space separates columns: it may be a word in some data
_WIDE_SPACES = re.compile(f"[{_BLANKS}]+")
# What headers call the columns of words and of tags.
_WORD_HEADS = frozenset({"word", "words", "token", "tokens", "form", "text"})
_TAG_HEADS = frozenset({"tag", "tags", "pos", "ner", "label", "labels", "chunk", "upos", "xpos"}) | frozenset(
    {"pos_tag", "pos_tags", "ner_tag", "ner_tags", "chunk_tag", "chunk_tags"}
)


def column_sentences(path: Path, columns: TagColumns, notices: Notices) -> Iterator[TaggedExample]:
    """Yield the sentences of a file in order; :func:`~bertwright.data.tag_files.read_tagged` says how columns are found.

    Raises:
        BertwrightError: the file is missing or not to be read, or a line is not like those before it (names the line).
    """
    words: list[str] = []
    tags: list[str] = []
    begin = seen = texts = sentences = 0
    for number, row in _word_lines(path, columns, notices):
        if row is not None:
            if not words:
                begin = number
            words.append(row[0])
            tags.append(row[1])
            seen, texts = seen + 1, texts + (" " in row[0])
        elif words:
            yield TaggedExample.of_words(words, f"{path}:{begin}", tags if columns.labelled else None)
            words, tags, sentences = [], [], sentences + 1
    if seen > _LONG * sentences and sentences < _FEW:
        tell(
            f"{path}: {seen:,} words in {sentences:,} {'sentences' if sentences > 1 else 'sentence'}; an empty line ends a "
            "sentence: are they missing?"
        )
    if texts >= 10 and 2 * texts > seen:
        tell(
            f"{path}: {texts:,} of {seen:,} words hold blanks; if each line is a text with its label, the task is "
            "classification; else name the column of words with --token-column"
        )


def _word_lines(path: Path, columns: TagColumns, notices: Notices) -> Iterator[tuple[int, tuple[str, str] | None]]:
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
                raise stray_return(where)
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
            yield number, (cleaned(word, columns, where, notices), tag)
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
        BertwrightError: it is one, and has a name twice.
    """
    if columns.names:
        return False
    # Where only words are wanted, the first of them may happen to be called as the column of tags was.
    places = ((columns.token, cells), (columns.tag, cells if columns.labelled else cells[1:]))
    names = [name for name, among in places if name is not None and not name.isdecimal() and name in among]
    check_names([cell for cell in cells if cell in names], f"{where}: the header", "give each its own name")
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
