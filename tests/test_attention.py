"""Attention over packed sequences against a sequence-by-sequence reference in float64, forward and backward.

Shapes: T tokens, R rows that are read, A heads, D width of a head, L tokens of a sequence, C rows read of it, H = A * D.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from bertwright.attention import attention, padded_attention
from bertwright.data.packing import Rows, Sequences
from bertwright.noise import Noise

A = 3
gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def random_qkv(lengths: Sequence[int], *, width: int = 4, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(sum(lengths), 3, A, width, generator=generator, dtype=torch.float64).to(dtype)


def rows_at(lengths: Sequence[int], picked: Sequence[Sequence[int]]) -> Rows:
    """Rows at these places of each sequence."""
    starts = [0, *itertools.accumulate(lengths)]
    index = [start + place for start, places in zip(starts, picked, strict=False) for place in sorted(places)]
    return Rows(torch.tensor(index, dtype=torch.long), tuple(len(set(places)) for places in picked))


def reference(
    qkv_T3AD: Tensor, lengths: Sequence[int], rows: Rows | None = None, masks: Sequence[Tensor] | None = None
) -> Tensor:
    """Attention as the paper writes it, one sequence after the other; ``masks`` holds a mask_ALL for each."""
    context: list[Tensor] = []
    for number, part in enumerate(torch.split(qkv_T3AD, list(lengths))):
        q_ALD, k_ALD, v_ALD = part.permute(1, 2, 0, 3)
        weights_ALL = torch.softmax(q_ALD @ k_ALD.mT / part.shape[-1] ** 0.5, -1)
        if masks is not None:
            weights_ALL = weights_ALL * masks[number]
        context.append((weights_ALL @ v_ALD).transpose(0, 1).flatten(1))
    context_TH = torch.cat(context)
    return context_TH if rows is None else context_TH[rows.index_R]


def value_and_gradient(context_RH: Tensor, qkv_T3AD: Tensor, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Return the context and the gradient of a fixed random linear function of it."""
    generator = torch.Generator().manual_seed(seed)
    slope_RH = torch.randn(context_RH.shape, generator=generator, dtype=torch.float64)
    slope_RH = slope_RH.to(context_RH.device, context_RH.dtype)
    (gradient_T3AD,) = torch.autograd.grad(context_RH, qkv_T3AD, slope_RH)
    return context_RH.detach(), gradient_T3AD


def assert_as_reference(lengths: Sequence[int], rows: Rows | None = None, *, width: int = 4) -> None:
    qkv_T3AD = random_qkv(lengths, width=width).requires_grad_()
    got = value_and_gradient(attention(qkv_T3AD, Sequences.of(lengths), rows, 0.0, None), qkv_T3AD)
    wanted = value_and_gradient(reference(qkv_T3AD, lengths, rows), qkv_T3AD)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)
    with torch.no_grad():
        unrecorded = attention(qkv_T3AD, Sequences.of(lengths), rows, 0.1, None)
    torch.testing.assert_close(unrecorded, wanted[0], rtol=0, atol=1e-12)


# Sorted and unsorted, alone and together, equal and far apart, below and above every threshold on length.
BATCHES: list[list[int]] = [
    [1],
    [9],
    [1, 1, 1],
    [7, 7, 7, 7],
    [2, 3, 5, 8, 13, 21],
    [21, 2, 13, 3, 8, 5],
    [1, 1, 90],
    [90, 1, 1],
    [127, 128, 129],
    [130, 200, 300],
    [300, 1, 129, 4],
    [3, 3, 3, 250, 250],
]


@pytest.mark.parametrize("lengths", BATCHES, ids=str)
def test_equals_the_reference(lengths: list[int]) -> None:
    assert_as_reference(lengths)


@pytest.mark.parametrize("lengths", BATCHES, ids=str)
def test_first_rows_equal_the_reference(lengths: list[int]) -> None:
    assert_as_reference(lengths, Sequences.of(lengths).firsts())


@pytest.mark.parametrize(
    ("lengths", "picked"),
    [
        ([4, 6, 9], [[0, 3], [], [1, 2, 8]]),
        ([4, 6, 9], [[], [], [8]]),
        ([4, 6, 9], [[0], [], []]),
        ([4, 4, 4], [[0, 1], [0, 1], [2, 3]]),
        ([5, 5, 5], [[], [], []]),
        ([2, 140, 150], [[1], [], [0, 7, 149]]),
        ([140, 150], [list(range(140)), [149]]),
        ([1, 2], [[0], [0, 1]]),
    ],
    ids=str,
)
def test_chosen_rows_equal_the_reference(lengths: list[int], picked: list[list[int]]) -> None:
    assert_as_reference(lengths, rows_at(lengths, picked))


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[int], Rows | None]:
    lengths = draw(st.lists(st.integers(1, 40) | st.integers(1, 6), min_size=1, max_size=14))
    if draw(st.booleans()):
        lengths.sort()
    if draw(st.booleans()):
        return lengths, None
    picked = [draw(st.lists(st.integers(0, length - 1), max_size=3, unique=True)) for length in lengths]
    return lengths, rows_at(lengths, picked)


@settings(max_examples=150, deadline=None)
@example(([40, 1, 1, 1, 1, 40], None))
@example(([1] * 14, None))
@given(batches())
def test_any_batch_equals_the_reference(batch: tuple[list[int], Rows | None]) -> None:
    assert_as_reference(*batch)


def test_no_token_sees_another_sequence() -> None:
    lengths = [3, 5, 4]
    qkv_T3AD = random_qkv(lengths)
    before_TH = attention(qkv_T3AD, Sequences.of(lengths), None, 0.0, None)
    qkv_T3AD[3:8] += 5.0
    after_TH = attention(qkv_T3AD, Sequences.of(lengths), None, 0.0, None)
    same_T = (before_TH == after_TH).all(1)
    assert same_T.tolist() == [True] * 3 + [False] * 5 + [True] * 4


@pytest.mark.parametrize("lengths", [[6, 2, 9], [130, 5]], ids=str)
@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_float32_is_as_exact_as_float32_can_be(lengths: list[int], scale: float) -> None:
    exact_T3AD = (scale * random_qkv(lengths)).float().double().requires_grad_()
    single_T3AD = exact_T3AD.detach().float().requires_grad_()
    wanted = value_and_gradient(reference(exact_T3AD, lengths), exact_T3AD)
    got = value_and_gradient(attention(single_T3AD, Sequences.of(lengths), None, 0.0, None), single_T3AD)
    for value, truth in zip(got, wanted, strict=True):
        assert value.isfinite().all()
        # Scores grow with the square of the inputs, and with them what rounding a score does to a weight.
        assert float((value - truth).abs().max()) < 2e-6 * scale**2 * float(truth.abs().max())


@pytest.mark.parametrize("lengths", [[6, 2, 9], [3, 140], [7, 7]], ids=str)
@pytest.mark.parametrize("dropout", [0.0, 0.25])
def test_bfloat16(lengths: list[int], dropout: float) -> None:
    half_T3AD = random_qkv(lengths, dtype=torch.bfloat16).requires_grad_()
    exact_T3AD = half_T3AD.detach().double().requires_grad_()
    sequences = Sequences.of(lengths)
    noise = [Noise(1, 2) for _ in range(2)] if dropout else [None, None]
    got = value_and_gradient(attention(half_T3AD, sequences, None, dropout, noise[0]), half_T3AD)
    wanted = value_and_gradient(attention(exact_T3AD, sequences, None, dropout, noise[1]), exact_T3AD)
    for value, truth in zip(got, wanted, strict=True):
        assert value.dtype is torch.bfloat16
        error = (value.double() - truth).abs()
        # bfloat16 keeps eight bits; the worst place may gather a few roundings, the mean must stay near one.
        assert float(error.max()) < 0.03 * float(truth.abs().max())
        assert float(error.mean()) < 0.004 * float(truth.abs().max())


# --- dropout --------------------------------------------------------------------------------------------------------


def drawn_masks(qkv_T3AD: Tensor, lengths: Sequence[int], dropout: float, noise: Noise) -> list[Tensor]:
    """Read the mask of every attention weight off the result: with one-hot values, the context is the weights."""
    qkv_T3AD = qkv_T3AD.detach().clone()
    assert qkv_T3AD.shape[-1] >= max(lengths)
    places = torch.cat([torch.arange(length) for length in lengths])
    qkv_T3AD[:, 2] = torch.nn.functional.one_hot(places, qkv_T3AD.shape[-1])[:, None]
    sequences = Sequences.of(lengths)
    dropped_TH = attention(qkv_T3AD, sequences, None, dropout, noise)
    whole_TH = attention(qkv_T3AD, sequences, None, 0.0, None)
    masks = []
    for dropped, whole in zip(torch.split(dropped_TH, list(lengths)), torch.split(whole_TH, list(lengths)), strict=True):
        ratio_LAD = (dropped / whole).view(len(whole), A, -1)
        masks.append(ratio_LAD.transpose(0, 1)[..., : len(whole)])
    return masks


@pytest.mark.parametrize("lengths", [[6], [4, 4, 4], [2, 9, 30, 5], [1, 140, 3, 133]], ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_dropout_multiplies_the_weights_by_one_mask(lengths: list[int], training: bool) -> None:
    dropout, scale = 0.25, 1 / 0.75
    qkv_T3AD = random_qkv(lengths, width=max(lengths)).requires_grad_(training)
    masks = drawn_masks(qkv_T3AD, lengths, dropout, Noise(5, 3))
    values = torch.cat([mask.flatten() for mask in masks])
    assert torch.all((values == 0) | ((values - scale).abs() < 1e-7))
    deviation = (dropout * (1 - dropout) / len(values)) ** 0.5
    assert abs(float((values == 0).double().mean()) - dropout) < 5 * deviation

    context_TH = attention(qkv_T3AD, Sequences.of(lengths), None, dropout, Noise(5, 3))
    wanted_TH = reference(qkv_T3AD, lengths, masks=masks)
    if not training:
        torch.testing.assert_close(context_TH, wanted_TH, rtol=0, atol=1e-9)
        return
    got, wanted = value_and_gradient(context_TH, qkv_T3AD), value_and_gradient(wanted_TH, qkv_T3AD)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-9)


def test_every_head_and_sequence_has_its_own_mask() -> None:
    masks = drawn_masks(random_qkv([20, 20], width=20), [20, 20], 0.5, Noise(0, 0))
    planes = [plane for mask in masks for plane in mask]
    for one, other in itertools.combinations(planes, 2):
        agreeing = float(((one == 0) == (other == 0)).double().mean())
        assert abs(agreeing - 0.5) < 5 * (0.25 / one.numel()) ** 0.5


def test_dropout_is_drawn_from_seed_and_step_alone() -> None:
    qkv_T3AD, sequences = random_qkv([4, 9]), Sequences.of([4, 9])

    def run(seed: int, step: int) -> Tensor:
        return attention(qkv_T3AD, sequences, None, 0.3, Noise(seed, step))

    assert torch.equal(run(1, 2), run(1, 2))
    for seed, step in ((1, 3), (2, 2), (2, 1)):
        assert not torch.equal(run(1, 2), run(seed, step))


def test_two_layers_of_one_step_have_different_masks() -> None:
    qkv_T3AD, noise = random_qkv([4, 9]), Noise(1, 2)
    first_TH, second_TH = (attention(qkv_T3AD, Sequences.of([4, 9]), None, 0.3, noise) for _ in range(2))
    assert not torch.equal(first_TH, second_TH)


def test_no_dropout_without_noise() -> None:
    qkv_T3AD = random_qkv([4, 9])
    whole_TH = attention(qkv_T3AD, Sequences.of([4, 9]), None, 0.0, None)
    assert torch.equal(attention(qkv_T3AD, Sequences.of([4, 9]), None, 0.9, None), whole_TH)


# --- the backward pass as torch sees it -------------------------------------------------------------------------------


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize(
    ("lengths", "picked"),
    [([3], None), ([2, 2], None), ([1, 4, 3], None), ([2, 3], [[1], [0, 2]]), ([3, 2, 1], [[0, 2], [], [0]])],
    ids=str,
)
def test_gradcheck(lengths: list[int], picked: list[list[int]] | None, dropout: float) -> None:
    rows = None if picked is None else rows_at(lengths, picked)
    sequences = Sequences.of(lengths)
    qkv_T3AD = random_qkv(lengths, width=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda qkv: attention(qkv, sequences, rows, dropout, Noise(0, 1)), (qkv_T3AD,))


def test_a_gradient_that_is_not_contiguous() -> None:
    lengths = [3, 4, 4]
    qkv_T3AD = random_qkv(lengths).requires_grad_()
    (got,) = torch.autograd.grad(attention(qkv_T3AD, Sequences.of(lengths), None, 0.0, None).sum(), qkv_T3AD)
    (wanted,) = torch.autograd.grad(reference(qkv_T3AD, lengths).sum(), qkv_T3AD)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)


def test_inputs_that_are_not_contiguous() -> None:
    lengths = [3, 4, 4, 9]
    base = random_qkv(lengths).permute(3, 2, 1, 0).contiguous().requires_grad_()
    qkv_T3AD = base.permute(3, 2, 1, 0)
    got = value_and_gradient(attention(qkv_T3AD, Sequences.of(lengths), None, 0.0, None), base)
    wanted = value_and_gradient(reference(qkv_T3AD, lengths), base)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)


def test_training_after_inference_on_the_same_lengths() -> None:
    lengths = [3, 5, 11, 12, 60]  # what is remembered of these lengths must serve both modes
    with torch.inference_mode():
        attention(random_qkv(lengths), Sequences.of(lengths), None, 0.0, None)
    assert_as_reference(lengths)


def test_a_second_derivative_is_refused_rather_than_wrong() -> None:
    qkv_T3AD = random_qkv([3, 4]).requires_grad_()
    context_TH = attention(qkv_T3AD, Sequences.of([3, 4]), None, 0.0, None)
    (gradient,) = torch.autograd.grad(context_TH.pow(2).sum(), qkv_T3AD, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        torch.autograd.backward(gradient.pow(2).sum())


# --- through padding ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", [[9], [4, 4], [2, 9, 30, 5], [30, 1]], ids=str)
@pytest.mark.parametrize("firsts", [True, False])
def test_padded_attention_equals_the_reference(lengths: list[int], firsts: bool) -> None:
    sequences = Sequences.of(lengths)
    rows = sequences.firsts() if firsts else None
    qkv_T3AD = random_qkv(lengths).requires_grad_()
    q_TAD, k_TAD, v_TAD = qkv_T3AD.unbind(1)
    q_RAD = q_TAD if rows is None else q_TAD[rows.index_R]
    counts = sequences.lengths if rows is None else rows.counts
    got = value_and_gradient(padded_attention(q_RAD, k_TAD, v_TAD, counts, sequences, 0.0), qkv_T3AD)
    torch.testing.assert_close(got, value_and_gradient(reference(qkv_T3AD, lengths, rows), qkv_T3AD), rtol=0, atol=1e-12)
    packed = value_and_gradient(attention(qkv_T3AD, sequences, rows, 0.0, None), qkv_T3AD)
    torch.testing.assert_close(got, packed, rtol=0, atol=1e-12)


def test_padded_attention_with_sequences_that_nobody_reads() -> None:
    lengths = [4, 6, 9]
    rows, sequences = rows_at(lengths, [[0, 3], [], [1, 2, 8]]), Sequences.of(lengths)
    qkv_T3AD = random_qkv(lengths)
    q_TAD, k_TAD, v_TAD = qkv_T3AD.unbind(1)
    got = padded_attention(q_TAD[rows.index_R], k_TAD, v_TAD, rows.counts, sequences, 0.0)
    torch.testing.assert_close(got, reference(qkv_T3AD, lengths, rows), rtol=0, atol=1e-12)


# --- on a GPU -------------------------------------------------------------------------------------------------------


def on_gpu(qkv_T3AD: Tensor, sequences: Sequences, rows: Rows | None) -> tuple[Tensor, Sequences, Rows | None]:
    device = torch.device("cuda")
    moved = None if rows is None else Rows(rows.index_R.to(device), rows.counts)
    return qkv_T3AD.detach().to(device).requires_grad_(), sequences.to(device), moved


GPU_CASES = [
    pytest.param([9], None, marks=gpu, id="one"),
    pytest.param([1, 17, 64, 300], None, marks=gpu, id="all rows"),
    pytest.param([3, 17, 64], [[0], [0], [0]], marks=gpu, id="first rows"),
    pytest.param([3, 17, 64], [[0, 2], [], [5, 6, 63]], marks=gpu, id="some rows"),
]


@pytest.mark.parametrize(("lengths", "picked"), GPU_CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.03), (torch.float32, 2e-3)])
def test_gpu_equals_the_reference(
    lengths: list[int], picked: list[list[int]] | None, dtype: torch.dtype, tolerance: float
) -> None:
    rows = None if picked is None else rows_at(lengths, picked)
    qkv_T3AD = random_qkv(lengths, width=32, dtype=dtype)
    exact_T3AD = qkv_T3AD.double().requires_grad_()
    wanted = value_and_gradient(reference(exact_T3AD, lengths, rows), exact_T3AD)
    there_T3AD, sequences, moved = on_gpu(qkv_T3AD, Sequences.of(lengths), rows)
    # Without noise there is no dropout, whatever its probability.
    got = value_and_gradient(attention(there_T3AD, sequences, moved, 0.5, None), there_T3AD)
    for value, truth in zip(got, wanted, strict=True):
        error = (value.cpu().double() - truth).abs().max()
        assert float(error) < tolerance * float(truth.abs().max())


@pytest.mark.parametrize(("lengths", "picked"), GPU_CASES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_gpu_dropout_is_repeatable_and_keeps_the_mean(
    lengths: list[int], picked: list[list[int]] | None, dtype: torch.dtype
) -> None:
    rows = None if picked is None else rows_at(lengths, picked)
    there_T3AD, sequences, moved = on_gpu(random_qkv(lengths, width=32, dtype=dtype), Sequences.of(lengths), rows)
    with torch.no_grad():
        there_T3AD[:, 2] = 1  # the context is then the sum of the weights that were kept: 1 on average
        drawn = [attention(there_T3AD, sequences, moved, 0.25, Noise(3, step, there_T3AD.device)) for step in range(400)]
        again = attention(there_T3AD, sequences, moved, 0.25, Noise(3, 7, there_T3AD.device))
    assert torch.equal(again, drawn[7])
    assert not torch.equal(drawn[7], drawn[8])
    sums = torch.unflatten(torch.stack(drawn).double(), 2, (A, -1))[..., 0]
    # A sum of kept weights has at most the deviation of a single kept weight, sqrt(p / (1 - p)).
    assert abs(float(sums.mean()) - 1) < 5 * (0.25 / 0.75 / sums.numel()) ** 0.5 + 0.004
