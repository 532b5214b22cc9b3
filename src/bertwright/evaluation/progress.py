"""How far a long measurement is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 30.0


class TokenProgress:
    """Shows tokens done of all, their rate and the time left; a context manager, called with (done, total)."""

    def __init__(self, title: str, console: Console) -> None:
        self._title = title
        self._console = console
        self._bar: Progress | None = None
        self._first: tuple[float, int] | None = None  # what comes before the first batch tells nothing of the pace
        self._said = time.monotonic()

    def __enter__(self) -> TokenProgress:
        # To a quiet console too, rich would divert standard output from everyone else.
        if self._console.is_terminal and not self._console.quiet:
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=None),
                TaskProgressColumn(),
                TextColumn("{task.fields[rate]}", style="progress.data.speed"),
                TimeRemainingColumn(compact=True),
                console=self._console,
                transient=True,
            )
            self._bar.add_task(self._title, total=None, rate="")
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def __call__(self, done: int, total: int) -> None:
        """Move the bar, or print a line if the last one is half a minute old."""
        now = time.monotonic()
        if self._first is None:
            self._first, self._said = (now, done), now
        began, before = self._first
        rate = (done - before) / (now - began) if now > began else 0.0
        if self._bar is not None:
            shown = f"{rate:,.0f} tokens/s" if rate else ""
            self._bar.update(self._bar.task_ids[0], completed=done, total=total, rate=shown)
        elif now - self._said >= SECONDS_BETWEEN_LINES:
            self._said = now
            left = (total - done) / max(rate, 1e-9)
            line = f"{self._title}: {done / total:.0%}, {rate:,.0f} tokens/s, {left:.0f} s left"
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
