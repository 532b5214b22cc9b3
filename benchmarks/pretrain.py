"""Pretraining beside transformers: the same config, text, pairs, masking rate, batch size and precision.

    python -m benchmarks.pretrain --corpus PREPARED_FOLDER --config mini

The peer is `BertForPreTraining` with `DataCollatorForLanguageModeling`: batches padded to their longest sequence, logits
of the whole vocabulary at every token. Each measurement runs in a fresh process; rounds take turns in who goes first.
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
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import records
from bertwright.data.instances import draw_instances
from bertwright.data.shards import TokenCorpus
from bertwright.machine import Machine
from bertwright.model import BertConfig
from bertwright.training.observers import read_history

SIDES = ("transformers", "bertwright")
_WARM_UP = 3  # steps


def transformers_side(setting: dict[str, Any]) -> dict[str, Any]:
    """The usual loop; the pairs are drawn by bertwright, outside the time that is measured."""
    from transformers import BertConfig as PeerConfig
    from transformers import BertForPreTraining, BertTokenizerFast, DataCollatorForLanguageModeling

    device = Machine.choose(setting["device"], setting["precision"], setting["threads"])
    corpus = TokenCorpus.open(setting["corpus"])
    section = corpus.shards[0].read()
    instances = draw_instances(section, "mlm+nsp", setting["max_length"], seed=0, epoch=0, number=0)
    tokenizer = BertTokenizerFast.from_pretrained(Path(setting["corpus"]) / "tokenizer")
    collate = DataCollatorForLanguageModeling(tokenizer, mlm=True, mlm_probability=0.15)
    config = BertConfig.preset(setting["config"], corpus.manifest.vocab_size)
    torch.manual_seed(0)
    model = BertForPreTraining(PeerConfig(**config.to_dict())).to(device.device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=setting["rate"], weight_decay=0.01)
    text = np.asarray(section.tokens)
    special = corpus.manifest.special_ids

    def row(number: int) -> dict[str, Any]:
        a, b = instances.a_start[number], instances.b_start[number]
        first = text[a : a + instances.a_length[number]].tolist()
        second = text[b : b + instances.b_length[number]].tolist()
        ids = [special["cls"], *first, special["sep"], *second, special["sep"]]
        return {"input_ids": ids, "token_type_ids": [0] * (len(first) + 2) + [1] * (len(second) + 1)}

    times, tokens, losses = [], [], []
    for step in range(setting["steps"]):
        which = instances.order[step * setting["sequences"] : (step + 1) * setting["sequences"]]
        rows = [row(number) for number in which]
        began = time.perf_counter()
        batch = {name: value.to(device.device) for name, value in collate(rows).items()}
        labels = torch.from_numpy(instances.label[which].astype(np.int64)).to(device.device)
        with device.computing():
            loss = model(**batch, next_sentence_label=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
        times.append(time.perf_counter() - began)
        tokens.append(sum(len(one["input_ids"]) for one in rows))
    return {"times": times, "tokens": tokens, "losses": losses, "peak": device.peak_flops()}


def bertwright_side(setting: dict[str, Any]) -> dict[str, Any]:
    """This project, through the function that its users call."""
    from rich.console import Console

    from bertwright.pretraining.run import pretrain

    with tempfile.TemporaryDirectory() as folder:
        run = pretrain(
            setting["corpus"], config=setting["config"], max_length=str(setting["max_length"]), steps=setting["steps"],
            batch_tokens=str(setting["sequences"] * setting["max_length"]), micro_tokens=1 << 30, warmup=0.0,
            schedule="constant", learning_rate=setting["rate"], validate_every=setting["steps"], heldout_tokens=2000,
            device=setting["device"], precision=setting["precision"], threads=setting["threads"],
            out=str(Path(folder) / "run"), console=Console(quiet=True),
        )  # fmt: skip
        assert run is not None
        steps = [record for record in read_history(run.out / "history.jsonl") if record["kind"] == "step"]
        peak = run.metrics["training"]["peak_flops_per_second"]
    names = {"times": "seconds", "tokens": "tokens", "losses": "loss", "flops": "flops"}
    return {name: [record[key] for record in steps] for name, key in names.items()} | {"peak": peak}


def measure(side: str, setting: dict[str, Any]) -> dict[str, Any]:
    """Run one side in its own process."""
    command = [sys.executable, "-m", "benchmarks.pretrain", "--side", side, "--setting", json.dumps(setting)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    if done.returncode:
        sys.exit(f"{side} failed:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def compare(setting: dict[str, Any], rounds: int) -> dict[str, Any]:
    """Time both sides in turns."""
    runs: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    operations = 0.0
    for number in range(rounds):
        for side in SIDES if number % 2 == 0 else SIDES[::-1]:
            result = measure(side, setting)
            seconds, tokens = sum(result["times"][_WARM_UP:]), sum(result["tokens"][_WARM_UP:])
            if side == "bertwright":
                operations = sum(result["flops"][_WARM_UP:]) / tokens
            run = {"tokens_per_second": tokens / seconds, "peak_flops": result["peak"], "last_loss": result["losses"][-1]}
            runs[side].append(run)
            print(f"round {number + 1} {side:12} {run['tokens_per_second']:9,.0f} real tokens/s", flush=True)
    rates = {side: statistics.median(run["tokens_per_second"] for run in runs[side]) for side in SIDES}
    ratios = [b["tokens_per_second"] / a["tokens_per_second"] for a, b in zip(*runs.values(), strict=True)]
    peak = statistics.median(run["peak_flops"] for run in runs["bertwright"])
    print(
        f"{setting['config']}: {statistics.median(ratios):.2f} times, {operations * rates['bertwright'] / peak:.0%} of peak"
    )
    return {
        "tokens_per_second": rates,
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "flops_per_token": operations,
        "peak_flops": peak,
        "fraction_of_peak": {side: operations * rate / peak for side, rate in rates.items()},
        "rounds": runs,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", help="what 'bertwright prepare' wrote")
    parser.add_argument("--config", nargs="+", default=["mini", "small"])
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--sequences", type=int, default=64, help="of a step")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--side", choices=SIDES, help="run this side here (used by the benchmark itself)")
    parser.add_argument("--setting", help="with --side: what to run, as JSON")
    arguments = parser.parse_args()
    if arguments.side:
        setting = json.loads(arguments.setting)
        print(json.dumps(transformers_side(setting) if arguments.side == "transformers" else bertwright_side(setting)))
        return
    if arguments.corpus is None:
        parser.error("--corpus is missing")
    names = ("corpus", "max_length", "sequences", "steps", "rate", "device", "precision", "threads")
    setting = {name: getattr(arguments, name) for name in names}
    results = {config: compare(setting | {"config": config}, arguments.rounds) for config in arguments.config}
    shown = {name: value for name, value in setting.items() if name != "corpus"}
    name = f"pretrain_{arguments.device}_{arguments.max_length}"
    print(records.write(name, {"setting": shown, "text": "English Wikipedia", **results}))


if __name__ == "__main__":
    main()
