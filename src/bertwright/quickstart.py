"""The front door: a fine-tuned judge of English sentences in about a minute, with no model hub and no data at hand."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bertwright.data.acceptability import HELD_OUT, generate, write_tsv
from bertwright.errors import BertwrightError
from bertwright.evaluation.progress import TokenProgress
from bertwright.finetuning import Run, finetune
from bertwright.interrupts import Stopped
from bertwright.training.recipe import Recipe
from bertwright.workspace import Workspace, named_command, resume_command

FILES = {"train": "train.tsv", "validation": "validation.tsv", "test": "new_words.tsv"}
UNSEEN = "new_constructions.tsv"
_EXAMPLES = ("The sisters near the lamp laugh.", "The sisters near the lamp laughs.")


def quickstart(
    out: Path,
    *,
    epochs: int | None = None,
    seed: int | None = None,
    overwrite: bool = False,
    resume: bool = False,
    threads: int = 0,
    console: Console,
) -> Run:
    """Write the built-in data, fine-tune MiniLM on it, judge it on unseen words and constructions, and say how to go on.

    The data lies beside ``out``, in ``<out>-data``. Epochs are 3 and the seed 0 where they are not given; ``resume`` goes
    on with a run that was stopped.

    Raises:
        BertwrightError: ``out`` is taken, or anything that :func:`finetune` raises.
        Stopped: it was stopped; what was trained so far is kept.
    """
    numbers = {"epochs": epochs, "seed": seed, "threads": threads or None}
    given: dict[str, Any] = {"out": str(out)} | {name: value for name, value in numbers.items() if value is not None}
    given |= {name: True for name, asked in (("overwrite", overwrite), ("resume", resume)) if asked}
    folder = out.with_name(out.name + "-data")
    with named_command("quickstart"):
        options = _options(given, folder)
        rows = _write_data(folder, options["seed"], keep=resume)
        console.print(
            f"built-in data: {rows:,} sentences to learn from, in {folder} "
            "(made from templates: a smoke test of the whole way, not a benchmark)",
            highlight=False,
            soft_wrap=True,
        )
        run = finetune(given if resume else options, console=Console(stderr=True) if console.is_terminal else console)
        if run.interrupted:
            raise Stopped(f"{out} holds the best so far; go on with: {resume_command('quickstart', out)}", run.stopped_by)
    _show(run, folder / UNSEEN, console)
    return run


def _options(given: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What is fine-tuned, or, to resume, what was begun."""
    place = Workspace.claim(Recipe.of(given))
    if "resume" in given:
        begun = Recipe.read(place.folder / Recipe.FILE)
        if any(Path(str(begun.get(name))).resolve() != (folder / file).resolve() for name, file in FILES.items()):
            raise BertwrightError(f"{place.out}: no quickstart began this run; resume it with bertwright finetune")
        return {"seed": 0} | begun
    files = {name: str(folder / file) for name, file in FILES.items()}
    return {
        "model": "minilm", "text": "sentence", "label": "label", "source": "construction", "max_length": 64,
        "learning_rate": 1e-4, "epochs": 3, "seed": 0,
    } | files | given  # fmt: skip


def _write_data(folder: Path, seed: int, *, keep: bool) -> int:
    """Write the parts of the data, with ``keep`` those that are missing; return how many sentences there are to train on."""
    data = generate(seed)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BertwrightError(f"{folder}: cannot be made: {error.strerror}; choose another --out") from error
    parts = (data.train, data.validation, data.test_new_words, data.test_new_constructions)
    for name, sentences in zip((*FILES.values(), UNSEEN), parts, strict=True):
        if not (keep and (folder / name).exists()):
            write_tsv(sentences, folder / name)
    return len(data.train)


def _show(run: Run, unseen: Path, console: Console) -> None:
    """Print how good the model is, two predictions, and what to type next."""
    table = Table(title="Can it tell acceptable from unacceptable?", title_justify="left")
    table.add_column("sentences")
    for heading in ("count", "accuracy", "Matthews", "majority"):
        table.add_column(heading, justify="right")
    evaluations = {"validation": run.metrics["validation"], "new words": run.metrics["test"]}
    with TokenProgress("measuring on new constructions", console) as progress:
        evaluations["new constructions"] = run.model.evaluate(unseen, progress=progress).metrics
    titles = {
        "validation": "known words, known constructions",
        "new words": "new words, known constructions",
        "new constructions": "new words, new constructions",
    }
    for name, metrics in evaluations.items():
        table.add_row(
            titles[name], f"{metrics['examples']:,}", f"{metrics['accuracy']:.3f}",
            f"{metrics['matthews_correlation']:.3f}", f"{metrics['majority_accuracy']:.3f}",
        )  # fmt: skip
        if name == "validation":
            continue
        for construction, part in metrics["per_source"].items():
            table.add_row(
                f"  {construction.replace('_', ' ')}", f"{part['examples']:,}", f"{part['accuracy']:.3f}",
                f"{part['matthews_correlation']:.3f}", "", style="dim",
            )  # fmt: skip
    console.print(table)
    for answer in run.model.predict(list(_EXAMPLES)):
        console.print(f"  {answer['probability']:.2f} {answer['predicted']:<12} {answer['text']}", highlight=False)
    seconds = run.metrics["training"]["seconds"]
    model, file = shlex.quote(str(run.out)), shlex.quote(str(unseen))
    console.print(
        f"\ntrained in {seconds:.0f} s; the model, its plots and numbers are in {run.out} "
        f"({len(HELD_OUT)} constructions were held out)\n\ngo on with:\n"
        f'  bertwright predict {model} "The boy admires herself." "The girl admires herself."\n'
        f"  bertwright evaluate {model} {file}\n"
        f"  bertwright info {model}\n"
        "  bertwright finetune --train your.tsv --text COLUMN --label COLUMN --out runs/yours",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
