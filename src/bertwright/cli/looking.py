"""The commands to look and to try: info, tasks, tokenize, quickstart."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bertwright.cli.app import Threads, app, note


@app.command()
def info(
    model: Annotated[str, typer.Argument(help="Alias, directory, weights file or hub id.", show_default=False)],
) -> None:
    """Show what a model is: its shape, labels, how it was made and how good it is.

    Example: bertwright info runs/mine
    """
    from bertwright.describe import model_table

    Console().print(model_table(model))


@app.command()
def tasks() -> None:
    """List what can be learned, and the data sets that are known by name.

    Example: bertwright tasks
    """
    from bertwright.describe import known_table, tasks_table

    console = Console()
    console.print(tasks_table(), "")
    console.print(known_table(), "")
    console.print("fine-tune on one: bertwright finetune NAME --out DIRECTORY", markup=False, highlight=False)
    console.print(
        "with files of it: bertwright finetune NAME --data DIRECTORY --out DIRECTORY", markup=False, highlight=False
    )


@app.command()
def tokenize(
    texts: Annotated[list[str], typer.Argument(help="Texts to look at.", show_default=False)],
    model: Annotated[str, typer.Option(help="Whose vocabulary: alias, directory, hub id, or a vocab.txt.")] = "minilm",
    pair: Annotated[str | None, typer.Option(help="Second text, put after each.")] = None,
    max_length: Annotated[int | None, typer.Option(help="Longest length in tokens.")] = None,
) -> None:
    """Show the word pieces of texts as the model sees them: tokens, ids, segments and mask, padded for display.

    Example: bertwright tokenize --model minilm "flightless birds"
    """
    from bertwright.describe import token_tables
    from bertwright.hub import ALIASES

    console = Console()
    if len(texts) > 1 and texts[0] in ALIASES:
        note("note", f"{texts[0]!r} is read as a text; whose vocabulary it is, is said with --model")
    for table in token_tables(texts, model, pair, max_length):
        console.print(table)


@app.command()
def quickstart(
    out: Annotated[Path, typer.Option(help="Directory of the model to write.")] = Path("runs/quickstart"),
    epochs: Annotated[int | None, typer.Option(help="Passes over the training sentences; default: 3.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of data, order and dropout; default: 0.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier quickstart.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with one that was stopped.")] = False,
    threads: Threads = 0,
) -> None:
    """Fine-tune a small BERT to judge English sentences, with nothing but what is installed.

    Example: bertwright quickstart
    """
    from bertwright.quickstart import quickstart as run

    run(out, epochs=epochs, seed=seed, overwrite=overwrite, resume=resume, threads=threads, console=Console())
