"""A prepared corpus of a few thousand words with regularities that a tiny BERT can learn, written without `prepare`.

Documents are about one subject, whose words fill their sentences; so masked words can be guessed better than by their
frequency, and a sentence of another document can be told from the next one.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np

from bertwright.data.shards import (
    CONTINUES,
    MANIFEST,
    PARTS,
    SHARDS,
    SKIPPED,
    TOKENIZER,
    Count,
    FileEntry,
    Manifest,
    continues_word,
    write_shard,
)
from bertwright.tokenizer import Tokenizer
from tiny_model import BAD, GOOD, PLAIN

Document = list[list[int]]


def documents(
    tokenizer: Tokenizer, count: int, seed: int, sentences: tuple[int, int] = (4, 12), pieces: int = 0
) -> list[Document]:
    """Token ids of documents of 4 to 12 sentences of 3 to 9 words, behind each of which come so many ``##`` pieces."""
    behind = [tokenizer.id(f"##{letter}") for letter in "abc"[:pieces]]
    draw = random.Random(seed)
    made = []
    for _ in range(count):
        subject = draw.choice([GOOD, BAD, PLAIN[2:6], PLAIN[6:9]])
        words = [[draw.choice(subject) for _ in range(draw.randint(3, 9))] for _ in range(draw.randint(*sentences))]
        made.append([[i for word in sentence for i in (tokenizer.id(word), *behind)] for sentence in words])
    return made


def write_tiny_corpus(
    directory: Path,
    model: Path,
    *,
    shards: int = 3,
    count: int = 60,
    heldout: int = 10,
    seed: int = 0,
    sentences: tuple[int, int] = (4, 12),
    pieces: int = 0,
) -> Path:
    """Write a corpus with ``model``'s tokenizer: shards of ``count`` documents, and a held-out part of ten."""
    tokenizer = Tokenizer.from_directory(model)
    held: dict[str, dict[str, Count]] = {part: {} for part in PARTS}
    for part in PARTS:
        for number in range(shards if part == "train" else min(heldout, 1)):
            wanted, lane = (count, number) if part == "train" else (heldout, 500)
            made = documents(tokenizer, wanted, seed * 1000 + lane, sentences, pieces)
            folder = directory / SHARDS / f"{number:05}"
            folder.mkdir(parents=True, exist_ok=True)
            lengths = np.array([len(sentence) for document in made for sentence in document])
            ids = np.array([i for document in made for sentence in document for i in sentence], np.uint16)
            write_shard(folder, part, ids, lengths, np.array([len(document) for document in made]), tokenizer.vocab_size)
            held[part][f"{number:05}"] = Count(len(made), len(lengths), len(ids))
    np.save(directory / CONTINUES, continues_word(tokenizer))
    (directory / SKIPPED).write_text("")
    tokenizer.save(directory / TOKENIZER)
    special = {name: getattr(tokenizer, f"{name}_id") for name in ("pad", "unk", "cls", "sep", "mask")}
    written = [path for path in sorted(directory.rglob("*")) if path.is_file()]
    manifest = Manifest(
        tokenizer_digest=tokenizer.digest,
        vocab_size=tokenizer.vocab_size,
        special_ids=special,
        format={},
        heldout=0.1,
        seed=seed,
        shard_bytes=1,
        made_with={},
        duplicates=0,
        skipped=0,
        empty_documents=0,
        empty_sentences=0,
        parts={part: sum(counts.values(), Count()) for part, counts in held.items()},
        shards=held,
        files={path.relative_to(directory).as_posix(): FileEntry.of(path) for path in written},
    )
    (directory / MANIFEST).write_text(manifest.to_json())
    return directory
