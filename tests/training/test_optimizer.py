"""The optimizer against ``torch.optim.AdamW`` and ``clip_grad_norm_``, step by step."""

from __future__ import annotations

import copy
import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bertwright.errors import BertwrightError
from bertwright.model import BertConfig, Pretraining, SequenceClassifier
from bertwright.training.optimizer import Optimizer, decays, layer_rate

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


def test_without_bias_correction_steps_are_those_of_the_first_release_also_after_a_restart() -> None:
    model, parts = Small(), {"dense.weight": 0.5}
    wanted = {name: p.detach().double().clone() for name, p in model.named_parameters()}
    moments = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in wanted.items()}

    def begun(model: nn.Module) -> Optimizer:
        part = lambda name: parts.get(name, 1.0)  # noqa: E731
        return Optimizer(model, weight_decay=0.3, epsilon=1e-3, clip=0.0, bias_correction=False, part=part)

    optimizer = begun(model)
    for step in range(12):
        if step == 5:
            held = optimizer
            optimizer = begun(model)
            optimizer.restore(held.tensors(), held.values())
        rate = 1e-2 * (1 - step / 20)
        give_gradients([model], step)
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            gradient, (first, second) = parameter.grad.double(), moments[name]
            first.mul_(0.9).add_(gradient, alpha=0.1)
            second.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
            update = first / (second.sqrt() + 1e-3) + (0.3 if decays(name, parameter) else 0.0) * wanted[name]
            wanted[name] -= rate * parts.get(name, 1.0) * update
        optimizer.step(rate)
        for name, got in model.named_parameters():
            torch.testing.assert_close(got.double(), wanted[name], rtol=2e-5, atol=2e-6, msg=f"{name} after {step + 1}")


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
        torch.testing.assert_close(optimizer.tensors()["moments"][f"{name}:exp_avg"], 0.1 * gradient * 0.5 / norm)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_changes_nothing(bad: float) -> None:
    model = Small()
    optimizer = Optimizer(model, weight_decay=0.1, epsilon=1e-8, clip=1.0)
    give_gradients([model], 0)
    optimizer.step(0.1)
    weights, decay = copy.deepcopy(model), optimizer.decay
    moments = {name: tensor.clone() for name, tensor in optimizer.tensors()["moments"].items()}
    give_gradients([model], 1)
    assert model.dense.bias.grad is not None
    model.dense.bias.grad[1] = bad
    assert not torch.isfinite(torch.tensor(optimizer.step(0.1)))
    assert_same_bits(model, weights)
    assert optimizer.decay == decay
    assert all(torch.equal(moments[name], tensor) for name, tensor in optimizer.tensors()["moments"].items())
    assert model.dense.weight.grad is None


class Encoding(nn.Module):
    """A parameter of each kind that the optimizers tell apart."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(7, 4)
        self.encoder = nn.Linear(4, 3)
        self.LayerNorm = nn.LayerNorm(3)


KINDS: dict[str, dict[str, Any]] = {
    "adamw": {},
    "muon": {"muon": True},
    "average": {"average": 0.9},
    "average over all steps": {"average": 0.999},
    "parts": {"part": lambda name: 0.25 if name.startswith("encoder") else 0.5},
    "muon in parts": {"muon": True, "part": lambda name: 0.25 if name.startswith("encoder") else 0.5},
    "beta2": {"beta2": 0.95},
    "scaled": {"scale_loss": True},
}


def build(model: nn.Module, **options: Any) -> Optimizer:
    return Optimizer(model, weight_decay=0.1, epsilon=1e-8, clip=1.0, **options)


def a_step(model: nn.Module, optimizer: Optimizer, step: int) -> float:
    inputs = torch.arange(7).roll(step)
    hidden = model.get_submodule("encoder")(model.get_submodule("embedding")(inputs))
    loss = (model.get_submodule("LayerNorm")(hidden) * torch.arange(21).view(7, 3)).pow(2).mean()
    optimizer.backward(loss)
    return optimizer.step(0.01 * (step + 1))


@pytest.mark.parametrize("kind", KINDS)
def test_restored_it_goes_on_to_the_same_bits(tmp_path: Path, kind: str) -> None:
    model = Encoding()
    optimizer = build(model, **KINDS[kind])
    for step in range(5):
        a_step(model, optimizer, step)
    for name, tensors in optimizer.tensors().items():
        save_file({key: value.contiguous() for key, value in tensors.items()}, tmp_path / f"{name}.safetensors")
    values = json.loads(json.dumps(optimizer.values()))
    resumed_model = Encoding()
    resumed = build(resumed_model, **KINDS[kind])
    resumed.restore({name: load_file(tmp_path / f"{name}.safetensors") for name in optimizer.tensors()}, values)
    for step in range(5, 10):
        assert a_step(model, optimizer, step) == a_step(resumed_model, resumed, step)
        assert_same_bits(model, resumed_model)
    assert resumed.values() == optimizer.values()
    for name, tensors in optimizer.tensors().items():
        assert {k: v.tolist() for k, v in resumed.tensors()[name].items()} == {k: v.tolist() for k, v in tensors.items()}


def test_muon_turns_the_matrices_of_the_encoder_alone() -> None:
    model, by_adam = Encoding(), Encoding()
    optimizer, adam = build(model, muon=True), build(by_adam)
    for step in range(3):
        a_step(model, optimizer, step)
        a_step(by_adam, adam, step)
    kinds = {key for key in optimizer.tensors()["moments"] if key.startswith("encoder.weight")}
    assert kinds == {"encoder.weight:momentum_buffer"}
    assert "embedding.weight:exp_avg" in optimizer.tensors()["moments"]
    assert not torch.equal(model.encoder.weight, by_adam.encoder.weight)
    # Its update is nearly orthogonal: however unlike the singular values of a gradient are, those of the update are alike.
    one = Encoding()
    optimizer = Optimizer(one, weight_decay=0.0, epsilon=1e-8, clip=0.0, muon=True)
    before = one.encoder.weight.detach().clone()
    gradient = torch.diag(torch.tensor([1.0, 0.3, 0.1, 0.05]))[:3]
    (one.encoder.weight * gradient).sum().backward()  # type: ignore[no-untyped-call]
    optimizer.step(0.01)
    singular = torch.linalg.svdvals(before - one.encoder.weight.detach())
    assert float(singular.min() / singular.max()) > 0.5


def test_the_average_follows_the_weights_and_is_taken_in_the_end() -> None:
    model = Encoding()
    optimizer = build(model, average=0.75)
    seen: list[tuple[float, dict[str, Tensor]]] = []
    for step in range(6):
        a_step(model, optimizer, step)
        seen.append((optimizer.decay, {name: p.detach().clone() for name, p in model.named_parameters()}))
    # The plain mean of the first four, each quarter as much as the average looks back on; then it falls off.
    shares = [0.25 * 0.75**2] * 4 + [0.25 * 0.75, 0.25]
    assert sum(shares) == 1
    now = seen[-1][1]
    wanted = {name: sum(share * w[name] for share, (_, w) in zip(shares, seen, strict=True)) for name in now}
    with optimizer.averaged():
        torch.testing.assert_close(dict(model.named_parameters()), wanted)
        assert optimizer.decay == pytest.approx(sum(share * d for share, (d, _) in zip(shares, seen, strict=True)))
    assert optimizer.decay == seen[-1][0]
    assert all(torch.equal(now[name], p) for name, p in model.named_parameters())
    optimizer.take_average()
    torch.testing.assert_close(dict(model.named_parameters()), wanted)


def test_the_average_of_one_step_is_its_weights_to_the_bit() -> None:
    model = Encoding()
    optimizer = build(model, average=0.999)
    a_step(model, optimizer, 0)
    now = {name: p.detach().clone() for name, p in model.named_parameters()}
    with optimizer.averaged():
        assert all(torch.equal(now[name], p) for name, p in model.named_parameters())


def test_rates_fall_from_layer_to_layer() -> None:
    rates = {
        name: layer_rate(name, 0.5, 2)
        for name, _ in SequenceClassifier(CONFIG, 3, head_layers=1, head_size=5).named_parameters()
    }
    by_part: dict[str, set[float]] = {}
    for name, rate in rates.items():
        part = ".".join(name.split(".")[: 3 if name.startswith("encoder") else 1])
        by_part.setdefault(part, set()).add(rate)
    assert by_part == {
        "embeddings": {0.125}, "encoder.layer.0": {0.25}, "encoder.layer.1": {0.5},
        "head": {1.0}, "pooler": {1.0},
    }  # fmt: skip
    assert {layer_rate(name, 1.0, 2) for name in rates} == {1.0}


@pytest.mark.parametrize("weight_decay", [0.0, 0.5])
def test_each_parameter_moves_at_its_own_rate(weight_decay: float) -> None:
    model = SequenceClassifier(CONFIG, 3, head_layers=1, head_size=5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(2.0)
    optimizer = Optimizer(
        model, weight_decay=weight_decay, epsilon=1e-12, clip=0.0, part=partial(layer_rate, decay=0.5, layers=2)
    )
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 3.0)
    optimizer.step(0.125)
    for name, parameter in model.named_parameters():
        # The first step of Adam goes as far as the rate, whatever the gradient.
        rate = 0.125 * layer_rate(name, 0.5, 2)
        wanted = 2.0 * (1 - rate * (weight_decay if decays(name, parameter) else 0.0)) - rate
        torch.testing.assert_close(parameter.detach(), torch.full_like(parameter, wanted), msg=name)
    assert optimizer.decay == 1 - 0.125 * 0.125 * weight_decay


def test_muon_too_goes_at_the_rates_of_the_parts() -> None:
    moved = {}
    for share in (1.0, 0.5):
        model = Encoding()
        before = model.encoder.weight.detach().clone()
        optimizer = Optimizer(
            model,
            weight_decay=0.0,
            epsilon=1e-8,
            clip=0.0,
            muon=True,
            part=lambda name, share=share: share,  # type: ignore[misc]
        )
        a_step(model, optimizer, 0)
        moved[share] = model.encoder.weight.detach() - before
    torch.testing.assert_close(moved[0.5], moved[1.0] / 2, rtol=1e-3, atol=1e-6)


def test_a_step_that_overflows_is_skipped_and_the_scale_falls() -> None:
    model = Encoding()
    optimizer = build(model, scale_loss=True)
    a_step(model, optimizer, 0)
    before, scale = copy.deepcopy(model), optimizer.values()["scaler"]["scale"]
    optimizer.backward(model.encoder.weight.sum() * 1e38)
    assert not math.isfinite(optimizer.step(0.1))
    assert_same_bits(model, before)
    assert optimizer.values()["scaler"]["scale"] == scale / 2
    assert math.isfinite(a_step(model, optimizer, 1))


def test_scaling_changes_no_step() -> None:
    plain, scaled = Encoding(), Encoding()
    one, other = build(plain), build(scaled, scale_loss=True)
    for step in range(5):
        assert a_step(plain, one, step) == pytest.approx(a_step(scaled, other, step), rel=1e-6)
    torch.testing.assert_close(dict(plain.named_parameters()), dict(scaled.named_parameters()))


def test_what_is_restored_is_a_copy() -> None:
    model = Small()
    optimizer = build(model)
    give_gradients([model], 0)
    optimizer.step(0.01)
    held = {group: {name: t.clone() for name, t in tensors.items()} for group, tensors in optimizer.tensors().items()}
    optimizer.restore(held, optimizer.values())
    give_gradients([model], 1)
    optimizer.step(0.01)
    assert all(float(tensor) == 1 for name, tensor in held["moments"].items() if name.endswith(":step"))


def test_a_state_of_another_run_is_refused() -> None:
    model = Encoding()
    optimizer = build(model)
    weights = optimizer.tensors()["weights"]
    with pytest.raises(BertwrightError, match=r"no embedding\.weight:step; it belongs to another run"):
        optimizer.restore({"weights": weights, "moments": {"x:step": torch.ones(())}, "average": {}}, optimizer.values())
    with pytest.raises(BertwrightError, match=r"does not fit this run: embedding\.weight differs"):
        optimizer.restore({"weights": {}, "moments": {}, "average": {}}, optimizer.values())
    with pytest.raises(BertwrightError, match="averaging or precision"):
        optimizer.restore({"weights": weights, "moments": {}, "average": weights}, optimizer.values())
    with pytest.raises(BertwrightError, match="averaging or precision"):
        build(Encoding(), scale_loss=True).restore({"weights": weights, "moments": {}, "average": {}}, optimizer.values())


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
    assert not any(name.startswith("embedding") for tensors in optimizer.tensors().values() for name in tensors)


def test_nothing_to_train_is_refused() -> None:
    with pytest.raises(BertwrightError, match="nothing to train: every parameter is frozen"):
        Optimizer(Small().requires_grad_(False), weight_decay=0.1, epsilon=1e-8, clip=1.0)
