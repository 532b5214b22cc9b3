"""Regression: scores, loss, head, and a whole run, from Python and from the command line, beside transformers."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

import bertwright
from bertwright.data.examples import Example
from bertwright.data.inputs import Inputs
from bertwright.data.packing import TokenTable
from bertwright.errors import BertwrightError
from bertwright.model import BertConfig
from bertwright.tasks import task_of
from bertwright.tasks.regression import Regression, targets
from bertwright.training.recipe import Recipe
from command_line import run
from tiny_model import BAD, GOOD, PLAIN, QUICK, write_jsonl, write_tsv

QUIET = Console(quiet=True)
SMALL = BertConfig(vocab_size=10, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)


def inputs(*scores: object, sources: str = "") -> Inputs:
    rows = [
        Example(text="t", where=f"f.tsv:{i + 2}", label=str(value), source=sources[i] if sources else None)
        for i, value in enumerate(scores)
    ]
    table = TokenTable([[1, 2]] * len(rows), [[0, 0]] * len(rows))
    return Inputs(rows, table, np.arange(len(rows) + 1), np.zeros(len(rows), dtype=np.int64))


def rated(count: int, seed: int = 0, *, pairs: bool = False) -> list[tuple[str, ...]]:
    """Texts, rated from 10 to 50 by how many of their four words are good; with pairs, words of both texts."""
    draw = random.Random(seed)
    made = []
    for _ in range(count):
        good = draw.randint(0, 4)
        words = draw.choices(GOOD, k=good) + draw.choices(BAD, k=4 - good)
        draw.shuffle(words)
        texts = (" ".join(words[:2]), " ".join(words[2:])) if pairs else (f"{draw.choice(PLAIN)} {' '.join(words)}",)
        made.append((*texts, str(10 * good + 10)))
    return made


# ------------------------------------------------------------------------------------------------------------------ parts


@pytest.mark.parametrize(("text", "value"), [("3.800", 3.8), ("-2", -2), ("1e3", 1000), ("0", 0), (" 5 ", 5)])
def test_scores_are_numbers(text: str, value: float) -> None:
    assert targets(inputs(text).examples).tolist() == [value]


@pytest.mark.parametrize("text", ["nan", "inf", "-Infinity", "3,5", "high", "1_000", "1e999", "True", ""])
def test_what_is_no_finite_number_is_named_with_its_line(text: str) -> None:
    with pytest.raises(BertwrightError) as caught:
        Regression.learn(inputs("1", text).examples, Recipe())
    assert str(caught.value) == f"f.tsv:3: the score {text!r} is no finite number; write it like 3.5"


def test_scores_that_are_all_one_cannot_be_learned() -> None:
    with pytest.raises(BertwrightError, match=r"f.tsv:2: all 3 training rows have the score 4, so there is nothing to"):
        Regression.learn(inputs(4, 4.0, "4").examples, Recipe())


def test_the_scale_is_that_of_the_training_scores() -> None:
    rows = inputs(0, 5, 2.5, 4)
    task = Regression.learn(rows.examples, Recipe())
    assert [task.mean, task.deviation] == pytest.approx([2.875, np.std([0, 5, 2.5, 4])])
    assert task.describe(rows) == "scores: 0 to 5, mean 2.875, standard deviation 1.883"
    assert task == Regression()  # a checkpoint of another scale has the same head


def test_a_fresh_head_begins_at_the_mean_on_the_scale_of_the_scores() -> None:
    plain, scaled = Regression(), Regression(mean=300, deviation=50)
    heads = []
    for task in (plain, scaled):
        torch.manual_seed(0)
        heads.append(task.build(SMALL, head_layers=0, head_size=0).last)
    assert heads[0].weight.shape == (1, 8)
    assert heads[0].bias.tolist() == [0]
    assert heads[1].bias.tolist() == [300]
    torch.testing.assert_close(heads[1].weight, heads[0].weight * 50)


def test_rows_are_set_aside_at_random() -> None:
    rows = inputs(*range(50)).examples
    inside, aside, how = Regression.split(rows, 0.2, 7)
    assert how == "at random"
    assert len(aside) == 10
    assert sorted(inside + aside) == list(range(50))
    assert Regression.split(rows, 0.2, 7)[1] == aside != Regression.split(rows, 0.2, 8)[1]


@given(st.lists(st.tuples(st.floats(-100, 100), st.floats(-100, 100)), min_size=1, max_size=20))
@settings(max_examples=30, deadline=None)
def test_the_loss_is_the_squared_error_whatever_the_batches(rows: list[tuple[float, float]]) -> None:
    true, predicted = np.array(rows).T
    given_inputs = inputs(*map(repr, true.tolist()))
    loss = Regression().loss(given_inputs, np.ones(1))
    outputs = predicted[:, None]
    assert loss.mean(outputs) == pytest.approx(((predicted - true) ** 2).mean())
    units = np.arange(len(true))
    parts = sum(float(loss.sum(torch.from_numpy(outputs[part]), part)) for part in (units[::2], units[1::2]))
    assert parts == pytest.approx(((predicted - true) ** 2).sum(), abs=1e-9)
    in_float32 = float(loss.sum(torch.from_numpy(outputs).float(), units))
    assert in_float32 == pytest.approx(((predicted - true) ** 2).sum(), rel=1e-3, abs=1e-3)


def test_a_measurement_has_errors_and_sources() -> None:
    found = Regression().measure(np.array([[1.0], [2.0], [4.0]]), inputs(1, 2, 3, sources="aab"), "spearman")
    assert found["headline"]["metric"] == "spearman"
    assert found["spearman"] == 1
    assert found["mean_absolute_error"] == pytest.approx(1 / 3)
    assert found["per_source"]["a"] == {"examples": 2, "pearson": 1, "spearman": 1, "r_squared": 1}
    assert Regression().decode(np.array([[1.5]]), inputs(1)) == [{"predicted": 1.5}]


# ---------------------------------------------------------------------------------------------------------------- configs


@pytest.mark.parametrize(
    ("changes", "task"),
    [
        ({"num_labels": 1}, "regression"),
        ({"num_labels": 1, "problem_type": "regression"}, "regression"),
        ({"num_labels": 2}, "classification"),
        ({"num_labels": 3, "problem_type": "single_label_classification"}, "classification"),
    ],
)
def test_configs_of_transformers_are_told_apart(changes: dict[str, Any], task: str) -> None:
    from transformers import BertConfig as Theirs

    for architectures in ({"architectures": ["BertForSequenceClassification"]}, {}):
        assert task_of(json.loads(Theirs(**changes, **architectures).to_json_string()), "config.json") == task


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"problem_type": "regression"}, "config.json: regression with 2 outputs; only regression with one can be loaded"),
        ({"id2label": {"0": "a", "1": "b"}}, "config.json: single_label_classification with 2 outputs"),
        ({"id2label": ["a"]}, "config.json: id2label is damaged"),
    ],
)
def test_a_config_of_something_else_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(BertwrightError) as caught:
        Regression.from_config(config, "config.json")
    assert str(caught.value).startswith(message)


# ------------------------------------------------------------------------------------------------------------ whole runs


@pytest.fixture(scope="module")
def trained(tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> bertwright.Run:
    """The tiny model, fine-tuned on rated pairs."""
    folder = tmp_path_factory.mktemp("regression")
    header = ("a", "b", "score")
    train = write_tsv(folder / "train.tsv", rated(300, pairs=True), header)
    test = write_tsv(folder / "test.tsv", rated(60, 1, pairs=True), header)
    return bertwright.finetune(
        QUICK, model=tiny_dir, task="regression", train=train, test=test, text="a", pair="b", label="score",
        epochs=4, dropout=0.0, out=folder / "run", console=QUIET,
    )  # fmt: skip


def test_scores_of_any_scale_are_learned(trained: bertwright.Run) -> None:
    assert trained.metrics["test"]["r_squared"] > 0.8
    assert (trained.out / "test" / "scores.png").stat().st_size > 5000
    record = json.loads((trained.out / "test" / "predictions.jsonl").read_text().splitlines()[0])
    assert list(record) == ["text", "pair", "true", "predicted"]
    assert isinstance(record["true"], float)
    assert trained.metrics["test"]["loss"] == pytest.approx(trained.metrics["test"]["mean_squared_error"], rel=1e-9)


def test_the_command_line_gives_the_digits_of_python(trained: bertwright.Run, tmp_path: Path) -> None:
    test = trained.out.parent / "test.tsv"
    said = run("evaluate", trained.out, test, "--metric", "spearman", "--out", tmp_path / "evaluation", "--threads", 1)
    assert said.code == 0, said.err
    assert "Spearman correlation" in said.out.splitlines()[3]
    assert "root mean squared error" in said.out
    metrics = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    assert {name: metrics[name] for name in ("pearson", "spearman", "loss")} == {
        name: trained.metrics["test"][name] for name in ("pearson", "spearman", "loss")
    }
    streamed = run("predict", trained.out, "-", "--threads", 1, stdin=b"good bad\tfine warm\n\nno tab\n")
    answers = [json.loads(line) for line in streamed.out.splitlines()]
    expected = bertwright.load(trained.out, threads=1).predict(["good bad"], ["fine warm"])
    assert answers[0] == expected[0]
    assert [answer.get("skipped") for answer in answers] == [None, "empty", "no tab between two texts"]
    table = run("predict", trained.out, "good bad", "--pair", "fine warm", "--format", "csv", "--threads", 1)
    assert list(csv.reader(table.out.splitlines()))[1] == ["good bad", "fine warm", str(expected[0]["predicted"]), "", ""]


def test_transformers_opens_it_and_what_transformers_saves_opens_here(trained: bertwright.Run, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    theirs = AutoModelForSequenceClassification.from_pretrained(trained.out).eval()
    tokenizer = AutoTokenizer.from_pretrained(trained.out)
    rows = rated(20, 2, pairs=True)
    first, second, labels = (list(column) for column in zip(*rows, strict=True))
    batch = tokenizer(first, second, padding=True, return_tensors="pt")
    with torch.inference_mode():
        output = theirs(**batch, labels=torch.tensor([float(label) for label in labels]))
    ours = bertwright.load(trained.out, threads=1)
    examples = [
        Example(text=a, pair=b, label=label, where=str(i))
        for i, (a, b, label) in enumerate(zip(first, second, labels, strict=True))
    ]
    evaluation = ours.evaluate(examples)
    predicted = [record["predicted"] for record in evaluation.predictions]
    np.testing.assert_allclose(output.logits[:, 0].numpy(), predicted, rtol=1e-5)
    assert evaluation.metrics["loss"] == pytest.approx(float(output.loss), rel=1e-5)
    theirs.save_pretrained(tmp_path / "theirs")
    tokenizer.save_pretrained(tmp_path / "theirs")
    config = json.loads((tmp_path / "theirs" / "config.json").read_text())
    del config["problem_type"]
    (tmp_path / "theirs" / "config.json").write_text(json.dumps(config))
    back = bertwright.load(tmp_path / "theirs", threads=1)
    assert isinstance(back.task, Regression)
    assert [record["predicted"] for record in back.predict(first, second)] == pytest.approx(predicted, rel=1e-5)


@pytest.mark.usefixtures("plotless")
def test_own_layers_seeds_and_a_frozen_encoder_go_together(tiny_dir: Path, tmp_path: Path) -> None:
    train = write_jsonl(tmp_path / "train.jsonl", [{"text": text, "label": float(score)} for text, score in rated(60)])
    result = bertwright.finetune(
        QUICK, model=tiny_dir, task="regression", train=train, freeze="encoder", head_layers=1, head_size=8, seeds=2,
        out=tmp_path / "run", console=QUIET,
    )  # fmt: skip
    assert set(result.metrics["over_seeds"]["validation"]) >= {"loss", "pearson", "spearman", "r_squared"}
    again = bertwright.load(tmp_path / "run", threads=1).predict("good good")[0]["predicted"]
    assert again == result.model.predict("good good")[0]["predicted"]
    assert 0 < again < 60


@pytest.mark.usefixtures("plotless")
def test_a_model_is_a_beginning_for_more_and_a_head_for_classes_is_not(
    trained: bertwright.Run, tiny_run: Path, tmp_path: Path
) -> None:
    train = write_tsv(tmp_path / "train.tsv", rated(30, 3), ("text", "score"))
    options = {"task": "regression", "train": train, "label": "score", "epochs": 1, "learning_rate": 1e-12}
    on = bertwright.finetune(QUICK, model=trained.out, out=tmp_path / "on", console=QUIET, **options)
    for name, value in bertwright.load(trained.out).model.state_dict().items():
        torch.testing.assert_close(on.model.model.state_dict()[name], value, rtol=1e-5, atol=1e-6)
    fresh = bertwright.finetune(QUICK, model=tiny_run, out=tmp_path / "fresh", console=QUIET, **options)
    assert fresh.model.predict("good")[0]["predicted"] == pytest.approx(30, abs=25)


def test_a_line_that_is_no_number_ends_the_run_before_it_begins(tiny_dir: Path, tmp_path: Path) -> None:
    train = write_tsv(tmp_path / "train.tsv", [("a film", "1"), ("the day", "two"), ("a book", "3")])
    said = run(
        "finetune",
        "--task",
        "regression",
        "--model",
        tiny_dir,
        "--train",
        train,
        "--max-length",
        24,
        "--out",
        tmp_path / "run",
    )
    assert said.error == f"{train}:3: the score 'two' is no finite number; write it like 3.5"
    assert not list(tmp_path.glob("run*"))


@pytest.mark.usefixtures("plotless")
def test_class_weights_have_no_effect_and_that_is_told(tiny_dir: Path, tmp_path: Path) -> None:
    train = write_tsv(tmp_path / "train.tsv", rated(30))
    with pytest.warns(bertwright.BertwrightWarning, match="--class-weights has no effect for this --task"):
        bertwright.finetune(
            QUICK, model=tiny_dir, task="regression", train=train, class_weights="balanced", epochs=1,
            out=tmp_path / "run", console=QUIET,
        )  # fmt: skip


@pytest.mark.shared_data
def test_sts_b_is_read_as_it_is_published(shared: Path) -> None:
    recipe = Recipe(task="regression", text="sentence1", pair="sentence2", label="score", source="genre")
    rows = list(Regression.read(shared / "glue" / "STS-B" / "train.tsv", recipe, labelled=True))
    scores = targets(rows)
    assert len(rows) == 5749
    assert (scores.min(), scores.max()) == (0, 5)
    assert {row.source for row in rows} == {"main-captions", "main-forum", "main-news"}
