"""How close predicted numbers come to true ones: in order, in step, and in size.

Everything here is a pure function of numpy arrays and returns plain Python values that JSON can hold.

Shapes: B examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bertwright.arrays import FloatArray, IntArray
from bertwright.errors import BertwrightError
from bertwright.evaluation.bootstrap import by_source, headline


def pearson(true_B: FloatArray, predicted_B: FloatArray) -> float:
    """Pearson's correlation: 1 where predictions lie on a rising line over the true values.

    Zero where it is undefined: all true or all predicted values are one.
    """
    if np.ptp(true_B) == 0 or np.ptp(predicted_B) == 0:
        return 0.0
    # Scaled first, so that neither very large nor very small values leave the range of numbers when squared.
    x_B, y_B = ((values - values.mean()) / np.ptp(values) for values in (true_B, predicted_B))
    scale = np.sqrt((x_B**2).sum() * (y_B**2).sum())
    return float(np.clip((x_B * y_B).sum() / scale, -1.0, 1.0))


def spearman(true_B: FloatArray, predicted_B: FloatArray) -> float:
    """Spearman's correlation: Pearson's of the ranks, 1 where predictions put the examples in the true order."""
    return pearson(ranks(true_B), ranks(predicted_B))


def ranks(values_B: FloatArray) -> FloatArray:
    """Return the rank of each value, counted from 1; equal values share the mean of their ranks."""
    _, group_B, counts = np.unique(values_B, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[group_B])


def r_squared(true_B: FloatArray, predicted_B: FloatArray) -> float:
    """The part of the true values' variance that is predicted: 1 is perfect, 0 no better than always their mean.

    Zero where the true values are all one.
    """
    if np.ptp(true_B) == 0:
        return 0.0
    return float(1 - ((true_B - predicted_B) ** 2).sum() / ((true_B - true_B.mean()) ** 2).sum())


MEASURES = {"pearson": pearson, "spearman": spearman, "r_squared": r_squared}
"""Scores by name, each ``(true_B, predicted_B) -> float``, more being better: training picks epochs by one."""


def regression_metrics(
    true_B: npt.ArrayLike,
    predicted_B: npt.ArrayLike,
    metric: str,
    sources: Sequence[str | None] = (),
    *,
    samples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure predicted numbers.

    Args:
        true_B: the true values.
        predicted_B: the predicted ones.
        metric: a name in MEASURES, which gets a bootstrap interval.
        sources: where each example comes from, for results by source.
        samples: resamples of the bootstrap.
        seed: of the bootstrap.

    Returns:
        A dict that JSON can hold: ``examples``; every measure in MEASURES, with ``correlation_note`` where all
        predictions or all true values are one; ``mean_squared_error``, ``root_mean_squared_error`` and
        ``mean_absolute_error`` in the unit of the values; ``true_range`` and ``predicted_range``: smallest and largest;
        ``headline``; and ``per_source`` where every example has one.

    Raises:
        BertwrightError: there are no examples, lengths differ, or a value is not finite.
    """
    true, predicted = np.asarray(true_B, dtype=np.float64), np.asarray(predicted_B, dtype=np.float64)
    if true.shape != predicted.shape or true.ndim != 1 or not len(true):
        raise BertwrightError(
            f"true values of shape {true.shape} and predicted ones of shape {predicted.shape}; give one of each an example"
        )
    for name, values in (("true", true), ("predicted", predicted)):
        if not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values))[0])
            raise BertwrightError(f"the {name} value of row {row} is {values[row]}; give finite numbers")
    error_B = predicted - true

    def scores(rows: IntArray) -> dict[str, float]:
        return {name: measure(true[rows], predicted[rows]) for name, measure in MEASURES.items()}

    flat = [name for name, values in (("true", true), ("predicted", predicted)) if np.ptp(values) == 0]
    return {
        "examples": len(true),
        **scores(np.arange(len(true))),
        **({"correlation_note": f"undefined, shown as 0: all {flat[0]} values are one"} if flat else {}),
        "mean_squared_error": float((error_B**2).mean()),
        "root_mean_squared_error": float(np.sqrt((error_B**2).mean())),
        "mean_absolute_error": float(np.abs(error_B).mean()),
        "true_range": [float(true.min()), float(true.max())],
        "predicted_range": [float(predicted.min()), float(predicted.max())],
        "headline": headline(
            metric,
            lambda rows: MEASURES[metric](true[rows], predicted[rows]),
            len(true),
            samples=samples,
            seed=seed,
        ),
        **by_source(sources, scores),
    }
