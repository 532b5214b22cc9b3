"""transformers.Trainer on rows that this project has read and encoded: the usual way beside which tasks.py measures.

Both train on the same sequences from the same checkpoint, for as many epochs, with the same batch size. All else is as the
example scripts of transformers have it by default: 5e-5, falling to 0 without warm-up, no weight decay; texts and
questions padded to the longest length that is allowed, words to the longest of their batch. Scores, for which time does
not count, are taken from rows of like length in one batch (the Trainer's own option), padded to the longest of it. What
comes out is a model directory that ``bertwright.load`` opens and judges, so that both are measured alike; the last epoch
counts, as in the scripts, where this project keeps the best.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import bertwright
from bertwright import checkpoint
from bertwright.data.inputs import Inputs
from bertwright.machine import Machine
from bertwright.materials import gather
from bertwright.merging import merged
from bertwright.tasks import question_answering

Row = dict[str, Any]
IGNORED = -100  # what transformers leaves out of a loss

PADDED_FULLY = ("classification", "question-answering")  # by their example scripts
CLASSES = {
    "classification": "AutoModelForSequenceClassification",
    "question-answering": "AutoModelForQuestionAnswering",
    "tagging": "AutoModelForTokenClassification",
}


def rows_of(task: Any, kind: str, inputs: Inputs) -> list[Row]:
    """The sequences with what transformers calls their labels."""
    table = inputs.table
    rows: list[Row] = []
    for begin, end in zip(table.starts[:-1].tolist(), table.starts[1:].tolist(), strict=True):
        ids, segments = table.input_ids[begin:end].tolist(), table.token_type_ids[begin:end].tolist()
        rows.append({"input_ids": ids, "token_type_ids": segments, "attention_mask": [1] * (end - begin)})
    if kind == "classification":
        for row, target in zip(rows, task.targets(inputs.examples).tolist(), strict=True):
            row["labels"] = target
    elif kind == "question-answering":
        places_W2, weight_W = question_answering.targets(inputs)
        for row, places in zip(rows, places_W2.tolist(), strict=True):
            row["start_positions"], row["end_positions"] = places
        rows = [row for row, weight in zip(rows, weight_W.tolist(), strict=True) if weight]
    else:
        assert table.reads is not None
        code_W, reads = task.targets(inputs.examples), table.reads
        for place, row in enumerate(rows):
            read = slice(int(table.read_starts[place]), int(table.read_starts[place + 1]))
            labels = np.full(len(row["input_ids"]), IGNORED)
            labels[reads[read]] = code_W[read]
            row["labels"] = labels.tolist()
    return rows


def collated(pad_id: int, fixed: int | None) -> Callable[[list[Row]], dict[str, torch.Tensor]]:
    """Make batches of rows, padded to a ``fixed`` length or to the longest of each batch."""
    filled = {"input_ids": pad_id, "token_type_ids": 0, "attention_mask": 0, "labels": IGNORED}

    def collate(rows: list[Row]) -> dict[str, torch.Tensor]:
        width = fixed or max(len(row["input_ids"]) for row in rows)
        batch = {}
        for name, first in rows[0].items():
            if isinstance(first, list):
                values = [row[name] + [filled[name]] * (width - len(row[name])) for row in rows]
            else:
                values = [row[name] for row in rows]
            batch[name] = torch.tensor(values)
        return batch

    return collate


def trained(options: dict[str, Any], seed: int, *, threads: int, precision: str, steps: int | None) -> dict[str, Any]:
    """Fine-tune by the Trainer and measure; with ``steps``, only time so many of them, as the example scripts run."""
    import transformers
    from transformers import Trainer, TrainerCallback, TrainingArguments

    recipe = merged(None, options).recipe
    materials = gather(recipe, Machine.choose("cpu", "float32", threads), lambda _: None)
    task, kind = materials.task, recipe.task
    transformers.set_seed(seed)
    directory = checkpoint.resolve(recipe.model)
    config = transformers.AutoConfig.from_pretrained(directory)
    config.update(task.to_config())
    model = getattr(transformers, CLASSES[kind]).from_pretrained(directory, config=config)
    rows = rows_of(task, kind, materials.train.inputs)
    fixed = recipe.max_length if steps and kind in PADDED_FULLY else None
    collate = collated(materials.start.tokenizer.pad_id, fixed)
    marks: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            marks.append(time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            marks.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, num_train_epochs=materials.recipe.epochs, max_steps=steps or -1, seed=seed, use_cpu=True,
            per_device_train_batch_size=recipe.batch_size, remove_unused_columns=False, save_strategy="no", report_to=[],
            disable_tqdm=True, dataloader_pin_memory=False, bf16=precision == "bfloat16",
            train_sampling_strategy="random" if steps else "group_by_length",
        )  # fmt: skip
        Trainer(model=model, args=arguments, train_dataset=rows, data_collator=collate, callbacks=[Clock()]).train()
        times = np.diff(marks).tolist()
        if steps:
            return {"times": times}
        model.save_pretrained(folder)
        materials.start.tokenizer.save(Path(folder), max_length=model.config.max_position_embeddings)
        judge = bertwright.load(folder, threads=threads)
        scores = {part.name: judge.measure(part.inputs).metrics for part in (materials.validation, *materials.tests)}
    return {"times": times, "metrics": list(judge.task.metrics)} | scores
