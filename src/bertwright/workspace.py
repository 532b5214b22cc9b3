"""The place of an unfinished run: everything lies in ``<out>.training`` until ``<out>`` appears whole.

It holds the recipe that the run began with, a digest of its rows, and a folder for each seed. While it is there, the
run can be resumed; when a run fails with nothing to resume, it goes away.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import re
import shlex
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, TypeVar

from safetensors import SafetensorError

from bertwright.atomic import atomic_write_text
from bertwright.data.hub_rows import is_hub
from bertwright.errors import BertwrightError, tell
from bertwright.hub import UNFINISHED
from bertwright.model_files import holds_model
from bertwright.training.options import Options, flag
from bertwright.training.processes import program

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

FINISHED = "finished.json"
_DATA = "data.sha256"
_LAUNCH = "launch"  # which call of torchrun went on with the run last
_LOCK = "lock"  # held by the process that works on the run, for as long as it lives

_FIRST = {_DATA, _LAUNCH, _LOCK}  # what is written before the recipe
_REMEDY = "choose an --out that can be written, with space left"

Kind = TypeVar("Kind", bound=Options)


_COMMAND: ContextVar[str | None] = ContextVar("command", default=None)


@contextlib.contextmanager
def named_command(command: str) -> Iterator[None]:
    """Inside, it is this command that goes on with a run: one that calls another's function, and does more."""
    token = _COMMAND.set(command)
    try:
        yield
    finally:
        _COMMAND.reset(token)


def resume_command(command: str, out: Path) -> str:
    """What to type to go on with an unfinished run of ``bertwright COMMAND``."""
    command = _COMMAND.get() or command
    return f"{program()} {command} --resume --out {shlex.quote(str(out))}"


@dataclass(frozen=True)
class Workspace:
    """``out`` is the model directory to make, ``folder`` holds the run until then."""

    out: Path
    folder: Path
    kind: type[Options]

    @property
    def resume_command(self) -> str:
        """What to type to go on with the run."""
        return resume_command(self.kind.COMMAND, self.out)

    @classmethod
    def claim(cls, recipe: Options) -> Workspace:
        """Check, before any work, that the run may write where the recipe says; writes nothing.

        Raises:
            BertwrightError: no directory is named, one is in the way, or there is nothing to resume.
        """
        if recipe.out is None or not Path(recipe.out).name:
            raise BertwrightError("--out is missing: name the directory that the model is to be written to")
        if recipe.resume and recipe.overwrite:
            raise BertwrightError("--resume goes on with a run, --overwrite begins it anew: give one of them")
        out, folder = Path(recipe.out), _folder(Path(recipe.out))
        if recipe.resume:
            if not (folder / recipe.FILE).is_file():
                done = f" ({out} is finished)" if (out / recipe.FILE).is_file() else ""
                raise BertwrightError(f"{folder}: nothing to resume{done}; leave --resume out to begin a run")
            _check_replaceable(recipe, out)
        elif recipe.overwrite:
            _check_replaceable(recipe, out)
        else:
            # A folder without a recipe is what a kill left of the first moment of a run.
            if folder.exists() and (not folder.is_dir() or {path.name for path in folder.iterdir()} - _FIRST):
                raise BertwrightError(
                    f"{folder}: an unfinished run; go on with: {resume_command(recipe.COMMAND, out)}; "
                    "or begin anew with --overwrite"
                )
            if out.exists() and (not out.is_dir() or any(out.iterdir())):
                raise BertwrightError(
                    f"{out}: holds something already; choose another --out, or replace it with --overwrite"
                )
        return cls(out, folder, type(recipe))

    def resumed(self, kind: type[Kind], given: Mapping[str, Any]) -> Kind:
        """Return the recipe that the run began with, with what ``given`` changes of it; a change is told.

        Raises:
            BertwrightError: ``given`` changes what the saved states depend on.
        """
        file = self.folder / kind.FILE
        began = kind.of(kind.read(file), where=str(file))
        replaced = kind.replaced(given)
        recipe = kind.of({name: v for name, v in dataclasses.asdict(began).items() if name not in replaced}, given)
        changed = {f.name for f in dataclasses.fields(kind) if getattr(began, f.name) != getattr(recipe, f.name)}
        # One goes untold where another is told that takes its place.
        untold = {name for group in kind.ALTERNATIVES for name in group & replaced if (group - {name}) & changed}
        for name in (f.name for f in dataclasses.fields(kind) if f.name not in kind.FREE | untold):
            before, now = getattr(began, name), getattr(recipe, name)
            if before != now and name in kind.MAY_CHANGE - kind.OF_SEEDS and any(self.folder.glob(f"*/{FINISHED}")):
                had = "without it" if before is None else f"with {before!r}"
                raise BertwrightError(
                    f"--resume: {flag(name)} is {_shown(now)}, but seeds are finished that were trained {had}; leave it "
                    "out, or begin anew with --overwrite"
                )
            if before != now and name not in kind.MAY_CHANGE:
                raise BertwrightError(
                    f"--resume: {flag(name)} is {now!r}, but the run began with {before!r}; "
                    "leave it out, or begin anew with --overwrite"
                )
            if before != now:
                began_with = "without" if before is None else f"with {before!r}"
                tell(f"{flag(name)} is {_shown(now)} from here on; the run began {began_with}")
        for name, source in recipe.input_files():
            if name not in kind.FREE and not (is_hub(source) or Path(source).is_absolute() or Path(source).exists()):
                raise BertwrightError(
                    f"{flag(name)} {source}: not found; if the run began in another directory, go on with it from there"
                )
        return recipe

    def begin(self, recipe: Options, rows: Iterable[bytes], launch: str = "") -> None:
        """Make the folder, or, to resume, check that the rows and weights, given as bytes, are those that it began with.

        ``launch`` is for :func:`begun_by`.

        Raises:
            BertwrightError: they are not.
        """
        digest = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in rows)).hexdigest()
        recipe_text = dataclasses.replace(recipe, overwrite=False, resume=False).to_toml()
        if recipe.resume:
            if (self.folder / _DATA).read_text() != digest:
                raise BertwrightError(
                    f"{self.folder}: the data, or the model to start from, are no longer those that this run began with; "
                    "bring them back, or begin anew with --overwrite"
                )
            atomic_write_text(self.folder / _LAUNCH, launch)
            atomic_write_text(self.folder / self.kind.FILE, recipe_text)  # the next resume goes on with what changed now
            return
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != _LOCK:
                path.unlink()
        atomic_write_text(self.folder / _DATA, digest)
        atomic_write_text(self.folder / _LAUNCH, launch)
        atomic_write_text(self.folder / self.kind.FILE, recipe_text)  # the last: where it is, there is a run to resume

    def seed(self, seed: int) -> Path:
        """The folder of one seed, made if need be."""
        folder = self.folder / f"seed-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def resumable(self) -> bool:
        """Whether there is a state or a finished seed to go on from."""
        return any(found for pattern in ("states/step-*", FINISHED) for found in self.folder.glob(f"seed-*/{pattern}"))

    def remove(self) -> None:
        """Drop it all."""
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextlib.contextmanager
    def guarded(self, *, owner: bool = True) -> Iterator[None]:
        """Make the folder and keep it from others; a failure inside leaves behind either something to resume or nothing.

        Of several processes only the ``owner`` makes it, and takes anything away.

        Raises:
            BertwrightError: in place of an error of the file system; or another process works on the run.
        """
        lock = self._lock() if owner else None
        try:
            yield
        except BaseException as error:
            kept = self.resumable()
            if not kept and owner:
                self.remove()
            note = f" (the run so far is kept; go on with: {self.resume_command})" if kept else ""
            if (reason := _system_error(error)) is not None:
                raise BertwrightError(f"cannot write {self.folder}: {reason}; {_REMEDY}{note}") from error
            if isinstance(error, BertwrightError) and kept:
                raise BertwrightError(f"{error}{note}") from error
            raise
        finally:
            if lock is not None:
                lock.close()

    def _lock(self) -> TextIO | None:
        """Make the folder and lock it until what is returned is closed, or the process is gone; None without locks."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if fcntl is None:
                return None
            file = (self.folder / _LOCK).open("a")
        except OSError as error:
            raise BertwrightError(f"cannot write {self.folder}: {error.strerror}; {_REMEDY}") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            taken = os.fstat(file.fileno()).st_nlink == 0  # its owner has finished the run and removed it just now
        except OSError as error:  # a file system without locks keeps nobody out
            taken = isinstance(error, BlockingIOError)
        if taken:
            file.close()
            raise BertwrightError(f"{self.folder}: another process works on this run; let it end, or choose another --out")
        return file


def begun_by(recipe: Options, launch: str) -> bool:
    """Whether ``launch``, a call of torchrun, is what began or resumed the unfinished run at the recipe's place last."""
    if recipe.out is None or not launch:
        return False
    folder = _folder(Path(recipe.out))
    return all((folder / name).is_file() for name in (recipe.FILE, _LAUNCH)) and (folder / _LAUNCH).read_text() == launch


def _folder(out: Path) -> Path:
    return out.with_name(out.name + UNFINISHED)


def _shown(value: Any) -> str:
    return "not set" if value is None else repr(value)


def _system_error(error: BaseException) -> str | None:
    """What the file system said, if that is what went wrong; safetensors hides its error number in a message."""
    if isinstance(error, SafetensorError) and (number := re.search(r"\(os error (\d+)\)", str(error))):
        return os.strerror(int(number[1]))
    return error.strerror or str(error) if isinstance(error, OSError) else None


def _check_replaceable(recipe: Options, out: Path) -> None:
    """Refuse to replace what is no model, or holds the very rows that the run is to read."""
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not (out / recipe.FILE).exists() and not holds_model(out):
        raise BertwrightError(f"{out}: holds something that is no model, and is not replaced; choose another --out")
    for name, file in recipe.input_files():
        if Path(file).resolve().is_relative_to(out.resolve()):
            raise BertwrightError(f"{out}: holds what {flag(name)} names, and is not replaced; choose another --out")
