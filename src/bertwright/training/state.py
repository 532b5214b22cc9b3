"""The state of an unfinished run: enough to go on to the very same bits.

A state is a directory ``step-N`` with safetensors files and a ``state.json`` that holds their SHA-256, its own in its last
line. It is written beside its name and renamed, so that a state is either whole or not there; the last two are kept. One
that was found damaged does not count as one of them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from bertwright.atomic import atomic_directory
from bertwright.errors import BertwrightError, tell


@dataclass(frozen=True)
class State:
    """Groups of tensors (weights, moments, best weights) and plain values."""

    tensors: Mapping[str, Mapping[str, Tensor]]
    values: Mapping[str, Any]


def save(folder: Path, step: int, state: State) -> None:
    """Write ``state`` as ``folder/step-N`` and drop all but the last two."""
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".step-*"):  # of a saving that was killed, or found damaged
        shutil.rmtree(leftover, ignore_errors=True)
    with atomic_directory(folder / f"step-{step}", overwrite=True) as target:
        digests = {}
        for name, tensors in state.tensors.items():
            file = target / f"{name}.safetensors"
            save_file({key: value.detach().contiguous() for key, value in tensors.items()}, file)
            digests[name] = _digest(file)
        content = json.dumps({"files": digests, "values": state.values}, indent=1)
        (target / "state.json").write_text(f"{content}\n{hashlib.sha256(content.encode()).hexdigest()}\n")
    for _, old in _saved(folder)[:-2]:
        shutil.rmtree(old, ignore_errors=True)


def forget(folder: Path, step: int) -> None:
    """Drop the state of this step, if there is one and an older one too."""
    if len(_saved(folder)) > 1:
        shutil.rmtree(folder / f"step-{step}", ignore_errors=True)


def newest(folder: Path) -> State:
    """Read the newest whole state below ``folder``, passing over damaged ones with a warning.

    Where an older one is whole, the damaged ones lose their names, so that they push it out of its place no more; they go
    away with the next saving.

    Raises:
        BertwrightError: there is none.
    """
    damaged: list[Path] = []
    for _, path in reversed(_saved(folder)):
        try:
            state = _read(path)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
            tell(f"{path}: damaged state ({error}); trying the one before")
            if not isinstance(error, OSError) or isinstance(error, FileNotFoundError):  # others may pass
                damaged.append(path)
            continue
        for one in damaged:
            with contextlib.suppress(OSError):  # another process of the run was quicker
                one.rename(one.with_name(f".{one.name}.damaged"))
        return state
    raise BertwrightError(f"{folder}: no state to resume from; start the run again with --overwrite")


def _saved(folder: Path) -> list[tuple[int, Path]]:
    found = [(p.name.removeprefix("step-"), p) for p in folder.glob("step-*") if p.is_dir()]
    return sorted((int(number), path) for number, path in found if number.isdigit())


def _read(path: Path) -> State:
    text, _, digest = (path / "state.json").read_text().removesuffix("\n").rpartition("\n")
    if hashlib.sha256(text.encode()).hexdigest() != digest:
        raise ValueError("state.json has another checksum")
    content = json.loads(text)
    tensors = {}
    for name, digest in content["files"].items():
        file = path / f"{name}.safetensors"
        if _digest(file) != digest:
            raise ValueError(f"{file.name} has another checksum")
        tensors[name] = load_file(file)
    return State(tensors, content["values"])


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
