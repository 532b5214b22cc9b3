"""A run can be stopped, killed and broken off at any instant, and goes on to the very same bits."""

from __future__ import annotations

import contextlib
import errno
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import bertwright
from bertwright import BertwrightError, BertwrightWarning, Run, finetune, finetuning, workspace
from bertwright.training import observers
from bertwright.training.observers import read_history
from bertwright.training.recipe import Recipe
from tiny_model import QUICK, full_disk, rows, write_tiny_model, write_tsv

pytestmark = pytest.mark.usefixtures("plotless")

# Two epochs of six steps, a state after each epoch.
OPTIONS = QUICK | {"batch_size": 12, "learning_rate": 5e-3, "seed": 1}
Fit = Callable[..., Run]


@pytest.fixture
def fit(tiny_dir: Path, tmp_path: Path) -> Fit:
    """Fine-tune the tiny model on 80 sentences into ``tmp_path/run``; options win over the defaults."""
    train = write_tsv(tmp_path / "train.tsv", rows(80))

    def run(**options: Any) -> Run:
        chosen: dict[str, Any] = {"model": tiny_dir, "train": train, "out": tmp_path / "run"}
        return finetune(OPTIONS, console=Console(quiet=True), **chosen | options)

    return run


@pytest.fixture(scope="module")
def undisturbed(tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., bytes]:
    """The weights of a run with these options that nothing disturbed."""
    made: dict[str, bytes] = {}

    def weights(**options: Any) -> bytes:
        key = str(sorted(options.items()))
        if key not in made:
            folder = tmp_path_factory.mktemp("undisturbed")
            train = write_tsv(folder / "train.tsv", rows(80))
            chosen: dict[str, Any] = {"model": tiny_dir, "train": train, "out": folder / "run"}
            made[key] = model_bytes(finetune(OPTIONS, console=Console(quiet=True), **chosen | options).out)
        return made[key]

    return weights


def model_bytes(directory: Path) -> bytes:
    return (directory / "model.safetensors").read_bytes()


@pytest.fixture
def at_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], object]], None]:
    """Do something right after that many steps from now on, whichever seeds they belong to; once."""
    left = [0]
    due: list[Callable[[], object]] = []

    class Watch(observers.History):
        def begin(self, step: int, total: int | None) -> None:
            super().begin(step, total)
            self.begun = True

        def record(self, record: dict[str, Any]) -> None:
            super().record(record)
            if hasattr(self, "begun") and record["kind"] == "step":  # not one that a resumed history writes again
                left[0] -= 1
                if left[0] == 0 and due:
                    due.pop()()

    def plan(steps: int, action: Callable[[], object]) -> None:
        left[0] = steps
        due.append(action)

    monkeypatch.setattr(finetuning, "History", Watch)
    return plan


def interrupt(number: int = signal.SIGINT) -> None:
    signal.raise_signal(number)


class Killed(BaseException):
    """As if the process were gone: nothing catches it."""


def killed() -> None:
    raise Killed


# --------------------------------------------------------------------------------------------------- stopped by a signal

CLOSED = [(7, signal.SIGHUP)] if hasattr(signal, "SIGHUP") else []  # a terminal that was closed


@pytest.mark.parametrize(("step", "number"), [(s, n) for n in (signal.SIGINT, signal.SIGTERM) for s in (6, 7, 11)] + CLOSED)
def test_a_stopped_run_leaves_its_best_and_goes_on_to_the_same_bits(
    fit: Fit, at_step: Any, undisturbed: Callable[..., bytes], tmp_path: Path, step: int, number: int
) -> None:
    before = signal.SIG_DFL if number in dict.fromkeys(n for _, n in CLOSED) else signal.getsignal(number)
    signal.signal(number, before)  # under nohup it would be ignored
    at_step(step, lambda: interrupt(number))
    run = fit()
    assert run.interrupted
    assert signal.getsignal(number) is before
    assert run.metrics["interrupted"] is True
    assert "**The run was interrupted" in (run.out / "README.md").read_text()
    # What is there is a whole model: the one of the first epoch.
    answers = bertwright.load(run.out).predict(["a good film", "a bad film"])
    assert answers == run.model.predict(["a good film", "a bad film"])
    resumed = fit(resume=True)
    assert not resumed.interrupted
    assert model_bytes(tmp_path / "run") == undisturbed()
    assert [r["step"] for r in read_history(run.out / "history.jsonl") if r["kind"] == "step"] == list(range(1, 13))
    assert not (tmp_path / "run.training").exists()


def test_a_run_stopped_before_its_first_validation_keeps_its_state_only(
    fit: Fit, at_step: Any, undisturbed: Callable[..., bytes], tmp_path: Path
) -> None:
    at_step(2, interrupt)
    with pytest.raises(
        KeyboardInterrupt, match="no model yet, but its state is kept; go on with: bertwright finetune --resume"
    ):
        fit()
    assert not (tmp_path / "run").exists()
    fit(resume=True)
    assert model_bytes(tmp_path / "run") == undisturbed()


def test_a_signal_at_the_very_end_changes_nothing(fit: Fit, at_step: Any, undisturbed: Callable[..., bytes]) -> None:
    at_step(12, interrupt)
    run = fit()
    assert not run.interrupted
    assert model_bytes(run.out) == undisturbed()


def test_a_run_can_be_stopped_again_and_again(
    fit: Fit, at_step: Any, undisturbed: Callable[..., bytes], tmp_path: Path
) -> None:
    for resume, steps in ((False, 7), (True, 1), (True, 1), (True, 2)):
        at_step(steps, interrupt)
        assert fit(resume=resume).interrupted
    assert not fit(resume=True).interrupted
    assert model_bytes(tmp_path / "run") == undisturbed()


@pytest.mark.parametrize("step", [3, 8, 12, 14, 20, 27, 32])
def test_a_run_of_several_seeds_goes_on_where_it_was_stopped(
    fit: Fit, at_step: Any, undisturbed: Callable[..., bytes], tmp_path: Path, step: int
) -> None:
    # Seeds end at steps 12, 24 and 36.
    at_step(step, interrupt)
    if step < 6:
        with pytest.raises(KeyboardInterrupt):
            fit(seeds=3)
    else:
        run = fit(seeds=3)
        assert run.interrupted
        assert bertwright.load(run.out).predict("a good film") == run.model.predict("a good film")
    resumed = fit(seeds=3, resume=True)
    assert not resumed.interrupted
    assert [summary["seed"] for summary in resumed.metrics["seeds"]] == [1, 2, 3]
    assert model_bytes(tmp_path / "run") == undisturbed(seeds=3)
    assert not (tmp_path / "run.training").exists()


@pytest.mark.parametrize("changed", [{"epochs": 3}, {"learning_rate": 1e-3}])
def test_seeds_that_are_finished_are_not_joined_by_others_of_another_length_or_rate(
    fit: Fit, at_step: Any, changed: dict[str, Any]
) -> None:
    at_step(20, interrupt)
    assert fit(seeds=3).interrupted
    with pytest.raises(BertwrightError, match=r"--resume: --\w+.* is .*, but seeds are finished that were trained with "):
        fit(seeds=3, resume=True, **changed)
    with pytest.warns(BertwrightWarning, match="--seeds is 4 from here on"):
        assert len(fit(seeds=4, resume=True).metrics["seeds"]) == 4


def test_finished_seeds_are_measured_on_the_test_rows_of_now(fit: Fit, at_step: Any, tmp_path: Path) -> None:
    first, second = (write_tsv(tmp_path / f"test-{n}.tsv", rows(20 + n, seed=n)) for n in (1, 2))
    test = tmp_path / "test.tsv"
    shutil.copy(first, test)
    at_step(20, interrupt)
    assert fit(seeds=2, test=test).interrupted
    shutil.copy(second, test)
    found = [summary["test"] for summary in fit(seeds=2, test=test, resume=True).metrics["seeds"]]
    shutil.rmtree(tmp_path / "run")
    assert found == [summary["test"] for summary in fit(seeds=2, test=second).metrics["seeds"]]


def test_a_second_signal_ends_it_at_once(fit: Fit, at_step: Any, tmp_path: Path) -> None:
    def twice() -> None:
        interrupt()
        interrupt()

    at_step(2, twice)
    with pytest.raises(KeyboardInterrupt):
        fit()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train.tsv"]


def test_in_a_thread_which_may_not_handle_signals_training_works_too(fit: Fit, undisturbed: Callable[..., bytes]) -> None:
    runs: list[Run] = []
    thread = threading.Thread(target=lambda: runs.append(fit()))
    thread.start()
    thread.join()
    assert model_bytes(runs[0].out) == undisturbed()


# ------------------------------------------------------------------------------------------------------- two at one time


def test_a_second_process_is_kept_out_of_a_run(
    fit: Fit, at_step: Any, undisturbed: Callable[..., bytes], tmp_path: Path
) -> None:
    told = []

    def others() -> None:
        for options in ({"resume": True}, {"overwrite": True}):
            with pytest.raises(BertwrightError) as caught:
                fit(**options)
            told.append(str(caught.value))

    for step in (3, 9):  # before and after the first state
        at_step(step, others)
        fit(overwrite=True)
        assert model_bytes(tmp_path / "run") == undisturbed()
    line = f"{tmp_path / 'run.training'}: another process works on this run; let it end, or choose another --out"
    assert told == [line] * 4


@pytest.mark.parametrize("without", ["system", "file system"])
def test_without_locks_nobody_is_kept_out(
    fit: Fit, undisturbed: Callable[..., bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without: str
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    if without == "system":
        monkeypatch.setattr(workspace, "fcntl", None)
    else:
        monkeypatch.setattr("fcntl.flock", refuse)
    fit()
    assert model_bytes(tmp_path / "run") == undisturbed()
    assert not (tmp_path / "run.training").exists()


# ----------------------------------------------------------------------------------------------------------- broken off


@pytest.mark.parametrize("step", [3, 5, 9, 12])
def test_a_killed_run_goes_on_from_its_last_state_to_the_same_bits(
    fit: Fit, at_step: Any, undisturbed: Callable[..., bytes], tmp_path: Path, step: int
) -> None:
    at_step(step, killed)
    with pytest.raises(Killed):
        fit(save_every=2)
    assert not (tmp_path / "run").exists()
    fit(resume=True)
    assert model_bytes(tmp_path / "run") == undisturbed()


def test_a_run_killed_before_its_first_state_leaves_nothing(fit: Fit, at_step: Any, tmp_path: Path) -> None:
    at_step(5, killed)
    with pytest.raises(Killed):
        fit()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train.tsv"]


def test_a_damaged_state_is_passed_over(fit: Fit, at_step: Any, undisturbed: Callable[..., bytes], tmp_path: Path) -> None:
    at_step(9, killed)
    with pytest.raises(Killed):
        fit(save_every=2)
    states = tmp_path / "run.training" / "seed-1" / "states"
    assert sorted(path.name for path in states.iterdir()) == ["step-6", "step-8"]
    (states / "step-8" / "weights.safetensors").write_bytes(b"cut short")
    with pytest.warns(BertwrightWarning, match="step-8: damaged state .* trying the one before"):
        fit(resume=True)
    assert model_bytes(tmp_path / "run") == undisturbed()


def test_with_every_state_damaged_the_run_cannot_go_on_and_says_so(fit: Fit, at_step: Any, tmp_path: Path) -> None:
    at_step(7, killed)
    with pytest.raises(Killed):
        fit()
    (tmp_path / "run.training" / "seed-1" / "states" / "step-6" / "state.json").unlink()
    with pytest.raises(BertwrightError, match="no state to resume from"), pytest.warns(BertwrightWarning):
        fit(resume=True)
    fit(overwrite=True)


@pytest.mark.parametrize("options", [{"epochs": 1}, {"epochs": 2}, {"seeds": 2, "epochs": 1}])
def test_on_a_full_disk_nothing_is_half_written(fit: Fit, tmp_path: Path, options: dict[str, int]) -> None:
    with full_disk(), pytest.raises(BertwrightError, match=r"cannot write .*: File too large"):
        fit(**options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train.tsv"]


def test_on_a_disk_that_fills_up_at_last_the_run_so_far_is_kept(
    fit: Fit, at_step: Any, undisturbed: Callable[..., bytes], tmp_path: Path
) -> None:
    with contextlib.ExitStack() as disk:
        at_step(8, lambda: disk.enter_context(full_disk()))
        with pytest.raises(BertwrightError) as caught:
            fit()
    assert str(caught.value).startswith(f"cannot write {tmp_path / 'run.training'}")
    assert ": File too large" in str(caught.value)
    go_on = f"go on with: bertwright finetune --resume --out {tmp_path / 'run'}"
    assert str(caught.value).endswith(f"(the run so far is kept; {go_on})")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.training", "train.tsv"]
    fit(resume=True)
    assert model_bytes(tmp_path / "run") == undisturbed()


def test_a_place_that_cannot_be_written_is_told(fit: Fit, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    with pytest.raises(BertwrightError, match="Not a directory; choose an --out that can be written"):
        fit(out=file / "run")


# ------------------------------------------------------------------------------------------------- what may be there before


@pytest.fixture
def stopped(fit: Fit, at_step: Any) -> Run:
    """A run that was stopped in its second epoch."""
    at_step(7, interrupt)
    return fit()


def test_resuming_needs_no_more_than_where(
    stopped: Run, undisturbed: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    finetune(out=stopped.out, resume=True, console=Console(quiet=True))
    assert model_bytes(stopped.out) == undisturbed()


def test_a_recipe_of_a_resumed_run_is_that_of_the_whole_run(stopped: Run, fit: Fit) -> None:
    before = (stopped.out / "recipe.toml").read_text()
    fit(resume=True)
    assert (stopped.out / "recipe.toml").read_text() == before
    assert "resume = false" in before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 16}, "--resume: --batch-size is 16, but the run began with 12; leave it out, or begin anew"),
        ({"seed": 2}, "--resume: --seed is 2, but the run began with 1; leave it out, or begin anew"),
        ({"freeze": "first:1"}, "--resume: --freeze is 'first:1', but the run began with 'none'; leave it out"),
        ({"overwrite": True}, "--resume goes on with a run, --overwrite begins it anew: give one of them"),
    ],
)
def test_a_resumed_run_keeps_to_what_its_states_mean(
    stopped: Run, fit: Fit, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(BertwrightError) as caught:
        fit(resume=True, **options)
    assert str(caught.value).startswith(message)
    assert (tmp_path / "run.training").is_dir()
    assert model_bytes(stopped.out)


def test_what_may_change_halfway_is_told(stopped: Run, fit: Fit) -> None:
    with pytest.warns(BertwrightWarning, match="--learning-rate is 0.05 from here on; the run began with 0.005"):
        run = fit(resume=True, learning_rate=5e-2)
    rates = [r["learning_rate"] for r in read_history(run.out / "history.jsonl") if r["kind"] == "step"]
    assert max(rates[:7]) <= 5e-3 < rates[7]


def test_steps_take_the_place_of_the_epochs_that_a_run_began_with(stopped: Run) -> None:
    with pytest.warns(BertwrightWarning) as told:
        run = finetune(resume=True, steps=9, out=stopped.out, console=Console(quiet=True))
    assert [str(one.message) for one in told] == ["--steps is 9 from here on; the run began without"]
    assert [r["step"] for r in read_history(run.out / "history.jsonl") if r["kind"] == "step"] == list(range(1, 10))
    assert "epochs" not in Recipe.read(run.out / "recipe.toml")


def test_a_run_is_gone_on_with_from_where_it_began(
    fit: Fit, at_step: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    at_step(7, interrupt)
    fit(train="train.tsv")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(
        BertwrightError, match=r"--train train\.tsv: not found; if the run began in another directory, go on"
    ):
        finetune(out=tmp_path / "run", resume=True, console=Console(quiet=True))
    monkeypatch.chdir(tmp_path)
    finetune(out=tmp_path / "run", resume=True, console=Console(quiet=True))


def test_epochs_that_had_no_effect_can_take_the_place_of_steps(fit: Fit, at_step: Any) -> None:
    at_step(7, interrupt)
    with pytest.warns(BertwrightWarning, match="--epochs has no effect beside --steps"):
        fit(epochs=3, steps=9)
    with pytest.warns(BertwrightWarning, match="--steps is not set from here on; the run began with 9"):
        run = fit(epochs=3, resume=True)
    assert [r["step"] for r in read_history(run.out / "history.jsonl") if r["kind"] == "step"] == list(range(1, 19))


def test_other_weights_to_start_from_are_noticed(
    fit: Fit, at_step: Any, tiny_dir: Path, tmp_path: Path, undisturbed: Callable[..., bytes]
) -> None:
    model = Path(shutil.copytree(tiny_dir, tmp_path / "model"))
    at_step(7, interrupt)
    fit(model=model)
    write_tiny_model(model, seed=1)
    with pytest.raises(BertwrightError, match="or the model to start from, are no longer those"):
        fit(model=model, resume=True)
    write_tiny_model(model, seed=0)
    fit(model=model, resume=True)
    assert model_bytes(tmp_path / "run") == undisturbed()


def test_other_rows_are_noticed(stopped: Run, fit: Fit, tmp_path: Path) -> None:
    write_tsv(tmp_path / "train.tsv", [*rows(79), ("another good one", "1")])
    with pytest.raises(BertwrightError, match="the data, or the model to start from, are no longer those that"):
        fit(resume=True)
    write_tsv(tmp_path / "train.tsv", rows(80))
    fit(resume=True)


def test_an_unfinished_run_is_not_begun_anew_by_mistake(
    stopped: Run, fit: Fit, undisturbed: Callable[..., bytes], tmp_path: Path
) -> None:
    with pytest.raises(BertwrightError, match=r"run.training: an unfinished run; go on with: .*; or begin anew with --over"):
        fit()
    fit(overwrite=True)
    assert model_bytes(stopped.out) == undisturbed()
    assert not (tmp_path / "run.training").exists()


def test_a_finished_run_is_not_replaced_by_mistake(fit: Fit, tmp_path: Path) -> None:
    first = fit(epochs=1)
    with pytest.raises(BertwrightError, match="run: holds something already; choose another --out, or replace it with"):
        fit()
    assert model_bytes(first.out) == model_bytes(fit(epochs=1, overwrite=True).out)
    with pytest.raises(BertwrightError, match=r"run.training: nothing to resume \(.*run is finished\); leave --resume out"):
        fit(resume=True)


def test_an_empty_directory_is_a_place_but_a_file_is_not(fit: Fit, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    fit(epochs=1)
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "run").write_text("mine")
    with pytest.raises(BertwrightError, match="run: holds something already"):
        fit(epochs=1)
    assert (tmp_path / "run").read_text() == "mine"


@pytest.mark.parametrize("out", [None, "", "/"])
def test_a_run_needs_a_name_for_its_directory(fit: Fit, out: str | None) -> None:
    with pytest.raises(BertwrightError, match="--out is missing: name the directory"):
        fit(out=out)


def test_overwriting_spares_what_is_no_model(fit: Fit, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("years of work")
    with pytest.raises(BertwrightError, match="holds something that is no model, and is not replaced"):
        fit(overwrite=True)
    assert (tmp_path / "run" / "thesis.txt").read_text() == "years of work"


def test_overwriting_spares_the_rows_that_it_reads(fit: Fit, tmp_path: Path) -> None:
    fit()
    rows = tmp_path / "run" / "rows.tsv"
    rows.write_bytes((tmp_path / "train.tsv").read_bytes())
    with pytest.raises(BertwrightError, match="holds what --train names, and is not replaced"):
        fit(overwrite=True, train=rows)
    assert rows.exists()


def test_what_one_resume_changes_the_next_goes_on_with(fit: Fit, at_step: Any, tmp_path: Path) -> None:
    at_step(7, interrupt)
    fit()
    at_step(8, interrupt)
    with pytest.warns(BertwrightWarning, match="--epochs is 7 from here on"):
        fit(resume=True, epochs=7)
    finetune(out=tmp_path / "run", resume=True, console=Console(quiet=True))
    assert Recipe.read(tmp_path / "run" / "recipe.toml")["epochs"] == 7
