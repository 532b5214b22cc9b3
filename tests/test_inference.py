"""Running a model over many sequences: every one once, within the budget, and in the caller's order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bertwright import inference
from bertwright.data.packing import PackedBatch, TokenTable
from bertwright.errors import BertwrightError
from bertwright.inference import batches_by_length
from bertwright.machine import Machine
from bertwright.model import BertConfig, SequenceClassifier

CPU = Machine(torch.device("cpu"), "float32")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 120))
def test_batches_by_length(lengths: list[int], budget: int) -> None:
    batches = [batch.tolist() for batch in batches_by_length(np.array(lengths, dtype=np.int32), budget)]
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    in_turn = [lengths[i] for batch in batches for i in batch]
    assert in_turn == sorted(in_turn)
    sums = [sum(lengths[i] for i in batch) for batch in batches]
    for number, batch in enumerate(batches):
        assert batch
        assert sums[number] <= budget or len(batch) == 1
        # No batch could have taken the next one's first sequence as well.
        if number:
            assert sums[number - 1] + lengths[batch[0]] > budget


def random_table(lengths: list[int], seed: int = 0) -> TokenTable:
    generator = np.random.default_rng(seed)
    ids = [generator.integers(1, 40, length).tolist() for length in lengths]
    return TokenTable(ids, [[int(place > length // 2) for place in range(length)] for length in lengths])


def tell_apart(batch: PackedBatch) -> Tensor:
    """A row for each sequence that no other sequence has: its length and its tokens' positions times ids."""
    parts = torch.split(batch.input_ids_T * (batch.position_ids_T + 1), list(batch.sequences.lengths))
    return torch.tensor([[len(part), float(part.sum())] for part in parts])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 3000), min_size=1, max_size=12))
def test_rows_come_in_the_order_of_the_table(lengths: list[int]) -> None:
    table = random_table(lengths)
    wanted = [
        [len(ids), float(sum(i * (place + 1) for place, i in enumerate(ids.tolist())))]
        for ids in np.split(table.input_ids, table.starts[1:-1])
    ]
    told: list[tuple[int, int]] = []
    rows = inference.run(tell_apart, table, CPU, lambda done, total: told.append((done, total)))
    np.testing.assert_allclose(rows, wanted, rtol=1e-6)
    assert told == sorted(told)
    assert told[-1] == (sum(lengths), sum(lengths))
    assert {total for _, total in told} == {sum(lengths)}


def test_a_model_gives_each_sequence_what_it_gives_it_alone() -> None:
    torch.manual_seed(0)
    config = BertConfig(vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24)
    model = SequenceClassifier(config, 3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.2)
    lengths = [7, 1, 300, 19, 7, 512, 2, 512, 512, 512, 40]  # more tokens than one batch may have
    table = random_table(lengths)
    together = inference.run(model, table, CPU)
    assert together.shape == (11, 3)
    assert together.dtype == np.float64
    for number in range(len(lengths)):
        with torch.no_grad():
            alone = model(table.pack(np.array([number]))).double().numpy()
        np.testing.assert_allclose(together[number : number + 1], alone, rtol=0, atol=2e-6)


def test_no_sequences_no_rows() -> None:
    result = inference.run(tell_apart, TokenTable([], []), CPU)
    assert result.shape == (0, 0)


def test_each_batch_is_run_once_without_gradients() -> None:
    seen: list[int] = []

    def forward(batch: PackedBatch) -> Tensor:
        assert torch.is_inference_mode_enabled()
        seen.append(batch.tokens)
        return tell_apart(batch)

    lengths = [1000, 30, 1000, 1000, 5000]
    inference.run(forward, random_table(lengths), CPU)
    assert seen == [1030 + 1000, 1000, 5000]
    assert CPU.token_budget == 2048


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_precision_of_matrix_products(precision: str, dtype: torch.dtype) -> None:
    machine = Machine(torch.device("cpu"), precision)
    weight = torch.eye(2)

    def forward(batch: PackedBatch) -> Tensor:
        product = tell_apart(batch) @ weight
        assert product.dtype is dtype
        return product

    result = inference.run(forward, random_table([3, 5]), machine)
    np.testing.assert_allclose(result, inference.run(tell_apart, random_table([3, 5]), CPU), rtol=2**-8)


def test_choosing_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert Machine.choose() == CPU
    assert Machine.choose("cpu", "bfloat16") == Machine(torch.device("cpu"), "bfloat16")
    with pytest.raises(BertwrightError, match=r"--device cuda: this torch sees no CUDA device; use --device cpu"):
        Machine.choose("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for supported, precision in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda supported=supported: supported)
        assert Machine.choose() == Machine(torch.device("cuda"), precision)
        assert Machine.choose("cpu") == CPU


def test_threads_are_set_only_if_asked_for() -> None:
    before = torch.get_num_threads()
    try:
        Machine.choose("cpu", threads=0)
        assert torch.get_num_threads() == before
        Machine.choose("cpu", threads=before + 1)
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_a_machine_describes_itself() -> None:
    count = torch.get_num_threads()
    assert CPU.describe().endswith(f", {count} thread" + ("s" if count > 1 else ""))
    assert len(CPU.describe()) > len(", 2 threads")
    held = torch.ones(30_000_000)
    assert CPU.peak_memory() > held.nbytes  # bytes, not the kibibytes that the system reports
