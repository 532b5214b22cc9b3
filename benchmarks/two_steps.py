"""Both steps of BERT on real text: vocabulary, corpus, pretraining, then three tasks from these and from random weights.

    python -m benchmarks.two_steps --data DATA_FOLDER --text pretrain/enwiki-2018.txt.xz --max-time 60m

The tasks are CoLA, RTE and banking77, five seeds each. Learning rates are chosen on validation rows, for each task and
each start apart, so that random weights are not judged at a rate that suits pretrained ones.

A result file for each task is written after each start, and a start that it holds in the same setting is not done again;
`--pretrained` takes a model that an earlier run kept with `--keep`, or that `bertwright pretrain` made, in the place of the
first step.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import records
from bertwright.finetuning import finetune
from bertwright.preparation.prepare import prepare
from bertwright.preparation.vocabulary import train_vocabulary
from bertwright.pretraining.run import pretrain
from bertwright.training.pretraining_recipe import PretrainingRecipe

QUIET = Console(quiet=True)

TASKS: dict[str, dict[str, Any]] = {
    "CoLA": {
        "train": "cola/raw/in_domain_train.tsv", "test": "cola/raw/out_of_domain_dev.tsv",
        "columns": ["source", "label", "note", "sentence"], "text": "sentence", "label": "label",
        "metric": "matthews_correlation",
    },
    "RTE": {
        "train": "glue/RTE/train.tsv", "test": "glue/RTE/dev.tsv", "text": "sentence1", "pair": "sentence2",
        "label": "label", "metric": "accuracy",
    },
    "banking77": {
        "train": "textclass/banking77/train.csv", "test": "textclass/banking77/test.csv", "text": "text",
        "label": "category", "metric": "accuracy",
    },
}  # fmt: skip


def fine_tuned(task: str, start: dict[str, Any], arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Fine-tune one task from one start: seed 0 at several rates, then the other seeds at the best of them.

    Where the best rate is the lowest or the highest so far, one more beyond it is tried, twice at most.
    """
    setting = TASKS[task]
    paths = {name: str(arguments.data / setting[name]) for name in ("train", "test")}
    options = setting | paths | start | {"epochs": arguments.epochs, "threads": arguments.threads, "overwrite": True}

    def score(rate: float, seed: int) -> dict[str, Any]:
        run = records.whole(finetune(options, learning_rate=rate, seed=seed, out=folder / "run", console=QUIET))
        return {"seed": seed, **{part: run.metrics[part][setting["metric"]] for part in ("validation", "test")}}

    tried = {rate: score(rate, 0) for rate in arguments.rates}
    for _ in range(2):
        best = max(tried, key=lambda rate: tried[rate]["validation"])
        if min(tried) < best < max(tried):
            break
        further = float(f"{best * 3 if best == max(tried) else best / 3:.0e}")
        tried[further] = score(further, 0)
    best = max(tried, key=lambda rate: tried[rate]["validation"])
    scores = [tried[best], *(score(best, seed) for seed in range(1, arguments.seeds))]
    over = {
        part: {
            "mean": statistics.fmean(one[part] for one in scores),
            "standard_deviation": statistics.stdev(one[part] for one in scores),
        }
        for part in ("validation", "test")
    }
    by_rate = {f"{rate:g}": tried[rate]["validation"] for rate in sorted(tried)}
    return {"metric": setting["metric"], "validation_by_rate": by_rate, "rate": best, "seeds": scores, "over_seeds": over}


def first_step(arguments: argparse.Namespace, folder: Path, model: Path, console: Console) -> None:
    """Learn a vocabulary, prepare the text, pretrain."""
    texts = [arguments.data / text for text in arguments.text]
    train_vocabulary(texts, size=arguments.vocab_size, out=folder / "vocab", console=console)
    prepare(texts, folder / "vocab", folder / "tokens", console=console)
    pretrain(
        folder / "tokens", config=arguments.config, max_time=arguments.max_time, threads=arguments.threads, dropout=0.0,
        optimizer=arguments.optimizer, learning_rate=arguments.learning_rate, batch_tokens=arguments.batch_tokens,
        precision=arguments.precision, masking_rate=arguments.masking_rate, warmup=0.05, out=str(model), overwrite=True,
        console=console,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--text", required=True, nargs="+", help="files below --data to pretrain on")
    parser.add_argument("--config", default="mini")
    parser.add_argument("--vocab-size", type=int, default=16000)
    parser.add_argument("--max-time", default="60m")
    parser.add_argument("--optimizer", default="muon")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--batch-tokens", default="2048")
    parser.add_argument("--masking-rate", default="0.3:0.15")
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rates", type=float, nargs="+", default=[3e-4, 1e-3])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--starts", nargs="+", default=["pretrained", "random"], choices=["pretrained", "random"])
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="keep the pretrained model here")
    parser.add_argument("--pretrained", type=Path, help="fine-tune this model instead of making one")
    arguments = parser.parse_args()
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = arguments.pretrained or arguments.keep or folder / "model"
        if arguments.pretrained is None:
            first_step(arguments, folder, model, console)
        made = PretrainingRecipe.of(PretrainingRecipe.read(model / PretrainingRecipe.FILE))
        metrics = json.loads((model / "metrics.json").read_text(encoding="utf-8"))
        recipe = {name: value for name, value in dataclasses.asdict(made).items() if name not in ("corpus", "out")}
        pretraining = {"recipe": recipe, "metrics": metrics}
        starts = {
            "pretrained": {"model": str(model)},
            "random": {"config": str(model / "config.json"), "tokenizer": str(model)},  # alike but for the weights
        }
        setting = {"epochs": arguments.epochs, "first_rates": arguments.rates, "seeds": arguments.seeds}
        for task in arguments.tasks:
            name = f"two_steps_{task.lower()}"

            def held(name: str = name) -> dict[str, Any]:
                found = records.held(name)
                of_model = found["starts"] if found and found["pretraining"]["metrics"] == metrics else {}
                return {start: one for start, one in of_model.items() if one.get("setting") == setting}

            for start in arguments.starts:
                if start in held():
                    continue
                result = {"setting": setting} | fine_tuned(task, starts[start], arguments, folder)
                test = result["over_seeds"]["test"]
                print(f"{task:10} {start:10} {result['metric']} {records.spread(test)}", flush=True)
                # Read anew: another process may have written the other start meanwhile.
                of_task = held() | {start: result}
                records.write(name, {"pretraining": pretraining, "starts": of_task})


if __name__ == "__main__":
    main()
