"""The task that docs/adding-a-task.md adds, from that page's own code: a file and a name are all it takes."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from transformers import AutoModelForSequenceClassification

import bertwright
from bertwright.tasks import TASKS
from command_line import run
from tiny_model import BAD, GOOD, QUICK, write_tsv

PAGE = Path(__file__).resolve().parents[2] / "docs" / "adding-a-task.md"


def graded(count: int, seed: int) -> list[tuple[str, str]]:
    """Texts of four words with one to five stars, by how many of the words are good."""
    draw = random.Random(seed)
    made = []
    for _ in range(count):
        good = draw.randint(0, 4)
        words = draw.choices(GOOD, k=good) + draw.choices(BAD, k=4 - good)
        draw.shuffle(words)
        made.append((" ".join(words), str(good + 1)))
    return made


@pytest.fixture
def grading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = PAGE.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    assert len(code.splitlines()) < 60  # blank ones counted
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "grading_of_the_page.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    monkeypatch.setitem(TASKS, "grading", "grading_of_the_page:Grading")


@pytest.mark.usefixtures("grading")
def test_a_task_is_a_file_and_a_name(tiny_dir: Path, tmp_path: Path) -> None:
    train = write_tsv(tmp_path / "reviews.tsv", graded(160, 0), header=("text", "stars"))
    test = write_tsv(tmp_path / "more.tsv", graded(40, 1), header=("text", "stars"))
    made = bertwright.finetune(
        QUICK | {"epochs": 6}, task="grading", model=tiny_dir, train=train, test=test, label="stars", seeds=2,
        out=tmp_path / "run", console=Console(quiet=True),
    )  # fmt: skip
    assert made.metrics["test"]["within_one"] > 0.8
    low, high = made.metrics["test"]["headline"]["interval_95"]
    assert low <= made.metrics["test"]["within_one"] <= high
    assert {"within_one", "accuracy"} <= made.metrics["over_seeds"]["test"].keys()

    again = bertwright.load(made.out, device="cpu", threads=1)
    texts = [text for text, _ in graded(10, 2)]
    answers = again.predict(texts)
    assert {answer["predicted"] for answer in answers} <= set("12345")
    outputs = again.outputs(again.encode(again.examples(texts)))
    theirs = AutoModelForSequenceClassification.from_pretrained(made.out)
    assert theirs.config.id2label == dict(enumerate("12345"))
    assert [theirs.config.id2label[best] for best in np.argmax(outputs, 1)] == [a["predicted"] for a in answers]

    strange = write_tsv(tmp_path / "strange.tsv", [("good film", "1"), ("bad film", "6")], header=("text", "stars"))
    refused = run("evaluate", made.out, strange, "--device", "cpu")
    assert refused.code == 2
    assert "strange.tsv:3: the label '6' does not occur in the training rows" in refused.err

    shown = run("evaluate", made.out, test, "--device", "cpu")
    assert shown.code == 0
    assert "at most one grade off" in shown.out
    said = run("predict", made.out, texts[0], "--device", "cpu")
    assert json.loads(said.out)["predicted"] == answers[0]["predicted"]
    assert "grading" in run("tasks").out
