"""How sure one can be of a score: intervals by resampling examples, and the score of each source apart.

A score is a function of the numbers of the examples that it is computed over, so that any measure fits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bertwright.errors import BertwrightError

IntArray = npt.NDArray[np.int64]

SAMPLES = 1000


def headline(
    metric: str, score: Callable[[IntArray], float], examples: int, *, samples: int = SAMPLES, seed: int = 0
) -> dict[str, Any]:
    """Return what heads a report: ``metric``, ``value``, ``interval_95`` and the number of ``samples`` it is taken from.

    The interval is the percentile interval of the bootstrap over examples (Efron and Tibshirani, 1993, "An Introduction
    to the Bootstrap", section 13.3); the same seed gives the same one.

    Args:
        metric: its name.
        score: the measure over the examples with these numbers, some of which may come more than once.
        examples: how many there are.
        samples: how many data sets are drawn.
        seed: of the drawing.

    Raises:
        BertwrightError: there are no examples or no samples.
    """
    if examples < 1 or samples < 1:
        raise BertwrightError(f"{examples} examples and {samples} samples: a bootstrap needs at least one of each")
    random = np.random.default_rng(seed)
    values = [score(random.integers(examples, size=examples)) for _ in range(samples)]
    low, high = np.percentile(values, [2.5, 97.5])
    return {
        "metric": metric,
        "value": score(np.arange(examples)),
        "interval_95": [float(low), float(high)],
        "samples": samples,
    }


def by_source(
    sources: Sequence[str | None], scores: Callable[[IntArray], dict[str, float]]
) -> dict[str, dict[str, dict[str, float]]]:
    """Return ``{"per_source": {source: {"examples": …, score: …}}}``, the source with most examples first.

    It is empty where an example has no source. Sources with equally many examples are sorted by name.
    """
    rows_of: dict[str, list[int]] = {}
    for row, source in enumerate(sources):
        if source is None:
            return {}
        rows_of.setdefault(source, []).append(row)
    ordered = sorted(rows_of.items(), key=lambda item: (-len(item[1]), item[0]))
    return {"per_source": {source: {"examples": len(rows)} | scores(np.array(rows)) for source, rows in ordered}}
