"""How good predicted sets of labels are, and from which probability on a label is best given.

Everything here is a pure function of numpy arrays and returns plain Python values that JSON can hold.

Shapes: B examples, C labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bertwright.arrays import BoolArray, FloatArray, IntArray
from bertwright.errors import BertwrightError
from bertwright.evaluation.bootstrap import by_source, headline

HALF = 0.5


class LabelSets:
    """True and predicted labels of some examples, both of shape (B, C), and the scores over any of these examples.

    A score that is undefined, because no label is true and none is predicted, is 0.
    """

    def __init__(self, true_BC: BoolArray, predicted_BC: BoolArray) -> None:
        self._right_B = (true_BC == predicted_BC).all(1).astype(np.float64)
        self._parts = [part.astype(np.float64) for part in (true_BC & predicted_BC, true_BC, predicted_BC)]

    def tallies(self, rows: IntArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """For each label: how often it is both true and predicted, how often true, how often predicted."""
        times_B = np.bincount(rows, minlength=len(self._right_B)).astype(np.float64)
        hits_C, true_C, predicted_C = (times_B @ part for part in self._parts)
        return hits_C, true_C, predicted_C

    def f1_micro(self, rows: IntArray) -> float:
        """F1 over all decisions, each text and label one."""
        hits, true, predicted = (tally.sum() for tally in self.tallies(rows))
        return float(2 * hits / max(true + predicted, 1))

    def f1_macro(self, rows: IntArray) -> float:
        """The mean F1 of the labels that are true or predicted anywhere."""
        hits_C, true_C, predicted_C = self.tallies(rows)
        seen_C = true_C + predicted_C
        return float((2 * hits_C / np.maximum(seen_C, 1)).sum() / max((seen_C > 0).sum(), 1))

    def subset_accuracy(self, rows: IntArray) -> float:
        """The part of the examples whose labels are all right, none missing and none too many."""
        return float(self._right_B[rows].mean())

    def scores(self, rows: IntArray) -> dict[str, float]:
        """Every score in SCORES."""
        return {name: float(score(self, rows)) for name, score in SCORES.items()}


SCORES: dict[str, Callable[[LabelSets, IntArray], float]] = {
    "f1_micro": LabelSets.f1_micro,
    "f1_macro": LabelSets.f1_macro,
    "subset_accuracy": LabelSets.subset_accuracy,
}
"""Scores by name; more is better, and training picks epochs by one."""


def label_set_metrics(
    true_BC: BoolArray,
    probabilities_BC: FloatArray,
    thresholds_C: FloatArray,
    names: Sequence[str],
    metric: str,
    sources: Sequence[str | None] = (),
    *,
    samples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure predicted sets of labels; a label is predicted from its threshold on.

    Args:
        true_BC: which labels are true.
        probabilities_BC: how probable each is.
        thresholds_C: of each label.
        names: of the labels.
        metric: a name in SCORES, which gets a bootstrap interval.
        sources: where each example comes from, for results by source.
        samples: resamples of the bootstrap.
        seed: of the bootstrap.

    Returns:
        A dict that JSON can hold: ``examples``; every score in SCORES; ``precision_micro`` and ``recall_micro``;
        ``f1_macro_note`` where labels occur neither in truth nor prediction; ``labels_per_example`` and
        ``predicted_per_example``, means; ``per_class``: by label ``precision``, ``recall``, ``f1`` (each 0 where
        undefined), ``support`` and ``threshold``; ``headline``; and ``per_source`` where every example has one.

    Raises:
        BertwrightError: shapes that do not fit, or values that are no probabilities.
    """
    shape = (len(true_BC), len(names))
    if not len(true_BC) or true_BC.shape != shape or probabilities_BC.shape != shape or len(thresholds_C) != len(names):
        raise BertwrightError(
            f"truth of shape {true_BC.shape}, probabilities of {probabilities_BC.shape} and {len(thresholds_C)} thresholds "
            f"for {len(names)} labels; give a row an example and a column a label"
        )
    if not ((probabilities_BC >= 0) & (probabilities_BC <= 1)).all():
        raise BertwrightError("a probability is not in 0 to 1; give probabilities, not logits; NaN means divergence")
    predicted_BC = probabilities_BC >= thresholds_C
    sets, rows = LabelSets(true_BC, predicted_BC), np.arange(len(true_BC))
    hits_C, true_C, predicted_C = sets.tallies(rows)
    unseen = int((true_C + predicted_C == 0).sum())
    left_out = f"the mean leaves out {unseen} of {len(names)} labels, in neither the truth nor the predictions"
    per_class = {
        name: {
            "precision": float(hits / max(predicted, 1)),
            "recall": float(hits / max(true, 1)),
            "f1": float(2 * hits / max(true + predicted, 1)),
            "support": int(true),
            "threshold": float(threshold),
        }
        for name, hits, true, predicted, threshold in zip(names, hits_C, true_C, predicted_C, thresholds_C, strict=True)
    }
    return {
        "examples": len(true_BC),
        **sets.scores(rows),
        **({"f1_macro_note": left_out} if unseen else {}),
        "precision_micro": float(hits_C.sum() / max(predicted_C.sum(), 1)),
        "recall_micro": float(hits_C.sum() / max(true_C.sum(), 1)),
        "labels_per_example": float(true_C.sum() / len(true_BC)),
        "predicted_per_example": float(predicted_C.sum() / len(true_BC)),
        "per_class": per_class,
        "headline": headline(metric, lambda some: SCORES[metric](sets, some), len(rows), samples=samples, seed=seed),
        **by_source(sources, sets.scores),
    }


def best_threshold(true: BoolArray, probabilities: FloatArray) -> float:
    """The threshold with the best F1 over these decisions, of any shape: half-way between two probabilities.

    Of thresholds that are as good the highest; 0.5 where no decision is true, and every threshold as bad.
    """
    order = np.argsort(-probabilities, axis=None, kind="stable")
    descending = probabilities.ravel()[order]
    hits = np.cumsum(true.ravel()[order])
    if not len(hits) or hits[-1] == 0:
        return HALF
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + hits[-1])
    following = np.append(descending[1:], -1.0)
    f1[descending == following] = -1  # equal probabilities are given together, or not at all
    best = int(f1.argmax())
    middle = float((descending[best] + max(following[best], 0)) / 2)
    # Between neighbouring floats there is no middle: rounding must not give the lower one too.
    return middle if middle > following[best] else float(descending[best])


def tuned_thresholds(true_BC: BoolArray, probabilities_BC: FloatArray, *, per_label: bool) -> FloatArray:
    """The thresholds of labels with the best F1: one for all, by F1 over all decisions, or each label's own.

    A label that is true nowhere has nothing to be tuned by, and takes the one for all.
    """
    shared = best_threshold(true_BC, probabilities_BC)
    thresholds_C = np.full(true_BC.shape[1], shared)
    if per_label:
        for c in np.flatnonzero(true_BC.any(0)).tolist():
            thresholds_C[c] = best_threshold(true_BC[:, c], probabilities_BC[:, c])
    return thresholds_C
