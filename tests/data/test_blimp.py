"""BLiMP: files of any packing read alike and safely, and judged as a model's scores say."""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertwright.data import blimp
from bertwright.data.blimp import MinimalPair, read_pairs, sample
from bertwright.errors import BertwrightError
from bertwright.masked_lm import MaskedLM, load_masked_lm
from bertwright.tokenizer import Tokenizer
from tiny_masked_lm import slow_score, write_masked_lm

# How many sets each has in the paper.
PHENOMENA = {
    "anaphor_agreement": 2,
    "argument_structure": 9,
    "binding": 7,
    "control_raising": 5,
    "determiner_noun_agreement": 8,
    "ellipsis": 2,
    "filler_gap_dependency": 7,
    "irregular_forms": 2,
    "island_effects": 8,
    "npi_licensing": 7,
    "quantifiers": 4,
    "subject_verb_agreement": 6,
}


def row(good: str, bad: str, set: str = "agreement_1", term: str = "subject_verb_agreement", **more: Any) -> dict[str, Any]:
    return {"sentence_good": good, "sentence_bad": bad, "UID": set, "linguistics_term": term, "field": "syntax", **more}


ROWS = {
    "agreement_1": [
        row("The cat sleeps.", "The cat sleep.", pairID="0"),
        row("The cats sleep.", "The cats sleeps.", pairID="1"),
    ],
    "animate": [row("The dog has seen it.", "The film has seen it.", "animate", "s-selection", pairID="0")],
    "no_cat": [
        row("No cat has seen every film.", "Every cat has seen no film.", "no_cat", "quantifiers", pairID=str(number))
        for number in range(3)
    ],
}


def text_of(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(one) + "\n" for one in rows)


def write_folder(folder: Path) -> Path:
    (folder / "data").mkdir(parents=True)
    for name, rows in ROWS.items():
        (folder / "data" / f"{name}.jsonl").write_text(text_of(rows))
    (folder / "README.md").write_text("not data\n")
    (folder / "data" / "._animate.jsonl").write_bytes(b"\x00\x05\x16\x07")
    return folder


def write_tar(path: Path, members: dict[str, str | bytes], *, links: dict[str, str] | None = None) -> Path:
    mode: Any = {".xz": "w:xz", ".txz": "w:xz", ".gz": "w:gz", ".tgz": "w:gz", ".bz2": "w:bz2"}.get(path.suffix, "w")
    with tarfile.open(path, mode) as tar:
        for name, target in (links or {}).items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            tar.addfile(link)
        for name, content in members.items():
            data = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def without_place(pairs: list[MinimalPair]) -> list[tuple[str, ...]]:
    return [(pair.good, pair.bad, pair.set, pair.phenomenon, str(pair.number)) for pair in pairs]


# ---------------------------------------------------------------------------------------------------------------- reading


def test_a_file_and_what_stands_in_it(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    more = row("a", "b", "animate", "s-selection", pairID=7) | {"one_prefix_method": True}
    file.write_text(text_of([ROWS["agreement_1"][0]]) + "\n" + text_of([more, row("c", "d")]))
    first, second, third = read_pairs(file)
    assert first == MinimalPair(
        "The cat sleeps.", "The cat sleep.", "agreement_1", "subject_verb_agreement", "0", f"{file}:1"
    )
    # Where the paper counts the two sets that the data call s-selection.
    assert second == MinimalPair("a", "b", "animate", "argument_structure", "7", f"{file}:3")
    assert third.number is None


@pytest.mark.parametrize("ending", sorted(blimp.ARCHIVES))
def test_folders_and_archives_hold_the_same(ending: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder")
    members: dict[str, str | bytes] = {f"data/{name}.jsonl": text_of(rows) for name, rows in ROWS.items()}
    members |= {"data/README.md": "not data\n", "data/._animate.jsonl": b"\x00\x05\x16\x07"}
    archive = write_tar(tmp_path / f"b{ending}", members)
    pairs = read_pairs(folder)
    assert without_place(pairs) == without_place(read_pairs(archive))
    assert [pair.set for pair in pairs] == ["agreement_1"] * 2 + ["animate"] + ["no_cat"] * 3
    assert pairs[1].where == f"{folder / 'data' / 'agreement_1.jsonl'}:2"
    assert read_pairs(archive)[1].where == f"{archive}/data/agreement_1.jsonl:2"


def test_members_are_read_and_never_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    secret = tmp_path / "secret.jsonl"
    secret.write_text(text_of([row("s", "t", "secret")]))
    monkeypatch.chdir(inside)
    before = sorted(tmp_path.rglob("*"))
    archive = write_tar(
        tmp_path / "b.tar",
        {"../../out.jsonl": text_of(ROWS["animate"]), "/abs.jsonl": text_of(ROWS["no_cat"])},
        links={"link.jsonl": str(secret), "data": "/"},
    )
    assert [pair.set for pair in read_pairs(archive)] == ["animate"] + ["no_cat"] * 3
    assert sorted(tmp_path.rglob("*")) == sorted([*before, archive])


@pytest.mark.parametrize("ending", [".tar", ".tar.xz", ".tar.gz", ".tar.bz2"])
def test_an_archive_that_grows_too_large_is_refused(ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blimp, "LARGEST_ARCHIVE", 1 << 20)
    huge = write_tar(tmp_path / f"b{ending}", {"data/filler": b"0" * (2 << 20), "data/x.jsonl": text_of(ROWS["animate"])})
    with pytest.raises(BertwrightError, match=rf"^{huge}: holds more than 1 MiB"):
        read_pairs(huge)
    fits = write_tar(tmp_path / f"c{ending}", {"data/filler": b"0" * (1 << 19), "data/x.jsonl": text_of(ROWS["animate"])})
    assert len(read_pairs(fits)) == 1


@pytest.mark.parametrize("ending", [".tar", ".tar.xz", ".tar.gz", ".tar.bz2"])
def test_a_damaged_archive_is_one_line(ending: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).bytes(40_000).hex()  # so that half of it is compressed away nowhere
    archive = write_tar(tmp_path / f"b{ending}", {"data/x.jsonl": text_of([row(noise, "x")])})
    whole = archive.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"this is no archive at all" * 40):
        archive.write_bytes(damaged)
        with pytest.raises(BertwrightError, match=rf"^{archive}[:/]") as error:
            read_pairs(archive)
        assert "\n" not in str(error.value)


def test_only_some_sets(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder")
    assert {pair.set for pair in read_pairs(folder, ["animate", "quantifiers"])} == {"animate", "no_cat"}
    with pytest.raises(BertwrightError, match="no set or phenomenon 'no_cats'; did you mean 'no_cat'"):
        read_pairs(folder, ["no_cats"])


GOOD_LINE = text_of([ROWS["animate"][0]])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD_LINE + "{broken\n", ":2: not JSON"),
        (GOOD_LINE + "[1]\n", ":2: a JSON object is expected"),
        (GOOD_LINE.replace("UID", "uid"), ":1: UID is missing"),
        (GOOD_LINE.replace('"s-selection"', "3"), ":1: linguistics_term is 3, not a text"),
        (text_of([row(" ", "b")]), ":1: sentence_good is ' ', not a text"),
        (text_of([row("a", "b\ud800")]), ":1: sentence_bad holds half a character"),
        (text_of([row("a", "b", pairID=[1])]), r":1: pairID is \[1\]"),
        (GOOD_LINE * 2, ":2: pair 0 of animate stands at .*:1 already"),
        ("\n", ": holds no minimal pairs"),
    ],
)
def test_lines_that_are_no_pairs_are_named(content: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text(content)
    with pytest.raises(BertwrightError, match=rf"^{file}{message}"):
        read_pairs(file)


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("gone.jsonl", lambda path: None, "cannot be read: No such file"),
        ("gone", lambda path: None, "cannot be read: No such file"),
        ("gone.tar.xz", lambda path: None, "cannot be read: No such file"),
        ("x.csv", lambda path: path.write_text("a,b\n"), "cannot tell its format by its name"),
        ("empty", lambda path: path.mkdir(), "holds no minimal pairs"),
    ],
)
def test_paths_that_hold_nothing(name: str, make: Callable[[Path], Any], message: str, tmp_path: Path) -> None:
    make(tmp_path / name)
    with pytest.raises(BertwrightError, match=rf"^{tmp_path / name}: {message}"):
        read_pairs(tmp_path / name)


def numbered(sizes: dict[str, int]) -> list[MinimalPair]:
    return [MinimalPair("a", "b", name, "p", str(place), "") for name, size in sizes.items() for place in range(size)]


@given(st.dictionaries(st.text(min_size=1), st.integers(1, 40), min_size=1, max_size=4), st.integers(1, 50))
def test_samples_are_even(sizes: dict[str, int], per_set: int) -> None:
    taken = sample(numbered(sizes), per_set)
    for name, size in sizes.items():
        places = [int(pair.number or -1) for pair in taken if pair.set == name]
        assert len(places) == min(per_set, size)
        assert places[0] == 0
        steps = np.diff([*places, size])
        assert steps.max(initial=1) - steps.min(initial=size) <= 1


def test_a_sample_of_nothing_is_refused() -> None:
    with pytest.raises(BertwrightError, match="0 pairs of each set"):
        sample(numbered({"a": 3}), 0)


# ---------------------------------------------------------------------------------------------------------------- judging


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> MaskedLM:
    path = tmp_path_factory.mktemp("lm")
    write_masked_lm(path)
    return load_masked_lm(path, device="cpu", threads=1)


@pytest.mark.parametrize("method", ["pll", "pll-word-l2r"])
def test_from_files_to_a_judgement(method: str, lm: MaskedLM, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder")
    result = lm.evaluate_blimp(folder, method=method)
    assert len(result.predictions) == 6
    for one in result.predictions:
        good, bad = lm.score([one["good"], one["bad"]], method=method).log_likelihoods
        assert (one["good_score"], one["bad_score"]) == (pytest.approx(good, abs=1e-4), pytest.approx(bad, abs=1e-4))
        assert one["right"] == (good > bad)
    rights = Counter(one["set"] for one in result.predictions if one["right"])
    sizes = {name: len(rows) for name, rows in ROWS.items()}
    assert result.accuracies.over_sets.accuracy == pytest.approx(np.mean([rights[name] / sizes[name] for name in sizes]))
    assert result.metrics["score"] == method
    assert result.metrics["pairs"] == result.metrics["pairs_in_data"] == 6
    sentences = [text for one in result.predictions for text in (one["good"], one["bad"])]
    assert result.metrics["tokens"] == sum(len(lm.tokenizer.encode(text)) - 2 for text in sentences)


def test_a_part_of_the_data(lm: MaskedLM, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder")
    result = lm.evaluate_blimp(folder, only=["quantifiers", "agreement_1"], per_set=2)
    assert [(one["set"], one["pair"]) for one in result.predictions] == [
        ("agreement_1", "0"), ("agreement_1", "1"), ("no_cat", "0"), ("no_cat", "1"),
    ]  # fmt: skip
    assert (result.metrics["pairs"], result.metrics["pairs_in_data"]) == (4, 5)


def test_a_sentence_that_is_too_long_is_named(lm: MaskedLM, tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text(GOOD_LINE + text_of([row("the cat", "the" + " cat" * 50)]))
    with pytest.raises(BertwrightError, match=rf"^{file}:2: has 53 tokens"):
        lm.evaluate_blimp(file)


# -------------------------------------------------------------------------------------------------------------- real data


@pytest.fixture(scope="module")
def published(shared: Path) -> list[MinimalPair]:
    return read_pairs(shared / "blimp" / "blimp.tar.xz")


@pytest.mark.shared_data
def test_all_of_blimp_is_read(published: list[MinimalPair]) -> None:
    assert len(published) == 67_000
    sizes = Counter(pair.set for pair in published)
    assert len(sizes) == 67
    assert set(sizes.values()) == {1000}
    assert Counter(phenomenon for _, phenomenon in {(pair.set, pair.phenomenon) for pair in published}) == PHENOMENA
    # In the published files themselves: ties, whatever the model.
    assert Counter(pair.set for pair in published if pair.good == pair.bad) == {"passive_1": 2, "principle_A_case_2": 5}


@pytest.mark.shared_data
def test_a_pair_of_each_published_set(shared: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_vocab(shared / "vocab" / "bert-base-uncased" / "vocab.txt")
    made = write_masked_lm(tmp_path, tokenizer=tokenizer)
    lm = load_masked_lm(tmp_path, device="cpu", threads=1)
    result = lm.evaluate_blimp(shared / "blimp" / "blimp.tar.xz", per_set=1)
    assert len(result.accuracies.per_set) == len(result.predictions) == 67
    assert {name: one.sets for name, one in result.accuracies.per_phenomenon.items()} == PHENOMENA
    assert result.metrics["unknown_tokens"] == 0
    for one in result.predictions[::20]:
        for kind in ("good", "bad"):
            ids = tokenizer.encode(one[kind]).input_ids
            assert one[f"{kind}_score"] == pytest.approx(slow_score(made, ids, tokenizer), abs=1e-4)
