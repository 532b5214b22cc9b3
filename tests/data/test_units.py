"""How a corpus is cut into units: the digests, the held-out share, the cuts."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertwright.data.corpus import CorpusFormat
from bertwright.data.units import Seen, Unit, read_units
from bertwright.errors import BertwrightError


def digest(number: int) -> bytes:
    return hashlib.blake2b(str(number).encode(), digest_size=16).digest()


@given(st.lists(st.integers(0, 3000), max_size=300))
def test_seen_is_a_set(numbers: list[int]) -> None:
    seen, known = Seen(), set[int]()
    for number in numbers:
        assert seen.add(digest(number)) == (number not in known)
        known.add(number)


def test_seen_grows_and_stays_small() -> None:
    seen = Seen()
    assert all(seen.add(digest(number)) for number in range(30_000))
    assert not any(seen.add(digest(number)) for number in range(30_000))
    assert all(seen.add(digest(number)) for number in range(30_000, 30_100))
    assert len(seen._table) <= 48 * 30_100
    # Digests that all want one place.
    crowd = Seen()
    assert all(crowd.add(bytes(8) + bytes([number] * 8)) for number in range(1, 200))
    assert not any(crowd.add(bytes(8) + bytes([number] * 8)) for number in range(1, 200))


def units_of(path: Path, **options: object) -> list[Unit]:
    given: dict[str, object] = {"heldout": 0.0, "seed": 0, "unit_bytes": 100, "strict": False} | options
    return list(read_units([path], CorpusFormat(), **given))  # type: ignore[arg-type]


def write(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def test_units_are_cut_by_size(tmp_path: Path) -> None:
    texts = [f"{number}:" + "é" * (number % 40) for number in range(60)]
    units = units_of(write(tmp_path / "a.jsonl", texts))
    assert [text.decode() for unit in units for text in unit.texts] == texts
    assert [unit.number for unit in units] == list(range(len(units)))
    for unit in units[:-1]:
        sizes = [len(text) for text in unit.texts]
        assert sum(sizes) >= 100 > sum(sizes[:-1])
    assert sum(unit.read.text_bytes for unit in units) == sum(len(text.encode()) for text in texts)
    assert sum(unit.read.input_bytes for unit in units) == (tmp_path / "a.jsonl").stat().st_size


def test_what_comes_after_the_last_document_is_not_lost(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ["x" * 100, "x" * 100, "x" * 100])
    with path.open("a") as file:
        file.write("no JSON\n")
    first, last = units_of(path)
    assert (len(first.texts), first.read.duplicates, last.texts, last.read.duplicates) == (1, 0, [], 2)
    assert [one.where for one in last.read.skipped] == [f"{path}:4"]
    assert first.read.skipped == []
    with pytest.raises(BertwrightError, match=r"a\.jsonl:4: not JSON"):
        units_of(path, strict=True)


def test_digest_stands_for_texts_and_what_is_set_aside(tmp_path: Path) -> None:
    texts = [f"document {number}" for number in range(40)]
    path = write(tmp_path / "a.jsonl", texts)
    (unit,) = units_of(path, unit_bytes=10_000, heldout=0.3)
    (same,) = units_of(path, unit_bytes=10_000, heldout=0.3)
    assert same == unit
    digests = {unit.digest, *(one.digest for one in units_of(path, unit_bytes=10_000, heldout=0.3, seed=1))}
    digests |= {one.digest for one in units_of(path, unit_bytes=10_000, heldout=0.2)}
    digests |= {one.digest for one in units_of(write(path, [*texts[:-1], "another"]), unit_bytes=10_000, heldout=0.3)}
    digests |= {one.digest for one in units_of(write(path, texts[::-1]), unit_bytes=10_000, heldout=0.3)}
    assert len(digests) == 5


def held_out(path: Path, share: float, seed: int = 0) -> set[bytes]:
    return {
        text
        for unit in units_of(path, heldout=share, seed=seed)
        for text, aside in zip(unit.texts, unit.heldout, strict=True)
        if aside
    }


def test_share_set_aside_depends_on_text_and_seed_alone(tmp_path: Path) -> None:
    texts = [f"document {number}" for number in range(4000)]
    path = write(tmp_path / "a.jsonl", texts)
    share = held_out(path, 0.1)
    assert abs(len(share) - 400) < 4 * math.sqrt(4000 * 0.1 * 0.9)
    assert held_out(write(tmp_path / "b.jsonl", texts[::-1]), 0.1) == share
    assert held_out(write(tmp_path / "c.jsonl", texts[1000:]), 0.1) <= share
    assert share < held_out(path, 0.2)  # a larger share takes more documents, and none back
    other = held_out(path, 0.1, seed=1)
    assert len(other & share) < 4 * 40  # as by chance
    assert held_out(path, 0.0) == set()
