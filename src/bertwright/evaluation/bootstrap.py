"""How sure one can be of a score: intervals by resampling examples, and the score of each source apart.

A score is a function of the numbers of the examples that it is computed over, so that any measure fits; or, many samples
at once, of how often groups of like examples are drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bertwright.arrays import FloatArray, IntArray
from bertwright.errors import BertwrightError

SAMPLES = 1000
# Bounds the memory of samples that are drawn at once, whatever the number of groups: 8 bytes for each group of each.
GROUPS_AT_ONCE = 4_000_000


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


def grouped_interval(
    count_K: IntArray, scores: Callable[[IntArray], FloatArray], *, samples: int = SAMPLES, seed: int = 0
) -> list[float]:
    """The same interval, low and high, where examples fall into K groups of ``count_K`` that a score cannot tell apart.

    Drawing examples with replacement and counting them by group is drawing the counts from a multinomial: this is the
    bootstrap over examples itself, no approximation, and many samples are scored at once.

    Args:
        count_K: examples in each group, none of them empty.
        scores: the measure of samples, given as how often each group is in each of them [samples, K].
        samples: how many data sets are drawn.
        seed: of the drawing.
    """
    random = np.random.default_rng(seed)
    total, at_once = int(count_K.sum()), max(1, GROUPS_AT_ONCE // len(count_K))
    values = [
        scores(random.multinomial(total, count_K / total, size=min(at_once, samples - start)))
        for start in range(0, samples, at_once)
    ]
    low, high = np.percentile(np.concatenate(values), [2.5, 97.5])
    return [float(low), float(high)]


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
