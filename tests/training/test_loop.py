"""The training loop: one big batch or many small ones, killed anywhere or never, it makes the same model."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from bertwright.data.packing import TokenTable
from bertwright.errors import BertwrightError, BertwrightWarning
from bertwright.model import BertConfig, SequenceClassifier
from bertwright.noise import Noise, dropout
from bertwright.telling import Progress
from bertwright.training import vocabulary
from bertwright.training.epochs import Epochs, RowObjective, Rows
from bertwright.training.loop import Outcome, Plan, Record, train
from bertwright.training.observers import History, read_history
from bertwright.training.optimizer import Optimizer
from bertwright.training.schedule import learning_rate

Result = dict[str, Any]

EXAMPLES = 23
INPUTS_NF = torch.randn(EXAMPLES, 6, generator=torch.Generator().manual_seed(0))
TARGETS_N = torch.from_numpy(np.random.default_rng(0).integers(0, 3, EXAMPLES))
WEIGHTS_C = torch.tensor([0.5, 1.0, 4.0])
EPOCHS = Epochs(EXAMPLES, batch_size=3, accumulate=3, seed=7)
PLAN = Plan(total=12, per_epoch=EPOCHS.steps, peak_rate=0.03, warmup=0.2, schedule="linear", seed=7)


class Killed(BaseException):
    """What a test raises in place of SIGKILL; no code of the project may catch it."""


class Toy(nn.Module):
    """Small enough to be trained hundreds of times, random enough to show a mask that is drawn twice."""

    def __init__(self, dropout: float = 0.3) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)
        self.dropout = dropout

    def forward(self, inputs_BF: Tensor, noise: Noise | None) -> Tensor:
        hidden = dropout(torch.tanh(self.first(inputs_BF)), self.dropout, noise)
        logits_BC: Tensor = self.last(dropout(hidden, self.dropout, noise))
        return logits_BC


@dataclass
class Run:
    """A toy and all that belongs to training it.

    ``before_batch`` and ``before_validation`` get the number of the batch or validation and may raise; ``loss_term`` gets
    a weight besides, and returns what is added to the loss.
    """

    dropout: float = 0.3
    epochs: Epochs = EPOCHS
    loss_term: Callable[[int, Tensor], Tensor | float] = lambda number, weight: 0.0
    before_batch: Callable[[int], None] = lambda number: None
    before_validation: Callable[[int], dict[str, float] | None] = lambda number: None
    visited: list[list[int]] = field(default_factory=list)
    validations: int = 0

    def __post_init__(self) -> None:
        self.model = Toy(self.dropout)
        self.optimizer = Optimizer(self.model, weight_decay=0.1, epsilon=1e-8, clip=1.0)

    def loss_sum(self, rows: Rows, noise: Noise) -> Tensor:
        number = len(self.visited)
        self.before_batch(number)
        self.visited.append(rows.tolist())
        at = torch.from_numpy(rows)
        loss = F.cross_entropy(self.model(INPUTS_NF[at], noise), TARGETS_N[at], WEIGHTS_C, reduction="sum")
        return loss + self.loss_term(number, self.model.first.weight[0, 0])

    def validate(self, progress: Progress) -> dict[str, float]:
        self.validations += 1
        values = self.before_validation(self.validations)
        progress(len(INPUTS_NF), len(INPUTS_NF))
        with torch.no_grad():
            return values or {"loss": float(F.cross_entropy(self.model(INPUTS_NF, None), TARGETS_N))}

    def objective(self) -> RowObjective:
        return RowObjective(
            self.epochs,
            loss_sum=self.loss_sum,
            weight=lambda rows: float(WEIGHTS_C[TARGETS_N[rows]].sum()),
            tokens=lambda rows: int((rows + 1).sum()),
            measure=self.validate,
        )

    def train(self, plan: Plan, history: Path, states: Path | None = None, **options: Any) -> Outcome:
        return train(self.optimizer, self.objective(), plan, History(history), states, **options)

    def weights(self) -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in self.model.state_dict().items()}


def result_of(run: Run, outcome: Outcome, history: Path) -> Result:
    """All that must not depend on whether a run was interrupted; times are left out."""
    timings = ("seconds", "elapsed", "reserve")
    values = {f.name: getattr(outcome, f.name) for f in dataclasses.fields(outcome) if f.name not in timings}
    assert outcome.best is not None
    values["best"] = {name: tensor.tolist() for name, tensor in outcome.best.items()}
    values["weights"] = {name: tensor.tolist() for name, tensor in run.weights().items()}
    values["history"] = [{k: v for k, v in record.items() if k != "seconds"} for record in read_history(history)]
    return values


def train_undisturbed(folder: Path, plan: Plan) -> Result:
    run = Run()
    return result_of(run, run.train(plan, folder / "undisturbed.jsonl"), folder / "undisturbed.jsonl")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """What PLAN comes to; how often states are saved must make no difference to it."""
    return train_undisturbed(tmp_path_factory.mktemp("undisturbed"), PLAN)


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    # Only a loss of power tells a flushed file from one that is not, and no test here can cause one.
    monkeypatch.setattr(os, "fsync", lambda _: None)


def resumed(folder: Path, plan: Plan = PLAN) -> Result:
    """Go on with an interrupted run as a new process would: from fresh weights and what lies on the disk."""
    run = Run()
    outcome = run.train(plan, folder / "history.jsonl", folder / "states", resume=True)
    return result_of(run, outcome, folder / "history.jsonl")


def stop_after(step: int, plan: Plan) -> Callable[[], bool]:
    assert plan.total is not None
    calls = iter(range(1, plan.total + 1))
    return lambda: next(calls) == step


# --- which rows a step sees -------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 5), st.integers(0, 2**40), st.integers(0, 3))
def test_each_epoch_visits_every_row_once(examples: int, batch: int, accumulate: int, seed: int, epoch: int) -> None:
    epochs = Epochs(examples, batch, accumulate, seed)
    steps = [epochs.batches(step) for step in range(epoch * epochs.steps, (epoch + 1) * epochs.steps)]
    assert sorted(int(row) for batches in steps for rows in batches for row in rows) == list(range(examples))
    for batches in steps[:-1]:
        assert [len(rows) for rows in batches] == [batch] * accumulate
    *whole, rest = steps[-1]
    assert [len(rows) for rows in whole] == [batch] * len(whole)
    assert len(whole) < accumulate
    assert 0 < len(rest) <= batch


def test_rows_that_a_task_changes_are_its_own() -> None:
    first = EPOCHS.batches(0)[0]
    before = first.tolist()
    first[:] = -1
    assert EPOCHS.batches(0)[0].tolist() == before


def test_the_order_differs_between_epochs_and_seeds() -> None:
    def epoch(number: int, seed: int) -> tuple[int, ...]:
        epochs = dataclasses.replace(EPOCHS, seed=seed)
        steps = range(number * epochs.steps, (number + 1) * epochs.steps)
        return tuple(int(row) for step in steps for rows in epochs.batches(step) for row in rows)

    assert len({epoch(number, seed) for number in range(5) for seed in range(5)}) == 25


def test_training_sees_the_rows_of_each_step(tmp_path: Path) -> None:
    run = Run()
    outcome = run.train(PLAN, tmp_path / "history.jsonl")
    assert run.visited == [rows.tolist() for step in range(12) for rows in EPOCHS.batches(step)]
    assert outcome.tokens == 4 * sum(range(1, EXAMPLES + 1))
    assert (outcome.step, outcome.finished, run.validations) == (12, True, 4)


# --- what a step does -------------------------------------------------------------------------------------------------


def test_a_step_descends_the_weighted_mean_of_its_rows(tmp_path: Path) -> None:
    run, oracle = Run(dropout=0.0), Toy(0.0)
    run.train(PLAN, tmp_path / "history.jsonl")
    matrices, biases = [oracle.first.weight, oracle.last.weight], [oracle.first.bias, oracle.last.bias]
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1}, {"params": biases, "weight_decay": 0.0}])
    records = [record for record in read_history(tmp_path / "history.jsonl") if record["kind"] == "step"]
    assert [record["step"] for record in records] == list(range(1, 13))
    for step, record in enumerate(records):
        rows = torch.from_numpy(np.concatenate(EPOCHS.batches(step)))
        optimizer.zero_grad()
        # torch's weighted mean divides by the weights of the targets, as one batch of all these rows would.
        loss = F.cross_entropy(oracle(INPUTS_NF[rows], None), TARGETS_N[rows], WEIGHTS_C)
        torch.autograd.backward(loss)
        norm = nn.utils.clip_grad_norm_(oracle.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, 12, 0.03, 0.2, "linear")
        optimizer.step()
        assert record["loss"] == pytest.approx(loss.item(), rel=1e-5)
        assert record["gradient_norm"] == pytest.approx(norm.item(), rel=1e-4)
        assert record["learning_rate"] == optimizer.param_groups[0]["lr"]
        assert record["tokens"] == int((rows + 1).sum())
    torch.testing.assert_close(run.weights(), dict(oracle.state_dict()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("batch", "accumulate"), [(1, 9), (3, 3), (4, 2), (2, 4)])
def test_accumulated_batches_equal_one_big_batch(tmp_path: Path, batch: int, accumulate: int) -> None:
    epochs = Epochs(EXAMPLES, batch * accumulate, 1, seed=7)
    plan = dataclasses.replace(PLAN, total=4 * epochs.steps, per_epoch=epochs.steps)
    whole = Run(dropout=0.0, epochs=epochs)
    pieces = Run(dropout=0.0, epochs=dataclasses.replace(epochs, batch_size=batch, accumulate=accumulate))
    whole.train(plan, tmp_path / "whole.jsonl")
    pieces.train(plan, tmp_path / "pieces.jsonl")
    losses = [[record["loss"] for record in read_history(tmp_path / f"{name}.jsonl")] for name in ("whole", "pieces")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    torch.testing.assert_close(pieces.weights(), whole.weights(), rtol=1e-4, atol=1e-5)


def test_no_two_batches_share_a_mask(tmp_path: Path) -> None:
    masks: list[tuple[float, ...]] = []

    class Drawing(Run):
        def loss_sum(self, rows: Rows, noise: Noise) -> Tensor:
            masks.append(tuple(noise.mask((64,), 0.5).tolist()))
            return super().loss_sum(rows, noise)

    Drawing().train(PLAN, tmp_path / "history.jsonl")
    assert len(set(masks)) == len(masks) == 4 * 8


def test_same_seed_same_bits_other_seed_other_weights(tmp_path: Path, undisturbed: Result) -> None:
    assert train_undisturbed(tmp_path, PLAN) == undisturbed
    assert train_undisturbed(tmp_path, dataclasses.replace(PLAN, seed=8))["weights"] != undisturbed["weights"]


# --- interrupted and resumed ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", range(1, 12))
def test_stopped_after_any_step_it_goes_on_to_the_same_bits(tmp_path: Path, undisturbed: Result, step: int) -> None:
    plan = dataclasses.replace(PLAN, save_every=step % 4)
    outcome = Run().train(plan, tmp_path / "history.jsonl", tmp_path / "states", stop=stop_after(step, plan))
    assert (outcome.step, outcome.finished) == (step, False)
    assert resumed(tmp_path, plan) == undisturbed


@pytest.mark.parametrize(
    ("where", "number"), [*(("batch", n) for n in range(0, 32, 2)), *(("validation", n) for n in (1, 2, 4))]
)
def test_killed_anywhere_it_goes_on_to_the_same_bits(tmp_path: Path, undisturbed: Result, where: str, number: int) -> None:
    def kill(reached: int) -> None:
        if reached == number:
            raise Killed

    plan = dataclasses.replace(PLAN, save_every=number % 5)
    run = Run(before_batch=kill) if where == "batch" else Run(before_validation=kill)
    with pytest.raises(Killed):
        run.train(plan, tmp_path / "history.jsonl", tmp_path / "states")
    assert resumed(tmp_path, plan) == undisturbed


@pytest.mark.parametrize("saving", [1, 2, 3])
def test_killed_while_a_state_is_written_it_goes_on_to_the_same_bits(
    tmp_path: Path, undisturbed: Result, saving: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = 0

    def kill(tensors: dict[str, Tensor], path: Path) -> None:
        nonlocal files
        files += 1
        if files == 4 * saving - 2:  # a state has four files; this one's second
            (path.parent.parent / f".{path.parent.name}.0123abcd.partial").mkdir()  # as a kill leaves it behind
            raise Killed
        save_file(tensors, path)

    with monkeypatch.context() as patched:
        patched.setattr("bertwright.training.state.save_file", kill)
        with pytest.raises(Killed):
            Run().train(PLAN, tmp_path / "history.jsonl", tmp_path / "states")
    assert resumed(tmp_path) == undisturbed


def test_stopped_after_every_single_step(tmp_path: Path, undisturbed: Result) -> None:
    for step in range(1, 12):
        outcome = Run().train(PLAN, tmp_path / "history.jsonl", tmp_path / "states", resume=step > 1, stop=lambda: True)
        assert (outcome.step, outcome.finished) == (step, False)
    assert resumed(tmp_path) == undisturbed


def test_a_damaged_newest_state_falls_back_to_the_one_before(tmp_path: Path, undisturbed: Result) -> None:
    plan = dataclasses.replace(PLAN, save_every=2)
    Run().train(plan, tmp_path / "history.jsonl", tmp_path / "states", stop=stop_after(7, plan))
    assert sorted(path.name for path in (tmp_path / "states").iterdir()) == ["step-6", "step-7"]
    (tmp_path / "states" / "step-7" / "moments.safetensors").write_bytes(b"")
    with pytest.warns(BertwrightWarning, match="step-7: damaged state"):
        assert resumed(tmp_path, plan) == undisturbed


def test_a_state_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    Run().train(PLAN, tmp_path / "history.jsonl", tmp_path / "states", stop=stop_after(2, PLAN))
    other = Run()
    other.model.last = nn.Linear(8, 4)
    other.optimizer = Optimizer(other.model, weight_decay=0.1, epsilon=1e-8, clip=1.0)
    with pytest.raises(BertwrightError, match=r"does not fit this run: last\.weight differs"):
        other.train(PLAN, tmp_path / "history.jsonl", tmp_path / "states", resume=True)


def test_asking_to_stop_after_the_last_step_is_too_late(tmp_path: Path) -> None:
    outcome = Run().train(PLAN, tmp_path / "h.jsonl", tmp_path / "states", stop=stop_after(12, PLAN))
    assert outcome.finished
    assert sorted(path.name for path in (tmp_path / "states").iterdir()) == ["step-12", "step-9"]


@pytest.mark.parametrize("step", [1, 3, 4])
def test_a_classifier_with_its_occurring_words_goes_on_to_the_same_bits(tmp_path: Path, step: int) -> None:
    config = BertConfig(vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24)
    generator = np.random.default_rng(1)
    ids = [generator.choice([1, 2, 8, 30], size=length).tolist() for length in (3, 9, 30, 4, 4, 17, 140, 2)]
    table = TokenTable(ids, [[0] * len(row) for row in ids])
    plan = dataclasses.replace(PLAN, total=6, per_epoch=2, save_every=1)

    def run(folder: Path, **options: Any) -> tuple[dict[str, list[Any]], Outcome]:
        folder.mkdir(exist_ok=True)
        torch.manual_seed(5)
        model = SequenceClassifier(config, 2)
        vocabulary.shrink(model.embeddings, np.unique(table.input_ids).astype(np.int64))

        def loss_sum(rows: Rows, noise: Noise | None) -> Tensor:
            batch = table.pack(rows)
            return F.cross_entropy(model(batch, noise), torch.from_numpy(rows[batch.order] % 2), reduction="sum")

        def validate(progress: Progress) -> dict[str, float]:
            with torch.no_grad():
                return {"loss": float(loss_sum(np.arange(8), None))}

        objective = RowObjective(Epochs(8, 2, 2, 7), loss_sum, lambda rows: float(len(rows)), len, validate)
        optimizer = Optimizer(model, weight_decay=0.01, epsilon=1e-8, clip=1.0)
        outcome = train(optimizer, objective, plan, History(folder / "h.jsonl"), folder / "states", **options)
        vocabulary.restore(model.embeddings, optimizer.decay)
        return {name: tensor.tolist() for name, tensor in model.state_dict().items()}, outcome

    wanted, _ = run(tmp_path / "whole")
    run(tmp_path / "parts", stop=stop_after(step, plan))
    got, outcome = run(tmp_path / "parts", resume=True)
    assert outcome.finished
    assert got == wanted


# --- the best, and when to end ----------------------------------------------------------------------------------------


def scripted(metric: str, values: Sequence[float], snapshots: list[dict[str, Tensor]] | None = None) -> Run:
    """A run whose validations give these values, one after the other."""
    script = iter(values)

    def validation(number: int) -> dict[str, float]:
        if snapshots is not None:
            snapshots.append(run.weights())
        return {metric: next(script)}

    run = Run(before_validation=validation)
    return run


@pytest.mark.parametrize(
    ("metric", "values", "best"),
    [
        ("accuracy", [0.5, 0.7, 0.6, 0.4], 2),
        ("accuracy", [0.5, 0.7, 0.7, 0.7], 2),  # a tie goes to the earlier, which trained less
        ("accuracy", [0.9, 0.1, 0.1, 0.1], 1),
        ("accuracy", [0.1, 0.2, 0.3, 0.4], 4),
        ("accuracy", [0.0, -0.1, -0.2, -0.3], 1),
        ("matthews_correlation", [-0.5, -0.3, -0.4, -0.6], 2),
        ("loss", [0.5, 0.7, 0.4, 0.6], 3),
        ("loss", [0.4, 0.4, 0.5, 0.6], 1),
        ("accuracy", [math.nan, 0.1, 0.3, math.nan], 3),
        ("loss", [0.3, math.nan, 0.2, math.nan], 3),
    ],
)
def test_the_best_is_kept(tmp_path: Path, metric: str, values: list[float], best: int) -> None:
    snapshots: list[dict[str, Tensor]] = []
    plan = dataclasses.replace(PLAN, metric=metric)
    outcome = scripted(metric, values, snapshots).train(plan, tmp_path / "history.jsonl")
    assert (outcome.best_epoch, outcome.best_step, outcome.best_value) == (best, 3 * best, values[best - 1])
    assert outcome.best is not None
    assert all(torch.equal(outcome.best[name], tensor) for name, tensor in snapshots[best - 1].items())
    assert outcome.best_decay == pytest.approx(
        math.prod(1 - 0.1 * learning_rate(step, 12, 0.03, 0.2, "linear") for step in range(3 * best)), rel=1e-12
    )
    records = [record for record in read_history(tmp_path / "history.jsonl") if record["kind"] == "validation"]
    assert repr([record[metric] for record in records]) == repr(values)
    assert [(record["epoch"], record["step"]) for record in records] == [(1, 3), (2, 6), (3, 9), (4, 12)]


def test_the_last_step_is_validated_within_an_epoch(tmp_path: Path) -> None:
    plan = dataclasses.replace(PLAN, total=8, metric="accuracy")
    outcome = scripted("accuracy", [0.1, 0.2, 0.3]).train(plan, tmp_path / "history.jsonl")
    assert [(record["epoch"], record["step"]) for record in outcome.validations] == [(1, 3), (2, 6), (3, 8)]
    assert outcome.best_step == 8


@pytest.mark.parametrize(
    ("values", "patience", "steps"),
    [
        ([0.5, 0.4, 0.3, 0.2], 0, 12),
        ([0.5, 0.4, 0.3, 0.2], 1, 6),
        ([0.5, 0.4, 0.3, 0.2], 2, 9),
        ([0.5, 0.5, 0.5, 0.6], 2, 9),
        ([0.5, 0.4, 0.6, 0.2], 2, 12),
        ([0.1, 0.2, 0.3, 0.4], 1, 12),
    ],
)
def test_patience(tmp_path: Path, values: list[float], patience: int, steps: int) -> None:
    plan = dataclasses.replace(PLAN, metric="accuracy", patience=patience)
    outcome = scripted("accuracy", values).train(plan, tmp_path / "history.jsonl")
    assert (outcome.step, outcome.finished) == (steps, True)


def test_patience_remembers_what_was_before_the_interruption(tmp_path: Path) -> None:
    plan = dataclasses.replace(PLAN, metric="accuracy", patience=2)
    scripted("accuracy", [0.5, 0.4]).train(plan, tmp_path / "h.jsonl", tmp_path / "states", stop=stop_after(7, plan))
    outcome = scripted("accuracy", [0.3, 0.9]).train(plan, tmp_path / "h.jsonl", tmp_path / "states", resume=True)
    assert (outcome.step, outcome.best_value, outcome.finished) == (9, 0.5, True)


# --- divergence -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("term", "message"),
    [
        (lambda weight: weight * math.nan, r"the loss became nan at step 5 \(epoch 2\)"),
        (lambda weight: weight.abs() * math.inf, r"the loss became inf at step 5 \(epoch 2\)"),
        # A finite loss whose gradient is not: the derivative of a square root at 0.
        (lambda weight: (weight * 0).sqrt(), r"the gradient's norm became nan at step 5 \(epoch 2\)"),
    ],
)
def test_divergence_names_the_step_and_keeps_the_last_good_state(
    tmp_path: Path, undisturbed: Result, term: Callable[[Tensor], Tensor], message: str
) -> None:
    plan = dataclasses.replace(PLAN, save_every=1)
    good = Run()
    good.train(dataclasses.replace(plan, save_every=0), tmp_path / "h.jsonl", None, stop=stop_after(4, plan))
    # Three batches a step and two in an epoch's last: the fourteenth is the last of the fifth step.
    run = Run(loss_term=lambda number, weight: term(weight) if number == 13 else 0.0)
    with pytest.raises(BertwrightError, match=message):
        run.train(plan, tmp_path / "history.jsonl", tmp_path / "states")
    assert all(torch.equal(good.weights()[name], tensor) for name, tensor in run.weights().items())
    # What was saved after the fourth step is what gives no loss in the fifth.
    kept = ["step-3"] if "loss" in message else ["step-3", "step-4"]
    assert sorted(path.name for path in (tmp_path / "states").iterdir()) == kept
    assert [record["step"] for record in read_history(tmp_path / "history.jsonl")][-1] == 4
    assert resumed(tmp_path, plan) == undisturbed


def test_a_validation_that_is_not_finite_names_the_step_and_keeps_the_last_good_state(
    tmp_path: Path, undisturbed: Result
) -> None:
    def blown_up(number: int) -> None:
        if number == 2:
            raise FloatingPointError("the outputs are no longer finite")

    run = Run(before_validation=blown_up)
    with pytest.raises(BertwrightError, match=r"the outputs are no longer finite after step 6 \(epoch 2\)\. Try a lower"):
        run.train(PLAN, tmp_path / "history.jsonl", tmp_path / "states")
    assert resumed(tmp_path, PLAN) == undisturbed


def test_with_scaled_losses_a_step_whose_gradients_overflow_is_skipped_and_the_next_goes_on(tmp_path: Path) -> None:
    before: dict[int, dict[str, Tensor]] = {}
    # The fourteenth batch is the last of the fifth step; its loss is finite and its gradient is not.
    run = Run(
        loss_term=lambda number, weight: (weight * 0).sqrt() if number == 13 else 0.0,
        before_batch=lambda number: before.update({number: run.weights()}),
    )
    run.optimizer = Optimizer(run.model, weight_decay=0.1, epsilon=1e-8, clip=1.0, scale_loss=True)
    scale = run.optimizer.values()["scaler"]["scale"]
    outcome = run.train(PLAN, tmp_path / "history.jsonl")
    assert (outcome.step, outcome.finished) == (12, True)
    assert all(torch.equal(before[11][name], tensor) for name, tensor in before[14].items()), "skipped"
    assert not torch.equal(before[14]["first.weight"], before[16]["first.weight"]), "and on again"
    assert run.optimizer.values()["scaler"]["scale"] == scale / 2
    norms = [r["gradient_norm"] for r in read_history(tmp_path / "history.jsonl") if r["kind"] == "step"]
    assert [step for step, norm in enumerate(norms, 1) if norm == 0] == [5]


def test_with_scaled_losses_a_loss_that_is_not_finite_is_an_error_all_the_same(tmp_path: Path) -> None:
    run = Run(loss_term=lambda number, weight: weight * math.nan if number == 13 else 0.0)
    run.optimizer = Optimizer(run.model, weight_decay=0.1, epsilon=1e-8, clip=1.0, scale_loss=True)
    with pytest.raises(BertwrightError, match="the loss became nan at step 5"):
        run.train(PLAN, tmp_path / "history.jsonl")


# --- by the clock -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("per_epoch", [7, 20, 1000])
@pytest.mark.parametrize("measuring", [0.0, 4.0, 20.0])
def test_the_last_validation_ends_with_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measuring: float, per_epoch: int
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def pass_time(seconds: float) -> None:
        now[0] += seconds

    run = Run(before_batch=lambda number: pass_time(0.25), before_validation=lambda number: pass_time(measuring))
    plan = dataclasses.replace(PLAN, total=None, max_seconds=100, per_epoch=per_epoch, in_epochs=False, keep_best=False)
    outcome = run.train(plan, tmp_path / "history.jsonl")
    assert 99 <= outcome.elapsed == now[0] <= 101
    assert outcome.seconds == pytest.approx(now[0] - measuring * len(outcome.validations))
    steps = [record for record in read_history(tmp_path / "history.jsonl") if record["kind"] == "step"]
    assert [record["progress"] for record in steps] == sorted(record["progress"] for record in steps)
    assert steps[-1]["learning_rate"] < 0.03 * PLAN.peak_rate, "the schedule has come to its end too"


# --- observers --------------------------------------------------------------------------------------------------------


class Listener:
    """Writes down what it is told, and how many states there are when it is to bring its own to the disk."""

    def __init__(self, states: Path) -> None:
        self.states = states
        self.heard: list[str] = []

    def begin(self, step: int, total: int | None) -> None:
        self.heard.append(f"begin {step} of {total}")

    def record(self, record: Record) -> None:
        self.heard.append(f"{record['kind']} {record['step']}")

    def validating(self, done: int, total: int) -> None:
        self.heard.append(f"validating, {done} of {total}")

    def flush(self) -> None:
        self.heard.append(f"flush, {len(list(self.states.glob('step-*')))} saved")

    def end(self) -> None:
        self.heard.append("end")


def test_observers_are_told_of_everything_in_turn_and_of_the_end_whatever_the_reason(tmp_path: Path) -> None:
    def kill(number: int) -> None:
        raise Killed

    plan = dataclasses.replace(PLAN, total=4)
    listener = Listener(tmp_path / "states")
    run = Run(before_batch=kill)
    with pytest.raises(Killed):
        train(run.optimizer, run.objective(), plan, listener, tmp_path / "states")
    run = Run()
    train(run.optimizer, run.objective(), plan, listener, tmp_path / "states", stop=stop_after(2, plan))
    run = Run()
    train(run.optimizer, run.objective(), plan, listener, tmp_path / "states", resume=True)
    assert listener.heard == [
        *("begin 0 of 4", "end"),
        *("begin 0 of 4", "step 1", "step 2", "flush, 0 saved", "end"),
        *("begin 2 of 4", "step 3", f"validating, {EXAMPLES} of {EXAMPLES}", "validation 3", "flush, 1 saved"),
        *("step 4", f"validating, {EXAMPLES} of {EXAMPLES}", "validation 4", "flush, 2 saved", "end"),
    ]
