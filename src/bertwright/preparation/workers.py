"""A function over many inputs, in fresh Python processes of its own.

Unlike those of `multiprocessing`, these processes never import the caller's main module again, so a plain script or a
notebook may start them; they see no Ctrl-C, which is the caller's to handle; they end at once when the caller dies, by
SIGKILL too; and one that dies itself is noticed at once.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, BinaryIO, TypeVar

from bertwright.errors import BertwrightError

Job = TypeVar("Job")
Result = TypeVar("Result")

# The processes share the cores: none runs threads of its own.
_ONE_THREAD = {
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
}


def in_processes(
    make: Callable[[], Callable[[Job], Result]], jobs: Iterable[Job], workers: int, *, keep_open: Sequence[int] = ()
) -> Generator[Result, None, None]:
    """Yield the result of each job, in the order of the jobs.

    At most two jobs more than there are workers are under way. Close the generator, as `contextlib.closing` does, to
    end the processes before the last result.

    Args:
        make: Called once in each process; gives the function. It, the jobs and the results are sent by `pickle`.
        jobs: Taken one by one, in this process.
        workers: Processes; 0 for one on each core.
        keep_open: File descriptors that the processes hold open for as long as they live, such as that of a lock.

    Raises:
        BertwrightError: a process died, as when the system runs out of memory; or the function raised one.
        RuntimeError: the function raised anything else; the message holds its traceback.
    """
    workers = workers or _cores()
    processes = [_Process(make, keep_open) for _ in range(workers)]
    idle: queue.SimpleQueue[_Process] = queue.SimpleQueue()
    for process in processes:
        idle.put(process)

    def run(job: Job) -> Result:
        process = idle.get()
        try:
            result: Result = process.call(job)
        finally:
            idle.put(process)  # a dead one too: whoever gets it hears so, instead of waiting
        return result

    threads = ThreadPoolExecutor(workers)
    under_way: deque[Future[Result]] = deque()
    try:
        for job in jobs:
            under_way.append(threads.submit(run, job))
            while len(under_way) > workers + 2 or (under_way and under_way[0].done()):
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        for process in processes:
            process.kill()
        threads.shutdown(cancel_futures=True)
        for process in processes:
            process.close()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Process:
    """One process, which answers one job at a time over its standard input and output."""

    def __init__(self, make: Callable[[], object], keep_open: Sequence[int]) -> None:
        begin = f"import sys; sys.path[:] = {sys.path!r}; from bertwright.preparation.workers import _serve; _serve()"
        self._process = subprocess.Popen(
            [sys.executable, "-c", begin],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | _ONE_THREAD,
            pass_fds=keep_open,
            process_group=0,  # the terminal sends Ctrl-C to the caller's group only
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._jobs, self._replies = self._process.stdin, self._process.stdout
        with contextlib.suppress(OSError):  # it died already: the first call says so
            _send(make, self._jobs)

    def call(self, job: object) -> Any:
        try:
            _send(job, self._jobs)
            result, error, trace = pickle.load(self._replies)
        except (EOFError, OSError, pickle.UnpicklingError) as dead:
            raise BertwrightError(self._death()) from dead
        if error is not None:
            raise error
        if trace is not None:
            raise RuntimeError(f"in a worker process:\n{trace}")
        return result

    def _death(self) -> str:
        code = self._process.wait()
        if code >= 0:
            return f"a worker process ended with exit code {code}; see above for what it said"
        cause = "most often because memory ran out; give fewer --workers" if code == -signal.SIGKILL else "from outside"
        return f"a worker process was ended by {signal.Signals(-code).name}, {cause}; the same command goes on from here"

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> None:
        self._process.wait()
        self._replies.close()
        with contextlib.suppress(OSError):  # what was not yet sent stays unsent
            self._jobs.close()


def _send(value: object, stream: Any) -> None:
    pickle.dump(value, stream, protocol=pickle.HIGHEST_PROTOCOL)
    stream.flush()


def _serve() -> None:
    """Be a worker process: read a maker of a function, then jobs, from standard input; answer on standard output."""
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # so that nothing that is printed mixes with the answers
    received: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(sys.stdin.buffer, received), daemon=True).start()
    try:
        function = received.get()()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)  # an ordinary exit would wait for the thread that reads
    while True:
        job = received.get()
        reply: tuple[Any, BertwrightError | None, str | None]
        try:
            reply = (function(job), None, None)
        except BertwrightError as error:
            reply = (None, error, None)
        except Exception:
            reply = (None, None, traceback.format_exc())
        _send(reply, replies)


def _receive(stream: BinaryIO, received: queue.SimpleQueue[Any]) -> None:
    while True:
        try:
            received.put(pickle.load(stream))
        except (EOFError, pickle.UnpicklingError):
            os._exit(0)  # the caller is gone, and with it whoever wants a result, even in the middle of a job
