"""What is told while a user waits: lines of a report, and how far a long computation is."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from rich.console import Console

Say = Callable[[str], None]

Progress = Callable[[int, int], None]
"""Called now and then with the tokens that are done, and all."""


def teller(console: Console) -> Say:
    """Lines of a report are never broken: a terminal does that itself, and a log should not have it done."""
    return partial(console.print, markup=False, highlight=False, soft_wrap=True)


def silent(done: int, total: int) -> None:
    """A `Progress` that nobody watches."""
