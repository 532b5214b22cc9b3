"""How good a classifier is: its scores, how sure one can be of them, and whether its probabilities can be believed.

Everything here is a pure function of numpy arrays and returns plain Python values that JSON can hold. scikit-learn is
imported where it is used: it takes two seconds, which predicting does not need.

Shapes: B examples, C classes, K filled cells of the confusion matrix, R resamples of the bootstrap.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bertwright.arrays import FloatArray, IntArray
from bertwright.errors import BertwrightError, did_you_mean
from bertwright.evaluation.bootstrap import grouped_interval

CALIBRATION_BINS = 15
# Probabilities from half-precision softmaxes miss one by this much; logits miss it by far more.
SUM_TOLERANCE = 1e-2


@dataclass(frozen=True, slots=True)
class _Tally:
    """The three counts that fix accuracy, F1 and Matthews: shape (C,), or (R, C) for resampled data sets."""

    hits: IntArray
    true: IntArray
    predicted: IntArray

    @classmethod
    def of(cls, confusion_CC: IntArray) -> _Tally:
        return cls(np.diagonal(confusion_CC), confusion_CC.sum(axis=1), confusion_CC.sum(axis=0))


# These are written over tallies, not taken from scikit-learn, so that one formula gives both a score and every
# one of its bootstrap resamples at once; the tests hold them against scikit-learn.


def _accuracy(tally: _Tally) -> FloatArray:
    return np.asarray(tally.hits.sum(axis=-1) / tally.true.sum(axis=-1))


def _f1_macro(tally: _Tally) -> FloatArray:
    """Mean F1 of the classes that occur in the labels or the predictions, as scikit-learn and torchmetrics have it."""
    seen = tally.true + tally.predicted
    f1 = 2 * tally.hits / np.maximum(seen, 1)
    return np.asarray(f1.sum(axis=-1) / (seen > 0).sum(axis=-1))


def _f1(tally: _Tally) -> FloatArray:
    """F1 of the second class, zero where it is undefined."""
    return np.asarray(2 * tally.hits[..., 1] / np.maximum(tally.true[..., 1] + tally.predicted[..., 1], 1))


def _matthews(tally: _Tally) -> FloatArray:
    """R_K of Gorodkin (2004), "Comparing two K-category assignments by a K-category correlation coefficient", eq. 8.

    With two classes it is the phi coefficient of Matthews (1975). Zero where it is undefined: all labels or all
    predictions in one class.
    """
    total = tally.true.sum(axis=-1)
    covariance = tally.hits.sum(axis=-1) * total - (tally.true * tally.predicted).sum(axis=-1)
    true_spread = total**2 - (tally.true**2).sum(axis=-1)
    predicted_spread = total**2 - (tally.predicted**2).sum(axis=-1)
    scale = np.sqrt(true_spread.astype(np.float64) * predicted_spread)
    return np.asarray(np.where(scale > 0, covariance / np.where(scale > 0, scale, 1.0), 0.0))


_FORMULAS: dict[str, Callable[[_Tally], FloatArray]] = {
    "accuracy": _accuracy,
    "f1_macro": _f1_macro,
    "matthews_correlation": _matthews,
    "f1": _f1,
}


def metrics_of(num_classes: int) -> list[str]:
    """The names in METRICS that are measured for so many classes: ``f1``, of the second one, only where there are two."""
    return [name for name in _FORMULAS if name != "f1" or num_classes == 2]


def _of_labels(formula: Callable[[_Tally], FloatArray]) -> Callable[[npt.ArrayLike, npt.ArrayLike, int], float]:
    def metric(true_B: npt.ArrayLike, predicted_B: npt.ArrayLike, num_classes: int) -> float:
        true = _class_indices("true", true_B, num_classes)
        predicted = _class_indices("predicted", predicted_B, num_classes)
        _require_same_length(true, predicted)
        return float(formula(_Tally.of(_confusion(true, predicted, num_classes))))

    return metric


METRICS: dict[str, Callable[[npt.ArrayLike, npt.ArrayLike, int], float]] = {
    name: _of_labels(formula) for name, formula in _FORMULAS.items()
}
"""Scores by name, each ``(true_B, predicted_B, num_classes) -> float`` on class indices; training picks epochs by one.

``f1`` is of the second class; :func:`metrics_of` has it only where there is one other. Raises BertwrightError for empty
input, unequal lengths and indices outside ``0 .. num_classes - 1``.
"""


def classification_metrics(
    true_B: npt.ArrayLike,
    probabilities_BC: npt.ArrayLike,
    names: Sequence[str],
    *,
    bootstrap_samples: int = 1000,
    seed: int = 0,
    headline: str = "accuracy",
) -> dict[str, Any]:
    """Measure a classifier on labelled examples.

    Args:
        true_B: class indices, integers in ``0 .. C - 1``.
        probabilities_BC: one row an example, each summing to one. The prediction is the first largest of a row.
        names: the C class names, in the order of the columns.
        bootstrap_samples: how many resamples the interval of the headline is taken from.
        seed: of the bootstrap; the same seed gives the same interval.
        headline: the metric that gets the interval, one of :func:`metrics_of`.

    Returns:
        A dict that JSON can hold:

        - ``examples``, ``accuracy``, ``matthews_correlation`` (zero where undefined) and ``f1_macro``: the mean over
          classes that occur in the labels or the predictions. Where some occur in neither, ``f1_macro_note`` says so.
          With two classes ``f1``, that of the second.
        - ``majority_accuracy``: the accuracy of always answering the most frequent class.
        - ``per_class``: name to ``precision``, ``recall``, ``f1`` (each zero where undefined) and ``support``.
        - ``roc_auc``: of class 1 with two classes, else the macro average of one class against the rest. None where a
          class has no example, and then ``roc_auc_note`` says so.
        - ``calibration_error``: expected calibration error over 15 bins of equal width, (low, high] as in Guo et al.
          (2017), "On Calibration of Modern Neural Networks", section 2, eq. 3; and those bins as ``reliability``:
          ``low``, ``high``, ``count``, and ``confidence`` and ``accuracy``, which are None in an empty bin.
        - ``confusion_matrix``: counts, a row a true class, a column a predicted one, in the order of names.
        - ``headline``: ``metric``, ``value``, ``interval_95`` (low and high percentile of the bootstrap; Efron and
          Tibshirani, 1993, "An Introduction to the Bootstrap", section 13.3) and ``samples``.

    Raises:
        BertwrightError: for empty input, lengths that do not fit, labels out of range, values that are no
            probabilities (NaN among them), repeated names, an unknown headline or fewer than one bootstrap sample.
    """
    _require_known(headline, metrics_of(len(names)))
    if bootstrap_samples < 1:
        raise BertwrightError(f"bootstrap_samples is {bootstrap_samples}; give at least 1 (1000 is usual)")
    true, probabilities = _checked(true_B, probabilities_BC, names)
    predicted = probabilities.argmax(axis=1)
    confusion_CC = _confusion(true, predicted, len(names))
    tally = _Tally.of(confusion_CC)
    scores = {name: float(_FORMULAS[name](tally)) for name in metrics_of(len(names))}
    reliability = reliability_bins(probabilities.max(axis=1), predicted == true)
    return {
        "examples": len(true),
        **scores,
        **_f1_macro_note(tally),
        "majority_accuracy": float(tally.true.max() / len(true)),
        "per_class": _per_class(true, predicted, names),
        **_roc_auc(true, probabilities, names),
        "calibration_error": calibration_error(reliability),
        "reliability": reliability,
        "confusion_matrix": confusion_CC.tolist(),
        "headline": {
            "metric": headline,
            "value": scores[headline],
            "interval_95": _interval(confusion_CC, _FORMULAS[headline], bootstrap_samples, seed),
            "samples": bootstrap_samples,
        },
    }


def matthews_per_batch(true_B: npt.ArrayLike, predicted_B: npt.ArrayLike, batch_size: int = 32) -> list[float]:
    """Return the Matthews correlation of each run of ``batch_size`` examples, in order; the last may be shorter.

    A look at how much a score on few examples scatters, not a substitute for the score over all of them. A batch
    whose labels or predictions are all of one class scores zero.

    Raises BertwrightError for empty input, unequal lengths, negative indices or a batch size below one.
    """
    if batch_size < 1:
        raise BertwrightError(f"batch_size is {batch_size}; give at least 1")
    true = _class_indices("true", true_B, None)
    predicted = _class_indices("predicted", predicted_B, None)
    _require_same_length(true, predicted)
    num_classes = int(max(true.max(), predicted.max())) + 1
    metric = METRICS["matthews_correlation"]
    return [
        metric(true[start : start + batch_size], predicted[start : start + batch_size], num_classes)
        for start in range(0, len(true), batch_size)
    ]


def _per_class(true_B: IntArray, predicted_B: IntArray, names: Sequence[str]) -> dict[str, dict[str, float | int]]:
    from sklearn.metrics import precision_recall_fscore_support

    columns = precision_recall_fscore_support(
        true_B, predicted_B, labels=np.arange(len(names)), average=None, zero_division=0.0
    )
    return {
        name: {"precision": float(precision), "recall": float(recall), "f1": float(f1), "support": int(support)}
        for name, precision, recall, f1, support in zip(names, *columns, strict=True)
    }


def _f1_macro_note(tally: _Tally) -> dict[str, str]:
    unseen = int((tally.true + tally.predicted == 0).sum())
    if unseen == 0:
        return {}
    left_out = f"{unseen} of {tally.true.size} classes, in neither the labels nor the predictions"
    return {"f1_macro_note": f"the mean leaves out {left_out}"}


def _roc_auc(true_B: IntArray, probabilities_BC: FloatArray, names: Sequence[str]) -> dict[str, Any]:
    from sklearn.metrics import roc_auc_score

    absent = [name for index, name in enumerate(names) if not (true_B == index).any()]
    if absent:
        others = f" and of {len(absent) - 1} more" if len(absent) > 1 else ""
        return {"roc_auc": None, "roc_auc_note": f"undefined: no example of class '{absent[0]}'{others}"}
    if len(names) == 2:
        return {"roc_auc": float(roc_auc_score(true_B == 1, probabilities_BC[:, 1]))}
    # One column a class is scikit-learn's one-vs-rest without its demand that rows sum to one in double precision.
    is_class_BC = true_B[:, None] == np.arange(len(names))
    return {"roc_auc": float(roc_auc_score(is_class_BC, probabilities_BC, average="macro"))}


def reliability_bins(confidence_B: FloatArray, correct_B: npt.NDArray[np.bool_]) -> list[dict[str, float | int | None]]:
    """How often predictions of each range of confidence are right; ``reliability`` of :func:`classification_metrics`."""
    edges = np.linspace(0.0, 1.0, CALIBRATION_BINS + 1)
    bin_B = np.clip(np.searchsorted(edges, confidence_B, side="left") - 1, 0, CALIBRATION_BINS - 1)
    bins: list[dict[str, float | int | None]] = []
    for index in range(CALIBRATION_BINS):
        inside_B = bin_B == index
        count = int(inside_B.sum())
        bins.append(
            {
                "low": float(edges[index]),
                "high": float(edges[index + 1]),
                "count": count,
                "confidence": float(confidence_B[inside_B].mean()) if count else None,
                "accuracy": float(correct_B[inside_B].mean()) if count else None,
            }
        )
    return bins


def calibration_error(bins: list[dict[str, float | int | None]]) -> float:
    """How far confidence and accuracy lie apart, the mean over examples; see :func:`classification_metrics`."""
    filled = np.array([(b["count"], b["confidence"], b["accuracy"]) for b in bins if b["count"]], dtype=np.float64)
    count, confidence, accuracy = filled.T
    return float(np.average(np.abs(accuracy - confidence), weights=count))


def _interval(confusion_CC: IntArray, formula: Callable[[_Tally], FloatArray], samples: int, seed: int) -> list[float]:
    """Examples in one cell of the confusion matrix are alike for anything that depends on it alone."""
    true_K, predicted_K = np.nonzero(confusion_CC)
    hit_K = true_K == predicted_K
    num_classes = len(confusion_CC)

    def scores(draws_RK: IntArray) -> FloatArray:
        hits_RC = np.zeros((len(draws_RK), num_classes), dtype=np.int64)
        hits_RC[:, true_K[hit_K]] = draws_RK[:, hit_K]
        true_RC = _sum_by_class(draws_RK, true_K, num_classes)
        return formula(_Tally(hits_RC, true_RC, _sum_by_class(draws_RK, predicted_K, num_classes)))

    return grouped_interval(confusion_CC[true_K, predicted_K], scores, samples=samples, seed=seed)


def _sum_by_class(draws_RK: IntArray, class_K: IntArray, num_classes: int) -> IntArray:
    order = np.argsort(class_K, kind="stable")
    present, starts = np.unique(class_K[order], return_index=True)
    sums_RC = np.zeros((len(draws_RK), num_classes), dtype=np.int64)
    sums_RC[:, present] = np.add.reduceat(draws_RK[:, order], starts, axis=1)
    return sums_RC


def _confusion(true_B: IntArray, predicted_B: IntArray, num_classes: int) -> IntArray:
    cells = np.bincount(true_B * num_classes + predicted_B, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes)


def _checked(true_B: npt.ArrayLike, probabilities_BC: npt.ArrayLike, names: Sequence[str]) -> tuple[IntArray, FloatArray]:
    if len(names) < 2:
        raise BertwrightError(f"{len(names)} class names; a classifier has at least two")
    name, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise BertwrightError(f"the class name '{name}' is given {times} times; give every class a name of its own")
    true = _class_indices("true", true_B, len(names))
    probabilities = np.asarray(probabilities_BC, dtype=np.float64)
    if probabilities.shape != (len(true), len(names)):
        expected = f"({len(true)}, {len(names)}), examples by classes"
        raise BertwrightError(f"probabilities have shape {probabilities.shape}; expected {expected}")
    # Written so that NaN, which compares false with everything, is caught too.
    bad_rows = np.flatnonzero(~((probabilities >= 0) & (probabilities <= 1 + SUM_TOLERANCE)).all(axis=1))
    if len(bad_rows):
        row = int(bad_rows[0])
        bad = next(float(value) for value in probabilities[row] if not 0 <= value <= 1 + SUM_TOLERANCE)
        raise BertwrightError(
            f"row {row} of the probabilities holds {bad:g} ({len(bad_rows)} such rows); give probabilities between "
            "0 and 1, not logits; NaN means that training diverged"
        )
    sums_B = probabilities.sum(axis=1)
    bad_rows = np.flatnonzero(np.abs(sums_B - 1) > SUM_TOLERANCE)
    if len(bad_rows):
        row = int(bad_rows[0])
        raise BertwrightError(
            f"row {row} of the probabilities sums to {sums_B[row]:g} ({len(bad_rows)} such rows); it must sum to 1"
        )
    return true, np.minimum(probabilities, 1.0)


def _class_indices(what: str, values_B: npt.ArrayLike, num_classes: int | None) -> IntArray:
    values = np.asarray(values_B)
    if values.size == 0:
        raise BertwrightError(f"there are no {what} labels; a metric needs at least one example")
    if values.ndim != 1 or values.dtype.kind not in "iub":
        raise BertwrightError(
            f"{what} labels are a {values.dtype} array of shape {values.shape}; give one integer class index an example"
        )
    outside = np.flatnonzero((values < 0) | (values >= (np.inf if num_classes is None else num_classes)))
    if len(outside):
        row = int(outside[0])
        remedy = "classes count from 0" if num_classes is None else f"{num_classes} classes are 0 to {num_classes - 1}"
        raise BertwrightError(f"the {what} label of row {row} is {int(values[row])}; {remedy}")
    return values.astype(np.int64)


def _require_same_length(true_B: IntArray, predicted_B: IntArray) -> None:
    if len(true_B) != len(predicted_B):
        raise BertwrightError(
            f"{len(true_B)} true labels but {len(predicted_B)} predicted ones; give one prediction an example"
        )


def _require_known(name: str, known: Iterable[str]) -> None:
    options = list(known)
    if name not in options:
        raise BertwrightError(f"unknown metric '{name}'; known: {', '.join(options)}{did_you_mean(name, options)}")
