"""Texts of any length as overlapping windows, and what a head says of windows as what it says of their texts.

Shapes: E examples, W windows of all of them, C numbers that the head gives for each.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bertwright.arrays import IntArray
from bertwright.data.examples import Example
from bertwright.data.inputs import Inputs
from bertwright.data.packing import TokenTable
from bertwright.errors import BertwrightError
from bertwright.tokenizer import Tokenizer


def window_begins(tokens: int, room: int, stride: int) -> IntArray:
    """Where the windows of ``room`` tokens begin in a text of ``tokens``.

    They are as few as can be with neighbours that share at least ``stride`` tokens, all of them are full, and they are
    spread evenly: a last window with the few tokens that are left over would weigh as much as any other.
    """
    if tokens <= room:
        return np.zeros(1, dtype=np.int64)
    steps = -(-(tokens - room) // (room - stride))
    # Whole numbers throughout, so that no two machines round a begin differently.
    return np.asarray(np.arange(steps + 1) * (tokens - room) // steps)


def encode_windows(tokenizer: Tokenizer, examples: Sequence[Example], max_length: int, stride: int) -> Inputs:
    """Encode texts or pairs of texts whole: one longer than ``max_length`` tokens as several sequences.

    A window of a text is ``[CLS] part [SEP]``. Of a pair the longer text is split, the second if both are as long, and
    the shorter one stands whole in every window.

    Raises:
        BertwrightError: windows would not move on, because of ``stride`` or of a shorter text that leaves no room.
    """
    if stride >= max_length - 2:
        raise BertwrightError(
            f"--stride {stride} is all that a window of --max-length {max_length} holds, so the next could not move on; "
            f"give at most {max_length - 3}"
        )
    firsts = _pieces(tokenizer, [example.text for example in examples])
    paired = bool(examples) and examples[0].pair is not None
    seconds = _pieces(tokenizer, [example.pair or "" for example in examples]) if paired else [[]] * len(examples)
    input_ids: list[list[int]] = []
    token_type_ids: list[list[int]] = []
    counts = []
    for example, first, second in zip(examples, firsts, seconds, strict=True):
        split_second = paired and len(second) >= len(first)
        longer, shorter = (second, first) if split_second else (first, second)
        room = max_length - (3 if paired else 2) - len(shorter)
        if len(longer) > room and room <= stride:
            raise BertwrightError(
                f"{example.where}: the shorter text of this pair has {len(shorter)} tokens and stands in every window; that "
                f"leaves {max(room, 0)} for the longer one, no more than --stride {stride}; give a larger --max-length"
            )
        begins = window_begins(len(longer), room, stride).tolist()
        for begin in begins:
            part = longer[begin : begin + room]
            a, b = (shorter, part) if split_second else (part, shorter)
            ids = [tokenizer.cls_id, *a, tokenizer.sep_id]
            tail = [*b, tokenizer.sep_id] if paired else []
            input_ids.append(ids + tail)
            token_type_ids.append([0] * len(ids) + [1] * len(tail))
        counts.append(len(begins))
    starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    return Inputs(examples, TokenTable(input_ids, token_type_ids), starts, np.zeros(len(examples), dtype=np.int64))


def _pieces(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    return [encoded.input_ids[1:-1] for encoded in tokenizer.encode_batch(texts)]


def pooled(logits_WC: Tensor, counts_E: IntArray) -> Tensor:
    """Return logits_EC, the mean over the windows of each example; that of a single window to the bit.

    The mean of logits, not of probabilities: up to a constant it is the mean of log-probabilities, so that every window
    has a say, and a window that rules a class out does so for the text. Cross-entropy is convex in the logits, so a
    text's loss is at most the mean of its windows' losses, which is what training lowers.
    """
    if len(logits_WC) == len(counts_E):
        return logits_WC
    owner_W = torch.from_numpy(np.repeat(np.arange(len(counts_E)), counts_E)).to(logits_WC.device)
    sums_EC = logits_WC.new_zeros(len(counts_E), logits_WC.shape[1]).index_add(0, owner_W, logits_WC)
    return sums_EC / torch.from_numpy(counts_E).to(logits_WC)[:, None]
