"""Fine-tuning on a CPU beside its peers: the same checkpoint, rows, batch size, precision and schedule.

    python -m benchmarks.finetune_cpu speed   --data COLA_FOLDER
    python -m benchmarks.finetune_cpu losses  --data COLA_FOLDER
    python -m benchmarks.finetune_cpu quality --data COLA_FOLDER --variant bertwright

``speed`` takes turns: each round runs every variant in a fresh process, so that a drifting machine slows all alike.
``losses`` trains without dropout from the same new weights, where packed and padded must agree step by step.
``quality`` trains four epochs for each of five seeds, at the learning rate ``--rate``; one result file for each.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import records

STEPS = {"padded-128": 6, "padded-longest": 24, "trainer": 48, "bertwright": 60, "bertwright-bfloat16": 60}
# The first steps warm up; of the Trainer all count, since it takes its longest batches first.
WARM_UP = {"padded-128": 1, "padded-longest": 4, "trainer": 0, "bertwright": 10, "bertwright-bfloat16": 10}


def measure(variant: str, setting: dict[str, Any]) -> dict[str, Any]:
    """Run one variant in its own process."""
    command = [sys.executable, "-m", "benchmarks.peers", variant, json.dumps(setting)]
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "true", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        sys.exit(f"{variant} failed:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def forward_backward_flops(tokens: int, sequences: int) -> float:
    """Floating-point operations of the matrix products of one MiniLM step (attention's own left out), all rows computed.

    Six a weight and token: two each for the forward pass, the inputs' gradient and the weights'.
    """
    layer = 12 * 384 * 384
    return 6.0 * (6 * layer * tokens + (384 * 384 + 2 * 384) * sequences)


def speed(setting: dict[str, Any], rounds: int) -> dict[str, Any]:
    """Time every variant in turns."""
    runs: dict[str, list[dict[str, Any]]] = {variant: [] for variant in STEPS}
    for number in range(rounds):
        for variant, steps in STEPS.items():
            result = measure(variant, setting | {"steps": steps})
            kept = slice(WARM_UP[variant], None)
            times, tokens = result["times"][kept], result["tokens"][kept]
            run = {
                "steps_per_second": len(times) / sum(times),
                "tokens_per_second": sum(tokens) / sum(times),
                "tokens_per_step": statistics.fmean(tokens),
                "peak_gflops": result["peak_gflops"],
                "peak_memory_bytes": result["peak_memory_bytes"],
                "losses": result["losses"],
            }
            rate = forward_backward_flops(1, 0) * run["tokens_per_second"] / 1e9
            run["fraction_of_peak"] = rate / run["peak_gflops"]
            runs[variant].append(run)
            print(
                f"round {number + 1} {variant:15} {run['steps_per_second']:6.2f} steps/s {run['tokens_per_second']:7.0f} "
                f"real tokens/s, {run['fraction_of_peak']:.0%} of {run['peak_gflops']:.0f} GFLOP/s",
                flush=True,
            )
    names = ("steps_per_second", "tokens_per_second", "fraction_of_peak", "peak_gflops", "peak_memory_bytes")
    medians = {v: {n: statistics.median(r[n] for r in rs) for n in names} for v, rs in runs.items()}
    ours = medians["bertwright"]
    ratios = {
        variant: {
            "steps": ours["steps_per_second"] / medians[variant]["steps_per_second"],
            "real_tokens": ours["tokens_per_second"] / medians[variant]["tokens_per_second"],
        }
        for variant in STEPS
        if not variant.startswith("bertwright")
    }
    print(json.dumps(ratios, indent=1))
    return {"setting": setting, "medians": medians, "ratios_bertwright_over": ratios, "rounds": runs}


def losses(setting: dict[str, Any], steps: int) -> dict[str, Any]:
    """Compare loss curves without dropout, from the same new weights."""
    import torch

    from bertwright import checkpoint
    from bertwright.model import BertConfig, SequenceClassifier

    held = checkpoint.read(setting["model"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(setting["seed"])
        model = SequenceClassifier(BertConfig.from_dict(held.config, ""), 2)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "classifier.npz"
        np.savez(file, weight=model.last.weight.detach().numpy(), bias=model.last.bias.detach().numpy())
        setting = setting | {"steps": steps, "dropout": False, "classifier": str(file)}
        curves = {v: measure(v, setting)["losses"] for v in ("padded-longest", "bertwright")}
    largest = max(abs(a - b) for a, b in zip(curves["padded-longest"], curves["bertwright"], strict=True))
    print(f"largest difference of {steps} losses: {largest:.2e}")
    return {"setting": setting, "largest_difference": largest, "curves": curves}


def quality(setting: dict[str, Any], variant: str, seeds: int, name: str) -> dict[str, Any]:
    """Matthews correlation of the best validation epoch, over seeds.

    Each takes minutes, so the result file is written after every one; seeds that it holds already under the same
    setting are kept, with the commit that they ran on.
    """
    shown = {k: v for k, v in setting.items() if k != "data"}
    file = records.RESULTS / f"{name}.json"
    held = json.loads(file.read_text())["results"] if file.exists() else {}
    scores = held["seeds"] if held.get("setting") == shown else []
    result: dict[str, Any] = {}
    for seed in range(seeds):
        if not any(score["seed"] == seed for score in scores):
            measured = measure(variant, setting | {"seed": seed, "steps": 0, "quality": True})
            scores.append(
                measured["quality"] | {"seed": seed, "seconds": sum(measured["times"]), "commit": records.commit()}
            )
            print(scores[-1], flush=True)
        result = {"setting": shown, "variant": variant, "seeds": scores}
        if len(scores) > 1:
            result["summary"] = summary(scores)
        records.write(name, result)
    return result


def summary(scores: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation over seeds."""
    return {
        split: {
            "mean": statistics.fmean(s[split] for s in scores),
            "standard_deviation": statistics.stdev(s[split] for s in scores),
        }
        for split in ("validation", "test")
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("speed", "losses", "quality"))
    parser.add_argument("--data", required=True, help="folder with CoLA's two files")
    parser.add_argument("--variant", choices=tuple(STEPS), default="bertwright")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30, help="steps of the loss comparison")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--rate", type=float, default=5e-5)
    arguments = parser.parse_args()
    setting = {
        "model": "minilm", "data": arguments.data, "batch_size": 32, "epochs": 4, "rate": arguments.rate, "warmup": 0.1,
        "decay": 0.01, "seed": 0, "threads": arguments.threads, "steps": 0, "dropout": True, "quality": False,
        "precision": arguments.precision,
    }  # fmt: skip
    if arguments.what == "speed":
        name, result = "finetune_cpu_speed", speed(setting, arguments.rounds)
    elif arguments.what == "losses":
        name, result = "finetune_cpu_losses", losses(setting, arguments.steps)
    else:
        name = f"finetune_cpu_quality_{arguments.variant.replace('-', '_')}_{arguments.rate:.0e}".replace("e-0", "e-")
        quality(setting, arguments.variant, arguments.seeds, name)
        return
    result["setting"] = {k: v for k, v in result["setting"].items() if k not in ("data", "classifier")}
    print(records.write(name, result))


if __name__ == "__main__":
    main()
