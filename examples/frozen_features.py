"""BERT as it is, as a source of features for another classifier: nothing of BERT is trained.

    python examples/frozen_features.py

Every sentence of the built-in data becomes the mean of its token vectors, and scikit-learn fits a line through them.
Beside it, ``--freeze encoder`` of the command line: the same idea with a small network of your own on top of [CLS].
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

import bertwright as bw
from bertwright import checkpoint, inference
from bertwright.data.acceptability import Sentence, generate, write_tsv
from bertwright.data.packing import PackedBatch, TokenTable
from bertwright.machine import Machine


def mean_features(model: str, sentences: Sequence[Sentence]) -> np.ndarray:
    """Return one row for each sentence: the mean of its last hidden states."""
    held = checkpoint.read(model)
    config = bw.BertConfig.from_dict(held.config, str(held.config_path))
    bert = bw.Bert(config)
    checkpoint.load_into(bert, held.tensors, where=model)
    encoded = bw.Tokenizer.from_directory(held.directory).encode_batch([s.text for s in sentences])
    table = TokenTable([e.input_ids for e in encoded], [e.token_type_ids for e in encoded])

    def mean_of_each(batch: PackedBatch) -> torch.Tensor:
        hidden_TH = bert(batch)  # no padding in there, so no mask is needed
        return torch.stack([part.mean(0) for part in hidden_TH.split(batch.sequences.lengths)])

    return inference.run(mean_of_each, table, Machine.choose("cpu"))


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description="Classify sentences with the features of a BERT that is not trained.")
    parser.add_argument("--model", default="minilm", help="checkpoint to take the features from (default: %(default)s)")
    parser.add_argument("--head", metavar="OUT", help="also train a head on the frozen encoder, and write it to OUT")
    parser.add_argument("--epochs", type=int, default=20, help="of that head (default: %(default)s)")
    arguments = parser.parse_args()

    data = generate()
    line = LogisticRegression(max_iter=2000)
    line.fit(mean_features(arguments.model, data.train), [s.acceptable for s in data.train])
    accuracy = line.score(mean_features(arguments.model, data.validation), [s.acceptable for s in data.validation])
    print(f"logistic regression on mean features: accuracy {accuracy:.3f} on {len(data.validation)} validation sentences")

    if arguments.head:
        Path(arguments.head).parent.mkdir(parents=True, exist_ok=True)
        for name, sentences in {"train": data.train, "validation": data.validation}.items():
            write_tsv(sentences, f"{arguments.head}-{name}.tsv")
        run = bw.finetune(
            model=arguments.model,
            train=f"{arguments.head}-train.tsv",
            validation=f"{arguments.head}-validation.tsv",
            text="sentence",
            freeze="encoder",
            head_layers=1,
            learning_rate=1e-3,
            epochs=arguments.epochs,
            out=arguments.head,
        )
        print(f"one layer of 128 on frozen [CLS]: accuracy {run.metrics['validation']['accuracy']:.3f}")


if __name__ == "__main__":
    main()
