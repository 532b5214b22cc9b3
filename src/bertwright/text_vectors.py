"""Texts and their tokens as vectors, with nothing trained: of any layer, pooled in one of three ways.

Shapes: T tokens of a packed batch, B texts, H width, W width of a vector (H for each layer that it is made of).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bertwright import checkpoint, inference
from bertwright.data.examples import Example, Unreadable
from bertwright.data.packing import PackedBatch, TokenTable
from bertwright.errors import BertwrightError, did_you_mean, tell
from bertwright.machine import Machine
from bertwright.model import Bert, BertConfig
from bertwright.tokenizer import Tokenizer

Floats = npt.NDArray[np.float32]

POOLINGS = ("mean", "cls", "max")
_TEXTS_AT_ONCE, _CHARACTERS_AT_ONCE = 2048, 4_000_000
# Vectors of single tokens are some hundred times as many: a chunk of them stays below some hundred MB.
_TOKEN_TEXTS_AT_ONCE, _TOKEN_CHARACTERS_AT_ONCE = 256, 100_000


@dataclass(frozen=True)
class Kind:
    """Which vectors are wanted.

    Args:
        pooling: ``mean`` or ``max`` over all tokens of a text, [CLS] and [SEP] among them, or ``cls``: [CLS] alone.
        layers: ``last``; ``last4``, the last four end to end, the best features in Devlin et al. (2019, table 7); or
            numbers with commas between, end to end: 0 is what the embeddings give, n what layer n gives.
        normalize: bring each vector to the length 1, so that a product of two is their cosine.
        max_length: most tokens of a text; None: as many as the model has positions.
    """

    pooling: str = "mean"
    layers: str = "last"
    normalize: bool = False
    max_length: int | None = None


@dataclass(frozen=True, slots=True)
class TokenVectors:
    """The tokens of a text, [CLS] and [SEP] among them.

    ``offsets`` are the characters of the text that each token came from, (0, 0) for those two; ``vectors_TW`` has a row
    for each token; ``cut`` counts the tokens that were left out at the end of the text.
    """

    tokens: list[str]
    offsets: list[tuple[int, int]]
    vectors_TW: Floats
    cut: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some texts in their order: a row of ``vectors_BW`` for each (NaN if it was unreadable), and how far it was cut."""

    rows: Sequence[Example | Unreadable]
    vectors_BW: Floats
    cut: Sequence[int]


@dataclass
class TextEncoder:
    """An encoder with its tokenizer; :func:`load_encoder` gives one."""

    model: Bert
    tokenizer: Tokenizer
    machine: Machine
    directory: Path | None = None

    def vectors(
        self,
        texts: str | Sequence[str],
        *,
        pooling: str = "mean",
        layers: str | int | Sequence[int] = "last",
        normalize: bool = False,
        max_length: int | None = None,
    ) -> Floats:
        """Return a vector for each text, shape (B, W), in the order of the texts; for the options see :class:`Kind`.

        Raises:
            BertwrightError: no such pooling or layer, ``max_length`` beyond the model's positions, or no string.
        """
        kind = Kind(pooling, _named(layers), normalize, max_length)
        chunks = list(self.chunks(self._examples(texts), kind))
        told = sum(cut > 0 for chunk in chunks for cut in chunk.cut)
        if told:
            tell(f"{told:,} texts are longer than {self._longest(kind):,} tokens and were cut")
        return np.concatenate([np.empty((0, self.width(kind)), np.float32), *(chunk.vectors_BW for chunk in chunks)])

    def token_vectors(
        self,
        texts: str | Sequence[str],
        *,
        layers: str | int | Sequence[int] = "last",
        normalize: bool = False,
        max_length: int | None = None,
    ) -> list[TokenVectors]:
        """Return the tokens of each text with a vector for each; raises as :meth:`vectors`."""
        kind = Kind(layers=_named(layers), normalize=normalize, max_length=max_length)
        found = [one for _, one in self.tokens(self._examples(texts), kind) if one is not None]
        told = sum(one.cut > 0 for one in found)
        if told:
            tell(f"{told:,} texts are longer than {self._longest(kind):,} tokens and were cut")
        return found

    def chunks(self, rows: Iterable[Example | Unreadable], kind: Kind) -> Iterator[Chunk]:
        """Yield the vectors of a stream of texts of any length, in bounded memory; raises as :meth:`vectors`."""
        layers, longest = self._layers(kind), self._longest(kind)
        if kind.pooling not in POOLINGS:
            raise BertwrightError(
                f"--pooling is {kind.pooling!r}{did_you_mean(kind.pooling, POOLINGS)} (known: {', '.join(POOLINGS)})"
            )
        forward = partial(_pooled, self.model, layers=layers, pooling=kind.pooling)
        iterator = iter(rows)
        while some := inference.chunk(iterator, _TEXTS_AT_ONCE, _CHARACTERS_AT_ONCE):
            texts = [row.text for row in some if not isinstance(row, Unreadable)]
            encoded = self.tokenizer.encode_batch(texts, max_length=longest)
            table = TokenTable([one.input_ids for one in encoded], [one.token_type_ids for one in encoded])
            cut = iter([one.cut for one in encoded])
            readable_B = np.array([not isinstance(row, Unreadable) for row in some])
            vectors_BW = np.full((len(some), self.width(kind)), np.nan, np.float32)
            if texts:
                vectors_BW[readable_B] = _finished(inference.run(forward, table, self.machine), kind)
            yield Chunk(some, vectors_BW, [next(cut) if readable else 0 for readable in readable_B])

    def tokens(
        self, rows: Iterable[Example | Unreadable], kind: Kind
    ) -> Iterator[tuple[Example | Unreadable, TokenVectors | None]]:
        """Yield each text of a stream with the vectors of its tokens (None if unreadable), in bounded memory."""
        layers, longest = self._layers(kind), self._longest(kind)
        forward = partial(_of_tokens, self.model, layers=layers)
        iterator = iter(rows)
        while some := inference.chunk(iterator, _TOKEN_TEXTS_AT_ONCE, _TOKEN_CHARACTERS_AT_ONCE):
            texts = [row.text for row in some if not isinstance(row, Unreadable)]
            encoded = self.tokenizer.encode_batch(texts, max_length=longest, offsets=True)
            ids = [one.input_ids for one in encoded]
            table = TokenTable(ids, [one.token_type_ids for one in encoded], [range(len(one)) for one in ids])
            vectors_TW = _finished(inference.run(forward, table, self.machine), kind) if texts else None
            place = 0
            for row in some:
                if isinstance(row, Unreadable) or vectors_TW is None:
                    yield row, None
                    continue
                one = encoded[place]
                assert one.offsets is not None
                begin, end = table.read_starts[place : place + 2]
                yield row, TokenVectors(self.tokenizer.tokens(one.input_ids), one.offsets, vectors_TW[begin:end], one.cut)
                place += 1

    def width(self, kind: Kind) -> int:
        """W, how many numbers a vector has."""
        return self.model.config.hidden_size * len(self._layers(kind))

    def _layers(self, kind: Kind) -> tuple[int, ...]:
        depth = self.model.config.num_hidden_layers
        if kind.layers == "last":
            return (depth,)
        if kind.layers == "last4":
            if depth < 4:
                raise BertwrightError(f"--layers last4: the model has only {depth} layers; name some of 0 to {depth}")
            return tuple(range(depth - 3, depth + 1))
        numbers = [part.strip() for part in kind.layers.split(",")]
        if not all(number.isdecimal() and int(number) <= depth for number in numbers):
            raise BertwrightError(
                f"--layers is {kind.layers!r}; use last, last4, or numbers from 0 (the embeddings) to {depth}, "
                "with commas between"
            )
        return tuple(int(number) for number in numbers)

    def _longest(self, kind: Kind) -> int:
        positions = self.model.config.max_position_embeddings
        if kind.max_length is None:
            return positions
        if not 2 <= kind.max_length <= positions:
            raise BertwrightError(f"--max-length is {kind.max_length}; the model takes 2 to {positions:,} tokens")
        return kind.max_length

    def _examples(self, texts: str | Sequence[str]) -> list[Example]:
        given = [texts] if isinstance(texts, str) else list(texts)
        for number, text in enumerate(given, 1):
            if not isinstance(text, str):
                raise BertwrightError(f"text {number} is {text!r}, of type {type(text).__name__}, not a string")
        return [Example(text, f"text {number}") for number, text in enumerate(given, 1)]


def _named(layers: str | int | Sequence[int]) -> str:
    """Layers as Kind has them."""
    if isinstance(layers, list | tuple) and all(isinstance(layer, int) for layer in layers):
        return ",".join(map(str, layers))
    return str(layers)  # what else it may be is refused as it stands


def vectors(
    model: str | Path,
    texts: str | Sequence[str],
    *,
    pooling: str = "mean",
    layers: str | int | Sequence[int] = "last",
    normalize: bool = False,
    max_length: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    threads: int = 0,
) -> Floats:
    """Return a vector for each text, shape (B, W): :func:`load_encoder` and :meth:`TextEncoder.vectors` in one call."""
    encoder = load_encoder(model, device=device, precision=precision, threads=threads)
    return encoder.vectors(texts, pooling=pooling, layers=layers, normalize=normalize, max_length=max_length)


def load_encoder(
    model: str | Path,
    *,
    revision: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    threads: int = 0,
) -> TextEncoder:
    """Load the encoder of any BERT: pretrained or fine-tuned, of bertwright or ``transformers``; a head is left aside.

    Args:
        model: an alias, a directory, a weights file or a hub id.
        revision: branch, tag or commit, for a hub id.
        device: auto, cpu or cuda.
        precision: auto, float32 or bfloat16; auto is bfloat16 on a GPU, where float32 is a little more exact.
        threads: of the CPU; 0 for one each core.

    Raises:
        BertwrightError: it is not there, damaged, or lacks weights of the encoder.
    """
    held = checkpoint.read(model, revision=revision)
    config = BertConfig.from_dict(held.config, str(held.config_path))
    bert = Bert(config)
    for name in bert.state_dict():
        if name not in held.tensors and not name.startswith("pooler."):
            raise BertwrightError(f"{model}: the weights are incomplete: {name!r} is missing; fetch or copy it again")
    checkpoint.load_into(bert, held.tensors, where=str(model))
    tokenizer = Tokenizer.from_directory(held.directory)
    tokenizer.check_fits(config.vocab_size, str(held.directory))
    machine = Machine.choose(device, precision, threads)
    bert.to(machine.device).requires_grad_(False)
    return TextEncoder(bert, tokenizer, machine, held.directory)


def _hidden(bert: Bert, batch: PackedBatch, layers: tuple[int, ...], *, firsts: bool) -> list[Tensor]:
    """What each of ``layers`` gives, in float32, for all tokens or for first tokens alone; none above them is computed."""
    top = max(layers)
    rows = batch.sequences.firsts() if firsts else None
    hidden_TH: Tensor = bert.embeddings(batch)
    kept: dict[int, Tensor] = {}
    for number in range(top + 1):
        if number:
            # The topmost layer computes only the rows that are read.
            hidden_TH = bert.encoder.layer[number - 1](hidden_TH, batch, rows if number == top else None, None)
        if number in layers:
            if rows is None or (number == top and number > 0):
                kept[number] = hidden_TH.float()
            else:
                kept[number] = hidden_TH.index_select(0, rows.index_R).float()
    return [kept[number] for number in layers]


def _pooled(bert: Bert, batch: PackedBatch, *, layers: tuple[int, ...], pooling: str) -> Tensor:
    """Return vectors_BW in packed order."""
    hidden_RW = torch.cat(_hidden(bert, batch, layers, firsts=pooling == "cls"), 1)
    if pooling == "cls":
        return hidden_RW
    parts = torch.split(hidden_RW, list(batch.sequences.lengths))
    return torch.stack([part.mean(0) if pooling == "mean" else part.amax(0) for part in parts])


def _of_tokens(bert: Bert, batch: PackedBatch, *, layers: tuple[int, ...]) -> Tensor:
    """Return vectors_TW in packed order."""
    return torch.cat(_hidden(bert, batch, layers, firsts=False), 1)


def _finished(vectors_BW: npt.NDArray[np.float64], kind: Kind) -> Floats:
    if kind.normalize:
        vectors_BW = vectors_BW / np.maximum(np.linalg.norm(vectors_BW, axis=1, keepdims=True), 1e-12)
    return vectors_BW.astype(np.float32)
