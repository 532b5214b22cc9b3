"""Lines of a report, as functions of a console."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from rich.console import Console

Say = Callable[[str], None]


def teller(console: Console) -> Say:
    """Lines of a report are never broken: a terminal does that itself, and a log should not have it done."""
    return partial(console.print, markup=False, highlight=False, soft_wrap=True)
