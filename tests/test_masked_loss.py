"""The chunked loss of masked words against torch's cross-entropy over all logits at once."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bertwright import masked_loss
from bertwright.masked_loss import masked_word_loss


def inputs(M: int, H: int, V: int, seed: int = 0, scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden_MH, words_VH, bias_V = (scale * torch.randn(shape, generator=generator) for shape in ((M, H), (V, H), (V,)))
    return (
        hidden_MH.requires_grad_(),
        words_VH.requires_grad_(),
        bias_V.requires_grad_(),
        torch.randint(V, (M,), generator=generator),
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(2, 60), st.integers(1, 400), st.integers(0, 99))
def test_equals_cross_entropy_whatever_the_chunks(M: int, H: int, V: int, held: int, seed: int) -> None:
    given_ = inputs(M, H, V, seed)
    hidden_MH, words_VH, bias_V, targets_M = given_
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(masked_loss, "_HELD", {"cpu": held})
        loss, right = masked_word_loss(*given_)
    logits_MV = F.linear(hidden_MH, words_VH, bias_V)
    wanted = F.cross_entropy(logits_MV, targets_M, reduction="sum")
    torch.testing.assert_close(loss, wanted, rtol=1e-5, atol=1e-5)
    assert int(right) == int((logits_MV.argmax(1) == targets_M).sum())
    got = torch.autograd.grad(loss * 0.37, given_[:3])
    for gradient, oracle in zip(got, torch.autograd.grad(wanted * 0.37, given_[:3]), strict=True):
        torch.testing.assert_close(gradient, oracle, rtol=1e-4, atol=1e-5)


def test_huge_logits_overflow_nowhere() -> None:
    hidden_MH, words_VH, bias_V, targets_M = inputs(5, 8, 30, scale=60.0)
    loss, _ = masked_word_loss(hidden_MH, words_VH, bias_V, targets_M)
    torch.testing.assert_close(loss, F.cross_entropy(F.linear(hidden_MH, words_VH, bias_V), targets_M, reduction="sum"))
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(loss, (hidden_MH, words_VH, bias_V)))


def test_no_masked_word_is_no_loss() -> None:
    hidden_MH, words_VH, bias_V, _ = inputs(0, 4, 7)
    loss, right = masked_word_loss(hidden_MH, words_VH, bias_V, torch.zeros(0, dtype=torch.long))
    assert (float(loss.detach()), int(right)) == (0.0, 0)
    assert float(torch.autograd.grad(loss, words_VH)[0].abs().sum()) == 0


def test_without_gradients_it_keeps_none() -> None:
    with torch.no_grad():
        loss, _ = masked_word_loss(*inputs(6, 4, 7))
    assert not loss.requires_grad


def test_bfloat16_products_keep_float32_sums() -> None:
    hidden_MH, words_VH, bias_V, targets_M = inputs(50, 32, 200)
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = masked_word_loss(hidden_MH, words_VH, bias_V, targets_M)
    exact = F.cross_entropy(F.linear(hidden_MH, words_VH, bias_V), targets_M, reduction="sum")
    assert loss.dtype == torch.float32
    assert float(loss.detach()) == pytest.approx(float(exact.detach()), rel=0.01)
    for gradient, oracle in zip(
        torch.autograd.grad(loss, (hidden_MH, words_VH, bias_V)),
        torch.autograd.grad(exact, (hidden_MH, words_VH, bias_V)),
        strict=True,
    ):
        assert gradient.dtype == torch.float32
        assert float((gradient - oracle).norm() / oracle.norm()) < 0.02
