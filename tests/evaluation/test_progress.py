"""A long evaluation shows how far it is, on a terminal and elsewhere."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from bertwright.evaluation.progress import TokenProgress


def test_a_terminal_gets_a_bar() -> None:
    page = io.StringIO()
    console = Console(file=page, width=80, force_terminal=True, color_system=None)
    with TokenProgress("scoring [red]", console) as report:
        report(500, 1000)
        assert report._bar is not None
        report._bar.refresh()
    shown = page.getvalue()
    assert "scoring [red]" in shown
    assert "50%" in shown
    assert "tokens/s" in shown


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
