"""The linear layer against ``torch.nn.Linear``, whatever library computes it."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bertwright import linear
from bertwright.linear import Linear

SHAPES = [(1, 1, 1), (1, 7, 3), (3, 1, 5), (17, 33, 9), (128, 64, 192), (200, 384, 384), (31, 768, 2), (0, 8, 4)]


def twins(width_in: int, width_out: int, *, bias: bool = True) -> tuple[Linear, nn.Linear]:
    torch.manual_seed(width_in * 1000 + width_out)
    ours, oracle = Linear(width_in, width_out, bias=bias), nn.Linear(width_in, width_out, bias=bias).double()
    oracle.load_state_dict(ours.state_dict())
    return ours, oracle


def assert_same(ours: Linear, oracle: nn.Linear, x: Tensor, slope: Tensor) -> None:
    """Compare result and every gradient with float64; ``slope`` is the gradient that arrives from above."""
    exact = x.detach().double().requires_grad_(x.requires_grad)
    got, wanted = ours(x), oracle(exact)
    assert got.dtype is x.dtype
    torch.testing.assert_close(got.double(), wanted, rtol=1e-5, atol=1e-5)
    assert got.requires_grad == wanted.requires_grad
    if not got.requires_grad:
        return
    leaves = [x, *ours.parameters()]
    exact_leaves = [exact, *oracle.parameters()]
    asked = [i for i, leaf in enumerate(leaves) if leaf.requires_grad]
    got_gradients = torch.autograd.grad(got, [leaves[i] for i in asked], slope)
    wanted_gradients = torch.autograd.grad(wanted, [exact_leaves[i] for i in asked], slope.double())
    for gradient, truth in zip(got_gradients, wanted_gradients, strict=True):
        assert gradient.shape == truth.shape
        assert gradient.dtype is torch.float32
        torch.testing.assert_close(gradient.double(), truth, rtol=1e-5, atol=1e-5 * max(1.0, len(x) ** 0.5))


@pytest.mark.parametrize(("rows", "width_in", "width_out"), SHAPES)
def test_equals_nn_linear(rows: int, width_in: int, width_out: int) -> None:
    ours, oracle = twins(width_in, width_out)
    x = torch.randn(rows, width_in, requires_grad=True)
    assert_same(ours, oracle, x, torch.randn(rows, width_out))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 40), st.integers(1, 40), st.integers(1, 40))
def test_equals_nn_linear_at_any_shape(rows: int, width_in: int, width_out: int) -> None:
    ours, oracle = twins(width_in, width_out)
    assert_same(ours, oracle, torch.randn(rows, width_in, requires_grad=True), torch.randn(rows, width_out))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize(("rows", "width_in", "width_out"), SHAPES)
def test_without_gradients(mode: Callable[[], torch.no_grad], rows: int, width_in: int, width_out: int) -> None:
    ours, oracle = twins(width_in, width_out)
    x = torch.randn(rows, width_in)
    with mode():
        got = ours(x)
        torch.testing.assert_close(got.double(), oracle(x.double()), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(got, ours(x), rtol=1e-6, atol=1e-6)


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda x: x.t().contiguous().t(),
    "every other row": lambda x: x.repeat_interleave(2, 0)[::2],
    "part of a wider matrix": lambda x: torch.cat([x, x], 1)[:, : x.shape[1]],
    "from the end of a matrix": lambda x: torch.cat([x, x], 1)[:, x.shape[1] :],
    "a middle slice": lambda x: torch.stack([x, x, x], 1)[:, 1],
    "one row many times": lambda x: x[:1].expand(x.shape),
    "one number many times": lambda x: x[0, 0].expand(x.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("of_gradient", [False, True])
def test_any_layout_in_memory(layout: str, of_gradient: bool) -> None:
    ours, oracle = twins(12, 20)
    x, slope = torch.randn(9, 12), torch.randn(9, 20)
    if of_gradient:
        slope = LAYOUTS[layout](slope)
    else:
        x = LAYOUTS[layout](x)
    assert_same(ours, oracle, x.detach().requires_grad_(), slope)
    assert_same(ours, oracle, x.detach(), slope)


@pytest.mark.parametrize(("needs_x", "needs_weight", "needs_bias"), list(itertools.product([True, False], repeat=3)))
def test_frozen_parts(needs_x: bool, needs_weight: bool, needs_bias: bool) -> None:
    ours, oracle = twins(6, 10)
    for module in (ours, oracle):
        module.weight.requires_grad_(needs_weight)
        module.bias.requires_grad_(needs_bias)
    assert_same(ours, oracle, torch.randn(5, 6, requires_grad=needs_x), torch.randn(5, 10))


@pytest.mark.parametrize("needs_x", [True, False])
def test_without_a_bias(needs_x: bool) -> None:
    ours, oracle = twins(6, 10, bias=False)
    assert_same(ours, oracle, torch.randn(5, 6, requires_grad=needs_x), torch.randn(5, 10))


def test_gradients_of_two_passes_add_up() -> None:
    ours, oracle = twins(6, 10)
    for rows in (5, 3):
        x = torch.randn(rows, 6)
        ours(x).pow(2).sum().backward()
        oracle(x.double()).pow(2).sum().backward()
    for got, wanted in zip(ours.parameters(), oracle.parameters(), strict=True):
        assert got.grad is not None
        assert wanted.grad is not None
        torch.testing.assert_close(got.grad.double(), wanted.grad, rtol=1e-5, atol=1e-5)


def test_the_gradient_of_a_sum() -> None:
    # A sum sends back one number expanded to the whole shape, with strides of 0.
    ours, oracle = twins(6, 10)
    ours(torch.ones(5, 6)).sum().backward()
    oracle(torch.ones(5, 6).double()).sum().backward()
    assert ours.weight.grad is not None
    assert oracle.weight.grad is not None
    torch.testing.assert_close(ours.weight.grad.double(), oracle.weight.grad)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes(dtype: torch.dtype) -> None:
    ours, _ = twins(6, 10)
    ours.to(dtype)
    plain = nn.Linear(6, 10, dtype=dtype)
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(5, 6, dtype=dtype)
    assert torch.equal(ours(x), plain(x))
    with torch.no_grad():
        assert torch.equal(ours(x), plain(x))


def test_autocast_computes_in_bfloat16_and_keeps_gradients_in_float32() -> None:
    ours, oracle = twins(64, 96)
    plain = nn.Linear(64, 96)
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(50, 64)
    with torch.autocast("cpu", torch.bfloat16):
        got, wanted = ours(x), plain(x)
    assert got.dtype is torch.bfloat16
    assert torch.equal(got, wanted)
    got.float().pow(2).sum().backward()
    wanted.float().pow(2).sum().backward()
    assert ours.weight.grad is not None
    assert ours.weight.grad.dtype is torch.float32
    assert plain.weight.grad is not None
    assert torch.equal(ours.weight.grad, plain.weight.grad)
    assert float((got.double() - oracle(x.double())).detach().abs().max()) < 0.05


def test_the_same_without_that_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "_product", None)
    test_equals_nn_linear(17, 33, 9)
    test_frozen_parts(False, True, True)


def test_the_library_is_probed_without_raising() -> None:
    operator = linear._onednn_product()
    assert operator is None or torch.equal(
        operator(torch.ones(1, 2), torch.ones(1, 2), None, "none", [], ""), torch.full((1, 1), 2.0)
    )


@pytest.mark.skipif(linear._product is None, reason="torch's own linear layer has second derivatives")
def test_a_second_derivative_is_refused_rather_than_wrong() -> None:
    ours, _ = twins(3, 2)
    x = torch.randn(4, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(ours(x).pow(3).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        torch.autograd.backward(gradient.sum())
