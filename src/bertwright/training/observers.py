"""Who watches a training: the history file, the progress bar, TensorBoard."""

from __future__ import annotations

import datetime
import json
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from bertwright.atomic import atomic_write_text
from bertwright.errors import BertwrightError, tell
from bertwright.training.loop import Observer, Record


class Observers:
    """Several observers as one."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = observers

    def begin(self, step: int, total: int | None) -> None:
        """Tell all."""
        for observer in self._observers:
            observer.begin(step, total)

    def record(self, record: Record) -> None:
        """Tell all."""
        for observer in self._observers:
            observer.record(record)

    def validating(self, done: int, total: int) -> None:
        """Tell all."""
        for observer in self._observers:
            observer.validating(done, total)

    def flush(self) -> None:
        """Tell all."""
        for observer in self._observers:
            observer.flush()

    def end(self) -> None:
        """Tell all."""
        for observer in self._observers:
            observer.end()


def _measured(record: Record) -> dict[str, float]:
    return {name: value for name, value in record.items() if name not in ("kind", "step", "epoch")}


class History:
    """``history.jsonl``: every record, one a line. A resumed run drops what came after the step it resumes from."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: TextIO | None = None

    def begin(self, step: int, total: int | None) -> None:
        """Open the file, keeping the records up to ``step``."""
        kept = [r for r in read_history(self._path) if r["step"] <= step] if step else []
        if step and (not kept or kept[-1]["step"] < step):
            tell(f"{self._path}: its last records up to step {step:,} are lost; losses and plots have a gap there")
        # At once or not at all: a second kill in this moment must not cost what the first one left.
        atomic_write_text(self._path, "".join(json.dumps(record) + "\n" for record in kept))
        self._file = self._path.open("a", encoding="utf-8", buffering=1)

    def record(self, record: Record) -> None:
        """Append a line."""
        assert self._file is not None
        self._file.write(json.dumps(record) + "\n")

    def validating(self, done: int, total: int) -> None:
        """Nothing to write."""

    def flush(self) -> None:
        """Bring all lines to the disk, past a power cut."""
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())

    def end(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def read_history(path: Path) -> list[Record]:
    """Read the records back; a last line that was cut short by a crash is left out."""
    records: list[Record] = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError:
                break
    return records


class Pace:
    """Hands everything on, and adds to each step how fast it was: ``tokens_per_second`` and ``fraction_of_peak``.

    ``peak`` is what all devices of the run together can do at most, in floating-point operations a second.
    """

    def __init__(self, observer: Observer, peak: float) -> None:
        self._observer, self._peak = observer, peak

    def begin(self, step: int, total: int | None) -> None:
        """Hand it on."""
        self._observer.begin(step, total)

    def record(self, record: Record) -> None:
        """Hand it on, with the pace of a step."""
        if record["kind"] == "step" and (seconds := record["seconds"]) > 0:
            record = record | {
                "tokens_per_second": record["tokens"] / seconds,
                "fraction_of_peak": record["flops"] / seconds / self._peak,
            }
        self._observer.record(record)

    def validating(self, done: int, total: int) -> None:
        """Hand it on."""
        self._observer.validating(done, total)

    def flush(self) -> None:
        """Hand it on."""
        self._observer.flush()

    def end(self) -> None:
        """Hand it on."""
        self._observer.end()


# As reports name them, but short: a line of a terminal has 80 columns.
_SHORT = {
    "f1_macro": "F1 macro", "f1_micro": "F1 micro", "f1": "F1", "subset_accuracy": "subset accuracy",
    "exact_match": "exact match", "matthews_correlation": "MCC", "pearson": "Pearson", "spearman": "Spearman",
    "mlm_loss": "MLM", "mlm_accuracy": "accuracy", "nsp_loss": "NSP", "nsp_accuracy": "accuracy",
}  # fmt: skip


_TICKS = 10_000  # of a bar that shows the time that has passed, not steps


class ProgressBar:
    """A bar with loss, rate and time left on a terminal; elsewhere a line for each validation and each half minute.

    With a ``peak``, in floating-point operations a second, a second line shows what a pretraining measures: loss,
    accuracies, the gradient's norm.
    """

    def __init__(self, title: str, console: Console, *, peak: float = 0.0) -> None:
        self._title = title
        self._peak = peak
        self._flops = 0.0
        self._console = console
        self._bar: Progress | None = None
        self._second_line = Text(overflow="ellipsis", no_wrap=True)
        self._live: Live | None = None
        self._total: int | None = None
        self._smooth: dict[str, float] = {}
        self._tokens = 0
        self._said = self._began = time.monotonic()
        self._first = 0  # step
        self._first_progress: float | None = None

    def begin(self, step: int, total: int | None) -> None:
        """Show the bar."""
        if step:
            self._say(f"{self._title}: going on after step {step:,}")
        self._total = total
        self._first, self._began = step, time.monotonic()
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=None),
                TextColumn("{task.fields[done]}"),
                TextColumn("{task.fields[rate]}", style="progress.data.speed"),
                TimeRemainingColumn(compact=True),
                console=self._console,
            )
            self._bar.add_task(self._title, total=total or _TICKS, completed=step if total else 0, done="", rate="")
            lines = Group(self._bar, self._second_line) if self._peak else Group(self._bar)
            self._live = Live(lines, console=self._console, refresh_per_second=10)
            self._live.start()

    def record(self, record: Record) -> None:
        """Move the bar, or print a line."""
        if record["kind"] == "step":
            self._follow(record)
            if self._bar is not None:
                self._move(self._bar, record)
            elif time.monotonic() - self._said > 30:
                self._said = time.monotonic()
                self._tell(record)
            return
        # Of a pretraining the loss is the sum of those that are shown.
        values = {k: v for k, v in _measured(record).items() if k != "loss" or "mlm_loss" not in record}
        shown = ", ".join(f"{_SHORT.get(k, k)} {v:.4f}" for k, v in values.items())
        where = f"epoch {record['epoch']}: validation" if "epoch" in record else f"step {record['step']:,}: held-out"
        self._say(f"{where} {shown}")
        if self._bar is not None and self._smooth:
            self._bar.update(self._bar.task_ids[0], rate=", ".join(self._rates(record["step"])))

    def validating(self, done: int, total: int) -> None:
        """Say so in the place of the rate, or print a line."""
        share = f"validating, {done / total:.0%}"
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], rate=share)
        elif time.monotonic() - self._said > 30:
            self._said = time.monotonic()
            self._say(f"{self._title}: {share}")

    def flush(self) -> None:
        """Nothing of it lasts."""

    def end(self) -> None:
        """Take the bar away."""
        if self._live is not None:
            self._live.stop()
            self._live = self._bar = None

    def _follow(self, record: Record) -> None:
        for name in ("loss", "mlm_accuracy", "nsp_accuracy", "gradient_norm"):
            if name in record:
                # Smoothed over about twenty steps: those of a single batch jump too much to read.
                value = float(record[name])
                self._smooth[name] = self._smooth.get(name, value) * 0.95 + value * 0.05
        self._tokens += record.get("tokens", 0)
        self._flops += record.get("flops", 0.0)
        if self._first_progress is None:
            self._first_progress = record.get("progress")

    def _move(self, bar: Progress, record: Record) -> None:
        step = record["step"]
        if self._total is None:
            place, done = round(record["progress"] * _TICKS), f"{step:,}"
        else:
            place, done = step, f"{step:,}/{self._total:,}"
        if not self._peak:
            done += f" loss {self._smooth['loss']:.3f}"
        self._second_line.plain = self._measures()
        bar.update(bar.task_ids[0], completed=place, done=done, rate=", ".join(self._rates(step)))

    def _tell(self, record: Record) -> None:
        step = record["step"]
        of = f" ({record['progress']:.0%} of the time)" if self._total is None else f"/{self._total:,}"
        where, left, rates = f"{self._title}: step {step:,}{of}", f"{_time(self._left(record))} left", self._rates(step)
        if not self._peak:
            self._say(f"{where}, {self._measures()}, {rates[0]}, {left}")
            return
        self._say(f"{where}, {left}, {rates[0]}")
        self._say(f"  {self._measures()}, {rates[1]}")

    def _measures(self) -> str:
        loss = f"loss {self._smooth['loss']:.3f}"
        if not self._peak:
            return loss
        named = (("MLM", "mlm_accuracy"), ("NSP", "nsp_accuracy"))
        accuracies = ", ".join(f"{short} {self._smooth[name]:.3f}" for short, name in named if name in self._smooth)
        return f"{loss}, accuracy {accuracies}, gradient norm {self._smooth['gradient_norm']:.2f}"

    def _rates(self, step: int) -> list[str]:
        """How fast it is since the beginning: steps, or, where there are many, tokens and what part of the peak."""
        seconds = self._seconds()
        if not self._peak:
            return [f"{(step - self._first) / seconds:.1f} steps/s"]
        return [f"{self._tokens / seconds:,.0f} tokens/s", f"{self._flops / seconds / self._peak:.0%} of peak"]

    def _left(self, record: Record) -> float:
        """Seconds to the end, as it went since the beginning: by the clock where that ends it, else by the steps."""
        if self._first_progress is not None:
            before, now, end = self._first_progress, record["progress"], 1.0
            if now <= before:  # a step's progress is that before it: the first tells nothing yet
                return math.nan
        else:
            assert self._total is not None
            before, now, end = self._first, record["step"], self._total
        return float((end - now) / max(now - before, 1e-9) * self._seconds())

    def _seconds(self) -> float:
        return max(time.monotonic() - self._began, 1e-9)

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def _time(seconds: float) -> str:
    if math.isnan(seconds):
        return "unknown time"
    return f"{seconds:.0f} s" if seconds < 100 else str(datetime.timedelta(seconds=round(seconds)))


class TensorBoard:
    """Scalars of every record as TensorBoard events. A resumed run has TensorBoard hide what came after its step."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise BertwrightError("--tensorboard needs: pip install tensorboard") from None
        self._folder = folder
        self._writer_class: Any = SummaryWriter
        self._writer: Any = None

    def begin(self, step: int, total: int | None) -> None:
        """Open a file of events."""
        self._writer = self._writer_class(str(self._folder), purge_step=step + 1 if step else None)

    def record(self, record: Record) -> None:
        """Write one scalar for each number."""
        for name, value in _measured(record).items():
            self._writer.add_scalar(f"{record['kind']}/{name}", value, record["step"])

    def validating(self, done: int, total: int) -> None:
        """Nothing to write."""

    def flush(self) -> None:
        """Bring all events to their file."""
        self._writer.flush()

    def end(self) -> None:
        """Flush and close."""
        if self._writer is not None:
            self._writer.close()
