"""The learning rate against the schedules of ``transformers``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import get_constant_schedule_with_warmup, get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

from bertwright.training.schedule import learning_rate

PEAK = 3e-5
ORACLES: dict[str, Callable[[Any, int, int], Any]] = {
    "linear": get_linear_schedule_with_warmup,
    "cosine": get_cosine_schedule_with_warmup,
    "constant": lambda optimizer, warmup, _: get_constant_schedule_with_warmup(optimizer, warmup),
}


def oracle_rates(schedule: str, total: int, rising: int) -> list[float]:
    """The rate of each step, and of the one after the last."""
    optimizer = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=PEAK)
    scheduler = ORACLES[schedule](optimizer, rising, total)
    rate_of = scheduler.lr_lambdas[0]
    return [PEAK * rate_of(step) for step in range(total + 1)]


@pytest.mark.parametrize("schedule", ORACLES)
@pytest.mark.parametrize("total", [1, 2, 3, 10, 97, 1000])
@pytest.mark.parametrize("warmup", [0.0, 0.06, 0.1, 1 / 3, 0.5, 0.999, 1.0])
def test_equals_transformers(schedule: str, total: int, warmup: float) -> None:
    rising = round(warmup * total)
    wanted = oracle_rates(schedule, total, rising)
    # transformers spends the first step on a rate of 0; here the rise ends one step earlier and no step is wasted.
    wanted = [*wanted[1:rising], *[PEAK] * (rising > 0), *wanted[rising:total]]
    got = [learning_rate(step, total, PEAK, warmup, schedule) for step in range(total)]
    assert got == pytest.approx(wanted, rel=1e-12, abs=1e-18)


@given(
    st.integers(1, 500).flatmap(lambda total: st.tuples(st.just(total), st.integers(0, total - 1))),
    st.floats(0, 1),
    st.sampled_from(sorted(ORACLES)),
)
def test_every_step_learns_and_none_faster_than_the_peak(place: tuple[int, int], warmup: float, schedule: str) -> None:
    total, step = place
    rate = learning_rate(step, total, PEAK, warmup, schedule)
    assert 0 < rate <= PEAK
    if step + 1 < total:
        following = learning_rate(step + 1, total, PEAK, warmup, schedule)
        assert (following >= rate) if step + 1 < round(warmup * total) else (following <= rate or schedule == "constant")


@pytest.mark.parametrize("schedule", ORACLES)
def test_the_peak_is_reached(schedule: str) -> None:
    rates = [learning_rate(step, 100, PEAK, 0.1, schedule) for step in range(100)]
    assert max(rates) == PEAK
    assert rates[:10] == pytest.approx([PEAK * (step + 1) / 10 for step in range(10)])
    assert rates[10] == PEAK
