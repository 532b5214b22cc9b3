"""The labels are checked against rules that share nothing with the generator, the splits against each other."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from bertwright.data.acceptability import (
    CONSTRUCTIONS,
    HELD_OUT,
    TEST_WORDS,
    TRAINING_WORDS,
    AcceptabilityData,
    Lexicon,
    Sentence,
    Verb,
    generate,
    write_tsv,
)
from bertwright.errors import BertwrightError

DATA = generate()
SPLITS = [field.name for field in fields(AcceptabilityData)]
TRAINED = set(CONSTRUCTIONS) - set(HELD_OUT)


def listed(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Every word that training and tests may share: grammar, and nothing that names a thing, a person, an act or a quality.
CLOSED_CLASS = listed(
    """
    a the this these that those all both several many some two few no
    i me he him she her we us they them himself herself themselves
    is are was has had have did will must should can would could
    not ever any and by to in near behind beside about before after when there which what
    """
)

FEMININE = listed(
    """
    queen mother girl nun woman women lady ladies widow maid queens mothers girls nuns widows maids
    maria anna laura julia helen alice susan emma sarah nancy karen diana
    """
)
SUBJECTIVE, OBJECTIVE = listed("i he she we they"), listed("me him her us them")
INTRANSITIVE = listed("slept smiled yawned sneezed arrived trembled laughed coughed fainted wept blushed shivered")
TAKES_INFINITIVE = listed("wanted decided hoped refused pretended agreed promised offered failed expected")
PARTICIPLES = listed("broken stolen chosen drawn taken thrown shaken")
TAKES_TWO_OBJECTS = listed("told taught gave sent")
THINGS = listed("vase radio bicycle violin basket lantern table suitcase")


def words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def is_plural(noun: str) -> bool:
    return noun in {"men", "women"} or noun.endswith("s")


def agrees(subject: str, verb: str) -> bool:
    return is_plural(subject) != verb.endswith("s")


def reflexive_fits(w: list[str]) -> bool:
    head = w[1] if w[0] == "the" else w[0]
    reflexive = next(word for word in w if word.endswith(("self", "selves")))
    names = {name for lexicon in (TRAINING_WORDS, TEST_WORDS) for both in lexicon.names for name in both}
    if is_plural(head) and head.capitalize() not in names:
        return reflexive == "themselves"
    return reflexive == ("herself" if head in FEMININE else "himself")


RULES: dict[str, Callable[[list[str], str], bool]] = {
    "agreement_simple": lambda w, t: agrees(w[2], w[3]),
    "agreement_prepositional": lambda w, t: agrees(w[1], w[-1]),
    "agreement_relative": lambda w, t: agrees(w[1], w[-1]),
    "determiner_noun": lambda w, t: is_plural(w[-1]) == bool({"these", "those"} & set(w)),
    "reflexive_gender": lambda w, t: reflexive_fits(w),
    "reflexive_number": lambda w, t: reflexive_fits(w),
    "reflexive_locality": lambda w, t: reflexive_fits(w),
    "pronoun_case": lambda w, t: w[0] in SUBJECTIVE or bool(OBJECTIVE & set(w[1:])),
    "transitivity": lambda w, t: bool(INTRANSITIVE & set(w)) != bool(re.search(r"(ed|ept) the ", t)),
    "dative": lambda w, t: "to" in w or bool(TAKES_TWO_OBJECTS & set(w)),
    "complement_form": lambda w, t: bool(TAKES_INFINITIVE & set(w)) == ("to" in w),
    "auxiliary_form": lambda w, t: bool({"is", "was"} & set(w)) == any(word.endswith("ing") for word in w),
    "participle_form": lambda w, t: bool({"has", "had"} & set(w)) == bool(PARTICIPLES & set(w)),
    "passive_by": lambda w, t: ("was" in w) == ("by" in w),
    "existential_there": lambda w, t: (w[0] == "there") != bool({"all", "both"} & set(w)),
    "question_inversion": lambda w, t: t.endswith("?") == (w[w.index("what") + 1] in {"would", "could", "should"}),
    "adverb_placement": lambda w, t: not re.search(r"ed \w+ly the ", t),
    "negation_placement": lambda w, t: w[w.index("not") - 1] in {"has", "had", "will", "should"},
    "wh_gap": lambda w, t: ("what" in w) == w[-1].endswith("ed"),
    "relative_gap": lambda w, t: len([word for word in w if word in THINGS]) == 1,
    "adjunct_island": lambda w, t: not w[-1].endswith("ed"),
    "coordinate_island": lambda w, t: w[w.index("and") + 1] == "the",
    "complex_np_island": lambda w, t: not w[-1].endswith("ed"),
    "npi_licensor": lambda w, t: w[0] in {"no", "few"},
    "npi_scope": lambda w, t: w[0] == "no",
}  # fmt: skip

SAME_WORDS = {
    "question_inversion",
    "adverb_placement",
    "negation_placement",
    "adjunct_island",
    "coordinate_island",
    "complex_np_island",
    "npi_scope",
}


def split(name: str) -> tuple[Sentence, ...]:
    sentences: tuple[Sentence, ...] = getattr(DATA, name)
    return sentences


def everything(data: AcceptabilityData) -> list[Sentence]:
    return [*data.train, *data.validation, *data.test_new_words, *data.test_new_constructions]


def pairs(sentences: tuple[Sentence, ...] | list[Sentence]) -> Iterator[tuple[Sentence, Sentence]]:
    return zip(sentences[::2], sentences[1::2], strict=True)


def digest(data: AcceptabilityData) -> str:
    return hashlib.sha256(repr(everything(data)).encode()).hexdigest()


def forms(lexicon: Lexicon) -> set[str]:
    """Every inflected form that a lexicon holds, in lower case."""

    def flat(value: object) -> Iterator[str]:
        if isinstance(value, str):
            yield value.lower()
        elif isinstance(value, Verb):
            yield from flat(tuple(getattr(value, field.name) for field in fields(value)))
        else:
            assert isinstance(value, tuple)
            for part in value:
                yield from flat(part)

    return {form for field in fields(lexicon) for form in flat(getattr(lexicon, field.name))}


def edits(left: list[str], right: list[str]) -> int:
    """Levenshtein distance in words."""
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, start=1):
        previous, row[0] = row[0], i
        for j, b in enumerate(right, start=1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (a != b))
    return row[-1]


def test_output_is_pinned_to_the_byte() -> None:
    # Every test process hashes strings with another seed, so this fails too when an order comes from hashing.
    assert digest(DATA) == "76d5cfbfc2617e65d4c0293dc120bfc250f39f54f54f8b656992d93313352972"


def test_another_seed_makes_other_sentences() -> None:
    same = {s.text for s in DATA.train} & {s.text for s in generate(seed=1).train}
    assert len(same) < len(DATA.train) / 2
    assert digest(generate(seed=-1)) != digest(generate(seed=1))


def test_default_sizes() -> None:
    assert [len(split(name)) for name in SPLITS] == [2376, 288, 396, 364]


@pytest.mark.parametrize("name", SPLITS)
def test_constructions_are_where_they_belong_and_equally_frequent(name: str) -> None:
    counts = Counter(s.construction for s in split(name))
    assert set(counts) == (set(HELD_OUT) if name == "test_new_constructions" else TRAINED)
    assert len(set(counts.values())) == 1


def test_there_are_enough_constructions() -> None:
    assert len(CONSTRUCTIONS) >= 12
    assert set(HELD_OUT) < set(CONSTRUCTIONS)
    assert len(set(HELD_OUT)) == len(HELD_OUT)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(), count=st.integers(1, 40))
def test_whatever_the_seed_and_size_the_splits_are_sound(seed: int, count: int) -> None:
    data = generate(seed, count)
    sentences = everything(data)
    assert len({s.text.lower() for s in sentences}) == len(sentences)
    assert [s.pair for s in sentences] == [i // 2 for i in range(len(sentences))]
    assert len(data.train) == 2 * count * len(TRAINED)
    for right, wrong in pairs(sentences):
        assert (right.acceptable, wrong.acceptable) == (True, False)
        assert right.construction == wrong.construction
    for s in sentences:
        assert RULES[s.construction](words(s.text), s.text) == s.acceptable, s
    for part in (data.train, data.validation, data.test_new_words):
        assert {s.construction for s in part} == TRAINED
    assert {s.construction for s in data.test_new_constructions} == set(HELD_OUT)


@pytest.mark.parametrize("name", CONSTRUCTIONS)
def test_labels_follow_an_independent_rule(name: str) -> None:
    sentences = [s for s in everything(DATA) if s.construction == name]
    assert len(sentences) >= 50
    for s in sentences:
        assert RULES[name](words(s.text), s.text) == s.acceptable, s


@pytest.mark.parametrize("name", CONSTRUCTIONS)
def test_partners_differ_minimally(name: str) -> None:
    for right, wrong in pairs([s for s in everything(DATA) if s.construction == name]):
        left, other = words(right.text), words(wrong.text)
        assert left != other  # in lower case too, since an uncased model sees no more
        assert right.text[-1] == wrong.text[-1]
        if name in SAME_WORDS:
            assert Counter(left) == Counter(other)
        else:
            assert edits(left, other) <= (3 if name == "dative" else 2), (right, wrong)


def test_no_content_word_of_training_occurs_in_a_test() -> None:
    seen = {w for s in (*DATA.train, *DATA.validation) for w in words(s.text)}
    unseen = {w for s in (*DATA.test_new_words, *DATA.test_new_constructions) for w in words(s.text)}
    assert seen & unseen <= CLOSED_CLASS
    assert not (forms(TRAINING_WORDS) | forms(TEST_WORDS)) & CLOSED_CLASS
    assert seen - CLOSED_CLASS <= forms(TRAINING_WORDS)
    assert unseen - CLOSED_CLASS <= forms(TEST_WORDS) | {"have"}


def test_no_two_lexicons_share_a_stem() -> None:
    def stems(lexicon: Lexicon) -> set[str]:
        return {re.sub(r"(ers?|ing|ed|es|s|ly|e|y)$", "", form) for form in forms(lexicon)}

    assert not stems(TRAINING_WORDS) & stems(TEST_WORDS)


def test_sentences_are_well_written() -> None:
    for s in everything(DATA):
        assert re.fullmatch(r"[A-Z][A-Za-z]*( [A-Za-z]+)+[.?]", s.text), s
        assert not re.search(r"\ba [aeiou]", s.text, re.IGNORECASE), s
        assert s.text.endswith("?") == (words(s.text)[0] in {"which", "what"}), s


def test_verbs_are_inflected_as_english_does() -> None:
    by_base = {verb.base: verb for lexicon in (TRAINING_WORDS, TEST_WORDS) for verb in lexicon.on_things}
    assert by_base["destroy"] == Verb("destroy", ("destroys", "destroy"), "destroyed", "destroyed", "destroying")
    assert by_base["examine"] == Verb("examine", ("examines", "examine"), "examined", "examined", "examining")
    blush = next(verb for verb in TEST_WORDS.intransitive if verb.base == "blush")
    assert blush == Verb("blush", ("blushes", "blush"), "blushed", "blushed", "blushing")
    take = next(verb for verb in TEST_WORDS.irregular if verb.base == "take")
    assert take == Verb("take", ("takes", "take"), "took", "taken", "taking")


def test_a_bag_of_words_learns_next_to_nothing() -> None:
    bag = CountVectorizer(token_pattern=r"\w+|[.?]")
    model = LogisticRegression(max_iter=2000)
    model.fit(bag.fit_transform([s.text for s in DATA.train]), [s.acceptable for s in DATA.train])
    for name in SPLITS:
        sentences = split(name)
        accuracy = model.score(bag.transform([s.text for s in sentences]), [s.acceptable for s in sentences])
        assert accuracy < 0.6, name


@pytest.mark.parametrize("name", CONSTRUCTIONS)
def test_descriptions_are_one_line_with_a_pair(name: str) -> None:
    match = re.fullmatch(r"[^\n:]+: ([A-Z][^/*]+[.?]) / \*([A-Z][^/*]+[.?])", CONSTRUCTIONS[name])
    assert match
    left, right = words(match[1]), words(match[2])
    assert left != right
    assert edits(left, right) <= 2 or Counter(left) == Counter(right)


@pytest.mark.parametrize("count", [0, -3])
def test_too_small_a_number_is_refused(count: int) -> None:
    with pytest.raises(BertwrightError, match=f"pairs_per_construction is {count}; it must be at least 1"):
        generate(pairs_per_construction=count)


def test_more_than_the_vocabulary_yields_is_refused() -> None:
    with pytest.raises(BertwrightError, match=r"pairs_per_construction.*too large: \w+ should yield 562 new pairs"):
        generate(pairs_per_construction=500)


def test_tsv_holds_every_sentence_in_order(tmp_path: Path) -> None:
    path = tmp_path / "validation.tsv"
    write_tsv(iter(DATA.validation), str(path))
    content = path.read_bytes()
    assert b"\r" not in content
    header, *rows = content.decode("utf-8").removesuffix("\n").split("\n")
    assert header == "construction\tlabel\tsentence"
    assert rows == [
        f"{s.construction}\t{'acceptable' if s.acceptable else 'unacceptable'}\t{s.text}" for s in DATA.validation
    ]
    write_tsv(DATA.validation, path)
    assert path.read_bytes() == content


def test_a_path_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "train.tsv"
    with pytest.raises(BertwrightError, match=r"missing.train\.tsv: cannot write it \(No such file or directory\)"):
        write_tsv(DATA.train, path)
