"""Pretraining from a recipe to a model directory: a prepared corpus, a config or a checkpoint, and the one loop.

While a run is unfinished, everything lies in ``<out>.training``; ``<out>`` appears in one rename, whole. Under
``torchrun`` each of the processes calls the same function; the first of them reports and writes.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from bertwright import atomic, checkpoint
from bertwright.card import pretraining_card
from bertwright.data.shards import TokenCorpus
from bertwright.errors import BertwrightError, tell
from bertwright.evaluation.plots import plot_training
from bertwright.interrupts import Stopped, stop_on_signal
from bertwright.machine import Machine
from bertwright.model import BertConfig, Pretraining
from bertwright.pretraining.objective import PairsOfText, PretrainingObjective, batches_of_step
from bertwright.telling import Say, teller
from bertwright.tokenizer import Tokenizer
from bertwright.training import processes as group
from bertwright.training.loop import Observer, Outcome, Plan, train
from bertwright.training.observers import History, Observers, Pace, ProgressBar, TensorBoard, read_history
from bertwright.training.optimizer import Optimizer
from bertwright.training.parallel import compiled, gathered, sharded
from bertwright.training.pretraining_recipe import PretrainingRecipe
from bertwright.training.processes import Processes
from bertwright.workspace import Workspace, begun_by

_VALIDATIONS = 20  # of a run that does not say how often
_MANY_UNPAIRED = 0.1


@dataclass(frozen=True)
class PretrainingRun:
    """A finished pretraining: where the model lies, and what was measured."""

    out: Path
    metrics: dict[str, Any]


def pretrain(
    corpus: str | Path | None = None,
    recipe: PretrainingRecipe | Mapping[str, Any] | None = None,
    *,
    console: Console | None = None,
    **options: Any,
) -> PretrainingRun | None:
    """Pretrain a BERT on a prepared corpus and write a model directory.

    Args:
        corpus: the directory that :func:`bertwright.prepare` wrote.
        recipe: options to begin with, such as another run's; keywords win over it.
        console: where to report; default: standard error. ``Console(quiet=True)`` says nothing.
        options: any field of :class:`~bertwright.training.pretraining_recipe.PretrainingRecipe`: ``config`` or
            ``model``, ``objective``, ``steps``, ``max_time``, ``learning_rate``, ``out``, ….

    Returns:
        What was made; None in all processes of a ``torchrun`` but the first.

    Raises:
        Stopped: Ctrl-C or SIGTERM; the state is kept.
        BertwrightError: anything that a user can mend. Nothing half-written stays at ``out``.
    """
    begin = dataclasses.asdict(recipe) if isinstance(recipe, PretrainingRecipe) else dict(recipe or {})
    if corpus is not None:
        options["corpus"] = str(corpus)
    begin = {name: value for name, value in begin.items() if name not in PretrainingRecipe.replaced(options)}
    chosen = PretrainingRecipe.of(begin, options)
    if chosen.resume:
        chosen = _resumed(chosen, begin | options)
    with group.together(chosen.device) as processes:
        if not chosen.resume and processes.any(processes.first and begun_by(chosen, processes.launch)):
            # torchrun has started the processes again, with the same words as at first.
            if chosen.overwrite and processes.first:
                tell("this call of torchrun has begun the run already: it goes on; give another --rdzv-id to begin anew")
            chosen = _resumed(dataclasses.replace(chosen, resume=True, overwrite=False), begin | options)
        quiet = Console(quiet=True)
        return _pretrain(chosen, (console or Console(stderr=True)) if processes.first else quiet, processes)


def _resumed(chosen: PretrainingRecipe, given: Mapping[str, Any]) -> PretrainingRecipe:
    return Workspace.claim(chosen).resumed(PretrainingRecipe, {**given, "resume": True, "overwrite": False})


def _pretrain(chosen: PretrainingRecipe, console: Console, processes: Processes) -> PretrainingRun | None:
    place = Workspace.claim(chosen)
    processes.wait()  # before the first of them writes what the others would find in their way
    if chosen.corpus is None:
        raise BertwrightError("the corpus is missing: name the directory that 'bertwright prepare' wrote")
    if processes.first:
        for message in chosen.without_effect():
            tell(message)
    machine = Machine.choose(chosen.device, chosen.precision, chosen.threads)
    if processes.world > 1:
        machine = dataclasses.replace(machine, device=torch.device(processes.device))
    text = TokenCorpus.open(chosen.corpus), TokenCorpus.open(chosen.corpus, "heldout")
    say = teller(console)
    model, origin = _start(chosen, text[0], say)
    plan = _plan(chosen, text[0], machine, processes)
    with stop_on_signal(say) as stopping, place.guarded(owner=processes.first):
        if processes.first:
            rows = [text[0].digest.encode(), json.dumps(model.config.to_dict()).encode()]
            place.begin(chosen, rows, processes.launch)
        processes.wait()
        model = _placed(model, chosen, machine, processes)
        optimizer = _optimizer(model, chosen, machine)
        objective = PretrainingObjective(model, *text, chosen, machine, processes)
        if chosen.objective != "mlm" and processes.first:
            _tell_of_pairs(objective.pairs_of_text, chosen, say)
        peak = machine.peak_flops()
        folder = place.seed(chosen.seed)
        outcome = train(
            optimizer,
            objective,
            plan,
            _observers(chosen, folder, console, peak * processes.world) if processes.first else Observers([]),
            folder / "states",
            resume=chosen.resume and (folder / "states").is_dir(),
            stop=stopping.asked,
            processes=processes,
        )
        if not outcome.finished:
            raise Stopped(
                f"the state of this run is kept; go on with: {place.resume_command}", stopping.signal or signal.SIGTERM
            )
        optimizer.take_average()
        metrics = _metrics(outcome, folder if processes.first else None, machine, peak, processes)
        whole = gathered(model)
        if processes.first:
            _write(chosen, whole, text[0].tokenizer(), origin, metrics, folder, place.out)
            place.remove()
        processes.wait()
    return PretrainingRun(place.out, metrics) if processes.first else None


def _start(recipe: PretrainingRecipe, corpus: TokenCorpus, say: Say) -> tuple[Pretraining, str]:
    """Make the model, and say what it is made of."""
    if (recipe.config is None) == (recipe.model is None):
        raise BertwrightError("--config starts from random weights, --model from a checkpoint: give one of them")
    if recipe.config is not None:
        config = BertConfig.chosen(recipe.config, corpus.manifest.vocab_size, of="the corpus")
        tensors, origin = None, f"random weights ({recipe.config})"
    else:
        assert recipe.model is not None
        held = checkpoint.read(recipe.model, revision=recipe.revision)
        config, tensors, origin = BertConfig.from_dict(held.config, str(held.config_path)), held.tensors, recipe.model
        corpus.check_tokenizer(Tokenizer.from_directory(held.directory), str(held.directory))
    longest = max(phase.value for phase in recipe.lengths)
    if longest > config.max_position_embeddings:
        raise BertwrightError(
            f"--max-length {recipe.max_length} is more than the {config.max_position_embeddings} positions of {origin}; "
            "give at most that"
        )
    if recipe.objective != "mlm" and config.type_vocab_size < 2:
        raise BertwrightError(
            f"{origin}: type_vocab_size is {config.type_vocab_size}; pairs need 2, so take --objective mlm"
        )
    if recipe.dropout is not None:
        p = recipe.dropout
        config = dataclasses.replace(config, hidden_dropout_prob=p, attention_probs_dropout_prob=p)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = Pretraining(config)
    report = None if tensors is None else checkpoint.load_into(model, tensors, where=origin)
    if recipe.objective == "mlm":  # the pooler and its head have no part in this loss
        model.pooler.requires_grad_(False)
        model.cls.seq_relationship.requires_grad_(False)
    count = sum(parameter.numel() for parameter in model.parameters())
    say(f"starting from {origin}, {count / 1e6:.1f} M parameters" + ("" if report is None else f"; {report.describe()}"))
    part = corpus.count
    say(f"{part.tokens:,} tokens in {part.sentences:,} sentences of {part.documents:,} documents")
    return model, origin


def _plan(recipe: PretrainingRecipe, corpus: TokenCorpus, machine: Machine, processes: Processes) -> Plan:
    for phase in recipe.step_tokens:
        batches_of_step(recipe, phase.value, machine, processes.world)  # a wrong setting is told before the work
    total = recipe.steps
    if total is None and recipe.max_time is None:
        began, mean = 0.0, 0.0
        for phase in recipe.step_tokens:
            mean, began = mean + (phase.until - began) * phase.value, phase.until
        length = recipe.lengths[0].value
        tokens = recipe.epochs * corpus.count.tokens * length / (length - 3)  # special tokens take their share
        total = max(round(tokens / mean), 1)
    every = recipe.validate_every or (500 if total is None else max(total // _VALIDATIONS, 20))
    return Plan(
        total=total,
        per_epoch=every,
        peak_rate=recipe.learning_rate,
        warmup=recipe.warmup,
        schedule=recipe.schedule,
        seed=recipe.seed,
        save_every=recipe.save_every,
        save_minutes=recipe.save_minutes,
        max_seconds=recipe.max_seconds,
        in_epochs=False,
        keep_best=False,
    )


def _placed(model: Pretraining, recipe: PretrainingRecipe, machine: Machine, processes: Processes) -> Pretraining:
    model.to(machine.device)
    model.encoder.recompute = recipe.recompute
    if recipe.shard:
        sharded(model, processes)
    if recipe.compile:
        compiled(model)
    return model


def _optimizer(model: Pretraining, recipe: PretrainingRecipe, machine: Machine) -> Optimizer:
    return Optimizer(
        model,
        weight_decay=recipe.weight_decay,
        epsilon=recipe.adam_epsilon,
        clip=recipe.clip,
        beta2=recipe.adam_beta2,
        muon=recipe.optimizer == "muon",
        average=recipe.average,
        scale_loss=machine.precision == "float16",
    )


def _tell_of_pairs(text: PairsOfText, recipe: PretrainingRecipe, say: Say) -> None:
    length = recipe.lengths[-1].value
    say(f"about {text.cut:.1%} of the text is cut in each pass, to fit pairs into {length} tokens")
    if text.unpaired > _MANY_UNPAIRED:
        what = "can only be the first part of a random pair" if recipe.objective == "mlm+nsp" else "make no pair at all"
        tell(
            f"about {text.unpaired:.0%} of the sequences are documents of a single sentence, which {what}: take --objective "
            "mlm, or prepare the corpus with other --documents"
        )


def _observers(recipe: PretrainingRecipe, folder: Path, console: Console, peak: float) -> Observer:
    observers: list[Observer] = [History(folder / "history.jsonl")]
    if not console.quiet:
        observers.append(ProgressBar("pretraining", console, peak=peak))
    if recipe.tensorboard:
        observers.append(TensorBoard(folder / "tensorboard"))
    return Pace(Observers(observers), peak)


def _metrics(outcome: Outcome, folder: Path | None, machine: Machine, peak: float, processes: Processes) -> dict[str, Any]:
    history = [] if folder is None else read_history(folder / "history.jsonl")
    flops = sum(record["flops"] for record in history if record["kind"] == "step")
    seconds = outcome.seconds or math.nan
    return {
        "heldout": {k: v for k, v in outcome.validations[-1].items() if k not in ("kind", "step")},
        "training": {
            "steps": outcome.step,
            "tokens": outcome.tokens,
            "seconds": outcome.seconds,
            "seconds_in_all": outcome.elapsed,
            "tokens_per_second": outcome.tokens / seconds,
            "flops": flops,
            "peak_flops_per_second": peak * processes.world,
            "fraction_of_peak": flops / seconds / (peak * processes.world),
            "peak_memory_bytes": machine.peak_memory(),
            "processes": processes.world,
            "machine": machine.describe(),
            "precision": machine.precision,
        },
    }


def _write(
    recipe: PretrainingRecipe,
    model: Pretraining,
    tokenizer: Tokenizer,
    origin: str,
    metrics: dict[str, Any],
    folder: Path,
    out: Path,
) -> None:
    # What was unfinished or replaced is not part of how to repeat the run.
    made_by = dataclasses.replace(recipe, resume=False, overwrite=False)
    with atomic.atomic_directory(out, overwrite=recipe.overwrite or recipe.resume) as target:
        save(model, tokenizer, target, made_by.objective)
        atomic.atomic_write_text(target / recipe.FILE, made_by.to_toml())
        atomic.atomic_write_text(target / "metrics.json", json.dumps(metrics, indent=2) + "\n")
        for item in sorted(folder.iterdir()):
            if item.name in ("history.jsonl", "tensorboard"):
                (shutil.copytree if item.is_dir() else shutil.copy2)(item, target / item.name)
        history = read_history(folder / "history.jsonl")
        beside = ("gradient_norm", "learning_rate", "tokens_per_second", "fraction_of_peak")
        plot_training(history, target / "training.png", beside=beside)
        card = pretraining_card(model.config, made_by, origin, metrics)
        atomic.atomic_write_text(target / "README.md", card)


def save(model: Pretraining, tokenizer: Tokenizer, directory: Path, objective: str = "mlm+nsp") -> None:
    """Write what ``transformers`` opens as BertForPreTraining (or BertForMaskedLM, or its encoder alone)."""
    config = model.config.to_dict() | {"architectures": [architecture(objective)]}
    checkpoint.write_weights(directory, checkpoint.export_tensors(model, prefix="bert."))
    atomic.atomic_write_text(directory / "config.json", json.dumps(config, indent=2) + "\n")
    tokenizer.save(directory, max_length=model.config.max_position_embeddings)


def architecture(objective: str) -> str:
    """What ``transformers`` calls a model pretrained so: of masked words alone, it has no trained next-sentence head."""
    return "BertForMaskedLM" if objective == "mlm" else "BertForPreTraining"
