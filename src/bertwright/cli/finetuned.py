"""The commands around a fine-tuned model: finetune, evaluate, predict."""

from __future__ import annotations

import csv
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer
from rich.console import Console

import bertwright
from bertwright.cli.app import Device, ModelArgument, Precision, Threads, app, check_output, cleared, flags_of, note, writing
from bertwright.errors import BertwrightError
from bertwright.interrupts import Stopped
from bertwright.training.options import flag
from bertwright.training.recipe import ANSWERS, READING, Recipe, preset

if TYPE_CHECKING:
    from bertwright.masked_lm import MaskedLM
    from bertwright.tasks.task import Task


@app.command()
@flags_of(Recipe)
def finetune(
    name: Annotated[
        str | None, typer.Argument(help="A known data set, such as cola; the same as --dataset.", show_default=False)
    ] = None,
    recipe: Annotated[Path | None, typer.Option(help="Recipe file (TOML); flags win over it.")] = None,
    preset_name: Annotated[str | None, typer.Option("--preset", help="Settings that come with bertwright: book.")] = None,
    **options: Any,
) -> None:
    """Fine-tune a BERT on labelled texts.

    Example: bertwright finetune --train train.tsv --text sentence --label label --test test.tsv --out runs/mine

    A known data set: bertwright finetune cola --out runs/cola
    """
    if name is not None:
        if options.get("dataset") not in (None, name):
            raise BertwrightError(f"{name} and --dataset {options['dataset']}: name one data set")
        options["dataset"] = name
    from bertwright.evaluation.report import measured_splits, seeds_table
    from bertwright.finetuning import finetune as run
    from bertwright.workspace import resume_command

    written = Recipe.read(recipe) if recipe else {}
    begin = preset(preset_name) if preset_name else {}
    begin = {name: value for name, value in begin.items() if name not in Recipe.replaced(written)} | written
    result = run(begin, **cleared(Recipe, options))
    console = Console()
    try:
        for split, measured in measured_splits(result.metrics).items():
            console.print(result.model.task.report(measured, f"{result.out}: {split}"), "")
        if "over_seeds" in result.metrics:
            console.print(seeds_table(result.metrics, result.model.task.METRICS), "")
        console.print(f"written to {result.out}", markup=False, highlight=False, soft_wrap=True)
    finally:  # also where standard output went away with the terminal
        if result.interrupted:
            again = resume_command("finetune", result.out)
            raise Stopped(f"{result.out} holds the best so far; go on with: {again}", result.stopped_by)


@app.command()
@flags_of(Recipe, READING)
def evaluate(
    model: ModelArgument,
    data: Annotated[
        Path,
        typer.Argument(
            help="Labelled rows, in a file as those of training; minimal pairs: .jsonl, a folder of them, .tar.xz.",
            show_default=False,
        ),
    ],
    task: Annotated[
        str | None, typer.Option(help="blimp: minimal pairs, with a pretrained model; default: what it was trained for.")
    ] = None,
    metric: Annotated[str | None, typer.Option(help="What heads the report; default: as in training.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Where numbers, rows and plots go; default: evaluation-NAME in the model's directory."),
    ] = None,
    sets: Annotated[
        str | None, typer.Option(help="Sets or phenomena, a comma between.", rich_help_panel="Minimal pairs")
    ] = None,
    per_set: Annotated[
        int | None, typer.Option(help="Pairs of each set, evenly spaced; default: all.", rich_help_panel="Minimal pairs")
    ] = None,
    score: Annotated[
        str,
        typer.Option(
            help="pll, or pll-word-l2r, which is fairer to words of several pieces.", rich_help_panel="Minimal pairs"
        ),
    ] = "pll",
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    **given: Any,
) -> None:
    """Judge a fine-tuned model on labelled rows, or a pretrained one on minimal pairs.

    Options that say how a file is read default to training's; --columns "" drops training's, as do --pair and --source.

    Example: bertwright evaluate runs/mine test.tsv
    """
    from bertwright.data.hub_rows import is_hub
    from bertwright.evaluation.files import check_place, write_evaluation
    from bertwright.evaluation.progress import TokenProgress
    from bertwright.hub import ALIASES, Packaged

    homeless = out is None and not Path(model).is_dir()
    if homeless and (task == "blimp" or not isinstance(ALIASES.get(model), Packaged)):
        raise BertwrightError(_no_directory(model, data))
    name = str(data) if is_hub(data) else data.name.removesuffix(".tar.xz").removesuffix(data.suffix)
    folder = out or Path(model) / f"evaluation-{re.sub('[:/@]', '-', name)}"
    check_place(folder, data)  # before the work
    if task not in (None, "blimp"):
        raise BertwrightError(f"--task is {task!r}; a fine-tuned model knows its task: leave it out, or use blimp")
    if task == "blimp":
        if given or metric is not None:
            raise BertwrightError("--task blimp has fields of its own: leave --text, --label, --columns, --metric … out")
        lm = bertwright.load_masked_lm(model, device=device, precision=precision, threads=threads)
        _evaluate_minimal_pairs(lm, data, folder, sets, per_set, score)
        return
    if sets is not None or per_set is not None or score != "pll":
        raise BertwrightError("--sets, --per-set and --score say how to judge minimal pairs: give them with --task blimp")
    predictor = bertwright.load(model, device=device, precision=precision, threads=threads)
    if homeless:  # what a packaged model lacks is told first
        raise BertwrightError(_no_directory(model, data))
    with TokenProgress("evaluating", Console(stderr=True)) as progress:
        result = predictor.evaluate(data, metric=metric, progress=progress, **cleared(Recipe, given))
    judge = predictor.task
    _note_replaced_evaluation(folder)
    write_evaluation(folder, result.metrics, result.predictions, judge.draw, judge.files(result.predictions))
    console = Console()
    console.print(predictor.task.report(result.metrics, f"{model}: {data.name}"), "")
    console.print(f"numbers, rows and plots are in {folder}", markup=False, highlight=False, soft_wrap=True)


def _no_directory(model: str, data: Path) -> str:
    from bertwright.hub import near

    if Path(model).is_file() and data.is_dir():
        return f"{model} is a file; the model comes first: bertwright evaluate {data} {model}"
    return f"{model} is no directory of a model{near(model)}; for one of the hub, say with --out where its numbers go"


def _note_replaced_evaluation(folder: Path) -> None:
    from bertwright.evaluation.files import PREDICTIONS

    if (folder / PREDICTIONS).exists():
        note("note", f"{folder}: the evaluation that was there is replaced; --out keeps both")


def _evaluate_minimal_pairs(
    lm: MaskedLM, data: Path, folder: Path, sets: str | None, per_set: int | None, score: str
) -> None:
    from bertwright.evaluation.minimal_pairs import minimal_pairs_report, write_minimal_pairs
    from bertwright.evaluation.progress import TokenProgress

    only = [name.strip() for name in (sets or "").split(",") if name.strip()]
    console = Console()
    with TokenProgress("scoring", Console(stderr=True)) as progress:
        result = lm.evaluate_blimp(data, only=only, per_set=per_set, method=score, progress=progress)
    metrics = result.metrics
    _note_replaced_evaluation(folder)
    write_minimal_pairs(folder, result.accuracies, metrics, result.predictions)
    console.print(minimal_pairs_report(result.accuracies, f"{data.name}, {score}"), "")
    if metrics["pairs"] < metrics["pairs_in_data"]:
        note("note", f"{metrics['pairs']:,} of {metrics['pairs_in_data']:,} pairs, {per_set:,} of each set, evenly spaced")
    if unknown := metrics["unknown_tokens"]:
        note("note", f"{unknown:,} of {metrics['tokens']:,} tokens are [UNK]: the vocabulary cannot spell them")
    console.print(f"numbers, pairs and plot are in {folder}", markup=False, highlight=False, soft_wrap=True)


@app.command()
@flags_of(Recipe, [name for name in READING if name not in ANSWERS])
def predict(
    model: ModelArgument,
    texts: Annotated[list[str] | None, typer.Argument(help="Texts; - reads one a line from standard input.")] = None,
    input: Annotated[Path | None, typer.Option(help="A file of rows; it needs no labels.", rich_help_panel="Data")] = None,
    pair: Annotated[
        list[str] | None,
        typer.Option(
            help="Second text, once for each text (of multiple choice: an ending of the one text); with --input its column.",
            rich_help_panel="Data",
        ),
    ] = None,
    format: Annotated[
        str | None, typer.Option(help="jsonl or csv; default: csv for an --output that ends so, else jsonl.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="File to write; default: standard output.")] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    **given: Any,
) -> None:
    """Predict for texts: given here, from a file, or streaming from standard input.

    On standard input each line is a text (for a model of pairs: two, a tab between; of multiple choice: a text and its
    endings, a tab before each).

    A line that is empty or unreadable gets a record that says why it was skipped.

    A text that is too long is cut, and its record says by how much.

    Options that say how a file is read default to training's; --columns "" drops training's.

    Example: bertwright predict runs/mine "a first text" "a second text"

    Rows of a file: bertwright predict runs/mine --input more.tsv --format csv --output predictions.csv
    """
    ending = output.suffix.lower().removeprefix(".") if output is not None else ""
    if format not in (None, "jsonl", "csv"):
        raise BertwrightError(f"--format is {format!r}; use jsonl or csv")
    if format is not None and ending in {"jsonl", "csv"} - {format}:
        raise BertwrightError(f"--format is {format}, but --output ends in .{ending}: change one of them")
    format = format or ("csv" if ending == "csv" else "jsonl")
    if bool(texts) == (input is not None) or (texts is not None and len(texts) > 1 and "-" in texts):
        raise BertwrightError("give texts, or - for standard input, or --input FILE: one of them")
    if given and input is None:
        raise BertwrightError(f"{flag(next(iter(given)))} says how to read a file: give it with --input")
    check_output(output, "--output", "-" if texts == ["-"] else input)
    predictor = bertwright.load(model, device=device, precision=precision, threads=threads)
    if input is not None:
        if pair and len(pair) > 1:
            raise BertwrightError(f"--pair is given {len(pair)} times; with --input it names one column")
        if pair:
            given["pair"] = pair[0]
        records = predictor.predict_rows(predictor.read(input, labelled=False, **cleared(Recipe, given)))
    elif texts == ["-"]:
        if pair:
            raise BertwrightError("--pair goes with texts given here; on standard input a tab comes before the second text")
        rows = predictor.read_stream(sys.stdin.buffer, "standard input", live=output is None or output.is_fifo())
        records = predictor.predict_rows(rows)
    else:
        assert texts is not None
        for text in texts:
            if os.path.isfile(text):  # noqa: PTH113 - Path's own raises for texts that are no names
                note("note", f"{text} is read as a text; the rows of a file are read with --input")
        records = predictor.predict_rows(predictor.examples(texts, predictor.task.beside(texts, pair or [])))
    with writing(output) as file:
        counts = _write_records(records, file, format, predictor.task)
    if counts["skipped"] or counts["cut"]:
        note(
            "note",
            f"{counts['rows']:,} rows: {counts['skipped']:,} skipped, {counts['cut']:,} cut to the longest length",
        )


def _write_records(records: Iterable[dict[str, Any]], file: TextIO, format: str, task: Task) -> dict[str, int]:
    counts = {"rows": 0, "skipped": 0, "cut": 0}

    def counted() -> Iterator[dict[str, Any]]:
        for record in records:
            counts["rows"] += 1
            counts["skipped"] += "skipped" in record
            counts["cut"] += "cut" in record
            yield record

    rows = csv.writer(file, lineterminator="\n")
    for item in counted() if format == "jsonl" else task.table(counted()):
        if isinstance(item, dict):
            file.write(json.dumps(item, ensure_ascii=False) + "\n")
        else:
            rows.writerow(item)
    return counts
