"""Smoothed labels against torch's own, R-Drop against two plain passes, divergences against torch's distributions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, kl_divergence

from bertwright.data.examples import Example
from bertwright.data.inputs import Inputs
from bertwright.data.packing import TokenTable
from bertwright.data.tagged import TaggedExample
from bertwright.model import BertConfig, SequenceClassifier
from bertwright.noise import Noise
from bertwright.tasks.classification import Classification
from bertwright.tasks.regularisation import TrainingLoss, classes_apart, labels_apart, values_apart, weighted
from bertwright.tasks.tagging import Tagging
from bertwright.tasks.task import Loss
from bertwright.training.recipe import Recipe

CLASSES = ("a", "b", "c")


def loss_of(targets: list[int], weights: list[float]) -> Loss:
    examples = [Example(text="t", where="here", label=CLASSES[target]) for target in targets]
    table = TokenTable([[1, 2]] * len(targets), [[0, 0]] * len(targets))
    inputs = Inputs(examples, table, np.arange(len(targets) + 1), np.zeros(len(targets), dtype=np.int64))
    return Classification(CLASSES).loss(inputs, np.array(weights))


def random_logits(count: int, seed: int) -> Tensor:
    logits: Tensor = 5 * torch.randn(count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return logits.requires_grad_()


problems = st.tuples(
    st.lists(st.integers(0, 2), min_size=1, max_size=9),
    st.lists(st.floats(0.1, 10), min_size=3, max_size=3),
    st.integers(0, 10**6),
)


# ------------------------------------------------------------------------------------------------------ smoothed labels


@given(problems, st.floats(0, 0.99))
@settings(max_examples=60, deadline=None)
def test_smoothing_is_that_of_torch_with_class_weights(
    problem: tuple[list[int], list[float], int], smoothing: float
) -> None:
    targets, weights, seed = problem
    logits, same = random_logits(len(targets), seed), random_logits(len(targets), seed)
    loss = loss_of(targets, weights)
    units = np.arange(len(targets))
    got = TrainingLoss(loss, smoothing=smoothing).sum(logits, units) / loss.weight_U.sum()
    weight_C = torch.tensor(weights, dtype=torch.float64)
    expected = F.cross_entropy(same, torch.tensor(targets), weight_C, label_smoothing=smoothing)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    torch.autograd.backward([got, expected])
    torch.testing.assert_close(logits.grad, same.grad, rtol=1e-9, atol=1e-12)


def test_without_any_of_it_the_loss_is_the_tasks_own_to_the_bit() -> None:
    loss = loss_of([0, 2, 1], [1.0, 2.0, 3.0])
    logits = random_logits(3, 0).detach().float()
    plain = TrainingLoss.of(loss, Recipe())
    assert torch.equal(plain.sum(logits, np.arange(3)), loss.sum(logits, np.arange(3)))
    assert plain.rows(np.arange(3)).tolist() == [0, 1, 2]


def test_a_task_without_classes_is_not_smoothed_and_one_without_a_divergence_is_passed_once() -> None:
    loss = Loss(np.ones(2), lambda outputs, _: outputs.square().sum())
    trained = TrainingLoss.of(loss, Recipe.of({"label_smoothing": 0.1, "r_drop": 3}))
    assert (trained.smoothing, trained.agreement) == (0.0, 0.0)
    assert float(trained.sum(torch.tensor([[1.0], [2.0]]), trained.rows(np.arange(2)))) == 5


# ---------------------------------------------------------------------------------------------------------- divergences


@given(st.integers(0, 10**6), st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_divergences_are_the_mean_of_kl_both_ways(seed: int, rows: int) -> None:
    first, second = random_logits(rows, seed).detach(), random_logits(rows, seed + 1).detach()
    one, other = Categorical(logits=first), Categorical(logits=second)
    expected = (kl_divergence(one, other) + kl_divergence(other, one)) / 2
    torch.testing.assert_close(classes_apart(first, second), expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(classes_apart(first + 7, second - 3), expected, rtol=1e-9, atol=1e-9)
    yes, no = Bernoulli(logits=first), Bernoulli(logits=second)
    each = (kl_divergence(yes, no) + kl_divergence(no, yes)) / 2
    torch.testing.assert_close(labels_apart(first, second), each.mean(-1), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(values_apart(first, second), F.mse_loss(first, second, reduction="none").sum(-1))
    for apart in (classes_apart, labels_apart, values_apart):
        assert apart(first, first).tolist() == [0] * rows
        torch.testing.assert_close(apart(first, second), apart(second, first))


def test_what_is_no_class_of_a_row_counts_for_nothing() -> None:
    first, second = random_logits(2, 0), random_logits(2, 1)
    absent = torch.tensor([[False, False, True], [False, True, False]])
    padded = classes_apart(first.masked_fill(absent, -torch.inf), second.masked_fill(absent, -torch.inf))
    alone = [classes_apart(first[i][~absent[i]][None], second[i][~absent[i]][None]) for i in (0, 1)]
    torch.testing.assert_close(padded, torch.cat(alone))
    torch.autograd.backward(padded.sum())
    assert first.grad is not None
    assert torch.isfinite(first.grad).all()
    assert first.grad[absent].tolist() == [0, 0]
    assert (first.grad[~absent] != 0).all()


def test_outputs_in_half_precision_are_compared_in_float32() -> None:
    first, second = random_logits(4, 0).detach().bfloat16(), random_logits(4, 1).detach().bfloat16()
    for apart in (classes_apart, labels_apart, values_apart):
        assert apart(first, second).dtype == torch.float32
        torch.testing.assert_close(apart(first, second), apart(first.float(), second.float()))


def test_each_row_counts_with_the_weight_of_its_unit() -> None:
    divergence = weighted(values_apart, np.array([1.0, 10.0, 100.0]))
    first, second = torch.tensor([[1.0], [5.0]]), torch.tensor([[3.0], [6.0]])
    assert float(divergence(first, second, np.array([2, 0]))) == 401


# --------------------------------------------------------------------------------------------------------------- R-Drop


class Recorded(Noise):
    """Keeps every mask that it draws."""

    def __init__(self) -> None:
        super().__init__(0, 0)
        self.masks: list[Tensor] = []

    def mask(self, shape: tuple[int, ...], probability: float) -> Tensor:
        self.masks.append(super().mask(shape, probability))
        return self.masks[-1]


class Replayed(Noise):
    """Gives back given masks, in their order."""

    def __init__(self, masks: list[Tensor]) -> None:
        super().__init__(0, 0)
        self.masks = iter(masks)

    def mask(self, shape: tuple[int, ...], probability: float) -> Tensor:
        mask = next(self.masks)
        assert tuple(mask.shape) == shape
        return mask


def gradients(model: SequenceClassifier) -> dict[str, Any]:
    found = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    return found


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_one_packed_batch_of_doubled_rows_is_two_plain_passes(smoothing: float) -> None:
    # Attention's masks have shapes of its own; with the others the rows of each pass can be told apart.
    config = BertConfig(
        vocab_size=40, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12,
        hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.0, initializer_range=0.3,
    )  # fmt: skip
    torch.manual_seed(0)
    model = SequenceClassifier(config, 3)
    ids = [[2, 7, 9, 3], [2, 5, 3], [2, 8, 8, 8, 3], [2, 30, 6, 4, 31, 3]]
    table = TokenTable(ids, [[0] * len(row) for row in ids])
    loss = loss_of([0, 2, 1, 0], [1.0, 2.0, 0.5])
    trained = TrainingLoss(loss, smoothing=smoothing, agreement=1.7)
    units = np.array([3, 0, 2])

    noise = Recorded()
    batch = table.pack(trained.rows(units))
    assert batch.tokens == 2 * (6 + 4 + 5)
    together = trained.sum(model(batch, noise).index_select(0, batch.callers_order()), units)
    torch.autograd.backward(together)
    got = gradients(model)

    # The doubled batch is sorted: length 4 twice, 5 twice, 6 twice. Which of the two a row belongs to says ``order``.
    outputs = []
    for which in (0, 1):
        mine_B = (batch.order // len(units)) == which
        mine_T = np.repeat(mine_B, batch.sequences.lengths)
        masks = [mask[torch.from_numpy(mine_T if len(mask) == batch.tokens else mine_B)] for mask in noise.masks]
        single = table.pack(units)
        outputs.append(model(single, Replayed(masks)).index_select(0, single.callers_order()))
    first, second = outputs
    assert float((first - second).detach().abs().min()) > 0  # other masks in each pass
    targets, weight_C = torch.tensor([0, 0, 1]), torch.tensor([1.0, 2.0, 0.5])
    entropies = sum(
        F.cross_entropy(logits, targets, weight_C, reduction="sum", label_smoothing=smoothing) for logits in outputs
    )
    p, q = F.log_softmax(first, -1), F.log_softmax(second, -1)
    both_ways = F.kl_div(p, q, reduction="none", log_target=True) + F.kl_div(q, p, reduction="none", log_target=True)
    apart = (both_ways.sum(-1) / 2 * weight_C[targets]).sum()
    expected = entropies / 2 + 1.7 * apart
    assert isinstance(expected, Tensor)
    assert float(apart.detach()) > 0.01
    torch.testing.assert_close(together, expected, rtol=1e-5, atol=1e-6)
    torch.autograd.backward(expected)
    torch.testing.assert_close(got, gradients(model), rtol=1e-4, atol=1e-6)


def test_without_dropout_two_passes_are_as_one() -> None:
    loss = loss_of([0, 1], [1.0, 1.0, 1.0])
    logits = random_logits(2, 3).detach()
    twice = TrainingLoss(loss, agreement=5.0).sum(torch.cat([logits, logits]), np.arange(2))
    torch.testing.assert_close(twice, loss.sum(logits, np.arange(2)))


def test_of_words_each_counts_with_the_weight_of_its_tag() -> None:
    examples = [TaggedExample.of_words(["a", "b"], "x:1", ["N", "V"]), TaggedExample.of_words(["c"], "x:3", ["V"])]
    table = TokenTable([[1, 2, 3, 4], [1, 2, 3]], [[0] * 4, [0] * 3], [[1, 2], [1]])
    inputs = Inputs(examples, table, np.arange(3), np.zeros(2, dtype=np.int64))
    weights = np.array([2.0, 0.5])
    loss = Tagging(("N", "V"), "plain").loss(inputs, weights)
    first, second = (random_logits(3, seed).detach()[:, :2] for seed in (0, 1))
    words, targets = [2, 0, 1], torch.tensor([1, 0, 1])  # of the sentences 1 and 0, in that order
    trained = TrainingLoss(loss, smoothing=0.1, agreement=1.5)
    got = trained.sum(torch.cat([first[words], second[words]]), np.array([1, 0]))
    weight_C = torch.from_numpy(weights)
    both = sum(
        F.cross_entropy(logits[words], targets, weight_C, reduction="sum", label_smoothing=0.1) for logits in (first, second)
    )
    apart = (classes_apart(first[words], second[words]) * weight_C[targets]).sum()
    torch.testing.assert_close(got, both / 2 + 1.5 * apart)
