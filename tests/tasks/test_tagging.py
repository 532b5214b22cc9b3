"""Tagging: labels of any scheme, loss and logits as transformers has them, entities with their places, whole runs."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from seqeval.metrics import f1_score
from transformers import AutoModelForTokenClassification, AutoTokenizer

import bertwright
from bertwright import BertwrightError, BertwrightWarning, Predictor, finetune
from bertwright.arrays import softmax
from bertwright.data.inputs import Inputs
from bertwright.data.tagged import TaggedExample
from bertwright.data.tags import PLAIN as NO_SCHEME
from bertwright.data.word_windows import encode_words
from bertwright.tasks import task_of
from bertwright.tasks.tagging import Tagging
from bertwright.tokenizer import Tokenizer
from bertwright.training.recipe import Recipe
from command_line import run
from tiny_model import BAD, GOOD, PLAIN, QUICK, write_jsonl

LABELS = ("O", "B-BAD", "I-BAD", "B-GOOD", "I-GOOD")
NER = Tagging(LABELS, "IOB2")
POS = Tagging(("ADJ", "NOUN"), NO_SCHEME)
QUIET = Console(quiet=True)
SETTINGS: dict[str, Any] = QUICK | {"task": "tagging", "max_length": 16, "epochs": 5}


def sentence(words: str, tags: str | None = None, where: str = "a:1") -> TaggedExample:
    return TaggedExample.of_words(words.split(), where, None if tags is None else tags.split())


def made(count: int, seed: int = 0) -> list[tuple[list[str], list[str]]]:
    """Sentences with runs of good and of bad words, tagged as IOB1; some are longer than a sequence of 16."""
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        words: list[str] = []
        tags: list[str] = []
        kind = ""
        for _ in range(draw.randint(1, 12)):
            # Where two spans of one type touched, nothing could tell where the second begins.
            kind = draw.choice([other for other in ("", "GOOD", "BAD") if other != kind or not kind])
            size = draw.randint(1, 3)
            words += draw.choices({"": PLAIN, "GOOD": GOOD, "BAD": BAD}[kind], k=size)
            tags += ["I-" + kind if kind else "O"] * size
        found.append((words, tags))
    return found


def write_conll(path: Path, sentences: Sequence[tuple[list[str], list[str]]]) -> Path:
    blocks = ["".join(f"{word} x {tag}\n" for word, tag in zip(*one, strict=True)) for one in sentences]
    path.write_text("-DOCSTART- x O\n\n" + "\n".join(blocks))
    return path


@pytest.fixture(scope="module")
def tagger(tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a tagger of made sentences; tests only read it."""
    folder = tmp_path_factory.mktemp("tagger")
    train, test = write_conll(folder / "train.conll", made(150)), write_conll(folder / "test.conll", made(30, 1))
    finetune(SETTINGS, model=tiny_dir, train=train, test=test, out=folder / "model", console=QUIET)
    return folder / "model"


@pytest.fixture(scope="module")
def model(tagger: Path) -> Predictor:
    return bertwright.load(tagger, device="cpu", precision="float32")


# --------------------------------------------------------------------------------------------------- labels and schemes


@pytest.mark.parametrize(
    ("tags", "classes", "scheme"),
    [
        ("I-B I-B O I-A", "O B-A I-A B-B I-B", "IOB2"),
        ("B-B E-B O S-A", "O B-A I-A B-B I-B", "IOB2"),
        ("B-B M-B E-B S-A", "O B-A I-A B-B I-B", "IOB2"),
        ("B M E S", "O B-_ I-_", "IOB2"),
        ("DT NN NN VB", "DT NN VB", NO_SCHEME),
        ("B-A NN O VB", "B-A NN O VB", NO_SCHEME),
        ("S E NN I", "E I NN S", NO_SCHEME),
    ],
)
def test_labels_are_learned_from_tags_of_any_scheme(tags: str, classes: str, scheme: str) -> None:
    learned = Tagging.learn([sentence("a b c d", tags)], Recipe())
    assert (learned.classes, learned.scheme) == (tuple(classes.split()), scheme)


def test_tags_are_taken_as_they_stand_where_that_is_asked_for() -> None:
    rows = [sentence("a b c", "B-A I-A O")]
    learned = Tagging.learn(rows, Recipe(scheme="plain"))
    assert (learned.classes, learned.scheme) == (("B-A", "I-A", "O"), NO_SCHEME)
    assert Tagging.from_config(learned.to_config(), "c") == learned
    assert Tagging.learn(rows, Recipe(scheme="spans")).classes == ("O", "B-A", "I-A")


def test_tags_that_may_be_meant_to_mark_spans_are_told() -> None:
    rows = [sentence("a b c", "B_PER I_PER O"), sentence("d", "B_LOC")]
    with pytest.warns(BertwrightWarning, match=r"^a:1: tags such as 'B_PER' are taken as they stand, word by word; if"):
        assert Tagging.learn(rows, Recipe()).scheme == NO_SCHEME
    assert Tagging.learn(rows, Recipe(scheme="plain")).classes == ("B_LOC", "B_PER", "I_PER", "O")


def test_a_slip_among_tags_of_spans_is_named() -> None:
    rows = [sentence("a " * 20, "O " * 18 + "B-A I-A"), sentence("a Bonn", "O ILOC", "f:23")]
    message = (
        r"^f:23, word 2 \('Bonn'\): the tag 'ILOC' is neither O nor a letter .*take tags as they stand with --scheme pl"
    )
    with pytest.raises(BertwrightError, match=message):
        Tagging.learn(rows, Recipe())
    with pytest.raises(BertwrightError, match=message):
        Tagging.learn(rows[1:], Recipe(scheme="spans"))
    assert Tagging.learn(rows, Recipe(scheme="plain")).classes == ("B-A", "I-A", "ILOC", "O")


@pytest.mark.parametrize(("where", "hint"), [("f.tsv:1", True), ("f.tsv:2", False), ("f.jsonl:1", False)])
def test_a_slip_in_the_first_line_may_be_a_header(where: str, hint: bool) -> None:
    rows = [sentence("Wort " + "a " * 20, "NE-Tag " + "O " * 18 + "B-A I-A", where)]
    with pytest.raises(BertwrightError) as caught:
        Tagging.learn(rows, Recipe())
    assert str(caught.value).startswith(f"{where}, word 1 ('Wort'): the tag 'NE-Tag' is neither O nor a letter")
    assert (
        str(caught.value).endswith("; if line 1 is a header, --tag-column NE-Tag, without --columns, takes it as one")
        == hint
    )


def test_one_tag_alone_is_refused() -> None:
    with pytest.raises(BertwrightError, match=r"^a:1: all 2 words of the training rows have the tag 'O'; a tagger needs"):
        Tagging.learn([sentence("a b", "O O")], Recipe())


@pytest.mark.parametrize("tags", ["I-GOOD B-GOOD I-BAD O", "B-GOOD B-GOOD B-BAD O", "S-GOOD S-GOOD U-BAD O"])
def test_targets_are_the_same_whatever_the_scheme(tags: str) -> None:
    rows = [sentence("a b c d", tags), sentence("e", "I-GOOD")]
    assert NER.targets(rows).tolist() == [3, 3, 1, 0, 3]
    assert NER.truth(rows[0]) == {"true": ["B-GOOD", "B-GOOD", "B-BAD", "O"]}


def test_spans_that_touch_are_two_whatever_the_labels_of_the_model_can_tell() -> None:
    theirs = Tagging(("O", "I-LOC", "I-PER"), "IO")
    inputs = encoded([sentence("the cat is", "B-PER B-PER O"), sentence("a", "S-LOC")])
    logits = np.eye(3)[theirs.targets(inputs.examples)]
    found = theirs.measure(logits, inputs, "f1")
    assert found["spans"] == {"true": 3, "predicted": 2, "right": 1}
    assert found["accuracy"] == 1
    wanted = [["B-PER", "B-PER", "O"], ["B-LOC"]]
    assert found["f1"] == pytest.approx(f1_score(wanted, [["B-PER", "I-PER", "O"], ["B-LOC"]]))


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        ("O B-X I-X E-X S-X", "B-X I-X E-X O S-X"),
        ("B-X M-X E-X S-X O", "B-X M-X E-X O S-X"),
        ("I-X O", "I-X I-X I-X O I-X"),
        ("O B-X I-X", "B-X I-X I-X O B-X"),
    ],
)
def test_data_are_written_in_the_scheme_of_a_model_from_elsewhere(classes: str, expected: str) -> None:
    config = {"id2label": {str(i): label for i, label in enumerate(classes.split())}}
    task = Tagging.from_config(config, "c")
    assert task.truth(sentence("a b c d e", "I-X I-X I-X O I-X"))["true"] == expected.split()


@pytest.mark.parametrize(("tag", "label"), [("B-NEW", "B-NEW"), ("S-NEW", "B-NEW"), ("NN", "NN")])
def test_tags_of_something_else_are_refused(tag: str, label: str) -> None:
    rows = [sentence("a", "O"), sentence("a Bonn " * 20, f"O {tag} " * 20, "f:7")]
    with pytest.raises(BertwrightError) as caught:
        NER.check(rows, Recipe(), labelled=True)
    assert str(caught.value) == (
        f"f:7, word 2 ('Bonn'): the label '{label}' does not occur in the training rows "
        "(known: O, B-BAD, I-BAD, B-GOOD, I-GOOD)"
    )
    with pytest.raises(BertwrightError, match=rf"word 1 \('Bonn'\): the label '{tag}'"):
        POS.check([sentence("Bonn " * 20, f"{tag} " * 20)], Recipe(), labelled=True)
    NER.check(rows, Recipe(), labelled=False)
    with pytest.raises(BertwrightError, match="the label 'NN' does not occur"):  # no span, where others are
        NER.check([sentence("a b", "B-GOOD NN")], Recipe(), labelled=True)


def test_few_words_of_an_unknown_type_are_measured() -> None:
    rows = [sentence("a Bonn", "O B-NEW", "f:7")]
    with pytest.warns(
        BertwrightWarning, match=r"^f:7, word 2 \('Bonn'\): the model has no label 'B-NEW'; 1 of 2 words have"
    ):
        NER.check(rows, Recipe(), labelled=True)


def test_a_label_that_a_model_from_elsewhere_lacks_is_named_as_the_model_would_have_it() -> None:
    labels = ["O", "B-PER", "I-PER", "E-PER", "S-PER", "B-ORG", "E-ORG"]
    theirs = Tagging.from_config({"id2label": {str(i): label for i, label in enumerate(labels)}}, "c")
    rows = [sentence("a b c d", "B-ORG O B-PER I-PER", "f:1")]
    with pytest.warns(BertwrightWarning, match=r"^f:1, word 1 \('a'\): the model has no label 'S-ORG'; 1 of 4 words"):
        theirs.check(rows, Recipe(), labelled=True)
    found = theirs.measure(np.eye(7)[[0, 0, 1, 3]], encoded(rows), "f1")
    assert found["spans"] == {"true": 2, "predicted": 1, "right": 1}


def test_a_type_that_training_did_not_have_is_missed_as_seqeval_has_it() -> None:
    tags = ["B-GOOD I-GOOD O B-NEW", "B-NEW O B-BAD", "B-OLD I-OLD O"]
    rows = [sentence("a b c d", tags[0], "f:1"), sentence("e f g", tags[1], "f:6"), sentence("h i j", tags[2], "f:10")]
    told = (
        r"^f:1, word 4 \('d'\): the model has no label 'B-NEW'; 4 of 10 words have such "
        r"\(B-NEW, B-OLD, I-OLD\); they count as wrong, and the loss leaves them out$"
    )
    with pytest.warns(BertwrightWarning, match=told):
        NER.check(rows, Recipe(), labelled=True)
    inputs = encoded(rows)
    guesses = [line.replace("NEW", "BAD").replace("OLD", "GOOD").split() for line in tags]
    logits = np.random.default_rng(0).normal(size=(10, 5))
    logits[np.arange(10), [NER.classes.index(tag) for line in guesses for tag in line]] += 9
    found = NER.measure(logits, inputs, "f1")
    wanted = [line.split() for line in tags]
    assert found["f1"] == pytest.approx(f1_score(wanted, guesses))
    assert found["accuracy"] == pytest.approx(0.6)
    assert found["spans"] == {"true": 5, "predicted": 5, "right": 2}
    assert found["per_class"]["NEW"] == {"precision": 0, "recall": 0, "f1": 0, "support": 2}
    assert [NER.truth(row)["true"] for row in rows] == [[*wanted[0]], ["B-NEW", "O", "B-BAD"], wanted[2]]
    known = [0, 1, 2, 5, 6, 9]
    targets = torch.tensor([NER.classes.index(tag) for line in wanted for tag in line if tag in NER.classes])
    for weights in (np.ones(5), np.array([0.3, 1, 2, 1, 0.7])):
        expected = torch.nn.functional.cross_entropy(torch.tensor(logits[known]), targets, torch.tensor(weights)).item()
        assert NER.loss(inputs, weights).mean(logits) == pytest.approx(expected)


def test_a_part_of_speech_that_training_did_not_have_counts_as_wrong() -> None:
    rows = [sentence("a Bonn", "ADJ NN")]
    with pytest.warns(BertwrightWarning, match=r"the model has no label 'NN'; 1 of 2 words have such \(NN\)"):
        POS.check(rows, Recipe(), labelled=True)
    logits = np.zeros((2, len(POS.classes)))
    logits[:, POS.classes.index("ADJ")] = 1
    found = POS.measure(logits, encoded(rows), "accuracy")
    assert found["accuracy"] == 0.5
    assert found["per_class"]["NN"]["support"] == 1
    assert POS.truth(rows[0]) == {"true": ["ADJ", "NN"]}


def test_tags_that_break_their_scheme_are_counted() -> None:
    rows = [sentence("a b c d e f", "B-GOOD I-GOOD O B-BAD B-BAD O", "f:1"), sentence("g", "I-BAD", "f:8")]
    with pytest.warns(
        BertwrightWarning, match=r"^f: the tags are IOB2, but 1 of 7 are not what IOB2 has there; they are rea"
    ):
        NER.check(rows, Recipe(), labelled=True)


def test_the_task_is_in_the_config_and_found_by_its_architecture() -> None:
    config = NER.to_config()
    assert Tagging.from_config(config, "c") == NER
    assert task_of(config, "c") == "tagging"
    assert task_of({"architectures": ["BertForTokenClassification"]}, "c") == "tagging"
    with pytest.raises(
        BertwrightError, match=r"^c: tag_scheme is 'IOB9', which these labels are not written in; leave it o"
    ):
        Tagging.from_config(config | {"tag_scheme": "IOB9"}, "c")
    with pytest.raises(BertwrightError, match=r"^c: tag_scheme is 'IOB2'"):
        Tagging.from_config(POS.to_config() | {"tag_scheme": "IOB2"}, "c")


# ------------------------------------------------------------------------------------------------------ loss and scores


def encoded(rows: list[TaggedExample], max_length: int = 12) -> Inputs:
    words = dict.fromkeys(word for one in rows for word in one.words)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    return encode_words(Tokenizer.from_vocab(vocabulary), rows, max_length)


def labelled_rows(count: int, seed: int = 3) -> list[TaggedExample]:
    return [TaggedExample.of_words(words, "a:1", tags) for words, tags in made(count, seed)]


def test_the_loss_is_the_mean_over_words_whatever_the_windows_and_batches() -> None:
    rows = labelled_rows(12)
    inputs = encoded(rows)
    assert len(inputs.table) > len(rows)
    logits = np.random.default_rng(0).normal(size=(int(inputs.table.read_starts[-1]), 5))
    weights = np.array([0.2, 1, 2, 3, 0.5])
    targets = NER.targets(rows)
    expected = torch.nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(targets), torch.tensor(weights))
    loss = NER.loss(inputs, weights)
    assert loss.mean(logits) == pytest.approx(float(expected))
    units = np.random.default_rng(1).permutation(len(inputs.table))
    parts = [units[:5], units[5:]]
    sums = [float(loss.sum(torch.from_numpy(logits[inputs.table.outputs(part)]), part)) for part in parts]
    assert sum(sums) / loss.weight_U.sum() == pytest.approx(float(expected))


def test_class_weights_go_by_tag_and_by_how_often_it_occurs() -> None:
    inputs = encoded([sentence("a b c d", "O O O I-BAD")])
    assert NER.class_weights("I-BAD=2", inputs).tolist() == [1, 1, 2, 1, 1]
    np.testing.assert_allclose(NER.class_weights("balanced", inputs), [4 / (2 * 3), 4 / 2, 1, 1, 1])


def test_scores_are_seqevals_through_windows() -> None:
    rows = labelled_rows(20)
    inputs = encoded(rows)
    logits = np.random.default_rng(0).normal(size=(int(inputs.table.read_starts[-1]), 5))
    logits[np.arange(len(logits)), NER.targets(rows)] += 2
    answers = NER.decode(logits, inputs)
    true, predicted = [NER.truth(row)["true"] for row in rows], [answer["predicted"] for answer in answers]
    found = NER.measure(logits, inputs, "f1")
    assert found["f1"] == pytest.approx(f1_score(true, predicted)) == NER.scores(logits, inputs)["f1"]
    assert 0.2 < found["f1"] < 0.9
    assert list(NER.scores(logits, inputs)) == list(NER.metrics) == ["f1", "precision", "recall", "accuracy"]
    assert list(POS.metrics) == ["accuracy", "f1_macro"]


def test_training_rows_are_described() -> None:
    rows = [sentence("a b c d", "I-BAD B-BAD O I-GOOD"), sentence(" ".join("abcdefghijkl"), "O " * 12)]
    assert NER.describe(encoded(rows)) == (
        "tags: IOB1, learned as IOB2; 3 spans: BAD (2), GOOD (1); long sentences: 1, read in 2 overlapping windows"
    )
    zero = encode_words(Tokenizer.from_vocab(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"]), [sentence("a \ufffd")], 9)
    pos = Inputs([sentence("a \ufffd", "NOUN ADJ")], zero.table, zero.starts, zero.cut, zero.details)
    assert POS.describe(pos) == "tags: ADJ (1), NOUN (1); words without a piece, read as [UNK]: 1"


def test_sentences_are_set_aside_whatever_their_tags() -> None:
    rows = [sentence("a b", "O I-X" if n < 20 else "O O") for n in range(100)]
    inside, aside, how = Tagging.split(rows, 0.1, 7)
    assert (len(inside), len(aside), how) == (90, 10, "of the sentences")
    assert sum(place < 20 for place in aside) == 2
    assert len(Tagging.split([sentence("a", f"T{n}") for n in range(50)], 0.1, 0)[1]) == 5


# ---------------------------------------------------------------------------------------------------------- predictions


def test_entities_have_whole_words_places_text_and_score() -> None:
    text = "Angela Merkel's visit to 李开复."
    row = NER.example(text, None, "text 1")
    inputs = encoded([row, NER.example(["a"], None, "text 2")])
    tags = ["B-GOOD", "I-GOOD", "O", "O", "O", "I-BAD", "B-BAD", "I-BAD", "O"]
    logits = np.eye(5)[[LABELS.index(tag) for tag in [*tags, "O"]]] * 3
    logits[0] *= 2
    first, second = NER.decode(logits, inputs)
    p = softmax(logits).max(1)
    assert first["entities"] == [
        {"label": "GOOD", "start": 0, "end": 13, "text": "Angela Merkel", "score": pytest.approx((p[0] + p[1]) / 2)},
        {"label": "BAD", "start": 25, "end": 26, "text": "李", "score": pytest.approx(p[5])},
        {"label": "BAD", "start": 26, "end": 28, "text": "开复", "score": pytest.approx(p[6])},
    ]
    assert first["tokens"] == ["Angela", "Merkel", "'s", "visit", "to", "李", "开", "复", "."]
    assert [text[begin:end] for begin, end in first["offsets"]] == first["tokens"]
    assert first["predicted"] == tags
    assert second == {"entities": [], "tokens": ["a"], "offsets": [[0, 1]], "predicted": ["O"], "probability": [p[9]]}
    records = [NER.record(row) | first, {"text": "", "predicted": None, "skipped": "empty"}, {"text": "a"} | second]
    table = list(NER.table(records))
    assert table[0] == ["row", "text", "label", "start", "end", "entity", "score", "skipped", "cut"]
    assert [line[:6] for line in table[1:]] == [
        [1, text, "GOOD", 0, 13, "Angela Merkel"],
        [1, text, "BAD", 25, 26, "李"],
        [1, text, "BAD", 26, 28, "开复"],
        [2, "", None, None, None, None],
        [3, "a", None, None, None, None],
    ]
    assert table[4][-2:] == ["empty", None]
    assert list(NER.table([{"text": "a", "cut": 3} | second]))[1][-2:] == [None, 3]


def test_plain_tags_have_a_row_for_each_word() -> None:
    (answer,) = POS.decode(np.array([[2.0, 0.0], [0.0, 0.0]]), encoded([sentence("new car")]))
    assert answer["predicted"] == ["ADJ", "ADJ"]
    assert "entities" not in answer
    assert [line[:6] for line in POS.table([{"text": "new car"} | answer])] == [
        ["row", "text", "tag", "start", "end", "word"],
        [1, "new car", "ADJ", 0, 3, "new"],
        [1, "new car", "ADJ", 4, 7, "car"],
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1] see", ["[", "1", "]", "see"]),
        ('["a b", "c"]', ["a b", "c"]),
        ('["a", 1]', ["[", '"', "a", '"', ",", "1", "]"]),
        ('["\\ud800"]', ["[", '"', "\\", "ud800", '"', "]"]),
        ("[]", []),
        (["x", "y"], ["x", "y"]),
        (("x",), ["x"]),
    ],
)
def test_a_text_or_a_list_of_words_is_taken(text: Any, words: list[str]) -> None:
    assert Tagging.example(text, None, "text 1").words == words


@pytest.mark.parametrize(
    ("text", "second", "message"),
    [
        (3, None, "text 1 is 3, of type int, not a string or a list of words"),
        (["a", 3], None, "text 1: word 2 is 3, not a string with a character in it"),
        (["a", ""], None, "text 1: word 2 is '', not a string with a character in it"),
        ('["a", ""]', None, "text 1: word 2 is '', not a string with a character in it"),
        ("a", "b", "text 1 has 'b' beside it; words are tagged in single texts"),
    ],
)
def test_nothing_else_is_taken(text: Any, second: Any, message: str) -> None:
    with pytest.raises(BertwrightError) as caught:
        Tagging.example(text, second, "text 1")
    assert str(caught.value) == message


# ------------------------------------------------------------------------------------------------- to and from transformers


def theirs(directory: Path, rows: list[TaggedExample]) -> tuple[list[np.ndarray[Any, Any]], float]:
    """The logits of transformers at the first piece of each word, and its loss with -100 on all others."""
    model = AutoModelForTokenClassification.from_pretrained(directory).eval()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    batch = tokenizer([row.words for row in rows], is_split_into_words=True, return_tensors="pt", padding=True)
    labels = torch.full(batch["input_ids"].shape, -100)
    places = []
    for number, row in enumerate(rows):
        words = batch.word_ids(number)
        places.append([words.index(word) for word in range(len(row.words))])
        for place, tag in zip(places[-1], row.tags or (), strict=True):
            labels[number, place] = model.config.label2id[tag]
    with torch.no_grad():
        found = model(**batch, labels=labels)
    return [found.logits[n, p].double().numpy() for n, p in enumerate(places)], float(found.loss)


ROWS = [
    sentence("the very unknown day was great-ish .", "O O B-GOOD I-GOOD O B-BAD O"),
    sentence("cat [SEP] wörd", "B-BAD O B-BAD"),
    sentence("day", "O"),
]


def assert_agree(directory: Path) -> None:
    ours = bertwright.load(directory, device="cpu", precision="float32")
    inputs = ours.task.encode(ours.tokenizer, ROWS, Recipe(max_length=48))
    logits, loss = theirs(directory, ROWS)
    found = ours.outputs(inputs)
    np.testing.assert_allclose(found, np.concatenate(logits), atol=1e-5, rtol=0)
    assert ours.task.loss(inputs, np.ones(len(ours.labels))).mean(found) == pytest.approx(loss, abs=1e-5)


def test_what_is_written_opens_in_transformers_with_the_same_logits_and_loss(tagger: Path) -> None:
    assert_agree(tagger)
    model, info = AutoModelForTokenClassification.from_pretrained(tagger, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert model.config.id2label == dict(enumerate(LABELS))


def test_what_transformers_wrote_opens_with_the_same_logits_and_loss(tiny_dir: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    names = {"id2label": dict(enumerate(LABELS)), "label2id": {label: i for i, label in enumerate(LABELS)}}
    made = AutoModelForTokenClassification.from_pretrained(tiny_dir, num_labels=5, **names)
    with torch.no_grad():
        made.classifier.weight.normal_()
        made.classifier.bias.normal_()
    made.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_dir).save_pretrained(tmp_path)
    assert_agree(tmp_path)
    opened = bertwright.load(tmp_path)
    assert opened.task == NER
    (answer,) = opened.predict([["a", "day"]])
    assert len(answer["predicted"]) == 2


# ----------------------------------------------------------------------------------------------------------- whole runs


def test_spans_are_learned_and_judged(tagger: Path, model: Predictor) -> None:
    metrics = json.loads((tagger / "metrics.json").read_text())
    assert metrics["chosen_by"] == "validation f1"
    assert metrics["test"]["f1"] > 0.8
    assert metrics["test"]["headline"]["metric"] == "f1"
    assert set(metrics["test"]["per_class"]) == {"BAD", "GOOD"}
    assert (tagger / "test" / "types.png").exists()
    records = [json.loads(line) for line in (tagger / "test" / "predictions.jsonl").read_text().splitlines()]
    assert len(records) == metrics["test"]["examples"] == 30
    assert metrics["test"]["f1"] == pytest.approx(f1_score([r["true"] for r in records], [r["predicted"] for r in records]))
    assert max(len(record["tokens"]) for record in records) > 14  # in windows
    (answer,) = model.predict("The film was good and very cold")
    assert [(one["text"], one["label"]) for one in answer["entities"]] == [("good", "GOOD"), ("cold", "BAD")]


def test_evaluating_is_the_same_from_python_and_from_the_command_line(
    tagger: Path, model: Predictor, tmp_path: Path
) -> None:
    test = tagger.parent / "test.conll"
    found = model.evaluate(test)
    result = run("evaluate", tagger, test, "--out", tmp_path / "e", "--device", "cpu", "--precision", "float32")
    assert result.code == 0, result.err
    assert json.loads((tmp_path / "e" / "metrics.json").read_text()) == found.metrics
    assert "F1 of spans" in result.out
    other = tmp_path / "other.csv"
    other.write_text("\n\n".join("\n".join(f"{t},{w}" for w, t in zip(*one, strict=True)) for one in made(30, 1)))
    how: dict[str, Any] = {"delimiter": ",", "token_column": "2", "tag_column": "1"}
    assert model.evaluate(other, **how).metrics == found.metrics
    flags = [part for name, value in how.items() for part in (f"--{name.replace('_', '-')}", value)]
    assert run("evaluate", tagger, other, *flags, "--out", tmp_path / "o", "--metric", "recall").code == 0
    assert json.loads((tmp_path / "o" / "metrics.json").read_text())["headline"]["metric"] == "recall"
    wrong = run("evaluate", tagger, test, "--out", tmp_path / "w", "--metric", "f1_macro")
    assert wrong.error == "--metric is 'f1_macro' (known: f1, precision, recall, accuracy, loss)"


def test_predicting_is_the_same_from_every_face(tagger: Path, model: Predictor, tmp_path: Path) -> None:
    texts = ["The film was good.", '["so", "bad"]', ""]
    expected = [json.loads(json.dumps(record)) for record in model.predict(texts)]
    assert expected[1]["text"] == "so bad"
    assert expected[2] == {"text": "", "predicted": None, "skipped": "empty"}
    flags = ("--device", "cpu", "--precision", "float32")

    def records(result: Any) -> list[Any]:
        assert result.code == 0, result.err
        return [json.loads(line) for line in result.out.splitlines()]

    assert records(run("predict", tagger, *texts, *flags)) == expected
    streamed = records(run("predict", tagger, "-", *flags, stdin="\n".join(texts).encode() + b"\n\n\xff\n"))
    assert streamed[:3] == expected
    assert streamed[4] == {"text": None, "predicted": None, "skipped": "not UTF-8", "where": "standard input:5"}
    file = write_jsonl(tmp_path / "in.jsonl", [{"text": texts[0]}, {"tokens": ["so", "bad"]}, {"text": ""}])
    assert records(run("predict", tagger, "--input", file, *flags)) == expected
    table = run("predict", tagger, *texts, "--format", "csv", *flags)
    rows = list(csv.DictReader(io.StringIO(table.out)))
    assert [(row["row"], row["label"], row["entity"]) for row in rows] == [
        ("1", "GOOD", "good"), ("2", "BAD", "bad"), ("3", "", "")
    ]  # fmt: skip
    columns = tmp_path / "in.conll"
    columns.write_text("so\nbad7\n")
    dropped = records(
        run("predict", tagger, "--input", columns, "--drop-from-token", "[0-9]$", "--token-column", "1", *flags)
    )
    assert dropped == [expected[1]]


@pytest.mark.usefixtures("plotless")
def test_plain_tags_are_learned_from_the_command_line(tiny_dir: Path, tmp_path: Path) -> None:
    kinds = dict.fromkeys(PLAIN, "X") | dict.fromkeys(GOOD, "ADJ+") | dict.fromkeys(BAD, "ADJ-")
    rows = [{"tokens": words, "tags": [kinds[word] for word in words]} for words, _ in made(50)]
    train = write_jsonl(tmp_path / "train.jsonl", rows)
    options = {
        "train": train,
        "model": tiny_dir,
        "max_length": 16,
        "epochs": 6,
        "learning_rate": 1e-2,
        "batch_size": 8,
        "threads": 1,
    }
    flags = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    result = run("finetune", "--task", "tagging", *flags, "--out", tmp_path / "model")
    assert result.code == 0, result.err
    assert "45 training rows; 5 set aside for validation (10% of the sentences, seed 2018)" in " ".join(result.err.split())
    metrics = json.loads((tmp_path / "model" / "metrics.json").read_text())
    assert metrics["validation"]["accuracy"] > 0.9
    assert metrics["chosen_by"] == "validation accuracy"
    again = finetune({"task": "tagging"}, **options, out=tmp_path / "again", console=QUIET)
    assert again.metrics["validation"] == metrics["validation"]
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (tmp_path / "model" / "model.safetensors").read_bytes()
    (answer,) = again.model.predict([["the", "good", "day"]])
    assert answer["predicted"] == ["X", "ADJ+", "X"]
    wrong = run("finetune", "--task", "tagging", *flags, "--metric", "f1", "--out", tmp_path / "no")
    assert wrong.error.startswith("--metric is 'f1'")


@pytest.mark.usefixtures("plotless")
def test_a_csv_export_with_a_header_and_quotes_is_learned_and_predicted(tiny_dir: Path, tmp_path: Path) -> None:
    kinds = dict.fromkeys(PLAIN, "X") | dict.fromkeys(GOOD, "ADJ+") | dict.fromkeys(BAD, "ADJ-") | {",": "P", '"': "P"}
    train, text = tmp_path / "train.csv", io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["word", "pos"])
    for words, _ in made(50):
        writer.writerows((word, kinds[word]) for word in ['"', *words, ","])
        writer.writerow(["", ""])
    train.write_text(text.getvalue())
    flags = [
        "--task",
        "tagging",
        "--train",
        train,
        "--model",
        tiny_dir,
        "--max-length",
        "16",
        "--epochs",
        "1",
        "--threads",
        "1",
    ]
    flags += ["--delimiter", "comma"]
    refused = run("finetune", *flags, "--out", tmp_path / "none")
    assert refused.error == (
        f"{train}:1: 'word', 'pos' look like a header; name the columns with --token-column word --tag-column pos (the line "
        "is then taken as the header), or delete the line; if it is a word, put an empty line before it"
    )
    flags += ["--token-column", "word", "--tag-column", "pos"]
    result = run("finetune", *flags, "--out", tmp_path / "model")
    assert result.code == 0, result.err
    assert "has no effect" not in result.err
    assert set(bertwright.load(tmp_path / "model", device="cpu").labels) == {"X", "ADJ+", "ADJ-", "P"}
    (tmp_path / "in.csv").write_text('word\nthe\n","\n""""\n')
    answer = run("predict", tmp_path / "model", "--input", tmp_path / "in.csv", "--device", "cpu")
    assert json.loads(answer.out)["tokens"] == ["the", ",", '"']
    literal = run("finetune", *flags, "--quoting", "literal", "--out", tmp_path / "literal")
    assert literal.error.startswith(f"{train}:")
    assert literal.error.endswith("see --delimiter; quotes are taken literally here, see --quoting")


@pytest.mark.usefixtures("plotless")
@pytest.mark.parametrize("how", [{"freeze": "encoder", "head_layers": 1}, {"freeze": "first:1", "seeds": 2}])
def test_parts_can_be_frozen_and_have_own_layers(tiny_dir: Path, tmp_path: Path, how: dict[str, Any]) -> None:
    train = write_conll(tmp_path / "train.conll", made(60))
    done = finetune(SETTINGS | how, model=tiny_dir, train=train, out=tmp_path / "m", epochs=2, console=QUIET)
    assert done.metrics["validation"]["accuracy"] > done.metrics["validation"]["majority_accuracy"]
    assert bertwright.load(tmp_path / "m").evaluate(train).metrics["examples"] == 60


@pytest.mark.shared_data
@pytest.mark.usefixtures("plotless")
def test_weibo_runs_from_random_weights(shared: Path, tmp_path: Path) -> None:
    folder = shared / "zh" / "ner_weibo"
    done = finetune(
        task="tagging", train=folder / "weiboNER_2nd_conll.dev", config="tiny", threads=1, steps=1,
        tokenizer=shared / "vocab" / "bert-base-chinese" / "vocab.txt", drop_from_token="(?<=.)[0-9]+$",
        out=tmp_path / "m", console=QUIET,
    )  # fmt: skip
    assert len(done.model.labels) == 17
    assert done.metrics["validation"]["examples"] == 27
    (answer,) = done.model.predict("我在北京。")
    assert answer["tokens"] == ["我", "在", "北", "京", "。"]


def test_sentences_without_tags_are_not_measured(model: Predictor) -> None:
    with pytest.raises(BertwrightError, match="text 1: there are no tags to measure by; give each word its own"):
        model.evaluate(model.examples(["ab cd"]))


def test_a_list_with_an_empty_word_does_not_end_a_stream(model: Predictor) -> None:
    lines = b'["Anna", "Berlin"]\n["Anna", ""]\nBerlin\n'
    records = list(model.predict_rows(model.read_stream(io.BytesIO(lines), "stream")))
    assert [record["predicted"] is None for record in records] == [False, True, False]
    assert "word 2 is ''" in records[1]["skipped"]


@pytest.mark.parametrize("damage", [{"tag_scheme": ["IOB2"]}, {"tag_scheme": 3}])
def test_a_scheme_that_is_no_name_is_one_line(damage: dict[str, Any]) -> None:
    config = {"id2label": {"0": "O", "1": "B-X", "2": "I-X"}} | damage
    with pytest.raises(BertwrightError, match=r"c\.json: tag_scheme is .*, not the name of a scheme; leave it out"):
        Tagging.from_config(config, "c.json")
