"""What a user can cause, and what a user should be told."""

from __future__ import annotations

import difflib
import os
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path

MANY = 20  # rows, from which on what is odd about all or most of them is a slip more often than chance
_PACKAGE = str(Path(__file__).parent) + os.sep


class BertwrightError(ValueError):
    """A mistake that a user can mend: the message names the file, the line, the value and the remedy in one line.

    The command line prints it without a traceback and exits with code 2.
    """


class BertwrightWarning(UserWarning):
    """Something the user asked for has no effect, or something was counted, cut or left out."""


def tell(message: str) -> None:
    """Warn the user of something that is no error but must not stay silent; the place named is the caller's own."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, BertwrightWarning, stacklevel=level)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest known name, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""
