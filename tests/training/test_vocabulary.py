"""Training the rows that occur gives what training every row gives."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bertwright.data.packing import TokenTable
from bertwright.model import BertConfig, SequenceClassifier
from bertwright.noise import Noise
from bertwright.training import vocabulary
from bertwright.training.optimizer import Optimizer, layer_rate

CONFIG = BertConfig(
    vocab_size=60, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
    hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.2,
)  # fmt: skip
WORDS = "embeddings.word_embeddings.weight"


def fresh_model() -> SequenceClassifier:
    torch.manual_seed(3)
    return SequenceClassifier(CONFIG, 3)


def random_table() -> TokenTable:
    generator = np.random.default_rng(0)
    ids = [generator.choice([1, 2, 5, 17, 30, 31, 58, 59], size=length).tolist() for length in (3, 9, 5, 5, 12, 2, 7, 1)]
    return TokenTable(ids, [[0] * len(row) for row in ids])


def train(
    model: SequenceClassifier, table: TokenTable, steps: int, weight_decay: float, **options: Any
) -> tuple[list[float], Optimizer]:
    optimizer = Optimizer(model, weight_decay=weight_decay, epsilon=1e-8, clip=1.0, **options)
    losses = []
    for step in range(steps):
        batch = table.pack(np.arange(step % 2 * 4, step % 2 * 4 + 4))
        loss = F.cross_entropy(model(batch, Noise(0, step)), torch.from_numpy(batch.order % 3))
        torch.autograd.backward(loss)
        losses.append(loss.item())
        optimizer.step(0.02 * (1 - step / (2 * steps)))
    return losses, optimizer


def weights(model: SequenceClassifier) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def layered() -> dict[str, Any]:
    return {"part": partial(layer_rate, decay=0.7, layers=2)}


def test_rows_that_never_occur_decay_at_the_rate_of_the_embeddings() -> None:
    table = random_table()
    full, shrunk = fresh_model(), fresh_model()
    train(full, table, 8, 1.0, **layered())
    vocabulary.shrink(shrunk.embeddings, np.unique(table.input_ids).astype(np.int64))
    _, optimizer = train(shrunk, table, 8, 1.0, **layered())
    vocabulary.restore(shrunk.embeddings, optimizer.decay)
    torch.testing.assert_close(weights(shrunk), weights(full), rtol=1e-4, atol=1e-5)
    assert 0.9 < optimizer.decay < 0.97  # at the whole rate it would be 0.87


def test_the_average_of_rows_that_never_occur_is_that_of_training_every_row() -> None:
    table = random_table()
    full, shrunk = fresh_model(), fresh_model()
    _, optimizer = train(full, table, 8, 1.0, average=0.75)
    optimizer.take_average()
    vocabulary.shrink(shrunk.embeddings, np.unique(table.input_ids).astype(np.int64))
    _, optimizer = train(shrunk, table, 8, 1.0, average=0.75)
    with optimizer.averaged():
        kept, decay = {name: p.detach().clone() for name, p in optimizer.parameters.items()}, optimizer.decay
    assert decay > optimizer.decay + 0.01
    with torch.no_grad():
        for name, parameter in optimizer.parameters.items():
            parameter.copy_(kept[name])
    vocabulary.restore(shrunk.embeddings, decay)
    torch.testing.assert_close(weights(shrunk), weights(full), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("weight_decay", [0.0, 0.01, 1.0])
def test_same_losses_and_weights_as_training_every_row(weight_decay: float) -> None:
    table = random_table()
    ids = np.unique(table.input_ids).astype(np.int64)
    assert len(ids) == 8
    before = fresh_model()
    full, shrunk = copy.deepcopy(before), copy.deepcopy(before)
    full_losses, _ = train(full, table, 12, weight_decay)
    vocabulary.shrink(shrunk.embeddings, ids)
    shrunk_losses, optimizer = train(shrunk, table, 12, weight_decay)
    vocabulary.restore(shrunk.embeddings, optimizer.decay)
    assert shrunk_losses == pytest.approx(full_losses, rel=1e-5)
    wanted, got = weights(full), weights(shrunk)
    assert list(got) == list(wanted)
    for name, tensor in wanted.items():
        torch.testing.assert_close(got[name], tensor, rtol=1e-4, atol=1e-5, msg=name)
    never = np.setdiff1d(np.arange(60), ids)
    torch.testing.assert_close(got[WORDS][never], before.embeddings.word_embeddings.weight[never] * optimizer.decay)
    assert (optimizer.decay < 0.9) == (weight_decay == 1.0)
    # Otherwise the comparison above would compare nothing.
    assert float((got[WORDS][ids] - weights(before)[WORDS][ids]).abs().max()) > 0.01


def test_the_best_weights_are_restored_with_the_decay_of_their_step() -> None:
    table = random_table()
    early, late = fresh_model(), fresh_model()
    train(early, table, 4, 0.5)
    vocabulary.shrink(late.embeddings, np.unique(table.input_ids).astype(np.int64))
    optimizer = Optimizer(late, weight_decay=0.5, epsilon=1e-8, clip=1.0)
    kept: dict[str, Tensor] = {}
    decay = 1.0
    for step in range(9):
        batch = table.pack(np.arange(step % 2 * 4, step % 2 * 4 + 4))
        torch.autograd.backward(F.cross_entropy(late(batch, Noise(0, step)), torch.from_numpy(batch.order % 3)))
        optimizer.step(0.02 * (1 - step / 8))
        if step == 3:
            kept, decay = {name: p.detach().clone() for name, p in optimizer.parameters.items()}, optimizer.decay
    with torch.no_grad():
        for name, parameter in optimizer.parameters.items():
            parameter.copy_(kept[name])
    vocabulary.restore(late.embeddings, decay)
    torch.testing.assert_close(weights(late), weights(early), rtol=1e-4, atol=1e-5)


def test_shrunk_embeddings_give_the_same_words() -> None:
    model = fresh_model()
    ids = torch.tensor([5, 17, 17, 59, 2])
    wanted = model.embeddings.word_embeddings(ids)
    vocabulary.shrink(model.embeddings, np.array([2, 5, 17, 59]))
    assert torch.equal(model.embeddings.word_embeddings(ids), wanted)
    assert dict(model.named_parameters())[WORDS].shape == (4, 8)


def test_an_id_that_was_not_announced_is_an_error() -> None:
    model = fresh_model()
    vocabulary.shrink(model.embeddings, np.array([2, 5]))
    with pytest.raises(IndexError):
        model.embeddings.word_embeddings(torch.tensor([2, 6]))


def test_restoring_puts_the_very_module_back() -> None:
    model = fresh_model()
    full = model.embeddings.word_embeddings
    before = weights(model)
    vocabulary.shrink(model.embeddings, np.array([2, 5, 17, 59]))
    vocabulary.restore(model.embeddings, 1.0)
    assert model.embeddings.word_embeddings is full
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(model).items())
    vocabulary.restore(model.embeddings, 0.5)  # nothing is shrunk: nothing to undo, and nothing to decay
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(model).items())
