"""The command for vectors of texts: vectors."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from bertwright.cli.app import Device, Precision, Threads, app, check_output, note, note_replaced, writing
from bertwright.data.arriving import arriving
from bertwright.data.examples import Columns, Example, Unreadable
from bertwright.data.hub_rows import local_file
from bertwright.data.readers import read_examples
from bertwright.data.streamed import as_texts, stream_lines
from bertwright.errors import BertwrightError


@app.command()
def vectors(
    model: Annotated[
        str, typer.Argument(help="Any BERT: its directory, an alias, a weights file or a hub id.", show_default=False)
    ],
    texts: Annotated[list[str] | None, typer.Argument(help="Texts; - reads one a line from standard input.")] = None,
    input: Annotated[Path | None, typer.Option(help="A file of rows.", rich_help_panel="Data")] = None,
    text: Annotated[str | None, typer.Option(help="Its column of texts \\[default: text].", rich_help_panel="Data")] = None,
    columns: Annotated[
        str | None, typer.Option(help="Names for the columns of a file without a header.", rich_help_panel="Data")
    ] = None,
    delimiter: Annotated[str | None, typer.Option(help="Column separator.", rich_help_panel="Data")] = None,
    quoting: Annotated[str | None, typer.Option(help="auto, literal or csv.", rich_help_panel="Data")] = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write: .npy, .parquet or .jsonl; default: JSON lines on standard output.")
    ] = None,
    pooling: Annotated[str, typer.Option(help="mean, max or cls.")] = "mean",
    layers: Annotated[
        str, typer.Option(help="last, last4 (end to end), or numbers with commas between; 0: the embeddings.")
    ] = "last",
    tokens: Annotated[bool, typer.Option("--tokens", help="A vector for each token, with its place in the text.")] = False,
    normalize: Annotated[bool, typer.Option("--normalize", help="Bring every vector to the length 1.")] = False,
    half: Annotated[bool, typer.Option("--half", help="Write 16-bit numbers in place of 32-bit ones.")] = False,
    max_length: Annotated[
        int | None, typer.Option(help="Tokens of a text; longer ones are cut. Default: the model's positions.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub id.")] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
) -> None:
    """Turn texts into vectors: given here, from a file, or streaming from standard input. Nothing is trained.

    The vectors come in the order of the texts. A line that is unreadable has none: NaN in .npy, null in Parquet, and
    "skipped" in JSON lines.

    Example: bertwright vectors minilm --input texts.tsv --out vectors.npy
    """
    from bertwright import vector_files
    from bertwright.text_vectors import Kind, load_encoder

    if bool(texts) == (input is not None) or (texts is not None and len(texts) > 1 and "-" in texts):
        raise BertwrightError("give texts, or - for standard input, or --input FILE: one of them")
    if input is None and any(one is not None for one in (text, columns, delimiter, quoting)):
        raise BertwrightError("--text, --columns, --delimiter and --quoting say how to read a file: give it with --input")
    if quoting not in (None, "auto", "literal", "csv"):
        raise BertwrightError(f"--quoting is {quoting!r}; use auto, literal or csv")
    if tokens and pooling != "mean":
        raise BertwrightError(
            f"--pooling {pooling} makes one vector of a text's tokens, and --tokens wants each: leave one out"
        )
    vector_files.check_target(out, tokens=tokens)
    check_output(out, "--out", "-" if texts == ["-"] else input)
    rows: Iterable[Example | Unreadable]
    if input is not None:
        names = tuple(name.strip() for name in (columns or "").split(",") if name.strip())
        how = Columns(text=text or "text", label=None, names=names, delimiter=delimiter, quoting=quoting or "auto")
        rows = read_examples(local_file(input), how)
    elif texts == ["-"]:

        def read(lines: BinaryIO) -> Iterator[Example | Unreadable]:
            return as_texts(stream_lines(lines, "standard input"))

        rows = arriving(sys.stdin.buffer, read) if out is None or out.is_fifo() else read(sys.stdin.buffer)
    else:
        rows = [Example(one, f"text {number}") for number, one in enumerate(texts or (), 1)]
    encoder = load_encoder(model, revision=revision, device=device, precision=precision, threads=threads)
    kind = Kind(pooling, layers, normalize, max_length)
    width = encoder.width(kind)
    note_replaced(out)
    if out is None:
        with writing(None) as file:
            if tokens:
                counts = vector_files.write_token_lines(encoder.tokens(rows, kind), file, half=half)
            else:
                counts = vector_files.write_vector_lines(encoder.chunks(rows, kind), file, half=half)
    elif tokens:
        counts = vector_files.write_tokens(encoder.tokens(rows, kind), out, width, half=half)
    else:
        counts = vector_files.write_vectors(encoder.chunks(rows, kind), out, width, half=half)
    if out is not None or counts.unreadable or counts.cut:
        told = f"{counts.rows:,} texts, vectors of {width:,}: {counts.unreadable:,} unreadable, {counts.cut:,} cut"
        note("note", told + ("" if out is None else f"; written to {out}"))
