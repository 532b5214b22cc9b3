"""Writing is whole or not at all, and what the system says about it ends in one line."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bertwright import atomic
from bertwright.atomic import atomic_directory, atomic_write_bytes, atomic_write_stream, atomic_write_text
from bertwright.errors import BertwrightError, BertwrightWarning


def contents(directory: Path) -> dict[str, str]:
    return {str(path.relative_to(directory)): path.read_text() for path in directory.rglob("*") if path.is_file()}


def fill(target: Path, *, overwrite: bool = False, error: BaseException | None = None, of: str | None = None) -> None:
    """Write a file "new" into an atomic directory, then raise the error, as one about the file `of` in it."""
    with atomic_directory(target, overwrite=overwrite) as directory:
        (directory / "new").write_text("new")
        if isinstance(error, OSError) and of is not None:
            error.filename = str(directory / of)
        if error is not None:
            raise error


def make_old(target: Path) -> Path:
    target.mkdir()
    (target / "old").write_text("old")
    return target


def test_directory_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "runs" / "one"
    with atomic_directory(target, overwrite=False) as directory:
        assert directory.parent == target.parent
        (directory / "deep").mkdir()
        (directory / "deep" / "a.txt").write_text("a")
        assert not target.exists()
    assert contents(tmp_path) == {"runs/one/deep/a.txt": "a"}
    usual = tmp_path / "usual"
    usual.mkdir()
    assert target.stat().st_mode == usual.stat().st_mode


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit, BertwrightError])
def test_failed_directory_leaves_nothing(tmp_path: Path, overwrite: bool, error: type[BaseException]) -> None:
    target = tmp_path / "run"
    if overwrite:
        make_old(target)
    with pytest.raises(error):
        fill(target, overwrite=overwrite, error=error())
    assert contents(tmp_path) == ({"run/old": "old"} if overwrite else {})
    assert len(list(tmp_path.iterdir())) == overwrite


def test_existing_directory_needs_overwrite(tmp_path: Path) -> None:
    target = make_old(tmp_path / "run")
    with pytest.raises(BertwrightError, match=r"already there; .* replace it with --overwrite"):
        fill(target)
    assert contents(tmp_path) == {"run/old": "old"}
    with atomic_directory(target, overwrite=True) as directory:
        (directory / "new").write_text("new")
        assert contents(target) == {"old": "old"}
    assert contents(tmp_path) == {"run/new": "new"}
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_empty_directory_has_nothing_to_lose(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "run").mkdir()
    fill(tmp_path / "run", overwrite=overwrite)
    assert contents(tmp_path) == {"run/new": "new"}


def test_target_that_another_run_made_meanwhile(tmp_path: Path) -> None:
    run = atomic_directory(tmp_path / "run", overwrite=False)
    run.__enter__()
    make_old(tmp_path / "run")
    with pytest.raises(BertwrightError, match="Directory not empty"):
        run.__exit__(None, None, None)
    assert contents(tmp_path) == {"run/old": "old"}


@pytest.mark.parametrize("error", [OSError(errno.EBUSY, "busy"), KeyboardInterrupt()])
def test_failed_swap_puts_the_old_one_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    target = make_old(tmp_path / "run")
    rename = Path.rename

    def fail_second(self: Path, to: Path) -> Path:
        if self.name.endswith(".partial"):
            assert not target.exists()
            raise error
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", fail_second)
    with pytest.raises((BertwrightError, KeyboardInterrupt)):
        fill(target, overwrite=True)
    assert contents(tmp_path) == {"run/old": "old"}
    assert len(list(tmp_path.iterdir())) == 1


def test_old_directory_outlives_the_swap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = make_old(tmp_path / "run")
    monkeypatch.setattr("shutil.rmtree", lambda path, ignore_errors: None)
    with pytest.warns(BertwrightWarning, match="not all of the old one could be removed"):
        fill(target, overwrite=True)
    assert contents(target) == {"new": "new"}
    assert sorted(contents(tmp_path).values()) == ["new", "old"]


def test_overwrite_spares_the_working_directory_and_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "work" / "deep").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "thesis.tex").touch()
    monkeypatch.chdir(tmp_path / "work" / "deep")
    for target in (Path("/"), Path.home(), tmp_path, Path("..")):
        with pytest.raises(BertwrightError, match="would delete; refused"):
            fill(target, overwrite=True)


def test_directory_through_a_link(tmp_path: Path) -> None:
    make_old(tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    fill(tmp_path / "link", overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert contents(tmp_path / "real") == {"new": "new"}


def test_file_in_the_way(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for overwrite in (False, True):
        with pytest.raises(BertwrightError, match="a file is there"):
            fill(file, overwrite=overwrite)
    with pytest.raises(BertwrightError, match=r"cannot write .*; choose a place that"):
        fill(file / "run")
    with pytest.raises(BertwrightError, match=r"cannot write .*; choose a place that"):
        atomic_write_text(file / "a.txt", "a")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_is_one_line(tmp_path: Path, number: int) -> None:
    target = tmp_path / "run"
    with pytest.raises(BertwrightError) as error:
        fill(target, error=OSError(number, os.strerror(number)))
    assert str(error.value) == f"cannot write {target}: {os.strerror(number)}; free some space or choose another place"
    assert list(tmp_path.iterdir()) == []


def test_full_disk_while_flushing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    make_old(tmp_path / "run")
    (tmp_path / "a.txt").write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BertwrightError, match="No space left"):
        fill(tmp_path / "run", overwrite=True)
    with pytest.raises(BertwrightError, match="No space left"):
        atomic_write_text(tmp_path / "a.txt", "new")
    assert contents(tmp_path) == {"run/old": "old", "a.txt": "old"}


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_errors_about_other_files_are_passed_on(tmp_path: Path, number: int) -> None:
    target = tmp_path / "run"
    with pytest.raises(OSError, match="elsewhere"):
        fill(target, error=OSError(number, os.strerror(number), str(tmp_path / "elsewhere")))
    with pytest.raises(BertwrightError, match="choose a place that can be written"):
        fill(target, error=OSError(number, os.strerror(number)), of="inside")
    with pytest.raises(ConnectionError):
        fill(target, error=ConnectionError("no file at all"))
    assert list(tmp_path.iterdir()) == []


# An empty package in the place of the whole, which takes seconds to import and is not needed to write a file.
LIMITED = """
import resource, sys, torch, types
from pathlib import Path
sys.modules["bertwright"] = package = types.ModuleType("bertwright")
package.__path__ = [sys.argv[2]]
from bertwright.atomic import atomic_directory, atomic_write_bytes
from bertwright.checkpoint import write_weights
from bertwright.errors import BertwrightError, BertwrightWarning
target = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    with atomic_directory(target / "run", overwrite=True) as directory:
        (directory / "small").write_text("small")
        write_weights(directory, {"a": torch.zeros(100_000)})
except BertwrightError as error:
    print(error)
try:
    atomic_write_bytes(target / "file", bytes(200_000))
except BertwrightError as error:
    print(error)
"""


def test_file_size_limit_for_real(tmp_path: Path) -> None:
    make_old(tmp_path / "run")
    (tmp_path / "file").write_text("old")
    command = [sys.executable, "-c", LIMITED, str(tmp_path), str(Path(atomic.__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    lines = done.stdout.splitlines()
    assert len(lines) == 2, done.stderr
    for line, name in zip(lines, ("run", "file"), strict=True):
        assert line.startswith(f"cannot write {tmp_path / name}: File too large; ")
        assert "ulimit -f" in line
    assert contents(tmp_path) == {"run/old": "old", "file": "old"}


def test_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.txt"
    atomic_write_text(path, "öne\r\ntwo\n")
    assert path.read_bytes() == "öne\r\ntwo\n".encode()
    (tmp_path / "link").symlink_to(path)
    atomic_write_bytes(tmp_path / "link", b"three")
    assert (tmp_path / "link").is_symlink()
    assert path.read_bytes() == b"three"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]
    usual = tmp_path / "usual"
    usual.touch()
    assert path.stat().st_mode == usual.stat().st_mode


def test_interrupted_file_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        atomic_write_text(path, "new")
    assert contents(tmp_path) == {"a.txt": "old"}


def test_stream_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("old")

    def write(error: bool) -> None:
        with atomic_write_stream(path) as file:
            file.write("new\n")
            assert path.read_text() == "old"
            if error:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(error=True)
    assert contents(tmp_path) == {"rows.jsonl": "old"}
    write(error=False)
    assert contents(tmp_path) == {"rows.jsonl": "new\n"}
