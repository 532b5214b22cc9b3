"""A pretrained model as a data package: the same numbers as its weights rounded to bfloat16, in small files."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM

from benchmarks import package_weights
from benchmarks.package_weights import SUMS, package
from bertwright.errors import BertwrightError
from bertwright.masked_lm import load_masked_lm
from bertwright.pretraining.run import pretrain
from tiny_corpus import write_tiny_corpus
from tiny_model import no_plots

TEXTS = ("the film was very good", "a cold day and a [MASK] book")
NAME, MODULE = "tiny-bert", "tiny_bert"


@pytest.fixture(scope="module")
def model(tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("package-weights")
    shape = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
        "max_position_embeddings": 48,
    }  # fmt: skip
    (folder / "shape.json").write_text(json.dumps(shape))
    with no_plots():
        pretrain(
            write_tiny_corpus(folder / "corpus", tiny_dir), config=str(folder / "shape.json"), objective="mlm", steps=3,
            max_length="32", batch_tokens="256", dropout=0.0, device="cpu", threads=1, out=str(folder / "model"),
            console=Console(quiet=True),
        )  # fmt: skip
    return folder / "model"


@pytest.fixture(scope="module")
def made(model: Path) -> tuple[Path, str]:
    """The package's folder, its weights cut into shards of 16,000 bytes, and the digest of its sums."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(package_weights, "LARGEST_FILE", package_weights._HEADERS + 16_000)
        return model.parent / NAME, package(model, model.parent / NAME)


def test_bertwright_has_the_numbers_of_the_rounded_weights(model: Path, made: tuple[Path, str]) -> None:
    plain, packaged = (load_masked_lm(path, device="cpu") for path in (model, made[0] / MODULE / "model"))
    before = packaged.score(TEXTS[0]).log_likelihoods
    assert before != pytest.approx(plain.score(TEXTS[0]).log_likelihoods, abs=0)
    for parameter in plain.model.parameters():
        parameter.data = parameter.data.bfloat16().float()
    for (name, rounded), held in zip(plain.model.state_dict().items(), packaged.model.state_dict().values(), strict=True):
        assert torch.equal(rounded, held), name
    assert before == pytest.approx(plain.score(TEXTS[0]).log_likelihoods, abs=0)
    assert packaged.fill_mask(TEXTS[1]) == plain.fill_mask(TEXTS[1])


def test_transformers_opens_it(made: tuple[Path, str]) -> None:
    ours = load_masked_lm(made[0] / MODULE / "model", device="cpu")
    theirs = AutoModelForMaskedLM.from_pretrained(made[0] / MODULE / "model", dtype=torch.float32).eval()
    ids = ours.tokenizer.encode(TEXTS[1]).input_ids
    with torch.no_grad():
        logits_V = theirs(torch.tensor([ids])).logits[0, ids.index(ours.tokenizer.mask_id)]
    (guess,) = ours.fill_mask(TEXTS[1], top=1)[0].masks[0]
    assert guess.log_probability == pytest.approx(float(logits_V.log_softmax(-1)[guess.id]), abs=1e-4)


def test_the_shards_are_small_and_bfloat16(made: tuple[Path, str]) -> None:
    target = made[0] / MODULE / "model"
    index = json.loads((target / "model.safetensors.index.json").read_text())
    shards = sorted(set(index["weight_map"].values()))
    assert len(shards) > 3
    for shard in shards:
        tensors = load_file(target / shard).values()
        assert {tensor.dtype for tensor in tensors} == {torch.bfloat16}
        assert sum(tensor.nbytes for tensor in tensors) <= 16_000
    assert not (target / "model.safetensors").exists()


def test_the_sums_pin_every_file(made: tuple[Path, str]) -> None:
    folder, digest = made
    target = folder / MODULE / "model"
    sums = (target / SUMS).read_bytes()
    assert hashlib.sha256(sums).hexdigest() == digest
    held = {line[66:]: line[:64] for line in sums.decode().splitlines()}
    assert set(held) == {path.name for path in target.iterdir()} - {SUMS}
    assert held == {name: hashlib.sha256((target / name).read_bytes()).hexdigest() for name in held}


def test_it_says_how_it_was_made_and_names_no_path_of_the_machine(model: Path, made: tuple[Path, str]) -> None:
    target = made[0] / MODULE / "model"
    recipe = tomllib.loads((target / "pretraining.toml").read_text())
    assert (recipe["corpus"], recipe["config"], recipe["steps"], "out" in recipe) == ("tokens", "config.json", 3, False)
    card = (target / "README.md").read_text()
    assert card == (made[0] / "README.md").read_text()
    assert "3 steps" in card
    assert "--dropout 0.1" in card
    assert "next-sentence head were not trained" in card
    for path in made[0].rglob("*"):
        assert path.is_dir() or str(model.parent).encode() not in path.read_bytes(), path


def test_the_card_tells_what_was_measured(model: Path, tmp_path: Path) -> None:
    score = {"mean": 0.5, "standard_deviation": 0.01}
    results: dict[str, Any] = {
        "blimp": {"sets": 67, "score": "pll", "accuracy": 0.754},
        "cola": {"rate": 1e-4, "seeds": [{}] * 5, "over_seeds": {"test": score, "validation": score}},
    }
    record = {"command": "python -m benchmarks.speedrun --data data", "commit": "abc", "results": results}
    package(model, tmp_path / NAME, results=record)
    card = (tmp_path / NAME / "README.md").read_text()
    assert "| BLiMP, 67 sets, pll | 75.4% |" in card
    assert "| CoLA, out of domain, 5 seeds at 0.0001 | 0.500 ± 0.010 |" in card
    assert "    python -m benchmarks.speedrun --data data\n" in card
    assert (tmp_path / NAME / MODULE / "model" / "model.safetensors").stat().st_size < 16 << 20  # small enough whole


def test_it_builds_as_a_package(made: tuple[Path, str], tmp_path: Path) -> None:
    pytest.importorskip("setuptools", minversion="77")
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)], cwd=made[0], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("tiny_bert-*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith(f"{MODULE}/model/")}
    assert names == {f"{MODULE}/model/{path.name}" for path in (made[0] / MODULE / "model").iterdir()}


def test_what_cannot_become_a_package_is_told(model: Path, tiny_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(BertwrightError, match="lower-case words with hyphens"):
        package(model, tmp_path / "My_Bert")
    with pytest.raises(BertwrightError, match=r"has no pretraining\.toml; give a directory"):
        package(tiny_dir, tmp_path / NAME)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(package_weights, "LARGEST_FILE", 4000)
        with pytest.raises(
            BertwrightError, match=r"model-00001-of-.* bytes, but a file of a data package stays below 4,000"
        ):
            package(model, tmp_path / NAME)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / NAME).mkdir()
    (tmp_path / NAME / "file").write_text("")
    with pytest.raises(BertwrightError, match="already there"):
        package(model, tmp_path / NAME)
