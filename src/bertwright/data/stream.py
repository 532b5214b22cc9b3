"""An endless stream of training batches from a prepared corpus, which can be entered at any place.

A corpus is read in sections of some million tokens, whole shards each, in a new order in every pass; within a section
the instances of a pass are drawn and shuffled at once. Where the stream stands is three numbers, and everything else is
a pure function of them and the seed: nothing of a batch need be saved to make it again.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bertwright.data.instances import Instances, Section, batches, draw_instances, join
from bertwright.data.shards import Shard, TokenCorpus
from bertwright.errors import BertwrightError

# Tokens of a section: 64 million take 128 MB of memory, twice that while they are read, and are drawn within seconds.
SECTION_TOKENS = 1 << 26
# The second word of Philox's counter, which keeps the order of sections apart from all other draws under a seed.
_LANE = 5


@dataclass(frozen=True, slots=True)
class Batch:
    """Instances of one section that are computed together; nothing of them has been read yet."""

    section: Section
    instances: Instances
    which: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A section with its instances of a pass, cut into batches."""

    section: Section
    instances: Instances
    offsets: npt.NDArray[np.int64]


class Stream:
    """Batches of at most ``budget`` tokens, of sequences of at most ``max_length``; either may change on the way.

    The files of a section are held against their checksums when it is first read, in the thread that draws ahead: even a
    terabyte is checked without a wait at the start.

    Args:
        corpus: the part of a prepared corpus to read.
        objective: one of :data:`bertwright.data.instances.OBJECTIVES`.
        seed: of the run.
        short_fraction: see :func:`bertwright.data.instances.draw_instances`.
        section_tokens: tokens of a section, about.

    Raises:
        BertwrightError: the corpus is empty, or too small for the objective. :meth:`take` raises it too, for files that were
            altered since they were written.
    """

    def __init__(
        self,
        corpus: TokenCorpus,
        objective: str,
        *,
        seed: int,
        short_fraction: float | None = None,
        section_tokens: int = SECTION_TOKENS,
    ) -> None:
        if not corpus.shards:
            remedy = "a larger --heldout" if corpus.part == "heldout" else "a larger corpus"
            raise BertwrightError(f"{corpus.directory}: its part '{corpus.part}' holds no text; prepare it with {remedy}")
        if objective == "mlm+nsp" and corpus.count.documents == 1:
            remedy = "a larger --heldout" if corpus.part == "heldout" else "documents told apart (--documents)"
            raise BertwrightError(
                f"{corpus.directory}: its part '{corpus.part}' holds a single document, but '{objective}' takes half of its "
                f"second parts from another one; prepare it with {remedy}, or take --objective mlm or mlm+sop"
            )
        self._corpus = corpus
        self._sections = list(_sections(corpus.shards, section_tokens))
        self._verified: set[int] = set()
        self._objective = objective
        self._seed = seed
        self._short_fraction = short_fraction
        self._shape = (0, 0)  # max_length, budget
        # A pass, a section in its order, a batch in that section: at first behind all of the pass before the first.
        self._pass, self._place, self._batch = -1, len(self._sections) - 1, 0
        self._drawn: _Drawn | None = None
        self._ahead: tuple[tuple[int, int], Future[_Drawn]] | None = None
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="draw-instances")

    def take(self, count: int, max_length: int, budget: int) -> list[Batch]:
        """Return the next batches. Another length or budget than before leaves the rest of the section out."""
        if self._shape != (max_length, budget):
            self._go(*self._following(), 0, (max_length, budget))
        taken = []
        for _ in range(count):
            drawn = self._current()
            while self._batch >= len(drawn.offsets) - 1:
                self._go(*self._following(), 0, self._shape)
                drawn = self._current()
            which = drawn.instances.order[drawn.offsets[self._batch] : drawn.offsets[self._batch + 1]]
            taken.append(Batch(drawn.section, drawn.instances, which))
            self._batch += 1
        return taken

    def position(self) -> dict[str, Any]:
        """Where the next batch is taken from, as JSON."""
        names = ("pass", "section", "batch", "max_length", "budget")
        return dict(zip(names, (self._pass, self._place, self._batch, *self._shape), strict=True))

    def seek(self, position: dict[str, Any]) -> None:
        """Go to what :meth:`position` gave."""
        shape = (position["max_length"], position["budget"])
        self._go(position["pass"], position["section"], position["batch"], shape)

    def _following(self) -> tuple[int, int]:
        """The pass and the place in it of the section after this one."""
        place = self._place + 1
        return (self._pass, place) if place < len(self._sections) else (self._pass + 1, 0)

    def _go(self, number: int, place: int, batch: int, shape: tuple[int, int]) -> None:
        self._pass, self._place, self._batch = number, place, batch
        if self._shape != shape:
            self._shape, self._ahead = shape, None
        self._drawn = None

    def _current(self) -> _Drawn:
        if self._drawn is None:
            here = (self._pass, self._place)
            if self._ahead is not None and self._ahead[0] == here:
                self._drawn = self._ahead[1].result()
            else:
                self._drawn = self._draw(*here, *self._shape)
            follows = self._following()
            # While this section is trained on, the next is drawn, so that a fast device does not wait for it.
            self._ahead = follows, self._worker.submit(self._draw, *follows, *self._shape)
        return self._drawn

    def _draw(self, number: int, place: int, max_length: int, budget: int) -> _Drawn:
        random = np.random.Generator(np.random.Philox(key=self._seed, counter=[0, _LANE, 0, number]))
        which = int(random.permutation(len(self._sections))[place])
        shards = self._sections[which]
        if which not in self._verified:
            self._corpus.verify(shards)
            self._verified.add(which)
        section = join([shard.read() for shard in shards])
        instances = draw_instances(
            section,
            self._objective,
            max_length,
            seed=self._seed,
            epoch=number,
            number=which,
            short_fraction=self._short_fraction,
        )
        return _Drawn(section, instances, batches(instances, budget))


def _sections(shards: tuple[Shard, ...], tokens: int) -> Iterator[list[Shard]]:
    """Group neighbouring shards into sections of about ``tokens``, none much smaller than the others."""
    total = sum(shard.count.tokens for shard in shards)
    count = max(round(total / tokens), 1)
    section: list[Shard] = []
    seen, made = 0, 0
    for shard in shards:
        section.append(shard)
        seen += shard.count.tokens
        if seen >= total * (made + 1) / count:
            yield section
            section, made = [], made + 1
    if section:
        yield section
