"""The commands of the first half of BERT: tokenizer train, prepare, pretrain, fill-mask."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from bertwright.cli.app import Device, Precision, Threads, app, cleared, flags_of, writing
from bertwright.errors import BertwrightError
from bertwright.training.pretraining_recipe import PretrainingRecipe

CorpusArgument = Annotated[
    list[str], typer.Argument(help="Text files, folders of them, or hub:owner/name.", show_default=False)
]
Documents = Annotated[
    str, typer.Option(help="What is a document: auto, blank-line, file or record.", rich_help_panel="Corpus")
]
TextField = Annotated[str, typer.Option("--text", help="Field of a record that holds its text.", rich_help_panel="Corpus")]
Sentences = Annotated[str, typer.Option(help="split: found by a splitter; line: one a line.", rich_help_panel="Corpus")]
Language = Annotated[str, typer.Option(help="Of the splitter: a code such as en or zh, or auto.", rich_help_panel="Corpus")]
Strict = Annotated[
    bool, typer.Option("--strict", help="End at the first thing that cannot be read.", rich_help_panel="Corpus")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there already.")]

tokenizer = typer.Typer(
    help="Learn a vocabulary from raw text: tokenizer train.", no_args_is_help=True, rich_markup_mode="rich"
)
app.add_typer(tokenizer, name="tokenizer")


@tokenizer.command("train")
def train_vocabulary(
    corpus: CorpusArgument,
    out: Annotated[Path, typer.Option(help="Directory of the tokenizer to write.", show_default=False)],
    vocab_size: Annotated[int, typer.Option(help="Entries; rounded up to a multiple of 64.")] = 16000,
    cased: Annotated[bool, typer.Option("--cased", help="Keep upper case and accents.")] = False,
    min_frequency: Annotated[int, typer.Option(help="How often a pair of pieces must occur to be joined.")] = 2,
    character_coverage: Annotated[float, typer.Option(help="Part of the text whose characters get entries.")] = 0.9999,
    sample_megabytes: Annotated[int, typer.Option(help="MiB of text to learn from at most; of more, an even sample.")] = 256,
    heldout: Annotated[float, typer.Option(help="Part of the text that the report is measured on.")] = 0.01,
    seed: Annotated[int, typer.Option(help="Seed of sample and held-out part.")] = 0,
    documents: Documents = "auto",
    text: TextField = "text",
    strict: Strict = False,
    overwrite: Overwrite = False,
) -> None:
    """Learn a WordPiece vocabulary from raw text.

    Example: bertwright tokenizer train corpus/ --vocab-size 16000 --out vocab/
    """
    from bertwright.data.corpus import CorpusFormat
    from bertwright.preparation.vocabulary import train_vocabulary as run
    from bertwright.preparation.vocabulary import vocabulary_table

    trained = run(
        corpus,
        out=out,
        size=vocab_size,
        lowercase=not cased,
        min_frequency=min_frequency,
        character_coverage=character_coverage,
        sample_bytes=sample_megabytes << 20,
        heldout=heldout,
        seed=seed,
        format=CorpusFormat(documents=documents, text=text),
        strict=strict,
        overwrite=overwrite,
        console=Console(stderr=True),
    )
    _report(vocabulary_table(trained), out)


@app.command()
def prepare(
    corpus: CorpusArgument,
    tokenizer: Annotated[
        str, typer.Option(help="Whose vocabulary: a directory, a vocab.txt, an alias or a hub id.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Directory of the prepared corpus to write.", show_default=False)],
    heldout: Annotated[float, typer.Option(help="Part of the documents set aside to measure on.")] = 0.005,
    seed: Annotated[int, typer.Option(help="Seed of which documents are set aside.")] = 0,
    workers: Annotated[int, typer.Option(help="Processes; 0: one for each core.")] = 0,
    engine: Annotated[str, typer.Option(help="local, or ray for a Ray cluster.")] = "local",
    documents: Documents = "auto",
    text: TextField = "text",
    sentences: Sentences = "split",
    language: Language = "auto",
    strict: Strict = False,
    overwrite: Overwrite = False,
) -> None:
    """Turn raw text into token ids, once; killed halfway, call it again and it goes on.

    Example: bertwright prepare corpus/ --tokenizer vocab/ --out tokens/
    """
    from bertwright.data.corpus import CorpusFormat
    from bertwright.preparation.prepare import prepare as run

    prepared = run(
        corpus,
        tokenizer,
        out,
        format=CorpusFormat(documents=documents, text=text, sentences=sentences, language=language),
        heldout=heldout,
        seed=seed,
        workers=workers,
        engine=engine,
        strict=strict,
        overwrite=overwrite,
        console=Console(stderr=True),
    )
    _report(prepared.table(), out)


@app.command()
@flags_of(PretrainingRecipe)
def pretrain(
    corpus: Annotated[
        str | None, typer.Argument(help="Prepared corpus: what 'bertwright prepare' wrote.", show_default=False)
    ] = None,
    recipe: Annotated[Path | None, typer.Option(help="Recipe file (TOML); flags win over it.")] = None,
    **options: Any,
) -> None:
    """Pretrain a BERT on a prepared corpus: from random weights, or on from a checkpoint.

    Several devices or machines: torchrun --nproc-per-node 8 -m bertwright pretrain …

    Example: bertwright pretrain tokens/ --config mini --out runs/mini
    """
    from bertwright.evaluation.report import pretraining_report
    from bertwright.pretraining.run import pretrain as run

    result = run(corpus, PretrainingRecipe.read(recipe) if recipe else None, **cleared(PretrainingRecipe, options))
    if result is not None:
        _report(pretraining_report(result.metrics, str(result.out)), result.out)


@app.command("fill-mask")
def fill_mask(
    model: Annotated[
        str, typer.Argument(help="A pretrained model: its directory, an alias or a hub id.", show_default=False)
    ],
    texts: Annotated[
        list[str], typer.Argument(help="Texts with \\[MASK] where a word is to be guessed.", show_default=False)
    ],
    top: Annotated[int, typer.Option(help="Guesses for each mask.")] = 5,
    format: Annotated[str, typer.Option(help="table or jsonl.")] = "table",
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub id.")] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
) -> None:
    """Guess the words that stand in the place of \\[MASK], each mask by itself.

    Example: bertwright fill-mask runs/mini "The capital of France is \\[MASK]."
    """
    from bertwright.evaluation.report import guesses_table
    from bertwright.masked_lm import load_masked_lm

    if format not in ("table", "jsonl"):
        raise BertwrightError(f"--format is {format!r}; use table or jsonl")
    lm = load_masked_lm(model, revision=revision, device=device, precision=precision, threads=threads)
    filled = [dataclasses.asdict(one) for one in lm.fill_mask(texts, top=top)]
    if format == "jsonl":
        with writing(None) as file:
            file.writelines(json.dumps(one, ensure_ascii=False) + "\n" for one in filled)
        return
    console = Console()
    for one in filled:
        console.print(guesses_table(one), "")


def _report(table: Any, out: Path) -> None:
    console = Console()
    console.print(table, "")
    console.print(f"written to {out}", markup=False, highlight=False, soft_wrap=True)
