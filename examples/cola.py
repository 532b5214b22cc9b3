"""The BERT chapter's job in Python: fine-tune on CoLA, judge it out of domain, and look at single sentences.

    python examples/cola.py path/to/cola_public/tokenized --out runs/cola

The folder holds in_domain_train.tsv and out_of_domain_dev.tsv as CoLA is published. ``--steps 10`` is a quick look.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import bertwright as bw
from bertwright.training.recipe import preset


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description="Fine-tune BERT on CoLA with the chapter's settings.")
    parser.add_argument("folder", type=Path, help="folder with in_domain_train.tsv and out_of_domain_dev.tsv")
    parser.add_argument("--model", default="minilm", help="checkpoint to start from (default: %(default)s)")
    parser.add_argument("--out", default="runs/cola", help="directory of the model to write (default: %(default)s)")
    parser.add_argument("--steps", type=int, help="stop after so many steps instead of the chapter's four epochs")
    arguments = parser.parse_args()

    run = bw.finetune(
        preset("book"),
        model=arguments.model,
        train=arguments.folder / "in_domain_train.tsv",
        test=arguments.folder / "out_of_domain_dev.tsv",
        columns=["source", "label", "note", "sentence"],  # CoLA's files have no header
        text="sentence",
        label="label",
        source="source",
        steps=arguments.steps,
        out=arguments.out,
    )
    test = run.metrics["test"]
    print(f"out of domain: Matthews correlation {test['matthews_correlation']:.3f} over all {test['examples']} sentences")
    print("in batches of 32:", " ".join(f"{value:.2f}" for value in test["matthews_per_batch"]))
    for source, part in test["per_source"].items():
        print(f"  {source}: {part['matthews_correlation']:.3f} over {part['examples']}")

    model = bw.load(run.out)  # or run.model, which is the same
    for answer in model.predict(["We go to the market", "We no go to the market"]):
        print(f"{answer['probability']:.2f} {answer['predicted']}  {answer['text']}")


if __name__ == "__main__":
    main()
