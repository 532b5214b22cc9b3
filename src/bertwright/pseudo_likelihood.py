"""Pseudo-log-likelihood: how probable a masked language model finds a sentence (Salazar et al. 2020, arXiv 1910.14659).

The sum over a sentence's tokens of log p(token | the sentence with that token masked). A sentence of n tokens takes n
masked copies, each as long as the sentence; three things make that cheap without changing the sum:

- Copies of one length go through the model together: nothing is padded, and the last layer and the head compute the
  one masked row of each copy alone.
- Copies that are equal are computed once. The two sentences of a minimal pair often differ in one token, and then are
  the same where that token is masked. Equal sentences are scored once to begin with.
- The first layer's input depends on a token and its position alone, and copies of a sentence share nearly all of these:
  embeddings, queries, keys and values of the first layer are computed once for each that occurs in a batch.

Shapes: N sentences of one length, L tokens of each, K scored tokens, U distinct masked copies, T = U * L tokens of a
packed batch, P distinct pairs of token and position in it, R rows that the head reads, H width, V vocabulary.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from bertwright.arrays import FloatArray, IntArray
from bertwright.attention import attention
from bertwright.data.examples import Example
from bertwright.data.packing import PackedBatch, Rows
from bertwright.data.packing import Sequences as Lengths
from bertwright.errors import BertwrightError, did_you_mean
from bertwright.linear import Linear
from bertwright.machine import Machine
from bertwright.model import Layer, Pretraining
from bertwright.telling import Progress, silent
from bertwright.tokenizer import Tokenizer

IdArray = npt.NDArray[np.int32]

PLL, WORD_L2R = "pll", "pll-word-l2r"
METHODS = (PLL, WORD_L2R)

_CHUNK_TOKENS = 1 << 21  # of masked copies that are held at a time: some tens of megabytes
_CHUNK_SENTENCES = 8192  # that are tokenized at a time
# Logits that are held at a time: on a CPU little enough for the allocator to keep the block (see memory.py).
_LOGITS = {"cpu": 4 << 20, "cuda": 1 << 28}


@dataclass(frozen=True)
class SentenceScores:
    """What each sentence got, in the order they were given."""

    log_likelihoods: FloatArray
    """Natural logarithms, summed over the tokens."""
    tokens: IntArray
    """How many tokens were summed over."""
    unknown: IntArray
    """How many of them are ``[UNK]``: what the vocabulary cannot spell is only compared by its place."""


def score_sentences(
    model: Pretraining,
    tokenizer: Tokenizer,
    machine: Machine,
    sentences: Sequence[Example],
    *,
    method: str = PLL,
    progress: Progress = silent,
) -> SentenceScores:
    """Return the pseudo-log-likelihood of each sentence; special tokens are never masked or summed over.

    Args:
        model: on the machine's device.
        tokenizer: the model's.
        machine: where it computes, and how many tokens a batch may have.
        sentences: their ``text``; ``where`` names them in messages.
        method: ``pll`` masks one token at a time. A word of several pieces is then easy to guess from its own other
            pieces, which favours rare words; ``pll-word-l2r`` masks a piece together with all later pieces of its
            word (Kauf and Ivanova 2023, arXiv 2305.10588).
        progress: called after each batch with the tokens of masked copies done, and of all.

    Raises:
        BertwrightError: no such method; a sentence that has no token to score, holds ``[MASK]``, or is longer than
            the model's positions.
    """
    if method not in METHODS:
        raise BertwrightError(f"no score {method!r}{did_you_mean(method, METHODS)} (known: {', '.join(METHODS)})")
    decoder = _decoder(model)
    kinds = _Kinds.of(tokenizer)
    places_of = _distinct_sentences(tokenizer, sentences, kinds, model.config.max_position_embeddings)
    total = sum(int(kinds.scored[_ids(keys)].sum()) * length for length, keys in _by_length(places_of).items())
    values: dict[bytes, tuple[float, int, int]] = {}
    done = 0
    with _side_by_side(machine.device) as run:
        for keys in _chunks(places_of):
            ids_NL = _ids(keys)
            copies = _masked_copies(ids_NL, kinds, tokenizer.mask_id, word_l2r=method == WORD_L2R)
            width = ids_NL.shape[1]
            done += (len(copies.targets_K) - len(copies.ids_UL)) * width  # copies that are computed only once
            log_p_K = np.empty(len(copies.targets_K))
            parts = list(copies.parts(machine.token_budget))
            for part, found in zip(parts, run(partial(_log_probabilities, model, decoder, machine), parts), strict=True):
                log_p_K[part.which_K] = found
                done += part.ids_UL.size
                progress(done, total)
            sums_N = np.bincount(copies.sentence_K, log_p_K, len(ids_NL))
            counts_N = kinds.scored[ids_NL].sum(1)
            unknown_N = (ids_NL == tokenizer.unk_id).sum(1)
            values.update(zip(keys, zip(sums_N.tolist(), counts_N.tolist(), unknown_N.tolist(), strict=True), strict=True))
    N = len(sentences)
    scores = SentenceScores(np.empty(N), np.empty(N, dtype=np.int64), np.empty(N, dtype=np.int64))
    for key, places in places_of.items():
        scores.log_likelihoods[places], scores.tokens[places], scores.unknown[places] = values[key]
    return scores


@dataclass(frozen=True)
class _Kinds:
    """What each id of the vocabulary is."""

    scored: npt.NDArray[np.bool_]
    """Not [PAD], [CLS], [SEP] or [MASK]."""
    continues: npt.NDArray[np.bool_]
    """Whether it is a later piece of a word."""

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> _Kinds:
        entries = tokenizer.tokens(range(tokenizer.vocab_size))
        scored = np.ones(len(entries), dtype=np.bool_)
        scored[[tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id]] = False
        return cls(scored, np.array([entry.startswith("##") and len(entry) > 2 for entry in entries]))


def _distinct_sentences(
    tokenizer: Tokenizer, sentences: Sequence[Example], kinds: _Kinds, longest: int
) -> dict[bytes, list[int]]:
    """Map each distinct sequence of ids, as the bytes of int32, to the places of the sentences that have it."""
    places_of: defaultdict[bytes, list[int]] = defaultdict(list)
    for begin in range(0, len(sentences), _CHUNK_SENTENCES):
        chunk = sentences[begin : begin + _CHUNK_SENTENCES]
        for place, (sentence, encoded) in enumerate(
            zip(chunk, tokenizer.encode_batch([sentence.text for sentence in chunk]), strict=True), begin
        ):
            ids = np.array(encoded.input_ids, dtype=np.int32)
            if len(ids) > longest:
                raise BertwrightError(
                    f"{sentence.where}: has {len(ids):,} tokens, but the model only {longest:,} positions; shorten it"
                )
            if tokenizer.mask_id in encoded.input_ids:
                raise BertwrightError(f"{sentence.where}: holds [MASK], which has no probability; give whole sentences")
            if not kinds.scored[ids].any():
                raise BertwrightError(f"{sentence.where}: {sentence.text[:40]!r} has no token to score; give it a word")
            places_of[ids.tobytes()].append(place)
    return dict(places_of)


def _ids(keys: Sequence[bytes]) -> IdArray:
    """Return ids_NL of sentences of one length."""
    return np.frombuffer(b"".join(keys), dtype=np.int32).reshape(len(keys), -1)


def _by_length(keys: dict[bytes, list[int]]) -> dict[int, list[bytes]]:
    """Group by length in tokens, shortest first; within a length in the given order, which keeps pairs together."""
    groups: defaultdict[int, list[bytes]] = defaultdict(list)
    for key in keys:
        groups[len(key) // np.dtype(np.int32).itemsize].append(key)
    return dict(sorted(groups.items()))


def _chunks(keys: dict[bytes, list[int]]) -> Iterator[list[bytes]]:
    """Yield sentences of one length, few enough that all their masked copies fit in memory."""
    for length, group in _by_length(keys).items():
        most = max(_CHUNK_TOKENS // length**2, 1)
        for begin in range(0, len(group), most):
            yield group[begin : begin + most]


@dataclass(frozen=True)
class _Batch:
    """Masked copies that go through the model together, and what is asked of them."""

    ids_UL: IdArray
    place_U: IntArray  # the masked token that is read
    row_K: IntArray  # ascending
    targets_K: IntArray
    which_K: slice  # of all that is asked of the copies


@dataclass(frozen=True)
class _Copies:
    """Masked copies of sentences of one length, equal ones once, and what is asked of them."""

    ids_UL: IdArray
    place_U: IntArray
    copy_K: IntArray  # ascending
    targets_K: IntArray
    sentence_K: IntArray

    def parts(self, budget: int) -> Iterator[_Batch]:
        """Yield them in batches of at most ``budget`` tokens, or of one copy."""
        most = max(budget // self.ids_UL.shape[1], 1)
        for first in range(0, len(self.ids_UL), most):
            part = slice(first, first + most)
            which_K = slice(*np.searchsorted(self.copy_K, (first, first + most)))
            yield _Batch(
                self.ids_UL[part], self.place_U[part], self.copy_K[which_K] - first, self.targets_K[which_K], which_K
            )


def _masked_copies(ids_NL: IdArray, kinds: _Kinds, mask_id: int, *, word_l2r: bool) -> _Copies:
    sentence_K, place_K = kinds.scored[ids_NL].nonzero()
    every_K = np.arange(len(place_K))
    copies_KL = ids_NL[sentence_K]
    targets_K = copies_KL[every_K, place_K].astype(np.int64)
    if word_l2r:
        word_NL = np.cumsum(~kinds.continues[ids_NL], axis=1)
        same_word_KL = word_NL[sentence_K] == word_NL[sentence_K, place_K][:, None]
        copies_KL[same_word_KL & (np.arange(ids_NL.shape[1]) > place_K[:, None])] = mask_id
    copies_KL[every_K, place_K] = mask_id
    # Rows as bytes, which sort far quicker than rows of numbers.
    asked_KL1 = np.ascontiguousarray(np.column_stack([copies_KL, place_K.astype(np.int32)]))
    rows_K = asked_KL1.view(np.dtype((np.void, asked_KL1.strides[0]))).ravel()
    _, first_U, copy_K = np.unique(rows_K, return_index=True, return_inverse=True)
    # Back from the order of bytes to that of sentences, whose copies share tokens: see _hidden_at_masks.
    order_U = np.argsort(first_U)
    rank_U = np.empty_like(order_U)
    rank_U[order_U] = np.arange(len(order_U))
    copy_K = rank_U[copy_K]
    order_K = np.argsort(copy_K, kind="stable")
    kept_U = first_U[order_U]
    return _Copies(copies_KL[kept_U], place_K[kept_U], copy_K[order_K], targets_K[order_K], sentence_K[order_K])


def _hidden_at_masks(model: Pretraining, ids_UL: IdArray, place_U: IntArray, device: torch.device) -> Tensor:
    """Return the last layer's hidden_RH, one row for each copy: that of the token at ``place_U``."""
    U, L = ids_UL.shape
    starts_U = np.arange(U) * L
    sequences = Lengths.of([L] * U)
    batch = _packed(ids_UL.ravel().astype(np.int64), np.tile(np.arange(L), U), sequences).to(device)
    rows = Rows(torch.from_numpy(starts_U + place_U).to(device), (1,) * U)
    if len(model.encoder.layer) == 1:
        hidden_RH: Tensor = model.encoder(model.embeddings(batch), batch, rows)
        return hidden_RH
    token_at_P, index_T = np.unique(ids_UL.astype(np.int64) * L + np.arange(L), return_inverse=True)
    distinct = _packed(token_at_P // L, token_at_P % L, Lengths.of([len(token_at_P)])).to(device)
    first = model.encoder.layer[0]
    assert isinstance(first, Layer)
    hidden_TH = _first_layer(first, model.embeddings(distinct), torch.from_numpy(index_T.ravel()).to(device), batch)
    masked_RH: Tensor = model.encoder(hidden_TH, batch, rows, start=1)
    return masked_RH


def _packed(ids_T: IntArray, positions_T: IntArray, sequences: Lengths) -> PackedBatch:
    """A batch of single sentences, all of them of segment 0."""
    ids = torch.from_numpy(ids_T)
    order = np.arange(len(sequences.lengths))
    return PackedBatch(ids, torch.zeros_like(ids), torch.from_numpy(positions_T), sequences, order)


def _first_layer(layer: Layer, embedded_PH: Tensor, index_T: Tensor, batch: PackedBatch) -> Tensor:
    """The layer's hidden_TH for the tokens ``embedded_PH[index_T]``, its first product made of P rows instead of T."""
    inner = layer.attention.self
    qkv_T3H = inner.qkv(embedded_PH).index_select(0, index_T)
    context_TH = attention(qkv_T3H.view(len(index_T), 3, inner.heads, -1), batch.sequences, None, 0.0, None)
    hidden_TH: Tensor = layer.attention.output(context_TH, embedded_PH.index_select(0, index_T), None)
    out_TH: Tensor = layer.output(layer.intermediate(hidden_TH), hidden_TH, None)
    return out_TH


def _decoder(model: Pretraining) -> Linear:
    """The head's product with every word embedding as a layer, which takes the quickest library (see linear.py)."""
    decoder = Linear(model.config.hidden_size, model.config.vocab_size, device="meta")
    decoder.weight, decoder.bias = model.embeddings.word_embeddings.weight, model.cls.predictions.bias
    return decoder


def _log_probabilities(model: Pretraining, decoder: Linear, machine: Machine, batch: _Batch) -> FloatArray:
    """Return log p of each target that is asked for."""
    most = max(_LOGITS.get(machine.device.type, _LOGITS["cpu"]) // decoder.out_features, 1)
    parts = []
    with torch.inference_mode(), machine.computing():
        hidden_RH = model.cls.predictions.transform(_hidden_at_masks(model, batch.ids_UL, batch.place_U, machine.device))
        for begin in range(0, len(hidden_RH), most):
            first, end = np.searchsorted(batch.row_K, (begin, begin + most))
            log_p_RV = F.log_softmax(decoder(hidden_RH[begin : begin + most]).float(), -1)
            row = torch.from_numpy(batch.row_K[first:end] - begin).to(machine.device)
            parts.append(log_p_RV[row, torch.from_numpy(batch.targets_K[first:end]).to(machine.device)])
        return torch.cat(parts).double().cpu().numpy()


_Map = Callable[[Callable[[_Batch], FloatArray], list[_Batch]], Iterable[FloatArray]]


@contextlib.contextmanager
def _side_by_side(device: torch.device) -> Iterator[_Map]:
    """Yield a ``map`` that gives each CPU thread whole batches.

    Threads that share every product wait for the slowest of them some dozen times a batch: with two of them on two
    cores that were busy otherwise too, this took two to three times as long.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        yield map
        return
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool.map
    finally:
        torch.set_num_threads(threads)
