"""Prediction on a CPU beside transformers: CoLA's sentences and SQuAD's paragraphs, whole calls, tokenisation included.

    python -m benchmarks.predict_cpu --data DATA_FOLDER

The peer is transformers with the texts sorted by length and padded to each batch's longest: the best usual way. Every
measurement runs in a fresh process, after a warm-up, and the two take turns in going first.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import bertwright as bw
from benchmarks import records
from benchmarks.peers import COLA, matrix_product_peak
from bertwright import checkpoint
from bertwright.data.readers import read_examples
from bertwright.machine import Machine
from bertwright.model import BertConfig
from bertwright.predictor import Predictor
from bertwright.tasks.classification import Classification
from bertwright.training.recipe import Recipe

SIDES = ("transformers", "bertwright")
_WARM_UP = 256  # texts


def texts_of(data: Path) -> dict[str, list[str]]:
    """Return the texts to classify, each list under its name."""
    cola = [row.text for row in read_examples(data / "cola" / "tokenized" / "in_domain_train.tsv", COLA)]
    squad = json.loads((data / "squad" / "dev-v1.1.json").read_text(encoding="utf-8"))
    paragraphs = [p["context"] for article in squad["data"] for p in article["paragraphs"]]
    return {"CoLA sentences": cola, "SQuAD paragraphs": paragraphs}


def write_model(folder: Path) -> None:
    """Write a classifier over MiniLM that both sides open."""
    folder.mkdir()
    held = checkpoint.read("minilm")
    task = Classification(("0", "1"))
    torch.manual_seed(0)
    model = task.build(BertConfig.from_dict(held.config, ""), head_layers=0, head_size=1)
    checkpoint.load_into(model, held.tensors, where="minilm")
    tokenizer = bw.Tokenizer.from_directory(held.directory)
    machine = Machine.choose("cpu", "float32")
    Predictor(model.requires_grad_(False), tokenizer, task, Recipe(max_length=512), machine).save(folder)


def transformers_side(folder: Path) -> Callable[[list[str]], Any]:
    """The peer's whole call, from texts to logits."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def predict(texts: list[str]) -> Any:
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        logits = np.empty((len(texts), 2))
        with torch.inference_mode():
            for i in range(0, len(order), 32):
                rows = order[i : i + 32]
                batch = tokenizer(
                    [texts[r] for r in rows], padding=True, truncation=True, max_length=512, return_tensors="pt"
                )
                logits[rows] = model(**batch).logits.numpy()
        return logits

    return predict


def bertwright_side(folder: Path) -> Callable[[list[str]], Any]:
    """This project's whole call, through the function that its users call."""
    model = bw.load(str(folder), device="cpu", precision="float32")
    return lambda texts: np.array([record["logits"] for record in model.predict(texts)])


def measure_here(who: str, folder: Path, texts: list[str], answers: Path) -> None:
    """Time one side in this process; print the seconds and keep the logits."""
    predict = transformers_side(folder) if who == "transformers" else bertwright_side(folder)
    predict(texts[:_WARM_UP])
    began = time.perf_counter()
    logits = predict(texts)
    seconds = time.perf_counter() - began
    np.save(answers, logits)
    print(json.dumps({"seconds": seconds}))


def measure(who: str, name: str, arguments: argparse.Namespace, folder: Path) -> tuple[float, Any]:
    """Time one side in a process of its own; return (seconds, logits)."""
    answers = folder / f"{who}.npy"
    command = [
        sys.executable,
        "-m",
        "benchmarks.predict_cpu",
        "--data",
        str(arguments.data),
        "--threads",
        str(arguments.threads),
    ]
    command += ["--side", who, "--texts", name, "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    if done.returncode:
        sys.exit(f"{who} failed:\n{done.stderr[-3000:]}")
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"]), np.load(answers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--side", choices=SIDES, help="time this side in this process (used by the benchmark itself)")
    parser.add_argument("--texts", help="with --side: which texts")
    parser.add_argument("--folder", type=Path, help="with --side: the model")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    all_texts = texts_of(arguments.data)
    if arguments.side:
        measure_here(
            arguments.side, arguments.folder, all_texts[arguments.texts], arguments.folder / f"{arguments.side}.npy"
        )
        return

    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name_of_folder:
        folder = Path(name_of_folder) / "model"
        write_model(folder)
        for name, texts in all_texts.items():
            seconds: dict[str, list[float]] = {who: [] for who in SIDES}
            difference = 0.0
            for number in range(arguments.rounds):
                answers = {}
                for who in SIDES if number % 2 == 0 else SIDES[::-1]:
                    took, answers[who] = measure(who, name, arguments, folder)
                    seconds[who].append(took)
                difference = max(difference, float(np.abs(answers["transformers"] - answers["bertwright"]).max()))
            rates = {who: len(texts) / statistics.median(times) for who, times in seconds.items()}
            ratios = [a / b for a, b in zip(seconds["transformers"], seconds["bertwright"], strict=True)]
            results[name] = {
                "texts": len(texts), "texts_per_second": rates, "ratio": statistics.median(ratios), "ratios": ratios,
                "seconds": seconds, "largest_difference_of_logits": difference,
            }  # fmt: skip
            print(f"{name}: {rates}, {statistics.median(ratios):.2f} times, logits within {difference:.1e}", flush=True)
    results["peak_gflops"] = matrix_product_peak()
    print(records.write("predict_cpu", results))


if __name__ == "__main__":
    main()
