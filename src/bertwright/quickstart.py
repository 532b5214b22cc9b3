"""The front door: a fine-tuned judge of English sentences in about a minute, with no model hub and no data at hand."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bertwright.data.acceptability import HELD_OUT, generate, write_tsv
from bertwright.errors import BertwrightError
from bertwright.finetuning import Run, finetune
from bertwright.interrupts import Stopped
from bertwright.training.recipe import Recipe
from bertwright.workspace import Workspace, resume_command

_EXAMPLES = ("The sisters near the lamp laugh.", "The sisters near the lamp laughs.")


def quickstart(
    out: Path,
    *,
    epochs: int = 3,
    seed: int = 0,
    overwrite: bool = False,
    resume: bool = False,
    threads: int = 0,
    console: Console,
) -> Run:
    """Write the built-in data, fine-tune MiniLM on it, judge it on unseen words and constructions, and say how to go on.

    The data lies beside ``out``, in ``<out>-data``. With ``resume`` a run that was stopped goes on, as it was begun.

    Raises:
        BertwrightError: ``out`` is taken, or anything that :func:`finetune` raises.
        Stopped: it was stopped; what was trained so far is kept.
    """
    options: dict[str, Any] = {"out": str(out), "threads": threads}
    options |= {"resume": True} if resume else {"epochs": epochs, "seed": seed, "overwrite": overwrite}
    place = Workspace.claim(Recipe.of(options))
    folder = out.with_name(out.name + "-data")
    if resume:
        begun = place.resumed(Recipe, {})
        if begun.train != str(folder / "train.tsv"):
            raise BertwrightError(f"{out}: no quickstart began this run; go on with: {place.resume_command}")
        seed = begun.seed
    data = generate(seed)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BertwrightError(f"{folder}: cannot be made: {error.strerror}; choose another --out") from error
    parts = {
        "train": data.train,
        "validation": data.validation,
        "new words": data.test_new_words,
        "new constructions": data.test_new_constructions,
    }
    files = {name: folder / f"{name.replace(' ', '_')}.tsv" for name in parts}
    for name, sentences in parts.items():
        write_tsv(sentences, files[name])
    console.print(
        f"built-in data: {len(data.train):,} sentences to learn from, in {folder} "
        "(made from templates: a smoke test of the whole way, not a benchmark)",
        highlight=False,
        soft_wrap=True,
    )
    if not resume:
        options |= {
            "model": "minilm", "train": files["train"], "validation": files["validation"], "test": files["new words"],
            "text": "sentence", "label": "label", "source": "construction", "max_length": 64, "learning_rate": 1e-4,
        }  # fmt: skip
    run = finetune(options, console=Console(stderr=True) if console.is_terminal else console)
    if run.interrupted:
        raise Stopped(f"{out} holds the best so far; go on with: {resume_command('quickstart', out)}", run.stopped_by)
    table = Table(title="Can it tell acceptable from unacceptable?", title_justify="left")
    table.add_column("sentences")
    for heading in ("count", "accuracy", "Matthews", "majority"):
        table.add_column(heading, justify="right")
    evaluations = {"validation": run.metrics["validation"], "new words": run.metrics["test"]}
    evaluations["new constructions"] = run.model.evaluate(files["new constructions"]).metrics
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
    model, unseen = (shlex.quote(str(path)) for path in (out, files["new constructions"]))
    console.print(
        f"\ntrained in {seconds:.0f} s; the model, its plots and numbers are in {out} "
        f"({len(HELD_OUT)} constructions were held out)\n\ngo on with:\n"
        f'  bertwright predict {model} "The boy admires herself." "The girl admires herself."\n'
        f"  bertwright evaluate {model} {unseen}\n"
        f"  bertwright info {model}\n"
        "  bertwright finetune --train your.tsv --text COLUMN --label COLUMN --out runs/yours",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    return run
