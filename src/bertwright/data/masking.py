"""Masking for masked language modelling (Devlin et al. 2019, section 3.1, task 1, and appendix A.1).

Which positions, and what stands in their place, is a pure function of (seed, step, micro-batch): any batch can be
masked again, and no generator state has to be saved.

Shapes: T tokens of a packed batch, E of them eligible, W words, M masked positions, V vocabulary.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bertwright.data.packing import PackedBatch, Rows
from bertwright.errors import BertwrightError

Int64Array = npt.NDArray[np.int64]

# The second word of Philox's counter, which keeps these draws apart from all others under the same seed: dropout has
# 0 and 2, the order of fine-tuning's rows 1, instances 3.
_LANE = 4


def mask(
    batch: PackedBatch,
    seed: int,
    step: int,
    micro_batch: int = 0,
    *,
    mask_id: int,
    special_ids: Iterable[int],
    vocab_size: int,
    continues: npt.NDArray[np.uint8] | None = None,
    rate: float = 0.15,
    replace: tuple[float, float, float] = (0.8, 0.1, 0.1),
) -> tuple[PackedBatch, Rows, Tensor]:
    """Mask a batch and return (the batch with ids replaced, the masked rows, targets_M: the ids that were there).

    Of the E eligible tokens exactly ``round(rate * E)`` are chosen, one at least, uniformly over the whole batch: a
    short sequence may have none. Each becomes [MASK], a random token or stays as it is, with the probabilities of
    ``replace``. Random tokens are uniform over the vocabulary without ``special_ids`` (BERT's own preparation drew
    from the whole vocabulary, [PAD] and unused entries included) and may by chance be the very token that was there.

    With ``continues`` whole words are chosen, as BERT's later releases did: a piece belongs to the word before it
    within its part of the pair, and a piece whose word was truncated away counts as a word. Words are taken in random
    order while they fit into ``round(rate * E)``; one that does not fit is passed over. If none fits, the shortest is
    taken. What replaces a token is drawn for each piece.

    Args:
        batch: on the CPU; it is not changed.
        seed: of the run, not negative.
        step: optimizer step.
        micro_batch: number of the batch within its step, over all processes.
        mask_id: the id of [MASK].
        special_ids: ids that are never chosen and never put in: special tokens, [UNK] and unused entries.
            ``mask_id`` is always one of them.
        vocab_size: V.
        continues: for whole words, of shape (V,): 1 for ids that continue a word (``##``), 0 for others.
        rate: share of the eligible tokens to choose, above 0 and at most 1.
        replace: probabilities of [MASK], a random token, the token itself.

    Returns:
        The rows are ascending, with their number in each sequence. They are empty, and so are the targets, if no token
        of the batch is eligible.

    Raises:
        BertwrightError: a rate or probabilities out of range.
    """
    if not 0 < rate <= 1:
        raise BertwrightError(f"the masking rate is {rate}; give a share above 0 and at most 1, such as 0.15")
    if min(replace) < 0 or not math.isclose(sum(replace), 1, abs_tol=1e-6):
        raise BertwrightError(f"masked tokens are replaced with probabilities {replace}: give three that sum to 1")
    assert continues is None or continues.shape == (vocab_size,), "one flag for each entry of the vocabulary"
    special_V = np.zeros(vocab_size, np.bool_)
    special_V[[mask_id, *special_ids]] = True

    random = np.random.Generator(np.random.Philox(key=seed, counter=[0, _LANE, micro_batch, step]))
    ids_T: Int64Array = batch.input_ids_T.numpy().copy()
    eligible_E = np.flatnonzero(~special_V[ids_T])
    budget = min(max(round(rate * len(eligible_E)), 1), len(eligible_E))
    if continues is None:
        chosen_M = np.sort(random.choice(eligible_E, budget, replace=False, shuffle=False))
    else:
        chosen_M = _whole_words(eligible_E, continues[ids_T[eligible_E]], budget, random)
    targets_M = ids_T[chosen_M]

    fate_M = random.random(len(chosen_M))
    masked_M = fate_M < replace[0]
    random_M = ~masked_M & (fate_M < replace[0] + replace[1])
    ids_T[chosen_M[masked_M]] = mask_id
    ordinary = np.flatnonzero(~special_V)
    ids_T[chosen_M[random_M]] = ordinary[random.integers(0, max(len(ordinary), 1), int(random_M.sum()))]

    before = np.searchsorted(chosen_M, batch.sequences.offsets_B1.numpy())
    rows = Rows(torch.from_numpy(chosen_M), tuple(np.diff(before).tolist()))
    return dataclasses.replace(batch, input_ids_T=torch.from_numpy(ids_T)), rows, torch.from_numpy(targets_M)


def rate_at(progress: float, start: float, end: float) -> float:
    """The masking rate after ``progress`` (0 to 1) of a training that goes linearly from ``start`` to ``end``.

    Ankner et al. 2024 (Dynamic Masking Rate Schedules for MLM Pretraining) gain from a rate that falls.
    """
    return start + (end - start) * min(max(progress, 0.0), 1.0)


def _whole_words(
    eligible_E: Int64Array, continues_E: npt.NDArray[np.uint8], budget: int, random: np.random.Generator
) -> Int64Array:
    """Return the places, ascending, of the pieces of randomly chosen words, at most ``budget`` of them where one fits."""
    if not len(eligible_E):
        return eligible_E
    # A special token in between, always there between the parts of a pair, ends a word as well.
    begins_E = (continues_E == 0) | (np.diff(eligible_E, prepend=-2) > 1)
    word_E = np.cumsum(begins_E) - 1
    sizes_W = np.bincount(word_E)
    order_W = random.permutation(len(sizes_W))
    chosen_W = np.zeros(len(sizes_W), np.bool_)
    chosen_W[order_W[_fitting(sizes_W[order_W], budget)]] = True
    places: Int64Array = eligible_E[chosen_W[word_E]]
    return places


def _fitting(sizes_W: Int64Array, budget: int) -> Int64Array:
    """Return which words to take so that their sizes fill the budget, passing over those that do not fit any more."""
    ends_W = np.cumsum(sizes_W)
    here = int(np.searchsorted(ends_W, budget, side="right"))
    left = budget - (int(ends_W[here - 1]) if here else 0)
    taken = [np.arange(here)]
    # Each round takes a word, and less is left than a word's length: a few rounds at most.
    while len(fits := np.flatnonzero(sizes_W[here:] <= left)):
        here += int(fits[0])
        taken.append(np.array([here]))
        left -= int(sizes_W[here])
        here += 1
    chosen: Int64Array = np.concatenate(taken)
    return chosen if len(chosen) else np.array([sizes_W.argmin()])
