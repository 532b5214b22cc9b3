"""An evaluation as files: numbers, every row, plots."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bertwright.atomic import atomic_write_text
from bertwright.errors import BertwrightError
from bertwright.evaluation.plots import plot_confusion, plot_matthews_per_batch, plot_reliability


def write_evaluation(folder: Path, metrics: Mapping[str, Any], predictions: Iterable[Mapping[str, Any]]) -> None:
    """Write ``metrics.json``, ``predictions.jsonl`` and the plots of a classification into ``folder``.

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
    plot_confusion(dict(metrics), folder / "confusion.png")
    plot_reliability(dict(metrics), folder / "reliability.png")
    plot_matthews_per_batch(metrics["matthews_per_batch"], metrics["matthews_correlation"], folder / "matthews.png")
