"""The recipe: every choice of a fine-tuning run."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib import resources
from typing import Any

from bertwright.data.readers import is_delimited
from bertwright.errors import BertwrightError, did_you_mean
from bertwright.training.options import LARGEST_SEED, Options, option
from bertwright.training.schedule import SCHEDULES


@dataclass(frozen=True)
class Recipe(Options):
    """All choices of one run. ``Recipe.of`` builds one from files and values, and checks it."""

    COMMAND = "finetune"
    FILE = "recipe.toml"
    INPUTS = ("train", "validation", "test")
    MAY_CHANGE = Options.MAY_CHANGE | {"epochs", "steps", "patience", "seeds"}

    model: str = option("minilm", "Model", "Alias, directory, weights file, or hub id of the checkpoint to start from.")
    revision: str | None = option(None, "Model", "Branch, tag or commit of a hub id.")
    config: str | None = option(
        None,
        "Model",
        "Start from random weights of this size (tiny, mini, small, medium, base, large) instead of --model.",
    )
    tokenizer: str | None = option(None, "Model", "Directory or vocab.txt of the vocabulary, where it is not the model's.")
    head_layers: int = option(0, "Model", "Dense layers of your own between pooler and classifier.", low=0)
    head_size: int = option(128, "Model", "Width of those layers.", low=1)
    freeze: str = option(
        "none", "Model", "What stays as it is: none, encoder, or first:N (embeddings and the first N layers)."
    )

    task: str = option("classification", "Data", "What is learned; 'bertwright tasks' lists them.")
    train: str | None = option(None, "Data", "Training rows: .tsv, .csv, .jsonl or .parquet.")
    validation: str | None = option(None, "Data", "Validation rows; without, a part of the training rows is set aside.")
    test: str | None = option(None, "Data", "Test rows, judged once, after training.")
    columns: tuple[str, ...] = option((), "Data", "Comma-separated names for the columns of a file without a header.")
    text: str = option("text", "Data", "Column of the text.")
    pair: str | None = option(None, "Data", "Column of the second text, for pairs.")
    endings: tuple[str, ...] = option(
        (), "Data", "Columns of the endings to choose from, or the one that lists them; default: as in SWAG."
    )
    label: str = option("label", "Data", "Column of the label; numbers or names.")
    source: str | None = option(None, "Data", "Column to report results by.")
    delimiter: str | None = option(None, "Data", "Column separator; default: tab for .tsv, comma for .csv.")
    quoting: str = option(
        "auto",
        "Data",
        "Are quotes literal characters or do they enclose fields? auto: literal in .tsv.",
        choices=("auto", "literal", "csv"),
    )
    validation_fraction: float = option(0.1, "Data", "Part of the training rows set aside.", above=0, high=0.9)
    split_seed: int = option(2018, "Data", "Seed of that split; the same for all --seeds.", low=0, high=LARGEST_SEED)
    max_length: int = option(128, "Data", "Tokens of a text or pair; longer ones are cut, counted and told.", low=3)
    stride: int | None = option(
        None,
        "Data",
        "Read longer texts in windows of --max-length that share so many tokens, instead of cutting them.",
        low=0,
    )

    learning_rate: float = option(5e-5, "Training", "Peak learning rate.", above=0)
    batch_size: int = option(32, "Training", "Texts a step.", low=1)
    epochs: int = option(4, "Training", "Passes over the training rows.", low=1)
    steps: int | None = option(None, "Training", "Optimizer steps, instead of --epochs.", low=1)
    warmup: float = option(0.1, "Training", "Part of the steps over which the learning rate rises.", low=0, high=1)
    schedule: str = option("linear", "Training", "Learning rate after warm-up.", choices=SCHEDULES)
    weight_decay: float = option(0.01, "Training", "Decoupled decay of matrices; never of biases and layer norms.", low=0)
    adam_epsilon: float = option(1e-8, "Training", "AdamW's epsilon.", above=0)
    clip: float = option(1.0, "Training", "Longest gradient (L2 norm over all parameters); 0: no limit.", low=0)
    accumulate: int = option(1, "Training", "Batches whose gradients make one step.", low=1)
    dropout: float | None = option(
        None, "Training", "Dropout everywhere; default: as the model's config says.", low=0, high=0.99
    )
    class_weights: str = option(
        "none", "Training", "Loss weights: none, balanced, or name=weight,name=weight for skewed data."
    )
    metric: str | None = option(
        None,
        "Training",
        "What picks the best epoch and heads the report: loss, or a metric of the task; default: its first.",
    )
    patience: int = option(0, "Training", "Stop after this many epochs without a better one; 0: never.", low=0)
    seed: int = option(0, "Training", "Seed of order, dropout and new weights.", low=0, high=LARGEST_SEED)
    seeds: int = option(
        1, "Training", "Train this many seeds, report mean and deviation, keep the best by validation.", low=1
    )

    def ineffective(self) -> dict[str, str]:
        """Why options have no effect beside the others."""
        files = [path for path in (self.train, self.validation, self.test) if path is not None]
        no_table = "where no file is delimited text" if not any(is_delimited(path) for path in files) else ""
        validation = "beside --validation" if self.validation is not None else ""
        return {
            "head_size": "" if self.head_layers else "without --head-layers",
            "epochs": "beside --steps" if self.steps is not None else "",
            "revision": "beside --config" if self.config is not None else "",
            "validation_fraction": validation,
            "split_seed": validation,
            "columns": no_table,
            "delimiter": no_table,
            "quoting": no_table,
        }


# The options that say how a file of examples is to be read.
READING = ("text", "pair", "label", "source", "columns", "delimiter", "quoting", "endings")


def preset(name: str) -> dict[str, Any]:
    """Options of a recipe that comes with bertwright; ``book`` is the one known so far."""
    folder = resources.files("bertwright.training") / "presets"
    known = sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))
    if name not in known:
        raise BertwrightError(f"no preset {name!r}{did_you_mean(name, known)} (known: {', '.join(known)})")
    return tomllib.loads((folder / f"{name}.toml").read_text(encoding="utf-8"))
