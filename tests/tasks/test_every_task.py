"""Every task: what is frozen stays, each split has its rows and pictures, a run that broke off in the middle goes on to
the same bits, and a soup of seeds is a model like any.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import bertwright
from bertwright import BertwrightError, finetune
from bertwright.model import Headed
from bertwright.tasks import TASKS
from bertwright.training.schedule import learning_rate
from tiny_model import BAD, GOOD, QUICK, rows, weights, write_jsonl

_WEIGHTS = "model.safetensors"
WORDS = {**dict.fromkeys(GOOD, "GOOD"), **dict.fromkeys(BAD, "BAD")}


def question(text: str) -> dict[str, Any]:
    answer = next(word for word in text.split() if word in WORDS)
    start = len(" ".join([*text.split()[: text.split().index(answer)], ""]))
    return {"question": "what", "context": text, "answers": [{"text": answer, "answer_start": start}]}


# Of a sentence and whether it is good, a row of each task.
ROWS: dict[str, Callable[[str, str], dict[str, Any]]] = {
    "classification": lambda text, label: {"text": text, "label": label},
    "multi-label": lambda text, label: {"text": text, "label": ["good", "kind"] if label == "1" else ["bad"]},
    "regression": lambda text, label: {"text": text, "label": float(label) + len(text) / 100},
    "tagging": lambda text, _: {
        "tokens": text.split(),
        "tags": [f"B-{WORDS[word]}" if word in WORDS else "O" for word in text.split()],
    },
    "question-answering": lambda text, _: question(text),
    "multiple-choice": lambda text, label: {
        "startphrase": text,
        "choices": ["is good", "is bad"],
        "answer": 1 - int(label),
    },
}


# What each draws of every measured split.
PICTURES = {
    "classification": ["confusion.png", "reliability.png"],
    "multi-label": ["labels.png"],
    "regression": ["scores.png"],
    "tagging": ["types.png"],
    "question-answering": ["answers.png"],
    "multiple-choice": ["choices.png", "reliability.png"],
}
FROZEN: dict[str, tuple[str, ...]] = {
    "none": (),
    "first:1": ("bert.embeddings.", "bert.encoder.layer.0."),
    "encoder": ("bert.embeddings.", "bert.encoder."),
}


def options_of(task: str, model: Path, folder: Path) -> dict[str, Any]:
    """A short run of 44 training rows, a tenth of which is set aside."""
    train = write_jsonl(folder / "train.jsonl", [ROWS[task](*row) for row in rows(44)])
    stride = 8 if task == "question-answering" else None
    return QUICK | {"task": task, "model": model, "train": train, "stride": stride, "console": Console(quiet=True)}


def test_every_task_is_here() -> None:
    assert ROWS.keys() == PICTURES.keys() == TASKS.keys()


@pytest.mark.usefixtures("plotless")
@pytest.mark.parametrize("freeze", FROZEN)
@pytest.mark.parametrize("task", ROWS)
def test_what_is_frozen_stays_to_the_bit_and_all_else_moves(
    task: str, freeze: str, tiny_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = {f"bert.{name}": value for name, value in weights(tiny_dir).items()}
    plain = Headed.freeze

    def noting(model: Headed, parts: int) -> None:
        bert = ("embeddings.", "encoder.", "pooler.")
        start.update((name, p.detach().clone()) for name, p in model.named_parameters() if not name.startswith(bert))
        plain(model, parts)

    monkeypatch.setattr(Headed, "freeze", noting)
    own = {"head_layers": 1, "head_size": 8} if freeze == "encoder" else {}
    options = options_of(task, tiny_dir, tmp_path) | own
    run = finetune(**options | {"freeze": freeze, "epochs": 1, "out": tmp_path / "run"})
    saved = weights(run.out)
    assert saved.keys() <= start.keys()
    # With layers of its own, nothing has the name of a head that transformers would take for the whole of it.
    assert any(name.startswith("head.") for name in saved) == bool(own)
    assert any(name.startswith(("classifier.", "qa_outputs.")) for name in saved) != bool(own)
    for name, value in saved.items():
        assert torch.equal(value, start[name]) == name.startswith(FROZEN[freeze]), name


@pytest.mark.parametrize("task", ROWS)
def test_each_measured_split_has_its_rows_and_pictures(task: str, tiny_dir: Path, tmp_path: Path) -> None:
    test = write_jsonl(tmp_path / "test.jsonl", [ROWS[task](*row) for row in rows(20, seed=1)])
    run = finetune(**options_of(task, tiny_dir, tmp_path) | {"epochs": 1, "test": test, "out": tmp_path / "run"})
    assert run.metrics["test"]["examples"] == 20
    for split in ("validation", "test"):
        records = (run.out / split / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
        assert len(records) == run.metrics[split]["examples"] > 0
        assert all("predicted" in json.loads(record) for record in records)
        for picture in PICTURES[task]:
            drawn = (run.out / split / picture).read_bytes()
            assert drawn.startswith(b"\x89PNG")
            assert len(drawn) > 2000, f"{split}/{picture}"


@pytest.mark.usefixtures("plotless")
@pytest.mark.parametrize("task", ROWS)
def test_resuming_ends_with_the_same_bits(
    task: str, tiny_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = options_of(task, tiny_dir, tmp_path) | {"save_every": 2}
    whole = finetune(**options, out=tmp_path / "whole")

    def too_high(step: int, *rest: Any) -> float:
        return 1e38 if step >= 7 else learning_rate(step, *rest)

    with monkeypatch.context() as patch:
        patch.setattr("bertwright.training.loop.learning_rate", too_high)
        with pytest.raises(BertwrightError, match="the run so far is kept"):
            finetune(**options, out=tmp_path / "again")
    states = tmp_path / "again.training"
    assert states.is_dir()
    again = finetune(**options, out=tmp_path / "again", resume=True)
    assert (again.out / _WEIGHTS).read_bytes() == (whole.out / _WEIGHTS).read_bytes()
    assert again.metrics["validation"] == whole.metrics["validation"]


@pytest.mark.usefixtures("plotless")
@pytest.mark.parametrize("task", ROWS)
def test_a_soup_is_judged_and_saved(task: str, tiny_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    test = write_jsonl(tmp_path / "test.jsonl", [ROWS[task](*row) for row in rows(20, seed=1)])
    options = options_of(task, tiny_dir, tmp_path) | {"test": test, "epochs": 1, "seed": 5}
    with monkeypatch.context() as patch:
        patch.setattr("bertwright.soup.best_of", lambda soups, *_: soups[0])  # of all seeds, be it better or not
        run = finetune(**options, out=tmp_path / "soup", seeds=2, keep="soup")
    assert run.metrics["soup"]["kept"] == "uniform"
    again = bertwright.load(run.out, device="cpu", threads=1).evaluate(test)
    assert again.metrics["headline"] == run.metrics["test"]["headline"]
    assert again.metrics["loss"] == pytest.approx(run.metrics["test"]["loss"], rel=1e-6)
    alone = [weights(finetune(**options | {"seed": seed}, out=tmp_path / str(seed)).out) for seed in (5, 6)]
    for name, value in weights(run.out).items():
        torch.testing.assert_close(value, torch.stack([one[name] for one in alone]).mean(0), rtol=1e-5, atol=1e-7)
