"""A long evaluation shows how far it is, on a terminal and elsewhere."""

from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console

from bertwright.evaluation.progress import TokenProgress


def test_a_terminal_gets_a_bar() -> None:
    page = io.StringIO()
    console = Console(file=page, width=80, force_terminal=True, color_system=None)
    with TokenProgress("scoring [red]", console) as report:
        report(100, 1000)
        report(500, 1000)
        assert report._bar is not None
        report._bar.refresh()
    shown = page.getvalue()
    assert "scoring [red]" in shown
    assert "50%" in shown
    assert "tokens/s" in shown


def test_a_quiet_console_leaves_standard_output_to_others() -> None:
    before = sys.stdout
    with TokenProgress("scoring", Console(file=io.StringIO(), quiet=True, force_terminal=True)) as report:
        assert sys.stdout is before
        report(1, 2)


def test_what_comes_before_the_first_batch_is_no_part_of_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("bertwright.evaluation.progress.time.monotonic", lambda: clock[-1])
    page = io.StringIO()
    with TokenProgress("scoring", Console(file=page, width=20)) as report:
        for now, done in ((1000.0, 100), (1050.0, 5100)):  # reading and tokenizing took a long time
            clock.append(now)
            report(done, 10_100)
    assert page.getvalue().splitlines() == ["scoring: 50%, 100 tokens/s, 50 s left"]


def test_elsewhere_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("bertwright.evaluation.progress.time.monotonic", lambda: clock[-1])
    page = io.StringIO()
    with TokenProgress("scoring", Console(file=page, width=20)) as report:
        for now, done in ((110.0, 1000), (140.0, 4000), (150.0, 5000), (180.0, 8000)):
            clock.append(now)
            report(done, 10_000)
    assert page.getvalue().splitlines() == [
        "scoring: 40%, 100 tokens/s, 60 s left",
        "scoring: 80%, 100 tokens/s, 20 s left",
    ]
