"""The one training loop.

It knows nothing of tasks, models or data: it is given functions of row numbers. Everything random in it is a pure
function of (seed, step), so the state to save is weights, moments, counters and nothing else.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bertwright.errors import BertwrightError
from bertwright.noise import Noise
from bertwright.training import state as saved_state
from bertwright.training.optimizer import Optimizer
from bertwright.training.schedule import learning_rate
from bertwright.training.state import State

Rows = npt.NDArray[np.int64]
Record = dict[str, Any]


class Observer(Protocol):
    """What is told of a running training: one record a step, one a validation."""

    def begin(self, step: int, total: int) -> None:
        """Training starts (or goes on) at ``step`` of ``total``."""

    def record(self, record: Record) -> None:
        """A record for ``history.jsonl``: its ``kind`` is ``step`` or ``validation``."""

    def end(self) -> None:
        """Training is over, whatever the reason."""


@dataclass(frozen=True)
class Objective:
    """What is trained, as functions of row numbers.

    ``loss_sum`` returns the weighted sum of the rows' losses, ``weight`` the sum of their weights: their quotient is
    the loss, however the rows are cut into batches.
    """

    examples: int
    loss_sum: Callable[[Rows, Noise], Tensor]
    weight: Callable[[Rows], float]
    tokens: Callable[[Rows], int]
    validate: Callable[[], dict[str, float]]


@dataclass(frozen=True)
class Plan:
    """How it is trained. ``total`` counts optimizer steps, ``per_epoch`` those of one pass."""

    batch_size: int
    accumulate: int
    total: int
    per_epoch: int
    peak_rate: float
    warmup: float
    schedule: str
    metric: str
    patience: int
    seed: int
    save_every: int


@dataclass
class Outcome:
    """How training went. ``best`` holds the trained weights of the best validation; None if there was none yet."""

    step: int = 0
    best: dict[str, Tensor] | None = None
    best_decay: float = 1.0
    best_step: int = 0
    best_epoch: int = 0
    best_value: float = math.nan
    seconds: float = 0.0
    tokens: int = 0
    finished: bool = False
    validations: list[Record] = field(default_factory=list)


def plan_steps(examples: int, batch_size: int, accumulate: int, epochs: int, steps: int | None) -> tuple[int, int]:
    """Return (optimizer steps in all, optimizer steps of one epoch)."""
    per_epoch = math.ceil(math.ceil(examples / batch_size) / accumulate)
    return (steps or per_epoch * epochs), per_epoch


def rows_of_step(step: int, examples: int, plan: Plan) -> list[Rows]:
    """The batches of an optimizer step: each epoch passes over all rows once, in an order drawn from (seed, epoch)."""
    epoch, within = divmod(step, plan.per_epoch)
    order = np.random.Generator(np.random.Philox(key=plan.seed, counter=[0, 1, 0, epoch])).permutation(examples)
    size = plan.batch_size * plan.accumulate
    rows = order[within * size : (within + 1) * size]
    return [rows[i : i + plan.batch_size] for i in range(0, len(rows), plan.batch_size)]


def train(
    optimizer: Optimizer,
    objective: Objective,
    plan: Plan,
    observer: Observer,
    states: Path | None,
    *,
    resume: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Train to the end of the plan, or until ``stop`` says so, and return how it went.

    Args:
        optimizer: holds the parameters, which are trained in place.
        objective: loss and validation.
        plan: how many steps, how fast.
        observer: is told of every step.
        states: folder for resumable states, None to keep none.
        resume: go on from the newest state there; from the beginning if the run ended before its first.
        stop: asked after each step; True saves a state and returns what is best so far.

    Raises:
        BertwrightError: the loss or its gradient is not finite (names the step; the last good state stays).
    """
    outcome = Outcome()
    if resume and states is not None and any(states.glob("step-*")):
        _restore(saved_state.newest(states), optimizer, outcome)
    observer.begin(outcome.step, plan.total)
    try:
        while outcome.step < plan.total and not _out_of_patience(outcome, plan):
            began = time.perf_counter()
            record = _step(optimizer, objective, plan, outcome)
            record["seconds"] = time.perf_counter() - began
            outcome.seconds += record["seconds"]
            observer.record(record)
            last = outcome.step == plan.total
            if outcome.step % plan.per_epoch == 0 or last:
                _validate(optimizer, objective, plan, observer, outcome)
            stopping = stop() and not last
            if states is not None and (stopping or last or outcome.step % (plan.save_every or plan.per_epoch) == 0):
                _save(states, optimizer, outcome)
            if stopping:
                return outcome
        outcome.finished = True
    finally:
        observer.end()
    return outcome


def _step(optimizer: Optimizer, objective: Objective, plan: Plan, outcome: Outcome) -> Record:
    step = outcome.step
    batches = rows_of_step(step, objective.examples, plan)
    weight = sum(objective.weight(rows) for rows in batches)
    loss = 0.0
    for number, rows in enumerate(batches):
        # A batch's masks must differ from those of the other batches of its step.
        noise = Noise(plan.seed, step * plan.accumulate + number, optimizer.device)
        total = objective.loss_sum(rows, noise) / weight
        total.backward()  # type: ignore[no-untyped-call]
        loss += float(total.detach())
    tokens = sum(objective.tokens(rows) for rows in batches)
    outcome.tokens += tokens
    if not math.isfinite(loss):
        raise _diverged("loss", loss, step, plan)
    rate = learning_rate(step, plan.total, plan.peak_rate, plan.warmup, plan.schedule)
    norm = optimizer.step(rate)
    if not math.isfinite(norm):
        raise _diverged("gradient's norm", norm, step, plan)
    outcome.step += 1
    return {"kind": "step", "step": step + 1, "loss": loss, "learning_rate": rate, "gradient_norm": norm, "tokens": tokens}


def _diverged(what: str, value: float, step: int, plan: Plan) -> BertwrightError:
    return BertwrightError(
        f"the {what} became {value} at step {step + 1} (epoch {step // plan.per_epoch + 1}); nothing of this step was kept. "
        "Try a lower --learning-rate, a longer --warmup or --precision float32"
    )


def _validate(optimizer: Optimizer, objective: Objective, plan: Plan, observer: Observer, outcome: Outcome) -> None:
    values = objective.validate()
    epoch = math.ceil(outcome.step / plan.per_epoch)
    record: Record = {"kind": "validation", "step": outcome.step, "epoch": epoch, **values}
    outcome.validations.append(record)
    observer.record(record)
    value = values[plan.metric]
    better = math.isnan(outcome.best_value) or (
        value < outcome.best_value if plan.metric == "loss" else value > outcome.best_value
    )
    if better:
        outcome.best_value, outcome.best_step, outcome.best_epoch = value, outcome.step, epoch
        outcome.best_decay = optimizer.decay
        outcome.best = {name: p.detach().clone() for name, p in optimizer.parameters.items()}


def _out_of_patience(outcome: Outcome, plan: Plan) -> bool:
    if not plan.patience or not outcome.validations:
        return False
    return int(outcome.validations[-1]["epoch"]) - outcome.best_epoch >= plan.patience


_COUNTERS = (
    "step", "best_decay", "best_step", "best_epoch", "best_value", "seconds", "tokens", "validations",
)  # fmt: skip


def _save(states: Path, optimizer: Optimizer, outcome: Outcome) -> None:
    values = {name: getattr(outcome, name) for name in _COUNTERS} | {"decay": optimizer.decay}
    tensors: dict[str, Mapping[str, Tensor]] = {
        "weights": optimizer.parameters,
        "moments": optimizer.tensors(),
        "best": outcome.best or {},
    }
    saved_state.save(states, outcome.step, State(tensors, values))


def _restore(state: State, optimizer: Optimizer, outcome: Outcome) -> None:
    weights = state.tensors["weights"]
    with torch.no_grad():
        for name, parameter in optimizer.parameters.items():
            if name not in weights or weights[name].shape != parameter.shape:
                raise BertwrightError(f"the saved state does not fit this run: {name} differs; use the run's own recipe")
            parameter.copy_(weights[name])
    optimizer.restore(state.tensors["moments"], state.values["decay"])
    for name in _COUNTERS:
        setattr(outcome, name, state.values[name])
    best = state.tensors["best"]
    outcome.best = {k: v.to(optimizer.parameters[k].device) for k, v in best.items()} if best else None
