"""Every task: a run that broke off in the middle goes on to the same bits, and a soup of seeds is a model like any."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

import bertwright
from bertwright import BertwrightError, finetune
from bertwright.tasks import TASKS
from bertwright.training.schedule import learning_rate
from tiny_model import BAD, GOOD, QUICK, rows, write_jsonl

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


def test_every_task_is_here() -> None:
    assert ROWS.keys() == TASKS.keys()


@pytest.mark.parametrize("task", ROWS)
def test_resuming_ends_with_the_same_bits(
    task: str, tiny_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = write_jsonl(tmp_path / "train.jsonl", [ROWS[task](*row) for row in rows(44)])
    options = QUICK | {"task": task, "model": tiny_dir, "train": train, "save_every": 2, "stride": None}
    options |= {"stride": 8} if task == "question-answering" else {}
    whole = finetune(**options, out=tmp_path / "whole", console=Console(quiet=True))

    def too_high(step: int, *rest: Any) -> float:
        return 1e38 if step >= 7 else learning_rate(step, *rest)

    with monkeypatch.context() as patch:
        patch.setattr("bertwright.training.loop.learning_rate", too_high)
        with pytest.raises(BertwrightError, match="the run so far is kept"):
            finetune(**options, out=tmp_path / "again", console=Console(quiet=True))
    states = tmp_path / "again.training"
    assert states.is_dir()
    again = finetune(**options, out=tmp_path / "again", resume=True, console=Console(quiet=True))
    assert (again.out / _WEIGHTS).read_bytes() == (whole.out / _WEIGHTS).read_bytes()
    assert again.metrics["validation"] == whole.metrics["validation"]


@pytest.mark.parametrize("task", ROWS)
def test_a_soup_is_judged_and_saved(task: str, tiny_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = write_jsonl(tmp_path / "train.jsonl", [ROWS[task](*row) for row in rows(44)])
    test = write_jsonl(tmp_path / "test.jsonl", [ROWS[task](*row) for row in rows(20, seed=1)])
    options = QUICK | {"task": task, "model": tiny_dir, "train": train, "test": test, "epochs": 1, "seed": 5}
    options |= {"stride": 8} if task == "question-answering" else {}
    with monkeypatch.context() as patch:
        patch.setattr("bertwright.soup.best_of", lambda soups, *_: soups[0])  # of all seeds, be it better or not
        run = finetune(**options, out=tmp_path / "soup", seeds=2, keep="soup", console=Console(quiet=True))
    assert run.metrics["soup"]["kept"] == "uniform"
    again = bertwright.load(run.out, device="cpu", threads=1).evaluate(test)
    assert again.metrics["headline"] == run.metrics["test"]["headline"]
    assert again.metrics["loss"] == pytest.approx(run.metrics["test"]["loss"], rel=1e-6)
    alone = [
        load_file(finetune(**options | {"seed": seed}, out=tmp_path / str(seed), console=Console(quiet=True)).out / _WEIGHTS)
        for seed in (5, 6)
    ]
    for name, value in load_file(run.out / _WEIGHTS).items():
        torch.testing.assert_close(value, torch.stack([one[name] for one in alone]).mean(0), rtol=1e-5, atol=1e-7)
