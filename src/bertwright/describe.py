"""Tables for people who look: what a model is, what a text becomes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich import box
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from bertwright import checkpoint
from bertwright.data.catalog import KNOWN
from bertwright.errors import BertwrightError
from bertwright.evaluation.report import measured_splits
from bertwright.model import BertConfig
from bertwright.tasks import TASKS, task_class
from bertwright.tokenizer import Encoded, Tokenizer, padded
from bertwright.training.recipe import Recipe


def model_table(source: str) -> Table:
    """Describe a checkpoint: where it lies, shape, parameters, labels, recipe and headline metrics."""
    held = checkpoint.read(source)
    config = BertConfig.from_dict(held.config, str(held.config_path))
    table = Table(title=f"BERT: {escape(source)}", show_header=False, title_justify="left", width=80)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")

    def row(name: str, value: object) -> None:
        table.add_row(name, Text(str(value)))

    row("directory", held.directory)
    row("layers x width", f"{config.num_hidden_layers} x {config.hidden_size}, {config.num_attention_heads} heads")
    row("vocabulary", f"{config.vocab_size:,} word pieces")
    row("positions", f"{config.max_position_embeddings} tokens at most")
    row("parameters", f"{sum(tensor.numel() for tensor in held.tensors.values()):,}")
    row("parts", ", ".join(dict.fromkeys(name.split(".")[0] for name in held.tensors)))
    labels = held.config.get("id2label")
    if isinstance(labels, dict) and any(name.startswith(("classifier.", "head.")) for name in held.tensors):
        names = [str(label) for label in labels.values()]
        row("labels", ", ".join(names[:20]) + (f", … ({len(names)})" if len(names) > 20 else ""))
    recipe_file = held.directory / Recipe.FILE
    if recipe_file.exists():
        recipe = Recipe.read(recipe_file)
        origin = f"random weights ({recipe['config']})" if "config" in recipe else recipe.get("model")
        row("made from", f"{origin} with {recipe.get('train')}")
        row("task", recipe.get("task"))
        if recipe.get("task") in TASKS and "pair" in task_class(recipe["task"]).OPTIONS:
            row("text column", " + ".join(filter(None, (recipe.get("text"), recipe.get("pair")))))
        row("longest text", f"{recipe.get('max_length')} tokens")
        metrics_file = held.directory / "metrics.json"
        if metrics_file.exists():
            try:
                metrics = json.loads(metrics_file.read_text(encoding="utf-8"))
                for split, measured in measured_splits(metrics).items():
                    headline = measured["headline"]
                    low, high = headline["interval_95"]
                    row(split, f"{headline['metric']} {headline['value']:.4f} (95% interval {low:.4f} to {high:.4f})")
                if metrics.get("interrupted"):
                    row("note", "the run was interrupted: this is its best state so far")
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise BertwrightError(f"{metrics_file}: damaged ({error}); remove it, or evaluate anew") from error
    return table


def tasks_table() -> Table:
    """What can be learned: each task's name, what it gives, and what measures it; the first measure is the default."""
    table = Table(title="Tasks", title_justify="left", width=80, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("--task", no_wrap=True, style="bold")
    table.add_column("what is learned")
    table.add_column("measured by")
    for name in TASKS:
        kind = task_class(name)
        table.add_row(name, Text(kind.SUMMARY), Text(", ".join(kind.METRICS)))
    return table


def known_table() -> Table:
    """The data sets that are known by name: task, rows to learn from and to judge by, and what picks the best epoch."""
    table = Table(
        title="Known data sets", title_justify="left", width=80, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False
    )
    table.add_column("name", no_wrap=True, style="bold")
    table.add_column("task", no_wrap=True)
    table.add_column("train", justify="right")
    table.add_column("test", justify="right")
    table.add_column("metric")
    for name, known in KNOWN.items():
        metric = known.settings.get("metric")
        titles = task_class(known.task).METRICS if known.task in TASKS else {}
        metric = metric or next(iter(titles), "")
        train, test = known.rows
        table.add_row(name, known.task, f"{train:,}", f"{test:,}", titles.get(metric, metric))
    return table


def token_tables(texts: Sequence[str], source: str, pair: str | None, max_length: int | None) -> Iterator[Table]:
    """Yield one table for each text, with the padding that others put behind short texts."""
    path = Path(source)
    if path.is_file() and path.suffix == ".txt":
        tokenizer = Tokenizer.from_vocab(path)
    else:
        directory = checkpoint.resolve(source)
        if directory.is_file():
            directory = directory.parent
        tokenizer = Tokenizer.from_directory(directory)
    if not texts:
        raise BertwrightError("give at least one text")
    pairs = None if pair is None else [pair] * len(texts)
    encoded: list[Encoded] = tokenizer.encode_batch(texts, pairs, max_length=max_length)
    for text, one, ids, segments, mask in zip(texts, encoded, *padded(encoded, tokenizer), strict=True):
        table = Table(title=escape(text), title_justify="left")
        table.add_column("token")
        for column in ("id", "segment", "mask"):
            table.add_column(column, justify="right")
        for token, id, segment, real in zip(tokenizer.tokens(ids), ids, segments, mask, strict=True):
            table.add_row(Text(token), str(id), str(segment), str(real), style=None if real else "dim")
        if one.cut:
            table.caption = f"{one.cut} tokens were cut"
        yield table
