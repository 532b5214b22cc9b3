"""Examples as a model takes them: encoded sequences, and which of them belong to which example."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from bertwright.data.examples import Example
from bertwright.data.packing import TokenTable
from bertwright.errors import BertwrightError, tell
from bertwright.tokenizer import Tokenizer


@dataclass(frozen=True)
class Inputs:
    """Examples and their sequences.

    Example e has the sequences ``starts[e] : starts[e + 1]`` of ``table``: one for a text, one a choice, one a window of
    a long text. ``cut`` counts the tokens that each example lost to the longest length, or to what ``limit`` names
    instead. ``details`` is what a task notes of each sequence to find the way back to the text.
    """

    examples: Sequence[Any]
    table: TokenTable
    starts: npt.NDArray[np.int64]
    cut: npt.NDArray[np.int64]
    details: Sequence[Any] = field(default=())
    limit: str | None = None

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """How many sequences each example has."""
        return np.diff(self.starts)

    def tell_cut(self, name: str, max_length: int) -> None:
        """Warn if examples lost tokens to the longest length."""
        rows = int((self.cut > 0).sum())
        if rows:
            tell(
                f"{name}: {rows:,} of {len(self.cut):,} texts are longer than {self.limit or f'--max-length {max_length}'} "
                f"and were cut ({int(self.cut.sum()):,} tokens left out)"
            )

    def check_segments(self, known: int, where: str) -> None:
        """Raise BertwrightError for pairs, if a model knows fewer kinds of segments than they have."""
        if int(self.table.token_type_ids.max(initial=0)) >= known:
            raise BertwrightError(f"{where}: type_vocab_size is {known}; pairs need 2")


def encode_texts(tokenizer: Tokenizer, examples: Sequence[Example], max_length: int) -> Inputs:
    """Encode texts or pairs of texts, each as one sequence, cut to ``max_length`` tokens."""
    pairs = None
    if examples and examples[0].pair is not None:
        pairs = [example.pair or "" for example in examples]
    encoded = tokenizer.encode_batch([example.text for example in examples], pairs, max_length=max_length)
    table = TokenTable([e.input_ids for e in encoded], [e.token_type_ids for e in encoded])
    cut = np.array([e.cut for e in encoded], dtype=np.int64)
    return Inputs(examples, table, np.arange(len(encoded) + 1), cut)
