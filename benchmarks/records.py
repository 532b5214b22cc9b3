"""Results as JSON, with all that is needed to judge them: command, commit, versions, machine."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from bertwright.atomic import atomic_write_text
from bertwright.finetuning import Run
from bertwright.interrupts import Stopped
from bertwright.machine import Machine

RESULTS = Path(__file__).parent / "results"


def commit() -> str:
    """The commit that is checked out, marked if the source differs from it."""
    head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    changed = subprocess.run(["git", "status", "--porcelain", "src"], capture_output=True, text=True, check=False)
    return head.stdout.strip() + ("-modified" if changed.stdout.strip() else "")


def whole(run: Run) -> Run:
    """The run, if it was not broken off.

    Raises:
        Stopped: it was; its scores are of a model half trained, and no result.
    """
    if run.interrupted:
        raise Stopped("a benchmark broken off; what its file holds is kept", run.stopped_by)
    return run


def _shown(argument: str) -> str:
    """An argument as a reader needs it: of a path into this machine, its name."""
    return Path(argument).name if Path(argument).is_absolute() else argument


def _family() -> str | None:
    """What cpuinfo calls family and model, where there is one: two processors of one name may be years apart."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    values = dict(line.replace("\t", "").split(":", 1) for line in lines if ":" in line)
    return f"family {values['cpu family'].strip()}, model {values['model'].strip()}" if "cpu family" in values else None


def held(name: str) -> dict[str, Any] | None:
    """What ``results/NAME.json`` holds as results, or None where there is none yet."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return None
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["results"]
    return results


def write(name: str, results: dict[str, Any]) -> Path:
    """Write ``results/NAME.json`` and return its path."""
    packages = ("torch", "transformers", "tokenizers", "numpy", "accelerate")
    versions = {}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    record = {
        "command": " ".join(["python", "-m", f"benchmarks.{Path(sys.argv[0]).stem}", *map(_shown, sys.argv[1:])]),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "versions": {"python": platform.python_version(), **versions},
        "machine": {
            "processor": Machine.choose().describe(),
            "processor_family": _family(),
            "cores": os.cpu_count(),
            "system": platform.system(),
            "torch_threads": torch.get_num_threads(),
        },
        "results": results,
    }
    path = RESULTS / f"{name}.json"
    atomic_write_text(path, json.dumps(record, indent=1) + "\n")
    return path


def spread(found: dict[str, float | None], *, percent: bool = False) -> str:
    """A mean with its standard deviation over seeds, where there is one, as tables have it."""
    values = [value for value in (found["mean"], found["standard_deviation"]) if value is not None]
    return " ± ".join(f"{100 * value:.1f}" if percent else f"{value:.3f}" for value in values)
