"""Filling masks as the pipeline of `transformers` does, and loading nothing but models that can."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, pipeline

from bertwright.errors import BertwrightError
from bertwright.masked_lm import MaskedLM, load_masked_lm
from bertwright.tokenizer import Tokenizer
from tiny_masked_lm import KINDS, POSITIONS, spelling_tokenizer, write_masked_lm

TEXTS = [
    "The [MASK] sleeps.",
    "[MASK]",
    "A [MASK] has seen [MASK] flightless [MASK], no?",
    "every cat has " + "seen a film " * 8 + "[MASK]",
    "the [MASK][MASK] dog",
]


def load(directory: Path) -> MaskedLM:
    return load_masked_lm(directory, device="cpu", threads=1)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved BertForMaskedLM; tests only read it."""
    path = tmp_path_factory.mktemp("masked-lm")
    write_masked_lm(path)
    return path


@pytest.fixture(scope="module")
def lm(directory: Path) -> MaskedLM:
    return load(directory)


def test_guesses_are_those_of_the_pipeline(directory: Path, lm: MaskedLM) -> None:
    made = KINDS["BertForMaskedLM"].from_pretrained(directory)
    theirs = pipeline("fill-mask", model=made, tokenizer=AutoTokenizer.from_pretrained(directory), top_k=7)
    for text, filled in zip(TEXTS, lm.fill_mask(TEXTS, top=7), strict=True):
        expected = theirs(text)
        per_mask = expected if isinstance(expected[0], list) else [expected]
        assert filled.text == text
        assert len(filled.masks) == len(per_mask) == text.count("[MASK]")
        for guesses, wanted in zip(filled.masks, per_mask, strict=True):
            assert [guess.id for guess in guesses] == [one["token"] for one in wanted]
            for guess, one in zip(guesses, wanted, strict=True):
                assert guess.probability == pytest.approx(one["score"], abs=1e-5)
                assert guess.log_probability == pytest.approx(math.log(guess.probability))
                assert guess.token == lm.tokenizer.token(guess.id)


def test_all_probabilities_add_up(lm: MaskedLM) -> None:
    (filled,) = lm.fill_mask("The [MASK] sleeps.", top=lm.tokenizer.vocab_size)
    assert sum(guess.probability for guess in filled.masks[0]) == pytest.approx(1, abs=1e-5)
    assert sorted(guess.id for guess in filled.masks[0]) == list(range(lm.tokenizer.vocab_size))


def test_a_text_among_others_is_a_text_alone(lm: MaskedLM) -> None:
    for text, together in zip(TEXTS, lm.fill_mask(TEXTS), strict=True):
        (alone,) = lm.fill_mask(text)
        for one, other in zip(alone.masks, together.masks, strict=True):
            np.testing.assert_allclose([g.probability for g in one], [g.probability for g in other], atol=1e-6)
            assert [g.id for g in one] == [g.id for g in other]


def preferring(token: str, directory: Path) -> MaskedLM:
    """A model that guesses one token everywhere."""
    write_masked_lm(directory)
    tensors = load_file(directory / "model.safetensors")
    tensors["cls.predictions.bias"][spelling_tokenizer().id(token)] = 1000.0
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return load(directory)


@pytest.mark.parametrize(
    ("token", "text", "first", "filled"),
    [
        ("cat", "A  [MASK] and\tTHE [MASK]!", "A  cat and\tTHE [MASK]!", "A  cat and\tTHE cat!"),
        ("##s", "The dog [MASK] sleep [MASK].", "The dogs sleep [MASK].", "The dogs sleeps."),
        ("##s", "The dog[MASK] sleep", "The dogs sleep", "The dogs sleep"),
        ("##s", "[MASK] 日本 [MASK]", "s 日本 [MASK]", "s 日本s"),
        ("#", "[MASK]", "#", "#"),
        ("cat", "[mask] [MASK]", "[mask] cat", "[mask] cat"),
    ],
)
def test_filled_texts_keep_all_else(token: str, text: str, first: str, filled: str, tmp_path: Path) -> None:
    (found,) = preferring(token, tmp_path).fill_mask(text, top=1)
    assert found.masks[0][0].text == first
    assert found.filled == filled
    assert found.masks[0][0].probability == pytest.approx(1)


def test_ids_without_a_token_are_no_guess(tmp_path: Path) -> None:
    # Embeddings are often padded to a multiple of 64, and their rows get probability like any other.
    tokenizer = spelling_tokenizer()
    made = write_masked_lm(tmp_path, vocab_size=tokenizer.vocab_size + 60)
    (filled,) = load(tmp_path).fill_mask("the [MASK] sleeps", top=tokenizer.vocab_size)
    ids = tokenizer.encode("the [MASK] sleeps").input_ids
    with torch.no_grad():
        wanted = made(torch.tensor([ids])).logits[0, 2].softmax(-1)
    assert sorted(guess.id for guess in filled.masks[0]) == list(range(tokenizer.vocab_size))
    for guess in filled.masks[0]:
        assert guess.probability == pytest.approx(float(wanted[guess.id]), abs=1e-5)
    assert sum(guess.probability for guess in filled.masks[0]) < 0.95


@pytest.mark.parametrize(
    ("texts", "top", "message"),
    [
        (["the [MASK]", "no cat"], 5, r"^text 2 \('no cat'\) has no \[MASK\]"),
        (["the [mask]"], 5, r"^text 1 .*in capitals"),
        (["[MASK]" + " cat" * POSITIONS], 5, rf"^text 1 .* has {POSITIONS + 3} tokens, but the model only {POSITIONS}"),
        (["[MASK]"], 0, "^top is 0; give 1 to"),
        (["[MASK]"], 10_000, "^top is 10000; give 1 to"),
    ],
)
def test_texts_that_cannot_be_filled(lm: MaskedLM, texts: list[str], top: int, message: str) -> None:
    with pytest.raises(BertwrightError, match=message):
        lm.fill_mask(texts, top=top)


def test_no_texts_nothing_filled(lm: MaskedLM) -> None:
    assert lm.fill_mask([]) == []


# ---------------------------------------------------------------------------------------------------------------- loading


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("old_names", [False, True])
def test_either_class_and_either_generation_of_names(kind: str, old_names: bool, tmp_path: Path) -> None:
    made = write_masked_lm(tmp_path, kind)
    tensors = load_file(tmp_path / "model.safetensors")
    assert "cls.predictions.decoder.weight" not in tensors
    if old_names:
        renamed = {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
            for name, tensor in tensors.items()
        }
        assert sum(name.endswith((".gamma", ".beta")) for name in renamed) == 12
        save_file(renamed, tmp_path / "model.safetensors", metadata={"format": "pt"})
    lm = load(tmp_path)
    ids = lm.tokenizer.encode("the [MASK] sleeps").input_ids
    with torch.no_grad():
        output = made(torch.tensor([ids]))
    logits = output.logits if kind == "BertForMaskedLM" else output.prediction_logits
    wanted = logits[0, 2].softmax(-1).sort(descending=True)
    (guesses,) = lm.fill_mask("the [MASK] sleeps", top=5)[0].masks
    assert [guess.id for guess in guesses] == wanted.indices[:5].tolist()
    np.testing.assert_allclose([guess.probability for guess in guesses], wanted.values[:5], atol=1e-5)
    assert lm.directory == tmp_path
    assert not any(parameter.requires_grad for parameter in lm.model.parameters())


def test_a_model_without_the_head_is_refused(tiny_dir: Path) -> None:
    with pytest.raises(BertwrightError) as refused:
        load(tiny_dir)
    message = str(refused.value)
    assert message.startswith(f"{tiny_dir}: has no masked-word head")
    assert f"bertwright pretrain TOKENS --model {tiny_dir} --objective mlm" in message
    assert "\n" not in message


def test_minilm_is_refused(minilm_dir: Path) -> None:
    with pytest.raises(BertwrightError, match="has no masked-word head"):
        load(minilm_dir)


@pytest.mark.parametrize("lost", ["cls.predictions.transform.dense.weight", "bert.encoder.layer.1.output.dense.bias"])
@pytest.mark.filterwarnings("ignore::bertwright.errors.BertwrightWarning")
def test_a_model_with_half_its_weights_is_refused(lost: str, tmp_path: Path) -> None:
    write_masked_lm(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors[lost]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BertwrightError, match=f"incomplete: '{lost.removeprefix('bert.')}' is missing"):
        load(tmp_path)


def test_a_vocabulary_of_another_model_is_refused(tmp_path: Path) -> None:
    write_masked_lm(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["vocab_size"] == spelling_tokenizer().vocab_size
    entries = spelling_tokenizer().tokens(range(config["vocab_size"]))
    Tokenizer.from_vocab([*entries, "more"]).save(tmp_path)
    with pytest.raises(BertwrightError, match="the vocabulary has"):
        load(tmp_path)
