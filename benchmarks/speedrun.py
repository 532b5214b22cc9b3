"""The best BERT of at most 30 M parameters that 20 minutes on one H100 make of 55 M words, in one command.

    python -m benchmarks.speedrun --data DATA_FOLDER --max-time 20m --keep runs/speedrun

DATA_FOLDER holds ``pretrain`` (text files, such as .xz), ``blimp`` (its archive, or JSON lines) and ``cola/raw``. The
clock of ``--max-time`` runs over pretraining alone, its validations and savings included. Before it come the vocabulary
and the preparing of the text, on CPU cores, left out with ``--tokens``; after it held-out loss, BLiMP and CoLA.

Whatever ends it, the same command goes on: finished stages lie in the folder of ``--keep``, an unfinished one resumes,
and the clock of pretraining goes on where it stood. So calls may be limited to less than all of it takes:

    timeout --signal TERM 9m python -m benchmarks.speedrun ...    # again and again, until it prints its table

``--device cpu`` tries every stage but the numbers. ``--max-time 2m`` on the GPU, with and without ``--compile``, says
what a wrong rate or a slow machine would cost, before 20 minutes are spent.

What 20 minutes can hold: the model of ``speedrun_config.json`` needs 136 million operations for each token, forward and
backward. At 40 % of the 989 TFLOP/s that NVIDIA states for bfloat16 on an H100 (SXM, dense), these are 2.9 M tokens a
second: 3.5 G in all, or 48 passes over the 73 M tokens that 55 M words make. That is a ceiling. At a width of 384 a
product does 190 to 310 operations for each byte it moves, no more than what feeds an H100 from its memory (989 TFLOP/s
over 3.35 TB/s: 295), and norms, activations and residual sums hardly do more than move them. 15 to 20 % is likelier: 1.3
to 1.7 G tokens, 18 to 24 passes. The record says what it was.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks import records
from benchmarks.two_steps import TASKS
from bertwright.atomic import atomic_write_text
from bertwright.data.shards import TokenCorpus
from bertwright.errors import BertwrightError
from bertwright.evaluation.minimal_pairs import minimal_pairs_report, write_minimal_pairs
from bertwright.evaluation.progress import TokenProgress
from bertwright.finetuning import finetune
from bertwright.interrupts import Stopped
from bertwright.masked_lm import load_masked_lm
from bertwright.model import BertConfig, Pretraining
from bertwright.preparation.prepare import prepare
from bertwright.preparation.vocabulary import train_vocabulary
from bertwright.pretraining.run import pretrain
from bertwright.training.observers import read_history
from bertwright.training.pretraining_recipe import PretrainingRecipe
from bertwright.training.recipe import Recipe

MOST_PARAMETERS = 30_000_000
"""Of the whole model with its heads, tied embeddings counted once."""

CONFIG = Path(__file__).with_name("speedrun_config.json")
"""12 layers of 384, 27.9 M parameters: at an equal number of them deep and narrow is better (Tay et al. 2022, Scale
Efficiently), and ELECTRA-small, of 12 layers too, does twice as well on CoLA as BERT-small of 4. Heads of 64. 128
positions, since none after them would be trained."""

VOCABULARY = 16_384
"""Embeddings are 23 % of the parameters; with BERT's 30,522 entries, most of them rare in 55 M words, it were 35 %."""

PRETRAINING: dict[str, Any] = {
    # Next sentence prediction does not help (Liu et al. 2019, RoBERTa, section 4.2), and sequences stay short (Izsak et
    # al. 2021, section 3), which CoLA and BLiMP are too. Both are single sentences: some sequences are drawn that short.
    "objective": "mlm",
    "max_length": "128",
    "short_fraction": 0.2,
    # More than 15 % makes more predictions of each token, and suits single pieces rather than whole words (Wettig et al.
    # 2023); falling from 30 to 15 % beats either rate (Ankner et al. 2024). Single pieces are what
    # pseudo-log-likelihood asks for, too.
    "masking_rate": "0.3:0.15",
    "whole_words": False,
    # With dropout each step reaches fewer weights; with little time it is left out (Geiping & Goldstein 2023). They had
    # no text twice, and here it comes back some 20 times, under other masks: should the recorded loss of the last steps
    # lie far below the held-out one, 0.1 is the thing to try.
    "dropout": 0.0,
    # Muon needs about half of AdamW's operations for the same loss (Liu et al. 2025, with this decay). In BERT's layers
    # the norm comes last, which bears lower rates than those of today's decoders: RoBERTa had 6e-4, ELECTRA-small 5e-4.
    "optimizer": "muon",
    "learning_rate": 7e-4,
    "weight_decay": 0.1,
    "adam_beta2": 0.98,
    # To zero, in a line (Bergsma et al. 2025, Straight to Zero), with a long warm-up for layer norms that come last
    # (Xiong et al. 2020). The clock drives it.
    "schedule": "linear",
    "warmup": 0.1,
    # What is measured and saved costs seconds of the 20 minutes: some six times is enough.
    "validate_every": 2500,
    "save_minutes": 4.0,
    "heldout_tokens": 400_000,
    "seed": 0,
}

BATCH_TOKENS = {"cuda": "65536:0.3,131072:0.7", "cpu": "8192"}
"""First small, then larger, since gradients agree the less the further it is (McCandlish et al. 2018; Geiping & Goldstein
2023 ramp up too). Multiples of the 65,536 tokens that a GPU computes at once. On a CPU, a trial of such steps would have
none of them."""

COLA: dict[str, Any] = TASKS["CoLA"] | {"epochs": 5, "batch_size": 32, "warmup": 0.1, "dropout": 0.1, "seeds": 5}
RATES = (5e-5, 1e-4, 3e-4)
"""Turc et al. 2019 search these for models of such sizes; the mean of all seeds on validation rows chooses."""

ANCHORS: tuple[tuple[str, float | None, float | None], ...] = (
    ("GPT-BERT, 10 M words", 81.2, None),
    ("RoBERTa, 10 M words", 69.5, None),
    ("MiniLM-L6", None, 47.5),
    ("ELECTRA-small", None, 57.0),
    ("BERT-small", None, 27.8),
)
"""Published (name, BLiMP, CoLA), in percent. Half of GLUE's development rows of CoLA are in-domain; those of this run's CoLA
are all out of domain, and a tenth of the training rows stands in for in-domain ones. The fair peer is a checkpoint that
``--peer`` fine-tunes in the same way on the same rows."""

H100_BFLOAT16_FLOPS = 989e12
EXPECTED_FRACTION = 0.4


def flops_per_token(config: BertConfig, length: int, masked: float) -> float:
    """Operations of the products for one token of a sequence of ``length``, forward and backward, with ``masked`` of the
    tokens going through the last layer and to the vocabulary.
    """
    H, inner, L = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    layers = L * (4 * H * H + 2 * H * inner + 2 * H * length)
    unread = (1 - masked) * (2 * H * H + 2 * H * inner)
    return 6.0 * (layers - unread + masked * (H * H + H * config.vocab_size))


def expected_tokens(config: BertConfig, seconds: float) -> float:
    """Tokens that an H100 would see in that time at the fraction of its peak assumed above."""
    recipe = PretrainingRecipe.of(PRETRAINING)
    operations = flops_per_token(config, recipe.lengths[0].value, statistics.fmean(recipe.masking_rates))
    return EXPECTED_FRACTION * H100_BFLOAT16_FLOPS * seconds / operations


def parameters(config: BertConfig) -> int:
    """Parameters of the model with both heads."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in Pretraining(config).parameters())


def sized(name: str, vocabulary: int) -> BertConfig:
    """The config of a published size or of a file, over a vocabulary.

    Raises:
        BertwrightError: it makes a model of more than 30 M parameters.
    """
    config = BertConfig.chosen(name, vocabulary, of="the vocabulary")
    if (count := parameters(config)) > MOST_PARAMETERS:
        raise BertwrightError(f"--config {name}: {count:,} parameters; at most {MOST_PARAMETERS:,} are allowed here")
    return config


def finished(out: Path) -> bool:
    """Whether a stage has left its numbers at ``out``, and nothing to go on with."""
    return (out / "metrics.json").is_file() and not Path(f"{out}.training").exists()


def begun(out: Path, recipe: str) -> bool:
    """Whether an unfinished run can be resumed there."""
    return (Path(f"{out}.training") / recipe).is_file()


def metrics_of(out: Path) -> dict[str, Any]:
    """The numbers that a stage left."""
    metrics: dict[str, Any] = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    return metrics


def hold(keep: Path, setting: dict[str, Any], arguments: argparse.Namespace) -> None:
    """Write down the setting of a run and what it reads; refuse to go on with stages of another.

    Raises:
        BertwrightError: they are of another.
    """
    file = keep / "setting.json"
    # Not part of the record, where places on a machine have nothing to say; the corpus is told there by its digest.
    tokens = None if arguments.tokens is None else TokenCorpus.open(arguments.tokens).digest
    text = json.dumps(setting | {"data": str(arguments.data.resolve()), "tokens": tokens}, indent=1) + "\n"
    if file.exists() and file.read_text(encoding="utf-8") != text:
        raise BertwrightError(f"{keep}: holds a run with other settings, --data or --tokens; choose another --keep")
    atomic_write_text(file, text)


def corpus_of(arguments: argparse.Namespace, console: Console) -> Path:
    """The prepared corpus: the one given, or one made of the text."""
    if arguments.tokens is not None:
        return Path(arguments.tokens)
    texts, keep = [arguments.data / "pretrain"], arguments.keep
    if not (keep / "vocabulary").exists():
        train_vocabulary(texts, size=VOCABULARY, out=keep / "vocabulary", console=console)
    if not (keep / "tokens").exists():
        prepare(texts, keep / "vocabulary", keep / "tokens", console=console)
    return Path(keep / "tokens")


def pretrained(corpus: Path, arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Pretrain for the time given, and return what was measured."""
    out = arguments.keep / "model"
    if not finished(out):
        pretrain(
            corpus, PRETRAINING, config=arguments.config, batch_tokens=BATCH_TOKENS[arguments.device],
            max_time=arguments.max_time, compile=arguments.compile, device=arguments.device, threads=arguments.threads,
            resume=begun(out, PretrainingRecipe.FILE), out=str(out), console=console,
        )  # fmt: skip
    steps = [record for record in read_history(out / "history.jsonl") if record["kind"] == "step"]
    # The masking rate ends at what the held-out text is measured with, so the last steps can be held against it.
    last = statistics.fmean(record["mlm_loss"] for record in steps[-100:])
    return metrics_of(out) | {"mlm_loss_of_last_steps": last}


def blimp(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Judge the model on all minimal pairs; in float32, since a pair may hang on less than bfloat16 tells apart."""
    out, data = arguments.keep / "blimp", arguments.data / "blimp"
    if not finished(out):
        archive = data / "blimp.tar.xz"
        model = load_masked_lm(
            arguments.keep / "model", device=arguments.device, precision="float32", threads=arguments.threads
        )
        with TokenProgress("scoring", console) as progress:
            result = model.evaluate_blimp(archive if archive.exists() else data, progress=progress)
        write_minimal_pairs(out, result.accuracies, result.metrics, result.predictions)
        console.print(minimal_pairs_report(result.accuracies, "minimal pairs"))
    return metrics_of(out)


def cola(model: str, folder: Path, arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Fine-tune all seeds at every rate, and return the scores at the rate with the best mean on validation rows."""
    paths = {name: str(arguments.data / COLA[name]) for name in ("train", "test")}
    tried: dict[float, dict[str, Any]] = {}
    for rate in RATES:
        out = folder / f"{rate:g}"
        if not finished(out):
            records.whole(finetune(
                COLA | paths, model=model, learning_rate=rate, device=arguments.device, threads=arguments.threads,
                resume=begun(out, Recipe.FILE), out=str(out), console=console,
            ))  # fmt: skip
        tried[rate] = metrics_of(out)

    def score(measured: dict[str, Any], part: str) -> Any:
        return measured[part][COLA["metric"]]

    means = {rate: float(score(one["over_seeds"], "validation")["mean"]) for rate, one in tried.items()}
    best = max(means, key=lambda rate: means[rate])
    parts = ("validation", "test")
    seeds = [{"seed": seed["seed"], **{part: score(seed, part) for part in parts}} for seed in tried[best]["seeds"]]
    over = {part: score(tried[best]["over_seeds"], part) for part in parts}
    return {"validation_by_rate": means, "rate": best, "seeds": seeds, "over_seeds": over}


def table_of(results: dict[str, Any]) -> Table:
    """This run beside what others published."""

    def percent(value: float | None) -> str:
        return "" if value is None else f"{value:.1f}"

    def over_seeds(measured: dict[str, Any], part: str) -> str:
        return records.spread(measured["over_seeds"][part], percent=True)

    table = Table(box=box.SIMPLE_HEAD, title=f"{results['parameters'] / 1e6:.1f} M parameters")
    for header in ("", "BLiMP", "CoLA", "CoLA, in-domain", "held-out loss"):
        table.add_column(header, justify="right" if header else "left")

    def correlations(measured: dict[str, Any]) -> tuple[str, str]:
        return over_seeds(measured, "test"), over_seeds(measured, "validation")

    loss = results["pretraining"]["heldout"]["mlm_loss"]
    pairs = percent(100 * results["blimp"]["accuracy"])
    table.add_row("this run", pairs, *correlations(results["cola"]), f"{loss:.3f}")
    if results["cola_of_peer"] is not None:
        table.add_row(results["setting"]["peer"], "", *correlations(results["cola_of_peer"]), "")
    table.add_section()
    for name, accuracy, correlation in ANCHORS:
        table.add_row(name, percent(accuracy), percent(correlation), "", "")
    return table


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """All stages, those that are finished already left as they are."""
    console = Console(stderr=True)
    shape = dataclasses.asdict(sized(arguments.config, VOCABULARY))  # what is too large is told before the text is read
    setting = {
        "config": shape, "max_time": arguments.max_time, "device": arguments.device, "compile": arguments.compile,
        "peer": arguments.peer, "pretraining": PRETRAINING | {"batch_tokens": BATCH_TOKENS[arguments.device]},
        "cola": COLA, "rates": RATES,
    }  # fmt: skip
    hold(arguments.keep, setting, arguments)
    corpus = corpus_of(arguments, console)
    text = TokenCorpus.open(corpus)
    config = sized(arguments.config, text.manifest.vocab_size)  # a prepared corpus may have another vocabulary
    pretraining = pretrained(corpus, arguments, console)
    training = pretraining["training"]
    budget = PretrainingRecipe.of({"max_time": arguments.max_time}).max_seconds
    return {
        "setting": setting,
        "parameters": parameters(config),
        "corpus": {"digest": text.digest, "vocabulary": text.manifest.vocab_size, "tokens": text.count.tokens},
        "tokens_expected_of_an_h100": math.floor(expected_tokens(config, budget)),
        "passes": training["tokens"] / text.count.tokens,
        "pretraining": pretraining,
        "blimp": blimp(arguments, console),
        "cola": cola(str(arguments.keep / "model"), arguments.keep / "cola", arguments, console),
        "cola_of_peer": None
        if arguments.peer is None
        else cola(arguments.peer, arguments.keep / "cola-of-peer", arguments, console),
        "anchors": [dict(zip(("name", "blimp", "cola"), anchor, strict=True)) for anchor in ANCHORS],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--max-time", default="20m", help="of pretraining")
    parser.add_argument("--keep", required=True, type=Path, help="folder of all stages; the model is in its folder 'model'")
    parser.add_argument("--device", default="cuda", choices=tuple(BATCH_TOKENS))
    parser.add_argument("--config", default=str(CONFIG), help="a published size, or a config.json")
    parser.add_argument("--tokens", type=Path, help="a prepared corpus, instead of the text")
    parser.add_argument("--peer", help="a checkpoint to fine-tune on CoLA in the same way, such as minilm")
    parser.add_argument("--compile", action="store_true", help="compile the layers (needs a C compiler)")
    parser.add_argument("--threads", type=int, default=0, help="of the CPU")
    arguments = parser.parse_args()
    try:
        results = run(arguments)
    except Stopped as stop:
        print("stopped; the same command goes on from here", file=sys.stderr)
        sys.exit(128 + stop.signal)
    except BertwrightError as error:
        sys.exit(f"error: {error}")
    training = results["pretraining"]["training"]
    Console().print(table_of(results))
    print(
        f"{training['tokens']:,} tokens, {results['passes']:.1f} passes, {training['seconds_in_all'] / 60:.1f} minutes, "
        f"{training['fraction_of_peak']:.0%} of the peak measured here ({EXPECTED_FRACTION:.0%} of an H100's: "
        f"{results['tokens_expected_of_an_h100']:,} tokens)"
    )
    print(records.write(f"speedrun_{arguments.device}_{arguments.max_time}", results))


if __name__ == "__main__":
    main()
