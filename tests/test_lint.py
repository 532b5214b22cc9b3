"""Style and types, so that one pytest command covers them too. Each tool reads its settings from pyproject.toml."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def check(tool: str, *arguments: str) -> None:
    if importlib.util.find_spec(tool) is None:
        pytest.skip(f"needs {tool}, of the test extra")
    found = subprocess.run([sys.executable, "-m", tool, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


def test_lint() -> None:
    check("ruff", "check")


def test_format() -> None:
    check("ruff", "format", "--check")


@pytest.mark.slow
def test_types() -> None:
    check("mypy")
