"""The recipe: every choice of a fine-tuning run."""

from __future__ import annotations

import re
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
    FREE = Options.FREE | {"revision"}  # the weights themselves are held to
    OF_SEEDS = Options.OF_SEEDS | {"seeds", "keep"}
    MAY_CHANGE = Options.MAY_CHANGE | {"epochs", "steps", "patience", "seeds", "keep"}
    ALTERNATIVES = (frozenset({"epochs", "steps"}),)

    model: str = option("minilm", "Model", "Alias, directory, weights file, or hub id of the checkpoint to start from.")
    revision: str | None = option(None, "Model", "Branch, tag or commit of a hub id.")
    config: str | None = option(
        None,
        "Model",
        "Start from random weights of this size (tiny, mini, small, medium, base, large, or a config.json) instead of "
        "--model.",
    )
    tokenizer: str | None = option(None, "Model", "Directory or vocab.txt of the vocabulary, where it is not the model's.")
    head_layers: int = option(0, "Model", "Dense layers of your own between pooler and classifier.", low=0)
    head_size: int = option(128, "Model", "Width of those layers.", low=1)
    freeze: str = option(
        "none", "Model", "What stays as it is: none, encoder, or first:N (embeddings and the first N layers)."
    )
    reinit_layers: int = option(0, "Model", "Top layers that begin anew, and with them the pooler and the head.", low=0)

    task: str = option("classification", "Data", "What is learned; 'bertwright tasks' lists them.")
    dataset: str | None = option(None, "Data", "A known data set by name; 'bertwright tasks' lists them.")
    data: str | None = option(None, "Data", "Directory that holds its files; without, the hub is read.")
    train: str | None = option(
        None,
        "Data",
        "Training rows (needed, but for a known data set): a file of the task's formats, or hub:name:config:split.",
    )
    validation: str | None = option(None, "Data", "Validation rows; without, a part of the training rows is set aside.")
    test: str | None = option(None, "Data", "Test rows, judged once, after training.")
    also_test: tuple[str, ...] = option((), "Data", "Further test sets, each with a name: name=path,name=path.")
    columns: tuple[str, ...] = option((), "Data", "Comma-separated names for the columns of a file without a header.")
    text: str = option("text", "Data", "Column of the text.")
    pair: str | None = option(None, "Data", "Column of the second text, for pairs.")
    endings: tuple[str, ...] = option(
        (), "Data", "Columns of the endings to choose from, or the one that lists them; default: as in SWAG."
    )
    label: str = option("label", "Data", "Column of the label; numbers or names.")
    labels: tuple[str, ...] = option((), "Data", "Columns of 0 and 1, one a label, instead of --label (multi-label).")
    label_separator: str = option(",", "Data", "What stands between the labels of a text cell (multi-label).")
    label_names: tuple[str, ...] = option(
        (), "Data", "Names for labels that a file has as numbers or codes: 0=negative,1=positive."
    )
    source: str | None = option(None, "Data", "Column to report results by.")
    delimiter: str | None = option(None, "Data", "Column separator; default: tab for .tsv, comma for .csv.")
    quoting: str = option(
        "auto",
        "Data",
        "Do quotes enclose fields? auto (in .csv yes, else no), literal (no) or csv (yes).",
        choices=("auto", "literal", "csv"),
    )
    uneven_rows: str = option(
        "error",
        "Data",
        "Rows of another number of columns: an error, or left out and counted.",
        choices=("error", "skip"),
    )
    token_column: str | None = option(
        None, "Data", "Column of the word, a number or a name; default: the first.", number_too=True
    )
    tag_column: str | None = option(
        None, "Data", "Column of its tag, a number or a name; default: the last.", number_too=True
    )
    drop_from_token: str | None = option(None, "Data", "Regular expression of what is no part of a word.")
    scheme: str = option(
        "auto",
        "Data",
        "auto, spans (tags mark spans: IOB1, IOB2, IOBES, BMES …) or plain (tags as they stand).",
        choices=("auto", "spans", "plain"),
    )
    validation_fraction: float = option(0.1, "Data", "Part of the training rows set aside.", above=0, high=0.9)
    split_seed: int = option(2018, "Data", "Seed of that split; the same for all --seeds.", low=0, high=LARGEST_SEED)
    max_length: int = option(
        128, "Data", "Most tokens of a text or pair; longer ones are cut and counted. Question answering: 384.", low=3
    )
    stride: int | None = option(
        None,
        "Data",
        "Read longer texts in windows of --max-length that share so many tokens, instead of cutting them. Question "
        "answering: 128.",
        low=0,
    )
    question_length: int = option(64, "Data", "Tokens of a question; longer ones are cut, counted and told.", low=1)
    answer_length: int = option(30, "Data", "Tokens of the longest answer that is looked for.", low=1)

    learning_rate: float = option(5e-5, "Training", "Peak learning rate.", above=0)
    batch_size: int = option(32, "Training", "Texts a batch; question answering: 16 windows.", low=1)
    epochs: int | None = option(
        None,
        "Training",
        "Passes over the training rows; default: 4; classification of few rows: 10; question answering: 2, of few rows 4.",
        low=1,
    )
    steps: int | None = option(None, "Training", "Optimizer steps, instead of --epochs.", low=1)
    warmup: float = option(0.1, "Training", "Part of the steps over which the learning rate rises.", low=0, high=1)
    schedule: str = option("linear", "Training", "Learning rate after warm-up.", choices=SCHEDULES)
    weight_decay: float = option(0.01, "Training", "Decoupled decay of matrices; never of biases and layer norms.", low=0)
    adam_epsilon: float = option(1e-8, "Training", "AdamW's epsilon.", above=0)
    no_bias_correction: bool = option(
        False,
        "Training",
        "Leave out Adam's bias correction, as BERT's first release did; the first steps are then too large for few rows.",
    )
    clip: float = option(1.0, "Training", "Longest gradient (L2 norm over all parameters); 0: no limit.", low=0)
    accumulate: int = option(1, "Training", "Batches whose gradients make one step.", low=1)
    dropout: float | None = option(
        None, "Training", "Dropout everywhere; default: as the model's config says.", low=0, high=0.99
    )
    layer_decay: float = option(
        1.0, "Training", "Learning rate of a layer as part of that of the layer above it; 1: all alike.", above=0, high=1
    )
    label_smoothing: float = option(
        0.0, "Training", "Part of each label that is spread evenly over all classes.", low=0, high=0.99
    )
    r_drop: float = option(
        0.0, "Training", "R-Drop: weight of the divergence of two passes with other dropout; 0: one pass.", low=0
    )
    average: float = option(
        0.0, "Training", "Decay of a running average of the weights, which is validated and kept; 0: none.",
        low=0, high=0.99999,
    )  # fmt: skip
    class_weights: str = option(
        "none", "Training", "Loss weights: none, balanced, or name=weight,name=weight for skewed data."
    )
    thresholds: str = option(
        "shared",
        "Training",
        "Probability from which a label is given (multi-label): tuned on validation, shared or per-label; or half.",
        choices=("shared", "per-label", "half"),
    )
    metric: str | None = option(
        None,
        "Training",
        "What picks the best epoch and heads the report: loss, or a metric of the task; default: its first.",
    )
    patience: int = option(0, "Training", "Stop after this many epochs without a better one; 0: never.", low=0)
    seed: int = option(0, "Training", "Seed of order, dropout and new weights.", low=0, high=LARGEST_SEED)
    init_seed: int | None = option(
        None,
        "Training",
        "Seed of new weights, the same for all --seeds; default: each seed's own.",
        low=0,
        high=LARGEST_SEED,
    )
    seeds: int = option(
        1, "Training", "Train this many seeds, report mean and deviation, keep the best by validation.", low=1
    )
    keep: str = option(
        "best",
        "Training",
        "Of several seeds, the best, or the mean of their weights (soup) where that is better on validation.",
        choices=("best", "soup"),
    )

    def ineffective(self) -> dict[str, str]:
        """Why options have no effect beside the others."""
        files = [path for _, path in self.input_files()]
        no_table = "where no file is delimited text" if not any(is_delimited(path) for path in files) else ""
        validation = "beside --validation" if self.validation is not None else ""
        beside_labels = "beside --labels" if self.labels else ""
        return {
            "label": beside_labels,
            "label_separator": beside_labels,
            "head_size": "" if self.head_layers else "without --head-layers",
            "epochs": "beside --steps" if self.steps is not None else "",
            "revision": "beside --config" if self.config is not None else "",
            "reinit_layers": "beside --config" if self.config is not None else "",
            "layer_decay": "with --freeze encoder" if self.freeze == "encoder" else "",
            "r_drop": "with --dropout 0" if self.dropout == 0 else "",
            "keep": "with one seed" if self.seeds == 1 else "",
            "validation_fraction": validation,
            "split_seed": validation,
            "columns": no_table,
            "delimiter": no_table,
            "quoting": no_table,
            "uneven_rows": no_table,
        }

    def input_files(self) -> list[tuple[str, str]]:
        """The files that a run reads, each behind the option that names it."""
        named = [(name, getattr(self, name)) for name in ("train", "validation")]
        named += [("test" if name == "test" else "also_test", path) for name, path in self.test_sets().items()]
        return [(name, path) for name, path in named if path is not None]

    def total_steps(self, per_epoch: int) -> int:
        """Optimizer steps of a run that has so many in an epoch."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None, "how many is settled once the rows are known"
        return self.epochs * per_epoch

    def test_sets(self) -> dict[str, str]:
        """The files to judge by, by the name that their measurement gets: ``test``, and ``test-NAME`` of ``also_test``.

        Raises:
            BertwrightError: a further one has no name that a folder can have, or the name of another.
        """
        sets = {} if self.test is None else {"test": self.test}
        for given in self.also_test:
            name, equals, path = given.partition("=")
            if not (equals and path and re.fullmatch(r"[\w-]+", name)):
                raise BertwrightError(f"--also-test is {given!r}; use name=path, the name of letters, digits, - and _")
            if f"test-{name}" in sets:
                raise BertwrightError(f"--also-test names two test sets {name!r}; give each its own name")
            sets[f"test-{name}"] = path
        return sets

    def names_of_labels(self) -> dict[str, str]:
        """What ``label_names`` makes of a label that stands in a file.

        Raises:
            BertwrightError: it is not of the form label=name, or names a label twice.
        """
        names: dict[str, str] = {}
        for given in self.label_names:
            label, equals, name = (part.strip() for part in given.partition("="))
            if not (label and equals and name):
                raise BertwrightError(f"--label-names has {given!r}; use label=name, such as 0=negative,1=positive")
            if label in names:
                raise BertwrightError(f"--label-names names the label {label!r} twice")
            names[label] = name
        return names


# The options that name files of examples, and those that say how such a file of examples is to be read.
FILES = ("train", "validation", "test", "also_test")
READING = (
    *("text", "pair", "endings", "label", "labels", "label_separator", "label_names", "source"),
    *("columns", "delimiter", "quoting", "uneven_rows", "token_column", "tag_column", "drop_from_token"),
)
# Those of them that name answers, which nobody looks for where there are to be predicted.
ANSWERS = ("label", "labels", "label_separator", "label_names", "source", "tag_column")


def preset(name: str) -> dict[str, Any]:
    """Options of a recipe that comes with bertwright; ``book`` is the one known so far."""
    folder = resources.files("bertwright.training") / "presets"
    known = sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))
    if name not in known:
        raise BertwrightError(f"no preset {name!r}{did_you_mean(name, known)} (known: {', '.join(known)})")
    return tomllib.loads((folder / f"{name}.toml").read_text(encoding="utf-8"))
