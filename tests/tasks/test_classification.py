"""Classification: labels, weights, loss and measures, each against another's arithmetic."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import accuracy_score, f1_score, log_loss, matthews_corrcoef
from sklearn.utils.class_weight import compute_class_weight

from bertwright.arrays import softmax
from bertwright.data.examples import Example
from bertwright.data.inputs import Inputs
from bertwright.data.packing import TokenTable
from bertwright.errors import BertwrightError
from bertwright.model import BertConfig
from bertwright.tasks.classification import Classification
from bertwright.training.recipe import Recipe

ABC = Classification(("a", "b", "c"))


def examples(*labels: str | None, sources: list[str] | None = None) -> list[Example]:
    return [
        Example(text="t", where=f"f.tsv:{i + 2}", label=label, source=sources[i] if sources else None)
        for i, label in enumerate(labels)
    ]


def inputs(rows: list[Example]) -> Inputs:
    """Rows as if each were encoded as [CLS] [SEP]."""
    table = TokenTable([[1, 2]] * len(rows), [[0, 0]] * len(rows))
    return Inputs(rows, table, np.arange(len(rows) + 1), np.zeros(len(rows), dtype=np.int64))


@pytest.mark.filterwarnings("ignore:.*are two labels")
@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["1", "0", "1"], ("0", "1")),
        (["10", "9", "-1"], ("-1", "9", "10")),
        (["b", "B", "a"], ("B", "a", "b")),
        (["x", "2", "10"], ("2", "10", "x")),
        (["1", "1.0", "01"], ("01", "1", "1.0")),
        (["nan", "1", "0", "inf"], ("0", "1", "inf", "nan")),
    ],
)
def test_labels_are_in_numeric_order_then_alphabetical_whatever_the_order_of_rows(
    labels: list[str], expected: tuple[str, ...]
) -> None:
    for seed in range(5):
        random.Random(seed).shuffle(labels)
        assert Classification.learn(examples(*labels), Recipe()).labels == expected


def test_one_class_is_refused() -> None:
    with pytest.raises(BertwrightError) as caught:
        Classification.learn(examples("x", "x"), Recipe())
    assert str(caught.value) == (
        "f.tsv:2: all 2 training rows have the label 'x'; a classifier needs at least two classes: "
        "does --label name the right column?"
    )


def test_targets_are_the_places_of_labels() -> None:
    assert ABC.targets(examples("c", "a", "b", "a")).tolist() == [2, 0, 1, 0]


@pytest.mark.parametrize("label", ["aa", None])
def test_a_label_that_training_did_not_have_is_named_with_its_row(label: str | None) -> None:
    with pytest.raises(BertwrightError) as caught:
        ABC.targets(examples("a", label))
    assert str(caught.value).startswith(f"f.tsv:3: the label {label!r} does not occur in the training rows")
    assert str(caught.value).endswith("(known: a, b, c)")


def test_of_many_labels_the_message_shows_eight_and_the_closest() -> None:
    task = Classification(tuple(f"intent_{i}" for i in range(77)))
    with pytest.raises(BertwrightError, match=r"did you mean 'intent_76'\? \(known: intent_0, .*, intent_7, …\)"):
        task.targets(examples("intent-76"))


@given(st.lists(st.integers(0, 2), min_size=1, max_size=50).filter(lambda t: len(set(t)) == 3))
def test_balanced_weights_are_those_of_scikit_learn(targets: list[int]) -> None:
    expected = compute_class_weight("balanced", classes=np.arange(3), y=np.array(targets))
    found = ABC.class_weights("balanced", inputs(examples(*("abc"[target] for target in targets))))
    np.testing.assert_allclose(found, np.asarray(expected))


def test_explicit_weights_are_taken_by_name_and_default_to_one() -> None:
    rows = inputs(examples("a", "b", "c"))
    assert ABC.class_weights("none", rows).tolist() == [1, 1, 1]
    assert ABC.class_weights("c=2.5, a=0.5", rows).tolist() == [0.5, 1, 2.5]
    assert Classification(("x=y", "z")).class_weights("x=y=3", None).tolist() == [3, 1]
    assert Classification(("a, b", "c")).class_weights("c=0.5,a, b=2", None).tolist() == [2, 0.5]


def test_classes_that_never_occur_do_not_count_for_the_balance() -> None:
    found = Classification(tuple("abcd")).class_weights("balanced", inputs(examples("a", "a", "a", "c")))
    np.testing.assert_allclose(found, [4 / (2 * 3), 1, 4 / 2, 1])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "balance",
            "--class-weights: no class 'balance' (classes: a, b, c); use none, balanced, or name=weight,name=weight",
        ),
        (
            "aa=2",
            "--class-weights: no class 'aa'; did you mean 'a'? (classes: a, b, c); use none, balanced, or name=weight,"
            "name=weight",
        ),
        ("a=2,", "--class-weights: no class '' (classes: a, b, c); use none, balanced, or name=weight,name=weight"),
        ("a=2,xyz", "--class-weights: no class 'xyz' (classes: a, b, c); use none, balanced, or name=weight,name=weight"),
        ("a=x", "--class-weights: 'x' is no weight for 'a'; use a number above 0"),
        ("a=-1", "--class-weights: '-1' is no weight for 'a'; use a number above 0"),
        ("a=0", "--class-weights: '0' is no weight for 'a'; use a number above 0"),
        ("a=inf", "--class-weights: 'inf' is no weight for 'a'; use a number above 0"),
        ("a=nan", "--class-weights: 'nan' is no weight for 'a'; use a number above 0"),
        ("a=", "--class-weights: '' is no weight for 'a'; use a number above 0"),
    ],
)
def test_wrong_weights_are_refused(setting: str, message: str) -> None:
    with pytest.raises(BertwrightError) as caught:
        ABC.class_weights(setting, None)
    assert str(caught.value) == message


logits = arrays(np.float64, st.tuples(st.integers(1, 30), st.just(3)), elements=st.floats(-50, 50))


@given(logits, st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_the_loss_and_measures_are_those_of_scikit_learn(logits_BC: np.ndarray[Any, Any], seed: int) -> None:
    random = np.random.default_rng(seed)
    targets = random.integers(0, 3, len(logits_BC))
    weights = random.uniform(0.1, 5, 3)
    rows = inputs(examples(*("abc"[target] for target in targets)))
    found = ABC.scores(logits_BC, rows)
    loss = ABC.loss(rows, weights)
    units = np.arange(len(targets))
    mean = loss.mean(logits_BC)
    in_float32 = float(loss.sum(torch.from_numpy(logits_BC).float(), units)) / loss.weight_U.sum()
    backwards = loss.sum(torch.from_numpy(logits_BC[::-1].copy()), units[::-1].copy())
    # A probability that rounds to 0 has no logarithm in scikit-learn, so it is not tried where that happens.
    probabilities = softmax(logits_BC)
    predicted = logits_BC.argmax(1)
    assert found["accuracy"] == pytest.approx(accuracy_score(targets, predicted))
    assert found["f1_macro"] == pytest.approx(f1_score(targets, predicted, average="macro"))
    if len({*targets, *predicted}) > 1:  # scikit-learn warns otherwise
        assert found["matthews_correlation"] == pytest.approx(matthews_corrcoef(targets, predicted), abs=1e-12)
    np.testing.assert_allclose(loss.weight_U, weights[targets])
    assert in_float32 == pytest.approx(mean, rel=1e-4, abs=1e-5)
    assert float(backwards) / weights[targets].sum() == pytest.approx(mean, rel=1e-9, abs=1e-12)
    if probabilities.min() > 1e-12:
        expected = log_loss(targets, probabilities, sample_weight=weights[targets], labels=[0, 1, 2])
        assert mean == pytest.approx(expected, rel=1e-6, abs=1e-9)


@given(arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(2, 5)), elements=st.floats(-1e6, 1e6)))
def test_probabilities_sum_to_one_and_do_not_overflow(logits_BC: np.ndarray[Any, Any]) -> None:
    np.testing.assert_allclose(softmax(logits_BC), torch.from_numpy(logits_BC).softmax(1).numpy(), atol=1e-12)


def test_predictions_are_by_name() -> None:
    (answer,) = ABC.decode(np.log(np.array([[0.25, 0.5, 0.25]])), inputs(examples(None)))
    assert answer["predicted"] == "b"
    assert answer["probability"] == pytest.approx(0.5)
    assert answer["probabilities"] == pytest.approx({"a": 0.25, "b": 0.5, "c": 0.25})
    assert answer["logits"] == pytest.approx(np.log([0.25, 0.5, 0.25]).tolist())


def test_a_measurement_has_a_table_per_source_where_every_row_has_one() -> None:
    sources = ["s1", "s2", "s1", "s1"]
    rows = examples("a", "b", "c", "a", sources=sources)
    logits_BC = np.eye(3)[[0, 1, 2, 1]] * 4
    found = ABC.measure(logits_BC, inputs(rows), "f1_macro")
    assert found["headline"]["metric"] == "f1_macro"
    assert {name: part["examples"] for name, part in found["per_source"].items()} == {"s1": 3, "s2": 1}
    assert found["per_source"]["s1"]["accuracy"] == pytest.approx(2 / 3)
    assert found["accuracy"] == 0.75
    assert "per_source" not in ABC.measure(logits_BC, inputs(examples("a", "b", "c", "a")), "accuracy")


def test_the_balance_names_the_most_frequent_labels_first() -> None:
    rows = inputs(examples(*"b" * 1200, "a", "a", "c"))
    assert ABC.describe(rows) == "labels: b (1,200), a (2), c (1)"
    many = Classification(tuple("abcdefgh"))
    assert many.describe(inputs(examples(*"abcdefgh"))).endswith("f (1), … (8 labels)")


def test_config_gives_the_task_back() -> None:
    task = Classification(("负面", "a b", "1"))
    config = task.to_config()
    assert Classification.from_config(config, "c") == task
    assert config["label2id"] == {"负面": 0, "a b": 1, "1": 2}


def test_a_config_that_says_nothing_of_labels_has_the_two_of_transformers() -> None:
    from transformers import BertConfig as Theirs

    assert Classification.from_config(Theirs().to_diff_dict(), "c").labels == tuple(Theirs().id2label.values())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"id2label": {"0": "a", "2": "b"}}, "config.json: id2label is damaged: it must map 0, 1, … to names"),
        ({"id2label": {"a": "0", "b": "1"}}, "config.json: id2label is damaged: it must map 0, 1, … to names"),
        ({"id2label": ["a", "b"]}, "config.json: id2label is damaged: it must map 0, 1, … to names"),
        ({"id2label": {"0": "a"}}, "config.json: id2label has 1 labels; a classifier needs at least two classes"),
        ({"id2label": {"0": "a", "1": "a"}}, "config.json: id2label gives two classes one name; give each its own"),
        ({"problem_type": "regression"}, "config.json: problem_type is 'regression'; only single_label_classification"),
    ],
)
def test_a_config_of_something_else_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(BertwrightError) as caught:
        Classification.from_config(config, "config.json")
    assert str(caught.value).startswith(message)


def test_the_model_has_a_row_for_each_class() -> None:
    config = BertConfig(vocab_size=10, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    model = ABC.build(config, head_layers=2, head_size=5)
    assert [layer.get_parameter("weight").shape for layer in model.head] == [(5, 8), (5, 5), (3, 5)]
