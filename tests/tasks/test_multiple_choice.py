"""Multiple choice: loss and ranks against plain arithmetic, and models that transformers opens, and the other way round."""

from __future__ import annotations

import csv
import io
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from safetensors.torch import load_file
from transformers import AutoModelForMultipleChoice, AutoTokenizer, BertForMultipleChoice

import bertwright
from bertwright import BertwrightError, BertwrightWarning, Predictor, finetune
from bertwright.data.choices import ChoiceExample
from bertwright.data.examples import Example
from bertwright.data.inputs import Inputs
from bertwright.data.packing import TokenTable
from bertwright.evaluation.choices import NO_SOURCE, choice_metrics, choice_report, plot_choices
from bertwright.tasks.multiple_choice import MultipleChoice, side_by_side
from bertwright.tasks.regularisation import TrainingLoss
from command_line import run
from tiny_model import BAD, GOOD, PLAIN, QUICK, write_jsonl, write_tsv

pytestmark = pytest.mark.usefixtures("plotless")
QUIET = Console(quiet=True)
TASK = MultipleChoice()
LABELLED = st.lists(
    st.integers(2, 6).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n - 1))), min_size=1, max_size=9
)


def inputs(given: list[tuple[int, int]], sources: list[str | None] | None = None) -> Inputs:
    """Examples with (so many endings, the right one), as if each choice were encoded as [CLS] [SEP]."""
    examples = [
        ChoiceExample("s", tuple("abcdef"[:count]), f"f:{i}", label=right, source=sources[i] if sources else None)
        for i, (count, right) in enumerate(given)
    ]
    counts = [count for count, _ in given]
    table = TokenTable([[1, 2]] * sum(counts), [[0, 0]] * sum(counts))
    return Inputs(examples, table, np.cumsum([0, *counts]), np.zeros(len(counts), dtype=np.int64))


@given(LABELLED, st.integers(0, 1000))
@settings(deadline=None, max_examples=50)
def test_loss_ranking_and_accuracy_are_those_of_each_example_alone(given: list[tuple[int, int]], seed: int) -> None:
    generator = np.random.default_rng(seed)
    counts, right = [count for count, _ in given], [place for _, place in given]
    rows = inputs(given)
    scores_R1 = generator.normal(size=(sum(counts), 1)) * 5
    parts = torch.split(torch.from_numpy(scores_R1[:, 0]), counts)
    losses = [F.cross_entropy(part[None], torch.tensor([r])).item() for part, r in zip(parts, right, strict=True)]
    loss = TASK.loss(rows, np.ones(1))
    assert TASK.units(rows).tolist() == rows.starts.tolist()
    assert loss.weight_U.tolist() == [1] * len(given)
    assert loss.mean(scores_R1) == pytest.approx(np.mean(losses))
    units = generator.permutation(len(given))[:3]
    outputs = torch.cat([parts[unit] for unit in units])[:, None].requires_grad_()
    some = loss.sum(outputs, units)
    assert some.item() == pytest.approx(sum(losses[unit] for unit in units))
    (gradient,) = torch.autograd.grad(some, outputs)
    softmaxes = torch.cat([parts[u].softmax(0) - F.one_hot(torch.tensor(right[u]), counts[u]) for u in units])
    torch.testing.assert_close(gradient, softmaxes[:, None])

    answers = TASK.decode(scores_R1, rows)
    for answer, part, count in zip(answers, parts, counts, strict=True):
        order = sorted(range(count), key=lambda place: -part[place].item())
        assert [one["choice"] for one in answer["ranking"]] == order
        assert [one["probability"] for one in answer["ranking"]] == pytest.approx(part.softmax(0)[order].tolist())
        assert [one["logit"] for one in answer["ranking"]] == part[order].tolist()
        assert (answer["choice"], answer["predicted"]) == (order[0], "abcdef"[order[0]])
    hits = [answer["choice"] == place for answer, place in zip(answers, right, strict=True)]
    assert TASK.scores(scores_R1, rows) == {"accuracy": pytest.approx(np.mean(hits))}
    measured = TASK.measure(scores_R1, rows, "accuracy")
    assert measured["accuracy"] == pytest.approx(np.mean(hits))
    ranks = [[one["choice"] for one in a["ranking"]].index(place) for a, place in zip(answers, right, strict=True)]
    assert measured["ranks"] == [ranks.count(rank) for rank in range(max(counts))]
    assert measured["chance_accuracy"] == pytest.approx(np.mean([1 / count for count in counts]))
    json.dumps([answers, measured])


@given(LABELLED, st.integers(0, 1000), st.sampled_from([0.1, 0.5]))
@settings(deadline=None, max_examples=30)
def test_smoothing_is_that_of_torch_over_the_choices_of_each_example(
    given: list[tuple[int, int]], seed: int, smoothing: float
) -> None:
    counts, right = [count for count, _ in given], [place for _, place in given]
    ours = torch.tensor(np.random.default_rng(seed).normal(size=(sum(counts), 1)), requires_grad=True)
    loss = TASK.loss(inputs(given), np.ones(1))
    found = TrainingLoss(loss, smoothing=smoothing).sum(ours, np.arange(len(given)))
    parts = torch.split(ours[:, 0], counts)
    wanted = torch.stack(
        [
            F.cross_entropy(part, torch.tensor(place), label_smoothing=smoothing)
            for part, place in zip(parts, right, strict=True)
        ]
    ).sum()
    torch.testing.assert_close(found, wanted)
    (gradient,), (expected,) = torch.autograd.grad(found, ours, retain_graph=True), torch.autograd.grad(wanted, ours)
    torch.testing.assert_close(gradient, expected)


def test_extreme_scores_stay_finite() -> None:
    rows = inputs([(2, 0), (4, 3)])
    scores = torch.tensor([[1e4], [-1e4], [0.0], [0.0], [0.0], [-3e4]], requires_grad=True)
    total = TASK.loss(rows, np.ones(1)).sum(scores, np.arange(2))
    (gradient,) = torch.autograd.grad(total, scores)
    assert total.item() == pytest.approx(3e4 + np.log(3), rel=1e-6)
    assert gradient.isfinite().all()


def test_places_past_the_last_choice_have_no_probability() -> None:
    grid = side_by_side(torch.arange(5.0), np.array([2, 3]))
    assert grid.tolist() == [[0, 1, -torch.inf], [2, 3, 4]]
    assert grid.softmax(1)[0, 2] == 0


def test_a_measurement_by_source() -> None:
    scores = np.array([[2.0, 1.0], [0.0, 3.0], [5.0, 4.0], [1.0, 1.0]])
    found = choice_metrics(scores, np.array([0, 0, 0, 1]), np.array([2, 2, 2, 2]), ["b", "a", "a", ""])
    assert found["per_source"] == {
        "a": {"examples": 2, "accuracy": 0.5},
        NO_SOURCE: {"examples": 1, "accuracy": 0.0},  # of equal scores the first is chosen
        "b": {"examples": 1, "accuracy": 1.0},
    }
    assert found["accuracy"] == 0.5
    assert found["majority_accuracy"] == 0.75
    assert found["ranks"] == [2, 2]
    low, high = found["headline"]["interval_95"]
    assert 0 <= low < 0.5 < high <= 1
    assert sum(b["count"] for b in found["reliability"]) == 4
    console = Console(file=io.StringIO(), width=80)
    console.print(choice_report(found, "f.tsv"))
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert all(text in shown for text in ("accuracy of guessing", "95% interval", "Rank of the right ending", NO_SOURCE))
    assert "per_source" not in choice_metrics(scores, np.zeros(4, dtype=int), np.full(4, 2), [None] * 4)


def test_the_interval_is_that_of_resampling_examples() -> None:
    generator = np.random.default_rng(0)
    scores, right = generator.normal(size=(400, 4)), generator.integers(0, 4, 400)
    found = choice_metrics(scores, right, np.full(400, 4), [None] * 400)
    correct = scores.argmax(1) == right
    resampled = correct[generator.integers(0, 400, (4000, 400))].mean(1)
    assert found["headline"]["interval_95"] == pytest.approx(np.percentile(resampled, [2.5, 97.5]), abs=0.01)


@pytest.mark.parametrize("sources", [[None] * 30, [f"s{i}$" for i in range(30)]])
def test_the_picture_is_drawn(tmp_path: Path, sources: list[str | None]) -> None:
    found = choice_metrics(np.eye(3)[np.arange(30) % 3], np.zeros(30, dtype=int), np.full(30, 3), sources)
    plot_choices(found, tmp_path / "c.png")
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


# ------------------------------------------------------------------------------------------------------------ whole runs


def choices(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Plain beginnings with two to four endings, of which one alone has a good word and the others a bad one."""
    draw = random.Random(seed)
    made = []
    for number in range(count):
        answer, endings = draw.randrange(2 + number % 3), []
        for place in range(2 + number % 3):
            words = draw.choices(PLAIN, k=draw.randint(1, 4))
            endings.append(" ".join([*words, draw.choice(GOOD if place == answer else BAD)]))
        made.append({"startphrase": f"the {draw.choice(PLAIN)}", "choices": endings, "answer": answer})
    return made


@pytest.fixture(scope="module")
def choice_run(tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model trained from the command line."""
    folder = tmp_path_factory.mktemp("choice")
    train, test = write_jsonl(folder / "t.jsonl", choices(160)), write_jsonl(folder / "e.jsonl", choices(60, seed=1))
    shown = run(
        *("finetune", "--task", "multiple-choice", "--model", tiny_dir, "--train", train, "--test", test),
        *("--out", folder / "run", "--epochs", "5", "--learning-rate", "1e-2", "--batch-size", "8", "--max-length", "24"),
        *("--device", "cpu", "--threads", "1"),
    )
    assert shown.code == 0, shown.err
    assert "2 to 4 endings for each text; right is number 0 (" in shown.err
    assert "Rank of the right ending" in shown.out
    return folder / "run"


@pytest.fixture(scope="module")
def model(choice_run: Path) -> Predictor:
    return bertwright.load(choice_run, device="cpu")


def test_the_right_ending_is_learned_and_python_gives_the_same_digits(
    choice_run: Path, tiny_dir: Path, tmp_path: Path
) -> None:
    metrics = json.loads((choice_run / "metrics.json").read_text())
    assert metrics["test"]["accuracy"] > metrics["test"]["chance_accuracy"] + 0.2
    folder = choice_run.parent
    again = finetune(
        QUICK | {"epochs": 5}, task="multiple-choice", model=tiny_dir, train=folder / "t.jsonl", test=folder / "e.jsonl",
        out=tmp_path / "run", console=QUIET,
    )  # fmt: skip
    held, other = (load_file(path / "model.safetensors") for path in (choice_run, again.out))
    assert all(torch.equal(value, other[name]) for name, value in held.items())
    assert again.metrics["test"] == metrics["test"]
    card = (again.out / "README.md").read_text()
    assert 'bertwright predict THIS_DIRECTORY "a text" --pair "an ending" --pair "another"' in card
    lines = [json.loads(line) for line in (choice_run / "test" / "predictions.jsonl").read_text().splitlines()]
    assert np.mean([line["predicted"] == line["true"] for line in lines]) == metrics["test"]["accuracy"]
    assert [line["true_choice"] for line in lines] == [row["answer"] for row in choices(60, seed=1)]


def theirs(directory: Path, rows: list[dict[str, Any]]) -> tuple[list[list[float]], list[float]]:
    """Logits and loss of each row by transformers, one at a time."""
    model = AutoModelForMultipleChoice.from_pretrained(directory).eval()
    assert isinstance(model, BertForMultipleChoice)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    logits, losses = [], []
    for row in rows:
        starts = [row["startphrase"]] * len(row["choices"])
        encoded = tokenizer(starts, row["choices"], return_tensors="pt", padding=True)
        with torch.no_grad():
            out = model(**{k: v[None] for k, v in encoded.items()}, labels=torch.tensor([row["answer"]]))
        logits.append(out.logits[0].tolist())
        losses.append(out.loss.item())
    return logits, losses


def assert_same_as_theirs(directory: Path) -> None:
    rows = choices(9, seed=5)
    logits, losses = theirs(directory, rows)
    ours = bertwright.load(directory, device="cpu", precision="float32")
    answers = ours.predict([row["startphrase"] for row in rows], [row["choices"] for row in rows])
    for answer, expected in zip(answers, logits, strict=True):
        by_choice = {one["choice"]: one["logit"] for one in answer["ranking"]}
        assert [by_choice[place] for place in range(len(expected))] == pytest.approx(expected, abs=1e-5)
    examples = [ChoiceExample(r["startphrase"], tuple(r["choices"]), "r", label=r["answer"]) for r in rows]
    assert ours.evaluate(examples).metrics["loss"] == pytest.approx(np.mean(losses), abs=1e-5)


def test_transformers_opens_what_is_written(choice_run: Path) -> None:
    assert_same_as_theirs(choice_run)
    _, info = AutoModelForMultipleChoice.from_pretrained(choice_run, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]


def test_what_transformers_wrote_opens_here(tiny_dir: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = BertForMultipleChoice.from_pretrained(tiny_dir)
    with torch.no_grad():
        made.classifier.weight.normal_()
        made.classifier.bias.fill_(0.5)
    made.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_dir).save_pretrained(tmp_path)
    assert_same_as_theirs(tmp_path)


def test_it_starts_from_its_own_head_and_not_from_another_tasks(
    choice_run: Path, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = write_jsonl(tmp_path / "t.jsonl", choices(20))
    for start, left_out in ((choice_run, False), (tiny_run, True)):
        console = Console(file=io.StringIO(), width=200)
        finetune(
            QUICK, task="multiple-choice", model=start, train=train, validation=train, steps=1, epochs=None,
            out=tmp_path / start.parent.name, console=console,
        )  # fmt: skip
        assert isinstance(console.file, io.StringIO)
        assert ("is left out" in console.file.getvalue()) == left_out


@pytest.mark.parametrize("options", [{"freeze": "encoder", "head_layers": 1, "head_size": 8}, {"freeze": "first:1"}])
def test_frozen_parts_and_own_layers(tiny_dir: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    train = write_jsonl(tmp_path / "t.jsonl", choices(24))
    made = finetune(
        QUICK,
        task="multiple-choice",
        model=tiny_dir,
        train=train,
        validation=train,
        out=tmp_path / "run",
        console=QUIET,
        **options,
    )
    found = bertwright.load(made.out, device="cpu").evaluate(train).metrics
    assert found["loss"] == pytest.approx(made.metrics["validation"]["loss"], rel=1e-5)


# ------------------------------------------------------------------------------------------------------------ predictions


def test_a_prediction_is_a_ranking(model: Predictor) -> None:
    (answer,) = model.predict("the good film", ["is very cruel", "was warm", "is so cold"])
    assert list(answer) == ["text", "predicted", "choice", "probability", "ranking"]
    assert answer["predicted"] == "was warm"
    assert sum(one["probability"] for one in answer["ranking"]) == pytest.approx(1)
    assert [set(one) for one in answer["ranking"]] == [{"choice", "ending", "probability", "logit"}] * 3
    several = model.predict(["the good film", "the bad day", ""], [["is bad", "is fine"], ["a", "b", "c"], ["a", "b"]])
    assert [len(one.get("ranking", [])) for one in several] == [2, 3, 0]
    assert several[2]["skipped"] == "empty"
    (long,) = model.predict("cat " * 30, ["day", "cat"])
    assert long["cut"] == 2 * (30 + 1 + 3 - 24)


@pytest.mark.parametrize(
    ("text", "second", "message"),
    [
        (1, ["a", "b"], "text 1 is 1, of type int, not a string"),
        ("s", None, "text 1: its endings are None; give a list of two or more"),
        ("s", ["a"], "text 1: its endings are ['a']; give a list of two or more"),
        ("s", "ab", "text 1: its endings are 'ab'; give a list of two or more"),
        ("s", ["a", None], "text 1: ending 1 is None; give a string that is not empty"),
    ],
)
def test_wrong_endings_are_refused(model: Predictor, text: Any, second: Any, message: str) -> None:
    with pytest.raises(BertwrightError) as caught:
        model.predict([text], [second])
    assert str(caught.value) == message
    with pytest.raises(BertwrightError, match="r: this model chooses among endings"):
        list(model.predict_rows([Example("a", "r")]))
    with pytest.raises(BertwrightError, match="r: the answer is missing"):
        model.evaluate([ChoiceExample("s", ("a", "b"), "r")])


def test_the_command_line_takes_endings_every_way(choice_run: Path, model: Predictor, tmp_path: Path) -> None:
    endings = ["is bad", "is fine"]
    (expected,) = model.predict("the good film", endings)

    def answer(*arguments: object, stdin: bytes = b"") -> list[dict[str, Any]]:
        shown = run("predict", choice_run, *arguments, "--device", "cpu", stdin=stdin)
        assert shown.code == 0, shown.err
        return [json.loads(line) for line in shown.out.splitlines()]

    assert answer("the good film", "--pair", endings[0], "--pair", endings[1]) == [expected]
    stream = answer("-", stdin=b"the good film\tis bad\tis fine\n\nno endings\n")
    assert stream[0] == expected
    assert [record.get("skipped", "")[:14] for record in stream] == ["", "empty", "not a beginnin"]
    table = write_tsv(tmp_path / "c.tsv", [("k", "the good film", *endings, "1")], header=())
    assert answer("--input", table) == [expected]
    own = write_jsonl(tmp_path / "c.jsonl", [{"t": "the good film", "x": endings[0], "y": endings[1]}])
    assert answer("--input", own, "--text", "t", "--endings", "x,y") == [expected]
    shown = run("predict", choice_run, "--input", table, "--format", "csv", "--device", "cpu")
    (row,) = csv.DictReader(io.StringIO(shown.out))
    assert (row["predicted"], row["choice"]) == (expected["predicted"], str(expected["choice"]))
    assert row["ranking"] == " ".join(str(one["choice"]) for one in expected["ranking"])
    shares = [float(share) for share in row["probabilities"].split()]
    assert shares == pytest.approx([one["probability"] for one in expected["ranking"]], rel=1e-5)
    for wrong in (["a", "b", "--pair", "x", "--pair", "y"], ["a"], ["a", "--pair", "x"]):
        assert "give one text and two or more endings, each after a --pair" in run("predict", choice_run, *wrong).error


def test_evaluating_from_the_command_line(choice_run: Path, tmp_path: Path) -> None:
    table = [("k", r["startphrase"], *r["choices"], str(r["answer"])) for r in choices(30, seed=3)]
    shown = run("evaluate", choice_run, write_tsv(tmp_path / "c.tsv", table, header=()), "--out", tmp_path / "e")
    assert shown.code == 0, shown.err
    assert "Sources" in shown.out
    metrics = json.loads((tmp_path / "e" / "metrics.json").read_text())
    assert metrics["per_source"] == {"k": {"examples": 30, "accuracy": metrics["accuracy"]}}


def test_options_of_other_tasks_have_no_effect_and_say_so(tiny_dir: Path, model: Predictor, tmp_path: Path) -> None:
    train = write_jsonl(tmp_path / "t.jsonl", choices(12))
    with pytest.warns(BertwrightWarning, match="--class-weights has no effect for this --task"):
        finetune(
            QUICK, task="multiple-choice", model=tiny_dir, train=train, validation=train, steps=1, epochs=None,
            class_weights="balanced", out=tmp_path / "run", console=QUIET,
        )  # fmt: skip
    with pytest.warns(BertwrightWarning, match="--pair has no effect for the task multiple-choice"):
        list(model.read(train, pair="x"))


@pytest.mark.parametrize("made", ["BertForSequenceClassification", "BertForTokenClassification"])
def test_a_config_of_another_task_is_refused(made: str) -> None:
    with pytest.raises(BertwrightError, match=f"c: architectures are {made}, not BertForMultipleChoice"):
        MultipleChoice.from_config({"architectures": [made]}, "c")
    assert MultipleChoice.from_config({}, "c") == TASK == MultipleChoice.from_config(TASK.to_config(), "c")
