"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math

SCHEDULES = ("linear", "cosine", "constant", "trapezoid")
_FALL = 0.2  # last part of a trapezoid (Hägele et al. 2024 find a fifth to suffice)


def learning_rate(step: int, total: int, peak: float, warmup: float, schedule: str) -> float:
    """Return the rate of step ``step`` (from 0) of ``total``.

    It rises linearly over the first ``warmup`` part of the steps. Then it goes to 0 (linear, cosine), stays (constant),
    or stays and goes to 0 over the last fifth of all steps (trapezoid).
    """
    rising = round(warmup * total)
    if step < rising:
        return peak * ((step + 1) / rising)
    if schedule == "constant":
        return peak
    if schedule == "trapezoid":
        falling = min(max(round(_FALL * total), 1), total - rising)
        return peak * min((total - step) / falling, 1.0)
    done = (step - rising) / max(total - rising, 1)
    if schedule == "cosine":
        return peak * 0.5 * (1 + math.cos(math.pi * done))
    return peak * (1 - done)
