"""The recipe of a pretraining run: every choice, with its defaults."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from bertwright.errors import BertwrightError
from bertwright.training.options import LARGEST_SEED, Options, flag, option
from bertwright.training.schedule import SCHEDULES


@dataclass(frozen=True)
class Phase:
    """A part of the training, up to ``until`` (from 0 to 1), and its value."""

    until: float
    value: int


@dataclass(frozen=True)
class PretrainingRecipe(Options):
    """All choices of one pretraining run. ``PretrainingRecipe.of`` builds one from files and values, and checks it."""

    COMMAND = "pretrain"
    FILE = "pretraining.toml"
    # The corpus may lie elsewhere by now, or be named in another way: what it holds is held against a digest.
    FREE = Options.FREE | {"corpus", "micro_tokens", "recompute", "shard", "compile", "save_minutes", "validate_every"}
    MAY_CHANGE = Options.MAY_CHANGE | {"epochs", "steps", "max_time"}
    ALTERNATIVES = (frozenset({"epochs", "steps"}), frozenset({"epochs", "max_time"}))

    config: str | None = option(
        None, "Model", "Start from random weights of this size: tiny, mini, small, medium, base, large, or a config.json."
    )
    model: str | None = option(None, "Model", "Go on from this checkpoint: alias, directory, or hub id.")
    revision: str | None = option(None, "Model", "Branch, tag or commit of a hub id.")
    dropout: float | None = option(
        None, "Model", "Dropout everywhere; default: as the model's config says.", low=0, high=0.99
    )

    corpus: str | None = option(None, "Data", "Prepared corpus: what 'bertwright prepare' wrote.")
    objective: str = option("mlm+nsp", "Data", "What is learned.", choices=("mlm+nsp", "mlm", "mlm+sop"))
    max_length: str = option(
        "128",
        "Data",
        "Tokens of a sequence; 128:0.9,512:0.1 for 128 over nine tenths of the training, then 512.",
        number_too=True,
    )
    short_fraction: float | None = option(
        None, "Data", "Part of the sequences that are drawn shorter; default: 0.1 for pairs, 0 for mlm.", low=0, high=1
    )
    masking_rate: str = option(
        "0.15", "Data", "Part of the tokens to mask; 0.3:0.15 goes from 0.3 to 0.15.", number_too=True
    )
    whole_words: bool = option(False, "Data", "Mask whole words, not single pieces.")
    heldout_tokens: int = option(200_000, "Data", "Tokens of the held-out part that a validation reads at most.", low=1)

    learning_rate: float = option(1e-3, "Training", "Peak learning rate.", above=0)
    batch_tokens: str = option(
        "8192", "Training", "Tokens of an optimizer step; 4096:0.5,16384:0.5 changes it halfway.", number_too=True
    )
    micro_tokens: int = option(
        0, "Training", "Most tokens that a device computes at once; 0: 16,384 on a CPU, 65,536 on a GPU.", low=0
    )
    accumulate: int = option(
        0, "Training", "Batches of a step over all processes; 0: as few as --micro-tokens and the processes need.", low=0
    )
    epochs: int = option(1, "Training", "Passes over the corpus, about.", low=1)
    steps: int | None = option(None, "Training", "Optimizer steps, instead of --epochs.", low=1)
    max_time: str | None = option(
        None, "Training", "End after this time, such as 20m or 1h30m, instead of --epochs; the schedule fits itself to it."
    )
    warmup: float = option(0.05, "Training", "Part of the training over which the learning rate rises.", low=0, high=1)
    schedule: str = option("linear", "Training", "Learning rate after warm-up.", choices=SCHEDULES)
    optimizer: str = option(
        "adamw", "Training", "adamw, or muon for the encoder's matrices with adamw for the rest.", choices=("adamw", "muon")
    )
    weight_decay: float = option(0.01, "Training", "Decoupled decay of matrices; never of biases and layer norms.", low=0)
    adam_epsilon: float = option(1e-6, "Training", "AdamW's epsilon.", above=0)
    adam_beta2: float = option(0.999, "Training", "Decay of AdamW's second moment.", low=0, high=0.99999)
    clip: float = option(1.0, "Training", "Longest gradient (L2 norm over all parameters); 0: no limit.", low=0)
    average: float = option(
        0.0, "Training", "Decay of a running average of the weights, which becomes the model; 0: none.", low=0, high=0.99999
    )
    validate_every: int = option(0, "Training", "Measure the held-out loss every so many steps; 0: about 20 times.", low=0)
    seed: int = option(0, "Training", "Seed of order, masks, dropout and new weights.", low=0, high=LARGEST_SEED)

    recompute: bool = option(
        False, "Machine", "Keep no activations of a layer for its backward pass: less memory, a third more work."
    )
    shard: bool = option(False, "Machine", "Spread weights and moments over the processes (FSDP2), for what does not fit.")
    compile: bool = option(False, "Machine", "Compile the layers (torch.compile); pays on a GPU, after a minute's wait.")

    save_minutes: float = option(10.0, "Output", "Save the state every so many minutes too.", above=0)

    @property
    def lengths(self) -> tuple[Phase, ...]:
        """The longest sequence of each phase."""
        phases = _phases("max_length", self.max_length)
        for phase in phases:
            if phase.value < 8:
                raise BertwrightError(f"--max-length {self.max_length}: {phase.value} is too short; give at least 8")
        return phases

    @property
    def step_tokens(self) -> tuple[Phase, ...]:
        """The tokens of an optimizer step in each phase."""
        return _phases("batch_tokens", self.batch_tokens)

    @property
    def masking_rates(self) -> tuple[float, float]:
        """The masking rate at the beginning and at the end."""
        parts = self.masking_rate.split(":")
        try:
            rates = [float(part) for part in parts]
        except ValueError:
            rates = []
        if len(rates) not in (1, 2) or not all(0 < rate <= 1 for rate in rates):
            raise BertwrightError(
                f"--masking-rate is {self.masking_rate!r}; give a share such as 0.15, or two such as 0.3:0.15"
            )
        return rates[0], rates[-1]

    @property
    def max_seconds(self) -> float:
        """The time budget in seconds; infinite without one."""
        return math.inf if self.max_time is None else _seconds(self.max_time)

    def input_files(self) -> list[tuple[str, str]]:
        """The files that a run reads, each behind the option that names it."""
        return [] if self.corpus is None else [("corpus", self.corpus)]

    def ineffective(self) -> dict[str, str]:
        """Why options have no effect beside the others."""
        beside = "beside --steps" if self.steps is not None else "beside --max-time" if self.max_time is not None else ""
        return {
            "epochs": beside,
            "revision": "" if self.model is not None else "without --model",
            "micro_tokens": "beside --accumulate" if self.accumulate else "",
        }


def at(phases: tuple[Phase, ...], progress: float) -> int:
    """The value of the phase that ``progress`` (0 to 1) falls into."""
    return next((phase.value for phase in phases if progress < phase.until), phases[-1].value)


def _phases(name: str, text: str) -> tuple[Phase, ...]:
    """Read ``128`` or ``128:0.9,512:0.1``: values and the parts of the training they hold for, which sum to 1."""
    phases, until = [], 0.0
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,9})\s*(?::\s*(\d*\.?\d+)\s*)?", part)
        if match is None or int(match[1]) < 1 or ((match[2] is None) != (text.count(",") == 0 and ":" not in text)):
            raise BertwrightError(f"{flag(name)} is {text!r}; give a number, or parts such as 128:0.9,512:0.1")
        until += float(match[2] or 1)
        phases.append(Phase(until, int(match[1])))
    if not math.isclose(until, 1, abs_tol=1e-6):
        raise BertwrightError(f"{flag(name)} {text}: the parts sum to {until:g}; make them sum to 1")
    return tuple(phases)


def _seconds(text: str) -> float:
    """Read a time such as ``20m``, ``1h30m`` or ``90s``."""
    match = re.fullmatch(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text.strip())
    counts = (0, 0, 0, 0) if match is None else tuple(int(number or 0) for number in match.groups())
    seconds = sum(count * unit for count, unit in zip(counts, (86400, 3600, 60, 1), strict=True))
    if seconds <= 0:
        raise BertwrightError(f"--max-time is {text!r}; give a time such as 20m, 1h30m or 90s")
    return float(seconds)
