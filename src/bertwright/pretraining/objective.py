"""Pretraining: masked words, and whether the second part follows the first (Devlin et al. 2019, section 3.1).

Shapes: T tokens of a packed batch, B sequences, M masked positions, H width.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bertwright.data.instances import NO_PAIR, pack
from bertwright.data.masking import mask, rate_at
from bertwright.data.packing import PackedBatch, Rows
from bertwright.data.shards import TokenCorpus
from bertwright.data.stream import Batch, Stream
from bertwright.errors import BertwrightError, tell
from bertwright.machine import Machine
from bertwright.model import Pretraining
from bertwright.noise import Noise
from bertwright.telling import Progress
from bertwright.training.loop import Share
from bertwright.training.pretraining_recipe import PretrainingRecipe, at
from bertwright.training.processes import ALONE, Processes

_UNUSED = "[unused"
# Validation draws and masks under a seed of its own, not the run's: runs that end with the same length and masking rate,
# and have the same objective and --heldout-tokens, are measured on the very same task by machines of one kind.
_HELDOUT_SEED = 0


@dataclass(frozen=True)
class Planned:
    """A batch of a step: which instances, how much to mask, and what part of the step's loss it is."""

    batch: Batch
    step: int
    number: int
    rate: float
    part: float


@dataclass(frozen=True)
class Masked:
    """A batch that is ready to be computed; ``labels_B`` in packed order."""

    batch: PackedBatch
    rows: Rows
    targets_M: Tensor
    labels_B: Tensor

    def to(self, device: torch.device) -> Masked:
        """The same batch on ``device``."""
        if device.type == "cpu":
            return self
        rows = Rows(self.rows.index_R.to(device, non_blocking=True), self.rows.counts)
        targets, labels = (tensor.to(device, non_blocking=True) for tensor in (self.targets_M, self.labels_B))
        return Masked(self.batch.to(device), rows, targets, labels)


@dataclass(frozen=True)
class PairsOfText:
    """How a text lends itself to pairs, as drawn from the held-out part, which is a fair sample of it.

    ``unpaired`` is the share of the sequences that come from documents of a single sentence, which nothing can follow;
    ``cut`` the share of the tokens that fitting pairs to the length leaves out.
    """

    unpaired: float
    cut: float

    @classmethod
    def of(cls, batch: Batch) -> PairsOfText:
        """Those of the section that the batch belongs to."""
        drawn = batch.instances
        return cls(drawn.unpaired / len(drawn), drawn.truncated / len(batch.section.tokens))


@dataclass(frozen=True)
class _Losses:
    """Sums over a batch: cross-entropy of the words and how many were guessed, the same of the pairs."""

    words: Tensor
    right: Tensor
    sentences: Tensor
    follow: Tensor


def _pairs(ready: Masked) -> int:
    return int((ready.labels_B != NO_PAIR).sum())


class PretrainingObjective:
    """What the training loop trains: see :class:`bertwright.training.loop.Objective`.

    It is measured as the training ends: at the last of the lengths, with the last masking rate.

    The loss is the mean cross-entropy of the masked words plus, for pairs, that of next sentence prediction; the means
    are over each batch, and over the batches of a step.

    Args:
        model: on the machine's device.
        train: the corpus to learn from.
        heldout: the corpus to be measured on.
        recipe: lengths, rates and batch sizes.
        machine: device and precision.
        processes: those that train together.
    """

    def __init__(
        self,
        model: Pretraining,
        train: TokenCorpus,
        heldout: TokenCorpus,
        recipe: PretrainingRecipe,
        machine: Machine,
        processes: Processes = ALONE,
    ) -> None:
        self._model, self._recipe, self._machine, self._processes = model, recipe, machine, processes
        self._stream = Stream(train, recipe.objective, seed=recipe.seed, short_fraction=recipe.short_fraction)
        self._vocabulary = _Vocabulary.of(train, whole_words=recipe.whole_words)
        self._cut_for = processes.world  # as many processes the steps are cut into batches for
        self._heldout = heldout
        # Now, so that a held-out part that is too small is told before the work and not after hours of it.
        self._measured, self.pairs_of_text = self._heldout_batches()

    def batches(self, step: int, progress: float) -> list[Planned]:
        """The batches of an optimizer step, those of all processes."""
        recipe = self._recipe
        tokens = at(recipe.step_tokens, progress)
        count = batches_of_step(recipe, tokens, self._machine, self._cut_for)
        taken = self._stream.take(count, at(recipe.lengths, progress), tokens // count)
        rate = rate_at(progress, *recipe.masking_rates)
        return [Planned(batch, step, number, rate, 1 / count) for number, batch in enumerate(taken)]

    def prepare(self, planned: Planned) -> Masked:
        """Read, pack and mask a batch: a pure function of the seed and what is planned."""
        return self._masked(planned.batch, self._recipe.seed, planned.step, planned.number, planned.rate)

    def share(self, planned: Planned, noise: Noise) -> Share:
        """A batch's share of the step's loss."""
        ready = self.prepare(planned)
        losses = self._losses(ready, noise)
        part, M, pairs = planned.part, max(len(ready.targets_M), 1), max(_pairs(ready), 1)
        words = losses.words / M
        loss = words
        measures: dict[str, Tensor | float] = {
            "mlm_loss": words.detach() * part,
            "mlm_accuracy": losses.right * (part / M),
        }
        if self._recipe.objective != "mlm":
            sentences = losses.sentences / pairs
            loss = words + sentences
            measures |= {"nsp_loss": sentences.detach() * part, "nsp_accuracy": losses.follow * (part / pairs)}
        return Share(loss * part, ready.batch.tokens, measures | {"flops": self._flops(ready)})

    def validate(self, progress: Progress) -> dict[str, float]:
        """Losses and accuracies on the held-out text, masked alike every time.

        Raises:
            FloatingPointError: a loss is not finite.
        """
        # All names from the beginning on: a process that has no batch sums zeros with the others.
        names = (*(f.name for f in dataclasses.fields(_Losses)), "masked", "pairs")
        sums: dict[str, Tensor | float] = dict.fromkeys(names, 0.0)
        total = sum(ready.batch.tokens for ready in self._measured[self._processes.rank :: self._processes.world])
        done = 0
        with torch.inference_mode():
            for first in range(0, len(self._measured), self._processes.world):
                number = first + self._processes.rank
                # Where the model is spread over processes, all have to compute, also those for which no batch is left.
                ready = self._measured[min(number, len(self._measured) - 1)]
                losses = self._losses(ready, None)
                if number >= len(self._measured):
                    continue
                done += ready.batch.tokens
                progress(done, total)
                found = {f.name: getattr(losses, f.name) for f in dataclasses.fields(losses)}
                found |= {"masked": float(len(ready.targets_M)), "pairs": float(_pairs(ready))}
                sums = {name: sums[name] + value for name, value in found.items()}
        summed = self._processes.summed(sums)
        if not math.isfinite(summed["words"] + summed["sentences"]):
            raise FloatingPointError("the loss on held-out text is no longer a finite number")
        values = {"mlm_loss": summed["words"] / summed["masked"], "mlm_accuracy": summed["right"] / summed["masked"]}
        if self._recipe.objective == "mlm" or not summed["pairs"]:
            return {"loss": values["mlm_loss"], **values}
        values |= {"nsp_loss": summed["sentences"] / summed["pairs"], "nsp_accuracy": summed["follow"] / summed["pairs"]}
        return {"loss": values["mlm_loss"] + values["nsp_loss"], **values}

    def position(self) -> dict[str, Any]:
        """Where in the corpus the next step begins, and for how many processes steps are cut."""
        return {**self._stream.position(), "cut_for": self._cut_for}

    def seek(self, position: Mapping[str, Any]) -> None:
        """Go to what :meth:`position` gave; steps stay cut as they were, if that can be dealt out to the processes now."""
        before, world = position["cut_for"], self._processes.world
        counts = [batches_of_step(self._recipe, phase.value, self._machine, before) for phase in self._recipe.step_tokens]
        if all(count % world == 0 for count in counts):
            self._cut_for = before
        elif self._processes.first:
            tell(
                f"the batches of a step, cut for {before} processes, cannot be dealt out to {world}: they are cut anew, and "
                "go on with the next section of the corpus"
            )
        self._stream.seek(dict(position))

    def _losses(self, ready: Masked, noise: Noise | None) -> _Losses:
        masked = ready.to(self._machine.device)
        with self._machine.computing():
            words, right, logits_B2 = self._model(masked.batch, masked.rows, noise, masked.targets_M)
        labels_B = masked.labels_B
        sentences = F.cross_entropy(logits_B2.float(), labels_B, ignore_index=NO_PAIR, reduction="sum")
        return _Losses(words, right, sentences, (logits_B2.argmax(1) == labels_B).sum())

    def _flops(self, ready: Masked) -> float:
        """Floating-point operations of a batch's products, forward and backward, as few as its definition needs."""
        config = self._model.config
        H, L, intermediate = config.hidden_size, config.num_hidden_layers, config.intermediate_size
        T, M, read = ready.batch.tokens, len(ready.targets_M), len(ready.targets_M) + len(ready.labels_B)
        squares = sum(length * length for length in ready.batch.sequences.lengths)
        whole = L * 4 * H * H * T + 2 * L * H * squares + L * 2 * H * intermediate * T
        # Of the last layer, all but keys and values is computed for the rows that are read.
        pruned = (2 * H * H + 2 * H * intermediate) * (T - read)
        head = M * (H * H + H * config.vocab_size) + len(ready.labels_B) * H * H
        return 6.0 * (whole - pruned + head)

    def _masked(self, batch: Batch, seed: int, step: int, number: int, rate: float) -> Masked:
        words = self._vocabulary
        packed, labels_B = pack(batch.section, batch.instances, batch.which, cls_id=words.cls_id, sep_id=words.sep_id)
        masked, rows, targets_M = mask(
            packed,
            seed,
            step,
            number,
            mask_id=words.mask_id,
            special_ids=words.special_ids,
            vocab_size=words.size,
            continues=words.continues,
            rate=rate,
        )
        return Masked(masked, rows, targets_M, labels_B)

    def _heldout_batches(self) -> tuple[list[Masked], PairsOfText]:
        recipe = self._recipe
        stream = Stream(self._heldout, recipe.objective, seed=_HELDOUT_SEED, short_fraction=recipe.short_fraction)
        length = recipe.lengths[-1].value
        budget = max(self._machine.token_budget, length)  # alike for any number of processes
        limit = min(recipe.heldout_tokens, self._heldout.count.tokens)
        (batch,) = stream.take(1, length, budget)
        pairs = PairsOfText.of(batch)
        ready: list[Masked] = []
        tokens = 0
        while tokens < limit and not (ready and stream.position()["pass"] > 0):
            ready.append(self._masked(batch, _HELDOUT_SEED, 0, len(ready), recipe.masking_rates[1]))
            tokens += ready[-1].batch.tokens
            (batch,) = stream.take(1, length, budget)
        return ready, pairs


@dataclass(frozen=True)
class _Vocabulary:
    """What masking has to know of the vocabulary."""

    size: int
    cls_id: int
    sep_id: int
    mask_id: int
    special_ids: tuple[int, ...]
    continues: np.ndarray[Any, np.dtype[np.uint8]] | None

    @classmethod
    def of(cls, corpus: TokenCorpus, *, whole_words: bool) -> _Vocabulary:
        tokenizer = corpus.tokenizer()
        special = corpus.manifest.special_ids
        unused = [i for i, token in enumerate(tokenizer.tokens(range(tokenizer.vocab_size))) if token.startswith(_UNUSED)]
        return cls(
            size=corpus.manifest.vocab_size,
            cls_id=special["cls"],
            sep_id=special["sep"],
            mask_id=special["mask"],
            special_ids=(*special.values(), *unused),
            continues=corpus.continues if whole_words else None,
        )


def batches_of_step(recipe: PretrainingRecipe, tokens: int, machine: Machine, world: int) -> int:
    """How many batches an optimizer step of ``tokens`` is cut into: a multiple of the ``world`` processes.

    Raises:
        BertwrightError: ``--accumulate`` is no such multiple, or leaves a batch no room for a single sequence.
    """
    at_once = recipe.micro_tokens or (16384 if machine.device.type == "cpu" else 65536)
    count = recipe.accumulate or -(-tokens // (at_once * world)) * world
    if count % world:
        raise BertwrightError(f"--accumulate {count}: {world} processes need a multiple of {world}")
    longest = max(phase.value for phase in recipe.lengths)
    if tokens // count < longest:
        raise BertwrightError(
            f"--batch-tokens {tokens} in {count} batches leaves {tokens // count} tokens for a batch, less than one "
            f"sequence of {longest}; raise --batch-tokens, or --micro-tokens where it is set, or lower --accumulate"
        )
    return count
