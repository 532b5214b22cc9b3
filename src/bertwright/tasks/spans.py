"""The best answers of a span head's scores: exact, over all windows of a question, and whole words of the context only.

Shapes: R rows of a head (all tokens of all windows), W windows, S tokens of the longest context slice, L tokens of the
longest answer, E examples, K spans.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bertwright.arrays import FloatArray, IntArray
from bertwright.data.inputs import Inputs
from bertwright.data.packing import spans
from bertwright.data.question_windows import ContextWindow

_CELLS_AT_ONCE = 4_000_000  # 8 bytes each: starts by lengths of the windows that are searched together


@dataclass(frozen=True)
class Spans:
    """Spans of contexts, best first for each example.

    Span k answers ``example_K[k]``; it begins with token ``first_K[k]`` of the context, ends with ``last_K[k]``, and has
    ``score_K[k]``, the sum of its start and end scores. Example e has the spans ``starts_E1[e] : starts_E1[e + 1]``.
    """

    example_K: IntArray
    first_K: IntArray
    last_K: IntArray
    score_K: FloatArray
    starts_E1: IntArray


def best_spans(outputs_R2: FloatArray, inputs: Inputs, *, longest: int, count: int) -> Spans:
    """The ``count`` spans with the highest scores for each example, fewer where there are fewer.

    A span lies in one window, ends no earlier than it begins, is at most ``longest`` tokens long, and begins and ends
    with whole words. Where several windows show it, its best score counts. Of equal scores, the earlier span is better.
    """
    windows: Sequence[ContextWindow] = inputs.details
    lengths_W = np.array([window.end - window.begin for window in windows], dtype=np.int64)
    order_W = np.argsort(lengths_W, kind="stable")
    found: list[_Found] = []
    begin = 0
    while begin < len(order_W):
        # Windows of about one length are searched together, so that little of the common array is empty.
        end = begin + 1
        while end < len(order_W) and (end + 1 - begin) * lengths_W[order_W[end]] * longest <= _CELLS_AT_ONCE:
            end += 1
        found.append(_search(outputs_R2, inputs, order_W[begin:end], lengths_W, longest, count))
        begin = end
    examples = len(inputs.starts) - 1
    example_W = np.repeat(np.arange(examples), np.diff(inputs.starts))
    return _ranked(_Found.of(found), example_W, examples, count)


@dataclass(frozen=True, slots=True)
class _Found:
    """Spans with the windows that show them, in no order."""

    window_K: IntArray
    first_K: IntArray
    last_K: IntArray
    score_K: FloatArray

    @classmethod
    def of(cls, parts: Sequence[_Found]) -> _Found:
        return cls(
            np.concatenate([part.window_K for part in parts]),
            np.concatenate([part.first_K for part in parts]),
            np.concatenate([part.last_K for part in parts]),
            np.concatenate([part.score_K for part in parts]),
        )

    def take(self, which: npt.NDArray[Any]) -> _Found:
        return _Found(self.window_K[which], self.first_K[which], self.last_K[which], self.score_K[which])


def no_answer_scores(outputs_R2: FloatArray, inputs: Inputs) -> FloatArray:
    """Score for each example that it has no answer: the lowest, over its windows, of both scores of [CLS] summed."""
    null_W = outputs_R2[inputs.table.read_starts[:-1]].sum(1)
    return np.minimum.reduceat(null_W, inputs.starts[:-1])


def _search(
    outputs_R2: FloatArray, inputs: Inputs, which_W: IntArray, lengths_W: IntArray, longest: int, count: int
) -> _Found:
    """The best spans of some windows."""
    windows: list[ContextWindow] = [inputs.details[w] for w in which_W.tolist()]
    lengths = lengths_W[which_W]
    width = int(lengths.max())
    begin_W = np.array([window.begin for window in windows], dtype=np.int64)
    if not width:
        nothing = np.empty(0, dtype=np.int64)
        return _Found(nothing, nothing, nothing, np.empty(0))
    longest = min(longest, width)
    prefix_W = np.array([window.prefix for window in windows], dtype=np.int64)
    rows = spans(inputs.table.read_starts[which_W] + prefix_W, lengths)
    cells = spans(np.arange(len(windows)) * width, lengths)
    first = np.concatenate([window.context.first_N[window.begin : window.end] for window in windows])
    last = np.concatenate([window.context.last_N[window.begin : window.end] for window in windows])
    start_WS = np.full((len(windows), width), -np.inf)
    start_WS.ravel()[cells] = np.where(first, outputs_R2[rows, 0], -np.inf)
    end_WS = np.full((len(windows), width + longest - 1), -np.inf)  # past its end, so that each start has ``longest`` ends
    end_WS[:, :width].flat[cells] = np.where(last, outputs_R2[rows, 1], -np.inf)
    band_WSL = np.lib.stride_tricks.sliding_window_view(end_WS, longest, axis=1)
    # The best ``count`` spans begin at the ``count`` starts whose own best spans are best: only these are looked at.
    best_WS = start_WS + band_WSL.max(2)
    kept_WJ = np.sort(_highest(best_WS, count), 1)
    window_W1 = np.arange(len(windows))[:, None]
    score_WC = (start_WS[window_W1, kept_WJ][:, :, None] + band_WSL[window_W1, kept_WJ]).reshape(len(windows), -1)
    best_WK = _highest(score_WC, count)
    score_WK = np.take_along_axis(score_WC, best_WK, 1)
    window_K, column_K = np.nonzero(score_WK > -np.inf)
    start_K, further_K = np.divmod(best_WK[window_K, column_K], longest)
    first_K = begin_W[window_K] + kept_WJ[window_K, start_K]
    return _Found(which_W[window_K], first_K, first_K + further_K, score_WK[window_K, column_K])


def _highest(values_WC: FloatArray, count: int) -> IntArray:
    """Columns of the highest values of each row, best first, of equal ones the first."""
    if count == 1:
        return np.asarray(values_WC.argmax(1)[:, None])
    return np.asarray(np.argsort(-values_WC, axis=1, kind="stable")[:, :count])


def _ranked(found: _Found, example_W: IntArray, examples: int, count: int) -> Spans:
    """Sort the spans of each example, best first, without repetitions, and keep ``count``."""
    found = found.take(np.lexsort((-found.score_K, found.last_K, found.first_K, example_W[found.window_K])))
    key_K3 = np.stack([example_W[found.window_K], found.first_K, found.last_K], 1)
    new_K = np.ones(len(key_K3), dtype=bool)
    new_K[1:] = (np.diff(key_K3, axis=0) != 0).any(1)
    found = found.take(new_K)
    found = found.take(np.lexsort((found.last_K, found.first_K, -found.score_K, example_W[found.window_K])))
    example_K = example_W[found.window_K]
    rank_K = np.arange(len(example_K)) - np.searchsorted(example_K, example_K)
    found, example_K = found.take(rank_K < count), example_K[rank_K < count]
    starts_E1 = np.searchsorted(example_K, np.arange(examples + 1))
    return Spans(example_K, found.first_K, found.last_K, found.score_K, starts_E1)
