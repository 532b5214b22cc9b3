"""Which words a text holds, and how often: BERT's words, counted in bounded memory."""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterable, Iterator

from tokenizers import normalizers, pre_tokenizers

_BLOCK = 1 << 16  # characters
_RAW_TOKENS = 1 << 20  # of them, distinct, are held at most before they are normalised


def blocks_of(text: str) -> Iterator[str]:
    """Yield `text` in blocks of at most 65,536 characters, cut behind white space where there is some, else anywhere."""
    start = 0
    while len(text) - start > _BLOCK:
        end = start + _BLOCK
        cut = max(text.rfind(" ", start, end), text.rfind("\n", start, end)) + 1
        end = cut if cut > start else end
        yield text[start:end]
        start = end
    if start < len(text):
        yield text[start:]


class EvenSample:
    """Blocks drawn evenly at random from a stream whose length nobody knows, of at most `capacity` bytes in all.

    Each block has a random number that depends on the seed and on its place in the stream alone; those with the smallest
    numbers stay. So which blocks stay does not depend on anything else, and the sample of a smaller capacity is a part of
    that of a larger one.
    """

    def __init__(self, capacity: int, seed: int) -> None:
        self._capacity = capacity
        self._key = seed.to_bytes(16, "little", signed=True)
        self._heap: list[tuple[int, int, bytes]] = []  # (-number, place, UTF-8), the largest number first
        self._limit = 1 << 64
        self._offered = 0
        self.seen_bytes = 0
        self.bytes = 0

    def offer(self, block: str) -> None:
        """Take `block` in if its number is small enough, and give up others for it if need be."""
        data = block.encode()
        place, self._offered = self._offered, self._offered + 1
        self.seen_bytes += len(data)
        digest = hashlib.blake2b(place.to_bytes(8, "little"), digest_size=8, key=self._key).digest()
        number = int.from_bytes(digest, "little")
        if number >= self._limit:
            return
        heapq.heappush(self._heap, (-number, place, data))
        self.bytes += len(data)
        while self.bytes > self._capacity:
            largest, _, given_up = heapq.heappop(self._heap)
            self._limit = -largest
            self.bytes -= len(given_up)

    def split(self, heldout: float) -> tuple[list[bytes], list[bytes]]:
        """Hand out the blocks to learn from and those to set aside, as UTF-8, each in the order of the stream.

        Set aside is a random choice of `heldout` of the bytes or a little more, and at least one block, but never all:
        of a single block nothing is. The sample keeps nothing.
        """
        order, self._heap = sorted(self._heap, reverse=True), []
        wanted, taken, count = heldout * self.bytes, 0, 0
        while count < len(order) - 1 and (taken < wanted or not count):
            count += 1
            taken += len(order[-count][2])
        aside = len(order) - count
        learn, held = (sorted((place, data) for _, place, data in part) for part in (order[:aside], order[aside:]))
        return [data for _, data in learn], [data for _, data in held]


class _Isolating(dict[int, str]):
    """A table for `str.translate` that puts blanks around the characters that a library puts blanks around."""

    def __init__(self, *, chinese: bool) -> None:
        super().__init__()
        self._normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False) if chinese else None
        self._pre_tokenizer = pre_tokenizers.BertPreTokenizer()

    def __missing__(self, code: int) -> str:
        character = chr(code)
        between = f"a{character}a"
        if self._normalizer is None:
            isolated = len(self._pre_tokenizer.pre_tokenize_str(between)) == 3
        else:
            isolated = self._normalizer.normalize_str(between) == f"a {character} a"
        self[code] = f" {character} " if isolated else character
        return self[code]


class WordCounts:
    """Counts of BERT's words: normalised, Chinese characters and punctuation each a word of its own.

    The words are those that the `tokenizers` library finds, which the tests hold it against. That library is slow, so each
    distinct string between blanks goes through it once, and not as often as it occurs.
    """

    def __init__(self, *, lowercase: bool) -> None:
        self._normalizer = normalizers.BertNormalizer(lowercase=lowercase)
        self._chinese, self._punctuation = _Isolating(chinese=True), _Isolating(chinese=False)
        self._raw: Counter[str] = Counter()
        self._words: Counter[str] = Counter()

    def add(self, text: str) -> None:
        """Count the words of `text`, which begins and ends where a word does."""
        # Other white space, and what Python takes for it but BERT does not, is left to the library.
        self._raw.update(text.replace("\n", " ").split(" "))
        if len(self._raw) > _RAW_TOKENS:
            self._normalise()

    def total(self) -> Counter[str]:
        """Return the words counted so far with their counts, in no particular order."""
        self._normalise()
        return self._words

    def is_isolated(self, character: str) -> bool:
        """Whether `character` is always a word of its own."""
        return any(len(table[ord(character)]) == 3 for table in (self._chinese, self._punctuation))

    def _normalise(self) -> None:
        pieces: Counter[str] = Counter()
        for token, count in self._raw.items():
            if token.isascii():
                pieces[token] += count
            else:
                for piece in token.translate(self._chinese).split(" "):
                    pieces[piece] += count
        self._raw.clear()
        words, normalise, punctuation = self._words, self._normalizer.normalize_str, self._punctuation
        for piece, count in pieces.items():
            for word in normalise(piece).translate(punctuation).split():
                words[word] += count


def characters_of(words: Iterable[tuple[str, int]]) -> Counter[str]:
    """Count the characters of words that are given with their counts."""
    characters: Counter[str] = Counter()
    for word, count in words:
        for character in word:
            characters[character] += count
    return characters
