"""Packing against plain lists: nothing lost, nothing mixed, and the order taken back."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bertwright.data.packing import PackedBatch, Sequences, TokenTable

Tokens = list[tuple[int, int]]


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[Tokens], list[int]]:
    """Sequences of (id, segment), and the ones to pack: any order, any of them, some twice."""
    token = st.tuples(st.integers(0, 2**31 - 1), st.integers(0, 255))
    rows = draw(st.lists(st.lists(token, min_size=1, max_size=12), min_size=1, max_size=12))
    which = draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=20))
    return rows, which


def table_of(rows: list[Tokens]) -> TokenTable:
    return TokenTable([[i for i, _ in row] for row in rows], [[s for _, s in row] for row in rows])


def sequences_of(batch: PackedBatch) -> list[tuple[Tokens, list[int]]]:
    """Cut a packed batch at its offsets, as tokens and positions."""
    bounds = batch.sequences.offsets_B1.tolist()
    tokens = list(zip(batch.input_ids_T.tolist(), batch.token_type_ids_T.tolist(), strict=True))
    positions = batch.position_ids_T.tolist()
    return [(tokens[a:b], positions[a:b]) for a, b in itertools.pairwise(bounds)]


@settings(max_examples=200, deadline=None)
@given(tables())
def test_pack(case: tuple[list[Tokens], list[int]]) -> None:
    rows, which = case
    table = table_of(rows)
    batch = table.pack(np.array(which))
    packed = sequences_of(batch)
    assert [positions for _, positions in packed] == [list(range(len(tokens))) for tokens, _ in packed]
    restored = dict(zip(batch.order.tolist(), (tokens for tokens, _ in packed), strict=True))
    assert [restored[place] for place in range(len(which))] == [rows[i] for i in which]
    lengths = [len(tokens) for tokens, _ in packed]
    assert lengths == sorted(len(rows[i]) for i in which) == list(batch.sequences.lengths)
    # Equal lengths stay in the caller's order, so that a batch is the same each time it is packed.
    assert sorted(batch.order.tolist(), key=lambda place: len(rows[which[place]])) == batch.order.tolist()
    assert batch.tokens == sum(lengths)
    assert batch.sequences.longest == max(lengths)


def test_equal_lengths_stay_in_order_in_a_large_batch() -> None:
    lengths = np.random.default_rng(0).integers(1, 4, 500)
    batch = table_of([[(number, 0)] * int(length) for number, length in enumerate(lengths)]).pack(np.arange(500))
    assert batch.order.tolist() == sorted(range(500), key=lambda number: int(lengths[number]))


@settings(max_examples=50, deadline=None)
@given(tables())
def test_table(case: tuple[list[Tokens], list[int]]) -> None:
    rows, _ = case
    table = table_of(rows)
    assert len(table) == len(rows)
    assert table.tokens == sum(len(row) for row in rows)
    assert table.lengths.tolist() == [len(row) for row in rows]
    assert table.input_ids.tolist() == [i for row in rows for i, _ in row]
    assert table.token_type_ids.tolist() == [s for row in rows for _, s in row]


def test_an_empty_table() -> None:
    table = TokenTable([], [])
    assert (len(table), table.tokens) == (0, 0)


def test_segments_must_have_the_lengths_of_the_ids() -> None:
    for segments in ([[0], [0, 0, 0]], [[0, 0, 0], [0]], [[0, 0], [0]], [[0, 0], [0, 0, 0]], [[0, 0]]):
        with pytest.raises(AssertionError, match="each id needs its segment"):
            TokenTable([[5, 6], [7, 8]], segments)


def test_dtypes_are_those_that_embeddings_and_kernels_take() -> None:
    batch = table_of([[(1, 0), (2, 1)], [(3, 0)]]).pack(np.array([0, 1]))
    for tensor_T in (batch.input_ids_T, batch.token_type_ids_T, batch.position_ids_T):
        assert tensor_T.dtype is torch.int64
    assert batch.sequences.offsets_B1.dtype is torch.int32
    assert all(isinstance(length, int) for length in batch.sequences.lengths)  # they are a key of a cache


def test_a_batch_shares_no_memory_with_the_table() -> None:
    table = table_of([[(1, 0), (2, 1)], [(3, 0)]])
    batch = table.pack(np.array([0, 1]))
    batch.input_ids_T.zero_()
    batch.token_type_ids_T.fill_(9)
    assert table.input_ids.tolist() == [1, 2, 3]
    assert table.token_type_ids.tolist() == [0, 1, 0]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=20))
def test_sequences(lengths: list[int]) -> None:
    sequences = Sequences.of(lengths)
    assert sequences.lengths == tuple(lengths)
    assert sequences.offsets_B1.tolist() == [sum(lengths[:b]) for b in range(len(lengths) + 1)]
    firsts = sequences.firsts()
    assert firsts.index_R.tolist() == [sum(lengths[:b]) for b in range(len(lengths))]
    assert firsts.index_R.dtype is torch.int64
    assert firsts.counts == (1,) * len(lengths)


def test_to_the_cpu_is_the_same_batch() -> None:
    batch = table_of([[(1, 0), (2, 1)], [(3, 0)]]).pack(np.array([0, 1]))
    assert batch.to(torch.device("cpu")) is batch


def test_to_another_device_moves_every_tensor() -> None:
    # "meta" has no data, but what stays behind on the CPU shows there as on a GPU.
    batch = table_of([[(1, 0), (2, 1)], [(3, 0)]]).pack(np.array([1, 0]))
    there = batch.to(torch.device("meta"))
    assert there.sequences.lengths == batch.sequences.lengths
    assert there.order.tolist() == batch.order.tolist()
    for moved, stayed in (
        (there.input_ids_T, batch.input_ids_T),
        (there.token_type_ids_T, batch.token_type_ids_T),
        (there.position_ids_T, batch.position_ids_T),
        (there.sequences.offsets_B1, batch.sequences.offsets_B1),
    ):
        assert moved.device.type == "meta"
        assert (moved.shape, moved.dtype) == (stayed.shape, stayed.dtype)
    assert there.sequences.firsts().index_R.device.type == "meta"
