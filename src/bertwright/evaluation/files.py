"""An evaluation as files: numbers, every row, plots."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bertwright.atomic import atomic_write_text
from bertwright.errors import BertwrightError


def write_evaluation(
    folder: Path,
    metrics: Mapping[str, Any],
    predictions: Sequence[Mapping[str, Any]],
    draw: Callable[[Mapping[str, Any], Sequence[Mapping[str, Any]], Path], None],
    files: Mapping[str, str],
) -> None:
    """Write ``metrics.json``, ``predictions.jsonl``, ``files`` and what is drawn of metrics and rows into ``folder``.

    Raises:
        BertwrightError: the folder cannot be made or written; each file is whole or as it was before.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BertwrightError(f"{folder}: cannot be made: {error.strerror}; choose another --out") from error
    atomic_write_text(folder / "metrics.json", json.dumps(metrics, indent=2, ensure_ascii=False) + "\n")
    lines = [json.dumps(record, ensure_ascii=False) for record in predictions]
    atomic_write_text(folder / "predictions.jsonl", "\n".join(lines) + "\n")
    for name, text in files.items():
        atomic_write_text(folder / name, text)
    draw(metrics, predictions, folder)
