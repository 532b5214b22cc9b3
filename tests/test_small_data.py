"""The options for few rows, in whole runs: each does what it says, and a run without them gives the bits it always gave."""

from __future__ import annotations

import io
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor, nn

import bertwright
from bertwright import BertwrightError, BertwrightWarning, Run, finetune, finetuning
from bertwright.evaluation.report import seeds_table
from bertwright.training import observers
from bertwright.training.observers import read_history
from bertwright.training.optimizer import Optimizer
from tiny_model import QUICK, Fit, no_plots, rows, weights, write_jsonl, write_tsv

pytestmark = pytest.mark.usefixtures("plotless")
QUIET = Console(quiet=True)


def history(run: Run, kind: str = "step") -> list[float]:
    return [record["loss"] for record in read_history(run.out / "history.jsonl") if record["kind"] == kind]


EVERYTHING: dict[str, Any] = {
    "reinit_layers": 1, "layer_decay": 0.7, "r_drop": 1.0, "label_smoothing": 0.1, "average": 0.8, "init_seed": 3,
    "no_bias_correction": True,
}  # fmt: skip


# What runs without these options gave before there were any; with layers of its own, since the last is drawn as one of them.
@pytest.mark.parametrize(
    ("options", "losses"),
    [
        ({}, (0.7046033143997192, 0.7191445231437683, 0.912725567817688, 0.6869927472156493)),
        (
            {"class_weights": "balanced", "weight_decay": 0.3},
            (0.7046033143997192, 0.7192426919937134, 0.9098951816558838, 0.6872640073015645),
        ),
        ({"freeze": "first:1"}, (0.6756043434143066, 0.6699382066726685, 0.8012961745262146, 0.6699072892260214)),
        (
            {"freeze": "encoder", "head_layers": 1},
            (0.7562297582626343, 0.7874662280082703, 0.8850589990615845, 0.6645027113143398),
        ),
    ],
)
def test_without_them_a_run_is_what_it_was(fit: Fit, options: dict[str, Any], losses: tuple[float, ...]) -> None:
    run = fit(**options)
    # The same bits on one machine; another may round differently.
    found = [*history(run)[:3], history(run, "validation")[-1]]
    assert found == pytest.approx(losses, rel=2e-5)
    assert "soup" not in run.metrics


@pytest.mark.parametrize("name", EVERYTHING)
def test_each_of_them_changes_the_training(fit: Fit, name: str) -> None:
    plain, other = fit(epochs=1), fit(epochs=1, **{name: EVERYTHING[name]})
    same = {key: torch.equal(value, weights(other.out)[key]) for key, value in weights(plain.out).items()}
    assert not any(same[key] for key in same if key.endswith("layer.1.output.dense.weight"))


# --------------------------------------------------------------------------------------------------------------- resuming


@pytest.mark.parametrize(
    "options",
    [
        {"average": 0.9},
        {"average": 0.9999, "layer_decay": 0.8},
        {"r_drop": 0.5},
        EVERYTHING | {"freeze": "first:1"},
        EVERYTHING,
    ],
    ids=["average", "mean by layers", "r-drop", "frozen", "everything"],
)
def test_a_stopped_run_goes_on_to_the_same_bits(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    undisturbed = fit(**options)

    class Watch(observers.History):
        def record(self, record: dict[str, Any]) -> None:
            super().record(record)
            if record["kind"] == "step" and record["step"] == 13:  # the fourth of the second epoch
                signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(finetuning, "History", Watch)
        stopped = fit(out=tmp_path / "stopped", **options)
    assert stopped.interrupted
    resumed = fit(out=tmp_path / "stopped", resume=True, **options)
    assert (resumed.out / "model.safetensors").read_bytes() == (undisturbed.out / "model.safetensors").read_bytes()
    assert history(resumed) == history(undisturbed)


# --------------------------------------------------------------------------------------------------- layers that begin anew


@pytest.mark.parametrize("count", [1, 2])
def test_top_layers_pooler_and_head_begin_anew_and_the_rest_is_the_checkpoint(fit: Fit, tiny_run: Path, count: int) -> None:
    # From a classifier for the same labels, whose head would be kept.
    held = weights(tiny_run)
    still = {"learning_rate": 1e-12, "steps": 1, "epochs": None}
    first, other, again = (weights(fit(model=tiny_run, reinit_layers=count, seed=seed, **still).out) for seed in (0, 1, 0))
    for name, value in first.items():
        anew = not name.startswith(("bert.embeddings.", *(f"bert.encoder.layer.{i}." for i in range(2 - count))))
        assert torch.allclose(value, held[name], atol=1e-9) != anew, name
        assert torch.equal(value, again[name])
        if anew and name.endswith(("dense.weight", "classifier.weight")):
            assert not torch.allclose(value, other[name], atol=1e-3), name
            assert 0.1 < float(value.std()) < 0.25  # the config's range, cut at two deviations
        elif anew and "LayerNorm.weight" in name:
            assert torch.allclose(value, torch.ones(()), atol=1e-9)
        elif anew and name.endswith("bias"):
            assert torch.allclose(value, torch.zeros(()), atol=1e-9)


def test_what_begins_anew_is_told(fit: Fit) -> None:
    page = io.StringIO()
    fit(reinit_layers=1, epochs=1, console=Console(file=page, width=80))
    assert "freshly initialised: classifier (2 tensors), encoder (12 tensors), pooler (2 tensors)" in page.getvalue()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reinit_layers": 3}, "--reinit-layers 3: the model has only 2 layers"),
        (
            {"reinit_layers": 1, "freeze": "encoder"},
            "--reinit-layers 1 and --freeze encoder: layers that begin anew would stay so; freeze at most first:1",
        ),
        (
            {"reinit_layers": 2, "freeze": "first:1"},
            "--reinit-layers 2 and --freeze first:1: layers that begin anew would stay so; freeze at most first:0",
        ),
    ],
)
def test_what_cannot_begin_anew_is_refused(fit: Fit, options: dict[str, Any], message: str) -> None:
    with pytest.raises(BertwrightError) as caught:
        fit(**options)
    assert str(caught.value) == message


def test_up_to_where_it_begins_anew_it_can_be_frozen(fit: Fit, tiny_dir: Path) -> None:
    run = fit(reinit_layers=1, freeze="first:1", epochs=1)
    before, after = weights(tiny_dir), weights(run.out)
    for name, value in before.items():
        assert torch.equal(value, after[f"bert.{name}"]) == name.startswith(("embeddings.", "encoder.layer.0.")), name


def test_one_beginning_for_all_seeds(fit: Fit) -> None:
    still = {"learning_rate": 1e-12, "steps": 1, "epochs": None}
    heads = [
        weights(fit(seed=seed, init_seed=init, **still).out)["classifier.weight"]
        for seed, init in ((0, None), (1, None), (1, 0), (2, 0))
    ]
    own, other, *given = heads
    assert not torch.allclose(own, other, atol=1e-3)
    for head in given:
        torch.testing.assert_close(head, own, rtol=0, atol=1e-9)


# ------------------------------------------------------------------------------------------------- rates, smoothing, R-Drop


def test_layers_move_less_the_lower_they_are(fit: Fit, tiny_dir: Path) -> None:
    before = weights(tiny_dir)
    after = weights(fit(layer_decay=0.1, steps=1, epochs=None, warmup=0.0, weight_decay=0.0).out)
    moved = {name: float((after[f"bert.{name}"] - value).abs().max()) for name, value in before.items()}
    for part, rate in (("pooler.", 1e-2), ("encoder.layer.1.", 1e-3), ("encoder.layer.0.", 1e-4), ("embeddings.", 1e-5)):
        assert max(far for name, far in moved.items() if name.startswith(part)) == pytest.approx(rate, rel=0.05), part


def test_only_the_loss_that_is_trained_is_smoothed(fit: Fit) -> None:
    still = {"learning_rate": 1e-12, "epochs": 1, "batch_size": 72, "dropout": 0.0}
    plain, smoothed = fit(**still), fit(label_smoothing=0.5, **still)
    assert history(smoothed, "validation") == pytest.approx(history(plain, "validation"), rel=1e-6)
    assert history(smoothed)[0] != pytest.approx(history(plain)[0], rel=1e-3)
    records = smoothed.model.evaluate(smoothed.model.recipe.train or "").predictions
    kept = {record["text"] for record in records}
    assert len(kept) > 70
    # Half of each label on both classes: a row's loss is a quarter of that of the other label, and three of its own.
    logits = np.array([record["logits"] for record in records])
    logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    right = np.array([int(record["true"]) for record in records])
    own, other = -logs[np.arange(len(logs)), right], -logs[np.arange(len(logs)), 1 - right]
    aside = 8 * history(plain, "validation")[0]
    validation = {r["text"] for r in _lines(smoothed.out / "validation" / "predictions.jsonl")}
    assert len(validation) == 8
    assert own.sum() - aside == pytest.approx(72 * history(plain)[0], rel=1e-5)
    aside_other = sum(o for o, r in zip(other, records, strict=True) if r["text"] in validation)
    wanted = 0.75 * (own.sum() - aside) + 0.25 * (other.sum() - aside_other)
    assert history(smoothed)[0] == pytest.approx(wanted / 72, rel=1e-5)


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("freeze", ["none", "encoder"])
def test_r_drop_without_dropout_is_told_and_is_the_plain_loss(fit: Fit, freeze: str) -> None:
    plain = fit(dropout=0.0, epochs=1, freeze=freeze)
    with pytest.warns(BertwrightWarning, match="--r-drop has no effect with --dropout 0"):
        twice = fit(dropout=0.0, epochs=1, freeze=freeze, r_drop=4.0)
    assert history(twice) == pytest.approx(history(plain), rel=1e-4)
    tokens = [
        [r["tokens"] for r in read_history(run.out / "history.jsonl") if r["kind"] == "step"] for run in (plain, twice)
    ]
    assert tokens[0] == tokens[1]


def test_r_drop_where_nothing_draws_masks_is_told(tiny_dir: Path, tmp_path: Path) -> None:
    asked = {"context": "the film was good", "question": "was it good"}
    answers = {"text": ["film"], "answer_start": [4]}
    train = write_jsonl(tmp_path / "t.jsonl", [asked | {"id": str(n), "answers": answers} for n in range(8)])
    options: dict[str, Any] = {"train": train, "validation": train, "model": tiny_dir, "freeze": "encoder", "epochs": 1}
    options |= {"task": "question-answering", "max_length": 32, "stride": 8, "console": Console(quiet=True)}
    with pytest.warns(BertwrightWarning, match="--r-drop has no effect on a model in which nothing that is trained"):
        twice = finetune(r_drop=1.0, out=tmp_path / "twice", **options)
    assert history(twice) == history(finetune(out=tmp_path / "plain", **options))


@pytest.mark.parametrize("freeze", ["none", "encoder"])
def test_r_drop_adds_so_many_times_how_far_two_passes_lie_apart(fit: Fit, freeze: str) -> None:
    # At the first step, where weights and masks are the same, the loss is linear in the weight of the divergence.
    once = {"steps": 1, "epochs": None, "freeze": freeze, "dropout": 0.4}
    small, one, three = (history(fit(r_drop=weight, **once))[0] for weight in (1e-9, 1.0, 3.0))
    assert one - small > 1e-3
    assert three - small == pytest.approx(3 * (one - small), rel=1e-3)


# --------------------------------------------------------------------------------------------------------------- averages


def test_the_kept_model_is_the_mean_of_the_weights_after_each_step(
    fit: Fit, monkeypatch: pytest.MonkeyPatch, tiny_dir: Path
) -> None:
    seen: list[dict[str, Tensor]] = []
    step = Optimizer.step

    def watched(self: Optimizer, rate: float) -> float:
        norm = step(self, rate)
        seen.append({name: p.detach().clone() for name, p in self.parameters.items()})
        return norm

    monkeypatch.setattr(Optimizer, "step", watched)
    words = "embeddings.word_embeddings.weight"
    run = fit(steps=5, epochs=None, average=0.9999, weight_decay=0.9, schedule="constant", warmup=0.0)
    held = weights(run.out)
    for name in ("pooler.dense.weight", "encoder.layer.1.output.dense.weight", "embeddings.LayerNorm.bias"):
        mean = torch.stack([one[name] for one in seen]).mean(0)
        torch.testing.assert_close(held[f"bert.{name}"], mean, rtol=1e-4, atol=1e-6)
    # Word pieces that do not occur were decayed at each step: their mean is that of five powers of the decay.
    before = weights(tiny_dir)[words]
    never = len(before) - 5
    assert len(seen[0][words]) < len(before)
    powers = [(1 - 1e-2 * 0.9) ** n for n in range(1, 6)]
    torch.testing.assert_close(held[f"bert.{words}"][never], before[never] * (sum(powers) / 5), rtol=1e-5, atol=1e-7)
    # And what was validated is what was kept.
    assert run.metrics["validation"]["loss"] == pytest.approx(history(run, "validation")[-1], rel=1e-6)
    assert bertwright.load(run.out).predict("a good film") == run.model.predict("a good film")


# ------------------------------------------------------------------------------------------------------------------ soups


@pytest.fixture(scope="module")
def cook(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """Three seeds that go on from a trained classifier, so that they stay in one valley, and a soup of them."""
    folder = tmp_path_factory.mktemp("soup")
    files: dict[str, Any] = {
        name: write_tsv(folder / f"{name}.tsv", rows(count, seed=seed))
        for name, count, seed in (("train", 80, 0), ("validation", 60, 3), ("test", 40, 1))
    }
    options = {"model": tiny_run, "metric": "loss", "dropout": 0.3, "seed": 4, "seeds": 3, "keep": "soup"}

    def run(name: str, **others: Any) -> Run:
        with no_plots():
            return finetune(QUICK, console=QUIET, out=folder / name, **options | files | others)

    return run


@pytest.fixture(scope="module")
def cooked(cook: Callable[..., Run]) -> Run:
    return cook("cooked")


def test_a_soup_is_the_mean_of_the_seeds_weights_and_one_model(cook: Callable[..., Run], cooked: Run) -> None:
    run, told = cooked, cooked.metrics["soup"]
    alone = [cook(f"alone-{seed}", seed=seed, seeds=1, keep="best") for seed in (4, 5, 6)]
    kept = next(one for one in told["tried"] if one["kind"] == told["kept"])
    assert told["tried"][0]["seeds"] == [4, 5, 6]
    mine = [weights(one.out) for one, seed in zip(alone, (4, 5, 6), strict=True) if seed in kept["seeds"]]
    for name, value in weights(run.out).items():
        mean = torch.stack([one[name].double() for one in mine]).mean(0).float()
        torch.testing.assert_close(value, mean, rtol=1e-6, atol=1e-8)
    assert kept["validation"]["loss"] < min(one.metrics["validation"]["loss"] for one in alone)
    assert run.metrics["validation"]["loss"] == pytest.approx(kept["validation"]["loss"], rel=1e-6)
    assert bertwright.load(run.out).predict("a good film") == run.model.predict("a good film")
    seeds = ", ".join(map(str, kept["seeds"]))
    assert f"the mean of those that the seeds {seeds} ended with" in (run.out / "README.md").read_text()
    assert [one["seed"] for one in run.metrics["seeds"]] == [4, 5, 6]


def test_the_table_of_seeds_shows_the_soup(cooked: Run) -> None:
    run = cooked
    page = io.StringIO()
    Console(file=page, width=80).print(seeds_table(run.metrics, run.model.task.METRICS))
    lines = [line.split() for line in page.getvalue().splitlines() if "(kept)" in line]
    for split, line in zip(("validation", "test"), lines, strict=True):
        scores = [f"{run.metrics[split][name]:.3f}" for name in run.model.task.METRICS]
        assert line == [split, "soup", "(kept)", *scores]


def test_a_soup_that_is_no_better_is_not_kept(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    page = io.StringIO()
    monkeypatch.setattr("bertwright.soup.mean_weights", _ruined)
    run = fit(keep="soup", seeds=2, metric="loss", epochs=1, console=Console(file=page, width=80))
    best = min(run.metrics["seeds"], key=lambda one: one["validation"]["loss"])
    assert run.metrics["soup"]["kept"] is None
    assert run.metrics["seed"] == best["seed"]
    assert run.metrics["validation"]["loss"] == pytest.approx(best["validation"]["loss"], rel=1e-6)
    assert "no soup is better than the best seed, which is kept" in " ".join(page.getvalue().split())
    plain = fit(seeds=2, metric="loss", epochs=1)
    assert (run.out / "model.safetensors").read_bytes() == (plain.out / "model.safetensors").read_bytes()


def _ruined(files: list[Path]) -> dict[str, Tensor]:
    """Confidently wrong of half of all."""
    held = load_file(files[0])
    held["classifier.bias"] = torch.tensor([100.0, -100.0])
    return held


def test_stopped_before_its_last_seed_a_run_keeps_the_best_so_far_and_makes_its_soup_in_the_end(
    cook: Callable[..., Run], cooked: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = iter(range(30, 0, -1))  # 20 steps a seed

    class Watch(observers.History):
        def record(self, record: dict[str, Any]) -> None:
            super().record(record)
            if record["kind"] == "step" and next(left) == 1:
                signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(finetuning, "History", Watch)
        stopped = cook("stopped")
    assert stopped.interrupted
    assert "soup" not in stopped.metrics
    resumed = cook("stopped", resume=True)
    assert resumed.metrics["soup"] == cooked.metrics["soup"]
    assert (resumed.out / "model.safetensors").read_bytes() == (cooked.out / "model.safetensors").read_bytes()


def test_a_frozen_encoders_heads_make_a_soup_too(fit: Fit) -> None:
    run = fit(keep="soup", seeds=2, init_seed=0, freeze="encoder", metric="loss", epochs=1)
    assert run.metrics["soup"]["tried"][0]["kind"] == "uniform"
    assert isinstance(run.model.model, nn.Module)
