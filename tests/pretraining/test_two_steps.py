"""Both steps of BERT from the command line, as a newcomer types them: raw text, vocabulary, corpus, encoder, judge."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
import lzma
import math
import random
from pathlib import Path

import numpy as np
import pytest

import bertwright
from bertwright.data.shards import TokenCorpus
from bertwright.errors import BertwrightError, BertwrightWarning
from bertwright.training.observers import read_history
from command_line import Result, run
from tiny_model import no_plots

SUBJECTS = {
    "cats": ("cat", "cats", "kitten", "purrs", "sleeps", "softly", "sofa"),
    "ships": ("ship", "ships", "harbour", "sails", "anchors", "slowly", "sea"),
}


def done(*arguments: object) -> Result:
    with no_plots():
        result = run(*arguments)
    assert result.code == 0, result.err
    return result


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the first four commands have been run on a text of two subjects."""
    folder = tmp_path_factory.mktemp("walk")
    (folder / "corpus").mkdir()
    documents = []
    draw = random.Random(0)
    for number in range(160):
        words = list(SUBJECTS.values())[number % 2]
        sentences = ["The {} {} near a {}.".format(*draw.choices(words, k=3)) for _ in range(8)]
        documents.append("\n".join(sentences))
    (folder / "corpus" / "text.txt").write_text("\n\n".join(documents))
    (folder / "config.json").write_text(
        json.dumps({"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64})
    )
    # Not a published size, so that it takes a moment.
    done("tokenizer", "train", folder / "corpus", "--vocab-size", "256", "--out", folder / "vocab")
    done("prepare", folder / "corpus", "--tokenizer", folder / "vocab", "--heldout", "0.1", "--out", folder / "tokens")
    return folder


@pytest.fixture(scope="module")
def encoder(made: Path) -> Path:
    config = json.loads((made / "config.json").read_text()) | {"vocab_size": 256}
    (made / "config.json").write_text(json.dumps(config))
    done(
        "pretrain", made / "tokens", "--config", made / "config.json", "--max-length", "32", "--batch-tokens", "1024",
        "--steps", "120", "--learning-rate", "5e-3", "--dropout", "0", "--threads", "1", "--device", "cpu", "--out",
        made / "encoder",
    )  # fmt: skip
    return made / "encoder"


def test_it_fills_masks_with_words_of_the_subject(encoder: Path) -> None:
    shown = done("fill-mask", encoder, "The cat [MASK] near a kitten.", "--format", "jsonl", "--top", "3", "--device", "cpu")
    (filled,) = map(json.loads, shown.out.splitlines())
    assert {guess["token"] for guess in filled["masks"][0]} & set(SUBJECTS["cats"])
    table = done("fill-mask", encoder, "The ship [MASK] near a sea.", "--device", "cpu").out
    assert "probability" in table
    assert max(map(len, table.splitlines())) <= 80


def test_it_judges_minimal_pairs(encoder: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "subjects.jsonl"
    rows = [
        {
            "sentence_good": f"The {a} {b} near a {c}.",
            "sentence_bad": f"The {a} {b} near a {SUBJECTS['ships'][i]}.",
            "UID": "subjects",
            "linguistics_term": "selection",
            "field": "semantics",
            "pairID": str(i),
        }
        for i, (a, b, c) in enumerate([("cat", "kitten", "sofa"), ("kitten", "sleeps", "cats"), ("cats", "purrs", "sofa")])
    ]
    pairs.write_text("\n".join(map(json.dumps, rows)))
    shown = done("evaluate", encoder, pairs, "--task", "blimp", "--out", tmp_path / "out", "--device", "cpu")
    assert "selection" in shown.out
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["pairs"] == 3
    assert "give them with --task blimp" in run("evaluate", encoder, pairs, "--per-set", "2").error
    assert "--task is 'blmp'" in run("evaluate", encoder, pairs, "--task", "blmp").error


def test_fill_mask_and_blimp_from_python_have_the_same_digits(encoder: Path, tmp_path: Path) -> None:
    lm = bertwright.load_masked_lm(encoder, device="cpu")
    texts = ["The cat [MASK] near a kitten.", "The [MASK] sails near a [MASK]."]
    shown = done("fill-mask", encoder, *texts, "--format", "jsonl", "--top", "3", "--device", "cpu").out
    assert shown == "".join(
        json.dumps(dataclasses.asdict(one), ensure_ascii=False) + "\n" for one in lm.fill_mask(texts, top=3)
    )
    pairs = tmp_path / "pairs.jsonl"
    rows = [
        {"sentence_good": f"The {a} {b}.", "sentence_bad": f"The {b} {a}.", "UID": uid, "linguistics_term": "order"}
        for uid, words in SUBJECTS.items()
        for a, b in itertools.pairwise(words)
    ]
    pairs.write_text("\n".join(json.dumps(row | {"pairID": str(number)}) for number, row in enumerate(rows)))
    judging = ("--task", "blimp", "--score", "pll-word-l2r", "--per-set", "4", "--device", "cpu", "--out", tmp_path / "out")
    done("evaluate", encoder, pairs, *judging)
    result = lm.evaluate_blimp(pairs, per_set=4, method="pll-word-l2r")
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == result.metrics
    written = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    assert list(map(json.loads, written)) == list(result.predictions)


def test_the_second_step_starts_from_it(encoder: Path, tmp_path: Path) -> None:
    with (tmp_path / "train.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["text", "label"])
        for number in range(80):
            subject = ("cats", "ships")[number % 2]
            table.writerow([f"the {SUBJECTS[subject][number % 7]} is near", subject])
    shown = done(
        "finetune", "--model", encoder, "--train", tmp_path / "train.csv", "--epochs", "3", "--learning-rate", "1e-3",
        "--max-length", "24", "--threads", "1", "--device", "cpu", "--out", tmp_path / "judge",
    )  # fmt: skip
    assert "freshly initialised: classifier" in shown.err
    assert bertwright.load(tmp_path / "judge").predict("the kitten is near")[0]["predicted"] == "cats"


def test_the_same_from_python_has_the_same_bytes(made: Path, tmp_path: Path) -> None:
    with pytest.warns(BertwrightWarning, match="the vocabulary has 192"):
        bertwright.train_vocabulary([made / "corpus"], size=256, out=tmp_path / "vocab")
    prepared = bertwright.prepare([made / "corpus"], tmp_path / "vocab", tmp_path / "tokens", heldout=0.1)
    assert (tmp_path / "vocab" / "vocab.txt").read_bytes() == (made / "vocab" / "vocab.txt").read_bytes()
    assert prepared.manifest.to_json() == (made / "tokens" / "manifest.json").read_text()


def test_info_shows_a_pretrained_model(encoder: Path) -> None:
    shown = done("info", encoder).out
    assert "cls" in shown
    assert "2 x 32" in shown


def test_a_pretrained_model_tells_next_sentences_and_classifies_no_text(encoder: Path) -> None:
    model = bertwright.load(encoder)
    assert model.labels == ("is next", "is not next")
    with pytest.raises(BertwrightError, match="this model takes pairs"):
        model.predict("a text")


@pytest.mark.slow
def test_a_minute_of_customer_questions_is_learned_beyond_how_frequent_words_are(shared: Path, tmp_path: Path) -> None:
    """The first step on real text, narrow enough that a minute of a core tells more than frequencies.

    No gain of the second step is held here: after so little, fine-tuning from these weights is no better than from random
    ones. What longer runs give is measured by benchmarks/two_steps.py.
    """
    with (shared / "textclass" / "banking77" / "train.csv").open(encoding="utf-8", newline="") as file:
        questions = [" ".join(row["text"].split()) for row in csv.DictReader(file)]
    (tmp_path / "text.txt").write_text("\n".join(questions), encoding="utf-8")
    vocabulary, tokens, encoder = (tmp_path / name for name in ("vocab", "tokens", "encoder"))
    done("tokenizer", "train", tmp_path / "text.txt", "--vocab-size", "1024", "--out", vocabulary)
    by_line = ("--documents", "record", "--sentences", "line", "--heldout", "0.05")
    done("prepare", tmp_path / "text.txt", "--tokenizer", vocabulary, *by_line, "--out", tokens)
    options = ("--config", "tiny", "--objective", "mlm", "--max-length", "48", "--batch-tokens", "1024", "--steps", "400")
    more = ("--learning-rate", "3e-3", "--dropout", "0", "--heldout-tokens", "5000", "--threads", "1", "--device", "cpu")
    done("pretrain", tokens, *options, *more, "--out", encoder)
    train, heldout = (
        np.concatenate([shard.tokens for shard in TokenCorpus.open(tokens, part).shards]) for part in ("train", "heldout")
    )
    frequency = np.bincount(train, minlength=1024) + 1.0
    by_frequency = -float(np.log(frequency / frequency.sum())[heldout].mean())
    measured = json.loads((encoder / "metrics.json").read_text())["heldout"]
    assert measured["mlm_loss"] < by_frequency - 0.3


@pytest.mark.slow
def test_a_minute_of_wikipedia(shared: Path, tmp_path: Path) -> None:
    """It goes the right way, though hardly past what the frequencies of words tell: that takes more than a minute."""
    with lzma.open(shared / "pretrain" / "enwiki-2018.txt.xz", "rt", encoding="utf-8") as file:
        (tmp_path / "text.txt").write_text(file.read(4_000_000), encoding="utf-8")
    vocabulary, tokens, encoder = (str(tmp_path / name) for name in ("vocab", "tokens", "encoder"))
    done("tokenizer", "train", tmp_path / "text.txt", "--vocab-size", "4096", "--out", vocabulary)
    done("prepare", tmp_path / "text.txt", "--tokenizer", vocabulary, "--heldout", "0.02", "--out", tokens)
    options = ("--config", "tiny", "--max-length", "64", "--batch-tokens", "2048", "--steps", "250", "--dropout", "0")
    more = ("--learning-rate", "3e-3", "--heldout-tokens", "10000", "--validate-every", "50", "--device", "cpu")
    done("pretrain", tokens, *options, *more, "--out", encoder)
    losses = [r["mlm_loss"] for r in read_history(Path(encoder) / "history.jsonl") if r["kind"] == "validation"]
    assert losses == sorted(losses, reverse=True), "held-out text is guessed better every time"
    assert losses[-1] < math.log(4096) - 1.2
