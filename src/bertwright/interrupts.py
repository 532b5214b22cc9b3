"""Ctrl-C and SIGTERM: end after the current step, with what is there kept."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass


class Stopped(KeyboardInterrupt):
    """The user or the system ended a run; its message says what is kept and how to go on.

    ``signal`` is the number of the signal that asked for it; the command line leaves with 128 more than that.
    """

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


@contextlib.contextmanager
def stopped_saying(message: str) -> Iterator[None]:
    """Let an interrupt inside, which has nothing to say itself, say this."""
    try:
        yield
    except KeyboardInterrupt as stop:
        number = stop.signal if isinstance(stop, Stopped) else signal.SIGINT
        raise Stopped(str(stop) or message, number) from None


_PATIENCE = 5.0  # seconds after which a second SIGTERM ends a run at once


@dataclass
class Stopping:
    """Whether a run has been asked to end, by which signal, and when."""

    signal: int = 0
    since: float = 0.0

    def asked(self) -> bool:
        """Whether it has been."""
        return self.signal != 0


@contextlib.contextmanager
def stop_on_signal(say: Callable[[str], None]) -> Iterator[Stopping]:
    """Let Ctrl-C, SIGTERM and a closed terminal end the work after the current step; a second one ends it at once."""
    stopping = Stopping()
    if threading.current_thread() is not threading.main_thread():
        yield stopping
        return

    def handle(number: int, frame: object) -> None:
        # Under a scheduler SIGTERM comes twice within moments, directly and from the process above.
        if stopping.asked() and (number == signal.SIGINT or time.monotonic() - stopping.since > _PATIENCE):
            raise Stopped("", number)
        if stopping.asked():
            return
        stopping.signal, stopping.since = number, time.monotonic()
        say("stopping after this step; what is best so far is kept (again to stop at once)")

    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # else nohup asks to go on
        numbers.append(signal.SIGHUP)  # the terminal was closed
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
