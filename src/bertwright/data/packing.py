"""Packing: sequences end to end, no padding.

One structure flows from here to every head and loss. Embeddings, linear layers, norms and heads see the T real tokens;
attention alone looks at where sequences end.

Shapes: T tokens of a packed batch, B sequences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Int32Array = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Sequences:
    """Where the sequences of a packed batch begin and end.

    ``lengths`` has B entries; ``offsets_B1`` (int32, on the batch's device) has B + 1: sequence b is the tokens
    ``offsets_B1[b] : offsets_B1[b + 1]``.
    """

    lengths: tuple[int, ...]
    offsets_B1: Tensor

    @classmethod
    def of(cls, lengths: Sequence[int]) -> Sequences:
        """Build the offsets for sequences of these lengths, on the CPU."""
        return cls(tuple(lengths), torch.tensor([0, *accumulate(lengths)], dtype=torch.int32))

    @property
    def longest(self) -> int:
        """Tokens in the longest sequence."""
        return max(self.lengths)

    def firsts(self) -> Rows:
        """The first token of each sequence, where BERT puts [CLS]."""
        return Rows(self.offsets_B1[:-1].long(), (1,) * len(self.lengths))

    def firsts_and(self, others: Rows) -> tuple[Rows, Tensor, Tensor]:
        """The first token of each sequence and ``others``, none of which is a first token.

        Returns:
            All these rows; and among them the places of the others, and of the first tokens.
        """
        device = others.index_R.device
        counts_B = torch.tensor(others.counts)
        sequence_M = torch.repeat_interleave(torch.arange(len(counts_B)), counts_B)
        others_M = (torch.arange(len(sequence_M)) + sequence_M + 1).to(device)
        firsts_B = (torch.cumsum(counts_B, 0) - counts_B + torch.arange(len(counts_B))).to(device)
        index_R = torch.empty(len(others_M) + len(firsts_B), dtype=torch.long, device=device)
        index_R[others_M] = others.index_R
        index_R[firsts_B] = self.offsets_B1[:-1].long()
        return Rows(index_R, tuple(count + 1 for count in others.counts)), others_M, firsts_B

    def to(self, device: torch.device) -> Sequences:
        """The same sequences, their offsets on ``device``."""
        return Sequences(self.lengths, self.offsets_B1.to(device, non_blocking=True))


@dataclass(frozen=True, slots=True)
class Rows:
    """The tokens that a head reads: their places in the packed batch, ascending, and how many lie in each sequence."""

    index_R: Tensor
    counts: tuple[int, ...]

    def to(self, device: torch.device) -> Rows:
        """The same rows, their places on ``device``."""
        return Rows(self.index_R.to(device, non_blocking=True), self.counts)


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Tokens of B sequences end to end, shortest sequence first.

    ``order[b]`` is the place that sequence b had in the caller's list: sorting lets attention take equal lengths
    together, and ``order`` takes it back. ``rows`` are the tokens that a head reads; None: the first of each sequence.
    """

    input_ids_T: Tensor
    token_type_ids_T: Tensor
    position_ids_T: Tensor
    sequences: Sequences
    order: npt.NDArray[np.int64]
    rows: Rows | None = None

    @property
    def tokens(self) -> int:
        """T, all of them real."""
        return int(self.input_ids_T.shape[0])

    def read(self) -> Rows:
        """The tokens that a head reads."""
        return self.sequences.firsts() if self.rows is None else self.rows

    def callers_order(self) -> Tensor:
        """Places of the head's outputs, such that ``outputs_RC[places]`` has the sequences in the caller's order."""
        if self.rows is None:
            return torch.from_numpy(np.argsort(self.order))
        counts_B = np.array(self.rows.counts)
        begins_B = np.cumsum(counts_B) - counts_B
        back_B = np.argsort(self.order)
        return torch.from_numpy(spans(begins_B[back_B], counts_B[back_B]))

    def to(self, device: torch.device) -> PackedBatch:
        """The same batch on ``device``."""
        if device.type == "cpu":
            return self
        return PackedBatch(
            self.input_ids_T.to(device, non_blocking=True),
            self.token_type_ids_T.to(device, non_blocking=True),
            self.position_ids_T.to(device, non_blocking=True),
            self.sequences.to(device),
            self.order,
            None if self.rows is None else self.rows.to(device),
        )


class TokenTable:
    """All encoded sequences of a data set in flat arrays: small, quick to index, and cheap to share.

    Python lists of token ids cost about 30 bytes a token; these arrays cost five.

    ``reads`` lists for each sequence the places, ascending, of the tokens that a head reads; None: the first of each.
    """

    def __init__(
        self,
        input_ids: Sequence[Sequence[int] | Int32Array],
        token_type_ids: Sequence[Sequence[int] | npt.NDArray[np.uint8]],
        reads: Sequence[Sequence[int] | npt.NDArray[np.int64]] | None = None,
    ) -> None:
        assert [len(ids) for ids in input_ids] == [len(ids) for ids in token_type_ids], "each id needs its segment"
        self.lengths: Int32Array = np.fromiter((len(ids) for ids in input_ids), np.int32, len(input_ids))
        self.starts = np.concatenate([[0], np.cumsum(self.lengths, dtype=np.int64)])
        self.input_ids: Int32Array = _end_to_end(input_ids, np.int32)
        self.token_type_ids: npt.NDArray[np.uint8] = _end_to_end(token_type_ids, np.uint8)
        self.reads: Int32Array | None = None
        self.read_starts = np.arange(len(self.lengths) + 1)
        if reads is not None:
            counts = np.fromiter((len(places) for places in reads), np.int64, len(reads))
            self.read_starts = np.concatenate([[0], np.cumsum(counts)])
            self.reads = _end_to_end(reads, np.int32)

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def tokens(self) -> int:
        """Tokens of all sequences together."""
        return len(self.input_ids)

    def outputs(self, which: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Places, among a head's outputs for the whole table, of those for the sequences with these indices, in order."""
        return spans(self.read_starts[which], self.read_starts[which + 1] - self.read_starts[which])

    def pack(self, which: npt.NDArray[np.int64]) -> PackedBatch:
        """Pack the sequences with these indices, shortest first, equal lengths in the given order."""
        order = np.argsort(self.lengths[which], kind="stable")
        which = which[order]
        lengths = self.lengths[which].astype(np.int64)
        ends = np.cumsum(lengths)
        position_ids_T = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)
        take_T = np.repeat(self.starts[which], lengths) + position_ids_T
        rows = None
        if self.reads is not None:
            counts = self.read_starts[which + 1] - self.read_starts[which]
            places_R = self.reads[self.outputs(which)] + np.repeat(ends - lengths, counts)
            rows = Rows(torch.from_numpy(places_R), tuple(counts.tolist()))
        return PackedBatch(
            input_ids_T=torch.from_numpy(self.input_ids[take_T].astype(np.int64)),
            token_type_ids_T=torch.from_numpy(self.token_type_ids[take_T].astype(np.int64)),
            position_ids_T=torch.from_numpy(position_ids_T),
            sequences=Sequences.of(lengths.tolist()),
            order=order,
            rows=rows,
        )


def spans(begins: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The whole numbers from each begin on, as many as its count, end to end."""
    ends = np.cumsum(counts)
    return np.asarray(np.arange(ends[-1] if len(ends) else 0) + np.repeat(begins - (ends - counts), counts))


def _end_to_end(lists: Sequence[Sequence[int] | npt.NDArray[Any]], kind: type[Any]) -> npt.NDArray[Any]:
    return np.concatenate([np.asarray(one, dtype=kind) for one in lists]) if len(lists) else np.empty(0, kind)
