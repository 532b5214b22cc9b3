"""The one training loop.

It knows nothing of tasks, models or data: it asks an objective for batches and for their share of the loss. Everything
random in it is a pure function of (seed, step), so the state to save is weights, moments, counters and nothing else.

On several processes each takes its part of every step's batches; gradients and measures are summed over them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from bertwright.errors import BertwrightError, tell
from bertwright.memory import FreedMemory
from bertwright.noise import Noise
from bertwright.telling import Progress
from bertwright.training import state as saved_state
from bertwright.training.optimizer import Optimizer
from bertwright.training.processes import ALONE, Processes
from bertwright.training.schedule import learning_rate
from bertwright.training.state import State

Record = dict[str, Any]


class Observer(Protocol):
    """What is told of a running training: one record a step, one a validation."""

    def begin(self, step: int, total: int | None) -> None:
        """Training starts (or goes on) at ``step`` of ``total``; None where the clock ends it."""

    def record(self, record: Record) -> None:
        """A record for ``history.jsonl``: its ``kind`` is ``step`` or ``validation``."""

    def validating(self, done: int, total: int) -> None:
        """How far a validation is, in tokens."""

    def flush(self) -> None:
        """A state is about to be saved: what was recorded so far must last as long as that."""

    def end(self) -> None:
        """Training is over, whatever the reason."""


@dataclass(frozen=True)
class Share:
    """What one batch adds to its optimizer step.

    The shares of a step's batches sum to its loss, and so do ``measures`` by name: what is shown beside the loss.
    """

    loss: Tensor
    tokens: int
    measures: Mapping[str, Tensor | float]


class Objective(Protocol):
    """What is trained."""

    def batches(self, step: int, progress: float) -> Sequence[Any]:
        """Describe the batches of an optimizer step, those of all processes; asked once for each step, in order.

        ``progress`` is the part of the training that is done, from 0 to 1.
        """

    def share(self, batch: Any, noise: Noise) -> Share:
        """Compute a batch's share of the step's loss."""

    def validate(self, progress: Progress) -> dict[str, float]:
        """Measure the model as it is; ``progress`` is told how far that is.

        Raises:
            FloatingPointError: what it gives is not finite; the message says what that is.
        """

    def position(self) -> dict[str, Any]:
        """Where in the data the next step begins, as JSON; empty where the step alone says it."""

    def seek(self, position: dict[str, Any]) -> None:
        """Go to what :meth:`position` gave."""


@dataclass(frozen=True)
class Plan:
    """How it is trained: for ``total`` optimizer steps, or for ``max_seconds`` by the clock, last validation included.

    ``per_epoch`` counts the steps of one pass over the rows, or those between two validations where there are no
    passes to count (``in_epochs`` off).
    """

    total: int | None
    per_epoch: int
    peak_rate: float
    warmup: float
    schedule: str
    seed: int
    metric: str = "loss"
    patience: int = 0
    save_every: int = 0
    save_minutes: float = math.inf
    max_seconds: float = math.inf
    in_epochs: bool = True
    keep_best: bool = True

    def __post_init__(self) -> None:
        assert self.total is not None or self.max_seconds < math.inf, "a training must end"


@dataclass
class Outcome:
    """How training went. ``best`` holds the trained weights of the best validation; None if there was none yet.

    ``seconds`` counts the steps alone, ``elapsed`` all from the beginning on: validations and saving too. ``reserve`` is
    the longest that a validation took so far, in seconds.
    """

    step: int = 0
    best: dict[str, Tensor] | None = None
    best_decay: float = 1.0
    best_step: int = 0
    best_epoch: int = 0
    best_value: float = math.nan
    seconds: float = 0.0
    elapsed: float = 0.0
    reserve: float = 0.0
    tokens: int = 0
    finished: bool = False
    validations: list[Record] = field(default_factory=list)


def train(
    optimizer: Optimizer,
    objective: Objective,
    plan: Plan,
    observer: Observer,
    states: Path | None,
    *,
    resume: bool = False,
    stop: Callable[[], bool] = lambda: False,
    processes: Processes = ALONE,
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
        processes: those that train together; each calls this function.

    Raises:
        BertwrightError: the loss or its gradient is not finite (names the step; the last good state stays).
    """
    outcome = Outcome()
    if resume and states is not None and any(states.glob("step-*")):
        _restore(saved_state.newest(states), optimizer, objective, outcome, processes)
    observer.begin(outcome.step, plan.total)
    clock = _Clock(outcome, processes)
    freed = FreedMemory() if optimizer.device.type == "cpu" else None
    try:
        while not (_done(plan, outcome) or _out_of_patience(outcome, plan)):
            began = time.perf_counter()
            try:
                record = _step(optimizer, objective, plan, outcome, processes)
            except _DivergedError:
                # Weights that give no loss are no state to go on from; with scaled losses it may be the scale's fault.
                if states is not None and processes.first and not optimizer.skips:
                    saved_state.forget(states, outcome.step)
                raise
            record["seconds"] = time.perf_counter() - began
            outcome.seconds += record["seconds"]
            if freed is not None:
                freed.after_step()
            clock.read()
            observer.record(record)
            last = _done(plan, outcome)
            if last or _validation_is_due(plan, outcome):
                began_at = outcome.elapsed
                _validate(optimizer, objective, plan, observer, outcome)
                clock.read()
                outcome.reserve = max(outcome.reserve, outcome.elapsed - began_at)
            stopping = processes.any(stop()) and not last
            if states is not None and (stopping or last or clock.save_is_due(plan)):
                observer.flush()
                _save(states, optimizer, objective, outcome, processes)
                clock.saved()
            if stopping:
                return outcome
        if not outcome.validations or outcome.validations[-1]["step"] != outcome.step:
            _validate(optimizer, objective, plan, observer, outcome)  # resumed with an end that lies behind it
        outcome.finished = True
    finally:
        observer.end()
    return outcome


class _DivergedError(BertwrightError):
    """A loss is not finite."""


class _Clock:
    """Time since the very beginning of a run, earlier parts of it included, and since the last saving."""

    def __init__(self, outcome: Outcome, processes: Processes) -> None:
        self._outcome, self._processes = outcome, processes
        self._began = time.monotonic() - outcome.elapsed
        self._saved = time.monotonic()

    def read(self) -> None:
        """Set ``outcome.elapsed``, alike on all processes."""
        self._outcome.elapsed = self._processes.agreed(time.monotonic() - self._began)

    def save_is_due(self, plan: Plan) -> bool:
        """Whether a state should be saved after this step."""
        minutes = (self._began + self._outcome.elapsed - self._saved) / 60
        by_time = self._processes.agreed(minutes) >= plan.save_minutes if plan.save_minutes < math.inf else False
        return by_time or self._outcome.step % (plan.save_every or plan.per_epoch) == 0

    def saved(self) -> None:
        """A state has been saved."""
        self._saved = time.monotonic()


def _progress(plan: Plan, outcome: Outcome) -> float:
    by_steps = outcome.step / plan.total if plan.total is not None else 0.0
    left_for_steps = plan.max_seconds - outcome.reserve
    by_clock = outcome.elapsed / left_for_steps if outcome.elapsed < left_for_steps else 1.0
    return min(max(by_steps, by_clock), 1.0)


def _done(plan: Plan, outcome: Outcome) -> bool:
    return _progress(plan, outcome) >= 1


def _validation_is_due(plan: Plan, outcome: Outcome) -> bool:
    if plan.max_seconds < math.inf and not outcome.validations and _progress(plan, outcome) >= 0.5:
        return True  # one comes halfway at the latest, to know how much time to keep for the last
    time_is_left = outcome.elapsed + 2 * outcome.reserve < plan.max_seconds  # for this one, more steps and the last
    return outcome.step % plan.per_epoch == 0 and time_is_left


# A schedule by the clock goes through this many ticks in place of steps.
_TICKS = 1_000_000


def _rate(plan: Plan, outcome: Outcome) -> float:
    if plan.total is not None and plan.max_seconds == math.inf:
        return learning_rate(outcome.step, plan.total, plan.peak_rate, plan.warmup, plan.schedule)
    tick = min(int(_progress(plan, outcome) * _TICKS), _TICKS - 1)
    return learning_rate(tick, _TICKS, plan.peak_rate, plan.warmup, plan.schedule)


def _step(optimizer: Optimizer, objective: Objective, plan: Plan, outcome: Outcome, processes: Processes) -> Record:
    step = outcome.step
    progress = _progress(plan, outcome)
    batches = objective.batches(step, progress)
    own = range(processes.rank, len(batches), processes.world)
    shares: dict[str, Tensor | float] = {}
    for number in own:
        # A batch's masks must differ from those of the other batches of its step, whichever process computes it.
        share = objective.share(batches[number], Noise(plan.seed, step, optimizer.device, number))
        optimizer.backward(share.loss, processes, last=number == own[-1])
        values: dict[str, Tensor | float] = {"loss": share.loss.detach(), "tokens": float(share.tokens), **share.measures}
        for name, value in values.items():
            shares[name] = shares.get(name, 0.0) + value
    sums = processes.summed(shares)
    tokens, loss = int(sums.pop("tokens")), sums.pop("loss")
    outcome.tokens += tokens
    if not math.isfinite(loss):
        raise _DivergedError(_divergence("loss", loss, step, plan))
    rate = _rate(plan, outcome)
    norm = optimizer.step(rate)
    if not math.isfinite(norm):
        if not optimizer.skips:
            raise BertwrightError(_divergence("gradient's norm", norm, step, plan))  # the weights are as they were
        norm = 0.0  # float16: the scaler tries the next step with a smaller scale
    outcome.step += 1
    record = {"kind": "step", "step": step + 1, "loss": loss, **sums}
    record |= {"learning_rate": rate, "gradient_norm": norm, "tokens": tokens}
    return record if plan.max_seconds == math.inf else record | {"progress": progress}


def _divergence(what: str, value: float, step: int, plan: Plan) -> str:
    epoch = f" (epoch {step // plan.per_epoch + 1})" if plan.in_epochs else ""
    return f"the {what} became {value} at step {step + 1}{epoch}; nothing of this step was kept. {_REMEDY}"


def _validate(optimizer: Optimizer, objective: Objective, plan: Plan, observer: Observer, outcome: Outcome) -> None:
    epoch = math.ceil(outcome.step / plan.per_epoch)
    with optimizer.averaged():
        try:
            values = objective.validate(observer.validating)
        except FloatingPointError as error:
            where = f" (epoch {epoch})" if plan.in_epochs else ""
            raise BertwrightError(f"{error} after step {outcome.step}{where}. {_REMEDY}") from None
        value = values.get(plan.metric, math.nan)
        better = math.isnan(outcome.best_value) or (
            value < outcome.best_value if plan.metric == "loss" else value > outcome.best_value
        )
        if better:
            outcome.best_value, outcome.best_step, outcome.best_epoch = value, outcome.step, epoch
            outcome.best_decay = optimizer.decay
            if plan.keep_best:
                outcome.best = {name: p.detach().clone() for name, p in optimizer.parameters.items()}
    record: Record = {"kind": "validation", "step": outcome.step, **({"epoch": epoch} if plan.in_epochs else {}), **values}
    outcome.validations.append(record)
    observer.record(record)


def _out_of_patience(outcome: Outcome, plan: Plan) -> bool:
    if not plan.patience or not outcome.validations:
        return False
    return math.ceil(int(outcome.validations[-1]["step"]) / plan.per_epoch) - outcome.best_epoch >= plan.patience


_REMEDY = "Try a lower --learning-rate, a longer --warmup or --precision float32"
_COUNTERS = (
    "step", "best_decay", "best_step", "best_epoch", "best_value", "seconds", "elapsed", "reserve", "tokens", "validations",
)  # fmt: skip


def _save(states: Path, optimizer: Optimizer, objective: Objective, outcome: Outcome, processes: Processes) -> None:
    values = {name: getattr(outcome, name) for name in _COUNTERS}
    values |= {"position": objective.position(), "optimizer": optimizer.values(), "processes": processes.world}
    tensors: dict[str, Mapping[str, Tensor]] = {**optimizer.tensors(), "best": outcome.best or {}}
    if processes.first:
        saved_state.save(states, outcome.step, State(tensors, values))
    processes.wait()


def _restore(state: State, optimizer: Optimizer, objective: Objective, outcome: Outcome, processes: Processes) -> None:
    if (before := state.values["processes"]) != processes.world and processes.first:
        tell(f"the run went on {before} processes so far, now on {processes.world}: it does not go on to the same bits")
    optimizer.restore(state.tensors, state.values["optimizer"])
    objective.seek(state.values["position"])
    for name in _COUNTERS:
        setattr(outcome, name, state.values[name])
    best = state.tensors["best"]
    outcome.best = {k: v.to(optimizer.parameters[k].device) for k, v in best.items()} if best else None
