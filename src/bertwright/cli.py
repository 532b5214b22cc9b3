"""The command line: thin commands over the functions that Python users call."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import inspect
import io
import json
import os
import signal
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
from bertwright.evaluation.report import literal
from bertwright.training.recipe import Recipe, flag, preset, read_recipe

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


# What a wrong command line raises; newer versions of typer bring it themselves, older ones take it from click.
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]


def main() -> None:
    """Run the command line. A user's mistake ends in one line and exit code 2, Ctrl-C or SIGTERM in 130."""
    warnings.simplefilter("always", BertwrightWarning)
    warnings.showwarning = _show_warning
    signal.signal(signal.SIGTERM, _interrupt)
    sys.exit(_run(sys.argv[1:] or ["--help"]))


def _run(arguments: list[str]) -> int:
    # Not typer's own main: it would make a box of an error, and lose what an interrupted run has to say.
    command = typer.main.get_command(app)
    try:
        with command.make_context("bertwright", arguments) as context:
            command.invoke(context)
        sys.stdout.flush()
    except typer.Exit as end:
        return end.exit_code
    except _UsageError as error:
        _note("error", _usage(error))
        return 2
    except BertwrightError as error:
        _note("error", str(error))
        return 2
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's own, which is not imported for --help
            raise
        _note("error", "the GPU's memory is full; lower --batch-size (and raise --accumulate) or --max-length")
        return 2
    except KeyboardInterrupt as stop:
        _note("stopped", str(stop) or "interrupted")
        return 130
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the last flush does not fail again
    return 0


def _usage(error: Any) -> str:
    message = error.format_message().rstrip(".")
    return message if error.ctx is None else f"{message}; see {error.ctx.command_path} --help"


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _note(kind: str, message: str) -> None:
    print(f"{kind}: {literal(message)}", file=sys.stderr)


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
    kinds = {name: _plain(hint) for name, hint in typing.get_type_hints(Recipe).items()}
    flags = []
    for f in dataclasses.fields(Recipe):
        kind = kinds[f.name]
        choices = f.metadata.get("choices", ())
        text = f.metadata["help"] + (f" One of: {', '.join(choices)}." if choices and "auto" not in choices else "")
        # As part of the text: were it the flag's own default, one could not tell whether the flag was given.
        default = "" if f.default in (None, ()) or kind is bool else f" [dim]\\[default: {f.default}][/dim]"
        option = typer.Option(
            *([flag(f.name)] if kind is bool else []),
            help=text + default,
            rich_help_panel=f.metadata["section"],
            metavar={int: "<int>", float: "<float>"}.get(kind),
        )
        annotation: Any = Annotated[(bool if kind is bool else str) | None, option]
        flags.append(inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation))

    def wrapped(**given: Any) -> None:
        options = {name: _parsed(name, given.pop(name), kind) for name, kind in kinds.items()}
        command(**given, **{name: value for name, value in options.items() if value is not None})

    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + flags
    wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
    wrapped.__doc__ = command.__doc__
    wrapped.__name__ = command.__name__
    return wrapped


def _plain(hint: Any) -> type:
    """The type of a flag: of ``int | None`` it is int, of a tuple of names the text that lists them."""
    if isinstance(hint, types.UnionType):
        hint = next(kind for kind in typing.get_args(hint) if kind is not type(None))
    return str if typing.get_origin(hint) is tuple else hint


def _parsed(name: str, given: str | bool | None, kind: type) -> Any:
    if given is None or isinstance(given, bool) or kind is str:
        return given
    try:
        return kind(given)
    except ValueError:
        wanted = "a whole number" if kind is int else "a number"
        raise BertwrightError(f"{flag(name)} must be {wanted}, not {given!r}") from None


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
    from bertwright.finetuning import finetune as run
    from bertwright.workspace import resume_command

    begin = (preset(preset_name) if preset_name else {}) | (read_recipe(recipe) if recipe else {})
    result = run(begin, **options)
    console = Console()
    for split in ("validation", "test"):
        if split in result.metrics:
            console.print(evaluation_report(result.metrics[split], f"{result.out}: {split}"), "")
    if "over_seeds" in result.metrics:
        from bertwright.evaluation.report import seeds_table

        console.print(seeds_table(result.metrics), "")
    console.print(f"written to {result.out}", markup=False, highlight=False, soft_wrap=True)
    if result.interrupted:
        raise KeyboardInterrupt(f"{result.out} holds the best so far; go on with: {resume_command(result.out)}")


Text = Annotated[str | None, typer.Option(help="Column of the text; default: as in training.", rich_help_panel="Data")]
ColumnNames = Annotated[
    str | None,
    typer.Option(
        help="Names of a file's columns; '' for a file with a header. Default: as in training.", rich_help_panel="Data"
    ),
]
Delimiter = Annotated[str | None, typer.Option(help="Column separator.", rich_help_panel="Data")]
Quoting = Annotated[str | None, typer.Option(help="auto, literal or csv.", rich_help_panel="Data")]


def _given_columns(columns: str | None, **given: str | None) -> dict[str, Any]:
    """Fields of Columns: those that a flag was given for; an empty one takes a column away."""
    fields: dict[str, Any] = {name: value or None for name, value in given.items() if value is not None}
    if columns is not None:
        fields["names"] = tuple(name.strip() for name in columns.split(",") if name.strip())
    return fields


@app.command()
def evaluate(
    model: ModelArgument,
    data: Annotated[Path, typer.Argument(help="Labelled rows: .tsv, .csv, .jsonl or .parquet.", show_default=False)],
    text: Text = None,
    pair: Annotated[str | None, typer.Option(help="Column of the second text.", rich_help_panel="Data")] = None,
    label: Annotated[str | None, typer.Option(help="Column of the label.", rich_help_panel="Data")] = None,
    source: Annotated[
        str | None, typer.Option(help="Column to report results by; '' for none.", rich_help_panel="Data")
    ] = None,
    columns: ColumnNames = None,
    delimiter: Delimiter = None,
    quoting: Quoting = None,
    metric: Annotated[str | None, typer.Option(help="What heads the report; default: as in training.")] = None,
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

    if out is None and not Path(model).is_dir():
        raise BertwrightError(f"{model} is no directory to write the evaluation into; name another with --out")
    predictor = bertwright.load(model, device=device, precision=precision, threads=threads)
    given = _given_columns(columns, text=text, pair=pair, label=label, source=source, delimiter=delimiter, quoting=quoting)
    result = predictor.evaluate(data, metric=metric, **given)
    folder = out or Path(model) / f"evaluation-{data.stem}"
    write_evaluation(folder, result.metrics, result.predictions)
    console = Console()
    console.print(evaluation_report(result.metrics, f"{model}: {data.name}"), "")
    console.print(f"numbers, rows and plots are in {folder}", markup=False, highlight=False, soft_wrap=True)


@app.command()
def predict(
    model: ModelArgument,
    texts: Annotated[list[str] | None, typer.Argument(help="Texts; - reads one a line from standard input.")] = None,
    input: Annotated[Path | None, typer.Option(help="A file of rows; it needs no labels.", rich_help_panel="Data")] = None,
    pair: Annotated[
        list[str] | None,
        typer.Option(help="Second text, once for each text; with --input its column.", rich_help_panel="Data"),
    ] = None,
    text: Text = None,
    columns: ColumnNames = None,
    delimiter: Delimiter = None,
    quoting: Quoting = None,
    format: Annotated[str, typer.Option(help="jsonl or csv.")] = "jsonl",
    output: Annotated[Path | None, typer.Option(help="File to write; default: standard output.")] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
) -> None:
    """Classify texts: given here, from a file, or streaming from standard input.

    On standard input each line is a text (for a model of pairs: two, a tab between).

    A line that is empty or unreadable gets a record that says why it was skipped.

    A text that is too long is cut, and its record says by how much.

    Example: bertwright predict runs/mine "a first text" "a second text"
    """
    from bertwright.data.examples import Example
    from bertwright.data.readers import read_examples, stream_lines

    if format not in ("jsonl", "csv"):
        raise BertwrightError(f"--format is {format!r}; use jsonl or csv")
    if bool(texts) == (input is not None) or (texts is not None and len(texts) > 1 and "-" in texts):
        raise BertwrightError("give texts, or - for standard input, or --input FILE: one of them")
    given = _given_columns(columns, text=text, delimiter=delimiter, quoting=quoting)
    if given and input is None:
        raise BertwrightError("--text, --columns, --delimiter and --quoting say how to read a file: give it with --input")
    predictor = bertwright.load(model, device=device, precision=precision, threads=threads)
    if input is not None:
        if pair:
            given["pair"] = pair[0]
        columns_wanted = dataclasses.replace(predictor.columns, label=None, source=None, **given)
        records = predictor.predict_rows(read_examples(input, columns_wanted))
    elif texts == ["-"]:
        if pair:
            raise BertwrightError("--pair goes with texts given here; on standard input a tab comes before the second text")
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
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8")  # texts of any script, whatever the terminal's
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
            ["text", "pair", "predicted", "probability", *(f"probability of {label}" for label in labels), "skipped", "cut"]
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
                + [record.get("skipped"), record.get("cut")]
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
