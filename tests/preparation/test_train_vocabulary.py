"""Learned vocabularies: the right entries, the same at every run, at BERT's places, and read by transformers alike."""

from __future__ import annotations

import json
import lzma
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from bertwright.data.corpus import CorpusFormat
from bertwright.data.words import WordCounts, characters_of
from bertwright.errors import BertwrightError, BertwrightWarning
from bertwright.preparation import vocabulary
from bertwright.preparation.vocabulary import (
    HEAD,
    REPORT_FILE,
    SKIPPED_FILE,
    TrainedVocabulary,
    train_vocabulary,
    vocabulary_table,
)
from bertwright.tokenizer import SPECIAL_TOKENS, Tokenizer

QUIET = Console(quiet=True)


def made_up(paragraphs: int, seed: int = 0) -> str:
    """Documents of words made of syllables: many of them equally frequent, some in capitals and with accents."""
    generator = random.Random(seed)
    syllables = [a + b + c for a in "bdfgklmnprst" for b in "aeiouéü" for c in ("", "n", "r")]
    words = ["".join(generator.choices(syllables, k=generator.randint(1, 4))) for _ in range(3000)]
    lines = []
    for _ in range(paragraphs):
        sentence = generator.choices(words, k=60)
        lines.append(" ".join(sentence).capitalize() + generator.choice([".", "!", " 你好。", " 世界"]))
    return "\n\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "a.txt").write_text(made_up(300), encoding="utf-8")
    (folder / "b.jsonl").write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in made_up(300, seed=1).split("\n\n")), encoding="utf-8"
    )
    return folder


def train(corpus: Path, out: Path, **options: Any) -> TrainedVocabulary:
    return train_vocabulary(corpus, out=out, console=QUIET, **options)


@pytest.fixture(scope="module")
def trained(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedVocabulary:
    return train(corpus, tmp_path_factory.mktemp("vocabulary") / "v", size=1024)


def entries_of(folder: Path) -> list[str]:
    return (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")[:-1]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*")}


# ------------------------------------------------------------------------------------------------------------- entries


def test_the_special_tokens_have_the_ids_of_bert(trained: TrainedVocabulary) -> None:
    tokenizer = trained.tokenizer
    ids = (tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id)
    assert ids == (0, 100, 101, 102, 103)
    assert entries_of(trained.out)[:104] == list(HEAD)


@pytest.mark.shared_data
def test_the_first_entries_are_those_of_the_published_vocabulary(shared: Path) -> None:
    published = (shared / "vocab" / "bert-base-uncased" / "vocab.txt").read_text(encoding="utf-8").split("\n")
    assert list(HEAD) == published[: len(HEAD)]


def test_entries_are_characters_first_and_then_what_was_joined_of_earlier_entries(trained: TrainedVocabulary) -> None:
    entries = entries_of(trained.out)
    report = trained.report
    assert len(entries) == len(set(entries)) == report.size == 1024
    characters = entries[104 : 104 + report.characters]
    joined = entries[104 + report.characters : 104 + report.characters + report.joined]
    assert all(len(entry.removeprefix("##")) == 1 for entry in characters)
    assert report.unused == 99 + 1024 - 104 - len(characters) - len(joined)
    known = set(characters)
    for entry in joined:
        text = entry.removeprefix("##")
        begin = "##" if entry.startswith("##") else ""
        assert any(begin + text[:cut] in known and "##" + text[cut:] in known for cut in range(1, len(text))), entry
        known.add(entry)
    assert "你" in characters
    assert "##你" not in characters  # always a word of its own
    assert "##." not in characters


def reference(words: Counter[str], alphabet: Sequence[str], min_frequency: int, room: int) -> list[str]:
    """What the trainer should do, slowly: join the most frequent pair; of several, the one whose parts came earliest."""
    number = {entry: place for place, entry in enumerate(alphabet)}
    split = {word: [word[0], *(f"##{character}" for character in word[1:])] for word in words}
    while len(number) < room:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, pieces in split.items():
            for pair in pairwise(pieces):
                pairs[pair] += words[word]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], number[pair[0]], number[pair[1]]))
        if pairs[best] < min_frequency:
            break
        joined = best[0] + best[1].removeprefix("##")
        number.setdefault(joined, len(number))
        for word, pieces in split.items():
            new: list[str] = []
            for piece in pieces:
                if new and (new[-1], piece) == best:
                    new[-1] = joined
                else:
                    new.append(piece)
            split[word] = new
    return list(number)[len(alphabet) :]


some_words = st.dictionaries(st.text("abc", min_size=1, max_size=8), st.integers(1, 4), min_size=1, max_size=25)


@settings(max_examples=60)
@given(some_words, st.integers(1, 3), st.integers(6, 60))
def test_pieces_are_those_of_a_slow_reference(words: dict[str, int], min_frequency: int, room: int) -> None:
    alphabet = ["a", "b", "c", "##a", "##b", "##c"]
    counted = Counter(words)
    with vocabulary._Steps(QUIET) as steps:
        found = vocabulary._join(counted, alphabet, min_frequency, room, steps)
    assert found == reference(counted, alphabet, min_frequency, room)


def test_words_with_rare_characters_or_beyond_the_longest_are_not_learned_from() -> None:
    words = Counter({"ab☃ab": 50, "abab": 2, "c" * 101: 9, "c" * 100: 1})
    with vocabulary._Steps(QUIET) as steps:
        found = vocabulary._join(words, ["a", "b", "c", "##a", "##b", "##c"], 2, 100, steps)
    assert found == reference(Counter({"abab": 2, "c" * 100: 1}), ["a", "b", "c", "##a", "##b", "##c"], 2, 100)


def alphabet(text: str, min_frequency: int = 1, coverage: float = 1.0, room: int = 1000) -> list[str]:
    counts = WordCounts(lowercase=True)
    counts.add(text)
    return vocabulary._alphabet(characters_of(counts.total().items()), counts, min_frequency, coverage, room)


def test_the_alphabet_has_the_characters_that_cover_the_text() -> None:
    assert alphabet("Aab. 六六b") == [".", "a", "b", "六", "##a", "##b"]
    assert alphabet("aab六六", min_frequency=2) == ["a", "六", "##a"]
    assert alphabet("a" * 90 + " " + "b" * 9 + "c", coverage=0.9) == ["a", "##a"]
    assert alphabet("a" * 90 + " " + "b" * 9 + "c", coverage=0.901) == ["a", "b", "##a", "##b"]
    with pytest.warns(BertwrightWarning, match=r"room for the characters of 90\.000% of the text only"):
        assert alphabet("a" * 90 + " " + "b" * 9 + "c", room=4) == ["a", "##a"]


# -------------------------------------------------------------------------------------------------------- reproducible


def test_fresh_processes_with_other_threads_and_hashes_write_the_same_bytes(
    corpus: Path, trained: TrainedVocabulary, tmp_path: Path
) -> None:
    code = (
        "import sys; from rich.console import Console; from bertwright.preparation.vocabulary import train_vocabulary;"
        "train_vocabulary(sys.argv[1], out=sys.argv[2], size=1024, console=Console(quiet=True))"
    )
    for number, threads in enumerate(["1", "2", "5"]):
        setting = {"RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": str(number)}
        setting["TOKENIZERS_PARALLELISM"] = "false" if number == 2 else "true"
        arguments = [sys.executable, "-c", code, str(corpus), str(tmp_path / threads)]
        subprocess.run(arguments, env=os.environ | setting, check=True)
        assert contents(tmp_path / threads) == contents(trained.out)


def test_left_to_itself_the_library_differs_and_this_is_why_it_is_told_the_characters() -> None:
    words = Counter("".join(random.Random(seed).choices("abcdefgh", k=5)) for seed in range(300))
    letters = [*"abcdefgh", *(f"##{letter}" for letter in "abcdefgh")]
    with vocabulary._Steps(QUIET) as steps:
        told = {tuple(vocabulary._join(words, letters, 2, 150, steps)) for _ in range(8)}
        untold = {tuple(vocabulary._join(words, letters[:8], 2, 150, steps)) for _ in range(8)}
    assert len(told) == 1
    assert len(untold) > 1


# ------------------------------------------------------------------------------------------------------------ directory

TEXTS = [
    "Kan ben DORN, tufé fün?",
    "你好，世界! mixed 你 text",
    "unseen ☃ snowman",
    "",
    "[MASK] is special, [unused5] is not",
    "x" * 101,
]


@pytest.mark.parametrize("lowercase", [True, False])
def test_transformers_and_bertwright_read_the_directory_alike(corpus: Path, tmp_path: Path, lowercase: bool) -> None:
    transformers = pytest.importorskip("transformers")
    made = train(corpus, tmp_path / "v", size=640, lowercase=lowercase)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "v")
    ours = Tokenizer.from_directory(tmp_path / "v")
    assert ours.digest == made.tokenizer.digest
    assert ours.lowercase is lowercase
    for text in TEXTS:
        assert theirs(text)["input_ids"] == ours.encode(text).input_ids == made.tokenizer.encode(text).input_ids
    assert theirs(TEXTS[0], TEXTS[1])["input_ids"] == ours.encode(TEXTS[0], TEXTS[1]).input_ids
    assert [getattr(theirs, name) for name in SPECIAL_TOKENS] == list(SPECIAL_TOKENS.values())
    assert len(theirs) == ours.vocab_size == 640
    has_capitals = any(entry.lower() != entry for entry in entries_of(tmp_path / "v")[104:])
    has_accents = any("é" in entry for entry in entries_of(tmp_path / "v"))
    assert has_capitals is has_accents is not lowercase


def test_the_directory_holds_a_report_without_times(corpus: Path, trained: TrainedVocabulary) -> None:
    content = json.loads((trained.out / REPORT_FILE).read_text(encoding="utf-8"))
    assert set(content) == {"options", "report", "tokenizers"}
    assert content["options"]["size"] == 1024
    report = trained.report
    assert content["report"]["fertility"] == report.fertility
    assert "seconds" not in content["report"]
    assert not (trained.out / SKIPPED_FILE).exists()
    assert report.documents == 600
    texts = [(corpus / "a.txt").read_text(encoding="utf-8").rstrip("\n").replace("\n\n", "")]
    texts += [json.loads(line)["text"].rstrip("\n") for line in (corpus / "b.jsonl").read_text().splitlines()]
    assert report.bytes == report.sampled_bytes == sum(len(text.encode()) for text in texts)
    assert 0.01 <= report.heldout_bytes / report.bytes < 0.02
    assert report.words > 30_000
    assert report.character_coverage >= 0.9999
    shown = Console(width=80)
    with shown.capture() as capture:
        shown.print(vocabulary_table(trained))
    text = capture.get()
    assert f"{report.fertility:.3f}" in text
    assert f"{report.words:,}" in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_rates_on_a_text_are_those_of_counting_by_hand(trained: TrainedVocabulary) -> None:
    tokenizer = trained.tokenizer
    blocks = ["kan bendorn ☃x\nfün. 你好 " + "y" * 101, "", "dorn-ben"]
    words = ["kan", "bendorn", "☃x", "fün", ".", "你", "好", "y" * 101, "dorn", "-", "ben"]
    pieces = [tokenizer.tokens(tokenizer.encode(word).input_ids)[1:-1] for word in words]
    tried = vocabulary._try_on(tokenizer, [block.encode() for block in blocks])
    assert tried.words == len(pieces)
    assert tried.pieces == sum(map(len, pieces))
    assert tried.continued == sum(len(one) > 1 for one in pieces) >= 1
    assert tried.unknown == sum(one == ["[UNK]"] for one in pieces) == 2 + ("-" not in entries_of(trained.out))


# ---------------------------------------------------------------------------------------------------- sizes and samples


def test_sizes_are_rounded_up_and_told(corpus: Path, tmp_path: Path) -> None:
    with pytest.warns(BertwrightWarning, match="a vocabulary of 576 entries instead of 513"):
        made = train(corpus, tmp_path / "v", size=513)
    assert made.tokenizer.vocab_size == made.report.size == 576
    assert made.report.unused == 99


def test_a_text_that_gives_no_more_entries_is_told_and_filled_up(tmp_path: Path) -> None:
    (tmp_path / "small.txt").write_text("hug hugs pug hug\n\nbun 抱\n\nhug pugs\n\n" * 3, encoding="utf-8")
    with pytest.warns(BertwrightWarning, match=r"the text gives 1\d\d entries, not 16,000: the vocabulary has 128;"):
        made = train(tmp_path / "small.txt", tmp_path / "v")
    entries = entries_of(tmp_path / "v")
    assert len(entries) == made.report.size == 128
    used = 104 + made.report.characters + made.report.joined
    assert entries[used:] == [f"[unused{99 + number}]" for number in range(128 - used)]
    assert made.report.unused == 99 + 128 - used
    assert {"hug", "pug", "抱"} <= set(entries)


@pytest.mark.filterwarnings("ignore:the text gives")
def test_a_single_block_is_not_set_aside_and_told(tmp_path: Path) -> None:
    (tmp_path / "small.txt").write_text("hug hugs pug hug", encoding="utf-8")
    with pytest.warns(BertwrightWarning, match="too small to set text aside"):
        made = train(tmp_path / "small.txt", tmp_path / "v")
    assert made.report.heldout_bytes == made.report.heldout_words == 0
    assert made.report.words == 4
    assert made.report.fertility >= 1


def test_of_a_large_corpus_an_even_sample_is_taken_and_told(tmp_path: Path) -> None:
    text = made_up(4000)
    (tmp_path / "large.txt").write_text(text, encoding="utf-8")
    size = len(text.encode())
    assert size > 1.5 * (1 << 20)
    with pytest.warns(BertwrightWarning, match=r"even sample of 1\.0 MB of \d\.\d MB of text; --sample-megabytes"):
        made = train(tmp_path / "large.txt", tmp_path / "v", size=512, sample_bytes=1 << 20)
    assert 0.99 * (1 << 20) < made.report.sampled_bytes <= 1 << 20
    assert made.report.bytes > 0.95 * size


# --------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 255}, "--vocab-size 255: make it at least 256"),
        ({"min_frequency": 0}, "--min-frequency 0: make it at least 1"),
        ({"character_coverage": 0.0}, "--character-coverage 0.0: make it more than 0"),
        ({"character_coverage": 1.1}, "--character-coverage 1.1: make it more than 0 and at most 1"),
        ({"sample_bytes": 1000}, "a sample of 1,000 bytes: make --sample-megabytes at least 1"),
        ({"sample_bytes": 1 << 31}, "a sample of 2,147,483,648 bytes: make --sample-megabytes at least 1 and at most 2047"),
        ({"heldout": 0.0}, "--heldout 0.0: make it more than 0"),
        ({"heldout": 0.6}, "--heldout 0.6: make it more than 0 and at most 0.5"),
    ],
)
def test_options_out_of_bounds_are_refused(corpus: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(BertwrightError) as caught:
        train(corpus, tmp_path / "v", **options)
    assert str(caught.value).startswith(message)
    assert not (tmp_path / "v").exists()


def test_what_cannot_be_read_is_listed_beside_the_vocabulary_or_refused(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_bytes(b"fine\n\n\xff\xfebad\n\nok\x00\n")
    both = [corpus, tmp_path / "bad.txt"]
    with pytest.warns(BertwrightWarning, match=r"2 of the lines, records and files .* skipped; skipped\.jsonl lists them"):
        made = train_vocabulary(both, out=tmp_path / "v", size=512, console=QUIET)
    listed = [json.loads(line) for line in (tmp_path / "v" / SKIPPED_FILE).read_text(encoding="utf-8").splitlines()]
    assert [one["where"] for one in listed] == [f"{tmp_path / 'bad.txt'}:{number}" for number in (3, 5)]
    assert made.report.skipped == 2
    assert made.report.documents == 601
    with pytest.raises(BertwrightError, match=r"bad\.txt:3: byte 0xff at position 1 is not UTF-8"):
        train_vocabulary(both, out=tmp_path / "strict", size=512, strict=True, console=QUIET)
    assert not (tmp_path / "strict").exists()


def test_a_text_without_words_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\u200b\u200d\n\n\ufffd\ufffd\n", encoding="utf-8")
    with pytest.raises(BertwrightError, match=r"a\.txt: no words in the 2 documents of the corpus"):
        train(tmp_path / "a.txt", tmp_path / "v")
    assert not (tmp_path / "v").exists()


@pytest.mark.filterwarnings("ignore:the text gives", "ignore:the corpus is too small")
def test_a_vocabulary_that_is_there_stays_unless_told(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hug hugs\n\npug", encoding="utf-8")
    train(tmp_path / "a.txt", tmp_path / "v")
    before = contents(tmp_path / "v")
    with pytest.raises(BertwrightError, match="already there"):
        train(tmp_path / "a.txt", tmp_path / "v")
    assert contents(tmp_path / "v") == before
    train(tmp_path / "a.txt", tmp_path / "v", lowercase=False, overwrite=True)
    assert contents(tmp_path / "v") != before


@pytest.mark.filterwarnings("ignore:the text gives", "ignore:the corpus is too small")
def test_a_place_in_the_corpus_is_refused_where_vocab_txt_would_be_read_as_text(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.txt").write_text("hug hugs\n\npug", encoding="utf-8")
    for corpus in (tmp_path / "corpus", str(tmp_path / "corpus")):
        with pytest.raises(BertwrightError, match=r"vocab: lies in .*corpus, where it would be read as text; choose anot"):
            train_vocabulary(corpus, out=tmp_path / "corpus" / "vocab", console=QUIET)
    with pytest.raises(BertwrightError, match=r"corpus: holds .*a\.txt of the corpus; choose another --out"):
        train(tmp_path / "corpus" / "a.txt", tmp_path / "corpus", overwrite=True)
    assert [path.name for path in (tmp_path / "corpus").iterdir()] == ["a.txt"]


# ------------------------------------------------------------------------------------------------------------- progress


def test_a_terminal_shows_a_bar_and_a_file_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Console(force_terminal=True, width=80)
    with vocabulary._Steps(terminal) as steps:
        for title in ("reading", "counting words"):
            steps.begin(title, "MB/s", 100)
            steps.note("3 documents")
            steps.advance(50)
            (task,) = steps._bar.tasks
            assert (task.description, task.completed, task.total) == (title, 50, 100)
            assert task.fields["rate"].endswith("MB/s, 3 documents")
    clock = iter(range(0, 1000, 20))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    lines = Console(width=80, force_terminal=False)
    with lines.capture() as capture, vocabulary._Steps(lines) as steps:
        steps.begin("reading", "MB/s", 200_000_000)
        for _ in range(4):
            steps.advance(50_000_000)
    assert capture.get().splitlines() == ["reading: 25%, 2.5 MB/s", "reading: 75%, 2.5 MB/s"]


# ------------------------------------------------------------------------------------------------------------ real text


@pytest.fixture(scope="module")
def slices(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("slices")
    for name, source, size in (("en", "pretrain/enwiki-2018.txt.xz", 2 << 20), ("zh", "zh/zhwiki/zhwiki.txt.xz", 1 << 20)):
        with lzma.open(shared / source) as file:
            data = file.read(size)
        (folder / f"{name}.txt").write_bytes(data[: data.rindex(b"\n\n")])
    return {name: folder / f"{name}.txt" for name in ("en", "zh")}


@pytest.mark.shared_data
def test_a_vocabulary_of_real_english(slices: dict[str, Path], tmp_path: Path) -> None:
    made = train(slices["en"], tmp_path / "v", size=4096)
    report = made.report
    assert report.size == 4096
    assert 1.2 < report.fertility < 1.7
    assert report.unknown_rate < 0.002
    assert {"the", "of", "##ing", "city"} <= set(entries_of(tmp_path / "v"))
    assert len(made.tokenizer.encode("The city of London was the largest.")) <= 11


@pytest.mark.shared_data
def test_a_vocabulary_of_real_chinese(slices: dict[str, Path], tmp_path: Path) -> None:
    with pytest.warns(BertwrightWarning, match="the text gives"):
        made = train(slices["zh"], tmp_path / "v", format=CorpusFormat(documents="blank-line"))
    assert made.report.fertility < 1.1  # nearly every word is one character
    assert made.report.unknown_rate < 0.01
    assert made.tokenizer.tokens(made.tokenizer.encode("中国的城市。").input_ids)[1:-1] == list("中国的城市。")
