"""A built-in data set: English minimal pairs, one sentence acceptable and one not, to start with no data at hand.

**What it is.** Sentences filled into templates from a small vocabulary, all written for this project. Partners differ
in a word or two or in the place of a phrase, so a classifier must look at how words go together. "Acceptable" means
grammatical in standard written English; what some dialects allow ("had broke") is unacceptable here. The labels follow
from the templates: no annotator has judged the sentences one by one.

**What it is for.** A smoke test of the whole way from text to a served model, and a teaching set. **What it is not:** a
benchmark, or natural language. Scores on it say nothing about other text, and compare with nothing but other runs on
it. The phenomena are well known; two works inspired the choice, and no template, sentence or word list is theirs:
Warstadt, Singh and Bowman 2019, "Neural Network Acceptability Judgments" (CoLA), TACL 7; Warstadt et al. 2020,
"BLiMP: The Benchmark of Linguistic Minimal Pairs for English", TACL 8.

**What makes it hard.** In training, every construction is crossed, so that what is wrong in one pair ("The bakers
sleeps.") is right in another ("The baker sleeps."), or else partners have the very same words in another order: a bag
of words is near chance. Two test sets ask two questions: `AcceptabilityData.test_new_words` has training's
constructions with nouns, verbs, names, adjectives and adverbs that training never showed, and
`AcceptabilityData.test_new_constructions` has besides only constructions that it never showed (`HELD_OUT`), each of
them related to some that it did.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from bertwright.errors import BertwrightError

Choice = TypeVar("Choice")


@dataclass(frozen=True)
class Sentence:
    """One sentence with its label, the name of its construction, and the number that it shares with its partner."""

    text: str
    acceptable: bool
    construction: str
    pair: int


@dataclass(frozen=True)
class AcceptabilityData:
    """Four splits with no sentence in common. Partners are neighbours in each, the acceptable sentence first."""

    train: tuple[Sentence, ...]
    validation: tuple[Sentence, ...]
    test_new_words: tuple[Sentence, ...]
    test_new_constructions: tuple[Sentence, ...]


# ---------------------------------------------------------------------------------------------------------- vocabulary

SINGULAR, PLURAL = 0, 1
FEMALE, MALE = 0, 1

Noun = tuple[str, str]  # (singular, plural), so that noun[PLURAL] reads well


@dataclass(frozen=True)
class Verb:
    """The forms of one verb; ``present[number]`` is the third person, so ``present[PLURAL]`` equals ``base``."""

    base: str
    present: tuple[str, str]
    past: str
    participle: str
    progressive: str


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _nouns(text: str) -> tuple[Noun, ...]:
    """Read nouns such as ``doctor`` (its plural takes -s) and ``man/men``."""
    pairs = (entry.partition("/") for entry in text.split())
    return tuple((singular, plural or singular + "s") for singular, _, plural in pairs)


def _verbs(text: str) -> tuple[Verb, ...]:
    """Read verbs such as ``blame`` (regular) and ``break/broke/broken``; none here doubles a consonant."""
    verbs = []
    for entry in text.split():
        base, *irregular = entry.split("/")
        stem = base.removesuffix("e")
        past, participle = irregular or [stem + "ed"] * 2
        third = base + ("es" if base.endswith(("sh", "x")) else "s")
        verbs.append(Verb(base, (third, base), past, participle, stem + "ing"))
    return tuple(verbs)


@dataclass(frozen=True)
class Lexicon:
    """Every content word that a split may use. Things and places begin with a consonant, so ``a`` is always right."""

    people: tuple[Noun, ...]
    gendered: tuple[tuple[Noun, ...], tuple[Noun, ...]]  # [FEMALE], [MALE]
    names: tuple[tuple[str, ...], tuple[str, ...]]  # [FEMALE], [MALE]
    things: tuple[Noun, ...]
    places: tuple[str, ...]
    of_people: tuple[str, ...]  # adjectives, gradable
    of_things: tuple[str, ...]
    manner: tuple[str, ...]  # adverbs
    intransitive: tuple[Verb, ...]  # people do them, and they never take an object
    on_things: tuple[Verb, ...]  # people do them to things, and they never lack an object
    on_people: tuple[Verb, ...]  # likewise to people, themselves included
    irregular: tuple[Verb, ...]  # on things, with a participle unlike the past
    learned: tuple[str, ...]  # past tense of verbs that take both "that ..." and "what ..."
    with_infinitive: tuple[str, ...]  # past tense of verbs that take "to sell it" but not "selling it"
    with_gerund: tuple[str, ...]  # and the other way round
    # What only the constructions of HELD_OUT use, and training therefore lacks.
    rumors: tuple[str, ...] = ()  # followed by "that ..."
    messages: tuple[str, ...] = ()  # what one can explain or tell
    warn: tuple[str, ...] = ()  # base form: one can ... a person about a rumor
    explained: tuple[str, ...] = ()  # past tense: one ... it to a person, never ... a person it
    told: tuple[str, ...] = ()  # past tense: one ... a person it


TRAINING_WORDS = Lexicon(
    people=_nouns("doctor painter farmer teacher lawyer soldier baker pilot student banker"),
    gendered=(_nouns("queen mother girl nun"), _nouns("king father boy monk")),
    names=(_words("Maria Anna Laura Julia Helen Alice"), _words("Peter David Paul Thomas Robert Henry")),
    things=_nouns("lamp chair guitar camera clock mirror statue piano"),
    places=_words("garden kitchen station market church"),
    of_people=_words("young famous tall kind"),
    of_things=_words("old heavy small beautiful cheap"),
    manner=_words("quickly quietly carefully calmly deliberately"),
    intransitive=_verbs("sleep/slept/slept smile yawn sneeze arrive tremble"),
    on_things=_verbs("repair destroy purchase describe damage"),
    on_people=_verbs("blame defend protect congratulate amuse"),
    irregular=_verbs("break/broke/broken steal/stole/stolen choose/chose/chosen draw/drew/drawn"),
    learned=_words("knew remembered noticed understood discovered"),
    with_infinitive=_words("wanted decided hoped refused pretended"),
    with_gerund=_words("enjoyed avoided denied postponed finished"),
)

TEST_WORDS = Lexicon(
    people=_nouns("nurse writer dancer judge sailor driver chef visitor guard mechanic"),
    gendered=(_nouns("woman/women lady/ladies widow maid"), _nouns("man/men lord widower duke")),
    names=(_words("Susan Emma Sarah Nancy Karen Diana"), _words("John James Michael Kevin George Richard")),
    things=_nouns("vase radio bicycle violin basket lantern table suitcase"),
    places=_words("park library museum hotel theater"),
    of_people=_words("cheerful clever polite tired"),
    of_things=_words("large expensive strange dirty rare"),
    manner=_words("secretly hastily silently eagerly promptly"),
    intransitive=_verbs("laugh cough faint weep/wept/wept blush shiver"),
    on_things=_verbs("fix examine conceal retrieve ruin"),
    on_people=_verbs("praise accuse punish rescue criticize"),
    irregular=_verbs("take/took/taken throw/threw/thrown shake/shook/shaken"),
    learned=_words("learned forgot realized guessed confirmed"),
    with_infinitive=_words("agreed promised offered failed expected"),
    with_gerund=_words("considered imagined recalled resented admitted"),
    rumors=_words("rumor claim report story"),
    messages=_words("plan rule answer schedule"),
    warn=_words("warn tell remind ask"),
    explained=_words("explained revealed mentioned announced"),
    told=_words("told taught gave sent"),
)

# ------------------------------------------------------------------------------------------------------- constructions


@dataclass(frozen=True)
class _Draw:
    """What a pair is made from. `case` counts a construction's pairs, so that its variants come equally often."""

    words: Lexicon
    rng: random.Random
    case: int

    def bit(self, place: int = 0) -> int:
        """Return a binary digit of `case`: over four pairs, places 0 and 1 give every combination once."""
        return self.case >> place & 1

    def one(self, choices: Sequence[Choice]) -> Choice:
        # Of all methods of Random, the documentation promises the same values in every version for random() alone.
        return choices[int(self.rng.random() * len(choices))]

    def two(self, choices: Sequence[Choice]) -> tuple[Choice, Choice]:
        """Draw two that differ."""
        first = self.one(choices)
        return first, self.one([choice for choice in choices if choice != first])

    @property
    def names(self) -> tuple[str, ...]:
        return self.words.names[FEMALE] + self.words.names[MALE]

    @property
    def persons(self) -> tuple[str, ...]:
        """Singular noun phrases for people: names and definite descriptions."""
        return (*self.names, *(f"the {noun}" for noun, _ in self.words.people))

    def thing(self) -> str:
        return self.one(self.words.things)[SINGULAR]

    def place(self) -> str:
        return f"in the {self.one(self.words.places)}"


_Maker = Callable[[_Draw], tuple[str, str]]
_MAKERS: dict[str, _Maker] = {}

CONSTRUCTIONS: dict[str, str] = {}
"""What each construction is about, in one line that ends in an example: ``acceptable / *unacceptable``."""


def _construction(description: str) -> Callable[[_Maker], _Maker]:
    """Enter the function below, which returns an acceptable text and its unacceptable partner, under its own name."""

    def enter(make: _Maker) -> _Maker:
        name = make.__name__.removeprefix("_")
        CONSTRUCTIONS[name] = description
        _MAKERS[name] = make
        return make

    return enter


def _blank(frame: str, forms: tuple[str, str], right: int = 0) -> tuple[str, str]:
    """Fill the blank ``_`` of `frame`, first with the form at index `right`, then with the other."""
    return frame.replace("_", forms[right]), frame.replace("_", forms[1 - right])


NEAR = ("near", "behind", "beside")
REFLEXIVES = ("herself", "himself")
PRONOUNS = (("he", "him"), ("she", "her"), ("they", "them"), ("we", "us"), ("I", "me"))


@_construction("subject and verb agree: The young baker sleeps. / *The young baker sleep.")
def _agreement_simple(d: _Draw) -> tuple[str, str]:
    frame = f"the {d.one(d.words.of_people)} {d.one(d.words.people)[d.bit()]} _ {d.place()}"
    return _blank(frame, d.one(d.words.intransitive).present, d.bit())


@_construction("agreement across a phrase: The baker near the pilots sleeps. / *The baker near the pilots sleep.")
def _agreement_prepositional(d: _Draw) -> tuple[str, str]:
    subject, nearer = d.two(d.words.people)
    frame = f"the {subject[d.bit()]} {d.one(NEAR)} the {nearer[d.bit(1)]} _"
    return _blank(frame, d.one(d.words.intransitive).present, d.bit())


@_construction("agreement across a clause: The chef that they praised laughs. / *The chef that they praised laugh.")
def _agreement_relative(d: _Draw) -> tuple[str, str]:
    subject, nearer = d.two(d.words.people)
    frame = f"the {subject[d.bit()]} that the {nearer[d.bit(1)]} {d.one(d.words.on_people).past} _"
    return _blank(frame, d.one(d.words.intransitive).present, d.bit())


@_construction("a demonstrative agrees with its noun: Anna damaged this lamp. / *Anna damaged these lamp.")
def _determiner_noun(d: _Draw) -> tuple[str, str]:
    noun = d.one(("", d.one(d.words.of_things) + " ")) + d.one(d.words.things)[d.bit()]
    frame = f"{d.one(d.persons)} {d.one(d.words.on_things).past} _ {noun}"
    return _blank(frame, (("this", "these"), ("that", "those"))[d.bit(1)], d.bit())


@_construction("a reflexive agrees in gender: The king defended himself. / *The king defended herself.")
def _reflexive_gender(d: _Draw) -> tuple[str, str]:
    gender = d.bit()
    subject = d.one((d.one(d.words.names[gender]), f"the {d.one(d.words.gendered[gender])[SINGULAR]}"))
    return _blank(f"{subject} {d.one(d.words.on_people).past} _ {d.place()}", REFLEXIVES, gender)


@_construction("a reflexive agrees in number: The kings defended themselves. / *The kings defended himself.")
def _reflexive_number(d: _Draw) -> tuple[str, str]:
    number, gender = d.bit(), d.bit(1)
    frame = f"the {d.one(d.words.gendered[gender])[number]} {d.one(d.words.on_people).past} _ {d.place()}"
    return _blank(frame, (REFLEXIVES[gender], "themselves"), number)


@_construction("a reflexive's noun can be far: The man near Emma praised himself. / *The man near Emma praised herself.")
def _reflexive_locality(d: _Draw) -> tuple[str, str]:
    gender = d.bit()
    subject, nearer = d.one(d.words.gendered[gender])[SINGULAR], d.one(d.words.gendered[1 - gender])[SINGULAR]
    return _blank(f"the {subject} {d.one(NEAR)} the {nearer} {d.one(d.words.on_people).past} _", REFLEXIVES, gender)


@_construction("a pronoun has the case of its role: He blamed the pilot. / *Him blamed the pilot.")
def _pronoun_case(d: _Draw) -> tuple[str, str]:
    role, verb, other, place = d.bit(), d.one(d.words.on_people).past, d.one(d.persons), d.place()
    return _blank((f"_ {verb} {other} {place}", f"{other} {verb} _ {place}")[role], d.one(PRONOUNS), role)


@_construction("a verb must or must not have an object: The doctor yawned. / *The doctor yawned the lamp.")
def _transitivity(d: _Draw) -> tuple[str, str]:
    verb = d.one((d.words.intransitive, d.words.on_things)[d.bit()]).past
    return _blank(f"{d.one(d.persons)} {verb}_ {d.place()}", ("", f" the {d.thing()}"), d.bit())


@_construction("not every verb takes two objects: Emma told him the plan. / *Emma explained him the plan.")
def _dative(d: _Draw) -> tuple[str, str]:
    verb, message, receiver = d.one(d.words.explained), d.one(d.words.messages), d.one(d.words.people)[SINGULAR]
    if d.bit():
        return _blank(f"{d.one(d.names)} _ the {receiver} the {message}", (d.one(d.words.told), verb))
    return _blank(f"{d.one(d.names)} {verb} _", (f"the {message} to the {receiver}", f"the {receiver} the {message}"))


@_construction("a verb takes an infinitive or a gerund: Anna hoped to damage it. / *Anna hoped damaging it.")
def _complement_form(d: _Draw) -> tuple[str, str]:
    verb, governor = d.one(d.words.on_things), d.one((d.words.with_infinitive, d.words.with_gerund)[d.bit()])
    return _blank(f"{d.one(d.persons)} {governor} _ the {d.thing()}", (f"to {verb.base}", verb.progressive), d.bit())


@_construction("an auxiliary fixes the next form: Paul was repairing the lamp. / *Paul was repair the lamp.")
def _auxiliary_form(d: _Draw) -> tuple[str, str]:
    verb, auxiliary = d.one(d.words.on_things), d.one((("will", "must", "should", "can"), ("is", "was"))[d.bit()])
    return _blank(f"{d.one(d.persons)} {auxiliary} _ the {d.thing()}", (verb.base, verb.progressive), d.bit())


@_construction("only a participle needs an auxiliary: Paul had broken the lamp. / *Paul had broke the lamp.")
def _participle_form(d: _Draw) -> tuple[str, str]:
    verb, auxiliary = d.one(d.words.irregular), d.one((("",), ("has ", "had "))[d.bit()])
    frame = f"{d.one(d.persons)} {auxiliary}_ the {d.thing()} {d.place()}"
    return _blank(frame, (verb.past, verb.participle), d.bit())


@_construction("a passive needs 'by', an active has none: Paul was blamed by Anna. / *Paul was blamed Anna.")
def _passive_by(d: _Draw) -> tuple[str, str]:
    subject, other = d.two(d.persons)
    frame = f"{subject} {('has', 'was')[d.bit()]} {d.one(d.words.on_people).participle} _{other}"
    return _blank(frame, ("", "by "), d.bit())


@_construction("'there are' needs a weak quantifier: There are some lamps there. / *There are both lamps there.")
def _existential_there(d: _Draw) -> tuple[str, str]:
    nouns, place = d.one(d.words.people + d.words.things)[PLURAL], d.place()
    strong, weak = d.one(("all", "both")), d.one(("several", "many", "some", "two"))
    return _blank((f"_ the {nouns} are {place}", f"there are _ {nouns} {place}")[d.bit()], (strong, weak), d.bit())


@_construction("only main questions invert: What would Paul repair? / *What Paul would repair?")
def _question_inversion(d: _Draw) -> tuple[str, str]:
    (asker, doer), modal, verb = d.two(d.persons), d.one(("would", "could", "should")), d.one(d.words.on_things).base
    orders = f"what {modal} {doer} {verb}", f"what {doer} {modal} {verb}"
    return _blank(("_?", f"{asker} {d.one(d.words.learned)} _")[d.bit()], orders, d.bit())


@_construction("no adverb parts verb and object: Paul quickly repaired it. / *Paul repaired quickly it.")
def _adverb_placement(d: _Draw) -> tuple[str, str]:
    adverb, verb, thing = d.one(d.words.manner), d.one(d.words.on_things).past, d.thing()
    right = (f"{adverb} {verb} the {thing}", f"{verb} the {thing} {adverb}")[d.bit()]
    return _blank(f"{d.one(d.persons)} _", (right, f"{verb} {adverb} the {thing}"))


@_construction("'not' follows its auxiliary: Emma has not fixed the vase. / *Emma not has fixed the vase.")
def _negation_placement(d: _Draw) -> tuple[str, str]:
    verb, auxiliary = d.one(d.words.on_things), d.one((("will", "should"), ("has", "had"))[d.bit()])
    frame = f"{d.one(d.persons)} _ {(verb.base, verb.participle)[d.bit()]} the {d.thing()}"
    return _blank(frame, (f"{auxiliary} not", f"not {auxiliary}"))


@_construction("'what' leaves a gap, 'that' none: Anna knew what Paul repaired. / *Anna knew that Paul repaired.")
def _wh_gap(d: _Draw) -> tuple[str, str]:
    knower, doer = d.two(d.persons)
    frame = f"{knower} {d.one(d.words.learned)} _ {doer} {d.one(d.words.on_things).past}"
    return _blank(frame + (f" the {d.thing()}", "")[d.bit()], ("that", "what"), d.bit())


@_construction("a relative clause has one gap: The vase that he fixed was rare. / *The vase that he fixed it was rare.")
def _relative_gap(d: _Draw) -> tuple[str, str]:
    verb, (thing, _), (other, _) = d.one(d.words.on_things).past, *d.two(d.words.things)
    if d.bit():
        frame = f"the {d.one(d.words.people)[SINGULAR]} that {verb} _was {d.one(d.words.of_people)}"
    else:
        frame = f"the {thing} that {d.one(d.persons)} {verb} _was {d.one(d.words.of_things)}"
    return _blank(frame, ("", f"the {other} "), d.bit())


@_construction("an adjunct is an island: Who did I blame when I amused Paul? / *Who did I blame Paul when I amused?")
def _adjunct_island(d: _Draw) -> tuple[str, str]:
    ((asked, _), (other, _)), (outer, inner) = d.two(d.words.people), d.two(d.words.on_people)
    asker, pronoun = d.one(d.words.names[d.bit()]), ("she", "he")[d.bit()]
    clause = f"{d.one(('before', 'after', 'when'))} {pronoun} {inner.past}"
    return _blank(f"which {asked} did {asker} {outer.base} _?", (f"{clause} the {other}", f"the {other} {clause}"))


@_construction("one conjunct is an island: Who did I blame and Paul defend? / *Who did I blame Paul and defend?")
def _coordinate_island(d: _Draw) -> tuple[str, str]:
    ((asked, _), (other, _)), (first, second) = d.two(d.words.people), d.two(d.words.on_people)
    frame = f"which {asked} did {d.one(d.names)} {first.base} _ {second.base}?"
    return _blank(frame, (f"and the {other}", f"the {other} and"))


@_construction(
    "a clause on a noun is an island: "
    "Who did I tell about the rumor that he praised John? / *Who did I tell John about the rumor that he praised?"
)
def _complex_np_island(d: _Draw) -> tuple[str, str]:
    (asked, _), (other, _) = d.two(d.words.people)
    asker, doer = d.two(d.names)
    clause = f"about the {d.one(d.words.rumors)} that {doer} {d.one(d.words.on_people).past}"
    frame = f"which {asked} did {asker} {d.one(d.words.warn)} _?"
    return _blank(frame, (f"{clause} the {other}", f"the {other} {clause}"))


@_construction("'ever' needs a negation: No guard has ever fixed a vase. / *The guard has ever fixed a vase.")
def _npi_licensor(d: _Draw) -> tuple[str, str]:
    noun, verb = d.one(d.words.people)[d.bit()], d.one(d.words.on_things).participle
    frame = f"_ {noun} {('has', 'have')[d.bit()]} ever {verb} a {d.thing()} {d.place()}"
    return _blank(frame, (("no", "the"), ("few", "many"))[d.bit()])


@_construction("'ever' needs 'no' above: No boy that the pilot saw ever slept. / *The boy that no pilot saw ever slept.")
def _npi_scope(d: _Draw) -> tuple[str, str]:
    ((subject, _), (other, _)), blamed = d.two(d.words.people), d.one(d.words.on_people).past
    verb, (singular, plural) = d.one(d.words.on_things).participle, d.one(d.words.things)
    clause = (f"that % {other} {blamed}", f"that {blamed} % {other}")[d.bit()]
    end = (f"has ever {verb} a {singular}", f"has {verb} any {plural}")[d.bit(1)]
    return f"no {subject} {clause.replace('%', 'the')} {end}", f"the {subject} {clause.replace('%', 'no')} {end}"


HELD_OUT = (
    "agreement_relative",  # related in training: agreement_simple and agreement_prepositional
    "reflexive_locality",  # reflexive_gender and agreement_prepositional
    "dative",  # transitivity and complement_form
    "negation_placement",  # adverb_placement, auxiliary_form and question_inversion
    "relative_gap",  # wh_gap and transitivity
    "complex_np_island",  # adjunct_island and coordinate_island
    "npi_licensor",  # npi_scope
)
"""The constructions that `AcceptabilityData.test_new_constructions` has and the other splits have not."""

# ---------------------------------------------------------------------------------------------------------- generation


def generate(seed: int = 0, pairs_per_construction: int = 66) -> AcceptabilityData:
    """Return the four splits, the same for the same arguments in every process and every Python from 3.11 on.

    `pairs_per_construction` is the number of training pairs of each trained construction; validation has an eighth of
    it, `test_new_words` a sixth, and `test_new_constructions` two fifths for each held-out construction, at least one
    pair each. Constructions take turns within a split. Raises BertwrightError when the number is below one, or above
    what the vocabulary yields without a sentence occurring twice.
    """
    if pairs_per_construction < 1:
        raise BertwrightError(f"pairs_per_construction is {pairs_per_construction}; it must be at least 1")
    train = pairs_per_construction
    validation, new_words, new_constructions = max(1, train // 8), max(1, train // 6), max(1, train * 2 // 5)
    # Seeded by name, so that a change to one construction leaves the sentences of the others as they were.
    rngs = {name: random.Random(f"{name} {seed}") for name in CONSTRUCTIONS}
    trained = [name for name in CONSTRUCTIONS if name not in HELD_OUT]
    used: set[str] = set()
    numbers = itertools.count()

    def turns(columns: Iterable[list[_Pair]]) -> tuple[Sentence, ...]:
        sentences: list[Sentence] = []
        for name, right, wrong in itertools.chain.from_iterable(zip(*columns, strict=True)):
            number = next(numbers)
            sentences += (Sentence(right, True, name, number), Sentence(wrong, False, name, number))
        return tuple(sentences)

    seen = [_pairs(name, TRAINING_WORDS, rngs[name], train + validation, used) for name in trained]
    return AcceptabilityData(
        turns(pairs[:train] for pairs in seen),
        turns(pairs[train:] for pairs in seen),
        turns(_pairs(name, TEST_WORDS, rngs[name], new_words, used) for name in trained),
        turns(_pairs(name, TEST_WORDS, rngs[name], new_constructions, used) for name in HELD_OUT),
    )


_Pair = tuple[str, str, str]  # construction, acceptable sentence, unacceptable sentence


def _pairs(name: str, words: Lexicon, rng: random.Random, count: int, used: set[str]) -> list[_Pair]:
    """Make `count` pairs of a construction, none with a sentence of `used`, to which theirs are added."""
    pairs: list[_Pair] = []
    for _ in range(50 * count):
        right, wrong = map(_finished, _MAKERS[name](_Draw(words, rng, len(pairs))))
        if used.isdisjoint((right, wrong)):
            used.update((right, wrong))
            pairs.append((name, right, wrong))
        if len(pairs) == count:
            return pairs
    shortage = f"{name} should yield {count} new pairs and yields {len(pairs)}"
    raise BertwrightError(f"pairs_per_construction is too large: {shortage}; choose a smaller number")


def _finished(text: str) -> str:
    return text[0].upper() + text[1:] + ("" if text.endswith("?") else ".")


def write_tsv(sentences: Iterable[Sentence], path: str | Path) -> None:
    """Write one sentence a line under the header ``construction<TAB>label<TAB>sentence``, UTF-8, lines ending in LF.

    The label is ``acceptable`` or ``unacceptable``. Raises BertwrightError when `path` cannot be written.
    """
    rows = (f"{s.construction}\t{'acceptable' if s.acceptable else 'unacceptable'}\t{s.text}\n" for s in sentences)
    content = "construction\tlabel\tsentence\n" + "".join(rows)
    try:
        Path(path).write_bytes(content.encode())
    except OSError as error:
        raise BertwrightError(f"{path}: cannot write it ({error.strerror}); name another file") from error
