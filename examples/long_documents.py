"""Documents of thousands of tokens: which article of SQuAD is this part of? Once cut at 512 tokens, once in windows.

    python examples/long_documents.py dev-v1.1.json --words 1000 --freeze encoder --epochs 40

The paragraphs of each article are joined to documents in the order in which they stand. The last document of an article
is kept for the test, the one before it for validation, and the others are for training: no paragraph is on two sides.
Everything is written to ``--out``: the rows, and a model directory for each way.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import bertwright as bw

Row = dict[str, str]


def documents(paragraphs: list[str], words: int) -> list[str]:
    """Join paragraphs, a blank line between, to documents of at least so many words each; what is left joins the last."""
    made: list[list[str]] = [[]]
    for paragraph in paragraphs:
        if sum(len(part.split()) for part in made[-1]) >= words:
            made.append([])
        made[-1].append(paragraph)
    if len(made) > 1 and sum(len(part.split()) for part in made[-1]) < words:
        rest = made.pop()
        made[-1] += rest
    return ["\n\n".join(parts) for parts in made]


def rows_of(articles: list[Any], words: int) -> dict[str, list[Row]]:
    """Rows of the articles that make at least three documents: the last for the test, the one before for validation."""
    splits: dict[str, list[Row]] = {"train": [], "validation": [], "test": []}
    for article in articles:
        parts = documents([paragraph["context"] for paragraph in article["paragraphs"]], words)
        rows = [{"text": part, "label": article["title"]} for part in parts]
        if len(rows) >= len(splits):
            splits["train"] += rows[:-2]
            splits["validation"] += rows[-2:-1]
            splits["test"] += rows[-1:]
    return splits


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description="Classify long documents, cut and in windows.")
    parser.add_argument("squad", type=Path, help="a SQuAD file, of either version")
    parser.add_argument("--model", default="minilm", help="checkpoint to start from (default: %(default)s)")
    parser.add_argument("--words", type=int, default=1500, help="words of a document, at least (default: %(default)s)")
    parser.add_argument("--articles", type=int, default=1000, help="how many articles, at most (default: %(default)s)")
    parser.add_argument("--max-length", type=int, default=512, help="tokens of a window (default: %(default)s)")
    parser.add_argument("--stride", type=int, default=64, help="tokens that windows share (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=4, help="passes over the training documents (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=8, help="texts or windows a step (default: %(default)s)")
    parser.add_argument("--freeze", default="none", help="what stays as it is (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/long"), help="where all goes (default: %(default)s)")
    arguments = parser.parse_args()

    articles = json.loads(arguments.squad.read_text(encoding="utf-8"))["data"][: arguments.articles]
    splits = rows_of(articles, arguments.words)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, rows in splits.items():
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        (arguments.out / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")

    for name, stride in (("cut", None), ("windows", arguments.stride)):
        began = time.perf_counter()
        run = bw.finetune(
            model=arguments.model,
            train=str(arguments.out / "train.jsonl"),
            validation=str(arguments.out / "validation.jsonl"),
            test=str(arguments.out / "test.jsonl"),
            max_length=arguments.max_length,
            stride=stride,
            epochs=arguments.epochs,
            batch_size=arguments.batch_size,
            freeze=arguments.freeze,
            learning_rate=2e-4 if arguments.freeze == "none" else 2e-3,
            out=str(arguments.out / name),
            overwrite=True,
        )
        accuracy, seconds = run.metrics["test"]["accuracy"], time.perf_counter() - began
        sizes = f"{len(splits['test'])} documents, {len(splits['train'])} to train on"
        print(f"{name}: accuracy {accuracy:.3f} on {sizes}; read, trained and judged in {seconds:.0f} s")


if __name__ == "__main__":
    main()
