"""Dropout masks: functions of (seed, step, place) and nothing else, with the rate and the scale that were asked for."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bertwright.noise import Noise, add_dropout, dropout

RATES = [0.0001, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.999]
N = 200_000


def mask_at(seed: int, step: int, place: int, size: int = 512, rate: float = 0.5) -> Tensor:
    """The mask of the place'th call, counted from 1."""
    noise = Noise(seed, step)
    for _ in range(place - 1):
        noise.mask((1,), 0.9)
    return noise.mask((size,), rate)


@settings(max_examples=50, deadline=None)
@given(
    st.integers(0, 2**63), st.integers(0, 2**40), st.integers(1, 4), st.integers(0, 70), st.floats(0, 1, exclude_max=True)
)
def test_drawn_again_it_is_the_same(seed: int, step: int, place: int, size: int, rate: float) -> None:
    assert torch.equal(mask_at(seed, step, place, size, rate), mask_at(seed, step, place, size, rate))


def test_different_seeds_steps_and_places_give_unrelated_masks() -> None:
    masks = {key: mask_at(*key) for key in itertools.product((0, 1, 7, 2**32), (0, 1, 2, 65536), (1, 2, 3))}
    for one, other in itertools.combinations(masks.values(), 2):
        agreeing = float((one == other).double().mean())
        # Six deviations of a binomial, for there are 1,128 pairs.
        assert abs(agreeing - 0.5) < 6 * math.sqrt(0.25 / 512)


def test_a_place_does_not_depend_on_what_was_drawn_before_it() -> None:
    short, long = Noise(3, 4), Noise(3, 4)
    short.mask((2,), 0.5)
    long.mask((300, 5), 0.1)
    assert torch.equal(short.mask((77,), 0.3), long.mask((77,), 0.3))


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    torch.manual_seed(1)
    first = Noise(0, 0, torch.device("cpu")).mask((64,), 0.5)
    torch.manual_seed(2)
    expected = torch.rand(3)
    torch.manual_seed(2)
    second = Noise(0, 0).mask((64,), 0.5)
    assert torch.equal(first, second)
    assert torch.equal(torch.rand(3), expected)
    torch.set_rng_state(before)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("step", [0, 1])
def test_drop_rate(rate: float, step: int) -> None:
    dropped = int((Noise(11, step).mask((N,), rate) == 0).sum())
    assert abs(dropped - N * rate) < 5 * math.sqrt(N * rate * (1 - rate)) + N * 2**-17


@pytest.mark.parametrize("lane", range(8))
def test_drop_rate_does_not_depend_on_the_place_within_a_word(lane: int) -> None:
    dropped = int((Noise(1, 1).mask((N,), 0.1)[lane::8] == 0).sum())
    assert abs(dropped - N // 8 * 0.1) < 5 * math.sqrt(N // 8 * 0.09)


@pytest.mark.parametrize("distance", [1, 2, 3, 4, 8, 64, 768])
def test_neighbours_are_independent(distance: int) -> None:
    dropped = (Noise(2, 5).mask((N,), 0.3) == 0).double() - 0.3
    products = dropped[distance:] * dropped[:-distance]
    assert abs(float(products.mean())) < 5 * 0.21 / math.sqrt(len(products))


@pytest.mark.parametrize("rate", [*RATES, 0.0, 1e-9, 1 / 3])
def test_kept_values_are_scaled_to_keep_the_mean(rate: float) -> None:
    mask = Noise(4, 4).mask((N,), rate)
    assert mask.dtype is torch.float32
    # The rate is taken in steps of 2^-16, and the scale belongs to the rate as taken: no bias, however small.
    taken = round(rate * 65536) / 65536
    scale = torch.tensor(1 / (1 - taken), dtype=torch.float32)
    assert torch.all((mask == 0) | (mask == scale))
    deviation = math.sqrt(taken / (1 - taken) / N)
    assert abs(float(mask.double().mean()) - 1) <= 5 * deviation + 1e-7


def test_a_rate_next_to_one_still_keeps_some() -> None:
    mask = Noise(0, 0).mask((4_000_000,), 1 - 1e-9)
    assert torch.all((mask == 0) | (mask == 65536))
    assert 20 < int((mask > 0).sum()) < 120  # 61 expected


@pytest.mark.parametrize("shape", [(0,), (1,), (3,), (5,), (2, 3), (3, 0, 2), (1, 1, 1, 7), ()])
def test_any_shape(shape: tuple[int, ...]) -> None:
    mask = Noise(0, 0).mask(shape, 0.5)
    assert mask.shape == shape
    assert mask.is_contiguous()
    whole = Noise(0, 0).mask((64,), 0.5)
    assert torch.equal(mask.flatten(), whole[: mask.numel()])


def test_evaluation_and_a_rate_of_zero_change_nothing() -> None:
    values = torch.randn(4, 5)
    assert dropout(values, 0.5, None) is values
    assert dropout(values, 0.0, Noise(0, 0)) is values
    assert torch.equal(add_dropout(values, values, 0.5, None), values + values)
    assert torch.equal(add_dropout(values, values, 0.0, Noise(0, 0)), values + values)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_dropout_multiplies_by_the_mask(dtype: torch.dtype) -> None:
    values = torch.randn(40, 9, dtype=torch.float64).to(dtype).requires_grad_()
    result = dropout(values, 0.3, Noise(8, 9))
    mask = Noise(8, 9).mask((40, 9), 0.3).double()
    assert result.dtype is dtype
    assert torch.equal(result, (values.double() * mask).to(dtype))
    (gradient,) = torch.autograd.grad(result.sum(), values)
    assert torch.equal(gradient, mask.to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("residual_dtype", [torch.float32, torch.bfloat16])
def test_add_dropout_is_the_sum_of_residual_and_dropout(dtype: torch.dtype, residual_dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(40, 9, generator=generator).to(dtype).requires_grad_()
    residual = torch.randn(40, 9, generator=generator).to(residual_dtype).requires_grad_()

    def gradients(result: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(result.float().pow(2).sum(), (residual, values))

    got = add_dropout(residual, values, 0.3, Noise(8, 9))
    wanted = residual + dropout(values, 0.3, Noise(8, 9))
    # Summed before they are rounded, or after.
    tolerance = 0.01 if torch.bfloat16 in (dtype, residual_dtype) else 1e-6
    assert got.dtype is wanted.dtype
    torch.testing.assert_close(got, wanted, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(gradients(got), gradients(wanted), rtol=tolerance, atol=4 * tolerance)


def test_each_call_of_a_pass_has_a_mask_of_its_own() -> None:
    noise, ones = Noise(0, 0), torch.ones(256)
    drawn = [dropout(ones, 0.5, noise), add_dropout(torch.zeros(256), ones, 0.5, noise), dropout(ones, 0.5, noise)]
    assert len({tuple(values.tolist()) for values in drawn}) == 3


gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.mark.parametrize(
    "drop",
    [
        pytest.param(dropout, marks=gpu, id="dropout"),
        pytest.param(lambda v, p, noise: add_dropout(torch.zeros_like(v), v, p, noise), marks=gpu, id="add_dropout"),
    ],
)
def test_on_a_gpu(drop: Callable[[Tensor, float, Noise | None], Tensor]) -> None:
    device = torch.device("cuda")
    ones = torch.ones(N, device=device)
    first = drop(ones, 0.25, Noise(1, 2, device))
    assert torch.equal(first, drop(ones, 0.25, Noise(1, 2, device)))
    for seed, step in ((1, 3), (2, 2), (2, 1)):
        assert not torch.equal(first, drop(ones, 0.25, Noise(seed, step, device)))
    assert abs(int((first == 0).sum()) - N * 0.25) < 5 * math.sqrt(N * 0.1875)
    assert abs(float(first.double().mean()) - 1) < 5 * math.sqrt(0.25 / 0.75 / N)
