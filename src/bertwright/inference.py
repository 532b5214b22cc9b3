"""Run a model over any number of sequences: sorted by length, in batches of many tokens, results in order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bertwright.data.arriving import PATIENCE, Arriving
from bertwright.data.examples import AnyExample, Unreadable
from bertwright.data.packing import PackedBatch, TokenTable
from bertwright.machine import Machine
from bertwright.telling import Progress, silent

Readable = TypeVar("Readable", bound=AnyExample)


def chunk(rows: Iterator[Readable | Unreadable], count: int, characters: int) -> list[Readable | Unreadable]:
    """Take rows until there are ``count`` of them, or ``characters`` of text; none are left where it is empty.

    Of a live stream, those that come within a moment.
    """
    taken: list[Readable | Unreadable] = []
    held, until = 0, 0.0
    for row in rows:
        until = until or time.monotonic() + PATIENCE
        taken.append(row)
        if not isinstance(row, Unreadable):
            held += row.characters
        if len(taken) >= count or held >= characters or (isinstance(rows, Arriving) and not rows.comes(until)):
            break
    return taken


def batches_by_length(lengths: npt.NDArray[np.int32], budget: int) -> list[npt.NDArray[np.int64]]:
    """Cut the sequences, shortest first, into batches of at most ``budget`` tokens (or a single sequence)."""
    order = np.argsort(lengths, kind="stable")
    batches, begin, tokens = [], 0, 0
    for place, length in enumerate(lengths[order].tolist()):
        if tokens + length > budget and place > begin:
            batches.append(order[begin:place])
            begin, tokens = place, 0
        tokens += length
    if len(order):
        batches.append(order[begin:])
    return batches


def run(
    forward: Callable[[PackedBatch], Tensor], table: TokenTable, machine: Machine, progress: Progress = silent
) -> npt.NDArray[np.float64]:
    """Return a row for each token that a head reads, sequence after sequence as ``table`` has them.

    ``forward`` gives those rows in packed order. Without ``reads`` of its own a table has one row for each sequence.
    ``progress`` is told after each batch.
    """
    results: npt.NDArray[np.float64] | None = None
    done, total = 0, table.tokens
    with torch.inference_mode(), machine.computing():
        for which in batches_by_length(table.lengths, machine.token_budget):
            batch = table.pack(which)
            rows = forward(batch.to(machine.device)).double().cpu().numpy()
            if results is None:
                results = np.empty((int(table.read_starts[-1]), rows.shape[1]))
            results[table.outputs(which[batch.order])] = rows
            done += batch.tokens
            progress(done, total)
    return np.empty((0, 0)) if results is None else results
