"""Where a run starts: a checkpoint, or random weights of a chosen size; and which parts of it stay as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from bertwright import checkpoint
from bertwright.checkpoint import Checkpoint, LoadReport
from bertwright.errors import BertwrightError, tell
from bertwright.model import BertConfig, Headed
from bertwright.tasks.task import Task
from bertwright.telling import Say
from bertwright.tokenizer import Tokenizer
from bertwright.training.recipe import Recipe

ROUNDED_UP_BY = 128  # embeddings without a word that a checkpoint may have, for the sake of round sizes


@dataclass(frozen=True)
class StartingPoint:
    """Config, weights by canonical name (none for a random start), tokenizer, and what to call it all.

    ``held`` is the checkpoint as it was read, if there is one.
    """

    config: BertConfig
    tensors: Mapping[str, Tensor]
    tokenizer: Tokenizer
    origin: str
    held: Checkpoint | None = None

    @property
    def commit(self) -> str | None:
        """Where the hub's repository stood, for a checkpoint that came from there."""
        return None if self.held is None or Path(self.origin).exists() else self.held.commit

    def of(self, task: Task, recipe: Recipe, say: Say) -> StartingPoint:
        """The same for this task: a classifier for other classes is left out, which is said."""
        heads = checkpoint.TASK_HEADS
        if self.held is None or not any(name.startswith(heads) for name in self.tensors):
            return self
        if _same_head(self.held, task, recipe):
            return self
        say("the checkpoint's classifier is of another task or has other labels or layers, and is left out")
        return replace(self, tensors={name: value for name, value in self.tensors.items() if not name.startswith(heads)})

    def build(self, task: Task, recipe: Recipe, seed: int) -> tuple[Headed, LoadReport | None]:
        """Make the model, its new weights drawn from ``seed``, and say what was loaded (None for a random start)."""
        config = self.config
        if recipe.dropout is not None:
            config = replace(
                config,
                hidden_dropout_prob=recipe.dropout,
                attention_probs_dropout_prob=recipe.dropout,
                classifier_dropout=None,
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed if recipe.init_seed is None else recipe.init_seed)
            model = task.build(config, head_layers=recipe.head_layers, head_size=recipe.head_size)
        if not self.tensors:
            return model, None
        first = config.num_hidden_layers - recipe.reinit_layers
        anew = {name: p.detach().clone() for name, p in model.named_parameters() if _begins_anew(name, first)}
        report = checkpoint.load_into(model, self.tensors, where=self.origin)
        if recipe.reinit_layers:
            with torch.no_grad():
                for name, values in anew.items():
                    model.get_parameter(name).copy_(values)
            report = LoadReport(tuple(dict.fromkeys((*report.new, *anew))), report.left)
        return model, report


def _begins_anew(name: str, first: int) -> bool:
    """Whether a parameter is of a layer from ``first`` on, or of what stands above the layers."""
    if name.startswith("encoder.layer."):
        return int(name.split(".")[2]) >= first
    return not name.startswith("embeddings.")


def starting_point(recipe: Recipe) -> StartingPoint:
    """Read what ``recipe`` starts from, whatever its task will be.

    Raises:
        BertwrightError: no such model or vocabulary, or they do not fit each other or the recipe.
    """
    if recipe.config is not None:
        if recipe.tokenizer is None:
            raise BertwrightError("--config starts from random weights and needs a vocabulary: give --tokenizer")
        tokenizer = _tokenizer(recipe.tokenizer)
        config = BertConfig.chosen(recipe.config, tokenizer.vocab_size, of=recipe.tokenizer)
        start = StartingPoint(config, {}, tokenizer, f"random weights ({recipe.config})")
    else:
        start = _from_checkpoint(recipe)
    if recipe.max_length > start.config.max_position_embeddings:
        raise BertwrightError(
            f"--max-length {recipe.max_length} is more than the {start.config.max_position_embeddings} positions of "
            f"{start.origin}; give at most that"
        )
    frozen = frozen_parts(recipe.freeze, start.config)  # a wrong setting is told before the work
    layers = start.config.num_hidden_layers
    if recipe.reinit_layers > layers:
        raise BertwrightError(f"--reinit-layers {recipe.reinit_layers}: the model has only {layers} layers")
    if recipe.config is None and recipe.reinit_layers and frozen > 1 + layers - recipe.reinit_layers:
        raise BertwrightError(
            f"--reinit-layers {recipe.reinit_layers} and --freeze {recipe.freeze}: layers that begin anew would stay so; "
            f"freeze at most first:{layers - recipe.reinit_layers}"
        )
    return start


def _from_checkpoint(recipe: Recipe) -> StartingPoint:
    held = checkpoint.read(recipe.model, revision=recipe.revision)
    config = BertConfig.from_dict(held.config, str(held.config_path))
    tokenizer = Tokenizer.from_directory(held.directory) if recipe.tokenizer is None else _tokenizer(recipe.tokenizer)
    tokenizer.check_fits(config.vocab_size, recipe.tokenizer or str(held.directory))
    if tokenizer.vocab_size < config.vocab_size - ROUNDED_UP_BY:
        tell(
            f"{recipe.tokenizer or held.directory}: the vocabulary has {tokenizer.vocab_size:,} entries, the model "
            f"{config.vocab_size:,} word embeddings; with another vocabulary than its own, a checkpoint is worth little"
        )
    return StartingPoint(config, held.tensors, tokenizer, recipe.model, held)


def _same_head(held: Checkpoint, task: Task, recipe: Recipe) -> bool:
    widths = {name: value.shape[0] for name, value in held.tensors.items() if name.startswith("head.") and value.ndim > 1}
    layers = [f"head.{number}.weight" for number in range(recipe.head_layers + 1)] if recipe.head_layers else []
    made_by = held.directory / Recipe.FILE
    try:
        opens = Recipe.of(Recipe.read(made_by)).task == recipe.task if made_by.exists() else task.opens(held.config)
        same = opens and type(task).from_config(held.config, str(held.config_path)) == task
    except BertwrightError:  # a head for something else
        return False
    return same and widths.keys() == set(layers) and all(widths[name] == recipe.head_size for name in layers[:-1])


def _tokenizer(source: str) -> Tokenizer:
    path = Path(source)
    return Tokenizer.from_vocab(path) if path.is_file() and path.suffix == ".txt" else Tokenizer.from_directory(path)


def frozen_parts(setting: str, config: BertConfig) -> int:
    """Translate ``--freeze``: 0 nothing, 1 + n the embeddings and n layers.

    Raises:
        BertwrightError: no such setting, or more layers than there are.
    """
    if setting == "none":
        return 0
    if setting == "encoder":
        return 1 + config.num_hidden_layers
    kind, _, number = setting.partition(":")
    if kind != "first" or not number.isdecimal():
        raise BertwrightError(f"--freeze is {setting!r}; use none, encoder, or first:N")
    if int(number) > config.num_hidden_layers:
        raise BertwrightError(f"--freeze {setting}: the model has only {config.num_hidden_layers} layers")
    return 1 + int(number)
