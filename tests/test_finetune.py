"""Fine-tuning from a recipe to a model directory: every option does what it says, and the same seed gives the same bits."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import re
import shutil
import statistics
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import nn

import bertwright
from bertwright import BertwrightError, BertwrightWarning, Run, finetune
from bertwright.model import Embeddings, Layer
from bertwright.training.epochs import RowObjective
from bertwright.training.observers import read_history
from bertwright.training.recipe import Recipe
from bertwright.training.schedule import learning_rate
from command_line import run as run_command
from tiny_model import BAD, GOOD, QUICK, Fit, rows, weights, write_jsonl, write_tsv

pytestmark = pytest.mark.usefixtures("plotless")
QUIET = Console(quiet=True)


def model_bytes(run: Run) -> bytes:
    return (run.out / "model.safetensors").read_bytes()


def steps(run: Run) -> list[dict[str, Any]]:
    """What the history tells of a run, but for how long it took."""
    records = read_history(run.out / "history.jsonl")
    return [{name: value for name, value in record.items() if name != "seconds"} for record in records]


def lines_of(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines()


def log_of(action: Callable[[Console], Run]) -> tuple[Run, list[str]]:
    page = io.StringIO()
    run = action(Console(file=page, width=80))
    return run, page.getvalue().splitlines()


# -------------------------------------------------------------------------------------------------------------- classes


@pytest.mark.parametrize("labels", [("1", "0"), ("gut [so]", "schlecht, „nein“")])
def test_two_classes_of_numbers_or_names_are_learned(fit: Fit, tmp_path: Path, labels: tuple[str, str]) -> None:
    train = write_tsv(tmp_path / "named.tsv", rows(160, labels=labels))
    test = write_tsv(tmp_path / "test.tsv", rows(60, seed=1, labels=labels))
    run = fit(train=train, test=test, epochs=5)
    assert run.metrics["test"]["accuracy"] > 0.8
    assert run.model.labels == tuple(sorted(labels))
    config = json.loads((run.out / "config.json").read_text())
    assert config["id2label"] == {"0": sorted(labels)[0], "1": sorted(labels)[1]}


def test_ten_classes_are_learned(fit: Fit, tmp_path: Path) -> None:
    words = (*GOOD, *BAD)
    ten = [(text, next(word for word in words if word in text.split())) for text, _ in rows(300)]
    run = fit(train=write_tsv(tmp_path / "ten.tsv", ten), epochs=6)
    assert run.model.labels == tuple(sorted(words))
    assert run.metrics["validation"]["accuracy"] > 0.9


def test_class_weights_move_the_probabilities_to_where_they_should(fit: Fit, tmp_path: Path) -> None:
    # All texts are alike, so all that can be learned is the share of each class, each row counted with its weight.
    same = [("the film", "yes" if number % 5 == 0 else "no") for number in range(50)]
    train, few = write_tsv(tmp_path / "skewed.tsv", same), write_tsv(tmp_path / "few.tsv", same[:5])
    expected = {"none": 0.2, "balanced": 0.5, "yes=16": 0.8, "no=3,yes=4": 0.25}
    for setting, share in expected.items():
        run = fit(
            train=train, validation=few, class_weights=setting, dropout=0.0, batch_size=50, steps=60, epochs=None,
            learning_rate=3e-3, metric="loss", save_every=100,
        )  # fmt: skip
        assert run.model.predict("the film")[0]["probabilities"]["yes"] == pytest.approx(share, abs=0.02), setting


def test_a_label_that_only_the_test_rows_have_ends_the_run_before_the_work(fit: Fit, tmp_path: Path) -> None:
    test = write_tsv(tmp_path / "test.tsv", [*rows(4), ("a film", "2")])
    with pytest.raises(BertwrightError, match=r"test.tsv:6: the label '2' does not occur in the training rows"):
        fit(test=test)


# ------------------------------------------------------------------------------------------------------------- freezing


def parts(names: Iterator[str] | dict[str, Any]) -> dict[str, str]:
    """Map names of weights to the part that is frozen or not: embeddings, layer 0, layer 1, pooler."""
    short = {name: name.removeprefix("bert.").removeprefix("encoder.") for name in names}
    return {name: ".".join(s.split(".")[: 2 if s.startswith("layer.") else 1]) for name, s in short.items()}


@pytest.mark.parametrize(
    ("freeze", "frozen"),
    [
        ("none", set()),
        ("first:0", {"embeddings"}),
        ("first:1", {"embeddings", "layer.0"}),
        ("first:2", {"embeddings", "layer.0", "layer.1"}),
        ("encoder", {"embeddings", "layer.0", "layer.1"}),
    ],
)
def test_what_is_frozen_stays_to_the_bit_and_all_else_changes(
    fit: Fit, tiny_dir: Path, freeze: str, frozen: set[str]
) -> None:
    run = fit(freeze=freeze)
    before, after = weights(tiny_dir), weights(run.out)
    for name, part in parts(before).items():
        same = torch.equal(before[name], after[f"bert.{name}"])
        assert same == (part in frozen), name
    assert {"embeddings", "layer.0", "layer.1", "pooler"} == set(parts(before).values())


@pytest.fixture
def forward_calls() -> Iterator[list[tuple[nn.Module, bool]]]:
    """Every forward call of an embedding or a layer, and whether its output takes part in the backward pass."""
    calls: list[tuple[nn.Module, bool]] = []

    def note(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(module, Embeddings | Layer):
            calls.append((module, output.requires_grad))

    handle = nn.modules.module.register_module_forward_hook(note)
    yield calls
    handle.remove()


@pytest.mark.parametrize(("freeze", "with_backward"), [("none", 3), ("first:0", 2), ("first:1", 1), ("encoder", 0)])
def test_frozen_parts_have_no_backward_pass(
    fit: Fit, forward_calls: list[tuple[nn.Module, bool]], freeze: str, with_backward: int
) -> None:
    fit(freeze=freeze)
    assert len({module for module, backward in forward_calls if backward}) == with_backward


def test_with_a_frozen_encoder_its_features_are_computed_once(fit: Fit, forward_calls: list[tuple[nn.Module, bool]]) -> None:
    counts = {}
    for freeze in ("encoder", "none"):
        for epochs in (1, 6):
            forward_calls.clear()
            fit(freeze=freeze, epochs=epochs)
            counts[freeze, epochs] = len(forward_calls)
    assert counts["encoder", 1] == counts["encoder", 6]
    assert counts["none", 6] > 3 * counts["none", 1]


def test_features_computed_once_give_what_the_whole_model_gives(fit: Fit, tmp_path: Path) -> None:
    validation = write_tsv(tmp_path / "v.tsv", rows(30, seed=2))
    run = fit(freeze="encoder", head_layers=2, head_size=12, epochs=4, validation=validation, metric="loss")
    losses = [r["loss"] for r in read_history(run.out / "history.jsonl") if r["kind"] == "validation"]
    assert len(set(losses)) == 4
    assert bertwright.load(run.out).evaluate(validation).metrics["loss"] == pytest.approx(min(losses), rel=1e-6)


def test_a_head_of_ones_own_is_saved_and_loaded(fit: Fit) -> None:
    from transformers import AutoModelForSequenceClassification, BertModel

    run = fit(head_layers=2, head_size=16)  # as wide as the encoder: a classifier of that name would fit transformers' too
    held = weights(run.out)
    assert [tuple(held[f"head.{i}.weight"].shape) for i in range(3)] == [(16, 16), (16, 16), (2, 16)]
    assert bertwright.load(run.out).predict("a good film") == run.model.predict("a good film")
    # transformers has no class for it: it opens the encoder, and is not told to start a classifier at random.
    assert json.loads((run.out / "config.json").read_text())["architectures"] == ["BertModel"]
    theirs = BertModel.from_pretrained(run.out)
    assert torch.equal(theirs.pooler.dense.weight, held["bert.pooler.dense.weight"])
    shown = run_command("info", run.out)
    assert shown.code == 0
    assert re.search(r"labels\W+0, 1", shown.out)
    recipe = (run.out / "recipe.toml").read_text()
    for wrong, message in (
        (recipe.replace("head_layers = 2", "head_layers = 0"), r"incomplete .*; is recipe.toml of another model\?"),
        (
            recipe.replace("head_size = 16", "head_size = 8"),
            r"'head.0.weight' has the shape .*recipe.toml, or the number of",
        ),
    ):
        (run.out / "recipe.toml").write_text(wrong)
        with pytest.raises(BertwrightError, match=message):
            bertwright.load(run.out)
    _, found = AutoModelForSequenceClassification.from_pretrained(run.out, output_loading_info=True)
    assert set(found["missing_keys"]) == {"classifier.weight", "classifier.bias"}


def test_a_checkpoint_with_a_head_of_other_names_is_started_from(fit: Fit, tiny_dir: Path, tmp_path: Path) -> None:
    other = shutil.copytree(tiny_dir, tmp_path / "other")
    held = load_file(other / "model.safetensors")
    strange = {"head.dense.weight": torch.ones(16, 16), "head.out.weight": torch.ones(3, 16)}
    save_file(held | strange, other / "model.safetensors")
    assert "head.dense.weight" not in weights(fit(model=other).out)


# -------------------------------------------------------------------------------------------------------------- options


def test_steps_and_epochs_say_how_long_it_takes(fit: Fit) -> None:
    for options, steps, validations in (
        ({"epochs": 2}, 18, [9, 18]),  # 72 rows in batches of 8
        ({"epochs": 1, "batch_size": 100}, 1, [1]),
        ({"epochs": 1, "accumulate": 4}, 3, [3]),
        ({"epochs": None, "steps": 11}, 11, [9, 11]),
    ):
        records = read_history(fit(**options).out / "history.jsonl")
        assert [r["step"] for r in records if r["kind"] == "step"] == list(range(1, steps + 1))
        assert [r["step"] for r in records if r["kind"] == "validation"] == validations


@pytest.mark.filterwarnings("ignore:all training rows have the score")
@pytest.mark.parametrize(
    ("few", "given", "epochs"), [(37, {}, 4), (38, {}, 10), (38, {"epochs": 2}, 2), (38, {"task": "regression"}, 4)]
)
def test_few_rows_are_passed_over_more_often(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few: int, given: dict[str, Any], epochs: int
) -> None:
    monkeypatch.setattr("bertwright.tasks.classification.FEW_ROWS", few)
    train = write_tsv(tmp_path / "t.tsv", rows(37))
    run = fit(train=train, validation=train, batch_size=64, **{"epochs": None} | given)
    assert [record["epoch"] for record in steps(run) if record["kind"] == "validation"] == list(range(1, epochs + 1))
    assert Recipe.read(run.out / "recipe.toml")["epochs"] == epochs  # the file alone repeats the run


def test_accumulated_batches_make_the_step_of_one_large_batch(fit: Fit) -> None:
    # With a large epsilon: Adam would make steps of the rounding errors of gradients that are zero, as that of key.bias.
    options = {"dropout": 0.0, "epochs": 1, "class_weights": "0=3", "adam_epsilon": 1e-2}
    large = weights(fit(batch_size=24, **options).out)
    small = weights(fit(batch_size=8, accumulate=3, **options).out)
    for name, value in large.items():
        torch.testing.assert_close(small[name], value, rtol=1e-3, atol=1e-4, msg=name)


def test_dropout_is_set_everywhere_and_changes_the_training(fit: Fit) -> None:
    runs = {dropout: fit(dropout=dropout) for dropout in (None, 0.0, 0.4)}
    configs = {dropout: json.loads((run.out / "config.json").read_text()) for dropout, run in runs.items()}
    for dropout, config in configs.items():
        expected = 0.1 if dropout is None else dropout
        assert config["hidden_dropout_prob"] == config["attention_probs_dropout_prob"] == expected
    assert len({model_bytes(run) for run in runs.values()}) == 3


def test_patience_stops_a_run_that_gets_no_better(fit: Fit) -> None:
    run = fit(learning_rate=1e-12, patience=2, epochs=9, metric="accuracy")
    epochs = [r["epoch"] for r in read_history(run.out / "history.jsonl") if r["kind"] == "validation"]
    assert epochs == [1, 2, 3]
    assert run.metrics["best_epoch"] == 1
    assert not run.interrupted


@pytest.mark.parametrize("metric", ["accuracy", "f1_macro", "matthews_correlation", "loss"])
def test_the_metric_picks_the_epoch_and_heads_the_report(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metric: str
) -> None:
    def ruinous(step: int, *rest: Any) -> float:
        return 1.0 if step >= 36 else learning_rate(step, *rest)

    monkeypatch.setattr("bertwright.training.loop.learning_rate", ruinous)
    validation = write_tsv(tmp_path / "v.tsv", rows(30, seed=2))
    run = fit(metric=metric, epochs=6, validation=validation)
    found = [r for r in read_history(run.out / "history.jsonl") if r["kind"] == "validation"]
    values = [-r[metric] if metric == "loss" else r[metric] for r in found]
    assert run.metrics["best_epoch"] == values.index(max(values)) + 1 < 6
    assert run.metrics["chosen_by"] == f"validation {metric}"
    assert run.metrics["validation"]["headline"]["metric"] == ("accuracy" if metric == "loss" else metric)
    # What is kept is that epoch's model.
    best = found[run.metrics["best_epoch"] - 1]
    assert run.metrics["validation"]["loss"] == pytest.approx(best["loss"], rel=1e-6)
    assert run.metrics["validation"]["loss"] != pytest.approx(found[-1]["loss"], rel=1e-3)


def test_the_split_keeps_every_labels_share_and_is_told(fit: Fit, tmp_path: Path) -> None:
    train = write_tsv(tmp_path / "t.tsv", [*rows(60, labels=("x", "y")), *rows(40, seed=1, labels=("x", "x"))])
    run, said = log_of(lambda console: fit(train=train, validation_fraction=0.2, split_seed=5, console=console))
    assert said[0] == "80 training rows; 20 set aside for validation (20% of each label, seed 5)"
    assert said[1] == "labels: x (56), y (24)"
    kept = [json.loads(line)["true"] for line in lines_of(run.out / "validation" / "predictions.jsonl")]
    assert Counter(kept) == {"x": 14, "y": 6}


def test_a_validation_file_takes_no_training_rows(fit: Fit, tmp_path: Path) -> None:
    validation = write_tsv(tmp_path / "v.tsv", rows(10, seed=3))
    run, said = log_of(lambda console: fit(validation=validation, console=console))
    assert said[0] == "80 training rows, 10 validation rows"
    assert run.metrics["validation"]["examples"] == 10


def test_too_few_rows_to_set_any_aside(fit: Fit, tmp_path: Path) -> None:
    train = write_tsv(tmp_path / "t.tsv", rows(4))
    with pytest.raises(
        BertwrightError, match=r"t.tsv: 4 rows are too few to set 0.1 of them aside; raise --validation-fraction, or"
    ):
        fit(train=train)
    fit(train=train, validation_fraction=0.5)


def test_texts_that_are_cut_are_counted_and_told_once(fit: Fit, tmp_path: Path) -> None:
    train = write_tsv(tmp_path / "t.tsv", [*rows(18), ("good " * 30, "1"), ("bad " * 31, "0")])
    validation = write_tsv(tmp_path / "v.tsv", [("kind " * 25, "1"), ("cold", "0")])
    with pytest.warns(BertwrightWarning) as told:
        fit(train=train, validation=validation)
    assert [str(warning.message) for warning in told] == [
        "training rows: 2 of 20 texts are longer than --max-length 24 and were cut (17 tokens left out)",
        "validation rows: 1 of 2 texts are longer than --max-length 24 and were cut (3 tokens left out)",
    ]


def test_results_by_source(fit: Fit, tmp_path: Path) -> None:
    table = [(f"s{number % 3}", label, "*", text) for number, (text, label) in enumerate(rows(90))]
    train = write_tsv(tmp_path / "t.tsv", table, header=())
    run = fit(train=train, test=train, columns="source,label,note,sentence", text="sentence", source="source")
    for split, count in (("validation", 9), ("test", 90)):
        found = run.metrics[split]["per_source"]
        assert sum(part["examples"] for part in found.values()) == count
    assert {part["examples"] for part in run.metrics["test"]["per_source"].values()} == {30}
    first = json.loads(lines_of(run.out / "test" / "predictions.jsonl")[0])
    assert (first["source"], first["text"], first["true"]) == ("s0", *rows(90)[0])


def test_pairs_are_learned_as_two_segments(fit: Fit, tmp_path: Path) -> None:
    alike = [{"a": "good film", "b": "great book" if n % 2 else "bad book", "label": n % 2} for n in range(60)]
    run = fit(train=write_jsonl(tmp_path / "p.jsonl", alike), text="a", pair="b", epochs=4)
    answers = run.model.predict(["good film"] * 2, ["great book", "bad book"])
    assert [answer["predicted"] for answer in answers] == ["1", "0"]
    assert bertwright.load(run.out).predict(["good film"] * 2, ["great book", "bad book"]) == answers


def test_tensorboard_events_are_beside_the_model(fit: Fit) -> None:
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="needs the tensorboard extra"
    )
    run = fit(tensorboard=True)
    events = accumulator.EventAccumulator(str(run.out / "tensorboard")).Reload()
    records = read_history(run.out / "history.jsonl")
    losses = [r["loss"] for r in records if r["kind"] == "step"]
    assert [event.value for event in events.Scalars("step/loss")] == pytest.approx(losses)


def test_options_without_effect_are_told(fit: Fit) -> None:
    with pytest.warns(BertwrightWarning, match="--head-size has no effect without --head-layers"):
        fit(head_size=3, steps=1, epochs=None)


# ---------------------------------------------------------------------------------------------------------------- seeds


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(fit: Fit) -> None:
    first, again, other = fit(seed=3), fit(seed=3), fit(seed=4)
    assert model_bytes(first) == model_bytes(again)
    assert model_bytes(first) != model_bytes(other)
    assert steps(first) == steps(again)


def test_of_several_seeds_the_best_is_kept_and_all_are_reported(fit: Fit, tmp_path: Path) -> None:
    test = write_tsv(tmp_path / "test.tsv", rows(40, seed=1))
    options = {"test": test, "epochs": 1, "metric": "loss"}
    together = fit(seed=5, seeds=3, **options)
    alone = [fit(seed=seed, **options) for seed in (5, 6, 7)]
    losses = [run.metrics["validation"]["loss"] for run in alone]
    best = losses.index(min(losses))
    assert together.metrics["seed"] == 5 + best
    assert model_bytes(together) == model_bytes(alone[best])
    assert [summary["seed"] for summary in together.metrics["seeds"]] == [5, 6, 7]
    for split in ("validation", "test"):
        accuracies = [run.metrics[split]["accuracy"] for run in alone]
        assert [summary[split]["accuracy"] for summary in together.metrics["seeds"]] == accuracies
        spread = together.metrics["over_seeds"][split]["accuracy"]
        assert spread["mean"] == pytest.approx(statistics.fmean(accuracies))
        assert spread["standard_deviation"] == pytest.approx(statistics.stdev(accuracies))


# ------------------------------------------------------------------------------------------------- where a run starts from


def test_a_classifier_of_the_same_labels_is_trained_on(fit: Fit, tiny_run: Path) -> None:
    run, said = log_of(lambda console: fit(model=tiny_run, learning_rate=1e-12, epochs=1, console=console))
    assert f"starting from {tiny_run}; every weight loaded" in said
    torch.testing.assert_close(weights(run.out), weights(tiny_run), rtol=1e-6, atol=1e-9)


def test_a_classifier_of_other_labels_or_layers_is_left_out_and_that_is_told(
    fit: Fit, tiny_run: Path, tmp_path: Path
) -> None:
    other = write_tsv(tmp_path / "o.tsv", rows(40, labels=("yes", "no")))
    left_out = "the checkpoint's classifier is of another task or has other labels or layers, and is left out"
    for options in ({"train": other}, {"head_layers": 1}):
        run, said = log_of(lambda console, o=options: fit(model=tiny_run, console=console, **o))  # type: ignore[misc]
        assert left_out in said
    # and the other way: a head of one's own goes on only with the same layers.
    for head_layers, kept in ((1, True), (0, False), (2, False)):
        _, said = log_of(lambda console, n=head_layers: fit(model=run.out, head_layers=n, console=console))  # type: ignore[misc]
        assert (left_out not in said) == kept


def test_random_weights_of_a_published_size(fit: Fit, tiny_dir: Path, tmp_path: Path) -> None:
    options = {"config": "tiny", "tokenizer": tiny_dir / "vocab.txt", "steps": 2}
    train = write_tsv(tmp_path / "t.tsv", rows(40))

    def run(console: Console) -> Run:
        return finetune(QUICK | {"epochs": None}, train=train, out=tmp_path / "random", console=console, **options)

    made, said = log_of(run)
    assert "starting from random weights (tiny)" in said
    config = made.model.model.config
    assert (config.num_hidden_layers, config.hidden_size) == (2, 128)
    assert config.vocab_size == made.model.tokenizer.vocab_size


SIZE = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 40}


def of_own_size(size: dict[str, int], tiny_dir: Path, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A config.json of this size, and the options to train such a model."""
    file = tmp_path / "config.json"
    file.write_text(json.dumps(size))
    train = write_tsv(tmp_path / "t.tsv", rows(40))
    return file, {"train": train, "config": file, "tokenizer": tiny_dir, "out": tmp_path / "o", "console": QUIET}


def test_random_weights_of_a_size_of_ones_own(fit: Fit, tiny_dir: Path, tmp_path: Path) -> None:
    size = SIZE | {"num_hidden_layers": 3}
    file, options = of_own_size(size, tiny_dir, tmp_path)
    config = finetune(QUICK | {"epochs": 1}, **options).model.model.config
    assert {name: getattr(config, name) for name in size} == size
    file.write_text(json.dumps(size | {"vocab_size": 5}))
    with pytest.raises(BertwrightError, match=rf"vocab_size is 5, but {tiny_dir} has \d+ entries; give at least that"):
        finetune(QUICK, overwrite=True, **options)


def test_a_size_without_segments_takes_no_pairs(tiny_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(SIZE | {"type_vocab_size": 1}))
    train = write_jsonl(tmp_path / "t.jsonl", [{"text": "a b", "pair": "c", "label": str(n % 2)} for n in range(20)])
    options: dict[str, Any] = {"train": train, "pair": "pair", "config": tmp_path / "config.json", "tokenizer": tiny_dir}
    with pytest.raises(BertwrightError, match="type_vocab_size is 1; pairs need 2"):
        finetune(out=tmp_path / "o", console=QUIET, **options)
    alone = options | {"pair": None}
    model = finetune(QUICK, out=tmp_path / "m", console=QUIET, epochs=1, **alone).model
    model.recipe = dataclasses.replace(model.recipe, train=None)  # as a model from elsewhere, which may take pairs
    with pytest.raises(BertwrightError, match="type_vocab_size is 1; pairs need 2"):
        model.predict(["a"], ["b"])
    with pytest.raises(BertwrightError, match=r"evaluate takes a file, or rows as read\(\) gives them, not 'a'"):
        model.evaluate(["a", "b"])


def test_a_size_that_changed_is_no_resume(tiny_dir: Path, tmp_path: Path) -> None:
    file, options = of_own_size(SIZE, tiny_dir, tmp_path)

    shares = itertools.count()

    def stop_at_the_third(self: Any, batch: Any, noise: Any) -> Any:
        if next(shares) == 2:
            raise KeyboardInterrupt
        return share(self, batch, noise)

    share = RowObjective.share
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RowObjective, "share", stop_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            finetune(QUICK | {"save_every": 1}, **options)
    file.write_text(json.dumps(SIZE | {"num_attention_heads": 4}))  # the same shapes
    with pytest.raises(BertwrightError, match="the model to start from, are no longer those that this run began with"):
        finetune(resume=True, **options)


def test_a_size_and_a_checkpoint_together_are_refused(fit: Fit, tiny_dir: Path) -> None:
    for options in ({"model": "minilm"}, {"model": tiny_dir}):
        with pytest.raises(BertwrightError, match="--model starts from a checkpoint, --config from random weights"):
            fit(config="tiny", tokenizer=tiny_dir, **options)


def test_a_size_needs_a_vocabulary(tmp_path: Path) -> None:
    train = write_tsv(tmp_path / "t.tsv", rows(40))
    with pytest.raises(BertwrightError, match="needs a vocabulary: give --tokenizer"):
        finetune(train=train, config="tiny", out=tmp_path / "o", console=QUIET)


# -------------------------------------------------------------------------------------------------------- what is written


def without_times(metrics: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metrics.items() if name != "training"}


def test_a_recipe_file_alone_repeats_a_run(fit: Fit, tmp_path: Path) -> None:
    validation = write_tsv(tmp_path / "v.tsv", rows(20, seed=2))
    run = fit(freeze="first:1", class_weights="balanced", schedule="cosine", seed=9, validation=validation)
    again = finetune(Recipe.read(run.out / "recipe.toml"), out=tmp_path / "again", console=QUIET)
    assert model_bytes(again) == model_bytes(run)
    assert without_times(again.metrics) == without_times(run.metrics)
    assert dataclasses.replace(again.model.recipe, out=None) == dataclasses.replace(run.model.recipe, out=None)


def test_everything_that_belongs_to_a_model_is_in_its_directory(fit: Fit, tmp_path: Path) -> None:
    run = fit(test=write_tsv(tmp_path / "test.tsv", rows(10, seed=1)))
    files = {str(path.relative_to(run.out)) for path in run.out.rglob("*") if path.is_file()}
    evaluation = {f"{split}/{name}" for split in ("validation", "test") for name in ("metrics.json", "predictions.jsonl")}
    assert files == evaluation | {
        *("config.json", "model.safetensors", "recipe.toml", "history.jsonl", "metrics.json", "README.md"),
        *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"),
    }
    assert json.loads((run.out / "metrics.json").read_text()) == run.metrics
    assert json.loads((run.out / "test" / "metrics.json").read_text()) == run.metrics["test"]
    card = (run.out / "README.md").read_text()
    assert f"| test | 10 | {run.metrics['test']['accuracy']:.4f} |" in card
    assert "for classification: one label for each text, or for each pair of texts; 2 labels: `0`, `1`." in card
    assert not (run.out.parent / f"{run.out.name}.training").exists()


def test_a_quiet_console_is_told_nothing_and_lines_are_not_broken(fit: Fit, capfd: pytest.CaptureFixture[str]) -> None:
    fit()
    assert capfd.readouterr() == ("", "")
    _, said = log_of(lambda console: fit(epochs=1, console=console))
    assert [line.split()[0] for line in said] == ["72", "labels:", *(said[2].split()[:1]), "starting", "epoch"]
    assert said[-1].startswith("epoch 1: validation loss ")


# ----------------------------------------------------------------------------------------------------------- divergence


def test_a_loss_that_is_no_number_says_when_and_leaves_nothing(fit: Fit, tmp_path: Path) -> None:
    with pytest.raises(BertwrightError, match=r"the loss became (nan|inf) at step \d+ \(epoch 1\)|no longer finite"):
        fit(learning_rate=1e30)
    assert not list(tmp_path.glob("run-*"))


def test_after_a_good_epoch_the_last_good_state_stays_and_can_go_on(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_high(step: int, *rest: Any) -> float:
        return 1e38 if step >= 12 else learning_rate(step, *rest)

    with monkeypatch.context() as patch:
        patch.setattr("bertwright.training.loop.learning_rate", too_high)
        with pytest.raises(BertwrightError) as caught:
            fit(out=tmp_path / "run", epochs=3)
    message = str(caught.value)
    assert "at step 14 (epoch 2); nothing of this step was kept" in message
    go_on = f"go on with: bertwright finetune --resume --out {tmp_path / 'run'}"
    assert message.endswith(f"(the run so far is kept; {go_on})")
    assert not (tmp_path / "run").exists()
    resumed = fit(out=tmp_path / "run", epochs=3, resume=True)
    assert model_bytes(resumed) == model_bytes(fit(epochs=3))
