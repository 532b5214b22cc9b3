"""Fine-tuning from a recipe to a model directory: read, split, encode, train, choose, judge, write.

While a run is unfinished, everything lies in ``<out>.training``; ``<out>`` appears in one rename, whole.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import shutil
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from safetensors.torch import load_file, save
from torch import Tensor

from bertwright import atomic, card, inference, soup
from bertwright.arrays import FloatArray
from bertwright.data.packing import spans
from bertwright.errors import BertwrightError, tell
from bertwright.evaluation.files import write_evaluation
from bertwright.evaluation.plots import plot_training
from bertwright.evaluation.progress import TokenProgress
from bertwright.interrupts import Stopped, Stopping, stop_on_signal, stopped_saying
from bertwright.machine import Machine
from bertwright.materials import Materials, Split, gather
from bertwright.merging import merged, with_rows
from bertwright.model import Headed
from bertwright.noise import Noise
from bertwright.predictor import Evaluation, Predictor
from bertwright.starting_point import frozen_parts
from bertwright.tasks import options_of_tasks, task_class
from bertwright.tasks.regularisation import TrainingLoss
from bertwright.tasks.task import Task
from bertwright.telling import Progress, teller
from bertwright.training import vocabulary
from bertwright.training.epochs import Epochs, RowObjective, Rows
from bertwright.training.loop import Observer, Outcome, Plan, train
from bertwright.training.observers import History, Observers, ProgressBar, TensorBoard, read_history
from bertwright.training.optimizer import Optimizer, layer_rate
from bertwright.training.recipe import Recipe
from bertwright.workspace import FINISHED, Workspace

_BEST = "best.safetensors"  # of a finished seed, in its folder
_FEATURES_AT_MOST = 2 << 30  # bytes of what a frozen encoder gives, kept so that it is computed once


@dataclass(frozen=True, repr=False)
class Run:
    """A finished (or interrupted) fine-tuning: where it lies, what was measured, and the model itself."""

    out: Path
    metrics: dict[str, Any]
    model: Predictor
    stopped_by: int = 0  # the signal that ended it early

    def __repr__(self) -> str:
        return (
            f"<Run: {self.out}, {'interrupted' if self.interrupted else 'finished'}, chosen by {self.metrics['chosen_by']}>"
        )

    @property
    def interrupted(self) -> bool:
        """Whether it was ended early."""
        return self.stopped_by != 0


class Trained:
    """A model as training left it: what was told of it, and what its head gives for parts of the data, computed once."""

    def __init__(self, model: Predictor, console: Console) -> None:
        self.model = model
        self.summary: dict[str, Any] = {}
        self._console = console
        self._outputs: dict[str, FloatArray] = {}

    def outputs(self, split: Split) -> FloatArray:
        """What the head gives for a part of the data."""
        if split.name not in self._outputs:
            with TokenProgress(f"measuring on {split.name}", self._console) as progress:
                self._outputs[split.name] = self.model.outputs(split.inputs, progress)
        return self._outputs[split.name]

    def tune(self, split: Split) -> None:
        """Set what the task decides by, if it has such a thing, to what is best on these rows."""
        if type(self.model.task).tuned is not Task.tuned:  # else the outputs would perhaps be computed for nothing
            self.model.task = self.model.task.tuned(self.outputs(split), split.inputs)

    def measure(self, split: Split) -> Evaluation:
        """The full measurement on these rows."""
        return self.model.measure(split.inputs, outputs=self.outputs(split))


def finetune(recipe: Recipe | Mapping[str, Any] | None = None, *, console: Console | None = None, **options: Any) -> Run:
    """Fine-tune a checkpoint on labelled rows and write a model directory.

    Args:
        recipe: options to begin with, such as another run's; keywords win over it.
        console: where to report; default: standard error. ``Console(quiet=True)`` says nothing.
        options: any field of :class:`~bertwright.training.recipe.Recipe`: ``model``, ``train``, ``text``, ``label``,
            ``test``, ``out``, ``learning_rate``, …, or ``dataset``, and perhaps ``data``, for a known data set.

    Raises:
        BertwrightError: anything that a user can mend. Nothing half-written stays at ``out``.
    """
    gathered = merged(recipe, options)
    chosen = gathered.recipe
    if chosen.config is not None and ("model" in options or chosen.model != Recipe.model):
        raise BertwrightError("--model starts from a checkpoint, --config from random weights: give one of them")
    console = console or Console(stderr=True)
    say = teller(console)
    place = Workspace.claim(chosen)
    if chosen.resume:
        chosen = place.resumed(Recipe, gathered.given)
    if gathered.about is not None:
        say(gathered.about)
    kept = f"what the run had is kept; go on with: {place.resume_command}" if chosen.resume else "nothing is written"
    with stopped_saying(f"before training; {kept}"):
        chosen = with_rows(chosen, say)
        kind = task_class(chosen.task)
        for message in chosen.without_effect(options_of_tasks() - kind.OPTIONS):
            tell(message)
        machine = Machine.choose(chosen.device, chosen.precision, chosen.threads)
        materials = gather(chosen, machine, say)
    with stop_on_signal(say) as stopping, place.guarded():
        place.begin(materials.recipe, materials.as_bytes())
        return _run_seeds(materials, place, console, stopping)


def _run_seeds(materials: Materials, place: Workspace, console: Console, stopping: Stopping) -> Run:
    recipe = materials.recipe
    summaries: list[dict[str, Any]] = []
    best: Trained | None = None
    highest = -math.inf
    for seed in range(recipe.seed, recipe.seed + recipe.seeds):
        result = _run_seed(materials, seed, place.seed(seed), console, stopping)
        if result is not None:
            summaries.append(result.summary)
            score = materials.score(result.summary["validation"])
            if score > highest:  # of equal seeds the first
                best, highest = result, score
        if stopping.asked():
            break
    if best is None:
        raise Stopped(f"no model yet, but its state is kept; go on with: {place.resume_command}", stopping.signal)
    interrupted = len(summaries) < recipe.seeds or not all(summary["finished"] for summary in summaries)
    cooked = None
    if recipe.keep == "soup" and recipe.seeds > 1 and not interrupted:
        files = {one["seed"]: place.seed(one["seed"]) / _BEST for one in summaries}
        best, cooked = _soup(materials, best, summaries, files, console)
    metrics = _judge(materials, best, summaries, interrupted, cooked)
    model = best.model
    _write(materials, model, metrics, place.seed(best.summary["seed"]), place.out)
    if not interrupted:
        place.remove()
    model.directory = place.out
    return Run(place.out, metrics["summary"], model, stopping.signal if interrupted else 0)


def _run_seed(materials: Materials, seed: int, folder: Path, console: Console, stopping: Stopping) -> Trained | None:
    """Train one seed; None if it was stopped before its first validation."""
    recipe, machine, task, start = materials.recipe, materials.machine, materials.task, materials.start
    model, report = start.build(task, recipe, seed)
    say = teller(console)
    if seed == recipe.seed:
        say(f"starting from {start.origin}" + ("" if report is None else f"; {report.describe()}"))
    trained = Trained(Predictor(model, start.tokenizer, task, recipe, machine), console)
    done = folder / FINISHED
    if recipe.seeds > 1:
        place = f"seed {seed} ({seed - recipe.seed + 1} of {recipe.seeds})"
        say(f"{place}: trained already" if done.exists() else place)
    if done.exists():
        model.load_state_dict(load_file(folder / _BEST))
        model.to(machine.device).requires_grad_(False)
        trained.tune(materials.validation)
        # Test sets may be others than when the seed was trained, and all seeds have to be measured on the same.
        trained.summary = json.loads(done.read_text()) | _on_tests(materials, trained)
        return trained

    model.freeze(frozen_parts(recipe.freeze, start.config))
    # Of --dropout 0 it is told before anything is read.
    if recipe.r_drop and recipe.dropout != 0 and not model.draws_masks and seed == recipe.seed:
        tell("--r-drop has no effect on a model in which nothing that is trained has dropout")
    model.to(machine.device)
    if not model.frozen:
        occurring = [part.inputs.table.input_ids for part in (materials.train, materials.validation)]
        vocabulary.shrink(model.embeddings, np.unique(np.concatenate(occurring)).astype(np.int64))
    optimizer = Optimizer(
        model,
        weight_decay=recipe.weight_decay,
        epsilon=recipe.adam_epsilon,
        clip=recipe.clip,
        average=recipe.average,
        bias_correction=not recipe.no_bias_correction,
        part=partial(layer_rate, decay=recipe.layer_decay, layers=start.config.num_hidden_layers),
        scale_loss=machine.precision == "float16",
    )
    units = len(task.units(materials.train.inputs)) - 1
    epochs = Epochs(units, recipe.batch_size, recipe.accumulate, seed)
    plan = Plan(
        total=recipe.total_steps(epochs.steps), per_epoch=epochs.steps, peak_rate=recipe.learning_rate,
        warmup=recipe.warmup, schedule=recipe.schedule, seed=seed, metric=materials.metric, patience=recipe.patience,
        save_every=recipe.save_every,
    )  # fmt: skip
    observers: list[Observer] = [History(folder / "history.jsonl")]
    if not console.quiet:
        observers.append(ProgressBar(f"seed {seed}" if recipe.seeds > 1 else "training", console))
    if recipe.tensorboard:
        observers.append(TensorBoard(folder / "tensorboard"))
    states = folder / "states"
    outcome = train(
        optimizer,
        _objective(materials, model, epochs, console),
        plan,
        Observers(observers),
        states,
        resume=recipe.resume and states.is_dir(),
        stop=stopping.asked,
    )
    if outcome.best is None:
        return None
    with torch.no_grad():
        for name, parameter in optimizer.parameters.items():
            parameter.copy_(outcome.best[name])
    vocabulary.restore(model.embeddings, outcome.best_decay)
    model.requires_grad_(False)
    trained.tune(materials.validation)
    trained.summary = _summary(materials, outcome, seed)
    if outcome.finished and recipe.seeds > 1:  # so that a resumed run need not train this seed again
        atomic.atomic_write_bytes(folder / _BEST, save({k: v.contiguous() for k, v in model.state_dict().items()}))
        atomic.atomic_write_text(done, json.dumps(trained.summary))
        shutil.rmtree(states, ignore_errors=True)
    trained.summary |= _on_tests(materials, trained)
    return trained


def _objective(materials: Materials, model: Headed, epochs: Epochs, console: Console) -> RowObjective:
    recipe, machine, task = materials.recipe, materials.machine, materials.task
    inputs, aside = materials.train.inputs, materials.validation.inputs
    table = inputs.table
    weights_C = task.class_weights(recipe.class_weights, inputs)
    loss, loss_aside = task.loss(inputs, weights_C), task.example_loss(aside, weights_C)
    trained = TrainingLoss.of(loss, recipe, masks=model.draws_masks)
    starts = task.units(inputs)

    def sequences(units: Rows) -> Rows:
        return spans(starts[units], starts[units + 1] - starts[units])

    def measure(outputs: FloatArray) -> dict[str, float]:
        if not np.isfinite(outputs).all():
            raise FloatingPointError("the model's outputs are no longer finite numbers")
        return {"loss": loss_aside.mean(outputs), **task.tuned(outputs, aside).scores(outputs, aside)}

    rows_read = int(table.read_starts[-1] + aside.table.read_starts[-1])
    frozen = model.frozen > len(model.encoder.layer)
    features = rows_read * model.config.hidden_size * 12  # at the worst: as float64, and as float32 beside it
    if frozen and features >= _FEATURES_AT_MOST:
        tell(f"what the frozen encoder gives would take {features / 2**30:.1f} GiB: it is computed anew in each epoch")
    if frozen and features < _FEATURES_AT_MOST:
        # Nothing below the head changes: what it reads is computed once, not once an epoch.
        with TokenProgress("computing what the frozen encoder gives", console) as progress:
            features_NH = torch.from_numpy(inference.run(model.features, table, machine, progress))
            features_NH = features_NH.float().to(machine.device)
        aside_NH = torch.from_numpy(inference.run(model.features, aside.table, machine)).float()

        def loss_sum(units: Rows, noise: Noise) -> Tensor:
            with machine.computing():
                read = table.outputs(trained.rows(sequences(units)))
                outputs_RC = model.classify(features_NH[torch.from_numpy(read)], noise)
            return trained.sum(outputs_RC, units)

        def validate(progress: Progress) -> dict[str, float]:
            with torch.inference_mode(), machine.computing():
                outputs_RC = model.classify(aside_NH.to(machine.device)).double().cpu().numpy()
            return measure(outputs_RC)
    else:

        def loss_sum(units: Rows, noise: Noise) -> Tensor:
            batch = table.pack(trained.rows(sequences(units)))
            with machine.computing():
                outputs_RC = model(batch.to(machine.device), noise)
            return trained.sum(outputs_RC.index_select(0, batch.callers_order().to(machine.device)), units)

        def validate(progress: Progress) -> dict[str, float]:
            return measure(inference.run(model, aside.table, machine, progress))

    return RowObjective(
        epochs,
        loss_sum=loss_sum,
        weight=lambda units: float(loss.weight_U[units].sum()),
        tokens=lambda units: int(table.lengths[sequences(units)].sum()),
        measure=validate,
    )


def _soup(
    materials: Materials, best: Trained, summaries: Sequence[dict[str, Any]], files: Mapping[int, Path], console: Console
) -> tuple[Trained, dict[str, Any]]:
    """Return the better of ``best`` and what the mean of the seeds' weights makes, and what was tried."""
    say = teller(console)
    model = copy.deepcopy(best.model.model)
    model.frozen = 0  # a frozen encoder's features would be computed for training rows that nothing asks for
    objective = _objective(materials, model, Epochs(1, 1, 1, 0), console)

    def judge(weights: soup.Weights) -> dict[str, float]:
        model.load_state_dict(weights)
        try:
            with TokenProgress("measuring a soup", console) as progress:
                return objective.validate(progress)
        except FloatingPointError as error:
            raise BertwrightError(f"the mean of the seeds' weights: {error}; take --keep best") from error

    ingredients = [soup.Ingredient(s["seed"], materials.score(s["validation"]), files[s["seed"]]) for s in summaries]
    found = [soup.uniform(ingredients, judge), soup.greedy(ingredients, judge, materials.score)]
    tried = [one for one in found if one is not None]
    kept = soup.best_of(tried, ingredients, materials.score)
    for one in tried:
        seeds = ", ".join(map(str, one.seeds))
        say(f"{one.kind} soup of seeds {seeds}: validation {materials.metric} {one.validation[materials.metric]:.4f}")
    say("no soup is better than the best seed, which is kept" if kept is None else f"the {kept.kind} soup is kept")
    told = {"kept": None if kept is None else kept.kind, "tried": [one.describe() for one in tried]}
    if kept is None:
        return best, told
    model.load_state_dict(kept.weights)
    made = Trained(dataclasses.replace(best.model, model=model), console)
    made.summary = best.summary
    made.tune(materials.validation)
    return made, told


def _summary(materials: Materials, outcome: Outcome, seed: int) -> dict[str, Any]:
    best = next(r for r in outcome.validations if r["step"] == outcome.best_step)
    return {
        "seed": seed,
        "finished": outcome.finished,
        "best_epoch": outcome.best_epoch,
        "best_step": outcome.best_step,
        "steps": outcome.step,
        "validation": {k: v for k, v in best.items() if k not in ("kind", "step", "epoch")},
        "training": {
            "seconds": outcome.seconds,
            "steps_per_second": outcome.step / outcome.seconds if outcome.seconds else None,
            "tokens_per_second": outcome.tokens / outcome.seconds if outcome.seconds else None,
            "peak_memory_bytes": materials.machine.peak_memory(),
            "machine": materials.machine.describe(),
            "precision": materials.machine.precision,
        },
    }


def _on_tests(materials: Materials, trained: Trained) -> dict[str, dict[str, float]]:
    """Loss and scores on each test set."""
    found = {}
    for split in materials.tests:
        task, inputs, outputs = trained.model.task, split.inputs, trained.outputs(split)
        loss = task.example_loss(inputs, task.class_weights("none", None))
        found[split.name] = {"loss": loss.mean(outputs), **task.scores(outputs, inputs)}
    return found


def _judge(
    materials: Materials,
    trained: Trained,
    summaries: list[dict[str, Any]],
    interrupted: bool,
    cooked: dict[str, Any] | None,
) -> dict[str, Any]:
    """Measure the chosen model in full on validation and test sets, and summarise the seeds."""
    evaluations: dict[str, Evaluation] = {}
    for split in (materials.validation, *materials.tests):
        evaluations[split.name] = trained.measure(split)
    overall: dict[str, Any] = {
        "interrupted": interrupted,
        "chosen_by": f"validation {materials.metric}",
        **{name: trained.summary[name] for name in ("seed", "best_epoch", "training")},
        **{name: evaluation.metrics for name, evaluation in evaluations.items()},
    }
    if len(summaries) > 1:
        overall["seeds"] = summaries
        overall["over_seeds"] = {
            name: {
                metric: {
                    "mean": statistics.fmean(s[name][metric] for s in summaries),
                    "standard_deviation": statistics.stdev(s[name][metric] for s in summaries),
                }
                for metric in summaries[0][name]
            }
            for name in evaluations
        }
    if cooked is not None:
        overall["soup"] = cooked
    return {"summary": overall, "evaluations": evaluations}


def _write(materials: Materials, model: Predictor, metrics: dict[str, Any], folder: Path, out: Path) -> None:
    recipe = materials.recipe
    # What was unfinished or replaced is not part of how to repeat the run.
    model.recipe = dataclasses.replace(recipe, resume=False, overwrite=False)
    replace = recipe.overwrite or recipe.resume
    with atomic.atomic_directory(out, overwrite=replace) as target:
        model.save(target)
        for name, evaluation in metrics["evaluations"].items():
            files = model.task.files(evaluation.predictions)
            write_evaluation(target / name, evaluation.metrics, evaluation.predictions, model.task.draw, files)
        text = json.dumps(metrics["summary"], indent=2, ensure_ascii=False)
        atomic.atomic_write_text(target / "metrics.json", text + "\n")
        for item in sorted(folder.iterdir()):
            if item.name in ("history.jsonl", "tensorboard"):
                (shutil.copytree if item.is_dir() else shutil.copy2)(item, target / item.name)
        plot_training(read_history(folder / "history.jsonl"), target / "training.png")
        atomic.atomic_write_text(target / "README.md", card.model_card(model, materials.start.origin, metrics["summary"]))
