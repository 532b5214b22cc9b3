"""An evaluation as files: numbers, every row, plots."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bertwright.atomic import atomic_directory, atomic_write_text
from bertwright.errors import BertwrightError
from bertwright.model_files import holds_model

PREDICTIONS = "predictions.jsonl"


def write_evaluation(
    folder: Path,
    metrics: Mapping[str, Any],
    predictions: Sequence[Mapping[str, Any]],
    draw: Callable[[Mapping[str, Any], Sequence[Mapping[str, Any]], Path], None],
    files: Mapping[str, str | None],
) -> None:
    """Write ``metrics.json``, ``predictions.jsonl``, ``files`` and what is drawn of metrics and rows into ``folder``.

    A file that is None there is removed, if an earlier evaluation left it.

    Raises:
        BertwrightError: the folder cannot be written, or holds a model; an evaluation there stays whole.
    """
    with evaluation_folder(folder) as target:
        atomic_write_text(target / "metrics.json", json.dumps(metrics, indent=2, ensure_ascii=False) + "\n")
        lines = [json.dumps(record, ensure_ascii=False) for record in predictions]
        atomic_write_text(target / PREDICTIONS, "\n".join(lines) + "\n")
        for name, text in files.items():
            if text is not None:
                atomic_write_text(target / name, text)
        draw(metrics, predictions, target)
    for name in (name for name, text in files.items() if text is None):
        (folder / name).unlink(missing_ok=True)


@contextlib.contextmanager
def evaluation_folder(folder: Path) -> Iterator[Path]:
    """Fill a folder that appears whole; where it is there, its files are replaced once all are written, and others stay.

    Raises:
        BertwrightError: what :func:`check_place` raises, or the folder cannot be written.
    """
    check_place(folder)
    if not folder.exists():
        with atomic_directory(folder, overwrite=False) as target:
            yield target
        return
    try:
        with tempfile.TemporaryDirectory(prefix=".evaluation-", dir=folder) as name:
            yield Path(name)
            for file in Path(name).iterdir():
                file.replace(folder / file.name)
    except OSError as error:
        raise BertwrightError(f"{folder}: cannot be written: {error.strerror or error}; choose another --out") from error


def check_place(folder: Path, read: Path | None = None) -> None:
    """Refuse a place where an evaluation would mix with something else.

    Raises:
        BertwrightError: a file is there, or a model, which has files of the same names, or the file that is ``read``.
    """
    if read is not None and read.is_file() and read.resolve().parent == folder.resolve():
        raise BertwrightError(f"{folder}: holds {read.name}, which is read and could be replaced; choose another --out")
    if holds_model(folder):
        raise BertwrightError(f"{folder}: holds a model, whose files would be mixed up with these; choose another --out")
    if folder.exists() and not folder.is_dir():
        raise BertwrightError(f"{folder}: a file is there where a directory belongs; choose another --out")
