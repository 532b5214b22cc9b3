"""The command line: thin commands over the functions that Python users call."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import inspect
import json
import sys
import types
import typing
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from rich.console import Console

import bertwright
from bertwright.errors import BertwrightError, BertwrightWarning
from bertwright.training.recipe import Recipe, preset, read_recipe

app = typer.Typer(
    name="bertwright",
    help="BERT the whole way: fine-tune it on your texts, judge it, use it, keep it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

Device = Annotated[str, typer.Option(help="auto, cpu or cuda.", rich_help_panel="Machine")]
Precision = Annotated[str, typer.Option(help="auto, float32 or bfloat16.", rich_help_panel="Machine")]
Threads = Annotated[int, typer.Option(help="CPU threads; 0: one for each core.", rich_help_panel="Machine")]
ModelArgument = Annotated[str, typer.Argument(help="A fine-tuned model: its directory or hub id.", show_default=False)]


def main() -> None:
    """Run the command line; a user's mistake ends in one line and exit code 2."""
    warnings.simplefilter("always", BertwrightWarning)
    warnings.showwarning = _show_warning
    try:
        app()
    except BertwrightError as error:
        _note("error", str(error))
        sys.exit(2)
    except KeyboardInterrupt as stop:
        _note("stopped", str(stop) or "interrupted")
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has seen enough
        with contextlib.suppress(OSError):
            sys.stdout = open("/dev/null", "w")  # noqa: PTH123, SIM115 - so that the last flush does not fail again
        sys.exit(0)


def _note(kind: str, message: str) -> None:
    print(f"{kind}: {message}", file=sys.stderr)


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object, **__: object
) -> None:
    if issubclass(category, BertwrightWarning):
        _note("note", str(message))
    else:
        _note("warning", f"{message} ({Path(filename).name}:{lineno})")


def _recipe_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one flag for each field of the recipe; flags that are not given stay out of ``options``."""
    own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.kind is not p.VAR_KEYWORD]
    hints = typing.get_type_hints(Recipe)
    flags = []
    for f in dataclasses.fields(Recipe):
        kind = hints[f.name]
        if isinstance(kind, types.UnionType):
            kind = next(k for k in typing.get_args(kind) if k is not type(None))
        if typing.get_origin(kind) is tuple:
            kind = str
        default = f.default if f.default is not dataclasses.MISSING else None
        shown: bool | str = False if default is None or isinstance(default, bool) else str(default)
        choices = f.metadata.get("choices")
        name = "--" + f.name.replace("_", "-")
        option = typer.Option(
            *([name] if kind is bool else []),
            help=f.metadata["help"] + (f" One of: {', '.join(choices)}." if choices and "auto" not in choices else ""),
            rich_help_panel=f.metadata["section"],
            show_default=shown,
            metavar=None if kind is bool else {int: "N", float: "X", str: "TEXT"}[kind],
        )
        annotation: Any = Annotated[kind | None, option]
        flags.append(inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation))

    def wrapped(**given: Any) -> None:
        names = {f.name for f in flags}
        options = {name: value for name, value in given.items() if name in names and value is not None}
        command(**{name: value for name, value in given.items() if name not in names}, **options)

    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + flags
    wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
    wrapped.__doc__ = command.__doc__
    wrapped.__name__ = command.__name__
    return wrapped


@app.command()
@_recipe_options
def finetune(
    recipe: Annotated[Path | None, typer.Option(help="Recipe file (TOML); flags win over it.")] = None,
    preset_name: Annotated[str | None, typer.Option("--preset", help="Settings that come with bertwright: book.")] = None,
    **options: Any,
) -> None:
    """Fine-tune a BERT on labelled texts.

    Example: bertwright finetune --train train.tsv --text sentence --label label --test test.tsv --out runs/mine
    """
    from bertwright.evaluation.report import evaluation_report
    from bertwright.finetune import finetune as run

    begin = (preset(preset_name) if preset_name else {}) | (read_recipe(recipe) if recipe else {})
    result = run(begin, **options)
    console = Console()
    for split in ("validation", "test"):
        if split in result.metrics:
            console.print(evaluation_report(result.metrics[split], f"{result.out}: {split}"))
    if "over_seeds" in result.metrics:
        from bertwright.evaluation.report import seeds_table

        console.print(seeds_table(result.metrics))
    console.print(f"written to {result.out}", markup=False, highlight=False, soft_wrap=True)
    if result.interrupted:
        raise KeyboardInterrupt(f"interrupted: {result.out} holds the best so far; go on with --resume")


@app.command()
def evaluate(
    model: ModelArgument,
    data: Annotated[Path, typer.Argument(help="Labelled rows: .tsv, .csv, .jsonl or .parquet.", show_default=False)],
    text: Annotated[str | None, typer.Option(help="Column of the text; default: as in training.")] = None,
    pair: Annotated[str | None, typer.Option(help="Column of the second text.")] = None,
    label: Annotated[str | None, typer.Option(help="Column of the label.")] = None,
    source: Annotated[str | None, typer.Option(help="Column to report results by.")] = None,
    columns: Annotated[str | None, typer.Option(help="Names of the columns, where the file has no header.")] = None,
    delimiter: Annotated[str | None, typer.Option(help="Column separator.")] = None,
    quoting: Annotated[str | None, typer.Option(help="auto, literal or csv.")] = None,
    metric: Annotated[str | None, typer.Option(help="What heads the report.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Where numbers, rows and plots go; default: evaluation-NAME in the model's directory."),
    ] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
) -> None:
    """Judge a fine-tuned model on labelled rows.

    Example: bertwright evaluate runs/mine test.tsv
    """
    from bertwright.evaluation.files import write_evaluation
    from bertwright.evaluation.report import evaluation_report

    predictor = bertwright.load(model, device=device, precision=precision, threads=threads)
    names = None if columns is None else tuple(name.strip() for name in columns.split(","))
    given = {
        "text": text, "pair": pair, "label": label, "source": source, "delimiter": delimiter, "quoting": quoting,
        "names": names,
    }  # fmt: skip
    result = predictor.evaluate(data, metric=metric, **{k: v for k, v in given.items() if v is not None})
    assert predictor.directory is not None
    folder = out or predictor.directory / f"evaluation-{data.stem}"
    write_evaluation(folder, result.metrics, result.predictions)
    console = Console()
    console.print(evaluation_report(result.metrics, f"{model}: {data.name}"))
    console.print(f"numbers, rows and plots are in {folder}", markup=False, highlight=False, soft_wrap=True)


@app.command()
def predict(
    model: ModelArgument,
    texts: Annotated[list[str] | None, typer.Argument(help="Texts; - reads one a line from standard input.")] = None,
    input: Annotated[Path | None, typer.Option(help="A file of rows with the columns of training; needs no labels.")] = None,
    pair: Annotated[list[str] | None, typer.Option(help="Second text, for pairs; once for each text.")] = None,
    format: Annotated[str, typer.Option(help="jsonl or csv.")] = "jsonl",
    output: Annotated[Path | None, typer.Option(help="File to write; default: standard output.")] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
) -> None:
    """Classify texts: given here, from a file, or streaming from standard input (pairs there: a tab between).

    An empty or unreadable line gives a record that says why it was skipped; a long one is cut, and says by how much.

    Example: bertwright predict runs/mine "a first text" "a second text"
    """
    from bertwright.data.examples import Example
    from bertwright.data.readers import read_examples, stream_lines

    if format not in ("jsonl", "csv"):
        raise BertwrightError(f"--format is {format!r}; use jsonl or csv")
    if bool(texts) == (input is not None):
        raise BertwrightError("give texts, or - for standard input, or --input FILE: one of them")
    predictor = bertwright.load(model, device=device, precision=precision, threads=threads)
    if input is not None:
        records = predictor.predict_rows(read_examples(input, dataclasses.replace(predictor.columns, label=None)))
    elif texts == ["-"]:
        lines = stream_lines(sys.stdin.buffer, "standard input", pairs=predictor.recipe.pair is not None)
        records = predictor.predict_rows(lines)
    else:
        assert texts is not None
        if pair and len(pair) != len(texts):
            raise BertwrightError(f"{len(texts)} texts but {len(pair)} --pair; each text needs its own")
        rows = [Example(text=text, pair=pair[i] if pair else None, where=f"text {i + 1}") for i, text in enumerate(texts)]
        records = predictor.predict_rows(rows)
    with _writing(output) as file:
        counts = _write_records(records, file, format, predictor.labels)
    if counts["skipped"] or counts["cut"]:
        _note(
            "note",
            f"{counts['rows']:,} rows: {counts['skipped']:,} skipped, {counts['cut']:,} cut to the longest length",
        )


@contextlib.contextmanager
def _writing(path: Path | None) -> Iterator[TextIO]:
    if path is None:
        yield sys.stdout
        sys.stdout.flush()
        return
    from bertwright.atomic import atomic_write_stream

    with atomic_write_stream(path) as file:
        yield file


def _write_records(records: Iterable[dict[str, Any]], file: TextIO, format: str, labels: tuple[str, ...]) -> dict[str, int]:
    counts = {"rows": 0, "skipped": 0, "cut": 0}
    table = csv.writer(file, lineterminator="\n")
    if format == "csv":
        table.writerow(
            ["text", "pair", "predicted", "probability", *(f"probability of {label}" for label in labels), "skipped"]
        )
    for record in records:
        counts["rows"] += 1
        counts["skipped"] += "skipped" in record
        counts["cut"] += "cut" in record
        if format == "jsonl":
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
        else:
            probabilities = record.get("probabilities", {})
            table.writerow(
                [record.get(k) for k in ("text", "pair", "predicted", "probability")]
                + [probabilities.get(label) for label in labels]
                + [record.get("skipped")]
            )
    return counts


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

    console = Console()
    for table in token_tables(texts, model, pair, max_length):
        console.print(table)


@app.command()
def quickstart(
    out: Annotated[Path, typer.Option(help="Directory of the model to write.")] = Path("runs/quickstart"),
    epochs: Annotated[int, typer.Option(help="Passes over the training sentences.")] = 3,
    seed: Annotated[int, typer.Option(help="Seed of data, order and dropout.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier quickstart.")] = False,
    threads: Threads = 0,
) -> None:
    """Fine-tune a small BERT to judge English sentences, with nothing but what is installed.

    Example: bertwright quickstart
    """
    from bertwright.quickstart import quickstart as run

    run(out, epochs=epochs, seed=seed, overwrite=overwrite, threads=threads, console=Console())
