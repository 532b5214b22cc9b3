"""A tiny random model of `transformers` with a masked-word head, saved with a tokenizer that spells any ASCII word."""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertForMaskedLM, BertForPreTraining, PreTrainedModel

from bertwright.tokenizer import SPECIAL_TOKENS, Tokenizer

WORDS = ("the", "cat", "cats", "dog", "film", "sleeps", "sleep", "has", "have", "was", "seen", "every", "no", "flight")
PIECES = ("##less", "##ing", "##es")
POSITIONS = 40
KINDS = {"BertForMaskedLM": BertForMaskedLM, "BertForPreTraining": BertForPreTraining}


def spelling_tokenizer() -> Tokenizer:
    """Some words, all letters, digits and marks, and pieces of words; "sleeping" becomes sleep ##ing."""
    characters = string.ascii_lowercase + string.digits
    letters = [*characters, *string.punctuation, *("##" + letter for letter in characters)]
    return Tokenizer.from_vocab([*SPECIAL_TOKENS.values(), *WORDS, *PIECES, *letters])


def write_masked_lm(
    directory: Path, kind: str = "BertForMaskedLM", *, tokenizer: Tokenizer | None = None, seed: int = 0, **config: Any
) -> PreTrainedModel:
    """Save model and tokenizer, and return the model, in evaluation mode."""
    tokenizer = tokenizer or spelling_tokenizer()
    shape: dict[str, Any] = {
        "vocab_size": tokenizer.vocab_size,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 24,
        "max_position_embeddings": POSITIONS,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = KINDS[kind](BertConfig(**shape | config)).eval()
        with torch.no_grad():
            for parameter in made.parameters():  # biases and norms too, and far enough from 0 for sharp predictions
                parameter.add_(torch.randn_like(parameter) * 0.4)
    made.save_pretrained(directory)
    tokenizer.save(directory, max_length=shape["max_position_embeddings"])
    return made


def slow_score(
    made: PreTrainedModel, ids: Sequence[int], tokenizer: Tokenizer, word_of: Sequence[int | None] | None = None
) -> float:
    """The pseudo-log-likelihood as its definition has it: one masked copy at a time, nothing packed, nothing shared.

    With ``word_of``, the word that each token belongs to, the later tokens of a word are masked with each of its tokens.
    """
    special = {tokenizer.cls_id, tokenizer.sep_id, tokenizer.pad_id, tokenizer.mask_id}
    total = 0.0
    for place, id in enumerate(ids):
        if id in special:
            continue
        copy = list(ids)
        for other in range(place, len(ids)):
            if other == place or (word_of is not None and word_of[other] == word_of[place]):
                copy[other] = tokenizer.mask_id
        with torch.no_grad():
            logits_V = made(torch.tensor([copy])).logits[0, place].double()
        total += float(logits_V[id] - logits_V.logsumexp(0))
    return total
