"""Many labels for one text: which words stand in the name of a customer's intent?

    python examples/multi_label.py path/to/banking77 --out runs/intent-words

The folder holds train.csv and test.csv as banking77 is published: a text and one of 77 intents, such as
``card_payment_fee_charged``. Its words become the labels, 110 of them, three or four a text. Beside the official test
rows the model is judged on intent_words_test.jsonl, which was written for this: some of its messages have two intents,
some have none. ``--steps 10`` is a quick look.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
from pathlib import Path

from rich.console import Console

import bertwright as bw

OWN_TEST = Path(__file__).with_name("intent_words_test.jsonl")


def words_of(intent: str) -> list[str]:
    """Return the words of an intent's name, each once: ``card_payment_fee_charged`` has four."""
    return list(dict.fromkeys(re.findall(r"[a-z0-9]+", intent.lower())))


def write_words(source: Path, target: Path) -> None:
    """Turn rows of a text and an intent into JSON lines of a text and its labels."""
    with source.open(encoding="utf-8", newline="") as rows, target.open("w", encoding="utf-8") as file:
        for row in csv.DictReader(rows):
            file.write(json.dumps({"text": row["text"], "labels": words_of(row["category"])}) + "\n")


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description="Fine-tune a multi-label classifier on the words of banking77's intents.")
    parser.add_argument("folder", type=Path, help="folder with banking77's train.csv and test.csv")
    parser.add_argument("--model", default="minilm", help="checkpoint to start from (default: %(default)s)")
    parser.add_argument("--out", default="runs/intent-words", help="directory of the model to write (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=4, help="passes over the rows (default: %(default)s)")
    parser.add_argument("--steps", type=int, help="stop after so many steps instead")
    arguments = parser.parse_args()

    Path(arguments.out).parent.mkdir(parents=True, exist_ok=True)
    for split in ("train", "test"):
        write_words(arguments.folder / f"{split}.csv", Path(f"{arguments.out}-{split}.jsonl"))
    run = bw.finetune(
        task="multi-label",
        model=arguments.model,
        train=f"{arguments.out}-train.jsonl",
        test=f"{arguments.out}-test.jsonl",
        label="labels",
        learning_rate=3e-4,
        epochs=arguments.epochs,
        steps=arguments.steps,
        out=arguments.out,
    )
    for name, metrics in (("official", run.metrics["test"]), ("own", run.model.evaluate(OWN_TEST).metrics)):
        Console().print(run.model.task.report(metrics, f"{name} test rows"), "")
    for answer in run.model.predict(["My card was stolen, please send a new one", "What will the weather be like?"]):
        print(answer["text"], "->", ", ".join(answer["predicted"]) or "no label")


if __name__ == "__main__":
    main()
