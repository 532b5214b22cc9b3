"""The usual ways to fine-tune BERT on a CPU, each timed step by step; one call measures one of them in this process.

    python -m benchmarks.peers VARIANT JSON

``finetune_cpu.py`` calls it once for each variant and round, so that every measurement starts in a fresh process.

Variants: ``padded-128`` pads every batch to 128 tokens, as teaching material does; ``padded-longest`` pads to the
batch's longest text; ``trainer`` is transformers.Trainer with dynamic padding and batches grouped by length;
``bertwright`` is this project.
"""

from __future__ import annotations

import json
import math
import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bertwright import checkpoint
from bertwright.data.examples import Columns, Example
from bertwright.data.readers import read_examples
from bertwright.data.splits import stratified_split
from bertwright.evaluation.metrics import METRICS
from bertwright.training.epochs import Epochs
from bertwright.training.schedule import learning_rate

COLA = Columns(text="sentence", label="label", names=("source", "label", "note", "sentence"))


def read_cola(folder: Path) -> tuple[list[Example], list[Example], list[Example]]:
    """Return (training, validation, test): nine tenths and a tenth of the in-domain rows, and the out-of-domain ones."""
    rows = list(read_examples(folder / "in_domain_train.tsv", COLA))
    inside, aside = stratified_split([row.label for row in rows], 0.1, 2018)
    test = list(read_examples(folder / "out_of_domain_dev.tsv", COLA))
    return [rows[i] for i in inside], [rows[i] for i in aside], test


def _transformers(setting: dict[str, Any]) -> tuple[Any, Any]:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    directory = checkpoint.resolve(setting["model"])
    torch.manual_seed(setting["seed"])
    model = AutoModelForSequenceClassification.from_pretrained(directory, num_labels=2)
    if not setting["dropout"]:
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
            if hasattr(module, "dropout_prob"):
                module.dropout_prob = 0.0
    return model, AutoTokenizer.from_pretrained(directory)


def _grouped(model: Any, decay: float) -> list[dict[str, Any]]:
    plain = ("bias", "LayerNorm.weight")
    named = list(model.named_parameters())
    return [
        {"params": [p for n, p in named if not n.endswith(plain)], "weight_decay": decay},
        {"params": [p for n, p in named if n.endswith(plain)], "weight_decay": 0.0},
    ]


def padded(setting: dict[str, Any], *, longest: bool) -> dict[str, Any]:
    """The plain loop around transformers' BERT."""
    train, validation, test = read_cola(Path(setting["data"]))
    model, tokenizer = _transformers(setting)
    classifier = setting.get("classifier")
    if classifier:  # the same new weights as bertwright's, to compare losses
        held = np.load(classifier)
        with torch.no_grad():
            model.classifier.weight.copy_(torch.from_numpy(held["weight"]))
            model.classifier.bias.copy_(torch.from_numpy(held["bias"]))
    epochs = Epochs(len(train), setting["batch_size"], 1, setting["seed"])
    total = setting["steps"] or setting["epochs"] * epochs.steps
    options = {"truncation": True, "max_length": 128, "return_tensors": "pt"}
    padding = "longest" if longest else "max_length"
    targets = np.array([int(row.label or 0) for row in train])
    optimizer = torch.optim.AdamW(_grouped(model, setting["decay"]), lr=setting["rate"])
    times, losses, tokens, best = [], [], [], None
    model.train()
    for step in range(total):
        (rows,) = epochs.batches(step)
        began = time.perf_counter()
        batch = tokenizer([train[i].text for i in rows], padding=padding, **options)
        loss = model(**batch, labels=torch.from_numpy(targets[rows])).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, total, setting["rate"], setting["warmup"], "linear")
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss))
        times.append(time.perf_counter() - began)
        tokens.append(int(batch["attention_mask"].sum()))
        if setting["quality"] and (step + 1) % epochs.steps == 0:
            scores = {"validation": _matthews(model, tokenizer, validation), "test": _matthews(model, tokenizer, test)}
            if best is None or scores["validation"] > best["validation"]:
                best = scores | {"epoch": (step + 1) // epochs.steps}
            print(f"  epoch {(step + 1) // epochs.steps}: {scores}", file=sys.stderr, flush=True)
            model.train()
    return {"times": times, "losses": losses, "tokens": tokens, "quality": best}


def _matthews(model: Any, tokenizer: Any, rows: list[Example]) -> float:
    model.eval()
    predicted: list[int] = []
    with torch.inference_mode():
        for i in range(0, len(rows), 64):
            batch = tokenizer([row.text for row in rows[i : i + 64]], padding=True, truncation=True, return_tensors="pt")
            predicted += model(**batch).logits.argmax(-1).tolist()
    return METRICS["matthews_correlation"]([int(row.label or 0) for row in rows], predicted, 2)


def trainer(setting: dict[str, Any]) -> dict[str, Any]:
    """transformers.Trainer, dynamic padding, batches grouped by length."""
    import tempfile

    from transformers import DataCollatorWithPadding, Trainer, TrainerCallback, TrainingArguments

    train, _, _ = read_cola(Path(setting["data"]))
    model, tokenizer = _transformers(setting)
    encoded = tokenizer([row.text for row in train], truncation=True, max_length=128)
    rows = [
        {"input_ids": ids, "attention_mask": mask, "length": len(ids), "labels": int(row.label or 0)}
        for ids, mask, row in zip(encoded["input_ids"], encoded["attention_mask"], train, strict=True)
    ]
    marks: list[float] = []
    losses: list[float] = []
    tokens: list[int] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            marks.append(time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            marks.append(time.perf_counter())

        def on_log(self, *_: Any, logs: dict[str, Any] | None = None, **__: Any) -> None:
            if logs and "loss" in logs:
                losses.append(float(logs["loss"]))

    collate = DataCollatorWithPadding(tokenizer)

    def counted(batch: list[dict[str, Any]]) -> Any:
        tokens.append(sum(row["length"] for row in batch))
        return collate([{k: v for k, v in row.items() if k != "length"} for row in batch])

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, max_steps=setting["steps"], per_device_train_batch_size=setting["batch_size"],
            learning_rate=setting["rate"], weight_decay=setting["decay"], max_grad_norm=1.0, lr_scheduler_type="linear",
            train_sampling_strategy="group_by_length", length_column_name="length", remove_unused_columns=False,
            save_strategy="no", report_to=[], logging_steps=1, seed=setting["seed"], use_cpu=True, disable_tqdm=True,
            dataloader_pin_memory=False,
        )  # fmt: skip
        Trainer(model=model, args=arguments, train_dataset=rows, data_collator=counted, callbacks=[Clock()]).train()
    times = np.diff(marks).tolist()
    return {"times": times, "losses": losses, "tokens": tokens[: len(times)], "quality": None}


def bertwright(setting: dict[str, Any]) -> dict[str, Any]:
    """This project, through the function that its users call."""
    import tempfile

    from rich.console import Console

    from benchmarks import records
    from bertwright.finetuning import finetune
    from bertwright.training.observers import read_history

    folder = Path(setting["data"])
    with tempfile.TemporaryDirectory() as out:
        run = records.whole(finetune(
            model=setting["model"], train=str(folder / "in_domain_train.tsv"), columns=list(COLA.names), text="sentence",
            label="label", test=str(folder / "out_of_domain_dev.tsv"), out=str(Path(out) / "run"),
            learning_rate=setting["rate"], warmup=setting["warmup"], weight_decay=setting["decay"],
            batch_size=setting["batch_size"], metric="matthews_correlation", seed=setting["seed"],
            threads=setting["threads"], precision=setting.get("precision", "float32"),
            epochs=setting["epochs"], steps=setting["steps"] or None, dropout=None if setting["dropout"] else 0.0,
            console=Console(quiet=True),
        ))  # fmt: skip
        history = [r for r in read_history(run.out / "history.jsonl") if r["kind"] == "step"]
    quality = {
        "validation": run.metrics["validation"]["matthews_correlation"],
        "test": run.metrics["test"]["matthews_correlation"],
        "epoch": run.metrics["best_epoch"],
    }
    return {
        "times": [r["seconds"] for r in history],
        "losses": [r["loss"] for r in history],
        "tokens": [r["tokens"] for r in history],
        "quality": quality if setting["quality"] else None,
    }


def matrix_product_peak() -> float:
    """GFLOP/s of the best of a few float32 products, through the quickest library that torch has here."""
    from bertwright.linear import Linear

    best = 0.0
    with torch.inference_mode():
        for size in (1024, 2048):
            a, layer = torch.randn(size, size), Linear(size, size)
            for _ in range(6):
                best = max(best, _rate(size, partial(torch.matmul, a, a)), _rate(size, partial(layer, a)))
    return best


def _rate(size: int, product: Callable[[], object]) -> float:
    began = time.perf_counter()
    product()
    return 2 * size**3 / (time.perf_counter() - began) / 1e9


VARIANTS = {
    "padded-128": lambda setting: padded(setting, longest=False),
    "padded-longest": lambda setting: padded(setting, longest=True),
    "trainer": trainer,
    "bertwright": bertwright,
    "bertwright-bfloat16": lambda setting: bertwright(setting | {"precision": "bfloat16"}),
}


def main() -> None:
    variant, setting = sys.argv[1], json.loads(sys.argv[2])
    torch.set_num_threads(setting["threads"])
    peak = matrix_product_peak()
    result = VARIANTS[variant](setting)  # type: ignore[no-untyped-call]
    result["peak_gflops"] = max(peak, matrix_product_peak())
    result["peak_memory_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert all(math.isfinite(loss) for loss in result["losses"])
    print(json.dumps(result))


if __name__ == "__main__":
    main()
