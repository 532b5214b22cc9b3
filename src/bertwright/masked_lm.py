"""A pretrained BERT with its masked-word head: fill in [MASK], weigh sentences, judge it on minimal pairs.

Shapes: B texts, R masked positions of all of them, H width, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from bertwright import checkpoint
from bertwright.data.blimp import read_pairs, sample
from bertwright.data.examples import Example
from bertwright.data.packing import PackedBatch, Rows, TokenTable
from bertwright.errors import BertwrightError
from bertwright.evaluation.minimal_pairs import PairsEvaluation, measure_pairs
from bertwright.inference import batches_by_length
from bertwright.machine import Machine
from bertwright.model import BertConfig, Pretraining
from bertwright.pseudo_likelihood import PLL, SentenceScores, score_sentences
from bertwright.telling import Progress, silent
from bertwright.tokenizer import SPECIAL_TOKENS, Encoded, Tokenizer

MASK = SPECIAL_TOKENS["mask_token"]


@dataclass(frozen=True, slots=True)
class Guess:
    """One token for one ``[MASK]``."""

    token: str
    id: int
    probability: float
    log_probability: float
    text: str
    """The text with this token in that mask's place, other masks as they were."""


@dataclass(frozen=True, slots=True)
class Filled:
    """A text and what the model would put in its masks."""

    text: str
    masks: tuple[tuple[Guess, ...], ...]
    """For each ``[MASK]``, in the order of the text, its guesses, most probable first."""
    filled: str
    """The text with the first guess in each mask's place."""


@dataclass
class MaskedLM:
    """Model and tokenizer together; ``load_masked_lm`` gives one."""

    model: Pretraining
    tokenizer: Tokenizer
    machine: Machine
    directory: Path | None = None

    def fill_mask(self, texts: str | Sequence[str], top: int = 5) -> list[Filled]:
        """Rank what could stand in each ``[MASK]``; several masks of a text are filled independently of each other.

        A probability is that of the token among all that the head knows, at the mask's place, with every other mask
        still there. Ids that the model has but the vocabulary has not are left out of the ranking.

        Raises:
            BertwrightError: a text without ``[MASK]``, or longer than the model's positions; ``top`` below 1 or above
                the size of the vocabulary.
        """
        given = [texts] if isinstance(texts, str) else list(texts)
        if not 1 <= top <= self.tokenizer.vocab_size:
            raise BertwrightError(f"top is {top}; give 1 to {self.tokenizer.vocab_size:,}, the size of the vocabulary")
        encoded = self.tokenizer.encode_batch(given, offsets=True)
        for number, (text, one) in enumerate(zip(given, encoded, strict=True), 1):
            self._check(f"text {number} ({text[:40]!r})", one)
        rankings = self._rank(encoded, top)
        return [self._filled(text, one, ranked) for text, one, ranked in zip(given, encoded, rankings, strict=True)]

    def score(
        self,
        sentences: str | Sequence[str],
        *,
        method: str = PLL,
        progress: Progress = silent,
    ) -> SentenceScores:
        """Return how probable each sentence is, as :func:`bertwright.pseudo_likelihood.score_sentences` has it."""
        given = [sentences] if isinstance(sentences, str) else list(sentences)
        named = [Example(text=text, where=f"sentence {number}") for number, text in enumerate(given, 1)]
        return score_sentences(self.model, self.tokenizer, self.machine, named, method=method, progress=progress)

    def evaluate_blimp(
        self,
        data: str | Path,
        *,
        only: Sequence[str] = (),
        per_set: int | None = None,
        method: str = PLL,
        progress: Progress = silent,
    ) -> PairsEvaluation:
        """Judge the model on minimal pairs in BLiMP's format: is the good sentence the more probable one?

        Args:
            data: what :func:`bertwright.data.blimp.read_pairs` takes: a folder, a JSON-lines file or a tar archive.
            only: names of sets or phenomena; none takes all.
            per_set: how many pairs of each set, evenly spaced; None takes all.
            method: see :meth:`score`.
            progress: see :meth:`score`.

        Raises:
            BertwrightError: the data cannot be read, or a sentence cannot be scored.
        """
        everything = read_pairs(data, only)
        pairs = everything if per_set is None else sample(everything, per_set)
        sentences = [Example(text=text, where=pair.where) for pair in pairs for text in (pair.good, pair.bad)]
        scores = score_sentences(self.model, self.tokenizer, self.machine, sentences, method=method, progress=progress)
        return measure_pairs(
            pairs,
            good=scores.log_likelihoods[::2],
            bad=scores.log_likelihoods[1::2],
            about={
                "score": method,
                "pairs_in_data": len(everything),
                "tokens": int(scores.tokens.sum()),
                "unknown_tokens": int(scores.unknown.sum()),
            },
        )

    def _check(self, name: str, encoded: Encoded) -> None:
        if self.tokenizer.mask_id not in encoded.input_ids:
            raise BertwrightError(f"{name} has no {MASK}; write {MASK}, in capitals, where a word is to be guessed")
        longest = self.model.config.max_position_embeddings
        if len(encoded) > longest:
            raise BertwrightError(
                f"{name} has {len(encoded):,} tokens, but the model only {longest:,} positions; shorten it"
            )

    def _rank(self, encoded: Sequence[Encoded], top: int) -> list[list[tuple[list[int], list[float]]]]:
        """For each text and each of its masks, the ids and the log-probabilities of the best guesses."""
        table = TokenTable([one.input_ids for one in encoded], [one.token_type_ids for one in encoded])
        rankings: list[list[tuple[list[int], list[float]]]] = [[] for _ in encoded]
        with torch.inference_mode(), self.machine.computing():
            for which in batches_by_length(table.lengths, self.machine.token_budget):
                batch = table.pack(which)
                masked = _masked_rows(batch, self.tokenizer.mask_id)
                best = self._log_probabilities(batch, masked)[:, : self.tokenizer.vocab_size].topk(top)
                ids, values = iter(best.indices.tolist()), iter(best.values.tolist())
                for place, count in zip(which[batch.order].tolist(), masked.counts, strict=True):
                    rankings[place] = [(next(ids), next(values)) for _ in range(count)]
        return rankings

    def _log_probabilities(self, batch: PackedBatch, masked: Rows) -> Tensor:
        """Return log_p_RV at the masked rows, in float32."""
        device = self.machine.device
        batch, masked = batch.to(device), Rows(masked.index_R.to(device), masked.counts)
        hidden_RH = self.model.encoder(self.model.embeddings(batch), batch, masked)
        logits_RV = self.model.cls.predictions(hidden_RH, self.model.embeddings.word_embeddings.weight)
        return F.log_softmax(logits_RV.float(), -1)

    def _filled(self, text: str, encoded: Encoded, ranked: list[tuple[list[int], list[float]]]) -> Filled:
        assert encoded.offsets is not None
        found = [span for id, span in zip(encoded.input_ids, encoded.offsets, strict=True) if id == self.tokenizer.mask_id]
        # A tokenizer may count blanks beside a special token as its part; they stay where they are.
        spans = [(begin := text.index(MASK, span[0]), begin + len(MASK)) for span in found]
        masks = tuple(
            tuple(self._guess(text, span, id, log_p) for id, log_p in zip(ids, log_ps, strict=True))
            for span, (ids, log_ps) in zip(spans, ranked, strict=True)
        )
        first = [(span, guesses[0].token) for span, guesses in zip(spans, masks, strict=True)]
        return Filled(text, masks, _put(text, first))

    def _guess(self, text: str, span: tuple[int, int], id: int, log_probability: float) -> Guess:
        token = self.tokenizer.token(id)
        return Guess(token, id, math.exp(log_probability), log_probability, _put(text, [(span, token)]))


def _masked_rows(batch: PackedBatch, mask_id: int) -> Rows:
    """Where a batch holds the mask, and how often in each sequence."""
    is_mask_T = batch.input_ids_T == mask_id
    counts = [int(part.sum()) for part in torch.split(is_mask_T, list(batch.sequences.lengths))]
    return Rows(is_mask_T.nonzero().flatten(), tuple(counts))


def _put(text: str, tokens: Sequence[tuple[tuple[int, int], str]]) -> str:
    """Put tokens in the places of spans of ``text``, which ascend; ``##ing`` joins the word before it."""
    parts, end = "", 0
    for (begin, after), token in tokens:
        parts += text[end:begin]
        continues = token.startswith("##") and len(token) > 2
        parts = parts.rstrip() + token[2:] if continues else parts + token
        end = after
    return parts + text[end:]


def load_masked_lm(
    model: str | Path,
    *,
    revision: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    threads: int = 0,
) -> MaskedLM:
    """Load a pretrained model with its masked-word head: what ``pretrain`` wrote, or a BertForMaskedLM or
    BertForPreTraining of ``transformers``.

    A checkpoint without pooler or next-sentence head, as a BertForMaskedLM is, gets random ones: nothing here reads them.

    Args:
        model: an alias, a directory, a weights file or a hub id.
        revision: branch, tag or commit, for a hub id.
        device: auto, cpu or cuda.
        precision: auto, float32 or bfloat16.
        threads: of the CPU; 0 for one each core.

    Raises:
        BertwrightError: it is not there, damaged, or has no masked-word head.
    """
    held = checkpoint.read(model, revision=revision)
    config = BertConfig.from_dict(held.config, str(held.config_path))
    pretraining = Pretraining(config)
    head = [name for name in pretraining.state_dict() if name.startswith("cls.predictions.")]
    if not any(name in held.tensors for name in head):
        raise BertwrightError(
            f"{model}: has no masked-word head, and a random one would only guess; give it one with: "
            f"bertwright pretrain TOKENS --model {model} --objective mlm --out OUT"
        )
    report = checkpoint.load_into(pretraining, held.tensors, where=str(model))
    unread = ("pooler.", "cls.seq_relationship.")
    if missing := [name for name in report.new if not name.startswith(unread)]:
        raise BertwrightError(f"{model}: the weights are incomplete: {missing[0]!r} is missing; fetch or copy it again")
    tokenizer = Tokenizer.from_directory(held.directory)
    tokenizer.check_fits(config.vocab_size, str(held.directory))
    machine = Machine.choose(device, precision, threads)
    pretraining.to(machine.device).requires_grad_(False)
    return MaskedLM(pretraining, tokenizer, machine, held.directory)
