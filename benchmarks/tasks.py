"""Every task on real data: scores over seeds, and time beside transformers.Trainer.

    python -m benchmarks.tasks quality --data DATA_FOLDER --task rte
    python -m benchmarks.tasks quality --data DATA_FOLDER --task rte --by trainer
    python -m benchmarks.tasks time    --data DATA_FOLDER --task rte
    python -m benchmarks.tasks table

``quality`` fine-tunes once for each seed and writes ``results/task_NAME.json`` after every one; seeds that it holds are not
run again, so that a broken off benchmark goes on where it was; with ``--runs FOLDER`` within a seed too. ``time`` takes
turns, each measurement in a fresh process: the mean step of either side, and the median over as many rounds as asked. The
Trainer runs as its example scripts do when it is timed; for scores it may save time (benchmarks/trainers.py says how).
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import random
import statistics
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks import records, trainers
from benchmarks.peers import matrix_product_peak
from bertwright.finetuning import finetune
from bertwright.training.observers import read_history
from bertwright.training.recipe import Recipe

Options = dict[str, Any]

CHINESE = {"config": "mini", "tokenizer": "vocab/bert-base-chinese"}  # random weights: no Chinese checkpoint is at hand

# Where the files lie in the data folder, and what differs from the defaults of the data set or of the task.
TASKS: dict[str, Options] = {
    "cola": {"data": "cola", "epochs": 4},
    "rte": {"data": "glue", "epochs": 4},
    "stsb": {"data": "glue"},
    "sst2": {"data": "glue", "rows": 10_000, "validation_fraction": 0.1},
    "banking77": {"data": "textclass"},
    "conll2003": {"data": "ner", "epochs": 3},
    "squad": {"data": "squad"},
    "squad_v2": {"data": "squad"},
    "codah": {"data": "choice"},
    "chnsenticorp": {"data": "zh", "learning_rate": 3e-4} | CHINESE,
    "weibo_ner": {"data": "zh", "learning_rate": 3e-4, "epochs": 20} | CHINESE,
}
BESIDE_TRAINER = ("cola", "rte", "conll2003", "squad")
PRECISION = "bfloat16"  # of scores, on both sides
STEPS = {"bertwright": 40, "trainer": 12}  # that are timed
WARM_UP = {"bertwright": 5, "trainer": 2}
PRECISIONS = ("float32", "bfloat16")  # that are timed; the first is what both sides have by default on a CPU
# Timed without tests, which are no part of training, and at the length that the example scripts cut texts to.
TIMED: Options = {"test": None, "validation": None, "validation_fraction": 0.01}
LENGTHS = {"cola": 128, "rte": 128}


def options_of(task: str, data: Path, folder: Path) -> Options:
    """The options of a run; a sample of the training rows, where one is asked for, is written into ``folder``."""
    chosen = TASKS[task] | {"dataset": task, "data": str(data / TASKS[task]["data"])}
    if "tokenizer" in chosen:
        chosen["tokenizer"] = str(data / chosen["tokenizer"])
    if rows := chosen.pop("rows", None):
        header, *lines = (Path(chosen["data"]) / "SST-2/train.tsv").read_text(encoding="utf-8").splitlines(keepends=True)
        sample = folder / "train.tsv"
        sample.write_text(header + "".join(random.Random(2018).sample(lines, rows)), encoding="utf-8")
        chosen["train"] = str(sample)
    return chosen


def ours(options: Options, seed: int, *, threads: int, precision: str, steps: int | None, folder: Path) -> dict[str, Any]:
    """Fine-tune through the function that users call."""
    out = folder / "model"
    begun = {"resume": True} if folder.joinpath("model.training", Recipe.FILE).exists() else {"overwrite": True}
    same = {"device": "cpu", "precision": precision, "threads": threads, "steps": steps, "save_every": 0 if steps else 200}
    run = records.whole(finetune(options | same | begun, seed=seed, out=str(out), console=Console(quiet=True)))
    history = [record for record in read_history(run.out / "history.jsonl") if record["kind"] == "step"]
    scores = {name: run.metrics[name] for name in ("validation", "test") if name in run.metrics}
    return {"times": [record["seconds"] for record in history], "metrics": list(run.model.task.metrics)} | scores


@contextlib.contextmanager
def folder_of(runs: Path | None, task: str, seed: int) -> Iterator[Path]:
    """Where one run writes: below ``runs``, where it stays, or in a place that is gone afterwards."""
    if runs is None:
        with tempfile.TemporaryDirectory() as name:
            yield Path(name)
    else:
        folder = runs / task / f"seed-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        yield folder


def measured(
    by: str, task: str, data: Path, seed: int, threads: int, precision: str, steps: int | None, runs: Path | None = None
) -> dict[str, Any]:
    """One fine-tuning, or so many steps of one, and the machine's peak beside it."""
    with folder_of(runs, task, seed) as folder:
        options = options_of(task, data, folder)
        if steps:
            options |= TIMED | ({"max_length": LENGTHS[task]} if task in LENGTHS else {})
        torch.set_num_threads(threads)
        peak = matrix_product_peak() if steps else 0.0
        if by == "bertwright":
            result = ours(options, seed, threads=threads, precision=precision, steps=steps, folder=folder)
        else:
            result = trainers.trained(options, seed, threads=threads, precision=precision, steps=steps)
    return result | {"peak_gflops": max(peak, matrix_product_peak()) if steps else None}


def apart(*arguments: Any) -> dict[str, Any]:
    """The same in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measured, *arguments).result()


def quality(task: str, arguments: argparse.Namespace) -> None:
    """Scores of each seed, and their mean and standard deviation."""
    name = f"task_{task}" + ("_trainer" if arguments.by == "trainer" else "")
    setting = {"by": arguments.by, "precision": PRECISION, "options": {k: v for k, v in TASKS[task].items() if k != "data"}}
    held = records.held(name) or {}
    seeds = held.get("seeds", []) if held.get("setting") == setting else []
    for seed in range(arguments.seeds):
        if any(one["seed"] == seed for one in seeds):
            continue
        runs = arguments.runs if arguments.by == "bertwright" else None
        result = measured(arguments.by, task, arguments.data, seed, arguments.threads, PRECISION, None, runs)
        scores = {part: {name: result[part][name] for name in result["metrics"]} for part in ("validation", "test")}
        seeds.append({"seed": seed, "seconds": sum(result["times"]), "commit": records.commit()} | scores)
        print(task, arguments.by, seeds[-1], flush=True)
        records.write(name, {"setting": setting, "seeds": seeds, "over_seeds": over(seeds)})


def over(seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation of each score."""
    return {
        part: {
            name: {
                "mean": statistics.fmean(one[part][name] for one in seeds),
                "standard_deviation": statistics.stdev(one[part][name] for one in seeds) if len(seeds) > 1 else None,
            }
            for name in seeds[0][part]
        }
        for part in ("validation", "test")
    }


def time_beside(task: str, arguments: argparse.Namespace) -> None:
    """Both sides in turns, in each precision: seconds of a step."""
    rounds: dict[str, dict[str, list[dict[str, Any]]]] = {p: {by: [] for by in STEPS} for p in PRECISIONS}
    for number in range(arguments.rounds):
        for precision, sides in rounds.items():
            for by, steps in STEPS.items():
                result = apart(by, task, arguments.data, number, arguments.threads, precision, steps)
                step = statistics.fmean(result["times"][WARM_UP[by] :])
                sides[by].append({"seconds_a_step": step, "peak_gflops": result["peak_gflops"]})
                print(f"round {number + 1} {task} {precision} {by:10} {step:.3f} s a step", flush=True)
    found = {}
    for precision, sides in rounds.items():
        medians = {by: statistics.median(one["seconds_a_step"] for one in ones) for by, ones in sides.items()}
        ratio = medians["trainer"] / medians["bertwright"]
        found[precision] = {"rounds": sides, "seconds_a_step": medians, "ratio": ratio}
        print(f"{task}, {precision}: {ratio:.1f} times", flush=True)
    records.write(f"task_{task}_time", found)


def table() -> str:
    """All scores that there are, as Markdown."""
    lines = ["| data | by | seeds | measure | validation | test |", "|---|---|---|---|---|---|"]
    for task in TASKS:
        for by, name in (("bertwright", f"task_{task}"), ("Trainer", f"task_{task}_trainer")):
            if held := records.held(name):
                for metric in held["over_seeds"]["test"]:
                    cells = [records.spread(held["over_seeds"][part][metric]) for part in ("validation", "test")]
                    lines.append(f"| {task} | {by} | {len(held['seeds'])} | {metric} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("quality", "time", "table"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--task", nargs="+", choices=tuple(TASKS), default=list(TASKS))
    parser.add_argument("--by", choices=tuple(STEPS), default="bertwright")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--runs", type=Path, help="keep bertwright's models here; a seed broken off goes on where it was")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    if arguments.what == "table":
        print(table())
        return
    for task in arguments.task:
        if (arguments.by == "trainer" or arguments.what == "time") and task not in BESIDE_TRAINER:
            parser.error(f"the Trainer is measured on --task {' '.join(BESIDE_TRAINER)}")
        (quality if arguments.what == "quality" else time_beside)(task, arguments)


if __name__ == "__main__":
    main()
