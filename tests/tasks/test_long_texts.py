"""Texts in windows: a text counts once, all of it is read, and short texts are as they always were."""

from __future__ import annotations

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

import bertwright
from bertwright import BertwrightError, finetune
from bertwright.arrays import softmax
from bertwright.data.examples import Example
from bertwright.data.inputs import Inputs
from bertwright.data.labelled import LabelledText
from bertwright.data.packing import TokenTable
from bertwright.evaluation.label_sets import tuned_thresholds
from bertwright.tasks.classification import Classification
from bertwright.tasks.multi_label import MultiLabel
from bertwright.tasks.regression import Regression
from command_line import run
from tiny_model import BAD, GOOD, PLAIN, QUICK, rows, write_jsonl, write_tsv

pytestmark = pytest.mark.usefixtures("plotless")
QUIET = Console(quiet=True)
AB = Classification(("a", "b", "c"))


def windowed(labels: str, counts: list[int]) -> Inputs:
    """Texts as if each had so many windows of [CLS] [SEP]."""
    examples = [Example(text="t", where=f"f:{i}", label=label) for i, label in enumerate(labels)]
    table = TokenTable([[1, 2]] * sum(counts), [[0, 0]] * sum(counts))
    return Inputs(examples, table, np.cumsum([0, *counts]), np.zeros(len(counts), dtype=np.int64))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 6)), min_size=1, max_size=8), st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_a_text_counts_once_in_training_and_is_judged_by_the_mean_of_its_windows(
    texts: list[tuple[str, int]], seed: int
) -> None:
    labels, counts = "".join(label for label, _ in texts), [count for _, count in texts]
    inputs = windowed(labels, counts)
    generator = np.random.default_rng(seed)
    weights_C, logits_WC = generator.uniform(0.2, 3, 3), generator.normal(size=(sum(counts), 3)) * 4
    loss = AB.loss(inputs, weights_C)
    assert len(loss.weight_U) == len(AB.units(inputs)) - 1 == sum(counts)
    targets = ["abc".index(label) for label in labels]
    split = torch.split(torch.from_numpy(logits_WC), counts)
    means = [F.cross_entropy(part, torch.tensor([t] * len(part))).item() for part, t in zip(split, targets, strict=True)]
    expected = np.average(means, weights=weights_C[targets])
    assert loss.mean(logits_WC) == pytest.approx(expected)
    # In any batches, in any order.
    order = generator.permutation(sum(counts))
    sums = [float(loss.sum(torch.from_numpy(logits_WC[part]), part)) for part in np.array_split(order, 3) if len(part)]
    assert sum(sums) / loss.weight_U.sum() == pytest.approx(expected)

    judged = AB.example_loss(inputs, weights_C)
    pooled = torch.stack([part.mean(0) for part in split])
    reference = F.cross_entropy(pooled, torch.tensor(targets), torch.from_numpy(weights_C))
    assert judged.mean(logits_WC) == pytest.approx(float(reference))
    assert judged.mean(logits_WC) <= expected + 1e-9  # cross-entropy is convex

    answers = AB.decode(logits_WC, inputs)
    assert [answer.get("windows", 1) for answer in answers] == counts
    np.testing.assert_allclose([answer["logits"] for answer in answers], pooled.numpy())
    np.testing.assert_allclose([list(a["probabilities"].values()) for a in answers], softmax(pooled.numpy()))
    hits = [answer["predicted"] == label for answer, label in zip(answers, labels, strict=True)]
    assert AB.scores(logits_WC, inputs)["accuracy"] == pytest.approx(np.mean(hits))
    if len({*labels, *(answer["predicted"] for answer in answers)}) > 1:  # scikit-learn warns otherwise
        assert AB.measure(logits_WC, inputs, "accuracy")["accuracy"] == pytest.approx(np.mean(hits))


@given(
    st.lists(st.tuples(st.booleans(), st.booleans(), st.floats(-3, 3), st.integers(1, 5)), min_size=2, max_size=7),
    st.integers(0, 99),
)
@settings(deadline=None, max_examples=40)
def test_labels_and_scores_are_learned_and_judged_by_windows_too(
    texts: list[tuple[bool, bool, float, int]], seed: int
) -> None:
    counts = [text[3] for text in texts]
    generator = np.random.default_rng(seed)
    outputs_WC = generator.normal(size=(sum(counts), 2)) * 3
    weights_C = generator.uniform(0.2, 3, 2)
    split = torch.split(torch.from_numpy(outputs_WC), counts)
    pooled = torch.stack([part.mean(0) for part in split])

    def inputs_of(examples: list[Any]) -> Inputs:
        return Inputs(
            examples, windowed("a" * len(counts), counts).table, np.cumsum([0, *counts]), np.zeros(len(counts), int)
        )

    true = torch.tensor([text[:2] for text in texts], dtype=torch.float64)
    labels = [tuple(name for name, has in zip("xy", text[:2], strict=True) if has) for text in texts]
    task = MultiLabel(("x", "y"), tuning="shared")
    inputs = inputs_of([LabelledText("t", f"f:{i}", labels=given) for i, given in enumerate(labels)])

    def entropy(logits: torch.Tensor, targets: torch.Tensor) -> float:
        return F.binary_cross_entropy_with_logits(logits, targets, pos_weight=torch.from_numpy(weights_C)).item()

    means = [entropy(part, truth.expand(len(part), 2)) for part, truth in zip(split, true, strict=True)]
    assert task.loss(inputs, weights_C).mean(outputs_WC) == pytest.approx(np.mean(means))
    assert task.example_loss(inputs, weights_C).mean(outputs_WC) == pytest.approx(entropy(pooled, true))
    answers = task.decode(outputs_WC, inputs)
    assert [answer.get("windows", 1) for answer in answers] == counts
    np.testing.assert_allclose([answer["logits"] for answer in answers], pooled.numpy())
    exact = [set(answer["predicted"]) == set(given) for answer, given in zip(answers, labels, strict=True)]
    assert task.scores(outputs_WC, inputs)["subset_accuracy"] == pytest.approx(np.mean(exact))
    thresholds_C = tuned_thresholds(true.numpy() > 0, torch.sigmoid(pooled).numpy(), per_label=False)
    tuned = task.tuned(outputs_WC, inputs)
    assert tuned.thresholds == pytest.approx(tuple(thresholds_C))
    given_BC = torch.sigmoid(pooled).numpy() >= thresholds_C
    assert tuned.measure(outputs_WC, inputs, "f1_micro")["subset_accuracy"] == pytest.approx(
        (given_BC == (true.numpy() > 0)).all(1).mean()
    )
    assert task.describe(inputs).endswith(described := _described(counts))

    values = torch.tensor([text[2] for text in texts], dtype=torch.float64)
    inputs = inputs_of([Example("t", f"f:{i}", label=repr(text[2])) for i, text in enumerate(texts)])
    squares = [(part[:, 0] - value).square().mean().item() for part, value in zip(split, values, strict=True)]
    score, one = Regression(), np.ones(1)
    assert score.describe(inputs).endswith(described)
    assert score.loss(inputs, one).mean(outputs_WC[:, :1]) == pytest.approx(np.mean(squares))
    judged = score.example_loss(inputs, one).mean(outputs_WC[:, :1])
    assert judged == pytest.approx((pooled[:, 0] - values).square().mean().item())
    found = score.decode(outputs_WC[:, :1], inputs)
    assert [answer.get("windows", 1) for answer in found] == counts
    np.testing.assert_allclose([answer["predicted"] for answer in found], pooled[:, 0].numpy())


def _described(counts: list[int]) -> str:
    long = [count for count in counts if count > 1]
    return f"; {len(long)} longer texts in {sum(long)} windows" if long else ""


def long_rows(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Texts of 50 to 90 plain words; those past the first 30 have some good or some bad words among them."""
    draw = random.Random(seed)
    made = []
    for number in range(count):
        words = draw.choices(PLAIN, k=draw.randint(50, 90))
        for place in draw.sample(range(30, len(words)), 5):
            words[place] = draw.choice(BAD if number % 2 else GOOD)
        made.append((" ".join(words), str(1 - number % 2)))
    return made


def test_without_long_texts_a_stride_changes_no_bit(tiny_dir: Path, tmp_path: Path) -> None:
    train = write_tsv(tmp_path / "t.tsv", rows(40))
    made = [
        finetune(QUICK, model=tiny_dir, train=train, test=train, out=tmp_path / name, console=QUIET, **options)
        for name, options in (("cut", {}), ("windows", {"stride": 8}))
    ]
    held = [load_file(one.out / "model.safetensors") for one in made]
    assert all(torch.equal(value, held[1][name]) for name, value in held[0].items())
    lines = [(one.out / "test" / "predictions.jsonl").read_text() for one in made]
    assert lines[0] == lines[1]
    assert made[0].metrics["test"] == made[1].metrics["test"]


def test_what_stands_past_the_first_window_is_learned(tiny_dir: Path, tmp_path: Path) -> None:
    # Cut at 24 tokens, these texts would say nothing of their labels.
    train, test = write_tsv(tmp_path / "t.tsv", long_rows(160)), write_tsv(tmp_path / "e.tsv", long_rows(60, seed=1))
    out = tmp_path / "run"
    shown = run(
        *("finetune", "--model", tiny_dir, "--train", train, "--test", test, "--out", out, "--stride", "4"),
        *("--max-length", "24", "--learning-rate", "1e-2", "--epochs", "6", "--device", "cpu", "--threads", "1"),
    )
    assert shown.code == 0, shown.err
    assert "144 longer texts in" in shown.err
    assert "were cut" not in shown.err
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["test"]["accuracy"] > 0.85
    assert metrics["test"]["examples"] == 60

    model = bertwright.load(out, device="cpu")
    texts = [text for text, _ in long_rows(6, seed=1)]
    answers = model.predict([*texts, "a good film"])
    expected = [json.loads(line) for line in (out / "test" / "predictions.jsonl").read_text().splitlines()[:6]]
    assert [a["predicted"] for a in answers[:6]] == [e["predicted"] for e in expected]
    np.testing.assert_allclose([a["logits"] for a in answers[:6]], [e["logits"] for e in expected], atol=1e-5)
    assert all(a["windows"] > 2 for a in answers[:6])
    assert "windows" not in answers[6]
    assert not any("cut" in a for a in answers)
    # The logits are the mean of what the model says of each window alone.
    inputs = model.encode([Example(texts[0], "t")])
    assert answers[0]["logits"] == pytest.approx(model.outputs(inputs).mean(0).tolist(), abs=1e-6)
    evaluated = model.evaluate(test)
    assert evaluated.metrics["loss"] == pytest.approx(metrics["test"]["loss"], rel=1e-5)
    targets = [int(row["true"]) for row in evaluated.predictions]
    pooled = torch.tensor([row["logits"] for row in evaluated.predictions])
    assert evaluated.metrics["loss"] == pytest.approx(F.cross_entropy(pooled, torch.tensor(targets)).item(), rel=1e-5)


@pytest.mark.parametrize(
    ("task", "metric"), [("multi-label", "f1_micro"), ("regression", "pearson")], ids=["multi-label", "regression"]
)
def test_labels_and_scores_past_the_first_window_are_learned(tiny_dir: Path, tmp_path: Path, task: str, metric: str) -> None:
    def answer(text: str, label: int) -> Any:
        return label + len(text) % 5 / 100 if task == "regression" else [["bad"], ["good", "nice"]][label]

    def table(count: int, seed: int) -> list[dict[str, Any]]:
        return [{"text": text, "label": answer(text, int(label))} for text, label in long_rows(count, seed)]

    train, test = write_jsonl(tmp_path / "t.jsonl", table(160, 0)), write_jsonl(tmp_path / "e.jsonl", table(60, 1))
    made = finetune(
        QUICK, model=tiny_dir, task=task, train=train, test=test, out=tmp_path / "run", stride=4, max_length=24,
        learning_rate=1e-2, epochs=6, console=QUIET,
    )  # fmt: skip
    assert made.metrics["test"][metric] > 0.7
    texts = [row["text"] for row in table(4, 1)]
    answers = made.model.predict([*texts, "a good film"])
    assert [answer.get("windows", 1) > 2 for answer in answers] == [True] * 4 + [False]
    assert not any("cut" in answer for answer in answers)
    again = made.model.evaluate(test).metrics
    assert again["loss"] == pytest.approx(made.metrics["test"]["loss"], rel=1e-5)


@pytest.mark.parametrize("options", [{"freeze": "encoder", "head_layers": 1, "head_size": 8}, {"accumulate": 3}])
def test_windows_go_with_frozen_encoders_and_accumulation(tiny_dir: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    train = write_tsv(tmp_path / "t.tsv", [*long_rows(16), *rows(16)])
    made = finetune(
        QUICK,
        model=tiny_dir,
        train=train,
        validation=train,
        out=tmp_path / "run",
        stride=4,
        epochs=1,
        console=QUIET,
        **options,
    )
    history = [json.loads(line) for line in (made.out / "history.jsonl").read_text().splitlines()]
    again = made.model.evaluate(train).metrics
    assert history[-1]["loss"] == pytest.approx(again["loss"], rel=1e-5)
    assert history[-1]["accuracy"] == again["accuracy"]


def test_pairs_in_windows(tiny_dir: Path, tmp_path: Path) -> None:
    table = [{"a": "the film", "b": text, "label": label} for text, label in long_rows(24)]
    made = finetune(
        QUICK, model=tiny_dir, train=write_jsonl(tmp_path / "p.jsonl", table), text="a", pair="b", out=tmp_path / "run",
        stride=4, epochs=1, console=QUIET,
    )  # fmt: skip
    (answer,) = made.model.predict("the film", table[0]["b"])
    assert answer["windows"] > 2
    with pytest.raises(BertwrightError, match=r"text 1: the shorter text of this pair has 30 tokens"):
        made.model.predict("cat " * 30, "cat " * 31)


def test_a_stride_as_long_as_a_window_is_refused_before_the_work(tiny_dir: Path, tmp_path: Path) -> None:
    train = write_tsv(tmp_path / "t.tsv", rows(20))
    with pytest.raises(BertwrightError, match="--stride 22 is all that a window of --max-length 24 holds"):
        finetune(QUICK, model=tiny_dir, train=train, out=tmp_path / "run", stride=22, console=QUIET)
    assert not list(tmp_path.glob("run*"))
