"""Ids of sentences, from a memory of the words met before.

BERT's normaliser and word splitter never look across a blank, and set each Chinese character apart (Devlin et al. 2019,
the released tokenisation code). So the ids of a sentence are the ids of its blank-separated words, end to end, and a
word that was met before need not be split again. Running text repeats its words: this is several times quicker than
splitting every sentence, with the very same ids.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bertwright.tokenizer import Tokenizer

# The large block of ideographs. Those outside it are set apart by the tokenizer too, but are too rare to matter here.
_words_of_chinese = re.compile("[\u4e00-\u9fff]|[^ \u4e00-\u9fff]+").findall
_ideograph = re.compile("[\u4e00-\u9fff]").search

_BARRIER = "[SEP]"
_AT_ONCE = 64  # new words split in one call: a call costs as much as several words
_SENTENCES_AT_ONCE = 4096
_WORTH_KEEPING = 32  # characters; what is longer hardly comes again
_MOST_WORDS = 1 << 19  # about 100 MB


class WordMemory:
    """A tokenizer that remembers words; for one thread. Results do not depend on what it remembers.

    Ids are little-endian, of the type ``dtype``.
    """

    def __init__(self, tokenizer: Tokenizer, dtype: npt.DTypeLike) -> None:
        self._tokenizer = tokenizer
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._barrier_id = tokenizer.sep_id
        entries = tokenizer.tokens(range(tokenizer.vocab_size))
        # An added token is found in a text before its words are, so it may reach across a blank or an ideograph.
        self._blanks_divide = not any(" " in entry for entry in entries)
        self._ideographs_divide = (
            self._blanks_divide
            and tokenizer.encode("中文").input_ids == tokenizer.encode("中 文").input_ids
            and not any(len(entry.removeprefix("##")) > 1 and _ideograph(entry) for entry in entries)
        )
        self._known = {"": b""}

    def encode(self, sentences: Sequence[str]) -> list[bytes]:
        """The ids of each sentence as bytes: those of ``Tokenizer.encode`` without its ``[CLS]`` and ``[SEP]``."""
        ids: list[bytes] = []
        for start in range(0, len(sentences), _SENTENCES_AT_ONCE):
            words = [self._words(sentence) for sentence in sentences[start : start + _SENTENCES_AT_ONCE]]
            known = self._known
            new = list(set().union(*words).difference(known))
            known.update(zip(new, self._split(new), strict=True))
            ids += [b"".join(map(known.__getitem__, some)) for some in words]
            for word in new:
                if len(word) > _WORTH_KEEPING:
                    del known[word]
            if len(known) > _MOST_WORDS:
                self._known = {"": b""}
        return ids

    def _words(self, sentence: str) -> list[str]:
        if not self._blanks_divide:
            return [sentence]
        if not self._ideographs_divide or sentence.isascii():
            return sentence.split(" ")
        return _words_of_chinese(sentence)

    def _split(self, words: Sequence[str]) -> list[bytes]:
        """Split words many at a time, in texts where an added token that nothing reaches across keeps them apart."""
        if not self._blanks_divide:
            return self._ids(words)
        groups = [words[start : start + _AT_ONCE] for start in range(0, len(words), _AT_ONCE)]
        split: list[bytes] = []
        for group, joined in zip(groups, self._ids([_BARRIER.join(group) for group in groups]), strict=True):
            barriers = np.flatnonzero(np.frombuffer(joined, self._dtype) == self._barrier_id) * self._dtype.itemsize
            if len(barriers) == len(group) - 1:
                starts = [0, *(barriers + self._dtype.itemsize).tolist()]
                ends = [*barriers.tolist(), len(joined)]
                split += [joined[start:end] for start, end in zip(starts, ends, strict=True)]
            else:  # one of them writes the barrier out
                split += self._ids(group)
        return split

    def _ids(self, texts: Sequence[str]) -> list[bytes]:
        return [np.array(one.input_ids[1:-1], self._dtype).tobytes() for one in self._tokenizer.encode_batch(texts)]
