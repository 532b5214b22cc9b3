"""Words as a model takes them: the pieces of each, and overlapping windows over what is longer than a sequence may be.

Each word is read at its first piece (Devlin et al. 2019, section 5.3), in one window alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from bertwright.data.inputs import Inputs
from bertwright.data.packing import TokenTable
from bertwright.data.tagged import TaggedExample
from bertwright.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class WordWindow:
    """The words ``begin : end`` of a sentence, of which ``first : last`` are read here."""

    begin: int
    end: int
    first: int
    last: int


def windows(sizes: Sequence[int], room: int) -> list[WordWindow]:
    """Cut a sentence, whose words have these ``sizes`` in pieces, into windows of at most ``room`` pieces.

    One window after the other is filled, and shares up to half of its pieces with the next. A word in both is read where
    more pieces stand between it and the nearer end of the window; the ends of the sentence do not count.

    A word is never cut: one larger than ``room`` is a window of its own.
    """
    before = [0, *accumulate(sizes)]  # pieces before each word
    if before[-1] <= room:
        return [WordWindow(0, len(sizes), 0, len(sizes))]
    found: list[WordWindow] = []
    begin, first = 0, 0
    while True:
        end = begin + 1
        while end < len(sizes) and before[end + 1] - before[begin] <= room:
            end += 1
        if end == len(sizes):
            found.append(WordWindow(begin, end, first, end))
            return found
        after = begin + 1  # where the next window begins: it shares half a window, but leaves room for a new word
        while after < end and (before[end] - before[after] > room // 2 or before[end + 1] - before[after] > room):
            after += 1
        last = max(after, first + 1)
        while last < end and before[last] - before[after] <= before[end] - before[last + 1]:
            last += 1
        found.append(WordWindow(begin, end, first, last))
        begin, first = after, last


def encode_words(tokenizer: Tokenizer, examples: Sequence[TaggedExample], max_length: int) -> Inputs:
    """Encode sentences word by word, as ``[CLS] pieces [SEP]``, in as many sequences as it takes.

    A word without pieces (U+FFFD, say, or a zero-width space) is read as ``[UNK]``, and one that is longer than a whole
    sequence by its beginning, which ``cut`` tells. ``details`` has for each sequence how many of its words have no pieces.
    """
    room = max_length - 2
    sentences = [example.words for example in examples]
    different = list(dict.fromkeys(word for words in sentences for word in words))
    encoded = tokenizer.encode_batch(different)
    pieces = {word: one.input_ids[1:-1] for word, one in zip(different, encoded, strict=True)}
    ids: list[list[int]] = []
    reads: list[list[int]] = []
    without: list[int] = []
    starts, cut = [0], list[int]()
    for words in sentences:
        whole = [pieces[word] for word in words]
        parts = [part[:room] or [tokenizer.unk_id] for part in whole]
        cut.append(sum(max(len(part) - room, 0) for part in whole))
        sizes = [len(part) for part in parts]
        for window in windows(sizes, room):
            inside = parts[window.begin : window.end]
            places = list(accumulate(map(len, inside), initial=1))
            ids.append([tokenizer.cls_id, *(piece for part in inside for piece in part), tokenizer.sep_id])
            reads.append(places[window.first - window.begin : window.last - window.begin])
            without.append(sum(not part for part in whole[window.first : window.last]))
        starts.append(len(ids))
    table = TokenTable(ids, [[0] * len(one) for one in ids], reads)
    return Inputs(examples, table, np.array(starts, dtype=np.int64), np.array(cut, dtype=np.int64), without)
