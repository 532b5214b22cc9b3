"""Pretraining from end to end on a tiny corpus: it learns, it can be killed at any moment, and processes change nothing."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from rich.console import Console

import bertwright
from bertwright import checkpoint
from bertwright.data.packing import PackedBatch, Rows, TokenTable
from bertwright.data.shards import TokenCorpus
from bertwright.errors import BertwrightError, BertwrightWarning
from bertwright.interrupts import Stopped
from bertwright.machine import Machine
from bertwright.model import BertConfig, Pretraining
from bertwright.noise import Noise
from bertwright.pretraining.objective import PretrainingObjective
from bertwright.pretraining.run import PretrainingRun, pretrain
from bertwright.training import processes
from bertwright.training.observers import History, read_history
from bertwright.training.options import flag
from bertwright.training.pretraining_recipe import PretrainingRecipe
from bertwright.training.processes import Processes
from bertwright.workspace import begun_by, resume_command
from command_line import run
from tiny_corpus import write_tiny_corpus
from tiny_model import QUICK, no_plots, rows, write_tsv

QUIET = Console(quiet=True)
SHORT: dict[str, Any] = {
    "max_length": "32",
    "batch_tokens": "512",
    "learning_rate": 1e-2,
    "steps": 12,
    "validate_every": 5,
    "heldout_tokens": 300,
    "threads": 1,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def corpus(tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_corpus(tmp_path_factory.mktemp("corpus") / "tokens", tiny_dir)


@pytest.fixture(scope="module")
def config(tiny_dir: Path) -> str:
    return str(tiny_dir / "config.json")


def made(corpus: Path, out: Path, **options: Any) -> PretrainingRun:
    with no_plots():
        result = pretrain(corpus, SHORT | options, out=out, console=QUIET)
    assert result is not None
    return result


def history_of(out: Path) -> list[dict[str, Any]]:
    """All that must not depend on the machine's pace."""
    pace = ("seconds", "tokens_per_second", "fraction_of_peak")
    return [{k: v for k, v in record.items() if k not in pace} for record in read_history(out / "history.jsonl")]


@pytest.fixture(scope="module")
def undisturbed(corpus: Path, config: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run from random weights; tests only read it."""
    return made(corpus, tmp_path_factory.mktemp("undisturbed") / "run", config=config).out


# --- what it makes ----------------------------------------------------------------------------------------------------


def test_it_learns_masked_words_and_next_sentences(corpus: Path, config: str, tmp_path: Path) -> None:
    options = SHORT | {"steps": 150, "batch_tokens": "1024", "dropout": 0.0}
    result = pretrain(corpus, options, config=config, out=tmp_path / "run", console=QUIET)
    assert result is not None
    first, *_, last = [record for record in read_history(result.out / "history.jsonl") if record["kind"] == "validation"]
    assert last["mlm_loss"] < first["mlm_loss"] - 0.4
    assert last["mlm_accuracy"] > 0.2, "within a subject one of five words"
    assert last["nsp_accuracy"] > 0.65, "sentences of another subject are told from the next ones"
    assert result.metrics["heldout"]["mlm_loss"] == last["mlm_loss"]
    training = result.metrics["training"]
    assert (training["steps"], training["processes"]) == (150, 1)
    assert 0 < training["fraction_of_peak"] < 1
    steps = [record for record in read_history(result.out / "history.jsonl") if record["kind"] == "step"]
    assert all(r["tokens_per_second"] == pytest.approx(r["tokens"] / r["seconds"]) for r in steps)
    assert sum(r["fraction_of_peak"] * r["seconds"] for r in steps) / training["seconds"] == pytest.approx(
        training["fraction_of_peak"]
    )
    wanted = {"README.md", "config.json", "history.jsonl", "metrics.json", "model.safetensors", "pretraining.toml"}
    assert wanted | {"training.png", "vocab.txt", "tokenizer.json"} <= {path.name for path in result.out.iterdir()}
    assert not result.out.with_name("run.training").exists()
    kept = json.loads((result.out / "config.json").read_text())
    assert kept["hidden_dropout_prob"] == kept["attention_probs_dropout_prob"] == 0, "fine-tuning goes on without it"


def test_transformers_opens_it_and_has_the_same_loss(undisturbed: Path) -> None:
    oracle, loading = transformers.BertForPreTraining.from_pretrained(undisturbed, output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    held = checkpoint.read(undisturbed)
    model = Pretraining(BertConfig.from_dict(held.config, ""))
    assert not checkpoint.load_into(model, held.tensors, where="").new
    table = TokenTable([[2, 9, 4, 7, 3], [2, 4, 4, 3, 8, 8, 3]], [[0] * 5, [0, 0, 0, 0, 1, 1, 1]])
    batch = table.pack(np.arange(2))
    targets_M = torch.tensor([9, 8])
    loss, _, logits_B2 = model.eval()(batch, Rows(torch.tensor([1, 9]), (1, 1)), None, targets_M)
    with torch.no_grad():
        given = [oracle.eval()(input_ids=ids, token_type_ids=types) for ids, types in (
            (batch.input_ids_T[None, :5], batch.token_type_ids_T[None, :5]),
            (batch.input_ids_T[None, 5:], batch.token_type_ids_T[None, 5:]),
        )]  # fmt: skip
    words_MV = torch.stack([given[0].prediction_logits[0, 1], given[1].prediction_logits[0, 4]])
    torch.testing.assert_close(loss, F.cross_entropy(words_MV, targets_M, reduction="sum"), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logits_B2, torch.cat([g.seq_relationship_logits for g in given]), rtol=1e-5, atol=1e-5)


def test_step_two_starts_from_it(undisturbed: Path, tmp_path: Path) -> None:
    train = write_tsv(tmp_path / "train.tsv", rows(80))
    run = bertwright.finetune(QUICK, model=str(undisturbed), train=train, out=tmp_path / "fine", console=QUIET)
    assert run.metrics["validation"]["examples"] > 0


def test_it_goes_on_from_a_checkpoint_with_another_objective(corpus: Path, tiny_dir: Path, tmp_path: Path) -> None:
    shown = run(
        "pretrain", corpus, "--model", tiny_dir, "--objective", "mlm", "--out", tmp_path / "run",
        *(part for name, value in (SHORT | {"steps": 3}).items() for part in (flag(name), value)),
    )  # fmt: skip
    assert shown.code == 0, shown.err
    assert "freshly initialised: cls (7 tensors)" in shown.err
    assert "NSP" not in shown.out
    before, after = (checkpoint.read(path).tensors for path in (tiny_dir, tmp_path / "run"))
    assert torch.equal(before["pooler.dense.weight"], after["pooler.dense.weight"]), "it has no part in the loss"
    assert not torch.equal(before["embeddings.word_embeddings.weight"], after["embeddings.word_embeddings.weight"])


@pytest.mark.parametrize(
    "options",
    [
        {"objective": "mlm+sop"},
        {"whole_words": True, "masking_rate": "0.3:0.15"},
        {"optimizer": "muon", "schedule": "trapezoid"},
        {"average": 0.9, "schedule": "cosine"},
        {"precision": "bfloat16"},
        {"recompute": True},
        {"max_length": "16:0.5,40:0.5", "batch_tokens": "256:0.5,512:0.5"},
        {"accumulate": 3, "clip": 0.0},
        {"steps": None, "epochs": 1},
    ],
    ids=str,
)
def test_every_choice_trains(corpus: Path, config: str, tmp_path: Path, options: dict[str, Any]) -> None:
    result = made(corpus, tmp_path / "run", config=config, **options)
    steps = [record for record in read_history(result.out / "history.jsonl") if record["kind"] == "step"]
    assert steps[-1]["loss"] < steps[0]["loss"]
    assert PretrainingRecipe.of(PretrainingRecipe.read(result.out / "pretraining.toml")).to_toml()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of what it does itself
def test_compiled_layers_have_the_same_losses(corpus: Path, config: str, tmp_path: Path) -> None:
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    plain = made(corpus, tmp_path / "plain", config=config, steps=4, validate_every=2)
    torch.compiler.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    quick = made(corpus, tmp_path / "quick", config=config, steps=4, validate_every=2, compile=True)
    assert counters["frames"]["ok"] > 0
    losses = [[record["loss"] for record in history_of(one.out)] for one in (plain, quick)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_more_than_99_hundredths_of_the_budget_are_real_tokens_and_all_that_is_computed(
    corpus: Path, config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[int] = []
    forward = Pretraining.forward

    def noted(self: Pretraining, batch: PackedBatch, *given: Any) -> Any:
        if given[1] is not None:  # noise: a step, not a validation
            computed.append(batch.input_ids_T.numel())
            assert int((batch.input_ids_T == 0).sum()) == 0, "no [PAD]"
        return forward(self, batch, *given)

    monkeypatch.setattr(Pretraining, "forward", noted)
    result = made(corpus, tmp_path / "run", config=config, batch_tokens="4096", steps=2)
    tokens = [record["tokens"] for record in read_history(result.out / "history.jsonl") if record["kind"] == "step"]
    assert computed == tokens
    assert all(0.99 * 4096 < count <= 4096 for count in tokens)


def test_the_average_of_the_weights_is_what_is_written_and_measured(corpus: Path, config: str, tmp_path: Path) -> None:
    plain = made(corpus, tmp_path / "plain", config=config)
    averaged = made(corpus, tmp_path / "averaged", config=config, average=0.8)
    steps = [[r["loss"] for r in history_of(run.out) if r["kind"] == "step"] for run in (plain, averaged)]
    assert steps[0] == steps[1], "averaging changes no step"
    assert plain.metrics["heldout"]["loss"] != averaged.metrics["heldout"]["loss"]


def test_a_time_budget_ends_the_run_on_time_with_the_schedule_done(corpus: Path, config: str, tmp_path: Path) -> None:
    began = time.monotonic()
    result = made(corpus, tmp_path / "run", config=config, steps=None, max_time="3s", validate_every=20)
    took = time.monotonic() - began
    steps = [record for record in read_history(result.out / "history.jsonl") if record["kind"] == "step"]
    assert 2.8 <= result.metrics["training"]["seconds_in_all"] < 4.5
    assert took < 20
    rates = [record["learning_rate"] for record in steps]
    peak = rates.index(max(rates))
    assert 0 < peak < len(rates) / 2
    assert rates[-1] < 0.2 * max(rates)
    assert [record["progress"] for record in steps] == sorted(record["progress"] for record in steps)


# --- any batch again --------------------------------------------------------------------------------------------------


def test_any_batch_is_made_again_from_seed_and_step(corpus: Path, config: str) -> None:
    text = TokenCorpus.open(corpus), TokenCorpus.open(corpus, "heldout")
    recipe = PretrainingRecipe.of(SHORT, {"config": config, "accumulate": 2})
    model = Pretraining(BertConfig.from_dict(json.loads(Path(config).read_text()), ""))

    def objective() -> PretrainingObjective:
        return PretrainingObjective(model, *text, recipe, Machine(torch.device("cpu"), "float32"))

    def bits(one: PretrainingObjective, step: int) -> list[tuple[Any, ...]]:
        ready = [one.prepare(planned) for planned in one.batches(step, step / 12)]
        return [
            (r.batch.input_ids_T.tolist(), r.rows.index_R.tolist(), r.targets_M.tolist(), r.labels_B.tolist()) for r in ready
        ]

    whole = objective()
    wanted = [bits(whole, step) for step in range(12)]
    assert len({str(batches) for batches in wanted}) == 12
    for step in (0, 5, 11):
        again = objective()
        for earlier in range(step):
            again.batches(earlier, earlier / 12)  # planned, not read: what lies before costs nothing
        assert bits(again, step) == wanted[step]


def test_steps_stay_cut_as_they_were_on_another_number_of_processes(corpus: Path, config: str) -> None:
    text = TokenCorpus.open(corpus), TokenCorpus.open(corpus, "heldout")
    recipe = PretrainingRecipe.of(SHORT, {"config": config})
    model = Pretraining(BertConfig.from_dict(json.loads(Path(config).read_text()), ""))

    def objective(world: int) -> PretrainingObjective:
        return PretrainingObjective(model, *text, recipe, Machine(torch.device("cpu"), "float32"), Processes(0, world))

    def instances(one: PretrainingObjective) -> list[list[list[int]]]:
        return [[planned.batch.which.tolist() for planned in one.batches(step, 0.5)] for step in range(3, 6)]

    begun = objective(4)
    for step in range(3):
        assert len(begun.batches(step, 0.5)) == 4
    position = begun.position()
    wanted = instances(begun)
    for world in (1, 2, 4):
        again = objective(world)
        again.seek(position)
        assert instances(again) == wanted
        assert again.position() == begun.position()
    other = objective(3)
    with pytest.warns(BertwrightWarning, match="cut for 4 processes, cannot be dealt out to 3: they are cut anew"):
        other.seek(position)
    assert len(other.batches(3, 0.5)) == 3
    assert (position["pass"], other.position()["pass"]) == (0, 1)


def test_no_two_batches_of_a_run_share_a_dropout_mask() -> None:
    draws = {tuple(Noise(0, step, None, batch).mask((32,), 0.5).tolist()) for step in range(8) for batch in range(8)}
    assert len(draws) == 64


# --- stopped, killed, resumed -----------------------------------------------------------------------------------------


def arguments(corpus: Path, out: Path, config: str, **options: Any) -> list[str]:
    typed = [str(part) for name, value in (SHORT | options).items() for part in (flag(name), value)]
    return ["-m", "bertwright", "pretrain", str(corpus), "--config", config, "--out", str(out), *typed]


def same(one: Path, other: Path) -> None:
    assert history_of(one) == history_of(other)
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_after_a_step_and_it_goes_on_to_the_same_bits(
    corpus: Path, config: str, tmp_path: Path, undisturbed: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = stopped_at(7, corpus, config, tmp_path / "run", monkeypatch, number)
    assert "go on with: bertwright pretrain --resume" in str(stopped)
    assert stopped.signal == number
    assert not (tmp_path / "run").exists()
    assert run("pretrain", "--resume", "--out", tmp_path / "run").code == 0
    same(tmp_path / "run", undisturbed)


def only_with_all_kills() -> None:
    if not os.environ.get("BERTWRIGHT_ALL_KILLS"):
        pytest.skip("takes minutes; run it with BERTWRIGHT_ALL_KILLS=1")


def killed_run(command: list[str], out: Path, seed: int, most: int = 25, longest: float = 2.5, *, late: bool = False) -> int:
    """Run the command, killing it and all its processes again and again, ``most`` times at most; return how often.

    The first kill comes at a random moment after the beginning (``late``: after a state), the others after a new state, at
    most ``longest`` seconds after it; each time the run must go on from the newest state that the kill before has left.
    """
    draw = random.Random(seed)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    folder = out.with_name(out.name + ".training")
    kills = 0

    def states() -> set[int]:
        return {int(state.name.removeprefix("step-")) for state in folder.glob("seed-0/states/step-*")}

    while True:
        resume = ["--resume"] if (folder / "pretraining.toml").is_file() else []
        saved = states()
        with subprocess.Popen(
            [sys.executable, *command, *resume], env=environment, start_new_session=True, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            assert process.stderr is not None
            said, begun = "", False
            # Wait for it to work, so that the kill comes in a step or a saving and not while Python starts.
            for line in process.stderr:
                said += line
                if begun := ("going on after step" if saved else "tokens in") in line:
                    break
            while begun and (kills or late) and states() <= saved and process.poll() is None:
                time.sleep(0.01)
            try:
                process.wait(timeout=draw.uniform(0.1, longest) if begun and kills < most else None)
            except subprocess.TimeoutExpired:
                children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False)
                for number in (process.pid, *map(int, children.stdout.split())):  # torchrun's have sessions of their own
                    os.kill(number, signal.SIGKILL)
                kills += 1
            else:
                assert process.returncode == 0, said
            assert not saved or f"pretraining: going on after step {max(saved):,}\n" in said
        if out.exists() and not folder.exists():  # killed in the last lines of its report it is done too
            return kills


def test_killed_at_random_moments_it_goes_on_to_the_same_bits(corpus: Path, config: str, tmp_path: Path) -> None:
    options = {"steps": 30, "save_every": 1, "validate_every": 25}
    wanted = made(corpus, tmp_path / "wanted", config=config, **options)
    kills = killed_run(arguments(corpus, tmp_path / "killed", config, **options), tmp_path / "killed", seed=0, most=4)
    assert kills > 0
    same(tmp_path / "killed", wanted.out)


TWO = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.mark.slow
def test_two_processes_that_are_killed_go_on_to_the_same_bits(corpus: Path, config: str, tmp_path: Path) -> None:
    """Once, behind a state: that the run went on from it, and did not start over, is held against what it says."""
    options = {"steps": 60, "save_every": 1, "validate_every": 25, "accumulate": 2}
    wanted, killed = tmp_path / "wanted", tmp_path / "killed"
    assert killed_run([*TWO, *arguments(corpus, wanted, config, **options)], wanted, seed=0, most=0) == 0
    command = [*TWO, *arguments(corpus, killed, config, **options)]
    assert killed_run(command, killed, seed=0, most=1, longest=0.3, late=True) == 1
    same(killed, wanted)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("processes", [1, 2])
def test_killed_twenty_times_with_one_process_and_with_two(
    corpus: Path, config: str, tmp_path: Path, processes: int
) -> None:
    only_with_all_kills()
    options = {"steps": 600, "save_every": 1, "validate_every": 100, "accumulate": 2}
    torchrun = TWO if processes > 1 else []
    wanted = tmp_path / "wanted"
    undisturbed = [*torchrun, *arguments(corpus, wanted, config, **options)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *undisturbed], env=environment, check=True, capture_output=True)
    kills, number = 0, 0
    while kills < 20:
        out = tmp_path / f"killed-{number}"
        kills += killed_run([*torchrun, *arguments(corpus, out, config, **options)], out, seed=number)
        same(out, wanted)
        number += 1


def test_a_damaged_state_falls_back_to_the_one_before(
    corpus: Path, config: str, tmp_path: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_at(7, corpus, config, tmp_path / "run", monkeypatch)
    newest = sorted((tmp_path / "run.training" / "seed-0" / "states").iterdir())[-1]
    (newest / "weights.safetensors").write_bytes(b"half")
    with pytest.warns(BertwrightWarning, match=f"{newest.name}: damaged state"):
        pretrain(None, resume=True, out=tmp_path / "run", console=QUIET)
    same(tmp_path / "run", undisturbed)


def stopped_at(
    step: int,
    corpus: Path,
    config: str,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int = signal.SIGTERM,
) -> Stopped:
    """Begin a run that gets a signal after a step."""
    record = History.record

    def signalled(self: History, one: dict[str, Any]) -> None:
        record(self, one)
        if one["kind"] == "step" and one["step"] == step:
            signal.raise_signal(number)

    with monkeypatch.context() as patch:
        patch.setattr(History, "record", signalled)
        with pytest.raises(Stopped) as caught:
            made(corpus, out, config=config)
    return caught.value


# --- processes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shard", [False, True], ids=["replicated", "sharded"])
def test_two_processes_train_as_one(corpus: Path, config: str, tmp_path: Path, shard: bool) -> None:
    options = {"accumulate": 2, "steps": 8, "validate_every": 4, "clip": 0.5}
    alone = made(corpus, tmp_path / "alone", config=config, **options)
    command = arguments(corpus, tmp_path / "two", config, **options) + (["--shard"] if shard else [])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *command],
        env=environment, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("written to") == 1, "one process reports"
    one, two = history_of(alone.out), history_of(tmp_path / "two")
    assert [(r["kind"], r["step"]) for r in one] == [(r["kind"], r["step"]) for r in two]
    for a, b in zip(one, two, strict=True):
        for name in ("loss", "mlm_loss", "nsp_loss", "mlm_accuracy", "nsp_accuracy"):
            rel = 2e-4 if shard else 2e-5
            assert b[name] == pytest.approx(a[name], rel=rel, abs=1e-5), (name, a["step"])
        assert a.get("tokens") == b.get("tokens")
    weights = [checkpoint.read(path).tensors for path in (alone.out, tmp_path / "two")]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-2, atol=2e-3, msg=name)


@pytest.mark.slow
def test_torchrun_starts_a_failed_run_again_and_it_goes_on(corpus: Path, config: str, tmp_path: Path) -> None:
    options = {"accumulate": 2, "steps": 16, "save_every": 1, "validate_every": 8}
    wanted = made(corpus, tmp_path / "wanted", config=config, **options)
    again = ["--nproc-per-node", "2", "--max-restarts", "3"]
    # It is to go on from the state also where it was told to replace what is there.
    with torchrun(again, [*arguments(corpus, tmp_path / "two", config, **options), "--overwrite"]) as process:
        wait_for_a_state(tmp_path / "two")
        workers = subprocess.run(
            ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
        ).stdout.split()
        os.kill(int(workers[-1]), signal.SIGKILL)
        _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said[-3000:]
    assert "going on after step" in said
    one, two = history_of(wanted.out), history_of(tmp_path / "two")
    assert [r["step"] for r in one] == [r["step"] for r in two]
    assert two[-1]["loss"] == pytest.approx(one[-1]["loss"], rel=1e-2)


@pytest.mark.slow
def test_a_run_goes_on_when_a_node_joins_which_torchrun_counts_as_no_restart(
    corpus: Path, config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without it, torchrun's store keeps its first address from a node that joins later.
    monkeypatch.setenv("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    options = {"accumulate": 2, "steps": 10**6, "max_time": "30s", "save_every": 10, "validate_every": 1000}
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    meeting = ["--nnodes", "1:2", "--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{port}", "--rdzv-id", "mine"]
    node = [*meeting, "--rdzv-conf", "last_call_timeout=1", "--monitor-interval", "0.1", "--nproc-per-node", "1"]
    command = arguments(corpus, tmp_path / "two", config, **options)
    with torchrun(node, command) as first:
        wait_for_a_state(tmp_path / "two")
        with torchrun(node, command) as second:
            said = first.communicate(timeout=300)[1] + second.communicate(timeout=300)[1]
    assert (first.returncode, second.returncode) == (0, 0), said[-3000:]
    assert "going on after step" in said
    assert "now on 2" in said
    steps = [record["step"] for record in history_of(tmp_path / "two") if record["kind"] == "step"]
    assert steps == list(range(1, len(steps) + 1))


def torchrun(options: list[str], command: list[str]) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *options, *command], env=environment, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for_a_state(out: Path) -> None:
    deadline = time.monotonic() + 120
    while not any(out.with_name(out.name + ".training").glob("seed-0/states/step-*")):
        assert time.monotonic() < deadline
        time.sleep(0.02)


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "--config starts from random weights, --model from a checkpoint: give one of them"),
        ({"config": "mini", "model": "minilm"}, "--config starts from random weights, --model from a checkpoint"),
        ({"config": "tinny"}, "no preset 'tinny'; did you mean 'tiny'?"),
        ({"config": "none.json"}, "none.json: cannot read this config"),
        ({"config": "tiny", "max_length": "1024"}, "--max-length 1024 is more than the 512 positions"),
        ({"config": "tiny", "batch_tokens": "16"}, "less than one sequence of 32; raise --batch-tokens"),
        ({"config": "tiny", "shard": True}, "--shard spreads a model over processes; start several with torchrun"),
        ({"config": "tiny", "precision": "float16"}, "--precision float16: a CPU has no fast products of it"),
        ({"config": "tiny", "max_time": "now"}, "--max-time is 'now'"),
        ({"config": "tiny", "masking_rate": "2"}, "--masking-rate is '2'"),
        ({"config": "tiny", "objective": "clm"}, "--objective is 'clm'; did you mean 'mlm'?"),
        ({"config": "tiny", "learning_rate": 1e30, "steps": 9}, "Try a lower --learning-rate"),
    ],
    ids=str,
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    corpus: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    typed = [
        part
        for name, value in (SHORT | options).items()
        for part in ((flag(name),) if value is True else (flag(name), value))
    ]
    assert message in run("pretrain", corpus, "--out", tmp_path / "run", *typed).error
    assert list(tmp_path.iterdir()) == []


def test_no_corpus_is_told(tmp_path: Path, config: str) -> None:
    assert "no such directory" in run("pretrain", tmp_path / "none", "--config", config, "--out", tmp_path / "run").error
    assert "the corpus is missing" in run("pretrain", "--config", config, "--out", tmp_path / "run").error


def test_a_corpus_without_anything_to_measure_on_is_refused_before_the_work(tiny_dir: Path, tmp_path: Path) -> None:
    corpus = write_tiny_corpus(tmp_path / "tokens", tiny_dir, heldout=0)
    shown = run("pretrain", corpus, "--config", "tiny", "--device", "cpu", "--out", tmp_path / "run")
    assert "its part 'heldout' holds no text; prepare it with a larger --heldout" in shown.error
    assert [path.name for path in tmp_path.iterdir()] == ["tokens"]


def test_a_resume_that_ends_before_where_it_stands_is_measured_there(
    corpus: Path, config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_at(7, corpus, config, tmp_path / "run", monkeypatch)
    with pytest.warns(BertwrightWarning, match="--steps is 3"):
        result = pretrain(None, resume=True, steps=3, out=tmp_path / "run", console=QUIET)
    assert result is not None
    assert result.metrics["training"]["steps"] == 7
    last = [r for r in read_history(result.out / "history.jsonl") if r["kind"] == "validation"][-1]
    assert (last["step"], last["loss"]) == (7, result.metrics["heldout"]["loss"])


def test_steps_take_the_place_of_epochs_and_epochs_that_of_steps(
    corpus: Path, config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_at(7, corpus, config, tmp_path / "run", monkeypatch)
    said = run("pretrain", "--resume", "--epochs", "2", "--out", tmp_path / "run", "--steps", "8")
    assert (said.code, "--steps is 8 from here on" in said.err, "has no effect" in said.err) == (0, True, True)
    stopped_at(7, corpus, config, tmp_path / "other", monkeypatch)
    said = run("pretrain", "--resume", "--epochs", "2", "--out", tmp_path / "other")
    assert (said.code, "--epochs is 2 from here on" in said.err, "has no effect" in said.err) == (0, True, False)
    stopped_at(7, corpus, config, tmp_path / "third", monkeypatch)
    said = run("pretrain", "--resume", "--epochs", "1", "--out", tmp_path / "third")  # which is the default
    assert (said.code, "--steps is not set from here on" in said.err) == (0, True)
    recipe = tmp_path / "run" / "pretraining.toml"
    for more in (["--epochs", "1"], ["--steps", ""]):
        typed = ("pretrain", corpus, "--recipe", recipe, *more, "--out", tmp_path / "again", "--overwrite")
        said = run(*typed)
        assert (said.code, "has no effect" in said.err) == (0, False)


def test_a_resumed_run_goes_on_where_it_stood(
    corpus: Path, config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_at(7, corpus, config, tmp_path / "run", monkeypatch)
    begun: list[int] = []
    begin = History.begin

    def noted(self: History, step: int, total: int | None) -> None:
        begun.append(step)
        begin(self, step, total)

    monkeypatch.setattr(History, "begin", noted)
    pretrain(None, resume=True, out=tmp_path / "run", console=QUIET)
    assert begun == [7]


def test_a_resumed_run_meets_on_the_device_that_it_began_on(
    corpus: Path, config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_at(7, corpus, config, tmp_path / "run", monkeypatch)
    asked: list[str] = []
    together = processes.together

    def noted(device: str) -> contextlib.AbstractContextManager[Processes]:
        asked.append(device)
        return together(device)

    monkeypatch.setattr(processes, "together", noted)
    pretrain(None, resume=True, out=tmp_path / "run", console=QUIET)
    assert asked == ["cpu"]


def test_how_to_go_on_is_told_in_the_words_of_what_started_it(monkeypatch: pytest.MonkeyPatch) -> None:
    again = "pretrain --resume --out 'my run'"
    assert resume_command("pretrain", Path("my run")) == f"bertwright {again}"
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "8", "GROUP_WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    assert resume_command("pretrain", Path("my run")) == f"torchrun --nproc-per-node 8 -m bertwright {again}"
    monkeypatch.setenv("GROUP_WORLD_SIZE", "4")
    meeting = "--nnodes 4 --rdzv-backend c10d --rdzv-endpoint HOST:PORT"
    assert resume_command("pretrain", Path("my run")) == f"torchrun {meeting} --nproc-per-node 8 -m bertwright {again}"


def test_only_the_launch_that_began_a_run_goes_on_with_it(
    corpus: Path, config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_at(7, corpus, config, tmp_path / "run", monkeypatch)
    recipe = PretrainingRecipe.of({"out": str(tmp_path / "run")})
    assert not begun_by(recipe, "")
    (tmp_path / "run.training" / "launch").write_text("one")
    assert begun_by(recipe, "one")
    assert not begun_by(recipe, "two")


def test_another_vocabulary_is_refused(corpus: Path, tmp_path: Path, minilm_dir: Path) -> None:
    shown = run("pretrain", corpus, "--model", minilm_dir, "--out", tmp_path / "run")
    assert "made with another tokenizer than" in shown.error


def test_a_resume_refuses_what_changed(
    corpus: Path, config: str, tiny_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_at(5, corpus, config, tmp_path / "run", monkeypatch)
    again = ("pretrain", "--resume", "--out", tmp_path / "run")
    assert "--config is 'mini', but the run began with" in run(*again, "--config", "mini").error
    assert "--objective is 'mlm', but the run began with 'mlm+nsp'" in run(*again, "--objective", "mlm").error
    saved = {path: path.read_bytes() for path in corpus.rglob("*") if path.is_file()}
    other = write_tiny_corpus(tmp_path / "other", tiny_dir, seed=1)
    try:
        for path in other.rglob("*"):
            if path.is_file():
                (corpus / path.relative_to(other)).write_bytes(path.read_bytes())
        assert "no longer those that this run began with" in run(*again).error
    finally:
        for path, content in saved.items():
            path.write_bytes(content)
    assert run(*again).code == 0


def test_a_corpus_that_lies_elsewhere_by_now_is_the_same_corpus(
    tiny_dir: Path, config: str, tmp_path: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = write_tiny_corpus(tmp_path / "tokens", tiny_dir)
    stopped_at(7, corpus, config, tmp_path / "run", monkeypatch)
    moved = corpus.rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    assert run("pretrain", "./moved", "--resume", "--out", tmp_path / "run").code == 0
    same(tmp_path / "run", undisturbed)
    other = write_tiny_corpus(tmp_path / "other", tiny_dir, seed=1)
    stopped_at(7, moved, config, tmp_path / "again", monkeypatch)
    refused = run("pretrain", other, "--resume", "--out", tmp_path / "again").error
    assert "no longer those that this run began with" in refused


def test_altered_text_ends_it_in_one_line(tiny_dir: Path, config: str, tmp_path: Path) -> None:
    corpus = write_tiny_corpus(tmp_path / "tokens", tiny_dir)
    file = next(corpus.rglob("train.tokens.npy"))
    content = file.read_bytes()
    file.write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])
    typed = ("--config", config, "--max-length", 32, "--device", "cpu", "--steps", 2, "--out", tmp_path / "run")
    refused = run("pretrain", corpus, *typed).error
    assert f"{file}: altered since it was written (another SHA-256); prepare the corpus anew" in refused
    assert [path.name for path in tmp_path.iterdir()] == ["tokens"]


def test_an_unfinished_run_is_not_written_over(
    corpus: Path, config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_at(5, corpus, config, tmp_path / "run", monkeypatch)
    with pytest.raises(BertwrightError, match="an unfinished run; go on with: bertwright pretrain --resume"):
        made(corpus, tmp_path / "run", config=config)
    made(corpus, tmp_path / "run", config=config, overwrite=True)
