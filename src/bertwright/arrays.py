"""Types of numpy arrays, and probabilities out of logits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


def softmax(logits_BC: FloatArray) -> FloatArray:
    """The probabilities of each row; minus infinity has none."""
    shifted_BC = np.exp(logits_BC - logits_BC.max(1, keepdims=True))
    return np.asarray(shifted_BC / shifted_BC.sum(1, keepdims=True))


def sigmoid(logits: FloatArray) -> FloatArray:
    """The probability of each logit."""
    return np.asarray(np.exp(-np.logaddexp(0.0, -logits)))
