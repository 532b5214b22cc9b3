"""Questions about paragraphs: SQuAD's JSON (Rajpurkar et al. 2016 and 2018; CMRC and DRCD have it too), and JSON lines.

Whatever a file gets wrong about its own structure is an error. An answer that does not stand where ``answer_start`` says
is looked for nearby instead, because published files have such answers; how many there were is told.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bertwright.data.readers import holds_objects, read_objects
from bertwright.errors import BertwrightError, did_you_mean, tell

NEARBY = 100  # characters, within which the nearest of several places is taken for the one that is meant


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, and its place ``begin : end`` in the context, in characters; ``None`` where it was not found."""

    text: str
    place: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class QuestionExample:
    """A question about a context. ``where`` names its file and place, for messages.

    ``answers`` is None where they were not looked for, and empty where the context holds no answer.
    """

    where: str
    question: str
    context: str
    answers: tuple[Answer, ...] | None = None
    id: str | None = None
    title: str | None = None

    @property
    def answer(self) -> list[Any] | None:
        """The answers with their places."""
        return None if self.answers is None else [[answer.text, answer.place] for answer in self.answers]

    @property
    def texts(self) -> list[str]:
        """The answers alone."""
        return [answer.text for answer in self.answers or ()]

    @property
    def is_impossible(self) -> bool:
        """Whether the context is known to hold no answer."""
        return self.answers == ()

    @property
    def characters(self) -> int:
        """How much text question and context hold."""
        return len(self.question) + len(self.context)


def read_questions(path: str | Path, *, labelled: bool) -> Iterator[QuestionExample]:
    """Yield the questions of a file in order: SQuAD JSON (.json), or a question a row (.jsonl, .ndjson, .parquet).

    A row has ``question``, ``context`` and, unless ``labelled`` is off, ``answers``: as in SQuAD a list of objects with
    ``text`` and ``answer_start``, or as the hub has them an object with both as lists. ``id``, ``title`` and
    ``is_impossible`` are optional. Questions that share an id are read, and told: only the official files go by it.

    Raises:
        BertwrightError: the file is missing, not to be read or empty, or something is not as it should be (names the
            place).
    """
    path = Path(path)
    rows: Iterable[_Row]
    if holds_objects(path):
        rows = ((where, row, row) for where, row in read_objects(path))
    elif path.suffix.lower() == ".json":
        rows = _squad(path)
    else:
        raise BertwrightError(
            f"{path}: questions are read from .json (SQuAD's format), .jsonl and .parquet files; rename or convert it"
        )
    reader = _Reader(labelled)
    for where, paragraph, row in rows:
        yield reader.question(where, paragraph, row)
    if not reader.places:
        raise BertwrightError(f"{path}: the file has no questions; is it the right one?")
    reader.tell(path)


@dataclass
class _Reader:
    labelled: bool
    places: int = 0
    ids: dict[str, str] = field(default_factory=dict)
    repeated: str = ""  # the first id that an earlier question has, and where
    counts: Counter[str] = field(default_factory=Counter)
    # One string for all questions of a paragraph, also where each line repeats it: it is then encoded once.
    contexts: dict[str, str] = field(default_factory=dict)

    def question(self, where: str, paragraph: Mapping[str, Any], row: Mapping[str, Any]) -> QuestionExample:
        self.places += 1
        id = self._id(where, row)
        question, context = _text(where, row, "question"), _text(where, paragraph, "context")
        context = self.contexts.setdefault(context, context)
        title = paragraph.get("title")
        answers = tuple(self._answers(where, row, context)) if self.labelled else None
        if not context.strip():
            self.counts["empty contexts"] += 1
        return QuestionExample(where, question, context, answers, id, None if title is None else str(title))

    def _id(self, where: str, row: Mapping[str, Any]) -> str | None:
        id = row.get("id")
        if id is None:
            return None
        if isinstance(id, bool) or not isinstance(id, str | int):
            raise BertwrightError(f"{where}: the id is {id!r}, not a text or a whole number")
        first = self.ids.setdefault(str(id), where)
        if first is not where:
            self.counts["repeated ids"] += 1
            self.repeated = self.repeated or f"{where}: the id {str(id)!r} is that of {first} already"
        return str(id)

    def _answers(self, where: str, row: Mapping[str, Any], context: str) -> Iterator[Answer]:
        if "answers" not in row:
            raise BertwrightError(f"{where}: has no 'answers'{did_you_mean('answers', row)}; an empty list says: none")
        given = row["answers"]
        if isinstance(given, dict):  # the hub's way: an object of lists
            texts, starts = given.get("text"), given.get("answer_start")
            if not (isinstance(texts, list) and isinstance(starts, list) and len(texts) == len(starts)):
                raise BertwrightError(f"{where}: answers must have as many 'text' as 'answer_start', both as lists")
            given = [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]
        if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
            raise BertwrightError(f"{where}: answers must be a list of objects with 'text' and 'answer_start'")
        impossible = row.get("is_impossible")
        if impossible not in (None, True, False):
            quotes = ", without quotes" if isinstance(impossible, str) else ""
            shown = json.dumps(impossible, ensure_ascii=False, default=str)
            raise BertwrightError(f"{where}: is_impossible is {shown:.60}; make it true or false{quotes}")
        if impossible is not None and impossible == bool(given):
            contradiction = f"is_impossible is {json.dumps(impossible)}, but there are {len(given)} answers"
            raise BertwrightError(f"{where}: {contradiction}; correct one of them")
        for one in given:
            text, start = _text(where, one, "text", "an answer's "), one.get("answer_start")
            if not text.strip():
                raise BertwrightError(f"{where}: an answer is empty; where there is none, leave the list of answers empty")
            if start is not None and (isinstance(start, bool) or not isinstance(start, int)):
                raise BertwrightError(f"{where}: answer_start is {start!r}, not a whole number of characters")
            yield Answer(text, self._place(text, start, context))

    def _place(self, text: str, start: int | None, context: str) -> tuple[int, int] | None:
        if start is not None and start < 0:  # what some files have for "not known"
            start = None
        if start is not None and context.startswith(text, start):
            return start, start + len(text)
        # Files differ from their own answers mostly by a few characters of place, or in white space.
        pattern = r"\s+".join(map(re.escape, text.split()))
        found = [match.span() for match in re.finditer(pattern, context)]
        if start is not None and len(found) > 1:
            apart = [abs(begin - start) for begin, _ in found]
            nearest = min(apart)
            found = [span for span, far in zip(found, apart, strict=True) if far == nearest <= NEARBY]
        place = found[0] if len(found) == 1 else None
        if start is not None:
            self.counts["moved" if place else "lost"] += 1
        elif place is None:
            self.counts["nowhere"] += 1
        return place

    def tell(self, path: Path) -> None:
        moved, lost, nowhere, empty = (self.counts[name] for name in ("moved", "lost", "nowhere", "empty contexts"))
        if nowhere:
            tell(
                f"{path}: {nowhere:,} answers without answer_start stand nowhere in their context, or more than once; they "
                "are measured by, but not trained on"
            )
        if moved or lost:
            tell(
                f"{path}: {moved + lost:,} answers do not stand where answer_start says: {moved:,} were found elsewhere in "
                f"their context, {lost:,} nowhere or more than once; what has no place is measured by, but not trained on"
            )
        if self.repeated:
            count = self.counts["repeated ids"]
            tell(
                f"{self.repeated}, the first of {count:,} such questions; all are read, but the files of an evaluation that "
                "go by id (predictions.json, null_odds.json) cannot be written; give each its own"
            )
        if empty:
            tell(f"{path}: {empty:,} questions have an empty context, in which there is nothing to find")


_Row = tuple[str, Mapping[str, Any], Mapping[str, Any]]


def _squad(path: Path) -> Iterator[_Row]:
    """Yield (place, paragraph with its article's title, question)."""
    whole = _json(path)
    for a, article in enumerate(_objects(whole, "data", str(path))):
        in_article = f"{path}: data[{a}]"
        for p, paragraph in enumerate(_objects(article, "paragraphs", in_article)):
            in_paragraph = f"{in_article}.paragraphs[{p}]"
            _text(in_paragraph, paragraph, "context")
            titled = {"title": article.get("title"), "context": paragraph["context"]}
            for q, question in enumerate(_objects(paragraph, "qas", in_paragraph)):
                if "id" not in question:
                    raise BertwrightError(
                        f"{in_paragraph}.qas[{q}]: has no 'id'{did_you_mean('id', question)}; SQuAD has one"
                    )
                yield f"{in_paragraph}.qas[{q}] ({question['id']})", titled, question


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise BertwrightError(f"{path}: cannot be read: {error.strerror or error}; is the name right?") from None
    except UnicodeDecodeError as error:
        bad = error.object[error.start]
        raise BertwrightError(
            f"{path}: byte 0x{bad:02x} at position {error.start + 1} is not UTF-8; save the file as UTF-8"
        ) from None
    except json.JSONDecodeError as error:
        hint = "; a question a line is JSON lines: rename it to .jsonl" if error.msg == "Extra data" else ""
        raise BertwrightError(f"{path}:{error.lineno}: not JSON: {error.msg}{hint}") from None
    except (ValueError, RecursionError):  # numbers of thousands of digits, objects within thousands of others
        raise BertwrightError(f"{path}: not SQuAD's JSON: a number is too long, or it is nested too deeply") from None


def _objects(holder: Any, name: str, where: str) -> list[Mapping[str, Any]]:
    if not isinstance(holder, dict) or name not in holder:
        close = did_you_mean(name, holder) if isinstance(holder, dict) else ""
        raise BertwrightError(f"{where}: has no {name!r}{close}; SQuAD's JSON is data > paragraphs > qas")
    inner = holder[name]
    if not isinstance(inner, list) or not all(isinstance(one, dict) for one in inner):
        raise BertwrightError(f"{where}: {name!r} must be a list of objects; SQuAD's JSON is data > paragraphs > qas")
    return inner


def _text(where: str, holder: Mapping[str, Any], name: str, owner: str = "the ") -> str:
    if name not in holder:
        raise BertwrightError(f"{where}: {owner}{name} is missing{did_you_mean(name, holder)}")
    text = holder[name]
    if not isinstance(text, str):
        raise BertwrightError(f"{where}: {owner}{name} is {text!r:.60}, not a text")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BertwrightError(f"{where}: {owner}{name} holds an escape of half a character (\\ud800 to \\udfff)") from None
    return text
