"""The teaching chapter's whole job on a GPU: four epochs of CoLA with a BERT of base size, seconds and fraction of peak.

    python -m benchmarks.finetune_gpu --data COLA_FOLDER --vocabulary VOCAB_TXT

Weights are random: they serve for timing. The chapter reports 31 min 38 s, and 10 min 4 s on a T4.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console

from benchmarks import records
from benchmarks.peers import COLA
from bertwright.finetuning import finetune
from bertwright.model import PRESETS
from bertwright.training.observers import read_history
from bertwright.training.recipe import preset


def peak_tflops(precision: str) -> float:
    """TFLOP/s of a large matrix product on random data: the ceiling that fractions are quoted against."""
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=dtype) for _ in range(2))
    times = []
    for _ in range(12):
        torch.cuda.synchronize()
        began = time.perf_counter()
        a @ b
        torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return 2 * 8192**3 / sorted(times)[len(times) // 2] / 1e12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--vocabulary", required=True, type=Path)
    parser.add_argument("--size", default="base", choices=tuple(PRESETS))
    parser.add_argument("--precision", default="bfloat16", choices=("float32", "bfloat16"))
    parser.add_argument("--dropout", type=float, default=None)
    arguments = parser.parse_args()
    peak = peak_tflops(arguments.precision)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        run = records.whole(finetune(
            preset("book"), config=arguments.size, tokenizer=str(arguments.vocabulary), device="cuda",
            train=str(arguments.data / "in_domain_train.tsv"), columns=list(COLA.names), text="sentence", label="label",
            test=str(arguments.data / "out_of_domain_dev.tsv"), precision=arguments.precision, dropout=arguments.dropout,
            out=str(Path(folder) / "run"), console=Console(quiet=True),
        ))  # fmt: skip
        steps = [r for r in read_history(run.out / "history.jsonl") if r["kind"] == "step"]
    layers, width, _ = PRESETS[arguments.size]
    flops = 6.0 * 12 * layers * width * width * sum(r["tokens"] for r in steps)
    training = run.metrics["training"]
    result = {
        "seconds_of_the_whole_call": time.perf_counter() - began,
        "seconds_of_training_steps": training["seconds"],
        "steps_per_second": training["steps_per_second"],
        "tokens_per_second": training["tokens_per_second"],
        "peak_memory_bytes": training["peak_memory_bytes"],
        "peak_tflops": peak,
        "fraction_of_peak": flops / training["seconds"] / 1e12 / peak,
    }
    print(result)
    plain = "" if arguments.dropout is None else f"_dropout_{arguments.dropout:g}"
    name = f"finetune_gpu_{arguments.size}_{arguments.precision}{plain}"
    print(records.write(name, result))


if __name__ == "__main__":
    main()
