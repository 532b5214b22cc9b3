"""Who watches a training: nothing lost, nothing twice, and lines that fit a terminal."""

from __future__ import annotations

import io
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bertwright.errors import BertwrightError
from bertwright.training.observers import History, Observers, Pace, ProgressBar, TensorBoard, read_history


def step(number: int, loss: float = 0.5) -> dict[str, Any]:
    return {"kind": "step", "step": number, "loss": loss, "learning_rate": 1e-5, "gradient_norm": 2.0}


def validation(number: int, epoch: int = 1) -> dict[str, Any]:
    scores = {"loss": 0.25, "accuracy": 0.875, "f1_macro": 0.5, "matthews_correlation": -0.75}
    return {"kind": "validation", "step": number, "epoch": epoch, **scores}


def test_every_observer_is_told_everything_in_order(tmp_path: Path) -> None:
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    all_of_them = Observers([History(file) for file in files])
    all_of_them.begin(0, 2)
    for record in (step(1), validation(1), step(2)):
        all_of_them.record(record)
    all_of_them.end()
    for file in files:
        assert read_history(file) == [step(1), validation(1), step(2)]


def test_a_resumed_history_drops_what_came_after_its_step(tmp_path: Path) -> None:
    file = tmp_path / "history.jsonl"
    history = History(file)
    history.begin(0, 9)
    for record in (step(1), step(2), validation(2), step(3)):
        history.record(record)
    history.end()
    resumed = History(file)
    resumed.begin(2, 9)
    resumed.record(step(3, loss=0.125))
    resumed.end()
    assert read_history(file) == [step(1), step(2), validation(2), step(3, loss=0.125)]


def test_a_new_run_begins_a_new_history(tmp_path: Path) -> None:
    file = tmp_path / "history.jsonl"
    for _ in range(2):
        history = History(file)
        history.begin(0, 9)
        history.record(step(1))
        history.end()
    assert read_history(file) == [step(1)]


def test_each_record_is_on_the_disk_before_the_next(tmp_path: Path) -> None:
    history = History(tmp_path / "history.jsonl")
    history.begin(0, 9)
    history.record(step(1))
    assert read_history(tmp_path / "history.jsonl") == [step(1)]
    history.end()


def test_a_flushed_history_outlasts_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "history.jsonl"
    on_disk: dict[int, list[dict[str, Any]]] = {}  # by the file's number, what it held when it was brought there
    monkeypatch.setattr(os, "fsync", lambda descriptor: on_disk.update({os.fstat(descriptor).st_ino: read_history(file)}))
    history = Observers([History(file)])
    history.begin(0, 9)
    for record in (step(1), step(2)):
        history.record(record)
    history.flush()
    history.record(step(3))
    assert on_disk[file.stat().st_ino] == [step(1), step(2)]
    history.end()


def test_a_line_cut_short_by_a_crash_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "history.jsonl"
    whole = json.dumps(step(1))
    for cut in range(1, len(whole)):
        file.write_text(f"{whole}\n{whole[:cut]}")
        assert read_history(file) == [step(1)]
    assert read_history(tmp_path / "none.jsonl") == []


def shown(*records: dict[str, Any], terminal: bool = False, title: str = "training") -> str:
    page = io.StringIO()
    bar = ProgressBar(title, Console(file=page, width=80, force_terminal=terminal, color_system=None))
    bar.begin(0, 100)
    for record in records:
        bar.record(record)
    bar.end()
    return page.getvalue()


def test_a_validation_is_one_line_of_80_columns() -> None:
    line = "epoch 12: validation loss 0.2500, accuracy 0.8750, F1 macro 0.5000, MCC -0.7500"
    assert shown(step(1), validation(1, epoch=12)) == line + "\n"
    assert len(line) <= 80


def test_off_a_terminal_a_line_tells_every_half_minute_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    page = io.StringIO()
    bar = ProgressBar("seed 3", Console(file=page, width=40))
    bar.begin(10, 100)  # a resumed run's
    for number in range(11, 71):
        clock[0] += 1
        bar.record(step(number, loss=2.0))
    bar.end()
    assert page.getvalue().splitlines() == [  # in one line each, though the console is narrow
        "seed 3: going on after step 10",
        "seed 3: step 41/100, loss 2.000, 1.0 steps/s, 59 s left",
    ]


def test_a_long_validation_tells_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    for terminal in (False, True):
        page = io.StringIO()
        bar = ProgressBar("training", Console(file=page, width=80, force_terminal=terminal, color_system=None))
        told = Observers([bar])
        told.begin(0, 100)
        told.record(step(1))
        for done in range(0, 101, 10):
            clock[0] += 10
            told.validating(done, 100)
            if bar._live is not None:
                bar._live.refresh()
        told.record(validation(1))
        told.end()
        if terminal:
            assert page.getvalue().rindex("steps/s") > page.getvalue().rindex("validating")
        assert ("training: validating, 70%\n" in page.getvalue()) != terminal
        assert "validating, 70%" in page.getvalue()


def test_on_a_terminal_a_bar_shows_steps_and_a_smoothed_loss() -> None:
    text = shown(step(1, loss=1.0), step(2, loss=3.0), terminal=True)
    assert "training" in text
    assert "nan" not in text
    assert "2/100" in text
    assert "loss 1.100" in text


PEAK = 1e12


def pretraining_step(number: int, **more: Any) -> dict[str, Any]:
    """One of a large run, whose numbers are as wide as they may be."""
    measures = {"mlm_loss": 5.0, "mlm_accuracy": 0.25, "nsp_loss": 0.5, "nsp_accuracy": 0.75, "flops": 4.5e11}
    return step(number, loss=12.345) | measures | {"gradient_norm": 12.34, "tokens": 1_312_000, "seconds": 1.0} | more


def pretraining_validation(number: int) -> dict[str, Any]:
    measures = {"mlm_loss": 5.0, "mlm_accuracy": 0.25, "nsp_loss": 0.5, "nsp_accuracy": 0.75}
    return {"kind": "validation", "step": number, "loss": 5.5, **measures}


@pytest.mark.parametrize("total", [1_000_000, None])
def test_off_a_terminal_a_pretraining_tells_what_it_measures_and_the_time_left(
    monkeypatch: pytest.MonkeyPatch, total: int | None
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    page = io.StringIO()
    bar = ProgressBar("pretraining", Console(file=page, width=80), peak=PEAK)
    bar.begin(999_000, total)
    for number in range(999_001, 999_041):
        # By the clock, half of the time is over when it goes on, and each second is a thousandth.
        progress = {} if total is not None else {"progress": 0.5 + (number - 999_001) / 1000}
        clock[0] += 1
        bar.record(pretraining_step(number, **progress))
    bar.record(pretraining_validation(999_040))
    bar.end()
    going_on, first, second, validation = page.getvalue().splitlines()
    left, of = ("0:16:09", "/1,000,000") if total is not None else ("0:08:06", " (53% of the time)")
    assert going_on == "pretraining: going on after step 999,000"
    assert first == f"pretraining: step 999,031{of}, {left} left, 1,312,000 tokens/s"
    assert second == "  loss 12.345, accuracy MLM 0.250, NSP 0.750, gradient norm 12.34, 45% of peak"
    assert validation == "step 999,040: held-out MLM 5.0000, accuracy 0.2500, NSP 0.5000, accuracy 0.7500"
    assert max(map(len, (first, second, validation))) <= 80


@pytest.mark.parametrize("total", [1_000_000, None])
def test_on_a_terminal_a_pretraining_has_a_line_for_what_it_measures(total: int | None) -> None:
    page = io.StringIO()
    bar = ProgressBar(
        "pretraining", Console(file=page, width=80, force_terminal=True, color_system=None, legacy_windows=False), peak=PEAK
    )
    bar.begin(0, total)
    bar.record(pretraining_step(999_999, progress=0.25))
    bar.end()
    lines = page.getvalue().replace("\r", "\n").splitlines()
    assert any("loss 12.345, accuracy MLM 0.250, NSP 0.750, gradient norm 12.34" in line for line in lines)
    assert any(f"999,999{'' if total is None else '/1,000,000'}" in line and "of peak" in line for line in lines)
    assert "…" not in page.getvalue(), "80 columns have room for it"


def test_the_pace_of_each_step_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "history.jsonl"
    paced = Pace(Observers([History(file)]), PEAK)
    paced.begin(0, 2)
    given = [pretraining_step(1, seconds=0.5), pretraining_step(2, seconds=0.0), pretraining_validation(2)]
    for record in given:
        paced.record(record)
    paced.flush()
    paced.end()
    added = {"tokens_per_second": 2_624_000, "fraction_of_peak": 0.9}
    assert read_history(file) == [given[0] | added, *given[1:]]


@pytest.fixture
def events() -> Any:
    return pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="needs the tensorboard extra"
    ).EventAccumulator


def test_tensorboard_has_every_number(tmp_path: Path, events: Any) -> None:
    board = TensorBoard(tmp_path)
    board.begin(0, 2)
    for record in (step(1, loss=0.5), step(2, loss=0.25), validation(2)):
        board.record(record)
    board.end()
    found = events(str(tmp_path)).Reload()
    assert [(e.step, e.value) for e in found.Scalars("step/loss")] == [(1, 0.5), (2, 0.25)]
    assert [(e.step, e.value) for e in found.Scalars("validation/matthews_correlation")] == [(2, -0.75)]
    names = {f"step/{name}" for name in ("loss", "learning_rate", "gradient_norm")}
    names |= {f"validation/{name}" for name in ("loss", "accuracy", "f1_macro", "matthews_correlation")}
    assert set(found.Tags()["scalars"]) == names


def test_a_resumed_tensorboard_has_no_step_twice(tmp_path: Path, events: Any) -> None:
    for begin, last, loss in ((0, 5, 0.5), (3, 6, 0.25)):
        board = TensorBoard(tmp_path)
        board.begin(begin, 6)
        for number in range(begin + 1, last + 1):
            board.record(step(number, loss=loss))
        board.end()
        if not begin:
            time.sleep(1.1)  # its files are named by the second, and read in the order of their names
    found = events(str(tmp_path)).Reload()
    assert [(e.step, e.value) for e in found.Scalars("step/loss")] == [
        *((1, 0.5), (2, 0.5), (3, 0.5), (4, 0.25), (5, 0.25), (6, 0.25)),
    ]


def test_a_missing_tensorboard_is_told_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(BertwrightError, match=r"--tensorboard needs: pip install tensorboard"):
        TensorBoard(tmp_path)


def test_an_observer_that_never_began_can_end(tmp_path: Path, events: Any) -> None:
    Observers([History(tmp_path / "h.jsonl"), TensorBoard(tmp_path / "t"), ProgressBar("t", Console(quiet=True))]).end()
    assert list(tmp_path.iterdir()) == []
