"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math


def learning_rate(step: int, total: int, peak: float, warmup: float, schedule: str) -> float:
    """Return the rate of step ``step`` (from 0) of ``total``.

    It rises linearly over the first ``warmup`` part of the steps, then goes to 0 (linear, cosine) or stays (constant).
    """
    rising = round(warmup * total)
    if step < rising:
        return peak * ((step + 1) / rising)
    done = (step - rising) / max(total - rising, 1)
    if schedule == "constant":
        return peak
    if schedule == "cosine":
        return peak * 0.5 * (1 + math.cos(math.pi * done))
    return peak * (1 - done)
