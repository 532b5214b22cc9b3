"""Known data sets as they are published, from files to a model that answers: a few steps from random weights each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import bertwright
from bertwright.data.catalog import KNOWN

pytestmark = [
    pytest.mark.shared_data,
    pytest.mark.usefixtures("plotless"),
    pytest.mark.filterwarnings("ignore::bertwright.BertwrightWarning"),  # of texts that are cut, mostly
]

# By name: where the files lie, how many labels there are, and what to ask the model.
ENGLISH: dict[str, tuple[str, int, tuple[Any, ...]]] = {
    "cola": ("cola", 2, (["We go to the market"],)),
    "banking77": ("textclass", 77, (["I lost my card"],)),
    "rte": ("glue", 2, (["A man sleeps."], ["Somebody sleeps."])),
    "stsb": ("glue", 0, (["A man sleeps."], ["Somebody sleeps."])),
    "conll2003": ("ner", 9, (["EU rejects German call"],)),
    "codah": ("choice", 0, (["The cat"], [["sat down", "flew"]])),
}
CHINESE: dict[str, tuple[str, int, tuple[Any, ...]]] = {
    "chnsenticorp": ("zh", 2, (["房间很干净"],)),
    "weibo_ner": ("zh", 17, (["北京很大"],)),
}


def trained(shared: Path, out: Path, name: str, folder: str, vocabulary: str, **options: Any) -> bertwright.Run:
    settings = {"config": "tiny", "tokenizer": shared / "vocab" / vocabulary, "steps": 3, "batch_size": 8, "threads": 1}
    return bertwright.finetune(
        settings, dataset=name, data=shared / folder, max_length=48, device="cpu", out=out, console=Console(quiet=True),
        **options,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "vocabulary"),
    [*((name, "bert-base-uncased") for name in ENGLISH), *((name, "bert-base-chinese") for name in CHINESE)],
)
def test_by_name_from_published_files(shared: Path, tmp_path: Path, name: str, vocabulary: str) -> None:
    folder, labels, asked = (ENGLISH | CHINESE)[name]
    run = trained(shared, tmp_path / "run", name, folder, vocabulary)
    rows = KNOWN[name].rows
    assert len(run.model.labels) == labels
    assert run.metrics["test"].get("examples", rows[1]) in (rows[1], 516), "of CoLA the second development set"
    loaded = bertwright.load(tmp_path / "run", device="cpu", threads=1)
    assert loaded.predict(*asked) == run.model.predict(*asked)


def test_squad_by_name(shared: Path, tmp_path: Path) -> None:
    run = trained(
        shared, tmp_path / "run", "squad_v2", "squad", "bert-base-uncased", stride=16, question_length=16, test=None,
        validation_fraction=0.02,
    )  # fmt: skip
    assert {"f1", "exact_match", "answerable", "unanswerable"} <= run.metrics["validation"].keys()
    (answer,) = run.model.predict(["Who sat?"], ["The cat sat on the mat."])
    assert answer["predicted"] in "The cat sat on the mat."
