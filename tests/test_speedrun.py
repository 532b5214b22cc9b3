"""The speedrun from text to table, with a tiny model on a CPU: everything but the numbers."""

from __future__ import annotations

import itertools
import json
import math
import random
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from benchmarks import records, speedrun
from bertwright.errors import BertwrightError
from bertwright.interrupts import Stopping
from bertwright.masked_lm import load_masked_lm
from bertwright.model import BertConfig, Pretraining
from bertwright.training.observers import read_history
from tiny_model import no_plots

NOUNS = ("cat", "dog", "ship", "child", "teacher")
SHAPE = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 128,
}  # fmt: skip


def sentence(draw: random.Random, *, good: bool = True) -> str:
    noun = draw.choice(NOUNS)
    return f"The {noun if good else noun + 's'} sleeps near a {draw.choice(NOUNS)}."


def write_data(folder: Path) -> Path:
    """The layout that the speedrun reads, with next to nothing in it."""
    draw = random.Random(0)
    (folder / "pretrain").mkdir(parents=True)
    documents = ["\n".join(sentence(draw) for _ in range(12)) for _ in range(150)]
    (folder / "pretrain" / "text.txt").write_text("\n\n".join(documents))
    (folder / "blimp").mkdir()
    for uid in ("agreement_a", "agreement_b"):
        rows = [
            {
                "sentence_good": f"The {noun} sleeps.",
                "sentence_bad": f"The {noun}s sleeps.",
                "UID": uid,
                "linguistics_term": "agreement",
                "pairID": str(number),
            }
            for number, noun in enumerate(NOUNS)
        ]
        (folder / "blimp" / f"{uid}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "cola" / "raw").mkdir(parents=True)
    for name, count in (("in_domain_train", 60), ("out_of_domain_dev", 20)):
        lines = [f"x\t{number % 2}\t\t{sentence(draw, good=bool(number % 2))}" for number in range(count)]
        (folder / "cola" / "raw" / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    return folder


def terminated(after: float) -> Callable[[Stopping], bool]:
    """As if SIGTERM came when a run has asked for it so many times: once a step, and once a seed."""
    asked = itertools.count(1)

    def stopping(self: Stopping) -> bool:
        if next(asked) > after:
            self.signal = signal.SIGTERM
        return self.signal != 0

    return stopping


def call(folder: Path, *arguments: object, stop_after: float = math.inf) -> dict[str, Any]:
    """Run the command and return its record; what is set for a GPU and much text is set for next to none."""
    with no_plots(), warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.filterwarnings("ignore", ".*the vocabulary has")
        patch.setattr(sys, "argv", ["speedrun", *map(str, arguments)])
        patch.setattr(records, "RESULTS", folder)
        patch.setattr(speedrun, "VOCABULARY", 256)
        patch.setattr(speedrun, "RATES", (1e-3, 3e-3))
        patch.setattr(speedrun, "COLA", speedrun.COLA | {"seeds": 2, "epochs": 1, "max_length": 40})
        patch.setattr(speedrun, "PRETRAINING", speedrun.PRETRAINING | {"learning_rate": 2e-2})
        patch.setitem(speedrun.BATCH_TOKENS, "cpu", "1024")
        patch.setattr(Stopping, "asked", terminated(stop_after))
        speedrun.main()
    (file,) = folder.glob("speedrun_cpu_*.json")
    results: dict[str, Any] = json.loads(file.read_text())["results"]
    return results


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_data(tmp_path_factory.mktemp("speedrun") / "data")
    (folder / "config.json").write_text(json.dumps(SHAPE))
    return folder


def options(data: Path, keep: Path, time: str = "4s", **more: object) -> Sequence[object]:
    given = {"data": data, "config": data / "config.json", "device": "cpu", "threads": 1, "keep": keep, **more}
    return "--max-time", time, *(part for name, value in given.items() for part in (f"--{name}", value))


@pytest.fixture(scope="module")
def results(data: Path, tiny_dir: Path) -> dict[str, Any]:
    """Stopped after the first step of pretraining, and called again."""
    arguments = options(data, data.parent / "keep", peer=tiny_dir)
    with pytest.raises(SystemExit) as stopped:
        call(data.parent, *arguments, stop_after=0)
    assert stopped.value.code == 128 + signal.SIGTERM
    assert not (data.parent / "keep" / "model").exists()
    return call(data.parent, *arguments)


def test_a_stopped_run_goes_on_and_its_clock_too(results: dict[str, Any], data: Path) -> None:
    steps = [r for r in read_history(data.parent / "keep" / "model" / "history.jsonl") if r["kind"] == "step"]
    assert [r["step"] for r in steps] == list(range(1, len(steps) + 1))
    assert steps[1]["progress"] > 0
    training = results["pretraining"]["training"]
    assert training["steps"] == len(steps) > 2
    assert 4 <= training["seconds_in_all"] < 60
    assert results["passes"] == training["tokens"] / results["corpus"]["tokens"]


def test_it_measures_all_that_it_is_judged_by(
    results: dict[str, Any], data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 0 < results["pretraining"]["heldout"]["mlm_loss"] < 4.5  # 5.3 before the first step
    steps = [r for r in read_history(data.parent / "keep" / "model" / "history.jsonl") if r["kind"] == "step"][-100:]
    last = results["pretraining"]["mlm_loss_of_last_steps"]
    assert last == pytest.approx(sum(r["mlm_loss"] for r in steps) / len(steps))
    assert (results["blimp"]["sets"], results["blimp"]["pairs"], results["blimp"]["score"]) == (2, 10, "pll")
    for measured in (results["cola"], results["cola_of_peer"]):
        means = {float(rate): mean for rate, mean in measured["validation_by_rate"].items()}
        assert list(means) == [1e-3, 3e-3]
        assert means[measured["rate"]] == max(means.values())
        assert [seed["seed"] for seed in measured["seeds"]] == [0, 1]
        mean = sum(seed["test"] for seed in measured["seeds"]) / 2
        assert measured["over_seeds"]["test"]["mean"] == pytest.approx(mean)
    Console(width=100).print(speedrun.table_of(results))
    shown = capsys.readouterr().out
    assert all(str(number) in shown for number in (81.2, 69.5, 47.5, 57.0, 27.8))
    assert f"{results['blimp']['accuracy']:.1%}".rstrip("%") in shown


def test_the_model_has_the_shape_asked_for(results: dict[str, Any], data: Path) -> None:
    model = load_masked_lm(data.parent / "keep" / "model", device="cpu").model
    assert results["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert {name: getattr(model.config, name) for name in SHAPE} == SHAPE
    assert model.config.hidden_dropout_prob == 0


def test_the_operations_are_those_that_pretraining_counts(results: dict[str, Any], data: Path) -> None:
    training = results["pretraining"]["training"]
    counted = training["flops"] / training["tokens"]
    config = load_masked_lm(data.parent / "keep" / "model", device="cpu").model.config
    assert speedrun.flops_per_token(config, 0, 0.15) < counted < speedrun.flops_per_token(config, 128, 0.32)


def test_finished_stages_are_kept_and_only_those_of_the_same_settings(
    results: dict[str, Any], data: Path, tiny_dir: Path
) -> None:
    keep = data.parent / "keep"
    before = {path: path.stat().st_mtime_ns for path in keep.rglob("*.json") if path.name != "setting.json"}
    assert call(data.parent, *options(data, keep, peer=tiny_dir)) == results
    assert before == {path: path.stat().st_mtime_ns for path in before}
    refused = "holds a run with other settings, --data or --tokens; choose another --keep"
    with pytest.raises(SystemExit, match=refused):
        call(data.parent, *options(data, keep, time="5s", peer=tiny_dir))


def test_finished_stages_are_not_those_of_another_text(
    results: dict[str, Any], data: Path, tiny_dir: Path, tmp_path: Path
) -> None:
    keep = data.parent / "keep"
    refused = "holds a run with other settings, --data or --tokens; choose another --keep"
    with pytest.raises(SystemExit, match=refused):
        call(data.parent, *options(data, keep, peer=tiny_dir, tokens=keep / "tokens"))
    shutil.copytree(data, tmp_path / "data")
    with pytest.raises(SystemExit, match=refused):
        call(data.parent, *options(tmp_path / "data", keep, peer=tiny_dir, config=data / "config.json"))


@pytest.mark.parametrize("steps", [0, 2])
def test_a_stopped_fine_tuning_goes_on(results: dict[str, Any], data: Path, tiny_dir: Path, steps: int) -> None:
    """In the first of its two seeds, before there is a model, and after it, when there is one. Each takes two steps."""
    keep = data.parent / "keep"
    arguments = options(data, keep, peer=tiny_dir)
    shutil.rmtree(keep / "cola" / "0.003")
    with pytest.raises(SystemExit) as stopped:
        call(data.parent, *arguments, stop_after=steps)
    assert stopped.value.code == 128 + signal.SIGTERM
    assert (keep / "cola" / "0.003").exists() == (steps == 2)
    assert (keep / "cola" / "0.003.training").exists()
    assert call(data.parent, *arguments)["cola"] == results["cola"]


def test_prepared_tokens_take_the_place_of_the_text(results: dict[str, Any], data: Path, tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    without = tmp_path / "data"
    shutil.copytree(data, without)
    shutil.rmtree(without / "pretrain")
    arguments = options(without, tmp_path / "keep", time="1s", tokens=data.parent / "keep" / "tokens")
    again = call(tmp_path / "records", *arguments)
    assert again["corpus"] == results["corpus"]
    assert again["cola_of_peer"] is None
    assert not (tmp_path / "keep" / "vocabulary").exists()


def test_the_model_of_the_speedrun_has_at_most_30_million_parameters() -> None:
    config = speedrun.sized(str(speedrun.CONFIG), speedrun.VOCABULARY)
    with torch.device("meta"):
        names = Pretraining(config).state_dict()
    assert 27e6 < sum(tensor.numel() for tensor in names.values()) == speedrun.parameters(config) <= 30e6
    assert speedrun.VOCABULARY % 64 == config.hidden_size % config.num_attention_heads == 0
    # Written out for 12 layers of 384, sequences of 128, and a masking rate of 0.225 on the way from 0.3 to 0.15.
    layer, read = 12 * 384**2 + 2 * 384 * 128, 0.225
    each = 6 * (11 * layer + (2 + 10 * read) * 384**2 + 2 * 384 * 128 + read * 384 * (384 + 16384))
    assert speedrun.flops_per_token(config, 128, read) == pytest.approx(each)
    assert speedrun.expected_tokens(config, 1200) == pytest.approx(3.5e9, rel=0.01)


def test_a_larger_model_is_refused() -> None:
    assert speedrun.parameters(BertConfig.preset("medium", 16384)) > 30e6
    with pytest.raises(BertwrightError, match="--config medium: 34,"):
        speedrun.sized("medium", 16384)
