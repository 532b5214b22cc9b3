"""What a preparation shows: a bar while it runs, a table when it is done."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from bertwright.data.corpus import Skipped
from bertwright.data.shards import PARTS, SKIPPED, Count, FileEntry, Manifest
from bertwright.data.units import Finished, shard_name

_SHOWN = 5  # of what was skipped
_EVERY = 30.0  # seconds between lines where there is no bar


@dataclass
class Tally:
    """The sum of the units that are done."""

    documents: int = 0
    duplicates: int = 0
    text_bytes: int = 0
    input_bytes: int = 0
    empty_documents: int = 0
    empty_sentences: int = 0
    skipped: int = 0
    first_skipped: list[Skipped] = field(default_factory=list)
    shards: dict[str, dict[str, Count]] = field(default_factory=lambda: {part: {} for part in PARTS})
    files: dict[str, dict[str, FileEntry]] = field(default_factory=dict)  # of each shard
    tokens: int = 0
    new_tokens: int = 0  # without those of kept shards
    kept: int = 0  # shards

    def add(self, unit: Finished) -> None:
        """Add one unit."""
        read, record = unit.read, unit.record
        self.documents += read.documents
        self.duplicates += read.duplicates
        self.text_bytes += read.text_bytes
        self.input_bytes += read.input_bytes
        self.empty_documents += record.empty_documents
        self.empty_sentences += record.empty_sentences
        self.skipped += len(read.skipped)
        self.first_skipped += read.skipped[: _SHOWN - len(self.first_skipped)]
        tokens = sum(count.tokens for count in record.parts.values())
        self.tokens += tokens
        self.new_tokens += 0 if unit.kept else tokens
        self.kept += unit.kept
        if record.files:
            self.files[shard_name(unit.number)] = dict(record.files)
        for part, count in record.parts.items():
            self.shards[part][shard_name(unit.number)] = count

    def parts(self) -> dict[str, Count]:
        """What each part holds."""
        return {part: sum(shards.values(), start=Count()) for part, shards in self.shards.items()}


@dataclass(frozen=True)
class Prepared:
    """What a preparation made.

    ``skipped`` has the first few of what could not be read; ``skipped.jsonl`` in ``out`` has all. ``kept`` of the
    ``shards`` were finished by an earlier run that was stopped; ``seconds`` and ``tokens_per_second`` are of this run.
    """

    out: Path
    manifest: Manifest
    skipped: tuple[Skipped, ...]
    shards: int
    kept: int
    seconds: float
    tokens_per_second: float

    def table(self) -> Table:
        """The report, for a terminal of 80 columns."""
        manifest = self.manifest
        total, aside = sum(manifest.parts.values(), start=Count()), manifest.parts["heldout"]
        table = Table(title=Text(f"prepared: {self.out}"), show_header=False, title_justify="left", width=80)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")

        def row(name: str, value: str) -> None:
            table.add_row(name, Text(value))

        row("documents", f"{total.documents:,}, {aside.documents:,} of them set aside for evaluation")
        row("sentences", f"{total.sentences:,}, {aside.sentences:,} of them set aside")
        row("tokens", f"{total.tokens:,}, {aside.tokens:,} of them set aside")
        row("unknown", f"{total.unknown / max(total.tokens, 1):.4%} of the tokens are [UNK]")
        row("duplicates", f"{manifest.duplicates:,} documents dropped as exact duplicates")
        row("empty", f"{manifest.empty_documents:,} documents and {manifest.empty_sentences:,} sentences without a token")
        row("skipped", f"{manifest.skipped:,} that could not be read")
        for one in self.skipped:
            row("", f"{one.where}: {one.reason}")
        if manifest.skipped > len(self.skipped):
            row("", f"and {manifest.skipped - len(self.skipped):,} more, in {self.out / SKIPPED}")
        row(
            "shards", f"{self.shards:,}" + (f", {self.kept:,} of them kept from a run that was stopped" if self.kept else "")
        )
        row("time", f"{self.seconds:,.1f} s, {self.tokens_per_second:,.0f} tokens/s")
        return table


class ProgressBar:
    """A bar with MB of text a second, documents, tokens and time left on a terminal; elsewhere a line now and then.

    How far it is goes by the bytes of the input, as they lie on the disk; None if they are not known.
    """

    def __init__(self, input_bytes: int | None, console: Console) -> None:
        self._input_bytes = input_bytes
        self._console = console
        self._began = self._said = time.monotonic()
        self._bar: Progress | None = None
        if console.is_terminal:
            self._bar = Progress(
                TextColumn("preparing"),
                BarColumn(bar_width=None),
                TextColumn("{task.fields[done]}"),
                TextColumn("{task.fields[rate]}", style="progress.data.speed"),
                TimeRemainingColumn(compact=True),
                console=console,
            )
            self._bar.add_task("preparing", total=input_bytes, done="", rate="")

    def __enter__(self) -> ProgressBar:
        """Show the bar."""
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()

    def show(self, tally: Tally) -> None:
        """Move the bar, or print a line if the last one is half a minute old."""
        now = time.monotonic()
        seconds = max(now - self._began, 1e-9)
        done = f"{tally.documents:,} documents, {tally.tokens:,} tokens"
        rate = f"{tally.text_bytes / seconds / 1e6:.1f} MB/s"
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=tally.input_bytes, done=done, rate=rate)
        elif now - self._said > _EVERY:
            self._said = now
            line = f"preparing: {done}, {rate}"
            if self._input_bytes is not None:
                line += f", {seconds * (self._input_bytes / max(tally.input_bytes, 1) - 1):.0f} s left"
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
