"""A tiny random BERT with a tiny vocabulary, and rows that it can learn: whole runs take a second.

The encoder is 2 layers of 16 with 4 heads, as `transformers` would save it: no classifier, no recipe.
"""

from __future__ import annotations

import contextlib
import csv
import importlib
import json
import random
import resource
import string
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from bertwright import Run
from bertwright.checkpoint import export_tensors, write_weights
from bertwright.model import Bert, BertConfig
from bertwright.tokenizer import Tokenizer

GOOD = ("good", "great", "fine", "warm", "kind")
BAD = ("bad", "poor", "cold", "cruel", "dull")
PLAIN = ("the", "this", "film", "book", "day", "cat", "was", "is", "very", "and", "so", "quite")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
POSITIONS = 48

# Settings with which the tiny model learns the rows below in a moment.
QUICK: dict[str, Any] = {
    "batch_size": 8,
    "epochs": 2,
    "learning_rate": 1e-2,
    "max_length": 24,
    "threads": 1,
    "device": "cpu",
}

Row = tuple[str, str]
Fit = Callable[..., Run]


def write_tiny_model(directory: Path, *, seed: int = 0, dropout: float = 0.1) -> Path:
    """Write config, weights and tokenizer of a random encoder; the same seed gives the same bytes."""
    letters = [*string.ascii_lowercase, *string.digits, *string.punctuation]
    tokenizer = Tokenizer.from_vocab([*SPECIAL, *GOOD, *BAD, *PLAIN, *letters, *("##" + c for c in string.ascii_lowercase)])
    config = BertConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=32,
        max_position_embeddings=POSITIONS,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        initializer_range=0.2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Bert(config)
    directory.mkdir(parents=True, exist_ok=True)
    write_weights(directory, export_tensors(model, prefix=""))
    (directory / "config.json").write_text(json.dumps(config.to_dict() | {"architectures": ["BertModel"]}))
    tokenizer.save(directory, max_length=POSITIONS)
    return directory


def weights(directory: Path) -> dict[str, Tensor]:
    """The tensors of a model directory."""
    return load_file(directory / "model.safetensors")


def rows(count: int, seed: int = 0, *, labels: tuple[str, str] = ("1", "0")) -> list[Row]:
    """Sentences of two to eight words, labelled by the one good or bad word in each; both labels equally often."""
    draw = random.Random(seed)
    made = []
    for number in range(count):
        words = draw.choices(PLAIN, k=draw.randint(1, 7))
        good = number % 2 == 0
        words.insert(draw.randint(0, len(words)), draw.choice(GOOD if good else BAD))
        made.append((" ".join(words), labels[0] if good else labels[1]))
    return made


def write_tsv(path: Path, given: Iterable[Sequence[str]], header: Sequence[str] = ("text", "label")) -> Path:
    """Write literal tab-separated rows; without a header where it is empty."""
    lines = ["\t".join(row) for row in ([header] if header else []) + list(given)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_csv(path: Path, given: Iterable[Sequence[str]], header: Sequence[str] = ("text", "label")) -> Path:
    """Write quoted comma-separated rows."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *given])
    return path


def write_jsonl(path: Path, given: Iterable[dict[str, Any]]) -> Path:
    """Write one JSON object a line."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in given), encoding="utf-8")
    return path


@contextlib.contextmanager
def no_plots() -> Iterator[None]:
    """Draw nothing inside the block."""
    places = {
        "bertwright.finetuning": ["plot_training"],
        "bertwright.pretraining.run": ["plot_training"],
        "bertwright.tasks.classification": ["plot_confusion", "plot_reliability", "plot_matthews_per_batch"],
        "bertwright.tasks.question_answering": ["plot_answers"],
        "bertwright.tasks.multiple_choice": ["plot_choices", "plot_reliability"],
        "bertwright.tasks.multi_label": ["plot_label_scores"],
        "bertwright.tasks.regression": ["plot_predicted"],
        "bertwright.tasks.tagging": ["plot_types"],
    }
    with pytest.MonkeyPatch.context() as patch:
        for module, names in places.items():
            for name in names:
                patch.setattr(importlib.import_module(module), name, lambda *_, **__: None)
        yield


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """As if it were: no file may grow past 20 kB, less than the tiny weights and more than all else.

    No fixture, but for the body of a test alone: the limit holds for this whole process, and pytest's own report may be
    going to a file that is larger than that.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
