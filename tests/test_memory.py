"""Freed memory is kept, and given back where it grows."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bertwright import memory
from bertwright.memory import FreedMemory, keep_freed_memory

MB = 1 << 20


def test_keeping_freed_memory_twice_is_keeping_it_once() -> None:
    assert keep_freed_memory() == keep_freed_memory()


def test_what_is_free_is_given_back_where_it_grew(monkeypatch: pytest.MonkeyPatch) -> None:
    held, given_back, clock = [1000 * MB], [], [0.0]
    monkeypatch.setattr(memory, "resident", lambda: held[0])
    monkeypatch.setattr("bertwright.memory.time.monotonic", lambda: clock[0])

    def give_back() -> None:
        given_back.append(held[0])
        held[0] = min(held[0], 700 * MB)

    monkeypatch.setattr(memory, "give_back", give_back)
    freed = FreedMemory()
    assert given_back == [1000 * MB]
    held[0] = 1000 * MB
    for _ in range(40):
        freed.after_step()
    held[0] = 1500 * MB
    freed.after_step()
    assert len(given_back) == 1
    apart = FreedMemory.APART
    for second, times in ((0, 2), (apart / 2, 2), (apart + 1, 3)):
        clock[0], held[0] = second, 1000 * MB
        for _ in range(3):
            freed.after_step()
        held[0] = 1510 * MB
        freed.after_step()
        assert len(given_back) == times
    monkeypatch.setattr(memory, "give_back", lambda: given_back.append(held[0]))
    for second in (3 * apart, 6 * apart, 9 * apart):  # now all of it is in use
        clock[0], held[0] = second, 1600 * MB
        for _ in range(10):
            freed.after_step()
    assert len(given_back) == 3


# In a process of its own, whose heap no other test has cut up.
_PIECES = """
import ctypes
from bertwright.memory import give_back, keep_freed_memory, resident
if not keep_freed_memory():
    print(-1)
    raise SystemExit
blocks = [ctypes.create_string_buffer(bytes([1]) * (1 << 20)) for _ in range(300)]
last = ctypes.create_string_buffer(1 << 20)
del blocks
kept = resident()
give_back()
print(kept - resident())
"""


def test_what_is_given_back_is_the_kernels() -> None:
    shown = subprocess.run([sys.executable, "-c", _PIECES], check=True, capture_output=True, text=True)
    if int(shown.stdout) < 0:
        pytest.skip("needs glibc")
    assert int(shown.stdout) > 200 * MB
