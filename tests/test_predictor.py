"""Trained models that answer: as transformers does, in order, in bounded memory, with a record for every row."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertForMaskedLM,
    BertForNextSentencePrediction,
    BertForPreTraining,
    BertForSequenceClassification,
)

import bertwright
from bertwright import BertwrightError, BertwrightWarning, Predictor, finetune
from bertwright.data.examples import Example, Unreadable
from tiny_model import BAD, GOOD, PLAIN, QUICK, rows, write_jsonl, write_tsv

TEXTS = ["a good film", "the very bad and cruel book was cold", "", "unknown wörds [SEP] x", "day", "cat " * 22]


@pytest.fixture(scope="module")
def model(tiny_run: Path) -> Predictor:
    return bertwright.load(tiny_run, device="cpu")


def theirs(directory: Path, texts: Sequence[str], pairs: Sequence[str] | None = None) -> np.ndarray[Any, Any]:
    """The logits of transformers: one text at a time, so that its padding plays no part."""
    model = AutoModelForSequenceClassification.from_pretrained(directory).eval()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    with torch.no_grad():
        found = [
            model(**tokenizer([text], None if pairs is None else [pairs[i]], return_tensors="pt", truncation=True)).logits[0]
            for i, text in enumerate(texts)
        ]
    return torch.stack(found).double().numpy()


def ours(directory: Path, texts: Sequence[str], pairs: Sequence[str] | None = None) -> np.ndarray[Any, Any]:
    model = bertwright.load(directory, device="cpu", precision="float32")
    examples = [Example(text, "t", pair=None if pairs is None else pairs[i]) for i, text in enumerate(texts)]
    return model.outputs(model.encode(examples))


# ------------------------------------------------------------------------------------------------- to and from transformers


@pytest.mark.parametrize("kind", [BertForNextSentencePrediction, BertForPreTraining])
def test_a_head_for_next_sentences_is_a_classifier_of_pairs(kind: Any, tiny_dir: Path, tmp_path: Path) -> None:
    torch.manual_seed(3)
    oracle = kind.from_pretrained(tiny_dir).eval()
    oracle.save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tiny_dir)
    tokenizer.save_pretrained(tmp_path)
    model = bertwright.load(tmp_path, device="cpu", precision="float32")
    assert model.labels == ("is next", "is not next")
    pairs = [("a good film", "the very bad day"), ("cat", "the cruel book was cold")]
    for first, second in pairs:
        with torch.no_grad():
            outputs = oracle(**tokenizer(first, second, return_tensors="pt"))
        wanted = (outputs.logits if kind is BertForNextSentencePrediction else outputs.seq_relationship_logits)[0]
        (answer,) = model.predict([first], [second])
        np.testing.assert_allclose(answer["logits"], wanted.numpy(), atol=1e-5, rtol=0)
        assert answer["predicted"] == model.labels[int(wanted.argmax())]
    (streamed,) = model.predict_rows(model.read_stream(io.BytesIO("\t".join(pairs[1]).encode()), "stream"))
    assert streamed["logits"] == pytest.approx(answer["logits"], abs=1e-5)
    with pytest.raises(BertwrightError, match="this model takes pairs"):
        model.predict("one text")
    (tmp_path / "pretraining.toml").write_text('objective = "mlm+sop"\n')
    assert bertwright.load(tmp_path, device="cpu").labels == ("in order", "swapped")
    (tmp_path / "pretraining.toml").write_text('objective = "mlm"\n')
    with pytest.raises(BertwrightError, match="has no classifier"):
        bertwright.load(tmp_path)


def test_a_masked_lm_is_no_classifier(tiny_dir: Path, tmp_path: Path) -> None:
    BertForMaskedLM.from_pretrained(tiny_dir).save_pretrained(tmp_path)
    with pytest.raises(BertwrightError, match="has no classifier; fine-tune it first with"):
        bertwright.load(tmp_path)


def test_what_is_written_opens_in_transformers_with_the_same_logits_and_labels(tiny_run: Path) -> None:
    np.testing.assert_allclose(ours(tiny_run, TEXTS), theirs(tiny_run, TEXTS), atol=1e-5, rtol=0)
    their_model, info = AutoModelForSequenceClassification.from_pretrained(tiny_run, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert their_model.config.id2label == {0: "0", 1: "1"}
    assert AutoTokenizer.from_pretrained(tiny_run).model_max_length == 48


def their_classifier(start: Path, directory: Path, labels: Sequence[str] = ("no", "maybe", "yes")) -> Path:
    """Save a classifier as transformers users do."""
    torch.manual_seed(0)
    config = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    made = AutoModelForSequenceClassification.from_pretrained(start, num_labels=len(labels), **config)
    with torch.no_grad():
        made.classifier.weight.normal_()
        made.classifier.bias.normal_()
    made.save_pretrained(directory)
    AutoTokenizer.from_pretrained(start).save_pretrained(directory)
    return directory


def test_what_transformers_wrote_opens_with_the_same_logits_and_labels(tiny_dir: Path, tmp_path: Path) -> None:
    directory = their_classifier(tiny_dir, tmp_path / "theirs")
    found = theirs(directory, TEXTS)
    np.testing.assert_allclose(ours(directory, TEXTS), found, atol=1e-5, rtol=0)
    answers = bertwright.load(directory).predict(["a good film"])
    assert answers[0]["predicted"] == ("no", "maybe", "yes")[found[0].argmax()]


def test_a_classifier_without_a_recipe_takes_single_texts_and_pairs(tiny_dir: Path, tmp_path: Path) -> None:
    directory = their_classifier(tiny_dir, tmp_path / "theirs")
    firsts, seconds = TEXTS[:3], ["the cat", "a kind day", "bad"]
    np.testing.assert_allclose(ours(directory, firsts, seconds), theirs(directory, firsts, seconds), atol=1e-5, rtol=0)
    model = bertwright.load(directory)
    assert len(model.predict(["a good film"], ["a cat"])) == len(model.predict(["a good film"])) == 1
    mixed = [Example("a", "row 1", pair="b"), Example("c", "row 2")]
    with pytest.raises(BertwrightError, match="row 2: this model takes pairs"):
        list(model.predict_rows(mixed))


@pytest.mark.parametrize(
    ("task", "labels", "problem"),
    [
        ("classification", ["no", "yes"], "single_label_classification"),
        ("multi-label", ["no", "yes"], "multi_label_classification"),
        ("regression", ["score"], "regression"),
    ],
)
def test_a_stream_to_a_model_without_a_recipe_is_of_pairs_if_its_first_line_is(
    task: str, labels: list[str], problem: str, tiny_dir: Path, tmp_path: Path
) -> None:
    directory = their_classifier(tiny_dir, tmp_path / "theirs", labels)
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"problem_type": problem}))
    model = bertwright.load(directory, device="cpu")
    assert model.recipe.task == task
    lines = io.BytesIO(b"\nthe film\tit is so\nno tab\nthe cat\tbad\n")
    with pytest.warns(BertwrightWarning, match="stream:2: holds a tab, so each line is read as a pair") as told:
        records = list(model.predict_rows(model.read_stream(lines, "stream")))
    assert len(told) == 1
    assert records[1::2] == model.predict(["the film", "the cat"], ["it is so", "bad"])
    assert [record.get("skipped") for record in records] == ["empty", None, "no tab between two texts", None]
    singles = list(model.predict_rows(model.read_stream(io.BytesIO(b"the film\nthe cat\tbad\n"), "stream")))
    assert singles == model.predict(["the film", "the cat\tbad"])


def test_a_tab_is_part_of_a_text_where_a_recipe_says_that_texts_are_single(model: Predictor) -> None:
    with pytest.warns(BertwrightWarning, match="stream:1: holds a tab, but each line is read as one text"):
        (example,) = model.read_stream(io.BytesIO(b"the film\tit is so\n"), "stream")
    assert example == Example("the film\tit is so", "stream:1")


def test_two_labels_that_transformers_left_unnamed(tiny_dir: Path, tmp_path: Path) -> None:
    BertForSequenceClassification.from_pretrained(tiny_dir).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_dir).save_pretrained(tmp_path)
    assert bertwright.load(tmp_path).labels == ("LABEL_0", "LABEL_1")


def test_minilm_goes_both_ways(minilm_dir: Path, tmp_path: Path) -> None:
    texts = ["The baker sleeps.", "The bakers sleeps, and this one is a good deal longer than the other was."]
    train = write_tsv(tmp_path / "t.tsv", rows(8))
    run = finetune(
        QUICK | {"epochs": None}, train=train, validation=train, steps=1, out=tmp_path / "run", max_length=32,
        console=Console(quiet=True),
    )  # fmt: skip
    np.testing.assert_allclose(ours(run.out, texts), theirs(run.out, texts), atol=1e-5, rtol=0)
    directory = their_classifier(minilm_dir, tmp_path / "theirs")
    np.testing.assert_allclose(ours(directory, texts), theirs(directory, texts), atol=1e-5, rtol=0)


# --------------------------------------------------------------------------------------------------------------- answers


def test_an_answer_has_the_label_its_probability_and_the_logits(model: Predictor) -> None:
    (answer,) = model.predict("the very good film")
    assert list(answer) == ["text", "predicted", "probability", "probabilities", "logits"]
    exp = np.exp(answer["logits"])
    assert list(answer["probabilities"].values()) == pytest.approx(exp / exp.sum())
    assert answer["probability"] == max(answer["probabilities"].values())
    assert answer["predicted"] == "1" == max(answer["probabilities"], key=answer["probabilities"].__getitem__)


def test_an_answer_does_not_depend_on_its_neighbours_or_their_order(model: Predictor) -> None:
    texts = [text for text, _ in rows(50, seed=9)]
    together = model.predict(texts)
    alone = [model.predict(text)[0] for text in texts]
    assert [answer["text"] for answer in together] == texts
    for one, other in zip(together, alone, strict=True):
        assert one["logits"] == pytest.approx(other["logits"], abs=1e-6)
    backwards = model.predict(texts[::-1])[::-1]
    np.testing.assert_allclose([a["logits"] for a in backwards], [a["logits"] for a in together], atol=1e-6)


def test_a_long_text_is_cut_and_says_by_how_much(model: Predictor) -> None:
    exact, longer = model.predict(["cat " * 22, "cat " * 30])  # 24 tokens with [CLS] and [SEP]
    assert "cut" not in exact
    assert longer["cut"] == 8
    assert longer["logits"] == exact["logits"]


def test_a_stream_is_read_in_bounded_chunks_and_answered_in_order(model: Predictor) -> None:
    read = 0

    def stream() -> Iterator[Example | Unreadable]:
        nonlocal read
        for number in range(10_000):
            read += 1
            where = f"s:{number + 1}"
            if number % 1000 == 1:
                yield Unreadable(where, "not UTF-8")
            elif number % 1000 == 2:
                yield Example(text=" \t ", where=where)
            else:
                yield Example(text=f"{(GOOD + BAD)[number % 10]} {PLAIN[number % 7]} {number}", where=where)

    furthest = 0
    answers = []
    for answered, answer in enumerate(model.predict_rows(stream()), start=1):
        furthest = max(furthest, read - answered)
        answers.append(answer)
    assert furthest < 2048
    assert read == len(answers) == 10_000
    for number, answer in enumerate(answers):
        if number % 1000 == 1:
            assert answer == {"text": None, "predicted": None, "skipped": "not UTF-8", "where": f"s:{number + 1}"}
        elif number % 1000 == 2:
            assert answer == {"text": " \t ", "predicted": None, "skipped": "empty"}
        else:
            assert answer["text"].split()[-1] == str(number)
            assert answer["predicted"] in ("0", "1")


def test_an_answer_comes_before_the_stream_ends(model: Predictor) -> None:
    endless = (Example(text="a good film", where="s") for _ in itertools.count())
    assert len(list(itertools.islice(model.predict_rows(endless), 3000))) == 3000


def test_nothing_to_answer(model: Predictor) -> None:
    assert model.predict([]) == []
    assert model.predict(["", "  "]) == [{"text": text, "predicted": None, "skipped": "empty"} for text in ("", "  ")]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.predict(["a"], ["b"]), "text 1: this model takes single texts, not pairs"),
        (lambda m: m.predict(["a", "b"], ["c"]), "2 texts but 1 second texts; each text needs its own"),
        (lambda m: m.predict(["a", None]), "text 2 is None, of type NoneType, not a string"),
        (lambda m: m.predict(["a"], [3]), "text 1 is 3, of type int, not a string"),
        (lambda m: m.predict(["\ud800"]), "text 1 has the lone surrogate U+D800"),
        (
            lambda m: m.evaluate("f.tsv", txt="a"),
            "no option 'txt' says how to read a file (known: text, pair, endings, label, ",
        ),
        (
            lambda m: m.evaluate([Example("a", "w", label="1")], text="a"),
            "evaluate: text says how to read a file, but rows were given",
        ),
        (lambda m: m.evaluate([Example("a", "w", label="2")]), "w: the label '2' does not occur in the training rows"),
        (lambda m: m.evaluate([Example("a", "w", label="1", pair="b")]), "w: this model takes single texts"),
    ],
)
def test_what_cannot_be_answered(model: Predictor, call: Callable[[Predictor], object], message: str) -> None:
    with pytest.raises(BertwrightError) as caught:
        call(model)
    assert str(caught.value).startswith(message)


# ------------------------------------------------------------------------------------------------------------- evaluation


def test_an_evaluation_counts_what_the_predictions_say(model: Predictor, tmp_path: Path) -> None:
    labelled = [(text, label, f"s{i % 2}") for i, (text, label) in enumerate(rows(41, seed=4))]
    file = write_tsv(tmp_path / "t.tsv", labelled, header=("words", "class", "where"))
    found = model.evaluate(file, text="words", label="class", source="where", metric="f1_macro")
    hits = [row["predicted"] == row["true"] for row in found.predictions]
    assert found.metrics["accuracy"] == pytest.approx(sum(hits) / 41)
    assert found.metrics["headline"]["metric"] == "f1_macro"
    assert [(row["text"], row["true"], row["source"]) for row in found.predictions] == labelled
    assert [row["logits"] for row in found.predictions] == [
        answer["logits"] for answer in model.predict([row[0] for row in labelled])
    ]
    assert {name: part["examples"] for name, part in found.metrics["per_source"].items()} == {"s0": 21, "s1": 20}
    again = model.evaluate([Example(text, "w", label=label, source=source) for text, label, source in labelled])
    assert again.metrics["confusion_matrix"] == found.metrics["confusion_matrix"]


def test_an_evaluation_shows_how_far_it_is(model: Predictor, tmp_path: Path) -> None:
    file = write_tsv(tmp_path / "t.tsv", rows(20))
    told: list[tuple[int, int]] = []
    model.evaluate(file, progress=lambda done, total: told.append((done, total)))
    tokens = model.encode(list(model.read(file))).table.tokens
    assert told[-1] == (tokens, tokens)


def test_an_evaluation_tells_what_was_cut(model: Predictor, tmp_path: Path) -> None:
    file = write_tsv(tmp_path / "t.tsv", [("good " * 30, "1"), ("bad", "0")])
    with pytest.warns(BertwrightWarning, match=r"t.tsv: 1 of 2 texts are longer than --max-length 24 and were cut \(8 tok"):
        model.evaluate(file)


def test_columns_of_training_are_those_of_evaluation(tiny_run: Path, tmp_path: Path) -> None:
    model = bertwright.load(tiny_run)
    model.recipe = dataclasses.replace(model.recipe, columns=("label", "text"))
    headless = write_tsv(tmp_path / "h.tsv", [(label, text) for text, label in rows(10)], header=())
    headed = write_tsv(tmp_path / "t.tsv", rows(10))
    assert model.evaluate(headless).metrics == model.evaluate(headed, columns=()).metrics


# ---------------------------------------------------------------------------------------------------------------- loading


def test_saving_gives_the_same_model_back(model: Predictor, tmp_path: Path) -> None:
    model.save(tmp_path)
    again = bertwright.load(tmp_path)
    assert again.predict(TEXTS) == model.predict(TEXTS)
    assert again.recipe == model.recipe
    assert again.directory == tmp_path


@pytest.fixture
def copied(tiny_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_run, tmp_path / "copied"))


def change_config(directory: Path, **changes: Any) -> None:
    file = directory / "config.json"
    config = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))


def drop_weights(directory: Path, *names: str) -> None:
    file = directory / "model.safetensors"
    save_file({name: value for name, value in load_file(file).items() if not name.startswith(names)}, file)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "config.json").unlink(), "config.json: No such file"),
        (lambda d: change_config(d, model_type="roberta"), "config.json: model_type is 'roberta'"),
        (lambda d: change_config(d, id2label={"0": "a", "1": "b", "2": "c"}), "trained for another number of labels"),
        (
            lambda d: drop_weights(d, "classifier."),
            "has no classifier; fine-tune it first with: bertwright finetune --model",
        ),
        (lambda d: drop_weights(d, "bert.pooler."), "the weights are incomplete (freshly initialised: pooler (2 tensors))"),
        (lambda d: (d / "recipe.toml").write_text("epoch = 3"), "recipe.toml: no option 'epoch'; did you mean 'epochs'?"),
        (lambda d: [f.unlink() for f in (d / "tokenizer.json", d / "vocab.txt")], "holds neither tokenizer.json nor vocab"),
    ],
)
def test_a_damaged_directory_is_refused(copied: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(copied)
    with pytest.raises(BertwrightError) as caught:
        bertwright.load(copied)
    assert message in str(caught.value)
    assert str(copied) in str(caught.value)


def test_an_encoder_alone_is_no_classifier(tiny_dir: Path) -> None:
    with pytest.raises(
        BertwrightError, match=f"{tiny_dir}: has no classifier; fine-tune it first with: bertwright finetune"
    ):
        bertwright.load(tiny_dir)


def test_a_vocabulary_larger_than_the_model_is_refused(copied: Path) -> None:
    (copied / "tokenizer.json").unlink()
    with (copied / "vocab.txt").open("a") as file:
        file.write("more\n")
    with pytest.raises(BertwrightError, match=r"the vocabulary has .* entries but the model only .* word embeddings"):
        bertwright.load(copied)


def test_the_longest_length_is_that_of_training_and_never_more_than_the_positions(copied: Path) -> None:
    assert bertwright.load(copied).recipe.max_length == 24
    (copied / "recipe.toml").unlink()
    assert bertwright.load(copied).recipe.max_length == 48
    assert bertwright.load(copied).predict("cat " * 100)[0]["cut"] == 54


def test_pairs_are_answered_as_pairs(tiny_dir: Path, tmp_path: Path, plotless: None) -> None:
    table = [{"a": "good film", "b": "cat", "label": 1}, {"a": "cat", "b": "bad", "label": 0}] * 10
    train = write_jsonl(tmp_path / "p.jsonl", table)
    options = {"model": tiny_dir, "train": train, "text": "a", "pair": "b", "out": tmp_path / "run"}
    run = finetune(QUICK, console=Console(quiet=True), **options)
    firsts, seconds = ["a good film", "", "x"], ["the cat", "only second", ""]
    np.testing.assert_allclose(ours(run.out, firsts, seconds), theirs(run.out, firsts, seconds), atol=1e-5, rtol=0)
    assert [answer["pair"] for answer in run.model.predict(firsts, seconds)] == seconds
    assert run.model.predict([""], [""]) == [{"text": "", "pair": "", "predicted": None, "skipped": "empty"}]
    with pytest.raises(BertwrightError, match="text 1: this model takes pairs: give each text its second text"):
        run.model.predict(["alone"])


def test_objects_say_in_a_line_what_they_are(model: Predictor, tiny_run: Path, fit: Callable[..., Any]) -> None:
    assert repr(model) == f"<Predictor: classification, {tiny_run}, on cpu>"
    found = model.evaluate([Example("good", "a:1", label="1"), Example("bad", "a:2", label="1")])
    value = found.metrics["headline"]["value"]
    assert repr(found) == f"<Evaluation: accuracy {value:.4f} of 2 examples>"
    run = fit(epochs=1)
    assert repr(run) == f"<Run: {run.out}, finished, chosen by validation accuracy>"


def test_warnings_name_the_callers_place(model: Predictor) -> None:
    with pytest.warns(BertwrightWarning) as told:
        model.evaluate([Example("cat " * 60, "a:1", label="1")])
    assert [warning.filename for warning in told] == [__file__]
