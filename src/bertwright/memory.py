"""Keep freed memory inside the process, but not ever more of it.

A training step frees and allocates the same few hundred megabytes again. By default glibc hands large blocks back to
the kernel, which then clears every page anew: ten thousand page faults a step, a tenth of the time on two cores.

Steps are of unlike sizes, though, and what is kept falls into pieces that fit none of the next: fine-tuning on SQuAD
held 6 GB after 1,800 steps of 2. Now and then all that is free is given back, which costs one step its page faults.
"""

from __future__ import annotations

import ctypes
import functools
import math
import os
import sys
import time
from pathlib import Path

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_MADV_HUGEPAGE = 14
_HEAP_STEP = 256 << 20
_STATM = Path("/proc/self/statm")


@functools.cache
def keep_freed_memory() -> bool:
    """Tell glibc to keep freed blocks and back its heap with large pages; True where that worked.

    Idempotent, and without effect on results. Blocks of 32 MiB or more still come and go.
    """
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        mallopt, malloc, free, madvise = libc.mallopt, libc.malloc, libc.free, libc.madvise
    except AttributeError:  # another C library
        return False
    done = all(
        mallopt(option, value) == 1
        for option, value in ((_M_MMAP_THRESHOLD, 32 << 20), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, _HEAP_STEP))
    )
    malloc.restype, malloc.argtypes, free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    # One block under the mmap threshold makes the heap grow by _HEAP_STEP at once; large pages are asked for there.
    block = malloc(31 << 20)
    if block:
        page = 2 << 20
        start = (block + page - 1) // page * page
        madvise(start, _HEAP_STEP // page * page, _MADV_HUGEPAGE)
        free(block)
    return done


class FreedMemory:
    """Watches how much a run of many steps on a CPU holds, and gives back what is free where that has grown.

    It begins by giving back what an earlier run has left.
    """

    FEW = 3  # steps after free memory was given back: what they hold is what steps need
    APART = 60  # seconds from one time to the next, as each costs the page faults of up to a second
    GROWTH = 1.25
    LITTLE = 256 << 20  # bytes

    def __init__(self) -> None:
        self._steps = 0  # since memory was given back
        self._last = -math.inf
        self._needed = 0
        give_back()

    def after_step(self) -> None:
        """Give back what is free if more is held than GROWTH times what steps need, and LITTLE."""
        self._steps += 1
        held = resident()
        if self._steps <= self.FEW:
            self._needed = max(self._needed, held)
        elif held > self.GROWTH * self._needed + self.LITTLE and time.monotonic() > self._last + self.APART:
            give_back()
            self._last, self._steps, self._needed = time.monotonic(), 0, 0


def resident() -> int:
    """Bytes of this process in memory; 0 where the system does not tell."""
    try:
        return int(_STATM.read_bytes().split()[1]) * os.sysconf("SC_PAGESIZE")
    except OSError:
        return 0


def give_back() -> None:
    """Hand all pages that glibc holds free to the kernel; nothing with another C library."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None
    if trim is not None:
        trim(0)
