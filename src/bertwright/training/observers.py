"""Who watches a training: the history file, the progress bar, TensorBoard."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

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


# How a line of a terminal has room for them: four numbers in 80 columns.
_SHORT = {"f1_macro": "F1", "matthews_correlation": "Matthews"}


_TICKS = 10_000  # of a bar that shows the time that has passed, not steps


class ProgressBar:
    """A bar with loss, rate and time left on a terminal; elsewhere a line for each validation and each half minute."""

    def __init__(self, title: str, console: Console, *, peak: float = 0.0) -> None:
        self._title = title
        self._peak = peak  # floating-point operations a second that the machine can do at most, where it is known
        self._flops = 0.0
        self._console = console
        self._bar: Progress | None = None
        self._total: int | None = None
        self._loss = float("nan")
        self._tokens = 0
        self._said = time.monotonic()
        self._began = (0.0, time.monotonic())

    def begin(self, step: int, total: int | None) -> None:
        """Show the bar."""
        if step:
            self._say(f"{self._title}: going on after step {step:,}")
        self._total = total
        self._began = (float(step), time.monotonic())
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=None),
                TextColumn("{task.fields[done]}"),
                TextColumn("{task.fields[loss]}"),
                TextColumn("{task.fields[rate]}", style="progress.data.speed"),
                TimeRemainingColumn(compact=True),
                console=self._console,
            )
            self._bar.add_task(self._title, total=total or _TICKS, completed=step if total else 0, done="", loss="", rate="")
            self._bar.start()

    def record(self, record: Record) -> None:
        """Move the bar, or print a line."""
        if record["kind"] == "step":
            # Smoothed over about twenty steps: the loss of a single batch jumps too much to read.
            smoothed = self._loss * 0.95 + record["loss"] * 0.05
            self._loss = record["loss"] if self._loss != self._loss else smoothed
            self._tokens += record.get("tokens", 0)
            self._flops += record.get("flops", 0.0)
            if self._bar is not None:
                step, place = record["step"], record["step"]
                if self._total is None:
                    place = round(record["progress"] * _TICKS)
                done = f"{step:,}" if self._total is None else f"{step:,}/{self._total:,}"
                loss = f"loss {self._loss:.3f}"
                self._bar.update(self._bar.task_ids[0], completed=place, done=done, loss=loss, rate=self._rates(step)[1])
            elif time.monotonic() - self._said > 30:
                self._said = time.monotonic()
                rate, shown = self._rates(record["step"])
                of = "" if self._total is None else f"/{self._total:,}"
                left = f", {(self._total - record['step']) / max(rate, 1e-9):.0f} s left" if self._total is not None else ""
                done = f" ({record['progress']:.0%} of the time)" if self._total is None else ""
                self._say(f"{self._title}: step {record['step']:,}{of}{done}, loss {self._loss:.3f}, {shown}{left}")
            return
        shown = ", ".join(f"{_SHORT.get(k, k)} {v:.4f}" for k, v in _measured(record).items())
        where = f"epoch {record['epoch']}: validation" if "epoch" in record else f"step {record['step']:,}: held-out"
        self._say(f"{where} {shown}")

    def flush(self) -> None:
        """Nothing of it lasts."""

    def _rates(self, step: int) -> tuple[float, str]:
        """Steps a second since the beginning, and as shown: with the tokens, where there are many."""
        first, began = self._began
        seconds = max(time.monotonic() - began, 1e-9)
        rate = (step - first) / seconds
        if not self._peak:
            return rate, f"{rate:.1f} steps/s"
        return rate, f"{self._tokens / seconds:,.0f} tokens/s, {self._flops / seconds / self._peak:.0%} of peak"

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

    def begin(self, step: int, total: int | None) -> None:
        """Open a file of events."""
        self._writer = self._writer_class(str(self._folder), purge_step=step + 1 if step else None)

    def record(self, record: Record) -> None:
        """Write one scalar for each number."""
        for name, value in _measured(record).items():
            self._writer.add_scalar(f"{record['kind']}/{name}", value, record["step"])

    def flush(self) -> None:
        """Bring all events to their file."""
        self._writer.flush()

    def end(self) -> None:
        """Flush and close."""
        if self._writer is not None:
            self._writer.close()
