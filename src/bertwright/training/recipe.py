"""The recipe: every choice of a fine-tuning run, defined once for command line, recipe file and Python.

A field's name is its flag (``learning_rate`` is ``--learning-rate``), its key in TOML and its keyword in Python.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import tomli_w

from bertwright.data.readers import is_delimited
from bertwright.errors import BertwrightError, did_you_mean

RECIPE_FILE = "recipe.toml"
_LARGEST_SEED = 2**32 - 1  # as numpy and scikit-learn have it


def _option(default: Any, section: str, text: str, **limits: Any) -> Any:
    """Declare a field with its help text and limits (``low``, ``above``, ``high``, ``choices``)."""
    return field(default=default, metadata={"section": section, "help": text, **limits})


@dataclass(frozen=True)
class Recipe:
    """All choices of one run. ``Recipe.of`` builds one from files and values, and checks it."""

    model: str = _option("minilm", "Model", "Alias, directory, weights file, or hub id of the checkpoint to start from.")
    revision: str | None = _option(None, "Model", "Branch, tag or commit of a hub id.")
    config: str | None = _option(
        None,
        "Model",
        "Start from random weights of this size (tiny, mini, small, medium, base, large) instead of --model.",
    )
    tokenizer: str | None = _option(None, "Model", "Directory or vocab.txt of the vocabulary, where it is not the model's.")
    head_layers: int = _option(0, "Model", "Dense layers of your own between pooler and classifier.", low=0)
    head_size: int = _option(128, "Model", "Width of those layers.", low=1)
    freeze: str = _option(
        "none", "Model", "What stays as it is: none, encoder, or first:N (embeddings and the first N layers)."
    )

    train: str | None = _option(None, "Data", "Training rows: .tsv, .csv, .jsonl or .parquet.")
    validation: str | None = _option(None, "Data", "Validation rows; without, a part of the training rows is set aside.")
    test: str | None = _option(None, "Data", "Test rows, judged once, after training.")
    columns: tuple[str, ...] = _option((), "Data", "Comma-separated names for the columns of a file without a header.")
    text: str = _option("text", "Data", "Column of the text.")
    pair: str | None = _option(None, "Data", "Column of the second text, for pairs.")
    label: str = _option("label", "Data", "Column of the label; numbers or names.")
    source: str | None = _option(None, "Data", "Column to report results by.")
    delimiter: str | None = _option(None, "Data", "Column separator; default: tab for .tsv, comma for .csv.")
    quoting: str = _option(
        "auto",
        "Data",
        "Are quotes literal characters or do they enclose fields? auto: literal in .tsv.",
        choices=("auto", "literal", "csv"),
    )
    validation_fraction: float = _option(0.1, "Data", "Part of the training rows set aside.", above=0, high=0.9)
    split_seed: int = _option(2018, "Data", "Seed of that split; the same for all --seeds.", low=0, high=_LARGEST_SEED)
    max_length: int = _option(128, "Data", "Tokens of a text or pair; longer ones are cut, counted and told.", low=3)

    learning_rate: float = _option(5e-5, "Training", "Peak learning rate.", above=0)
    batch_size: int = _option(32, "Training", "Texts a step.", low=1)
    epochs: int = _option(4, "Training", "Passes over the training rows.", low=1)
    steps: int | None = _option(None, "Training", "Optimizer steps, instead of --epochs.", low=1)
    warmup: float = _option(0.1, "Training", "Part of the steps over which the learning rate rises.", low=0, high=1)
    schedule: str = _option("linear", "Training", "Learning rate after warm-up.", choices=("linear", "cosine", "constant"))
    weight_decay: float = _option(0.01, "Training", "Decoupled decay of matrices; never of biases and layer norms.", low=0)
    adam_epsilon: float = _option(1e-8, "Training", "AdamW's epsilon.", above=0)
    clip: float = _option(1.0, "Training", "Longest gradient (L2 norm over all parameters); 0: no limit.", low=0)
    accumulate: int = _option(1, "Training", "Batches whose gradients make one step.", low=1)
    dropout: float | None = _option(
        None, "Training", "Dropout everywhere; default: as the model's config says.", low=0, high=0.99
    )
    class_weights: str = _option(
        "none", "Training", "Loss weights: none, balanced, or name=weight,name=weight for skewed data."
    )
    metric: str = _option(
        "accuracy",
        "Training",
        "What picks the best epoch and heads the report.",
        choices=("accuracy", "f1_macro", "matthews_correlation", "loss"),
    )
    patience: int = _option(0, "Training", "Stop after this many epochs without a better one; 0: never.", low=0)
    seed: int = _option(0, "Training", "Seed of order, dropout and new weights.", low=0, high=_LARGEST_SEED)
    seeds: int = _option(
        1, "Training", "Train this many seeds, report mean and deviation, keep the best by validation.", low=1
    )

    precision: str = _option(
        "auto", "Machine", "auto: bfloat16 on a GPU, float32 on a CPU.", choices=("auto", "float32", "bfloat16")
    )
    device: str = _option("auto", "Machine", "auto, cpu or cuda.", choices=("auto", "cpu", "cuda"))
    threads: int = _option(0, "Machine", "CPU threads; 0: one for each core.", low=0)

    out: str | None = _option(None, "Output", "Directory of the model that this run makes.")
    overwrite: bool = _option(False, "Output", "Replace a run that is there already.")
    resume: bool = _option(False, "Output", "Go on with an interrupted run.")
    save_every: int = _option(0, "Output", "Save the state every so many steps; 0: after each epoch.", low=0)
    tensorboard: bool = _option(False, "Output", "Write TensorBoard events too (needs the tensorboard extra).")

    @classmethod
    def of(cls, *sources: Mapping[str, Any], where: str = "") -> Recipe:
        """Merge ``sources``, later ones winning, and check every value.

        ``where`` is the file that the values come from, for messages; without one they name flags.

        Raises:
            BertwrightError: an unknown name, a wrong type, or a value out of its limits.
        """
        kinds = typing.get_type_hints(cls)
        values: dict[str, Any] = {}
        for source in sources:
            for name, value in source.items():
                if name not in kinds:
                    prefix = f"{where}: " if where else ""
                    raise BertwrightError(f"{prefix}no option {name!r}{did_you_mean(name, kinds)}")
                values[name] = _converted(_shown(name, where), value, kinds[name])
        recipe = cls(**values)
        for f in dataclasses.fields(cls):
            _check(_shown(f.name, where), getattr(recipe, f.name), f.metadata)
        return recipe

    def without_effect(self) -> list[str]:
        """Say of each option that is not at its default, but has no effect beside the others, why that is so."""
        files = [path for path in (self.train, self.validation, self.test) if path is not None]
        no_table = "where no file is delimited text" if not any(is_delimited(path) for path in files) else ""
        validation = "beside --validation" if self.validation is not None else ""
        reasons = {
            "head_size": "" if self.head_layers else "without --head-layers",
            "epochs": "beside --steps" if self.steps is not None else "",
            "revision": "beside --config" if self.config is not None else "",
            "validation_fraction": validation,
            "split_seed": validation,
            "columns": no_table,
            "delimiter": no_table,
            "quoting": no_table,
        }
        default = Recipe()
        return [
            f"{flag(name)} has no effect {reason}"
            for name, reason in reasons.items()
            if reason and getattr(self, name) != getattr(default, name)
        ]

    def to_toml(self) -> str:
        """The recipe as TOML: each option that is set, under its name."""
        values = {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}
        return tomli_w.dumps({k: v for k, v in values.items() if v is not None})


def flag(name: str) -> str:
    """The flag of a field: ``--learning-rate`` of ``learning_rate``."""
    return "--" + name.replace("_", "-")


def read_recipe(path: Path) -> dict[str, Any]:
    """Read and check the options of a recipe file.

    Raises:
        BertwrightError: no such file, or not TOML (with the line), or what :meth:`Recipe.of` raises for its values.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BertwrightError(f"{path}: not a TOML file: {error}") from None
    except OSError as error:
        raise BertwrightError(f"{path}: cannot read this recipe file: {error.strerror}") from None
    Recipe.of(values, where=str(path))
    return values


def preset(name: str) -> dict[str, Any]:
    """Options of a recipe that comes with bertwright; ``book`` is the one known so far."""
    folder = resources.files("bertwright.training") / "presets"
    known = sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))
    if name not in known:
        raise BertwrightError(f"no preset {name!r}{did_you_mean(name, known)} (known: {', '.join(known)})")
    return tomllib.loads((folder / f"{name}.toml").read_text(encoding="utf-8"))


def _shown(name: str, where: str) -> str:
    return f"{where}: {name}" if where else flag(name)


def _converted(shown: str, value: Any, kind: Any) -> Any:
    """Bring a value from TOML or Python to its field's type, without guessing."""
    optional = isinstance(kind, types.UnionType)
    if value is None and optional:
        return None
    base = next(k for k in typing.get_args(kind) if k is not type(None)) if optional else kind
    if typing.get_origin(base) is tuple:
        if isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
        if isinstance(value, list | tuple) and all(isinstance(part, str) for part in value):
            return tuple(value)
    elif base in (int, float):  # by what they are in the numeric tower, so that numpy's numbers do too
        if isinstance(value, numbers.Integral if base is int else numbers.Real) and not isinstance(value, bool):
            return base(value)
    elif base is str and isinstance(value, Path):
        return str(value)
    elif isinstance(value, base):
        return value
    wanted = {tuple: "a list of names", float: "a number", int: "a whole number", bool: "true or false", str: "a text"}
    raise BertwrightError(f"{shown} must be {wanted[typing.get_origin(base) or base]}, not {value!r}")


def _check(shown: str, value: Any, limits: Mapping[str, Any]) -> None:
    if value is None:
        return
    if "choices" in limits and value not in limits["choices"]:
        known = limits["choices"]
        raise BertwrightError(f"{shown} is {value!r}{did_you_mean(value, known)} (known: {', '.join(known)})")
    if isinstance(value, float) and not math.isfinite(value):
        raise BertwrightError(f"{shown} must be a finite number, not {value}")
    if "low" in limits and value < limits["low"]:
        raise BertwrightError(f"{shown} must be at least {limits['low']}, not {value}")
    if "above" in limits and value <= limits["above"]:
        raise BertwrightError(f"{shown} must be above {limits['above']}, not {value}")
    if "high" in limits and value > limits["high"]:
        raise BertwrightError(f"{shown} must be at most {limits['high']}, not {value}")
