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


def test_what_is_free_is_given_back_where_it_grew_by_a_quarter(monkeypatch: pytest.MonkeyPatch) -> None:
    held, given_back = [1000 * MB], []
    monkeypatch.setattr(memory, "resident", lambda: held[0])
    monkeypatch.setattr(memory, "give_back", lambda: given_back.append(held[0]))
    freed = FreedMemory()
    for _ in range(40):
        freed.after_step()
    held[0] = 1500 * MB
    freed.after_step()
    assert not given_back
    held[0] = 1510 * MB
    freed.after_step()
    assert given_back == [1510 * MB]
    for _ in range(9):
        freed.after_step()
    assert len(given_back) == 1
    freed.after_step()
    assert len(given_back) == 2


# In a process of its own, whose heap no other test has cut up.
_PIECES = """
import ctypes
from bertwright.memory import give_back, keep_freed_memory, resident
assert keep_freed_memory()
blocks = [ctypes.create_string_buffer(bytes([1]) * (1 << 20)) for _ in range(300)]
last = ctypes.create_string_buffer(1 << 20)
del blocks
kept = resident()
give_back()
print(kept - resident())
"""


@pytest.mark.skipif(not keep_freed_memory(), reason="needs glibc")
def test_what_is_given_back_is_the_kernels() -> None:
    shown = subprocess.run([sys.executable, "-c", _PIECES], check=True, capture_output=True, text=True)
    assert int(shown.stdout) > 200 * MB
