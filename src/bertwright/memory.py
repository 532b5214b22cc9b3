"""Keep freed memory inside the process, but not ever more of it.

A training step frees and allocates the same few hundred megabytes again. By default glibc hands large blocks back to
the kernel, which then clears every page anew: ten thousand page faults a step, a tenth of the time on two cores.

Steps are of unlike sizes, though, and what is kept falls into pieces that fit none of the next: fine-tuning on SQuAD
held 6 GB after 1,800 steps of 2. Now and then all that is free is given back, which costs one step its page faults.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
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
    """Watches how much a run of many steps holds, and gives back what is free where that has grown."""

    SETTLED = 20  # steps, after which all sizes have occurred
    APART = 10  # steps at least from one time to the next, so that it costs little even if it does not help
    GROWTH = 1.25
    LITTLE = 256 << 20  # bytes

    def __init__(self) -> None:
        self._step = 0
        self._next = self.SETTLED
        self._usual = 0

    def after_step(self) -> None:
        """Look at the memory, and give back what is free if it is by more than a quarter above what it was at first."""
        self._step += 1
        held = resident()
        if self._step <= self.SETTLED:
            self._usual = max(self._usual, held)
        elif self._step >= self._next and held > self.GROWTH * self._usual + self.LITTLE:
            give_back()
            self._next = self._step + self.APART


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
