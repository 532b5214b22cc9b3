"""Attention over packed sequences: one function, a backend for the CPU and one for the GPU.

Shapes: T tokens, R rows that are read (R = T unless a head needs fewer), A heads, D width of a head, B sequences,
N sequences of a group, L tokens in its longest, C rows read of each.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bertwright.data.packing import Rows, Sequences
from bertwright.noise import Noise

try:  # torch 2.10 and later
    from torch.nn.attention import varlen
except ImportError:  # pragma: no cover - depends on the installed torch
    varlen = None  # type: ignore[assignment]


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

    ``token_index`` and ``row_index`` say where tokens and rows lie in the group's (N * L) and (N * C) places, or are
    None where all sequences of the group have the same length, and so no place is empty.
    """

    tokens: slice
    rows: slice
    N: int
    L: int
    C: int
    token_index: Tensor | None
    row_index: Tensor | None
    empty_N11L: Tensor | None


# Starting another group costs about as much time as this many empty places (measured on 2 cores, 384 wide).
_EMPTY_PLACES = 96


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
        N, L, C = len(own), max(own), max(rows)
        lengths_N = torch.tensor(own)
        empty_NL = torch.arange(L) >= lengths_N[:, None]
        groups.append(
            Group(
                tokens=slice(t, t + sum(own)),
                rows=slice(r, r + sum(rows)),
                N=N,
                L=L,
                C=C,
                token_index=None if min(own) == L else (~empty_NL).flatten().nonzero().flatten(),
                row_index=None
                if min(rows) == C
                else (torch.arange(C) < torch.tensor(rows)[:, None]).flatten().nonzero().flatten(),
                empty_N11L=None if min(own) == L else empty_NL[:, None, None, :],
            )
        )
        t, r = t + sum(own), r + sum(rows)
    return tuple(groups)


def _spread(values: Tensor, index: Tensor | None, places: int) -> Tensor:
    """Lay the rows of ``values`` into ``places`` places, zeros elsewhere."""
    if index is None:
        return values
    return values.new_zeros(places, *values.shape[1:]).index_copy_(0, index, values)


def _collect(values: Tensor, index: Tensor | None) -> Tensor:
    """Take back what :func:`_spread` laid out."""
    return values if index is None else values.index_select(0, index)


class _PackedAttention(torch.autograd.Function):
    """The CPU backend: sequences of like length go through one batched product.

    One node of the graph for a whole layer, with its backward pass written out: results go straight into their places
    in one tensor instead of through dozens of splits, copies and concatenations. Weights of short sequences are kept
    for the backward pass; those of long ones are computed again, which keeps memory linear in T.
    """

    KEEP_UP_TO = 128  # tokens of a sequence; kept weights cost A * L floats a token

    @staticmethod
    def forward(
        ctx: Any, qkv_T3AD: Tensor, sequences: Sequences, rows: Rows | None, dropout: float, noise: Noise | None
    ) -> Tensor:
        _, _, A, D = qkv_T3AD.shape
        groups = _groups(sequences.lengths, sequences.lengths if rows is None else rows.counts)
        q_RAD = qkv_T3AD[:, 0] if rows is None else qkv_T3AD[:, 0].index_select(0, rows.index_R)
        context_RAD = qkv_T3AD.new_empty(len(q_RAD), A, D)
        training = qkv_T3AD.requires_grad
        kept: list[Tensor | None] = []
        for group in groups:
            q_NACD, k_NALD, v_NALD = _heads(qkv_T3AD, q_RAD, group, shared=rows is None)
            keep = training and group.L <= _PackedAttention.KEEP_UP_TO
            mask = None
            if dropout > 0 and noise is not None:
                mask = noise.mask((group.N, A, group.C, group.L), dropout).to(qkv_T3AD.dtype)
            if mask is None and not keep:
                allowed = None if group.empty_N11L is None else ~group.empty_N11L
                out_NACD = F.scaled_dot_product_attention(q_NACD, k_NALD, v_NALD, attn_mask=allowed)
                p_NACL = None
            else:
                p_NACL = _weights(q_NACD, k_NALD, group)
                out_NACD = torch.matmul(p_NACL if mask is None else p_NACL * mask, v_NALD)
            kept += [p_NACL if keep else None, mask]
            out = out_NACD.transpose(1, 2)
            if group.row_index is None:
                context_RAD[group.rows].view(group.N, group.C, A, D).copy_(out)
            else:
                context_RAD[group.rows] = _collect(out.reshape(group.N * group.C, A, D), group.row_index)
        if training:
            ctx.save_for_backward(qkv_T3AD, q_RAD, *kept)
            ctx.groups, ctx.row_places = groups, None if rows is None else rows.index_R
        return context_RAD.view(-1, A * D)

    @staticmethod
    def backward(ctx: Any, grad_RH: Tensor) -> tuple[Tensor, None, None, None, None]:
        qkv_T3AD, q_RAD, *kept = ctx.saved_tensors
        _, _, A, D = qkv_T3AD.shape
        shared = ctx.row_places is None
        grad_T3AD = torch.empty_like(qkv_T3AD)
        grad_q_RAD = grad_T3AD[:, 0] if shared else torch.empty_like(q_RAD)
        grad_RAD = grad_RH.reshape(-1, A, D)
        for group, p_NACL, mask in zip(ctx.groups, kept[::2], kept[1::2], strict=True):
            N, L, C = group.N, group.L, group.C
            q_NACD, k_NALD, v_NALD = _heads(qkv_T3AD, q_RAD, group, shared=shared)
            if p_NACL is None:
                p_NACL = _weights(q_NACD, k_NALD, group)
            out_NACD = _spread(grad_RAD[group.rows], group.row_index, N * C).view(N, C, A, D).transpose(1, 2)
            grad_p_NACL = torch.matmul(out_NACD, v_NALD.transpose(2, 3))
            dropped_NACL = p_NACL
            if mask is not None:
                dropped_NACL = p_NACL * mask
                grad_p_NACL.mul_(mask)
            grad_s_NACL = torch._softmax_backward_data(grad_p_NACL, p_NACL, -1, p_NACL.dtype).mul_(D**-0.5)
            whole = group.token_index is None
            grad_kv = grad_T3AD[group.tokens, 1:] if whole else grad_T3AD.new_empty(N * L, 2, A, D)
            grad_k_NLAD, grad_v_NLAD = grad_kv.view(N, L, 2, A, D).unbind(2)
            grad_k_NLAD.copy_(torch.matmul(grad_s_NACL.transpose(2, 3), q_NACD).transpose(1, 2))
            grad_v_NLAD.copy_(torch.matmul(dropped_NACL.transpose(2, 3), out_NACD).transpose(1, 2))
            if not whole:
                grad_T3AD[group.tokens, 1:] = _collect(grad_kv, group.token_index)
            grad_q_NCAD = torch.matmul(grad_s_NACL, k_NALD).transpose(1, 2)
            if group.row_index is None:
                grad_q_RAD[group.rows].view(N, C, A, D).copy_(grad_q_NCAD)
            else:
                grad_q_RAD[group.rows] = _collect(grad_q_NCAD.reshape(N * C, A, D), group.row_index)
        if not shared:
            grad_T3AD[:, 0] = 0
            grad_T3AD[:, 0].index_copy_(0, ctx.row_places, grad_q_RAD)
        return grad_T3AD, None, None, None, None


def _heads(qkv_T3AD: Tensor, q_RAD: Tensor, group: Group, *, shared: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return the group's q_NACD, k_NALD and v_NALD; ``shared`` says that all tokens are rows too."""
    A, D = qkv_T3AD.shape[2:]
    if shared:
        places = _spread(qkv_T3AD[group.tokens], group.token_index, group.N * group.L)
        q_NACD, k_NALD, v_NALD = places.view(group.N, group.L, 3, A, D).permute(2, 0, 3, 1, 4)
        return q_NACD, k_NALD, v_NALD
    places = _spread(qkv_T3AD[group.tokens, 1:], group.token_index, group.N * group.L)
    k_NALD, v_NALD = places.view(group.N, group.L, 2, A, D).permute(2, 0, 3, 1, 4)
    rows = _spread(q_RAD[group.rows], group.row_index, group.N * group.C)
    return rows.view(group.N, group.C, A, D).transpose(1, 2), k_NALD, v_NALD


def _weights(q_NACD: Tensor, k_NALD: Tensor, group: Group) -> Tensor:
    """Return the attention weights p_NACL, 0 at empty places."""
    scores_NACL = torch.matmul(q_NACD * k_NALD.shape[-1] ** -0.5, k_NALD.transpose(2, 3))
    if group.empty_N11L is not None:
        scores_NACL.masked_fill_(group.empty_N11L, -torch.inf)
    return torch.softmax(scores_NACL, -1)


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
    device = k_TAD.device
    lengths_B = torch.tensor(sequences.lengths, device=device)
    counts_B = torch.tensor(counts, device=device)
    mask_BS = torch.arange(sequences.longest, device=device) < lengths_B[:, None]
    mask_BC = torch.arange(max(counts), device=device) < counts_B[:, None]

    def pad(values_TAD: Tensor, where_BS: Tensor) -> Tensor:
        padded = values_TAD.new_zeros(*where_BS.shape, *values_TAD.shape[1:])
        return padded.masked_scatter(where_BS[..., None, None], values_TAD).transpose(1, 2)

    context_BACD = F.scaled_dot_product_attention(
        pad(q_RAD, mask_BC), pad(k_TAD, mask_BS), pad(v_TAD, mask_BS), mask_BS[:, None, None, :], dropout_p=dropout
    )
    return context_BACD.transpose(1, 2)[mask_BC].flatten(1)
