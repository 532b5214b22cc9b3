"""Files and directories that appear whole or not at all, whatever stops the writing."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Literal, TextIO, TypeVar

from bertwright.errors import BertwrightError, tell


@contextlib.contextmanager
def atomic_directory(target: str | Path, *, overwrite: bool) -> Iterator[Path]:
    """Fill a directory that appears whole or not at all.

    Yields a fresh directory beside the target. When the block ends, its files are flushed to the disk and it is renamed
    into place; when the block raises anything, even KeyboardInterrupt, it is removed and an old target stays as it was.
    A replaced target is deleted only once the new one is in place. A target that is a link is followed.

    Args:
        target: The directory to make; its parents are made too. An empty one counts as not there.
        overwrite: Replace a target that holds something.

    Raises:
        BertwrightError: The target is there and `overwrite` is off, or is no directory, or holds the working or home
            directory; or the disk is full or cannot be written.
    """
    target = Path(target).resolve()
    with _one_line(target):
        if target.exists():
            check_replaceable(target, overwrite)
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh, old = siblings(target)
        fresh.mkdir()
    try:
        with _one_line(target, only_in=fresh):
            yield fresh
        with _one_line(target):
            for folder, _, files in os.walk(fresh):
                for path in (*(Path(folder, file) for file in files), Path(folder)):
                    _sync(path)
            move_into_place(fresh, target, old if overwrite else None)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def check_replaceable(target: Path, overwrite: bool) -> None:
    """Refuse a target that is a file, or a directory that must not be replaced."""
    if not target.is_dir():
        raise BertwrightError(f"{target}: a file is there where a directory belongs; choose another --out")
    if not any(target.iterdir()):
        return
    if not overwrite:
        raise BertwrightError(f"{target}: already there; choose another --out, or replace it with --overwrite")
    if any(place.resolve().is_relative_to(target) for place in (Path.cwd(), Path.home())):
        raise BertwrightError(f"{target}: holds the working or home directory, which --overwrite would delete; refused")


def siblings(target: Path) -> tuple[Path, Path]:
    """Return two unused paths beside the target, on its file system, whose names tell whose they are."""
    stem = f".{target.name[:40]}.{secrets.token_hex(4)}"
    return target.with_name(f"{stem}.partial"), target.with_name(f"{stem}.old")


def move_into_place(fresh: Path, target: Path, old: Path | None) -> None:
    """Rename ``fresh`` to ``target``; what is there goes to ``old`` first, and away once the new one is in place."""
    if old is None or not target.exists():
        fresh.rename(target)
        _sync(target.parent)
        return
    try:
        target.rename(old)
        fresh.rename(target)
    except BaseException:
        if old.exists() and not target.exists():
            old.rename(target)
        raise
    _sync(target.parent)
    shutil.rmtree(old, ignore_errors=True)
    if old.exists():
        tell(f"{target}: replaced, but not all of the old one could be removed: see {old}")


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # Windows opens no directories
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def atomic_write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file that holds, at any instant, either what it held before or all of the data.

    Makes the parent directories; follows a link.

    Raises:
        BertwrightError: The disk is full or cannot be written; the old file is as it was.
    """
    with _one_line(Path(path).resolve()), atomic_binary_stream(path) as file:
        file.write(data)


def atomic_write_text(path: str | Path, text: str) -> None:
    """Write a text as UTF-8 with its line ends as they are; see `atomic_write_bytes`."""
    atomic_write_bytes(path, text.encode())


def atomic_write_stream(path: str | Path) -> contextlib.AbstractContextManager[TextIO]:
    """Yield a text file to write to that takes its place when the block ends well; see `atomic_write_bytes`.

    A pipe or a device that is there is written to as it is.
    """
    return _stream(path, lambda file, mode: file.open(mode, encoding="utf-8", newline=""))


def atomic_binary_stream(path: str | Path) -> contextlib.AbstractContextManager[BinaryIO]:
    """Yield a binary file to write to, as `atomic_write_stream` does."""
    return _stream(path, lambda file, mode: file.open("wb" if mode == "w" else "xb"))


_File = TypeVar("_File", TextIO, BinaryIO)


@contextlib.contextmanager
def _stream(path: str | Path, opened: Callable[[Path, Literal["w", "x"]], _File]) -> Iterator[_File]:
    path = Path(path)
    if path.exists() and not path.is_file() and not path.is_dir():
        with _one_line(path, only_in=path), opened(path, "w") as file:
            if isinstance(file, io.TextIOWrapper):
                file.reconfigure(line_buffering=True)  # somebody may read a pipe as it goes
            yield file
        return
    path = path.resolve()
    with _one_line(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh, _ = siblings(path)
    try:
        with _one_line(path, only_in=fresh), opened(fresh, "x") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        with _one_line(path):
            fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    _sync(path.parent)


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def _one_line(target: Path, *, only_in: Path | None = None) -> Iterator[None]:
    """Turn what the system says about writing the target into one line; `only_in` spares errors about other files."""
    try:
        yield
    except OSError as error:
        elsewhere = only_in is not None and not Path(os.fsdecode(error.filename or "")).is_relative_to(only_in)
        if error.errno not in _FULL and elsewhere:
            raise
        if error.errno == errno.EFBIG:
            remedy = "the file system, or `ulimit -f`, allows no file of that size; choose another place"
        elif error.errno in _FULL:
            remedy = "free some space or choose another place"
        else:
            remedy = "choose a place that can be written"
        raise BertwrightError(f"cannot write {target}: {error.strerror or error}; {remedy}") from error
