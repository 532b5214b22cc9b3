"""Chinese: how a text becomes ids, and a classifier trained on Chinese texts.

    python examples/chinese.py path/to/bert-base-chinese/vocab.txt
    python examples/chinese.py path/to/bert-base-chinese/vocab.txt --train reviews.tsv --text text --out runs/zh

The second form trains a tiny model from random weights, to see the way; for use, start from bert-base-chinese.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import bertwright as bw
from bertwright.tokenizer import padded


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description="Tokenize Chinese, and fine-tune on it.")
    parser.add_argument("vocabulary", type=Path, help="vocab.txt of bert-base-chinese")
    parser.add_argument("--train", type=Path, help="labelled rows to train on, with a header")
    parser.add_argument("--text", default="text", help="its column of texts (default: %(default)s)")
    parser.add_argument("--label", default="label", help="its column of labels (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=50, help="training steps (default: %(default)s)")
    parser.add_argument("--out", default="runs/zh", help="directory of the model to write (default: %(default)s)")
    arguments = parser.parse_args()

    tokenizer = bw.Tokenizer.from_vocab(arguments.vocabulary)
    encoded = tokenizer.encode_batch(["貓追狗", "貓追老鼠"], offsets=True)
    for one in encoded:
        print(" ".join(tokenizer.tokens(one.input_ids)), one.offsets)
    for ids, mask in zip(*padded(encoded, tokenizer)[::2], strict=True):
        print(ids, mask)

    if arguments.train is not None:
        run = bw.finetune(
            config="tiny",
            tokenizer=arguments.vocabulary,
            train=arguments.train,
            text=arguments.text,
            label=arguments.label,
            steps=arguments.steps,
            out=arguments.out,
        )
        print(f"validation accuracy {run.metrics['validation']['accuracy']:.3f}")


if __name__ == "__main__":
    main()
