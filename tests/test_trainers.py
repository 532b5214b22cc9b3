"""The rows that the benchmarks hand to transformers have the loss there that they have here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers

from benchmarks import trainers
from bertwright.machine import Machine
from bertwright.materials import gather
from bertwright.merging import merged
from bertwright.predictor import Predictor
from tiny_model import BAD, GOOD, QUICK, rows, write_jsonl

ROWS: dict[str, Callable[[str, str], dict[str, Any]]] = {
    "classification": lambda text, label: {"text": text, "label": label},
    "tagging": lambda text, _: {
        "tokens": text.split(),
        "tags": ["B-GOOD" if word in GOOD else "B-BAD" if word in BAD else "O" for word in text.split()],
    },
    "question-answering": lambda text, _: {
        "question": "what",
        "context": text,
        "answers": [{"text": text.split()[-1], "answer_start": len(text) - len(text.split()[-1])}],
    },
}


@pytest.mark.parametrize("fixed", [None, 24])
@pytest.mark.parametrize("task", trainers.CLASSES)
def test_rows_have_the_same_loss_there(task: str, fixed: int | None, tiny_dir: Path, tmp_path: Path) -> None:
    train = write_jsonl(tmp_path / "train.jsonl", [ROWS[task](*row) for row in rows(30)])
    options = QUICK | {
        "task": task,
        "model": tiny_dir,
        "train": train,
        "stride": 4 if task == "question-answering" else None,
    }
    recipe = merged(None, options).recipe
    materials = gather(recipe, Machine.choose("cpu"), lambda _: None)
    model, _ = materials.start.build(materials.task, recipe, 0)
    predictor = Predictor(model.requires_grad_(False), materials.start.tokenizer, materials.task, recipe, materials.machine)
    (tmp_path / "model").mkdir()
    predictor.save(tmp_path / "model")
    theirs = getattr(transformers, trainers.CLASSES[task]).from_pretrained(tmp_path / "model")
    inputs = materials.train.inputs
    made = trainers.rows_of(materials.task, task, inputs)
    # Of a question, transformers counts padding among the places where the answer may be: each has to come alone.
    parts = [[row] for row in made] if task == "question-answering" else [made]
    collate = trainers.collated(0, None if task == "question-answering" else fixed)
    batches = [collate(part) for part in parts]
    widest = max(batch["input_ids"].shape[1] for batch in batches)
    assert widest == (inputs.table.lengths.max() if task == "question-answering" or fixed is None else fixed)
    losses = [float(theirs.eval()(**batch).loss.detach()) for batch in batches]
    ours = materials.task.loss(inputs, materials.task.class_weights("none", None)).mean(predictor.outputs(inputs))
    assert ours == pytest.approx(np.mean(losses), rel=1e-5)
