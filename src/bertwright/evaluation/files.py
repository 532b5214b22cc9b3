"""An evaluation as files: numbers, every row, plots."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bertwright.atomic import atomic_directory, atomic_write_text
from bertwright.errors import BertwrightError

PREDICTIONS = "predictions.jsonl"
MODEL = "config.json"


def write_evaluation(
    folder: Path,
    metrics: Mapping[str, Any],
    predictions: Sequence[Mapping[str, Any]],
    draw: Callable[[Mapping[str, Any], Sequence[Mapping[str, Any]], Path], None],
    files: Mapping[str, str],
) -> None:
    """Write ``metrics.json``, ``predictions.jsonl``, ``files`` and what is drawn of metrics and rows into ``folder``.

    Raises:
        BertwrightError: the folder cannot be written, or holds something else; an evaluation there stays whole.
    """
    with evaluation_folder(folder) as target:
        atomic_write_text(target / "metrics.json", json.dumps(metrics, indent=2, ensure_ascii=False) + "\n")
        lines = [json.dumps(record, ensure_ascii=False) for record in predictions]
        atomic_write_text(target / PREDICTIONS, "\n".join(lines) + "\n")
        for name, text in files.items():
            atomic_write_text(target / name, text)
        draw(metrics, predictions, target)


@contextlib.contextmanager
def evaluation_folder(folder: Path) -> Iterator[Path]:
    """Fill a folder that takes its place, and that of an earlier evaluation, whole or not at all.

    Raises:
        BertwrightError: what :func:`check_place` raises, or the folder cannot be written.
    """
    check_place(folder)
    with atomic_directory(folder, overwrite=True) as target:
        yield target


def check_place(folder: Path) -> None:
    """Refuse to replace what is no evaluation.

    Raises:
        BertwrightError: a file is there, or a directory that holds something else.
    """
    if folder.is_dir() and any(folder.iterdir()) and ((folder / MODEL).exists() or not (folder / PREDICTIONS).exists()):
        raise BertwrightError(f"{folder}: holds something that is no evaluation, and is not replaced; choose another --out")
    if folder.exists() and not folder.is_dir():
        raise BertwrightError(f"{folder}: a file is there where a directory belongs; choose another --out")
