"""Attention over packed sequences: one function, a backend for the CPU and one for the GPU.

Shapes: T tokens, R rows that are read (R = T unless a head needs fewer), A heads, D width of a head, B sequences,
N sequences of a group, L tokens in its longest, C rows read of each.
"""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from bertwright.data.packing import Rows, Sequences
from bertwright.noise import Noise

varlen: Any = None
# The import takes two seconds, which a torch for CPUs alone need not wait for.
if torch.backends.cuda.is_built():  # type: ignore[no-untyped-call]
    with contextlib.suppress(ImportError):  # torch 2.10 and later have it
        from torch.nn.attention import varlen


def attention(qkv_T3AD: Tensor, sequences: Sequences, rows: Rows | None, dropout: float, noise: Noise | None) -> Tensor:
    """Scaled dot-product attention inside each sequence (Vaswani et al. 2017, section 3.2).

    Args:
        qkv_T3AD: queries, keys and values of all tokens.
        sequences: where sequences end; no token sees another sequence.
        rows: the tokens whose result is wanted; None for all.
        dropout: probability on the attention weights, applied only when ``noise`` is given.
        noise: the randomness of this training step, or None in evaluation.

    Returns:
        context_RH, the heads side by side.
    """
    probability = dropout if noise is not None else 0.0
    if qkv_T3AD.device.type == "cpu":
        context_RH: Tensor = _PackedAttention.apply(  # type: ignore[no-untyped-call]
            qkv_T3AD, sequences, rows, probability, noise
        )
        return context_RH
    return _on_device(qkv_T3AD, sequences, rows, probability)


@dataclass(frozen=True, slots=True)
class Group:
    """Neighbouring sequences that go through one batched product on the CPU.

    Each sequence has L places for its tokens and C for the rows that are read of it; ``tokens`` and ``rows`` say where
    they lie in the batch and how they fill the places.
    """

    N: int
    L: int
    C: int
    tokens: Places
    rows: Places
    bias_N11L: Tensor | None  # what is added to scores: 0, and minus infinity at empty places; None where there are none


@dataclass(frozen=True, slots=True)
class Places:
    """How items of sequences of unlike length fill places of equal length; all None where no place is empty."""

    slice: slice
    fill: Tensor | None = None  # for each place, the item that lies there; in an empty place, some item
    collect: Tensor | None = None  # for each item, its place
    empty: Tensor | None = None  # the empty places

    @classmethod
    def of(cls, start: int, lengths: tuple[int, ...]) -> Places:
        """Places for sequences of these lengths whose items begin at ``start``."""
        span = slice(start, start + sum(lengths))
        if min(lengths) == max(lengths):
            return cls(span)
        lengths_N1 = torch.tensor(lengths)[:, None]
        place_L = torch.arange(max(lengths))
        real_NL = place_L < lengths_N1
        first_N1 = torch.cumsum(lengths_N1, 0) - lengths_N1
        fill = torch.where(real_NL, first_N1 + place_L, 0).flatten()
        return cls(span, fill, real_NL.flatten().nonzero().flatten(), (~real_NL).flatten().nonzero().flatten())

    def to(self, device: torch.device) -> Places:
        """The same places with their indices on ``device``."""
        fill, collect, empty = (None if i is None else i.to(device) for i in (self.fill, self.collect, self.empty))
        return Places(self.slice, fill, collect, empty)

    def spread(self, items: Tensor, *, zero: bool = False) -> Tensor:
        """Take the group's items of the batch into their places; empty ones hold anything, or zeros if asked for."""
        if self.fill is None:
            return items[self.slice]
        places = items[self.slice].index_select(0, self.fill)
        if zero and self.empty is not None:
            places.index_fill_(0, self.empty, 0)
        return places

    def gather(self, places: Tensor, items: Tensor) -> None:
        """Put what lies in the places back into the batch."""
        if self.collect is None:
            items[self.slice] = places
        else:
            torch.index_select(places, 0, self.collect, out=items[self.slice])


# Starting another group costs about as much time as this many empty places (measured on 2 cores, 384 wide).
_EMPTY_PLACES = 256


@functools.lru_cache(maxsize=16)
def _groups(lengths: tuple[int, ...], counts: tuple[int, ...]) -> tuple[Group, ...]:
    """Cut a packed batch into groups: few of them, and few empty places. All layers of a forward pass share them."""
    cuts, empty = [0], 0
    for b in range(1, len(lengths)):
        # Batches come sorted, so the newest sequence is the longest: those before it in the group gain empty places.
        empty += abs(lengths[b] - lengths[b - 1]) * (b - cuts[-1])
        if empty > _EMPTY_PLACES:
            cuts.append(b)
            empty = 0
    groups = []
    t = r = 0
    for first, end in zip(cuts, [*cuts[1:], len(lengths)], strict=True):
        own, rows = lengths[first:end], counts[first:end]
        bias_NL = torch.zeros(len(own), max(own))
        bias_NL[torch.arange(max(own)) >= torch.tensor(own)[:, None]] = -torch.inf
        groups.append(
            Group(
                N=len(own),
                L=max(own),
                C=max(rows),
                tokens=Places.of(t, own),
                rows=Places.of(r, rows),
                bias_N11L=bias_NL[:, None, None, :] if min(own) < max(own) else None,
            )
        )
        t, r = t + sum(own), r + sum(rows)
    return tuple(groups)


class _PackedAttention(torch.autograd.Function):
    """The CPU backend: sequences of like length go through one batched product.

    One node of the graph for a whole layer, with its backward pass written out: results go straight into their places
    in one tensor instead of through dozens of splits, copies and concatenations. Weights of short sequences are kept
    for the backward pass; those of long ones are computed again, which keeps memory linear in T.
    """

    KEEP_UP_TO = 256  # tokens of a sequence; kept weights cost A * L floats a token

    @staticmethod
    def forward(
        ctx: Any, qkv_T3AD: Tensor, sequences: Sequences, rows: Rows | None, dropout: float, noise: Noise | None
    ) -> Tensor:
        _, _, A, D = qkv_T3AD.shape
        groups = _groups(sequences.lengths, sequences.lengths if rows is None else rows.counts)
        q_RAD = None if rows is None else qkv_T3AD[:, 0].index_select(0, rows.index_R)
        context_RH = qkv_T3AD.new_empty(len(qkv_T3AD) if q_RAD is None else len(q_RAD), A * D)
        training = qkv_T3AD.requires_grad
        kept: list[Tensor | None] = []
        for group in groups:
            N, C, L = group.N, group.C, group.L
            q_NACD, k_NALD, v_NALD = _heads(qkv_T3AD, q_RAD, group)
            keep = training and L <= _PackedAttention.KEEP_UP_TO
            mask = p_NACL = None
            if dropout > 0 and noise is not None:
                mask = noise.mask((N, A, C, L), dropout).to(_finer(qkv_T3AD.dtype))
            if mask is None and not keep:
                allowed = None if group.bias_N11L is None else group.bias_N11L == 0
                out_NACD = F.scaled_dot_product_attention(q_NACD, k_NALD, v_NALD, attn_mask=allowed)
            else:
                if training:  # contiguous once, so that none of the products here and in backward copies its operands
                    q_NACD, k_NALD, v_NALD = q_NACD.contiguous(), k_NALD.contiguous(), v_NALD.contiguous()
                p_NACL = _weights(q_NACD, k_NALD, group)
                dropped_NACL = p_NACL if mask is None else p_NACL * mask
                out_NACD = torch.matmul(dropped_NACL.to(v_NALD.dtype), v_NALD)
            if training:
                kept += [q_NACD, k_NALD, v_NALD, *((p_NACL, dropped_NACL) if keep else (None, mask))]
            group.rows.gather(out_NACD.transpose(1, 2).reshape(N * C, A * D), context_RH)
        if training:
            ctx.save_for_backward(*kept)
            ctx.groups, ctx.row_places, ctx.shape = groups, None if rows is None else rows.index_R, qkv_T3AD.shape
        return context_RH

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_RH: Tensor) -> tuple[Tensor, None, None, None, None]:
        _, _, A, D = ctx.shape
        saved = iter(ctx.saved_tensors)
        pruned = ctx.row_places is not None
        grad_T3AD = grad_RH.new_empty(ctx.shape)
        grad_q_RH = torch.empty_like(grad_RH) if pruned else None
        for group in ctx.groups:
            N, C, L = group.N, group.C, group.L
            q_NACD, k_NALD, v_NALD, p_NACL, dropped_NACL = (next(saved) for _ in range(5))
            if p_NACL is None:
                p_NACL, mask = _weights(q_NACD, k_NALD, group), dropped_NACL
                dropped_NACL = p_NACL if mask is None else p_NACL * mask
            out_NACD = group.rows.spread(grad_RH, zero=True).view(N, C, A, D).transpose(1, 2).contiguous()
            # Through mask and softmax at once: if g is the gradient of the dropped weights d, then that of the scores is
            # d * g - p * sum(d * g).
            grad_s_NACL = torch.matmul(out_NACD, v_NALD.transpose(2, 3)).to(p_NACL.dtype).mul_(dropped_NACL)
            grad_s_NACL.addcmul_(p_NACL, grad_s_NACL.sum(-1, keepdim=True), value=-1).mul_(D**-0.5)
            grad_s_NACL, dropped_NACL = grad_s_NACL.to(v_NALD.dtype), dropped_NACL.to(v_NALD.dtype)
            grad_q_NCAD = torch.matmul(grad_s_NACL, k_NALD).transpose(1, 2)
            grad_NL3AD = grad_RH.new_empty(N, L, 3, A, D)
            if grad_q_RH is None:
                grad_NL3AD[:, :, 0] = grad_q_NCAD
            else:
                grad_NL3AD[:, :, 0] = 0
                group.rows.gather(grad_q_NCAD.reshape(N * C, A * D), grad_q_RH)
            grad_NL3AD[:, :, 1] = torch.matmul(grad_s_NACL.transpose(2, 3), q_NACD).transpose(1, 2)
            grad_NL3AD[:, :, 2] = torch.matmul(dropped_NACL.transpose(2, 3), out_NACD).transpose(1, 2)
            group.tokens.gather(grad_NL3AD.view(N * L, 3, A, D), grad_T3AD)
        if grad_q_RH is not None:
            grad_T3AD[:, 0].index_copy_(0, ctx.row_places, grad_q_RH.view(-1, A, D))
        return grad_T3AD, None, None, None, None


def _heads(qkv_T3AD: Tensor, q_RAD: Tensor | None, group: Group) -> tuple[Tensor, Tensor, Tensor]:
    """Return the group's q_NACD, k_NALD and v_NALD; without q_RAD, all tokens are rows."""
    N, L, C = group.N, group.L, group.C
    A, D = qkv_T3AD.shape[2:]
    q_NALD, k_NALD, v_NALD = group.tokens.spread(qkv_T3AD).view(N, L, 3, A, D).permute(2, 0, 3, 1, 4)
    if q_RAD is None:
        return q_NALD, k_NALD, v_NALD
    return group.rows.spread(q_RAD).view(N, C, A, D).transpose(1, 2), k_NALD, v_NALD


def _weights(q_NACD: Tensor, k_NALD: Tensor, group: Group) -> Tensor:
    """Return the attention weights p_NACL, 0 at empty places; in float32 or finer, whatever the products are in."""
    scores_NACL = torch.matmul(q_NACD, k_NALD.transpose(2, 3)).to(_finer(k_NALD.dtype)).mul_(k_NALD.shape[-1] ** -0.5)
    if group.bias_N11L is not None:  # adding is several times quicker than filling by a mask
        scores_NACL.add_(group.bias_N11L)
    return torch.softmax(scores_NACL, -1)


def _finer(dtype: torch.dtype) -> torch.dtype:
    """What weights and masks are computed in: on a CPU, half precision is quick in products and slow in all else."""
    return torch.promote_types(dtype, torch.float32)


def _on_device(qkv_T3AD: Tensor, sequences: Sequences, rows: Rows | None, dropout: float) -> Tensor:
    """The GPU backend: torch's variable-length flash attention where it applies, else one padded call."""
    q_TAD, k_TAD, v_TAD = qkv_T3AD.unbind(1)
    counts = sequences.lengths if rows is None else rows.counts
    q_RAD = q_TAD if rows is None else q_TAD.index_select(0, rows.index_R)
    if varlen is not None and dropout == 0 and qkv_T3AD.dtype in (torch.float16, torch.bfloat16):
        offsets_R = sequences.offsets_B1 if rows is None else Sequences.of(counts).offsets_B1.to(qkv_T3AD.device)
        context_RAD = varlen.varlen_attn(
            q_RAD, k_TAD, v_TAD, offsets_R, sequences.offsets_B1, max(counts), sequences.longest
        )
        assert isinstance(context_RAD, Tensor)  # a tuple only if more was asked for
        return context_RAD.flatten(1)
    return padded_attention(q_RAD, k_TAD, v_TAD, counts, sequences, dropout)


def padded_attention(
    q_RAD: Tensor, k_TAD: Tensor, v_TAD: Tensor, counts: tuple[int, ...], sequences: Sequences, dropout: float
) -> Tensor:
    """The same result through padding: for dtypes and attention dropout that the variable-length kernel has not.

    Returns context_RH. Dropout, where above 0, is torch's own under the current generator.
    """
    B, C, S = len(counts), max(counts), sequences.longest
    A, D = k_TAD.shape[1:]
    tokens, rows, allowed_B11S = _padding(sequences.lengths, counts, k_TAD.device)

    def pad(items: Tensor, places: Places, each: int) -> Tensor:
        return places.spread(items).view(B, each, A, D).transpose(1, 2)

    context_BACD = F.scaled_dot_product_attention(
        pad(q_RAD, rows, C), pad(k_TAD, tokens, S), pad(v_TAD, tokens, S), allowed_B11S, dropout_p=dropout
    )
    context = context_BACD.transpose(1, 2).reshape(B * C, A * D)
    return context if rows.collect is None else context.index_select(0, rows.collect)


@functools.lru_cache(maxsize=16)
def _padding(
    lengths: tuple[int, ...], counts: tuple[int, ...], device: torch.device
) -> tuple[Places, Places, Tensor | None]:
    """How a whole batch is padded; made once for all layers, so that none of them waits for a copy to the device."""
    if min(lengths) == max(lengths):
        allowed_B11S = None
    else:
        real_BS = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
        allowed_B11S = real_BS[:, None, None, :].to(device)
    return Places.of(0, lengths).to(device), Places.of(0, counts).to(device), allowed_B11S
