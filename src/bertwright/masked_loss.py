"""The loss of masked words, without ever holding all logits.

A batch of 8,192 tokens masks 1,229, and over 30,522 words their logits are 150 MB, which the usual way writes and reads
half a dozen times. Here some rows at a time go from logits to their part of every gradient while they are in the cache.

Shapes: M masked positions, H width, V vocabulary, C rows of a chunk.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bertwright.linear import product

# Logits that are held at a time: few enough for a CPU's caches, enough to fill a GPU.
_HELD = {"cpu": 1 << 22, "cuda": 1 << 28}


def masked_word_loss(hidden_MH: Tensor, words_VH: Tensor, bias_V: Tensor, targets_M: Tensor) -> tuple[Tensor, Tensor]:
    """Return (the sum of the cross-entropies of ``hidden @ words.T + bias``, how many targets have the highest logit).

    Products are in the precision of an enclosing autocast, sums and gradients of the words in float32.
    """
    loss, right = _MaskedWordLoss.apply(hidden_MH, words_VH, bias_V, targets_M)  # type: ignore[no-untyped-call]
    return loss, right


class _MaskedWordLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_MH: Tensor, words_VH: Tensor, bias_V: Tensor, targets_M: Tensor) -> tuple[Tensor, Tensor]:
        device = hidden_MH.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_MH.dtype
        trained = any(ctx.needs_input_grad)
        M, V = len(targets_M), len(words_VH)
        loss = hidden_MH.new_zeros((), dtype=torch.float32)
        right = torch.zeros((), dtype=torch.long, device=hidden_MH.device)
        if trained:
            grad_MH = torch.empty_like(hidden_MH)
            grad_VH = torch.zeros_like(words_VH, dtype=torch.float32)
            grad_V = torch.zeros_like(bias_V, dtype=torch.float32)
        with torch.autocast(device, enabled=False):
            cast_VH = words_VH.to(dtype)
            rows = max(_HELD.get(device, 1 << 24) // V, 1)
            for start in range(0, M, rows):
                part = slice(start, min(start + rows, M))
                hidden_CH, targets_C1 = hidden_MH[part].to(dtype), targets_M[part, None]
                if dtype == torch.float32:
                    logits_CV = product(hidden_CH, cast_VH, bias_V)
                else:
                    logits_CV = product(hidden_CH, cast_VH).float().add_(bias_V.float())
                highest_C1, best_C1 = logits_CV.max(1, keepdim=True)
                right += (best_C1 == targets_C1).sum()
                aimed_C1 = logits_CV.gather(1, targets_C1)
                weights_CV = logits_CV.sub_(highest_C1).exp_()
                sums_C1 = weights_CV.sum(1, keepdim=True)
                loss += (sums_C1.log() + highest_C1 - aimed_C1).sum()
                if not trained:
                    continue
                grad_CV = weights_CV.div_(sums_C1)
                grad_CV.scatter_add_(1, targets_C1, torch.full_like(sums_C1, -1.0))
                grad_V += grad_CV.sum(0)
                cast_CV = grad_CV.to(dtype)
                grad_MH[part] = product(cast_CV, cast_VH.t())
                if dtype == torch.float32:
                    grad_VH.addmm_(cast_CV.t(), hidden_CH)
                else:
                    grad_VH += torch.mm(cast_CV.t(), hidden_CH)
        if trained:
            ctx.save_for_backward(grad_MH, grad_VH, grad_V)
        ctx.mark_non_differentiable(right)
        return loss, right

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        grad_MH, grad_VH, grad_V = ctx.saved_tensors
        # In place: nobody else holds them, and a second backward pass is refused.
        return grad_MH.mul_(grad), grad_VH.mul_(grad), grad_V.mul_(grad), None
