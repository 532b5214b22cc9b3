"""The optimizer against ``torch.optim.AdamW`` and ``clip_grad_norm_``, step by step."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bertwright.errors import BertwrightError
from bertwright.model import BertConfig, Pretraining, SequenceClassifier
from bertwright.training.optimizer import Optimizer, decays

CONFIG = BertConfig(vocab_size=30, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12)


class Small(nn.Module):
    """One parameter of each kind that BERT has."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(7, 4)
        self.dense = nn.Linear(4, 3)
        self.LayerNorm = nn.LayerNorm(3)


def give_gradients(models: list[nn.Module], step: int, scale: float = 1.0, without: str | None = None) -> None:
    generator = torch.Generator().manual_seed(1000 + step)
    for parameters in zip(*(model.named_parameters() for model in models), strict=True):
        gradient = scale * torch.randn(parameters[0][1].shape, generator=generator)
        for name, parameter in parameters:
            parameter.grad = None if name == without else gradient.clone()


def assert_same_bits(one: nn.Module, other: nn.Module) -> None:
    for (name, a), (_, b) in zip(one.state_dict().items(), other.state_dict().items(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("weight_decay", [0.0, 0.01, 0.5])
@pytest.mark.parametrize("clip", [0.0, 1.0, 1e6])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e3])
def test_equals_adamw_step_by_step(weight_decay: float, clip: float, scale: float) -> None:
    model = Small()
    oracle_model = copy.deepcopy(model)
    optimizer = Optimizer(model, weight_decay=weight_decay, epsilon=1e-6, clip=clip)
    kinds: dict[bool, list[Tensor]] = {True: [], False: []}
    for name, parameter in oracle_model.named_parameters():
        kinds[name in ("embedding.weight", "dense.weight")].append(parameter)
    oracle = torch.optim.AdamW(
        [{"params": kinds[True], "weight_decay": weight_decay}, {"params": kinds[False], "weight_decay": 0.0}],
        betas=(0.9, 0.999),
        eps=1e-6,
        foreach=False,
        fused=False,
    )
    decay = 1.0
    for step in range(20):
        rate = 1e-2 * (1 - step / 25)
        give_gradients([model, oracle_model], step, scale, without="dense.bias" if step % 7 == 3 else None)
        gradients = [p.grad for p in oracle_model.parameters() if p.grad is not None]
        wanted_norm = float(torch.linalg.vector_norm(torch.cat([g.flatten() for g in gradients]).double()))
        if clip:
            nn.utils.clip_grad_norm_(oracle_model.parameters(), clip)
        for group in oracle.param_groups:
            group["lr"] = rate
        oracle.step()
        assert optimizer.step(rate) == pytest.approx(wanted_norm, rel=1e-5)
        decay *= 1 - rate * weight_decay
        assert optimizer.decay == pytest.approx(decay, rel=1e-14)
        for (name, got), wanted in zip(model.named_parameters(), oracle_model.parameters(), strict=True):
            torch.testing.assert_close(got, wanted, rtol=2e-5, atol=2e-6, msg=f"{name} after step {step + 1}")


def test_a_step_drops_the_gradients() -> None:
    model = Small()
    optimizer = Optimizer(model, weight_decay=0.01, epsilon=1e-8, clip=1.0)
    give_gradients([model], 0)
    optimizer.step(0.1)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("model", [SequenceClassifier(CONFIG, 3, head_layers=1, head_size=5), Pretraining(CONFIG)], ids=str)
def test_decay_is_for_matrices_alone(model: nn.Module) -> None:
    not_decayed = {
        f"{path}.{name}"
        for path, module in model.named_modules()
        for name, _ in module.named_parameters(recurse=False)
        if isinstance(module, nn.LayerNorm) or name == "bias"
    }
    assert {name for name, p in model.named_parameters() if not decays(name, p)} == not_decayed

    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(2.0)
    optimizer = Optimizer(model, weight_decay=0.25, epsilon=1e-8, clip=1.0)
    for _ in range(2):
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step(0.5)
    assert optimizer.decay == (1 - 0.5 * 0.25) ** 2
    for name, parameter in model.named_parameters():
        wanted = 2.0 if name in not_decayed else 2.0 * optimizer.decay
        assert torch.all(parameter == wanted), name


def test_clipping_scales_all_gradients_to_the_limit() -> None:
    # After one step the first moment is a tenth of the gradient as it was used.
    model = Small()
    optimizer = Optimizer(model, weight_decay=0.0, epsilon=1e-8, clip=0.5)
    give_gradients([model], 0, scale=10.0)
    before = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    norm = optimizer.step(1e-3)
    assert norm > 10
    for name, gradient in before.items():
        torch.testing.assert_close(optimizer.tensors()[f"{name}:exp_avg"], 0.1 * gradient * 0.5 / norm)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_changes_nothing(bad: float) -> None:
    model = Small()
    optimizer = Optimizer(model, weight_decay=0.1, epsilon=1e-8, clip=1.0)
    give_gradients([model], 0)
    optimizer.step(0.1)
    weights, decay = copy.deepcopy(model), optimizer.decay
    moments = {name: tensor.clone() for name, tensor in optimizer.tensors().items()}
    give_gradients([model], 1)
    assert model.dense.bias.grad is not None
    model.dense.bias.grad[1] = bad
    assert not torch.isfinite(torch.tensor(optimizer.step(0.1)))
    assert_same_bits(model, weights)
    assert optimizer.decay == decay
    assert all(torch.equal(moments[name], tensor) for name, tensor in optimizer.tensors().items())
    assert model.dense.weight.grad is None


def test_restored_it_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    model = Small()
    optimizer = Optimizer(model, weight_decay=0.1, epsilon=1e-8, clip=1.0)
    for step in range(5):
        give_gradients([model], step)
        optimizer.step(0.01 * (step + 1))
    save_file(optimizer.tensors(), tmp_path / "moments.safetensors")
    resumed_model, decay = copy.deepcopy(model), optimizer.decay
    resumed = Optimizer(resumed_model, weight_decay=0.1, epsilon=1e-8, clip=1.0)
    resumed.restore(load_file(tmp_path / "moments.safetensors"), decay)
    for step in range(5, 10):
        give_gradients([model, resumed_model], step)
        assert optimizer.step(0.01 * (step + 1)) == resumed.step(0.01 * (step + 1))
        assert_same_bits(model, resumed_model)
    assert resumed.decay == optimizer.decay
    assert {k: v.tolist() for k, v in resumed.tensors().items()} == {k: v.tolist() for k, v in optimizer.tensors().items()}


def test_what_is_restored_is_a_copy() -> None:
    model = Small()
    optimizer = Optimizer(model, weight_decay=0.1, epsilon=1e-8, clip=1.0)
    give_gradients([model], 0)
    optimizer.step(0.01)
    held = {name: tensor.clone() for name, tensor in optimizer.tensors().items()}
    optimizer.restore(held, 1.0)
    give_gradients([model], 1)
    optimizer.step(0.01)
    assert all(float(tensor) == 1 for name, tensor in held.items() if name.endswith(":step"))


def test_a_state_of_another_run_is_refused() -> None:
    model = Small()
    optimizer = Optimizer(model, weight_decay=0.1, epsilon=1e-8, clip=1.0)
    with pytest.raises(BertwrightError, match=r"no embedding\.weight:step; it belongs to another run"):
        optimizer.restore({}, 1.0)


def test_frozen_parameters_are_left_alone() -> None:
    model = Small()
    model.embedding.requires_grad_(False)
    before = model.embedding.weight.clone()
    optimizer = Optimizer(model, weight_decay=0.5, epsilon=1e-8, clip=1.0)
    assert sorted(optimizer.parameters) == ["LayerNorm.bias", "LayerNorm.weight", "dense.bias", "dense.weight"]
    for parameter in optimizer.parameters.values():
        parameter.grad = torch.ones_like(parameter)
    assert optimizer.step(0.1) == pytest.approx((12 + 3 + 3 + 3) ** 0.5)
    assert torch.equal(model.embedding.weight, before)
    assert not any(name.startswith("embedding") for name in optimizer.tensors())


def test_nothing_to_train_is_refused() -> None:
    with pytest.raises(BertwrightError, match="nothing to train: every parameter is frozen"):
        Optimizer(Small().requires_grad_(False), weight_decay=0.1, epsilon=1e-8, clip=1.0)
