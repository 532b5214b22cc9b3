"""Prediction on a CPU beside transformers: CoLA's sentences and SQuAD's paragraphs, whole calls, tokenisation included.

    python -m benchmarks.predict_cpu --data DATA_FOLDER

The peer is transformers with the texts sorted by length and padded to each batch's longest: the best usual way.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
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
from bertwright.tasks import Classification
from bertwright.training.recipe import Recipe


def texts_of(data: Path) -> dict[str, list[str]]:
    """Return the texts to classify, each with their names."""
    cola = [row.text for row in read_examples(data / "cola" / "tokenized" / "in_domain_train.tsv", COLA)]
    squad = json.loads((data / "squad" / "dev-v1.1.json").read_text(encoding="utf-8"))
    paragraphs = [p["context"] for article in squad["data"] for p in article["paragraphs"]]
    return {"CoLA sentences": cola[:4000], "SQuAD paragraphs": paragraphs[::8]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    machine = Machine.choose("cpu", "float32", arguments.threads)
    held = checkpoint.read("minilm")
    task = Classification(("0", "1"))
    torch.manual_seed(0)
    model = task.build(BertConfig.from_dict(held.config, ""), head_layers=0, head_size=1)
    checkpoint.load_into(model, held.tensors, where="minilm")
    tokenizer = bw.Tokenizer.from_directory(held.directory)
    ours = Predictor(model.requires_grad_(False), tokenizer, task, Recipe(max_length=512), machine)

    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    with tempfile.TemporaryDirectory() as folder:
        ours.save(Path(folder))
        peer = AutoModelForSequenceClassification.from_pretrained(folder).eval()
        peer_tokenizer = AutoTokenizer.from_pretrained(folder)

    def transformers_predict(texts: list[str]) -> Any:
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        logits = np.empty((len(texts), 2))
        with torch.inference_mode():
            for i in range(0, len(order), 32):
                rows = order[i : i + 32]
                batch = peer_tokenizer(
                    [texts[r] for r in rows], padding=True, truncation=True, max_length=512, return_tensors="pt"
                )
                logits[rows] = peer(**batch).logits.numpy()
        return logits

    def bertwright_predict(texts: list[str]) -> Any:
        return np.array([record["logits"] for record in ours.predict(texts)])

    results: dict[str, Any] = {}
    for name, texts in texts_of(arguments.data).items():
        seconds: dict[str, list[float]] = {"transformers": [], "bertwright": []}
        difference = 0.0
        for _ in range(arguments.rounds):
            answers = {}
            calls: dict[str, Callable[[list[str]], Any]] = {
                "transformers": transformers_predict,
                "bertwright": bertwright_predict,
            }
            for who, call in calls.items():
                began = time.perf_counter()
                answers[who] = call(texts)
                seconds[who].append(time.perf_counter() - began)
            difference = max(difference, float(np.abs(answers["transformers"] - answers["bertwright"]).max()))
        rates = {who: len(texts) / statistics.median(times) for who, times in seconds.items()}
        pairs = [a / b for a, b in zip(seconds["transformers"], seconds["bertwright"], strict=True)]
        results[name] = {
            "texts": len(texts), "texts_per_second": rates, "ratio": statistics.median(pairs), "ratios": pairs,
            "largest_difference_of_logits": difference,
        }  # fmt: skip
        print(f"{name}: {rates}, {statistics.median(pairs):.2f} times, logits within {difference:.1e}", flush=True)
    results["peak_gflops"] = matrix_product_peak()
    print(records.write("predict_cpu", results))


if __name__ == "__main__":
    main()
