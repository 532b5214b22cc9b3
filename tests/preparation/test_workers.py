"""Functions in processes of their own: results in order, errors and deaths in one line, nothing left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bertwright.errors import BertwrightError
from bertwright.preparation.workers import in_processes

Function = Callable[[int], object]


def slower_first(job: int) -> tuple[int, int]:
    time.sleep(0.05 if job % 3 == 0 else 0)
    return job, os.getpid()


def make_slower_first() -> Callable[[int], tuple[int, int]]:
    return slower_first


def refuse(job: int) -> int:
    if job == 2:
        raise BertwrightError(f"job {job} is refused")
    if job == 3:
        raise KeyError("an error of the program")
    return job


def make_refuse() -> Function:
    print("this goes to standard error, not between the answers")
    return refuse


def die(job: int) -> int:
    if job == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if job == 2:
        os._exit(7)
    return job


def make_die() -> Function:
    return die


def make_nothing() -> Function:
    raise OSError("no tokenizer here")


def environment(job: int) -> tuple[str | None, list[str]]:
    return os.environ.get("TOKENIZERS_PARALLELISM"), sys.path


def make_environment() -> Function:
    return environment


def test_results_come_in_order_from_several_processes() -> None:
    results = list(in_processes(make_slower_first, range(12), 3))
    assert [job for job, _ in results] == list(range(12))
    pids = {pid for _, pid in results}
    assert 1 < len(pids) <= 3
    assert os.getpid() not in pids


def test_jobs_are_taken_as_they_are_needed() -> None:
    taken: list[int] = []

    def jobs() -> Iterator[int]:
        for job in range(100):
            taken.append(job)
            yield job

    with contextlib.closing(in_processes(make_slower_first, jobs(), 1)) as results:
        next(results)
        assert len(taken) <= 1 + 3 + 1


def test_processes_are_as_the_caller_and_run_no_threads() -> None:
    assert list(in_processes(make_environment, [0], 1)) == [("false", sys.path)]


def test_no_jobs() -> None:
    assert list(in_processes(make_die, [], 2)) == []


def test_errors_of_users_and_of_the_program(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BertwrightError, match=r"^job 2 is refused$"):
        list(in_processes(make_refuse, [0, 1, 2], 1))
    with pytest.raises(RuntimeError, match=r"(?s)in a worker process:.*KeyError: 'an error of the program'"):
        list(in_processes(make_refuse, [3, 0, 1, 4], 1))
    assert "not between the answers" in capfd.readouterr().err


@pytest.mark.parametrize("workers", [1, 2])
def test_a_death_is_told_in_one_line(workers: int) -> None:
    killed = r"^a worker process was ended by SIGKILL, most often because memory ran out; give fewer --workers; .* goes on"
    with pytest.raises(BertwrightError, match=killed):
        list(in_processes(make_die, [0, 1, 0, 0, 0, 0, 0], workers))
    with pytest.raises(BertwrightError, match=r"^a worker process ended with exit code 7; see above"):
        list(in_processes(make_die, [0, 0, 0, 0, 2], workers))


def test_a_process_that_cannot_begin(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BertwrightError, match="ended with exit code 1; see above for what it said"):
        list(in_processes(make_nothing, range(9), 2))
    assert "OSError: no tokenizer here" in capfd.readouterr().err


def test_an_error_among_the_jobs_ends_the_processes() -> None:
    def jobs() -> Iterator[int]:
        yield 0
        raise BertwrightError("unreadable")

    with pytest.raises(BertwrightError, match="unreadable"):
        list(in_processes(make_slower_first, jobs(), 2))


SCRIPT = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background has it ignored
from test_workers import make_hold
from bertwright.preparation.workers import in_processes
# No guard against being imported: workers must not run this file again.
for pid in in_processes(make_hold, [sys.argv[1]] * 3, 2):
    pass
"""


def hold(folder: str) -> None:
    Path(folder, str(os.getpid())).touch()
    time.sleep(300)


def make_hold() -> Callable[[str], None]:
    return hold


def ended(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] == "Z"
    return True


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60  # of a busy machine
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc to see processes")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_processes_end_with_the_caller(tmp_path: Path, number: int) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    pids = tmp_path / "pids"
    pids.mkdir()
    python_path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    caller = subprocess.Popen(
        [sys.executable, str(script), str(pids)],
        env=os.environ | {"PYTHONPATH": python_path},
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: len(list(pids.iterdir())) == 2)
    os.kill(caller.pid, number)
    said = caller.communicate(timeout=60)[1]
    assert caller.returncode != 0
    assert ("KeyboardInterrupt" in said) == (number == signal.SIGINT)
    assert said.count("Traceback") == (number == signal.SIGINT), said
    wait_until(lambda: all(ended(int(path.name)) for path in pids.iterdir()))
