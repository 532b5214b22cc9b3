"""Who watches a training: the history file, the progress bar, TensorBoard."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from bertwright.errors import BertwrightError
from bertwright.training.loop import Observer, Record


class Observers:
    """Several observers as one."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = observers

    def begin(self, step: int, total: int) -> None:
        """Tell all."""
        for observer in self._observers:
            observer.begin(step, total)

    def record(self, record: Record) -> None:
        """Tell all."""
        for observer in self._observers:
            observer.record(record)

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

    def begin(self, step: int, total: int) -> None:
        """Open the file, keeping the records up to ``step``."""
        kept = [r for r in read_history(self._path) if r["step"] <= step] if step else []
        self._file = self._path.open("w", encoding="utf-8", buffering=1)
        for record in kept:
            self.record(record)

    def record(self, record: Record) -> None:
        """Append a line."""
        assert self._file is not None
        self._file.write(json.dumps(record) + "\n")

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


# How a line of a terminal has room for them: four numbers in 80 columns.
_SHORT = {"f1_macro": "F1", "matthews_correlation": "Matthews"}


class _Rate(ProgressColumn):
    """Steps a second, over the last half minute."""

    def render(self, task: Task) -> Text:
        """Return the rate, or nothing before the first step."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f} steps/s", style="progress.data.speed")


class ProgressBar:
    """A bar with loss, rate and time left on a terminal; elsewhere a line for each validation and each half minute."""

    def __init__(self, title: str, console: Console) -> None:
        self._title = title
        self._console = console
        self._bar: Progress | None = None
        self._total = 0
        self._loss = float("nan")
        self._said = time.monotonic()
        self._began = (0, time.monotonic())

    def begin(self, step: int, total: int) -> None:
        """Show the bar."""
        self._total = total
        self._began = (step, time.monotonic())
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TextColumn("{task.fields[loss]}"),
                _Rate(),
                TimeRemainingColumn(compact=True),
                console=self._console,
            )
            self._bar.add_task(self._title, total=total, completed=step, loss="")
            self._bar.start()

    def record(self, record: Record) -> None:
        """Move the bar, or print a line."""
        if record["kind"] == "step":
            # Smoothed over about twenty steps: the loss of a single batch jumps too much to read.
            smoothed = self._loss * 0.95 + record["loss"] * 0.05
            self._loss = record["loss"] if self._loss != self._loss else smoothed
            if self._bar is not None:
                self._bar.update(self._bar.task_ids[0], completed=record["step"], loss=f"loss {self._loss:.3f}")
            elif time.monotonic() - self._said > 30:
                self._said = time.monotonic()
                first, began = self._began
                rate = (record["step"] - first) / max(self._said - began, 1e-9)
                left = (self._total - record["step"]) / max(rate, 1e-9)
                self._say(
                    f"{self._title}: step {record['step']:,}/{self._total:,}, loss {self._loss:.3f}, "
                    f"{rate:.1f} steps/s, {left:.0f} s left"
                )
            return
        shown = ", ".join(f"{_SHORT.get(k, k)} {v:.4f}" for k, v in _measured(record).items())
        self._say(f"epoch {record['epoch']}: validation {shown}")

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def end(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


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

    def begin(self, step: int, total: int) -> None:
        """Open a file of events."""
        self._writer = self._writer_class(str(self._folder), purge_step=step + 1 if step else None)

    def record(self, record: Record) -> None:
        """Write one scalar for each number."""
        for name, value in _measured(record).items():
            self._writer.add_scalar(f"{record['kind']}/{name}", value, record["step"])

    def end(self) -> None:
        """Flush and close."""
        if self._writer is not None:
            self._writer.close()
