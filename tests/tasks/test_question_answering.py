"""Question answering: loss and models against `transformers`, targets, thresholds, and a whole run on a tiny model."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from torch.distributions import Categorical, kl_divergence

import bertwright as bw
import command_line
from bertwright.data.inputs import Inputs
from bertwright.data.question_windows import encode_questions
from bertwright.data.squad import Answer, QuestionExample
from bertwright.errors import BertwrightError, BertwrightWarning
from bertwright.merging import merged
from bertwright.predictor import Predictor
from bertwright.tasks.question_answering import CERTAIN, FEW_QUESTIONS, QuestionAnswering, span_losses, targets
from bertwright.tokenizer import Tokenizer
from bertwright.training.recipe import Recipe
from tiny_model import GOOD, PLAIN

TASK = "question-answering"
# Settings with which the tiny model learns the questions below in a moment.
QUICK: dict[str, Any] = {
    "task": TASK, "batch_size": 8, "epochs": 3, "learning_rate": 1e-2, "max_length": 40, "stride": 8, "threads": 1,
}  # fmt: skip


def asked(count: int, seed: int, *, unanswerable: float = 0.3) -> list[dict[str, Any]]:
    """Paragraphs of plain words, the one good word of which is the answer; two questions on each."""
    draw = random.Random(seed)
    paragraphs = []
    for number in range(count // 2):
        words = draw.choices(PLAIN, k=draw.randint(3, 45))
        begin = draw.randrange(len(words))
        impossible = draw.random() < unanswerable
        if not impossible:
            words[begin] = draw.choice(GOOD)
        start = len(" ".join([*words[:begin], ""]))
        answers = [] if impossible else [{"text": words[begin], "answer_start": start}]
        two = [{"id": f"{seed}-{number}-{n}", "question": "what was so good", "answers": answers} for n in range(2)]
        paragraphs.append({"context": " ".join(words), "qas": two})
    return paragraphs


def write_squad(path: Path, paragraphs: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps({"data": [{"title": "words", "paragraphs": paragraphs}]}))
    return path


@pytest.fixture(scope="module")
def tokenizer(tiny_dir: Path) -> Tokenizer:
    return Tokenizer.from_directory(tiny_dir)


@pytest.fixture(scope="module")
def run(tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> bw.Run:
    folder = tmp_path_factory.mktemp("qa")
    train, test = write_squad(folder / "train.json", asked(160, 0)), write_squad(folder / "test.json", asked(60, 1))
    options = QUICK | {"model": tiny_dir, "train": train, "test": test, "out": folder / "model"}
    return bw.finetune(options, console=Console(quiet=True))


@pytest.fixture(scope="module")
def model(run: bw.Run) -> Predictor:
    return bw.load(run.out, device="cpu", threads=1)


def example(context: str, *answers: tuple[str, tuple[int, int] | None], question: str = "what was") -> QuestionExample:
    return QuestionExample("here", question, context, tuple(Answer(*answer) for answer in answers))


def encode(tokenizer: Tokenizer, *examples: QuestionExample, max_length: int = 24) -> Inputs:
    return encode_questions(tokenizer, list(examples), max_length=max_length, stride=4, question_length=8)


def test_contexts_without_a_word_can_be_judged(model: Predictor) -> None:
    assert model.task.threshold is not None  # type: ignore[attr-defined]
    rows = [example(""), example("\u200b"), example("", ("good", None))]
    found = model.evaluate(rows).metrics
    assert found["exact_match"] == found["f1"] == pytest.approx(2 / 3)
    assert found["best_threshold"] == 0
    assert model.task.tuned(model.outputs(model.encode(rows)), model.encode(rows)).threshold == 0  # type: ignore[attr-defined]


def test_answers_that_are_parts_of_words_are_counted(tokenizer: Tokenizer) -> None:
    inputs = encode(tokenizer, example("so goodx it is", ("good", (3, 7))), example("a good day", ("good", (2, 6))))
    assert QuestionAnswering(None, 8).describe(inputs).endswith("; 1 answers are parts of words, and trained as the whole")
    assert "parts" not in QuestionAnswering(None, 8).describe(encode(tokenizer, example("a good day", ("good", (2, 6)))))


# ------------------------------------------------------------------------------------------------------- loss and model


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 1000), st.sampled_from([1.0, 1e3]))
def test_losses_of_windows_end_to_end_are_cross_entropies_of_each(lengths: list[int], seed: int, scale: float) -> None:
    random = np.random.default_rng(seed)
    logits_R2 = torch.tensor(random.normal(size=(sum(lengths), 2)) * scale, requires_grad=True)
    targets_B2 = random.integers(0, np.array(lengths)[:, None], (len(lengths), 2))
    losses_B = span_losses(logits_R2, np.array(lengths, dtype=np.int32), targets_B2)
    parts = torch.split(logits_R2, lengths)
    wanted = torch.stack(
        [F.cross_entropy(part.T, torch.from_numpy(target)) for part, target in zip(parts, targets_B2, strict=True)]
    )
    torch.testing.assert_close(losses_B, wanted)
    (gradient,) = torch.autograd.grad(losses_B.sum(), logits_R2)
    (expected,) = torch.autograd.grad(wanted.sum(), logits_R2)
    torch.testing.assert_close(gradient, expected)


def outputs_and_loss(predictor: Predictor, inputs: Inputs) -> tuple[np.ndarray[Any, Any], float]:
    outputs = predictor.outputs(inputs)
    return outputs, predictor.task.loss(inputs, np.ones(2)).mean(outputs)


def assert_same(oracle: Any, predictor: Predictor) -> None:
    """Compare logits and loss of every window, each by itself: in a padded batch the oracle's loss counts padding too."""
    inputs = predictor.encode([example("the film was good and the day was so so", ("good", (13, 17))), example("a day")])
    outputs, loss = outputs_and_loss(predictor, inputs)
    targets_W2, _ = targets(inputs)
    losses = []
    for w, (begin, end) in enumerate(itertools.pairwise(inputs.table.starts)):
        found = oracle(
            input_ids=torch.tensor(inputs.table.input_ids[None, begin:end].astype(np.int64)),
            token_type_ids=torch.tensor(inputs.table.token_type_ids[None, begin:end].astype(np.int64)),
            start_positions=torch.tensor(targets_W2[w, :1]),
            end_positions=torch.tensor(targets_W2[w, 1:]),
        )
        logits = torch.stack([found.start_logits[0], found.end_logits[0]], 1).detach().numpy()
        np.testing.assert_allclose(outputs[begin:end], logits, atol=1e-5)
        losses.append(float(found.loss.detach()))
    assert loss == pytest.approx(np.mean(losses), abs=1e-5)


def test_transformers_opens_what_was_trained_here(run: bw.Run, model: Predictor) -> None:
    oracle, report = transformers.AutoModelForQuestionAnswering.from_pretrained(run.out, output_loading_info=True)
    assert type(oracle).__name__ == "BertForQuestionAnswering"
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert_same(oracle.eval(), model)


def test_what_transformers_saved_opens_here(tiny_dir: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    torch.manual_seed(0)
    oracle = transformers.BertForQuestionAnswering.from_pretrained(tiny_dir).eval()
    oracle.save_pretrained(tmp_path)
    tokenizer.save(tmp_path, max_length=48)
    found = bw.load(tmp_path, device="cpu", threads=1)
    assert found.recipe.task == TASK
    assert found.task == QuestionAnswering()
    assert_same(oracle, found)
    (answer,) = found.predict("what was so", "the film was good")
    assert "the film was good"[answer["start"] : answer["end"]] == answer["predicted"] != ""


# -------------------------------------------------------------------------------------------------------------- targets


def test_targets_are_the_answers_whole_words_in_the_windows_that_show_them(tokenizer: Tokenizer) -> None:
    context = "was " * 20 + "the catx and so"
    begin = context.index("atx")
    inputs = encode(tokenizer, example(context, ("nowhere", None), ("at", (begin, begin + 2))), example("the day"))
    targets_W2, weight_W = targets(inputs)
    shown = [w for w in range(int(inputs.starts[1])) if targets_W2[w].any()]
    assert shown
    assert len(shown) < inputs.starts[1]
    for w in shown:
        ids = inputs.table.input_ids[inputs.table.starts[w] : inputs.table.starts[w + 1]]
        assert "".join(tokenizer.tokens(ids[targets_W2[w, 0] : targets_W2[w, 1] + 1].tolist())).replace("##", "") == "catx"
    assert targets_W2[-1].tolist() == [0, 0]  # no answer: [CLS]
    assert weight_W.tolist() == [1.0] * len(inputs.table)


def test_answers_without_a_place_are_measured_by_but_not_trained_on(tokenizer: Tokenizer) -> None:
    task = QuestionAnswering()
    lost, found = example("the day was so", ("night", None)), example("the day was so", ("day", (4, 7)))
    inputs, alone = encode(tokenizer, lost, found), encode(tokenizer, found)
    outputs = np.random.default_rng(0).normal(size=(inputs.table.tokens, 2))
    loss = task.loss(inputs, np.ones(2))
    assert loss.weight_U.tolist() == [0, 1]
    same = task.loss(alone, np.ones(2)).mean(outputs[inputs.table.starts[1] :])
    assert loss.mean(outputs) == pytest.approx(same)
    assert task.loss(encode(tokenizer, lost), np.ones(2)).mean(outputs[: inputs.table.starts[1]]) == 0.0


def test_questions_with_and_without_an_answer_can_weigh_differently(tokenizer: Tokenizer) -> None:
    task = QuestionAnswering(0.0)
    day, so = example("the day was so", ("day", (4, 7))), example("so it was", ("so", (0, 2)))
    none = example("the cat is here and so on " * 4)  # several windows
    lost = example("the day was so", ("night", None))  # of no weight, so that it counts for neither
    parts = [encode(tokenizer, one) for one in (day, none, so)]
    inputs = encode(tokenizer, day, none, lost, so)
    balanced = task.class_weights("balanced", inputs)
    weight_U = task.loss(inputs, balanced).weight_U
    windows = inputs.counts
    assert weight_U[windows[0] : windows[:2].sum()].sum() == pytest.approx(weight_U.sum() / 2)
    assert task.class_weights("no-answer=2", inputs).tolist() == [1, 2]
    with pytest.warns(BertwrightWarning, match="balanced has no effect: no training question is of the kind 'no-answer'"):
        assert task.class_weights("balanced", encode(tokenizer, day)).tolist() == [1, 1]
    with pytest.raises(
        BertwrightError, match=r"--class-weights: no class 'none'; did you mean 'no-answer'\? \(classes: answer, no-answer\)"
    ):
        task.class_weights("none=2", None)
    inputs = encode(tokenizer, day, none, so)
    outputs = np.random.default_rng(0).normal(size=(inputs.table.tokens, 2))
    each = np.split(outputs, np.cumsum([part.table.tokens for part in parts])[:-1])
    windows = np.array([len(part.table) for part in parts])
    assert windows[1] > 1
    losses = [task.loss(part, np.ones(2)).mean(own) for part, own in zip(parts, each, strict=True)]
    expected = np.average(losses, weights=windows * [0.5, 3, 0.5])
    assert task.loss(inputs, np.array([0.5, 3.0])).mean(outputs) == pytest.approx(expected)


def test_two_passes_lie_apart_by_the_divergences_of_each_window(tokenizer: Tokenizer) -> None:
    found, other = example("the day was so", ("day", (4, 7))), example("so it was the day and so", ("so", (0, 2)))
    lost = example("the day was so", ("night", None))
    inputs = encode(tokenizer, found, lost, other)
    divergence = QuestionAnswering().loss(inputs, np.ones(2)).divergence
    assert divergence is not None
    random = np.random.default_rng(0)
    one, two = (torch.from_numpy(random.normal(size=(inputs.table.tokens, 2))) for _ in range(2))
    ones, twos = (torch.split(logits, inputs.table.lengths.tolist()) for logits in (one, two))
    apart = []
    for first_L2, second_L2 in zip(ones, twos, strict=True):
        first, second = Categorical(logits=first_L2.T), Categorical(logits=second_L2.T)  # of the beginning and of the end
        apart.append((kl_divergence(first, second) + kl_divergence(second, first)).mean() / 2)
    assert len(apart) == 3
    torch.testing.assert_close(divergence(one, two, np.arange(3)), apart[0] + apart[2])  # none is trained on the lost one
    last, before = (torch.cat([parts[2], parts[0]]) for parts in (ones, twos))
    torch.testing.assert_close(divergence(last, before, np.array([2, 0])), apart[0] + apart[2])


def test_a_step_of_windows_without_weight_changes_nothing_and_goes_on(tiny_dir: Path, tmp_path: Path) -> None:
    paragraphs = asked(12, 3, unanswerable=0)
    for paragraph in paragraphs[1:]:
        for one in paragraph["qas"]:
            one["answers"] = [{"text": "nowhere", "answer_start": 0}]
    train = write_squad(tmp_path / "train.json", paragraphs)
    test = write_squad(tmp_path / "test.json", asked(4, 4, unanswerable=0))
    options = QUICK | {"model": tiny_dir, "train": train, "validation": test, "out": tmp_path / "m", "epochs": 1}
    with pytest.warns(BertwrightWarning, match="10 answers do not stand where answer_start says"):
        run = bw.finetune(options, batch_size=1, console=Console(quiet=True))
    steps = [json.loads(line) for line in (run.out / "history.jsonl").read_text().splitlines()]
    losses = [step["loss"] for step in steps if step["kind"] == "step"]
    assert 0 < sum(loss == 0 for loss in losses) < len(losses)


def test_training_without_any_answer_is_refused() -> None:
    with pytest.raises(BertwrightError, match="here: none of the 2 training questions has an answer that stands"):
        QuestionAnswering.learn([example("a day"), example("the day", ("x", None))], Recipe())


def test_whether_questions_without_an_answer_are_known_is_learned() -> None:
    answered = example("the day", ("day", (4, 7)))
    assert QuestionAnswering.learn([answered], Recipe(answer_length=7)) == QuestionAnswering(None, 7)
    learned = QuestionAnswering.learn([answered, example("the day")], Recipe(answer_length=7))
    assert (learned.threshold, learned.answer_length) == (0.0, 7)
    config = json.loads(json.dumps(learned.to_config()))
    again = QuestionAnswering.from_config(config, "config.json")
    assert (again.threshold, again.answer_length) == (0.0, 7)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("no_answer_threshold", "0", "c.json: no_answer_threshold is '0'; make it a number or null"),
        ("no_answer_threshold", True, "c.json: no_answer_threshold is True; make it a number or null"),
        ("max_answer_length", 0, "c.json: max_answer_length is 0; make it a whole number of tokens"),
        ("max_answer_length", 1.5, "c.json: max_answer_length is 1.5; make it a whole number of tokens"),
    ],
)
def test_a_damaged_config_is_refused(field: str, value: Any, message: str) -> None:
    with pytest.raises(BertwrightError) as caught:
        QuestionAnswering.from_config({field: value}, "c.json")
    assert str(caught.value) == message


# ------------------------------------------------------------------------------------------------------------ decisions


def test_the_threshold_is_tuned_and_decides(tokenizer: Tokenizer) -> None:
    questions = [example("the day", ("day", (4, 7))), example("the cat"), example("the film", ("film", (4, 8))), example("")]
    inputs = encode(tokenizer, *questions)
    outputs = np.zeros((inputs.table.tokens, 2))
    for w, null in enumerate((3.0, 9.0, 5.0, 0.0)):
        outputs[inputs.table.starts[w]] = null / 2, null / 2
        if w < 3:
            outputs[inputs.table.starts[w + 1] - 2] = 1, 1  # the last word
    untuned = QuestionAnswering(0.0)
    assert untuned.scores(outputs, inputs) == {"f1": 0.5, "exact_match": 0.5}
    tuned = untuned.tuned(outputs, inputs)
    assert tuned.threshold == 5.0  # between margins of 3 and 7
    assert tuned.scores(outputs, inputs) == {"f1": 1.0, "exact_match": 1.0}
    records = tuned.decode(outputs, inputs)
    assert [record["predicted"] for record in records] == ["day", "", "film", ""]
    assert [record["no_answer"]["margin"] for record in records] == [1.0, 7.0, 3.0, None]
    assert records[1]["runners_up"][0]["text"] == "cat"
    assert records[0]["runners_up"][0]["text"] != "day"
    assert (records[1]["start"], records[1]["end"]) == (None, None)
    for record in records[:3]:
        assert 0 < record["probability"] < 1
    measured = untuned.measure(outputs, inputs, "f1")
    assert (measured["threshold"], measured["best_threshold"], measured["best_f1"]) == (0.0, 5.0, 1.0)
    assert measured["windows"] == 4

    always = QuestionAnswering(None)
    assert always.tuned(outputs, inputs) is always
    assert always.scores(outputs, inputs) == {"f1": 0.75, "exact_match": 0.75}
    assert [record["predicted"] for record in always.decode(outputs, inputs)] == ["day", "cat", "film", ""]
    answerable = encode(tokenizer, questions[0])
    assert untuned.tuned(outputs[: answerable.table.tokens], answerable) is untuned


def test_accents_that_follow_a_letter_stay_with_it(tokenizer: Tokenizer) -> None:
    text = "the cafe\u0301 day"
    inputs = encode(tokenizer, example(text))
    outputs = np.zeros((inputs.table.tokens, 2))
    window = inputs.details[0]
    first, last = window.context.tokens_of((4, 8))
    outputs[window.prefix + first, 0] = outputs[window.prefix + last, 1] = 9
    assert QuestionAnswering().decode(outputs, inputs)[0]["predicted"] == "cafe\u0301"


def test_validation_shares_no_paragraph_with_training() -> None:
    examples = [example(f"context {n // 3}") for n in range(60)]
    inside, aside, how = QuestionAnswering.split(examples, 0.2, 0)
    assert sorted(inside + aside) == list(range(60))
    assert len(aside) == 12
    assert not {examples[i].context for i in inside} & {examples[i].context for i in aside}
    assert how == "in whole paragraphs"


def test_official_files_need_ids(run: bw.Run) -> None:
    task = QuestionAnswering(1.0)
    records = [
        {"id": "a", "predicted": "x", "no_answer": {"margin": 0.5}},
        {"id": "b", "predicted": "", "no_answer": {"margin": None}},
    ]
    files = task.files(records)
    assert json.loads(files["predictions.json"] or "") == {"a": "x", "b": ""}
    assert json.loads(files["null_odds.json"] or "") == {"a": 0.5, "b": CERTAIN}
    assert QuestionAnswering().files(records) == files | {"null_odds.json": None}
    assert set(task.files([*records, {"predicted": "y"}]).values()) == {None}
    assert set(task.files([*records, records[0] | {"predicted": "y"}]).values()) == {None}


# ------------------------------------------------------------------------------------------------------------ whole runs


def test_a_run_learns_tunes_measures_and_is_written(run: bw.Run, model: Predictor) -> None:
    assert run.metrics["test"]["f1"] > 0.8
    assert {"answerable", "unanswerable", "by_answer_length", "threshold"} <= run.metrics["test"].keys()
    task = model.task
    assert isinstance(task, QuestionAnswering)
    assert task.threshold == run.metrics["validation"]["threshold"] == run.metrics["validation"]["best_threshold"]
    records = [json.loads(line) for line in (run.out / "test" / "predictions.jsonl").read_text().splitlines()]
    official = json.loads((run.out / "test" / "predictions.json").read_text())
    assert official == {record["id"]: record["predicted"] for record in records}
    assert len(official) == 60
    assert (run.out / "test" / "answers.png").exists()
    assert {"id", "question", "title", "true", "predicted", "start", "end", "runners_up", "no_answer"} <= records[0].keys()
    assert '"a question" --pair "its context"' in (run.out / "README.md").read_text()


def test_the_command_line_and_python_give_the_same_digits(run: bw.Run, model: Predictor, tmp_path: Path) -> None:
    test = run.out.parent / "test.json"
    again = model.evaluate(test)
    assert json.loads(json.dumps(again.metrics)) == json.loads((run.out / "test" / "metrics.json").read_text())
    result = command_line.run("evaluate", run.out, test, "--out", tmp_path / "e", "--threads", 1)
    assert result.code == 0, result
    assert "unanswerable" in result.out
    for name in ("metrics.json", "predictions.json", "null_odds.json", "predictions.jsonl"):
        assert (tmp_path / "e" / name).read_bytes() == (run.out / "test" / name).read_bytes()

    question, context = "what was so good", "the film was kind and so was the day"
    (answer,) = model.predict(question, context)
    assert context[answer["start"] : answer["end"]] == answer["predicted"]
    said = command_line.run("predict", run.out, question, "--pair", context, "--threads", 1)
    assert json.loads(said.out) == answer
    stream = f"{question}\t{context}\nno tab\n\t{context}\n".encode()
    streamed = [json.loads(line) for line in command_line.run("predict", run.out, "-", stdin=stream).out.splitlines()]
    assert streamed[0] == answer
    assert [record["predicted"] for record in streamed[1:]] == [None, None]
    assert [record["skipped"] for record in streamed[1:]] == ["no tab between two texts", "empty"]

    unlabelled = tmp_path / "questions.jsonl"
    unlabelled.write_text(json.dumps({"id": 3, "question": question, "context": context}) + "\n")
    said = command_line.run("predict", run.out, "--input", unlabelled, "--format", "csv", "--threads", 1)
    header, row = said.out.splitlines()
    assert header == "id,question,predicted,start,end,score,probability,no-answer margin,skipped,cut"
    assert row.startswith(f"3,{question},{answer['predicted']},{answer['start']},{answer['end']},")


@pytest.mark.usefixtures("plotless")
def test_questions_that_share_an_id_are_trained_on_measured_and_answered(tiny_dir: Path, tmp_path: Path) -> None:
    train, test = write_squad(tmp_path / "train.json", asked(40, 0) * 2), write_squad(tmp_path / "t.json", asked(8, 1) * 2)
    options = QUICK | {"model": tiny_dir, "train": train, "test": test, "out": tmp_path / "run", "steps": 2}
    with pytest.warns(BertwrightWarning) as told:
        run = bw.finetune(options, console=Console(quiet=True))
    shared = [str(warning.message) for warning in told if "the id" in str(warning.message)]
    assert [message.partition(":")[0] for message in shared] == [str(train), str(test)]
    assert "first of 40 such questions; all are read, but the files of an evaluation that go by id" in shared[0]
    assert run.metrics["test"]["examples"] == 16
    assert len((run.out / "test" / "predictions.jsonl").read_text().splitlines()) == 16
    assert not (run.out / "test" / "predictions.json").exists()
    said = command_line.run("evaluate", run.out, test, "--out", tmp_path / "e", "--threads", 1)
    assert said.code == 0
    assert said.err.count("the id '1-0-0' is that of") == 1
    assert not (tmp_path / "e" / "predictions.json").exists()
    said = command_line.run("predict", run.out, "--input", test, "--threads", 1)
    assert len(said.out.splitlines()) == 16
    assert "all are read, but the files of an evaluation that go by id" in said.err


def test_long_contexts_are_searched_to_their_end(model: Predictor) -> None:
    context = "the day was so quite and so this book is very " * 12 + "kind"
    (answer,) = model.predict("what was so good", context)
    found = [answer["predicted"], *(one["text"] for one in answer["runners_up"])]
    assert "kind" in found
    assert "cut" not in answer


@pytest.mark.parametrize(
    ("question", "context", "message"),
    [
        ("who", None, "text 1: a question needs a context to look for its answer in; give each its own"),
        ("who", 3, "text 1: the context is 3, of type int, not a string"),
        (["who"], [], "1 texts but 0 second texts; each text needs its own"),
    ],
)
def test_questions_that_cannot_be_asked(model: Predictor, question: Any, context: Any, message: str) -> None:
    with pytest.raises(BertwrightError) as caught:
        model.predict(question, context)
    assert str(caught.value) == message


def test_evaluation_needs_answers_and_columns_have_no_effect(model: Predictor, tmp_path: Path) -> None:
    rows = tmp_path / "q.jsonl"
    rows.write_text(json.dumps({"question": "what", "context": "the day"}) + "\n")
    with pytest.raises(BertwrightError, match=r"q.jsonl:1: has no 'answers'; an empty list says: none"):
        model.evaluate(rows)
    with pytest.raises(BertwrightError, match=r"q.jsonl:1: has no answers to measure by"):
        model.evaluate(list(model.read(rows, labelled=False)))
    with pytest.warns(BertwrightWarning, match="--text has no effect for the task question-answering"):
        list(model.read(rows, labelled=False, text="question"))


@pytest.mark.usefixtures("plotless")
def test_seeds_and_a_resumed_run_keep_their_thresholds(tiny_dir: Path, tmp_path: Path) -> None:
    train = write_squad(tmp_path / "train.json", asked(60, 0))
    options = QUICK | {"model": tiny_dir, "train": train, "out": tmp_path / "m", "epochs": 1, "freeze": "encoder"}
    run = bw.finetune(options, seeds=2, head_layers=1, head_size=8, console=Console(quiet=True))
    validation = run.metrics["validation"]
    kept = next(one for one in run.metrics["seeds"] if one["seed"] == run.metrics["seed"])
    assert validation["f1"] == pytest.approx(kept["validation"]["f1"])
    assert (
        validation["threshold"] == validation["best_threshold"] == bw.load(run.out).task.to_config()["no_answer_threshold"]
    )


def test_few_questions_are_passed_over_more_often() -> None:
    assert [QuestionAnswering.epochs(rows) for rows in (1, FEW_QUESTIONS - 1, FEW_QUESTIONS)] == [4, 4, 2]
    assert merged({"task": TASK, "train": "q.json"}, {}).recipe.epochs is None  # so that it is asked
