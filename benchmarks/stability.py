"""What helps few rows: RTE or CoLA over many seeds, with one option after the other.

    python -m benchmarks.stability --data DATA_FOLDER --task rte --seeds 10 --variant baseline long r-drop
    python -m benchmarks.stability --data DATA_FOLDER --task rte --table

Each seed of each variant is a fine-tuning of its own, and its result is added to ``results/stability_TASK.json`` as it
comes. What the file holds already is not run again, so that a broken off benchmark goes on where it was; processes with
other variants or tasks can run beside it. ``--table`` prints what is there as Markdown.

With ``--weights FOLDER`` the models are kept there, and the means of the seeds' weights (soups) are measured too, once all
seeds of a variant are there: of heads drawn apart (``baseline``), and of one head for all seeds (``one-head``).
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

import bertwright
from benchmarks import records
from bertwright import soup
from bertwright.checkpoint import canonical
from bertwright.finetuning import finetune
from bertwright.predictor import Predictor

TASKS: dict[str, dict[str, Any]] = {
    "rte": {
        "train": "glue/RTE/train.tsv", "test": "glue/RTE/dev.tsv", "text": "sentence1", "pair": "sentence2",
        "label": "label", "metric": "accuracy", "max_length": 256, "epochs": 4,
    },
    "cola": {
        "train": "cola/raw/in_domain_train.tsv", "test": "cola/raw/out_of_domain_dev.tsv",
        "columns": ["source", "label", "note", "sentence"], "text": "sentence", "label": "label",
        "metric": "matthews_correlation", "epochs": 4,
    },
}  # fmt: skip

VARIANTS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "long": {"epochs": 10},
    "rate-1e-4": {"learning_rate": 1e-4},
    "reinit-1": {"reinit_layers": 1},
    "reinit-2": {"reinit_layers": 2},
    "layer-decay": {"layer_decay": 0.9},
    "r-drop": {"r_drop": 1.0},
    "smoothing": {"label_smoothing": 0.1},
    "average": {"average": 0.99},
    "uncorrected": {"no_bias_correction": True},
    "no-warmup": {"warmup": 0.0},
    "one-head": {"init_seed": 0},
    "long-rate-1e-4": {"epochs": 10, "learning_rate": 1e-4},
    "long-reinit-1": {"epochs": 10, "reinit_layers": 1},
    "long-layer-decay": {"epochs": 10, "layer_decay": 0.9},
    "long-r-drop": {"epochs": 10, "r_drop": 1.0},
    "long-smoothing": {"epochs": 10, "label_smoothing": 0.1},
    "long-average": {"epochs": 10, "average": 0.99},
    "long-all": {
        "epochs": 10, "reinit_layers": 1, "layer_decay": 0.9, "r_drop": 1.0, "label_smoothing": 0.1, "average": 0.99,
    },
}  # fmt: skip

Results = dict[str, Any]


def measured(task: str, variant: str, seed: int, arguments: argparse.Namespace, out: Path) -> dict[str, Any]:
    """Train one seed of a variant and return its scores."""
    paths = {name: str(arguments.data / TASKS[task][name]) for name in ("train", "test")}
    run = records.whole(finetune(
        TASKS[task] | paths | VARIANTS[variant] | ({"steps": arguments.steps} if arguments.steps else {}),
        model=arguments.model, seed=seed, threads=arguments.threads, precision=arguments.precision, out=out,
        overwrite=True, console=Console(quiet=True),
    ))  # fmt: skip
    return {
        "seed": seed,
        **{split: run.metrics[split][TASKS[task]["metric"]] for split in ("validation", "test")},
        "epoch": run.metrics["best_epoch"],
        "collapsed": collapsed(run.metrics["validation"]),
        "seconds": run.metrics["training"]["seconds"],
        "commit": records.commit(),
    }


def collapsed(metrics: dict[str, Any]) -> bool:
    """Whether every row was given one and the same label."""
    return sum(any(column) for column in zip(*metrics["confusion_matrix"], strict=True)) == 1


def summary(seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation over seeds, and how many of them collapsed."""
    spread = {
        split: {
            "mean": statistics.fmean(one[split] for one in seeds),
            "standard_deviation": statistics.stdev(one[split] for one in seeds) if len(seeds) > 1 else None,
        }
        for split in ("validation", "test")
    }
    return {"seeds": len(seeds), **spread, "collapsed": sum(one["collapsed"] for one in seeds)}


def soups(task: str, variant: str, held: dict[str, Any], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The means of the seeds' weights, on validation and on test."""
    metric = TASKS[task]["metric"]
    folders = {one["seed"]: arguments.weights / task / variant / f"seed-{one['seed']}" for one in held["seeds"]}
    if missing := [folder for folder in folders.values() if not folder.is_dir()]:
        print(f"no soup of {variant}: {missing[0]} is not there")
        return []
    model = bertwright.load(next(iter(folders.values())), threads=arguments.threads)
    rows = list(model.read(arguments.data / TASKS[task]["train"]))
    _, aside, _ = model.task.split(rows, model.recipe.validation_fraction, model.recipe.split_seed)
    validation = [rows[place] for place in aside]
    ingredients = [
        soup.Ingredient(s["seed"], s["validation"], folders[s["seed"]] / "model.safetensors") for s in held["seeds"]
    ]
    scored = _judge(model, validation)
    found = [soup.uniform(ingredients, scored), soup.greedy(ingredients, scored, lambda scores: scores[metric])]
    results = []
    for made in (one for one in found if one is not None):
        scored(made.weights)
        test = model.evaluate(arguments.data / TASKS[task]["test"]).metrics[metric]
        results.append({"kind": made.kind, "seeds": made.seeds, "validation": made.validation[metric], "test": test})
    return results


def _judge(model: Predictor, rows: list[Any]) -> Callable[[soup.Weights], dict[str, float]]:
    def judge(weights: soup.Weights) -> dict[str, float]:
        model.model.load_state_dict(canonical(weights, where="soup"))
        return {name: model.evaluate(rows).metrics[name] for name in ("accuracy", "matthews_correlation")}

    return judge


def table(results: Results) -> str:
    """The results as a Markdown table, validation and test in per cent."""
    lines = ["| variant | seeds | validation | test | collapsed |", "| --- | --- | --- | --- | --- |"]
    for variant in (one for one in VARIANTS if one in results["variants"]):
        held = results["variants"][variant]
        found = held["summary"]
        cells = [records.spread(found[split], percent=True) for split in ("validation", "test")]
        lines.append(f"| {variant} | {found['seeds']} | {' | '.join(cells)} | {found['collapsed']} |")
        for made in held.get("soups", []):
            cells = [f"{100 * made[split]:.1f}" for split in ("validation", "test")]
            lines.append(f"| {variant}, {made['kind']} soup | {len(made['seeds'])} | {' | '.join(cells)} | |")
    return "\n".join(lines)


@contextmanager
def changing(name: str, setting: dict[str, Any], variant: str) -> Iterator[dict[str, Any]]:
    """A variant's results as the file has them now, to be changed and written while no other process does so."""
    folder = os.open(records.RESULTS, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        results = held(name, setting)
        yield results["variants"].setdefault(variant, {"options": VARIANTS[variant], "seeds": []})
        records.write(name, results)
    finally:
        os.close(folder)


def held(name: str, setting: dict[str, Any]) -> Results:
    """What the file has so far, if it was measured in this way."""
    file = records.RESULTS / f"{name}.json"
    if not file.exists():
        return {"setting": setting, "variants": {}}
    results: Results = json.loads(file.read_text())["results"]
    if results["setting"] != setting:
        raise SystemExit(f"{file} is of another setting, {results['setting']}; move it away")
    for variant, found in results["variants"].items():
        if found["options"] != VARIANTS.get(variant):
            raise SystemExit(f"{file} has {variant} with the options {found['options']}; take it out there")
    return results


def is_there(results: Results, variant: str, seed: int) -> bool:
    """Whether a seed of a variant needs not be run."""
    return any(one["seed"] == seed for one in results["variants"].get(variant, {"seeds": []})["seeds"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--task", required=True, choices=tuple(TASKS))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--variant", nargs="+", default=list(VARIANTS), choices=tuple(VARIANTS))
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--steps", type=int, help="a trial of so many steps, with a result file of its own")
    parser.add_argument("--weights", type=Path, help="keep the models here, and measure soups of them")
    parser.add_argument("--table", action="store_true", help="print what is there, and run nothing")
    arguments = parser.parse_args()
    task, name = arguments.task, f"stability_{arguments.task}" + ("_trial" if arguments.steps else "")
    setting = {
        "model": arguments.model, "task": task, "metric": TASKS[task]["metric"], "steps": arguments.steps,
        "precision": arguments.precision,
    }  # fmt: skip
    for variant in [] if arguments.table else arguments.variant:
        for seed in range(arguments.seeds):
            if is_there(held(name, setting), variant, seed):
                continue
            with tempfile.TemporaryDirectory() as folder:
                out = (arguments.weights or Path(folder)) / task / variant / f"seed-{seed}"
                result = measured(task, variant, seed, arguments, out)
            print(variant, result, flush=True)
            with changing(name, setting, variant) as found:
                found["seeds"] = sorted([*found["seeds"], result], key=lambda one: int(one["seed"]))
                found["summary"] = summary(found["seeds"])
        if arguments.weights is not None:
            made = soups(task, variant, held(name, setting)["variants"][variant], arguments)
            with changing(name, setting, variant) as found:
                found["soups"] = made
    print(table(held(name, setting)))


if __name__ == "__main__":
    main()
