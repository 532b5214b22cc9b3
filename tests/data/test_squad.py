"""Questions from SQuAD's JSON and JSON lines: answers in their places, and every mistake in one line."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertwright.data.squad import Answer, QuestionExample, read_questions
from bertwright.errors import BertwrightError, BertwrightWarning

CONTEXT = "The cat sat on the mat. The dog sat  on the log."


def squad(*questions: dict[str, Any], context: str = CONTEXT) -> dict[str, Any]:
    return {"version": "1.1", "data": [{"title": "Pets", "paragraphs": [{"context": context, "qas": list(questions)}]}]}


def question(id: str = "a", *answers: tuple[str, Any], **more: Any) -> dict[str, Any]:
    listed = [{"text": text, "answer_start": start} for text, start in answers]
    return {"id": id, "question": "Who sat?", "answers": listed} | more


def written(folder: Path, content: Any, name: str = "q.json") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return path


def read(path: Path, *, labelled: bool = True) -> list[QuestionExample]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return list(read_questions(path, labelled=labelled))


def refused(path: Path, *, labelled: bool = True) -> str:
    with pytest.raises(BertwrightError) as caught:
        list(read_questions(path, labelled=labelled))
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message.removeprefix(str(path))


def test_squad_json_comes_with_place_title_and_all_answers(tmp_path: Path) -> None:
    file = written(tmp_path, squad(question("a", ("cat", 4), ("The cat", 0)), question("b", is_impossible=True)))
    first, second = read(file)
    assert first == QuestionExample(
        where=f"{file}: data[0].paragraphs[0].qas[0] (a)",
        question="Who sat?",
        context=CONTEXT,
        answers=(Answer("cat", (4, 7)), Answer("The cat", (0, 7))),
        id="a",
        title="Pets",
    )
    assert second.answers == ()
    assert second.is_impossible
    assert not first.is_impossible
    assert first.context is second.context  # one string, encoded once


def test_json_lines_of_three_kinds_say_the_same(tmp_path: Path) -> None:
    listed = question("a", ("cat", 4)) | {"context": CONTEXT}
    hub = listed | {"answers": {"text": ["cat"], "answer_start": [4]}}
    bare = {"question": "Who sat?", "context": CONTEXT, "answers": [{"text": "dog"}]}
    lines = "\n".join(json.dumps(row) for row in (listed, hub | {"id": 7}, listed | {"id": "c", "answers": []}))
    first, second, third = read(written(tmp_path, lines, "q.jsonl"))
    assert first.answers == second.answers == (Answer("cat", (4, 7)),)
    assert (first.id, second.id) == ("a", "7")
    assert first.where.endswith("q.jsonl:1")
    assert third.is_impossible
    (found,) = read(written(tmp_path, json.dumps(bare), "bare.jsonl"))
    assert found.answers == (Answer("dog", (28, 31)),)
    assert found.id is None


def test_answers_are_not_looked_for_unless_they_are_wanted(tmp_path: Path) -> None:
    file = written(tmp_path, {"question": "Who?", "context": "x", "answers": 3}, "q.jsonl")
    (example,) = read(file, labelled=False)
    assert example.answers is None
    assert example.answer is None
    assert not example.is_impossible


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=60), st.data())
@settings(max_examples=60, deadline=None)
def test_every_answer_of_any_text_that_stands_where_it_says_is_taken_as_it_is(
    tmp_path_factory: pytest.TempPathFactory, context: str, data: st.DataObject
) -> None:
    begin = data.draw(st.integers(0, len(context) - 1))
    end = data.draw(st.integers(begin + 1, len(context)))
    if not context[begin:end].strip():
        return
    file = written(tmp_path_factory.mktemp("q"), squad(question("a", (context[begin:end], begin)), context=context))
    (example,) = read(file)
    assert example.answers == (Answer(context[begin:end], (begin, end)),)
    assert example.answer == [[context[begin:end], (begin, end)]]


@pytest.mark.parametrize(
    ("text", "start", "place"),
    [
        ("dog", 30, (28, 31)),  # once in the context
        ("sat on the log", 32, (32, 47)),  # with other white space
        (" cat ", 3, (3, 8)),  # as it stands
        ("cat  ", 4, (4, 7)),
        ("sat", 9, (8, 11)),  # twice, and both near
        ("sat", 20, None),  # twice, and both as near
        ("cow", 4, None),
        ("DOG", 28, None),
    ],
)
def test_an_answer_out_of_place_is_found_once_or_not_at_all_and_told(
    tmp_path: Path, text: str, start: int | None, place: tuple[int, int] | None
) -> None:
    file = written(tmp_path, squad(question("a", (text, start))))
    if text == " cat ":
        assert read(file)[0].answers == (Answer(text, place),)
        return
    counted = "1 were found elsewhere in their context, 0" if place else "0 were found elsewhere in their context, 1"
    with pytest.warns(BertwrightWarning, match=f"1 answers do not stand where answer_start says: {counted}"):
        (example,) = read_questions(file, labelled=True)
    assert example.answers == (Answer(text, place),)


@pytest.mark.parametrize("start", [None, -1])
@pytest.mark.parametrize(("text", "place"), [("dog", (28, 31)), ("sat", None), ("cow", None)])
def test_an_answer_without_a_place_has_the_only_one_that_there_is(
    tmp_path: Path, start: int | None, text: str, place: tuple[int, int] | None
) -> None:
    file = written(tmp_path, squad(question("a", (text, start))))
    if place:
        assert read(file)[0].answers == (Answer(text, place),)
        return
    with pytest.warns(BertwrightWarning, match="1 answers without answer_start stand nowhere in their context, or more"):
        (example,) = read_questions(file, labelled=True)
    assert example.answers == (Answer(text, None),)


def test_of_two_places_the_one_nearby_is_taken(tmp_path: Path) -> None:
    context = "cat" + " " * 300 + "cat"
    with pytest.warns(BertwrightWarning):
        (example,) = read_questions(written(tmp_path, squad(question("a", ("cat", 280)), context=context)), labelled=True)
    assert example.answers == (Answer("cat", (303, 306)),)


def test_empty_contexts_are_told(tmp_path: Path) -> None:
    file = written(tmp_path, squad(question("a"), question("b"), context=" \n"))
    with pytest.warns(BertwrightWarning, match="2 questions have an empty context"):
        assert len(list(read_questions(file, labelled=True))) == 2


def test_chinese_answers_stand_by_character(tmp_path: Path) -> None:
    context = "《战国无双3》是由光荣和ω-force开发的战国无双系列的正统第三续作。"
    begin = context.index("光")
    (example,) = read(written(tmp_path, squad(question("DEV_0_QUERY_0", ("光荣和ω-force", begin)), context=context)))
    assert example.answers == (Answer("光荣和ω-force", (begin, begin + 10)),)


def test_a_byte_order_mark_and_line_breaks_of_any_kind_are_no_matter(tmp_path: Path) -> None:
    file = tmp_path / "q.json"
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps(squad(question("a", ("cat", 4))), indent=1).replace("\n", "\r\n").encode())
    assert len(read(file)) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (squad({"question": "?", "answers": []}), ": data[0].paragraphs[0].qas[0]: has no 'id'; SQuAD has one"),
        (squad({"id": "a", "answers": []}), ": data[0].paragraphs[0].qas[0] (a): the question is missing"),
        (squad({"id": "a", "question": "?", "answer": []}), ": data[0].paragraphs[0].qas[0] (a): has no 'answers'; did you"),
        (squad(question("a", ("", 0))), ": data[0].paragraphs[0].qas[0] (a): an answer is empty; where there is none"),
        (squad(question("a", ("cat", "4"))), ": data[0].paragraphs[0].qas[0] (a): answer_start is '4', not a whole number"),
        (squad(question("a", ("cat", True))), ": data[0].paragraphs[0].qas[0] (a): answer_start is True, not a whole"),
        (squad(question("a", (3, 4))), ": data[0].paragraphs[0].qas[0] (a): an answer's text is 3, not a text"),  # type: ignore[arg-type]
        (squad(question("a", ("cat", 4), is_impossible=True)), "is_impossible is true, but there are 1 answers; correct"),
        (squad(question("a", is_impossible=False)), "is_impossible is false, but there are 0 answers; correct"),
        (squad(question("a", is_impossible="false")), 'is_impossible is "false"; make it true or false, without quotes'),
        (squad(question("a", is_impossible=[2])), ": data[0].paragraphs[0].qas[0] (a): is_impossible is [2]; make it true"),
        (squad(question("a", answers=["cat"])), "answers must be a list of objects with 'text' and 'answer_start'"),
        (squad(question("a", answers={"text": ["x"]})), "answers must have as many 'text' as 'answer_start', both as lists"),
        (squad(question([1])), "the id is [1], not a text or a whole number"),  # type: ignore[arg-type]
        (squad(question(), context=3), ": data[0].paragraphs[0]: the context is 3, not a text"),  # type: ignore[arg-type]
        (squad(), ": the file has no questions; is it the right one?"),
        ({"dta": []}, ": has no 'data'; did you mean 'data'?; SQuAD's JSON is data > paragraphs > qas"),
        ([], ": has no 'data'; SQuAD's JSON is data > paragraphs > qas"),
        ({"data": [{"title": "x"}]}, ": data[0]: has no 'paragraphs'; SQuAD's JSON"),
        ({"data": [{"paragraphs": "x"}]}, ": data[0]: 'paragraphs' must be a list of objects"),
        ({"data": [{"paragraphs": [{"qas": []}]}]}, ": data[0].paragraphs[0]: the context is missing"),
        ('{"data": [\n{]}', ":2: not JSON: "),
        ('{"id": 1}\n{"id": 2}', ":2: not JSON: Extra data; a question a line is JSON lines: rename it to .jsonl"),
        ("[" * 100_000, ": not SQuAD's JSON: a number is too long, or it is nested too deeply"),
        ('{"data": ' + "1" * 5000 + "}", ": not SQuAD's JSON: a number is too long, or it is nested too deeply"),
        (json.dumps(squad(question("a", ("cat", 4)), context="half \ud800")), "the context holds an escape of half a char"),
    ],
)  # fmt: skip
def test_mistakes_in_squad_json_are_named_by_place(tmp_path: Path, content: Any, message: str) -> None:
    if isinstance(content, dict) and content == {"dta": []}:
        assert refused(written(tmp_path, content)) == message.replace("did you mean 'data'?; ", "did you mean 'dta'?; ")
        return
    assert message in refused(written(tmp_path, content))


def test_mistakes_in_json_lines_are_named_by_line(tmp_path: Path) -> None:
    good = json.dumps(question() | {"context": CONTEXT})
    assert refused(written(tmp_path, good + "\n{}", "q.jsonl")) == ":2: the question is missing"


@pytest.mark.parametrize("labelled", [True, False])
def test_questions_that_share_an_id_are_read_and_told_once(tmp_path: Path, labelled: bool) -> None:
    lines = "\n".join(json.dumps(question(id) | {"context": CONTEXT}) for id in ("a", "b", "a", "b", "a"))
    file = written(tmp_path, lines, "q.jsonl")
    with pytest.warns(BertwrightWarning) as told:
        examples = list(read_questions(file, labelled=labelled))
    assert [example.id for example in examples] == ["a", "b", "a", "b", "a"]
    assert [str(warning.message) for warning in told] == [
        f"{file}:3: the id 'a' is that of {file}:1 already, the first of 3 such questions; all are read, but the files "
        "of an evaluation that go by id (predictions.json, null_odds.json) cannot be written; give each its own"
    ]
    nested = written(tmp_path, squad(question(), question()))
    with pytest.warns(BertwrightWarning, match=r"qas\[1\] \(a\): the id 'a' is that of .*qas\[0\] \(a\) already"):
        assert len(list(read_questions(nested, labelled=labelled))) == 2


def test_files_that_are_not_there_or_of_another_kind(tmp_path: Path) -> None:
    assert refused(tmp_path / "no.json") == ": cannot be read: No such file or directory; is the name right?"
    assert refused(written(tmp_path, "x", "q.tsv")).startswith(": questions are read from .json (SQuAD's format), .jsonl")
    file = tmp_path / "latin.json"
    file.write_bytes('{"data": "é"}'.encode("latin-1"))
    assert refused(file) == ": byte 0xe9 at position 11 is not UTF-8; save the file as UTF-8"


@pytest.mark.shared_data
def test_the_published_files_are_read_without_a_word(shared: Path) -> None:
    examples = read(shared / "squad" / "v2.0-sample-dev.json")
    assert len(examples) == 2758
    assert sum(example.is_impossible for example in examples) == 1377
    for example in examples:
        for answer in example.answers or ():
            assert answer.place is not None
            assert example.context[answer.place[0] : answer.place[1]] == answer.text


def test_parquet_holds_what_json_lines_hold(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the parquet extra")
    import pyarrow

    answers = [{"text": ["cat"], "answer_start": [4]}, {"text": [], "answer_start": []}]
    rows = [{"id": str(n), "question": "Who?", "context": CONTEXT, "answers": given} for n, given in enumerate(answers)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "q.parquet")
    lines = written(tmp_path, "\n".join(json.dumps(row) for row in rows), "q.jsonl")
    found, same = read(tmp_path / "q.parquet"), read(lines)
    assert [(one.id, one.question, one.answers) for one in found] == [(one.id, one.question, one.answers) for one in same]
    assert found[0].answers == (Answer("cat", (4, 7)),)
    assert found[1].is_impossible
