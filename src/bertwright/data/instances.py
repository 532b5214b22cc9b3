"""Training instances: which stretches of a prepared corpus BERT sees together, drawn anew for every epoch.

An instance is two ranges of token offsets, A and B; nothing is copied until a batch is packed. All instances of a
section are a pure function of (seed, epoch, section number), so a batch can be made again at any time.

The procedure is that of BERT (Devlin et al. 2019, appendix A.2, and the data preparation published with it), which
walks through each document: where it stands, it gathers a chunk, draws how to use it, and goes on behind what it used.
The draws of a step depend on nothing but where it begins, and a walk begins nowhere twice. So the step is drawn for
every sentence at once, as if a walk came by, and the walks are then followed by doubling their stride: log2(longest
walk) array operations for all documents together, however long one of them is.

Shapes: S sentences of a section, D documents, N instances, R instances with a random second part, B instances of a
packed batch, T tokens of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bertwright.arrays import BoolArray
from bertwright.data.packing import PackedBatch, Sequences
from bertwright.data.shards import TextInMemory
from bertwright.errors import BertwrightError, did_you_mean

Int64Array = npt.NDArray[np.int64]

OBJECTIVES = ("mlm+nsp", "mlm", "mlm+sop")
NO_PAIR = -100
"""The label of an instance without a second part: the class that torch's cross-entropy leaves out."""

SHORT_FRACTION = {"mlm+nsp": 0.1, "mlm": 0.0, "mlm+sop": 0.1}
"""How many instances get a short target unless the caller says otherwise."""

_SPECIAL_TOKENS = {"mlm+nsp": 3, "mlm": 2, "mlm+sop": 3}
# The second word of Philox's counter, which keeps these draws apart from all others under the same seed: dropout has
# 0 and 2, the order of fine-tuning's rows 1, masking 4.
_LANE = 3


class Section(Protocol):
    """A part of a prepared corpus, for instance a shard: D documents of whole sentences, none of them empty."""

    @property
    def tokens(self) -> npt.NDArray[Any]:
        """Token ids of all sentences end to end, without special tokens; may be memory-mapped."""

    @property
    def sentences(self) -> Int64Array:
        """S + 1 offsets into ``tokens``, from 0: sentence s is ``tokens[sentences[s] : sentences[s + 1]]``."""

    @property
    def documents(self) -> Int64Array:
        """D + 1 offsets into the sentences, from 0: document d is the sentences ``documents[d] : documents[d + 1]``."""


@dataclass(frozen=True, slots=True)
class Instances:
    """The N training instances of a section for one epoch, in the order of the text; ``order`` shuffles them.

    Fields, all of length N:
        a_start, a_length: part A as offset into the section's tokens and number of tokens.
        b_start, b_length: part B; a length of 0 means that there is none.
        label: 0 where B follows A in the text, 1 where B is random (mlm+nsp) or the two are swapped (mlm+sop), NO_PAIR
            where there is no B.
        target: tokens of A and B together that were aimed at.
        lengths: tokens with [CLS] and [SEP].
        order: a random permutation of the instances.

    ``truncated`` counts the tokens of the section that fitting pairs to the length left out of their place (random
    second parts do not count: their text has its own place), ``unpaired`` the instances of documents of one sentence:
    such a document can only be the first part of a random pair (mlm+nsp), or stands alone without a label (mlm+sop).
    """

    a_start: Int64Array
    a_length: Int64Array
    b_start: Int64Array
    b_length: Int64Array
    label: npt.NDArray[np.int8]
    target: Int64Array
    lengths: Int64Array
    order: Int64Array
    truncated: int
    unpaired: int

    def __len__(self) -> int:
        return len(self.lengths)


def join(sections: Sequence[TextInMemory]) -> TextInMemory:
    """Make one section of several, documents in the given order."""
    if len(sections) == 1:
        return sections[0]
    tokens = np.concatenate([section.tokens for section in sections])
    return TextInMemory(tokens, _chained([s.sentences for s in sections]), _chained([s.documents for s in sections]))


def draw_instances(
    section: Section,
    objective: str,
    max_length: int,
    *,
    seed: int,
    epoch: int,
    number: int,
    short_fraction: float | None = None,
) -> Instances:
    """Draw the instances of a section, a pure function of (seed, epoch, number) and the other arguments.

    **mlm+nsp**, as BERT's own preparation: sentences are gathered until their tokens reach a target, which is all that
    fits into ``max_length``, or with probability ``short_fraction`` uniform from 2 to that. A random number of the
    first sentences (one at least, not all) is A. With probability 1/2 the rest is B. Otherwise B is taken from another
    document, both drawn uniformly with the sentence it begins at, whole sentences until A and B reach the target; the
    walk then goes on right behind A. A pair too long loses tokens of the longer part, each from its front or back by
    the toss of a coin. Two differences:

    - There, a chunk of one sentence always becomes a random pair, which makes them more than half. Here the coin
      decides first: to follow, one more sentence is taken, or at a document's end the sentence before becomes A. Only
      documents of a single sentence are left to random pairs, and counted.
    - There, a short target holds for a whole document. Here each instance draws its own, so that 10 % are 10 %.

    **mlm+sop** (Lan et al. 2020, section 3.1): the same, but B always follows, and half the pairs are swapped.

    **mlm** (DOC-SENTENCES of Liu et al. 2019, section 4.2): as many whole sentences of one document as fit into the
    target, one at least. A sentence longer than ``max_length`` allows is cut into several.

    Args:
        section: the text.
        objective: one of OBJECTIVES.
        max_length: most tokens of an instance, special tokens included.
        seed: of the run, not negative.
        epoch: which pass over the corpus.
        number: of the section in the corpus; sections of the same number draw alike.
        short_fraction: of instances with a short target; None: as in SHORT_FRACTION.

    Raises:
        BertwrightError: an unknown objective; a ``max_length`` without room; a fraction outside 0..1; mlm+nsp on a
            single document.
    """
    if objective not in OBJECTIVES:
        known = ", ".join(OBJECTIVES)
        raise BertwrightError(f"unknown objective '{objective}'{did_you_mean(objective, OBJECTIVES)}; there are {known}")
    fraction = SHORT_FRACTION[objective] if short_fraction is None else short_fraction
    if not 0 <= fraction <= 1:
        raise BertwrightError(f"the fraction of short instances is {fraction}; give a number from 0 to 1")
    added = _SPECIAL_TOKENS[objective]
    parts = 1 if objective == "mlm" else 2
    if max_length < added + parts:
        why = f"{added} special tokens and a token of text" + (" for each part" if parts == 2 else "")
        raise BertwrightError(f"max_length={max_length} has no room for {why}; '{objective}' needs at least {added + parts}")
    if objective == "mlm+nsp" and len(section.documents) == 2:
        raise BertwrightError(
            f"section {number} of the corpus is a single document, but '{objective}' takes half of its second parts from "
            "another one; prepare it with documents told apart (--documents), or take --objective mlm or mlm+sop"
        )
    random = np.random.Generator(np.random.Philox(key=seed, counter=[0, _LANE, number, epoch]))
    draw = _draw_texts if objective == "mlm" else _draw_pairs
    return draw(section, objective, max_length - added, fraction, random)


def batches(instances: Instances, budget: int) -> Int64Array:
    """Cut the shuffled order into batches of at most ``budget`` tokens each, and return their offsets.

    Batch i is ``order[offsets[i] : offsets[i + 1]]``. Each takes instances until the next one would not fit; none is
    split. The last batch is as full as it happens to be.

    Raises:
        BertwrightError: an instance is longer than the budget.
    """
    longest = int(instances.lengths.max(initial=0))
    if longest > budget:
        raise BertwrightError(f"a batch of {budget} tokens has no room for a sequence of {longest}; make it larger")
    lengths = instances.lengths[instances.order]
    ends = np.cumsum(lengths)
    behind = np.searchsorted(ends, ends - lengths + budget, side="right")
    return np.append(_reached(behind, np.zeros(1, np.int64)), len(instances))


def pack(
    section: Section, instances: Instances, which: npt.NDArray[np.integer[Any]], *, cls_id: int, sep_id: int
) -> tuple[PackedBatch, Tensor]:
    """Pack the instances with these numbers as ``[CLS] A [SEP]`` or ``[CLS] A [SEP] B [SEP]``, shortest first.

    ``which`` must not be empty. Returns the batch, on the CPU, and labels_B (int64) in packed order.
    """
    order = np.argsort(instances.lengths[which], kind="stable")
    which = np.asarray(which, np.int64)[order]
    lengths, a_length, b_length = instances.lengths[which], instances.a_length[which], instances.b_length[which]
    starts = np.cumsum(lengths) - lengths
    b_place = starts + a_length + 2
    ids_T = np.full(int(lengths.sum()), sep_id, np.int64)
    ids_T[starts] = cls_id
    source = np.concatenate([instances.a_start[which], instances.b_start[which]])
    place = np.concatenate([starts + 1, b_place])
    length = np.concatenate([a_length, b_length])
    # As a plain array: a memory-mapped one spends longer on its Python subclass than on the reading.
    ids_T[_ranges(place, length)] = np.asarray(section.tokens)[_ranges(source, length)]
    types_T = np.zeros_like(ids_T)
    types_T[_ranges(b_place, b_length + (b_length > 0))] = 1
    batch = PackedBatch(
        input_ids_T=torch.from_numpy(ids_T),
        token_type_ids_T=torch.from_numpy(types_T),
        position_ids_T=torch.from_numpy(_ranges(np.zeros_like(lengths), lengths)),
        sequences=Sequences.of(lengths.tolist()),
        order=order,
    )
    return batch, torch.from_numpy(instances.label[which].astype(np.int64))


def _draw_pairs(
    section: Section, objective: str, room: int, short_fraction: float, random: np.random.Generator
) -> Instances:
    """mlm+nsp and mlm+sop; ``room`` is what the special tokens leave of the length."""
    offsets, documents = np.asarray(section.sentences), np.asarray(section.documents)
    sentences_D = np.diff(documents)
    document_S = np.repeat(np.arange(len(sentences_D)), sentences_D)
    start_S, end_S = documents[document_S], documents[document_S + 1]
    here_S = np.arange(len(document_S))

    target_S = _targets(len(here_S), room, short_fraction, random)
    chunk_end_S = np.minimum(np.searchsorted(offsets, offsets[:-1] + target_S), end_S)
    follows_S: BoolArray = random.random(len(here_S)) < (1.0 if objective == "mlm+sop" else 0.5)
    follows_S &= end_S - start_S > 1
    alone_S = follows_S & (chunk_end_S - here_S == 1)
    one_more_S = alone_S & (chunk_end_S < end_S)
    chunk_end_S += one_more_S
    first_S = here_S - (alone_S & ~one_more_S)
    split_S = first_S + random.integers(1, np.maximum(chunk_end_S - first_S, 2))

    seen_N = _reached(np.where(follows_S, chunk_end_S, split_S), documents[:-1])
    follows_N, target_N = follows_S[seen_N], target_S[seen_N]
    b_first_N, b_end_N = split_S[seen_N], np.where(follows_N, chunk_end_S[seen_N], split_S[seen_N])
    a_start, a_length = _tokens(offsets, first_S[seen_N], split_S[seen_N])
    if objective == "mlm+nsp":
        random_N = np.flatnonzero(~follows_N)
        own_R = document_S[seen_N[random_N]]
        other_R = random.integers(0, max(len(sentences_D) - 1, 1), len(random_N))
        other_R += other_R >= own_R
        first_R = documents[other_R] + random.integers(0, sentences_D[other_R])
        missing_R = np.maximum(target_N[random_N] - a_length[random_N], 1)
        b_first_N[random_N] = first_R
        b_end_N[random_N] = np.minimum(np.searchsorted(offsets, offsets[first_R] + missing_R), documents[other_R + 1])
    b_start, b_length = _tokens(offsets, b_first_N, b_end_N)
    label = np.where(follows_N, 0, 1 if objective == "mlm+nsp" else NO_PAIR).astype(np.int8)
    if objective == "mlm+sop":
        # Before the cut, which gives an odd place to A: a swapped pair must not be known by its lengths.
        swapped_N = follows_N & (random.random(len(seen_N)) < 0.5)
        a_start, b_start = np.where(swapped_N, b_start, a_start), np.where(swapped_N, a_start, b_start)
        a_length, b_length = np.where(swapped_N, b_length, a_length), np.where(swapped_N, a_length, b_length)
        label[swapped_N] = 1

    a_kept = np.minimum(a_length, np.maximum(room - room // 2, room - b_length))
    b_kept = np.minimum(b_length, np.maximum(room // 2, room - a_length))
    a_cut, b_cut = a_length - a_kept, b_length - b_kept
    lengths = a_kept + b_kept + 2 + (b_kept > 0)
    return Instances(
        a_start=a_start + random.binomial(a_cut, 0.5),
        a_length=a_kept,
        b_start=b_start + random.binomial(b_cut, 0.5),
        b_length=b_kept,
        label=label,
        target=target_N,
        lengths=lengths,
        order=random.permutation(len(lengths)),
        truncated=int(a_cut.sum() + b_cut[follows_N].sum()),
        unpaired=int((sentences_D[document_S[seen_N]] == 1).sum()),
    )


def _draw_texts(
    section: Section, objective: str, room: int, short_fraction: float, random: np.random.Generator
) -> Instances:
    """mlm; ``room`` is what the special tokens leave of the length."""
    offsets, documents = _cut_long_sentences(section, room)
    end_S = np.repeat(documents[1:], np.diff(documents))
    here_S = np.arange(len(end_S))
    target_S = _targets(len(here_S), room, short_fraction, random)
    fitting_S = np.searchsorted(offsets, offsets[:-1] + target_S, side="right") - 1
    chunk_end_S = np.clip(fitting_S, here_S + 1, end_S)
    seen_N = _reached(chunk_end_S, documents[:-1])
    start, length = _tokens(offsets, seen_N, chunk_end_S[seen_N])
    return Instances(
        a_start=start,
        a_length=length,
        b_start=start + length,
        b_length=np.zeros_like(length),
        label=np.full(len(seen_N), NO_PAIR, np.int8),
        target=target_S[seen_N],
        lengths=length + _SPECIAL_TOKENS[objective],
        order=random.permutation(len(seen_N)),
        truncated=0,
        unpaired=0,
    )


def _targets(count: int, room: int, short_fraction: float, random: np.random.Generator) -> Int64Array:
    short = random.random(count) < short_fraction
    return np.where(short, random.integers(min(2, room), room, count, endpoint=True), room)


def _cut_long_sentences(section: Section, longest: int) -> tuple[Int64Array, Int64Array]:
    """Return (sentences, documents) of the section with every sentence in pieces of ``longest`` tokens and a rest."""
    offsets = np.asarray(section.sentences)
    pieces_S = -(-np.diff(offsets) // longest)
    starts = _ranges(np.zeros_like(pieces_S), pieces_S) * longest + np.repeat(offsets[:-1], pieces_S)
    return np.append(starts, offsets[-1]), np.append(0, np.cumsum(pieces_S))[section.documents]


def _reached(following: Int64Array, starts: Int64Array) -> Int64Array:
    """Return, ascending, every place that walks from ``starts`` come through: from place i they go to following[i] > i.

    Walks end at ``len(following)``, which is not returned.
    """
    end = len(following)
    leap = np.append(following, end)
    seen = np.zeros(end + 1, np.bool_)
    seen[starts] = seen[end] = True
    # Before round k, seen holds what is less than 2^k steps from a start, and a leap is 2^k steps.
    while not seen[ahead := leap[np.flatnonzero(seen)]].all():
        seen[ahead] = True
        leap = leap[leap]
    return np.flatnonzero(seen[:end])


def _tokens(offsets: Int64Array, first: Int64Array, end: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Return (start, length) in tokens of the sentences ``first : end``."""
    start = offsets[first]
    return start, offsets[end] - start


def _ranges(starts: Int64Array, lengths: Int64Array) -> Int64Array:
    """Return the numbers of all ranges ``starts[i] : starts[i] + lengths[i]``, end to end."""
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))


def _chained(offsets: Sequence[Int64Array]) -> Int64Array:
    """Offsets of the sections of one joined array, each beginning where the one before it ends."""
    shifts = np.cumsum([0, *(each[-1] for each in offsets)])
    parts = [each[1:] + shift for each, shift in zip(offsets, shifts[:-1], strict=True)]
    return np.concatenate([np.zeros(1, np.int64), *parts])
