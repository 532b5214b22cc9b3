"""Long contexts in overlapping windows: ``[CLS] question [SEP] a slice of the context [SEP]`` (Devlin et al. 2019, 4.2).

Shapes: N tokens of a context, W windows.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bertwright.arrays import BoolArray
from bertwright.data.inputs import Inputs
from bertwright.data.packing import TokenTable
from bertwright.data.squad import QuestionExample
from bertwright.errors import BertwrightError, tell
from bertwright.tokenizer import Tokenizer

Int32Array = npt.NDArray[np.int32]

# Scripts that write words together, or what belongs to a word behind it: Thai, Lao, Burmese, Khmer, kana, Hangul. An
# answer may begin or end at any piece there, as 서울 in 서울에서.
_GLUED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3040-\u30ff\u3130-\u318f\uac00-\ud7ff\uff66-\uff9f]"
)

SHORTEST = 5  # [CLS] question [SEP] context [SEP], with one token of each


@dataclass(frozen=True, slots=True, eq=False)
class Context:
    """A context as tokens, without special ones.

    Token n came from the characters ``begins_N[n] : ends_N[n]`` of ``text``; ``first_N`` and ``last_N`` say whether an
    answer may begin or end with it: whether it is the first or last piece of a word, where words stand apart.
    """

    text: str
    ids_N: Int32Array
    begins_N: Int32Array
    ends_N: Int32Array
    first_N: BoolArray
    last_N: BoolArray

    def tokens_of(self, place: tuple[int, int]) -> tuple[int, int] | None:
        """The first and last token of the words that some characters touch; None where they touch none."""
        first = int(np.searchsorted(self.ends_N, place[0], side="right"))
        last = int(np.searchsorted(self.begins_N, place[1], side="left")) - 1
        if first > last:
            return None
        while not self.first_N[first]:
            first -= 1
        while not self.last_N[last]:
            last += 1
        return first, last


@dataclass(frozen=True, slots=True, eq=False)
class ContextWindow:
    """A sequence that shows the tokens ``begin : end`` of a context, from its own token ``prefix`` on."""

    context: Context
    begin: int
    end: int
    prefix: int


def encode_questions(
    tokenizer: Tokenizer, examples: Sequence[QuestionExample], *, max_length: int, stride: int, question_length: int
) -> Inputs:
    """Encode questions with their contexts, a context that does not fit as several sequences.

    Args:
        tokenizer: the tokenizer.
        examples: questions with contexts; each distinct context is tokenized once.
        max_length: most tokens of a sequence.
        stride: how many tokens of the context a window shares with the one before it; never more than half of them.
        question_length: most tokens of a question; the rest is cut and counted, so that there is room for the context.

    Returns:
        The windows of each example in their order, all tokens of which are read, with a ContextWindow each as details.

    Raises:
        BertwrightError: ``max_length`` has no room for question and context.
    """
    if max_length < SHORTEST:
        raise BertwrightError(f"--max-length {max_length} has no room for question and context; make it at least {SHORTEST}")
    longest = min(question_length, (max_length - 3) // 2)
    questions = tokenizer.encode_batch([example.question for example in examples], max_length=longest + 2)
    contexts = _contexts(tokenizer, [example.context for example in examples])
    starts, windows, ids, types = [0], [], [], []
    narrowed = 0
    for example, question in zip(examples, questions, strict=True):
        context, prefix = contexts[example.context], len(question)
        room = max_length - prefix - 1
        shared = min(stride, room // 2)
        narrowed += shared < stride and len(context.ids_N) > room
        head = np.array(question.input_ids, dtype=np.int32)
        for begin, end in slices(len(context.ids_N), room, shared):
            windows.append(ContextWindow(context, begin, end, prefix))
            ids.append(np.concatenate([head, context.ids_N[begin:end], [tokenizer.sep_id]], dtype=np.int32))
            types.append(np.repeat(_SEGMENTS, [prefix, end - begin + 1]))
        starts.append(len(windows))
    if narrowed:
        tell(
            f"--stride {stride} is more than half of what --max-length {max_length} leaves to the context of {narrowed:,} "
            "questions: their windows share half of that"
        )
    table = TokenTable(ids, types, [np.arange(len(one)) for one in ids])
    cut = np.array([question.cut for question in questions], dtype=np.int64)
    return Inputs(examples, table, np.array(starts), cut, windows, limit=f"--question-length {longest}")


_SEGMENTS = np.array([0, 1], dtype=np.uint8)


def slices(length: int, room: int, shared: int) -> list[tuple[int, int]]:
    """Cut ``length`` tokens into slices of at most ``room``, each sharing ``shared`` tokens with the one before.

    There is always one, if of no tokens.
    """
    count = 1 + max(0, -(-(length - room) // (room - shared)))
    begins = [number * (room - shared) for number in range(count)]
    return [(begin, min(begin + room, length)) for begin in begins]


def _contexts(tokenizer: Tokenizer, texts: Sequence[str]) -> dict[str, Context]:
    distinct = list(dict.fromkeys(texts))
    continues_V = np.array([tokenizer.token(id).startswith("##") for id in range(tokenizer.vocab_size)])
    found = {}
    for text, encoded in zip(distinct, tokenizer.encode_batch(distinct, offsets=True), strict=True):
        assert encoded.offsets is not None, "they were asked for"
        ids_N = np.array(encoded.input_ids[1:-1], dtype=np.int32)
        places_N2 = np.array(encoded.offsets[1:-1], dtype=np.int32).reshape(-1, 2)
        first_N = ~continues_V[ids_N]
        if not text.isascii():
            first_N |= _begins_glued(text, places_N2[:, 0])
        last_N = np.append(first_N[1:], [True] * bool(len(ids_N)))
        found[text] = Context(text, ids_N, places_N2[:, 0], places_N2[:, 1], first_N, last_N)
    return found


def _begins_glued(text: str, begins_N: Int32Array) -> BoolArray:
    """Where a piece begins with a character of a script that writes together; not inside it, nor with a mark on it."""
    before_N = np.append(-1, begins_N)[:-1]
    return np.array(
        [
            begin != before and _GLUED.match(text, begin) is not None and unicodedata.category(text[begin])[0] != "M"
            for begin, before in zip(begins_N.tolist(), before_N.tolist(), strict=True)
        ],
        dtype=bool,
    )
