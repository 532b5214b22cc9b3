"""Any number of labels: loss, weights, thresholds, and a whole run, from Python and from the command line."""

from __future__ import annotations

import csv
import io
import json
import math
import random
import re
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

import bertwright
from bertwright.arrays import sigmoid
from bertwright.data.inputs import Inputs
from bertwright.data.labelled import LabelledText
from bertwright.data.packing import TokenTable
from bertwright.errors import BertwrightError, BertwrightWarning
from bertwright.model import BertConfig
from bertwright.tasks import task_of
from bertwright.tasks.multi_label import MultiLabel
from bertwright.training.recipe import Recipe
from command_line import run
from tiny_model import BAD, GOOD, PLAIN, QUICK, write_csv, write_jsonl, write_tiny_model

ABC = MultiLabel(("a", "b", "c"))
QUIET = Console(quiet=True)
SMALL = BertConfig(vocab_size=10, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "multi_label.py"
OWN_TEST = EXAMPLE.with_name("intent_words_test.jsonl")


def inputs(*labels: str | None) -> Inputs:
    """Rows whose labels are the letters of these words."""
    rows = [
        LabelledText("t", f"f.tsv:{i + 2}", labels=None if given is None else tuple(given)) for i, given in enumerate(labels)
    ]
    table = TokenTable([[1, 2]] * len(rows), [[0, 0]] * len(rows))
    return Inputs(rows, table, np.arange(len(rows) + 1), np.zeros(len(rows), dtype=np.int64))


def moods(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Texts with up to two good and two bad words; the labels say which kinds there are, and none where none is."""
    draw = random.Random(seed)
    made = []
    for _ in range(count):
        good, bad = draw.choices(GOOD, k=draw.randint(0, 2)), draw.choices(BAD, k=draw.randint(0, 2))
        words = [*good, *bad, *draw.choices(PLAIN, k=2)]
        draw.shuffle(words)
        made.append({"text": " ".join(words), "tags": ["good"] * bool(good) + ["bad"] * bool(bad)})
    return made


# ------------------------------------------------------------------------------------------------------------------ parts


def test_labels_come_from_the_rows_in_order_or_from_the_columns() -> None:
    assert MultiLabel.learn(inputs("cb", "", "a").examples, Recipe()).labels == ("a", "b", "c")
    with pytest.warns(BertwrightWarning, match="--labels: no training row has x, so there is nothing to learn it from"):
        named = MultiLabel.learn(inputs("cb", "").examples, Recipe(labels=("c", "x", "b")))
    assert named.labels == ("c", "x", "b")
    assert named.targets(inputs("b", "cb").examples).tolist() == [[False, False, True], [True, False, True]]


def test_the_report_says_which_labels_the_mean_leaves_out() -> None:
    page = Console(width=80, record=True, file=io.StringIO())
    logits_BC = np.array([[5.0, -5, -5], [-5, 5, -5]])
    task = MultiLabel(("a", "b", "c"))
    page.print(task.report(task.measure(logits_BC, inputs("a", "b"), "f1_micro"), "title"))
    assert "the mean leaves out 1 of 3 labels, in neither the truth nor" in " ".join(page.export_text().split())


def test_no_label_at_all_is_refused() -> None:
    with pytest.raises(BertwrightError) as caught:
        MultiLabel.learn(inputs("", "").examples, Recipe())
    assert str(caught.value) == "f.tsv:2: none of the 2 training rows has a label; does --label name the right column?"


def test_a_label_that_training_did_not_have_is_named_with_its_row() -> None:
    with pytest.raises(BertwrightError, match=r"f.tsv:3: the label 'd' does not occur in the training rows .*a, b, c"):
        ABC.targets(inputs("a", "bd").examples)
    with pytest.raises(BertwrightError, match=r"f.tsv:2: the labels are missing"):
        ABC.targets(inputs(None).examples)


@given(st.lists(st.sets(st.sampled_from("abc")), min_size=1, max_size=12), st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_the_loss_is_that_of_torch_with_positive_weights_whatever_the_batches(rows: list[set[str]], seed: int) -> None:
    random = np.random.default_rng(seed)
    given_inputs = inputs(*("".join(row) for row in rows))
    logits, weights = random.normal(0, 3, (len(rows), 3)), random.uniform(0.2, 5, 3)
    loss = ABC.loss(given_inputs, weights)
    targets = torch.from_numpy(ABC.targets(given_inputs.examples)).double()
    expected = torch.nn.BCEWithLogitsLoss(pos_weight=torch.from_numpy(weights))(torch.from_numpy(logits), targets)
    assert loss.mean(logits) == pytest.approx(float(expected))
    units = np.arange(len(rows))
    parts = sum(float(loss.sum(torch.from_numpy(logits[part]), part)) for part in (units[::2], units[1::2]) if len(part))
    assert parts / len(rows) == pytest.approx(float(expected))
    assert float(loss.sum(torch.from_numpy(logits).float(), units)) / len(rows) == pytest.approx(float(expected), rel=1e-4)


def test_weights_are_of_true_labels() -> None:
    rows = inputs("ab", "a", "a", "")
    assert ABC.class_weights("none", rows).tolist() == [1, 1, 1]
    assert ABC.class_weights("balanced", rows).tolist() == [pytest.approx(1 / 3), 3, 1]
    assert ABC.class_weights("b=2.5", rows).tolist() == [1, 2.5, 1]
    with pytest.raises(BertwrightError, match="--class-weights: no class 'd'"):
        ABC.class_weights("d=2", None)


@pytest.mark.parametrize("setting", ["none", "b=4", "balanced"])
def test_a_fresh_head_begins_near_the_best_constant(setting: str) -> None:
    rows = inputs(*["ab"] * 10, *["a"] * 30, *[""] * 60)
    task = MultiLabel.learn(rows.examples, Recipe(class_weights=setting, labels=("a", "b")))
    bias = task.build(SMALL, head_layers=0, head_size=0).last.bias
    weights = torch.from_numpy(task.class_weights(setting, rows))
    free = bias.detach().double().clone().requires_grad_()
    targets = torch.from_numpy(task.targets(rows.examples)).double()
    loss = F.binary_cross_entropy_with_logits(free.expand(100, 2), targets, pos_weight=weights)
    (gradient,) = torch.autograd.grad(loss, free)
    assert gradient.abs().max() < 0.01
    assert MultiLabel(("a", "b")).build(SMALL, head_layers=0, head_size=0).last.bias.tolist() == [0, 0]


def test_thresholds_are_tuned_as_the_recipe_says_and_kept_in_the_config() -> None:
    rows = inputs("a", "a", "", "b")
    probabilities = np.array([[0.4, 0.1], [0.3, 0.1], [0.1, 0.2], [0.1, 0.8]])
    logits = np.log(probabilities / (1 - probabilities))
    tuned = {}
    for setting in ("shared", "per-label", "half"):
        task = MultiLabel.learn(rows.examples, Recipe(thresholds=setting))
        assert task.tuned(logits, rows) == task  # the same head all the same
        tuned[setting] = task.tuned(logits, rows).to_config()["thresholds"]
    assert tuned["half"] == {"a": 0.5, "b": 0.5}
    assert tuned["shared"] == pytest.approx({"a": 0.25, "b": 0.25})
    assert tuned["per-label"] == pytest.approx({"a": 0.2, "b": 0.5})
    task = MultiLabel.learn(rows.examples, Recipe(thresholds="per-label")).tuned(logits, rows)
    back = MultiLabel.from_config(json.loads(json.dumps(task.to_config())), "config.json")
    assert back.thresholds == task.thresholds
    assert [one["predicted"] for one in back.decode(logits, rows)] == [["a"], ["a"], [], ["b"]]
    assert [one["predicted"] for one in ABC.decode(np.zeros((1, 3)), inputs("a"))] == [["a", "b", "c"]]


def test_predictions_come_with_the_most_probable_label_first() -> None:
    (answer,) = ABC.decode(np.array([[0.1, 2.0, -1.0]]), inputs("a"))
    assert answer["predicted"] == ["b", "a"]
    assert answer["probabilities"] == pytest.approx({"a": 0.524979, "b": 0.880797, "c": 0.268941}, abs=1e-6)
    header, row = ABC.table([{"text": "t", **answer, "cut": 3}])
    assert header == [
        "text",
        "pair",
        "predicted",
        "probability of a",
        "probability of b",
        "probability of c",
        "skipped",
        "cut",
    ]
    assert row[:3] == ["t", None, "b,a"]
    assert row[-2:] == [None, 3]


def test_probabilities_do_not_overflow() -> None:
    logits = np.array([-1e6, -800.0, 0.0, 3.0, 800.0])
    np.testing.assert_allclose(sigmoid(logits), torch.from_numpy(logits).sigmoid().numpy(), atol=1e-15)


def test_the_description_counts_rows_without_labels() -> None:
    assert ABC.describe(inputs("ab", "a", "")) == "labels: a (2), b (1); 1.00 a row, 1 rows have none"


# ---------------------------------------------------------------------------------------------------------------- configs


@pytest.mark.parametrize("labels", [1, 2, 5])
def test_a_config_of_transformers_opens_without_thresholds(labels: int) -> None:
    from transformers import BertConfig as Theirs

    theirs = Theirs(
        num_labels=labels, problem_type="multi_label_classification", architectures=["BertForSequenceClassification"]
    )
    config = json.loads(theirs.to_json_string())
    assert task_of(config, "config.json") == "multi-label"
    task = MultiLabel.from_config(config, "config.json")
    assert task.labels == tuple(theirs.id2label.values())
    assert set(task.to_config()["thresholds"].values()) == {0.5}


@pytest.mark.parametrize(
    "thresholds", [{"a": 0.5}, {"a": 0.5, "b": "x"}, {"a": 0.5, "b": 2}, [0.5, 0.5], {"a": 0.5, "x": 1}]
)
def test_damaged_thresholds_are_refused(thresholds: Any) -> None:
    config = MultiLabel(("a", "b")).to_config() | {"thresholds": thresholds}
    with pytest.raises(BertwrightError, match=r"config.json: thresholds is damaged: it must map each label to a number"):
        MultiLabel.from_config(config, "config.json")


def test_a_config_of_something_else_is_refused() -> None:
    with pytest.raises(BertwrightError, match=r"config.json: problem_type is 'regression'; only multi_label_classification"):
        MultiLabel.from_config({"problem_type": "regression"}, "config.json")


# ------------------------------------------------------------------------------------------------------------- whole runs


@pytest.fixture(scope="module")
def trained(tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> bertwright.Run:
    """The tiny model, fine-tuned on moods."""
    folder = tmp_path_factory.mktemp("multi-label")
    train, test = write_jsonl(folder / "train.jsonl", moods(300)), write_jsonl(folder / "test.jsonl", moods(80, 1))
    return bertwright.finetune(
        QUICK, model=tiny_dir, task="multi-label", train=train, test=test, label="tags", thresholds="per-label",
        epochs=5, dropout=0.0, out=folder / "run", console=QUIET,
    )  # fmt: skip


def test_labels_are_learned_each_by_itself(trained: bertwright.Run) -> None:
    test = trained.metrics["test"]
    assert test["subset_accuracy"] > 0.85
    assert test["f1_micro"] > 0.9
    assert test["labels_per_example"] == pytest.approx(test["predicted_per_example"], abs=0.2)
    assert (trained.out / "test" / "labels.png").stat().st_size > 5000
    records = [json.loads(line) for line in (trained.out / "test" / "predictions.jsonl").read_text().splitlines()]
    assert {len(record["true"]) for record in records} == {0, 1, 2}
    saved = json.loads((trained.out / "config.json").read_text())
    assert saved["problem_type"] == "multi_label_classification"
    assert {name: test["per_class"][name]["threshold"] for name in ("bad", "good")} == saved["thresholds"]


@pytest.mark.usefixtures("plotless")
def test_a_table_of_labels_that_hold_commas_is_read_back(tiny_dir: Path, tmp_path: Path) -> None:
    names = {"good": "warm, kind", "bad": "cold"}
    train = write_jsonl(tmp_path / "t.jsonl", [row | {"tags": [names[tag] for tag in row["tags"]]} for row in moods(40)])
    trained = bertwright.finetune(
        QUICK, model=tiny_dir, task="multi-label", train=train, label="tags", label_separator=" | ", epochs=1,
        out=tmp_path / "run", console=QUIET,
    )  # fmt: skip
    loaded = bertwright.load(trained.out, threads=1)
    given = [["warm, kind", "cold"], ["warm, kind"], []]
    for model in (trained.model, loaded):
        header, *rows = model.task.table({"text": "the film", "predicted": labels} for labels in given)
        table = write_csv(tmp_path / "predicted.csv", rows, header)
        assert [row.answer for row in model.read(table, label="predicted")] == given


def test_a_saved_separator_that_is_none_is_named() -> None:
    config = MultiLabel(("good", "bad"), separator="|").to_config()
    assert MultiLabel.from_config(config, "config.json").separator == "|"
    for damaged in ("", 3, None):
        with pytest.raises(BertwrightError, match=r"config.json: label_separator is .*; make it a text, such as ','"):
            MultiLabel.from_config(config | {"label_separator": damaged}, "config.json")
    del config["label_separator"]  # of a model by others
    assert MultiLabel.from_config(config, "config.json").separator == ","


def test_a_label_that_holds_what_stands_between_labels_is_told() -> None:
    with pytest.warns(BertwrightWarning, match="the label 'warm, kind' holds ',', which stands .*; --format jsonl keeps"):
        list(MultiLabel(("cold", "warm, kind")).table([]))


def test_a_column_of_labels_beside_columns_of_flags_is_told(trained: bertwright.Run, tmp_path: Path) -> None:
    file = write_csv(tmp_path / "flags.csv", [("good film", "1", "0")], ("text", "good", "bad"))
    with pytest.warns(BertwrightWarning, match="--label has no effect beside --labels"):
        (row,) = trained.model.read(file, labels="good,bad", label="tags")
    assert row.labels == ("good",)


def test_the_command_line_gives_the_digits_of_python(trained: bertwright.Run, tmp_path: Path) -> None:
    test = trained.out.parent / "test.jsonl"
    flags = ("text", "good", "bad")
    rows = [(row["text"], str(int("good" in row["tags"])), str(int("bad" in row["tags"]))) for row in moods(80, 1)]
    columns = write_csv(tmp_path / "flags.csv", rows, flags)
    for data, how in ((test, ()), (columns, ("--labels", "bad,good"))):
        said = run("evaluate", trained.out, data, *how, "--out", tmp_path / data.stem, "--threads", 1)
        assert said.code == 0, said.err
        assert "threshold" in said.out
        metrics = json.loads((tmp_path / data.stem / "metrics.json").read_text())
        assert metrics == trained.metrics["test"]
    streamed = run("predict", trained.out, "-", "--threads", 1, stdin=b"good and bad\n\nthe film\n")
    answers = [json.loads(line) for line in streamed.out.splitlines()]
    expected = bertwright.load(trained.out, threads=1).predict(["good and bad", "the film"])
    assert [answers[0], answers[2]] == expected
    assert answers[1]["skipped"] == "empty"
    assert set(answers[0]["predicted"]) == {"good", "bad"}
    assert answers[2]["predicted"] == []
    table = list(
        csv.reader(run("predict", trained.out, "the good film", "--format", "csv", "--threads", 1).out.splitlines())
    )
    assert table[1][2] == "good"


def test_transformers_opens_it_and_what_transformers_saves_opens_here(trained: bertwright.Run, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    theirs = AutoModelForSequenceClassification.from_pretrained(trained.out).eval()
    tokenizer = AutoTokenizer.from_pretrained(trained.out)
    rows = moods(20, 2)
    batch = tokenizer([row["text"] for row in rows], padding=True, return_tensors="pt")
    targets = torch.tensor([[float(name in row["tags"]) for name in ("bad", "good")] for row in rows])
    with torch.inference_mode():
        output = theirs(**batch, labels=targets)
    ours = bertwright.load(trained.out, threads=1)
    evaluation = ours.evaluate([LabelledText(row["text"], "row", labels=tuple(row["tags"])) for row in rows])
    logits = [record["logits"] for record in evaluation.predictions]
    np.testing.assert_allclose(output.logits.numpy(), logits, atol=1e-5, rtol=1e-5)
    assert evaluation.metrics["loss"] == pytest.approx(float(output.loss), rel=1e-5)
    theirs.save_pretrained(tmp_path / "theirs")
    tokenizer.save_pretrained(tmp_path / "theirs")
    back = bertwright.load(tmp_path / "theirs", threads=1)
    assert isinstance(back.task, MultiLabel)
    assert isinstance(ours.task, MultiLabel)
    assert back.task.thresholds == ours.task.thresholds
    predicted = [record["predicted"] for record in back.predict([row["text"] for row in rows])]
    assert predicted == [record["predicted"] for record in evaluation.predictions]


@pytest.mark.usefixtures("plotless")
def test_positive_weights_move_the_probabilities_to_where_they_should(tiny_dir: Path, tmp_path: Path) -> None:
    # All texts are alike, so all that can be learned is how often the label is true, each time with its weight.
    same = [{"text": "the film", "label": ["rare"] * (number % 5 == 0)} for number in range(50)]
    train, few = write_jsonl(tmp_path / "train.jsonl", same), write_jsonl(tmp_path / "few.jsonl", same[:5])
    for setting, share in {"none": 0.2, "balanced": 0.5, "rare=16": 0.8}.items():
        result = bertwright.finetune(
            QUICK | {"epochs": 30}, model=tiny_dir, task="multi-label", train=train, validation=few, dropout=0.0,
            class_weights=setting, batch_size=50, learning_rate=3e-3, metric="loss", out=tmp_path / setting, console=QUIET,
        )  # fmt: skip
        assert result.model.predict("the film")[0]["probabilities"]["rare"] == pytest.approx(share, abs=0.02), setting


@pytest.mark.usefixtures("plotless")
def test_columns_seeds_and_a_frozen_encoder_go_together(tiny_dir: Path, tmp_path: Path) -> None:
    rows = [(row["text"], *(str(int(name in row["tags"])) for name in ("good", "bad"))) for row in moods(60)]
    train = write_csv(tmp_path / "train.csv", rows, ("text", "good", "bad"))
    result = bertwright.finetune(
        QUICK, model=tiny_dir, task="multi-label", train=train, labels="good,bad", freeze="encoder", head_layers=1,
        head_size=8, seeds=2, out=tmp_path / "run", console=QUIET,
    )  # fmt: skip
    assert result.model.labels == ("good", "bad")
    assert set(result.metrics["over_seeds"]["validation"]) == {"loss", "f1_micro", "f1_macro", "subset_accuracy"}
    again = bertwright.load(tmp_path / "run", threads=1)
    assert again.predict("good") == result.model.predict("good")


def test_a_bad_line_ends_the_run_before_it_begins(tiny_dir: Path, tmp_path: Path) -> None:
    train = write_csv(tmp_path / "train.csv", [("a film", "1", "0"), ("the day", "1", "often")], ("text", "good", "bad"))
    options = ("--task", "multi-label", "--model", tiny_dir, "--out", tmp_path / "run", "--max-length", 24)
    said = run("finetune", *options, "--train", train, "--labels", "good,bad")
    assert said.error == f"{train}:3: the column 'bad' has 'often', where --labels wants 0 or 1"
    said = run("finetune", *options, "--train", train, "--labels", "good,bda")
    assert said.error.startswith(f"{train}:1: no column 'bda' for --labels; did you mean 'bad'?")
    write_csv(train, [("a film", "1", "0"), ("the day", "1", "1")], ("text", "good", "bad"))
    said = run("finetune", *options, "--train", train, "--labels", "good,bad", "--label", "tags")
    assert said.error == "--label and --labels both say where the labels are: give one of them"
    assert not list(tmp_path.glob("run*"))


def test_thresholds_of_something_unknown_are_refused() -> None:
    with pytest.raises(BertwrightError, match="--thresholds"):
        Recipe.of({"thresholds": "best"})


# -------------------------------------------------------------------------------------------------------------- real data


@pytest.mark.shared_data
@pytest.mark.usefixtures("plotless")
def test_the_words_of_banking77s_intents(shared: Path, tiny_dir: Path, tmp_path: Path) -> None:
    example = runpy.run_path(str(EXAMPLE))
    for split in ("train", "test"):
        example["write_words"](shared / "textclass" / "banking77" / f"{split}.csv", tmp_path / f"{split}.jsonl")
    recipe = Recipe(label="labels")
    rows = {split: list(MultiLabel.read(tmp_path / f"{split}.jsonl", recipe, labelled=True)) for split in ("train", "test")}
    own = list(MultiLabel.read(OWN_TEST, recipe, labelled=True))
    task = MultiLabel.learn(rows["train"], recipe)
    assert (len(rows["train"]), len(rows["test"]), len(own), len(task.labels)) == (10003, 3080, 36, 110)
    assert task.targets(rows["test"]).sum() / 3080 == pytest.approx(3.273, abs=0.001)
    own_targets = task.targets(own)
    assert (own_targets.sum(1) == 0).sum() == 2
    card = task.labels.index("card")
    assert task.log_odds[card] == pytest.approx(math.log(3016 / (10003 - 3016)), abs=0.01)


@pytest.mark.usefixtures("plotless")
def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("tiny_model.POSITIONS", 128)
    model = write_tiny_model(tmp_path / "model")
    intents = {word for line in OWN_TEST.read_text().splitlines() for word in json.loads(line)["labels"]}
    for split in ("train", "test"):
        given = [(f"the {GOOD[number % 5]} film", f"{word}_{min(intents)}") for number, word in enumerate(sorted(intents))]
        write_csv(tmp_path / f"{split}.csv", given, ("text", "category"))
    arguments = [str(EXAMPLE), str(tmp_path), "--model", str(model), "--out", str(tmp_path / "run"), "--epochs", "1"]
    monkeypatch.setattr("sys.argv", arguments)
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    said = capsys.readouterr().out
    for name, count in (("official", len(intents)), ("own", 36)):
        report = said.partition(f"{name} test rows")[2]
        assert re.search(r"F1, micro +\d\.\d{3}", report)
        assert re.search(rf"examples +{count}\b", report)
