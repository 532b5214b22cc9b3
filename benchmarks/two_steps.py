"""Both steps of BERT on real text: vocabulary, corpus, pretraining, then three tasks from these and from random weights.

    python -m benchmarks.two_steps --data DATA_FOLDER --text pretrain/enwiki-2018.txt.xz --max-time 60m

The tasks are CoLA, RTE and banking77, five seeds each. Learning rates are chosen on validation rows, for each task and
each start apart, so that random weights are not judged at a rate that suits pretrained ones.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import records
from bertwright.finetuning import finetune
from bertwright.preparation.prepare import prepare
from bertwright.preparation.vocabulary import train_vocabulary
from bertwright.pretraining.run import pretrain

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
    """Fine-tune one task from one start: a seed at every rate, then all seeds at the best of them."""
    setting = TASKS[task]
    paths = {name: str(arguments.data / setting[name]) for name in ("train", "test")}
    options = setting | paths | start | {"epochs": arguments.epochs, "threads": arguments.threads, "overwrite": True}
    tried = {}
    for rate in arguments.rates:
        run = finetune(options, learning_rate=rate, out=folder / "tried", console=QUIET)
        tried[rate] = run.metrics["validation"][setting["metric"]]
    best = max(tried, key=lambda rate: tried[rate])
    run = finetune(options, learning_rate=best, seeds=arguments.seeds, out=folder / "seeds", console=QUIET)
    scores = [
        {"seed": s["seed"], **{part: s[part][setting["metric"]] for part in ("validation", "test")}}
        for s in run.metrics["seeds"]
    ]
    over = {part: run.metrics["over_seeds"][part][setting["metric"]] for part in ("validation", "test")}
    return {"metric": setting["metric"], "validation_by_rate": tried, "rate": best, "seeds": scores, "over_seeds": over}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--text", required=True, nargs="+", help="files below --data to pretrain on")
    parser.add_argument("--config", default="mini")
    parser.add_argument("--vocab-size", type=int, default=16000)
    parser.add_argument("--max-time", default="60m")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-4, 3e-4])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="keep the pretrained model here")
    arguments = parser.parse_args()
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        texts = [arguments.data / text for text in arguments.text]
        train_vocabulary(texts, size=arguments.vocab_size, out=folder / "vocab", console=console)
        prepare(texts, folder / "vocab", folder / "tokens", console=console)
        model = arguments.keep or folder / "model"
        made = pretrain(
            folder / "tokens", config=arguments.config, max_time=arguments.max_time, threads=arguments.threads,
            dropout=0.0, out=str(model), overwrite=True, console=console,
        )  # fmt: skip
        assert made is not None
        results: dict[str, Any] = {"pretraining": made.metrics, "tasks": {}}
        starts = {
            "pretrained": {"model": str(model)},
            "random": {"config": arguments.config, "tokenizer": str(folder / "vocab")},
        }
        for task in arguments.tasks:
            results["tasks"][task] = {}
            for start, options in starts.items():
                one = fine_tuned(task, options, arguments, folder)
                results["tasks"][task][start] = one
                test = one["over_seeds"]["test"]
                print(
                    f"{task:10} {start:10} {one['metric']} {test['mean']:.3f} ± {test['standard_deviation']:.3f}", flush=True
                )
    setting = {name: value for name, value in vars(arguments).items() if name not in ("data", "keep")}
    print(records.write("two_steps", {"setting": setting, **results}))


if __name__ == "__main__":
    main()
