"""Pseudo-log-likelihoods against their definition, computed slowly by `transformers`; and the work they take."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedModel

from bertwright import pseudo_likelihood
from bertwright.data.examples import Example
from bertwright.errors import BertwrightError
from bertwright.machine import Machine
from bertwright.masked_lm import MaskedLM, load_masked_lm
from bertwright.pseudo_likelihood import METHODS, PLL, WORD_L2R, SentenceScores, score_sentences
from tiny_masked_lm import POSITIONS, slow_score, spelling_tokenizer, write_masked_lm

SENTENCES = [
    "The cat sleeps.",
    "The cat sleep.",
    "no",
    "Every dog has seen the flightless film, hasn't it?",
    "sleeping cats have films",
    "A 日 dog",  # a character that the vocabulary cannot spell
    "The cat sleeps.",
    "the CAT sleeps .",  # other text, the same tokens
    "every " * (POSITIONS - 2),
    "the [SEP] cat",  # a special token of the text itself
]


def loaded(directory: Path, **config: Any) -> tuple[MaskedLM, PreTrainedModel]:
    made = write_masked_lm(directory, **config)
    return load_masked_lm(directory, device="cpu", threads=1), made


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> MaskedLM:
    return loaded(tmp_path_factory.mktemp("lm"))[0]


@dataclass(frozen=True)
class SmallBatches(Machine):
    """Computes few tokens at a time."""

    budget: int = 16

    @property
    def token_budget(self) -> int:
        return self.budget


def scored(lm: MaskedLM, sentences: list[str], method: str = PLL, *, machine: Machine | None = None) -> SentenceScores:
    examples = [Example(text=text, where=f"s:{number}") for number, text in enumerate(sentences)]
    return score_sentences(lm.model, lm.tokenizer, machine or lm.machine, examples, method=method)


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("method", METHODS)
def test_scores_are_those_of_a_slow_loop(layers: int, method: str, tmp_path: Path) -> None:
    lm, made = loaded(tmp_path, num_hidden_layers=layers)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    found = lm.score(SENTENCES, method=method)
    for sentence, value, tokens, unknown in zip(SENTENCES, found.log_likelihoods, found.tokens, found.unknown, strict=True):
        encoding = theirs(sentence)
        words = encoding.word_ids() if method == WORD_L2R else None
        assert value == pytest.approx(slow_score(made, encoding["input_ids"], lm.tokenizer, words), abs=1e-4)
        pieces = theirs.tokenize(sentence)
        assert tokens == sum(piece != "[SEP]" for piece in pieces)
        assert unknown == pieces.count("[UNK]")


def test_masking_a_words_later_pieces_too_matters_only_for_words_of_several(lm: MaskedLM) -> None:
    sentences = ["the cat sleeps", "the flightless cat"]
    plain, word = (lm.score(sentences, method=method).log_likelihoods for method in METHODS)
    assert plain[0] == word[0]
    assert abs(plain[1] - word[1]) > 1e-3


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(len(SENTENCES))), st.integers(1, 200), st.integers(1, 3000), st.integers(1, 5000))
def test_order_and_batches_change_nothing(lm: MaskedLM, order: list[int], budget: int, chunk: int, logits: int) -> None:
    expected = scored(lm, SENTENCES)
    small = SmallBatches(lm.machine.device, "float32", budget)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pseudo_likelihood, "_CHUNK_TOKENS", chunk)
        patch.setattr(pseudo_likelihood, "_CHUNK_SENTENCES", 3)
        patch.setattr(pseudo_likelihood, "_LOGITS", {"cpu": logits})
        found = scored(lm, [SENTENCES[place] for place in order], machine=small)
    np.testing.assert_allclose(found.log_likelihoods, expected.log_likelihoods[order], rtol=0, atol=1e-4)
    assert found.tokens.tolist() == expected.tokens[order].tolist()
    assert found.unknown.tolist() == expected.unknown[order].tolist()


def test_sentences_of_the_same_tokens_have_the_very_same_score(lm: MaskedLM) -> None:
    # Whatever is computed between them: a pair whose difference the vocabulary cannot spell is a tie, to the last bit.
    scores = lm.score(["The cat 日", "no film", "the dog sleeps", "the cat 月"]).log_likelihoods
    assert scores[0] == scores[3]
    assert len(set(scores.tolist())) == 3


@pytest.mark.parametrize("fails", [False, True])
def test_threads_compute_side_by_side_and_leave_no_trace(lm: MaskedLM, fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = scored(lm, SENTENCES, machine=SmallBatches(lm.machine.device, "float32", 20)).log_likelihoods
    threads: set[int] = set()
    whole = pseudo_likelihood._hidden_at_masks

    def watched(*arguments: Any) -> torch.Tensor:
        threads.add(threading.get_ident())
        assert torch.get_num_threads() == 1
        if fails and len(threads) == 2:
            raise KeyboardInterrupt
        time.sleep(0.001)
        return whole(*arguments)

    monkeypatch.setattr(pseudo_likelihood, "_hidden_at_masks", watched)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(KeyboardInterrupt) if fails else contextlib.nullcontext():
            together = scored(lm, SENTENCES, machine=SmallBatches(lm.machine.device, "float32", 20)).log_likelihoods
            np.testing.assert_array_equal(together, alone)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert len(threads) == 2
    assert threading.get_ident() not in threads


words = st.lists(st.sampled_from(["the", "cat", "sleeping", "flightless", "dogs", "x", "日"]), min_size=1, max_size=6)


@settings(max_examples=100, deadline=None)
@given(st.lists(words, min_size=1, max_size=8), st.booleans())
def test_masked_copies_by_another_way(texts: list[list[str]], word_l2r: bool) -> None:
    tokenizer = spelling_tokenizer()
    encoded = [one.input_ids for one in tokenizer.encode_batch([" ".join(text) for text in texts])]
    ids = [one for one in encoded if len(one) == len(encoded[0])]
    wanted = []
    for sentence, one in enumerate(ids):
        for place in range(1, len(one) - 1):
            copy = list(one)
            copy[place] = tokenizer.mask_id
            after = place + 1
            while word_l2r and tokenizer.token(one[after]).startswith("##"):
                copy[after] = tokenizer.mask_id
                after += 1
            wanted.append((sentence, tuple(copy), place, one[place]))
    found = pseudo_likelihood._masked_copies(
        np.array(ids, dtype=np.int32), pseudo_likelihood._Kinds.of(tokenizer), tokenizer.mask_id, word_l2r=word_l2r
    )
    asked = [
        (int(sentence), tuple(found.ids_UL[copy].tolist()), int(found.place_U[copy]), int(target))
        for sentence, copy, target in zip(found.sentence_K, found.copy_K, found.targets_K, strict=True)
    ]
    assert sorted(asked) == sorted(wanted)
    assert found.copy_K.tolist() == sorted(found.copy_K.tolist())
    copies = list(zip(map(tuple, found.ids_UL.tolist()), found.place_U.tolist(), strict=True))
    assert len(copies) == len(set(copies)), "equal copies are computed once"
    first_use = [found.copy_K.tolist().index(copy) for copy in range(len(copies))]
    by_sentence = [int(found.sentence_K[place]) for place in first_use]
    assert by_sentence == sorted(by_sentence), "copies of a sentence stay together"


def test_what_two_sentences_share_is_computed_once(lm: MaskedLM, monkeypatch: pytest.MonkeyPatch) -> None:
    computed = []
    whole = pseudo_likelihood._hidden_at_masks

    def counted(model: Any, ids_UL: Any, *rest: Any) -> torch.Tensor:
        computed.append(len(ids_UL))
        return whole(model, ids_UL, *rest)

    monkeypatch.setattr(pseudo_likelihood, "_hidden_at_masks", counted)
    lm.score(["the cat sleeps", "the cat sleep", "The cat sleeps", "no"])
    assert sum(computed) == 3 + 2 + 1


def test_progress_grows_to_the_whole(lm: MaskedLM) -> None:
    seen: list[tuple[int, int]] = []
    machine = SmallBatches(lm.machine.device, "float32", 20)
    examples = [
        Example(text=text, where="") for text in ("the cat sleeps", "the cat sleep", "no", "a", "the dog has seen it")
    ]
    lengths = [3, 3, 1, 1, 6]
    score_sentences(lm.model, lm.tokenizer, machine, examples, progress=lambda done, total: seen.append((done, total)))
    total = sum(n * (n + 2) for n in lengths)
    assert {whole for _, whole in seen} == {total}
    done = [part for part, _ in seen]
    assert done == sorted(set(done))
    assert done[-1] == total
    assert len(done) > 3


def test_no_sentences_no_scores(lm: MaskedLM) -> None:
    found = lm.score([])
    assert len(found.log_likelihoods) == len(found.tokens) == len(found.unknown) == 0


@pytest.mark.parametrize(
    ("sentence", "message"),
    [
        ("every " * (POSITIONS - 1), rf"^sentence 2: has {POSITIONS + 1} tokens, but the model only {POSITIONS} positions"),
        ("the [MASK] sleeps", r"^sentence 2: holds \[MASK\]"),
        ("", r"^sentence 2: '' has no token to score"),
        ("[SEP]", r"^sentence 2: '\[SEP\]' has no token to score"),
    ],
)
def test_sentences_that_have_no_score_are_named(lm: MaskedLM, sentence: str, message: str) -> None:
    with pytest.raises(BertwrightError, match=message):
        lm.score(["the cat", sentence])


def test_methods_are_known(lm: MaskedLM) -> None:
    with pytest.raises(BertwrightError, match="no score 'pll-word'; did you mean 'pll-word-l2r'"):
        lm.score("the cat", method="pll-word")


def test_bfloat16_comes_near(lm: MaskedLM) -> None:
    exact = scored(lm, SENTENCES).log_likelihoods
    near = scored(lm, SENTENCES, machine=Machine(torch.device("cpu"), "bfloat16")).log_likelihoods
    assert (exact != near).any()
    np.testing.assert_allclose(near, exact, rtol=0.05)
