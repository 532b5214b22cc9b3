"""What a run is said to read, it reads: lengths, batches and masks of each phase, and what of the text makes no pairs."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from rich.console import Console

from bertwright.data.shards import TokenCorpus
from bertwright.errors import BertwrightError, BertwrightWarning
from bertwright.pretraining.objective import Masked, Planned, PretrainingObjective
from bertwright.pretraining.run import pretrain
from bertwright.training.observers import read_history
from tiny_corpus import write_tiny_corpus
from tiny_model import no_plots

Flags = npt.NDArray[np.bool_]

STEPS = 12
SHORT: dict[str, Any] = {
    "max_length": "32",
    "batch_tokens": "512",
    "learning_rate": 1e-3,
    "steps": STEPS,
    "validate_every": STEPS,
    "heldout_tokens": 300,
    "threads": 1,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def corpus(tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Words of three pieces."""
    return write_tiny_corpus(tmp_path_factory.mktemp("corpus") / "tokens", tiny_dir, pieces=2)


@pytest.fixture(scope="module")
def config(tiny_dir: Path) -> str:
    return str(tiny_dir / "config.json")


def steps_of(corpus: Path, out: Path, **options: Any) -> tuple[list[Masked], list[int]]:
    """Pretrain, and return the batch that each step computed, and the tokens that its record tells."""
    computed: list[Masked] = []
    prepare = PretrainingObjective.prepare

    def noted(self: PretrainingObjective, planned: Planned) -> Masked:
        computed.append(prepare(self, planned))
        return computed[-1]

    with pytest.MonkeyPatch.context() as patch, no_plots():
        patch.setattr(PretrainingObjective, "prepare", noted)
        pretrain(corpus, SHORT | options, out=out, console=Console(quiet=True))
    tokens = [record["tokens"] for record in read_history(out / "history.jsonl") if record["kind"] == "step"]
    assert len(computed) == len(tokens) == STEPS
    return computed, tokens


def longest(batches: list[Masked]) -> int:
    return max(max(one.batch.sequences.lengths) for one in batches)


def test_lengths_and_budgets_are_those_of_the_phase(corpus: Path, config: str, tmp_path: Path) -> None:
    phases = {"max_length": "16:0.5,40:0.5", "batch_tokens": "256:0.25,512:0.75"}
    computed, tokens = steps_of(corpus, tmp_path / "run", config=config, **phases)
    assert (longest(computed[:6]), longest(computed[6:])) == (16, 40)
    assert tokens == [one.batch.tokens for one in computed]
    for count, budget, length in zip(tokens, [256] * 3 + [512] * 9, [16] * 6 + [40] * 6, strict=True):
        assert budget - length < count <= budget


@pytest.mark.parametrize("objective", ["mlm", "mlm+nsp"])
def test_the_masking_rate_goes_from_the_one_to_the_other(corpus: Path, config: str, tmp_path: Path, objective: str) -> None:
    computed, _ = steps_of(corpus, tmp_path / "run", config=config, masking_rate="0.4:0.1", objective=objective)
    special = 2 if objective == "mlm" else 3  # of each sequence
    for step, one in enumerate(computed):
        words = one.batch.tokens - special * len(one.labels_B)
        assert len(one.targets_M) == round((0.4 - 0.3 * step / STEPS) * words)


def divided(one: Masked, continues: npt.NDArray[np.uint8]) -> int:
    """How many words have a piece that is masked and one that is not."""
    ids_T = one.batch.input_ids_T.numpy().copy()
    chosen_T: Flags = np.zeros(len(ids_T), np.bool_)
    chosen_T[one.rows.index_R] = True
    ids_T[one.rows.index_R] = one.targets_M
    goes_on_T = (continues[ids_T[1:]] == 1) & (ids_T[:-1] > 4)  # behind [CLS] or [SEP] a piece is a word of its own
    return int((goes_on_T & (chosen_T[1:] != chosen_T[:-1])).sum())


@pytest.mark.parametrize("whole_words", [True, False])
def test_whole_words_are_masked_where_that_is_asked_for(
    corpus: Path, config: str, tmp_path: Path, whole_words: bool
) -> None:
    computed, _ = steps_of(corpus, tmp_path / "run", config=config, whole_words=whole_words)
    continues = TokenCorpus.open(corpus).continues
    assert all((divided(one, continues) == 0) == whole_words for one in computed)
    assert all(0.13 < len(one.targets_M) / (one.batch.tokens - 3 * len(one.labels_B)) <= 0.152 for one in computed)


def test_it_is_measured_as_the_training_ends(corpus: Path, config: str, tmp_path: Path) -> None:
    measured: list[Masked] = []
    losses = PretrainingObjective._losses

    def noted(self: PretrainingObjective, ready: Masked, noise: Any) -> Any:
        if noise is None:
            measured.append(ready)
        return losses(self, ready, noise)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PretrainingObjective, "_losses", noted)
        phases = {"max_length": "16:0.5,40:0.5", "masking_rate": "0.4:0.1", "validate_every": 4}
        steps_of(corpus, tmp_path / "run", config=config, **phases)
    assert len(measured) == 3
    for one in measured:
        assert longest([one]) == 40
        assert len(one.targets_M) == round(0.1 * (one.batch.tokens - 3 * len(one.labels_B)))
        assert one.batch.input_ids_T.tolist() == measured[0].batch.input_ids_T.tolist()


def test_weights_that_the_last_update_spoils_are_not_kept(corpus: Path, config: str, tmp_path: Path) -> None:
    with pytest.raises(BertwrightError, match=r"held-out text is no longer a finite number after step 1\. .*"):
        steps_of(corpus, tmp_path / "run", config=config, steps=1, warmup=0.0, learning_rate=1e38, schedule="constant")
    assert not (tmp_path / "run").exists()


# --- what of the text makes no pairs ----------------------------------------------------------------------------------


def said_of(corpus: Path, out: Path, **options: Any) -> str:
    page = io.StringIO()
    with no_plots():
        pretrain(corpus, SHORT | {"steps": 1} | options, out=out, console=Console(file=page, width=80))
    return page.getvalue()


@pytest.mark.parametrize(
    ("objective", "what"),
    [("mlm+nsp", "can only be the first part of a random pair"), ("mlm+sop", "make no pair at all")],
)
def test_many_documents_of_one_sentence_are_told(
    tiny_dir: Path, config: str, tmp_path: Path, objective: str, what: str
) -> None:
    corpus = write_tiny_corpus(tmp_path / "tokens", tiny_dir, count=200, heldout=40, sentences=(1, 1))
    with pytest.warns(
        BertwrightWarning, match=f"about 100% of the sequences are documents of a single sentence, which {what}"
    ):
        said_of(corpus, tmp_path / "run", config=config, objective=objective)
    said_of(corpus, tmp_path / "mlm", config=config, objective="mlm")


def test_how_much_is_cut_is_said_where_pairs_are_cut(corpus: Path, config: str, tmp_path: Path) -> None:
    cut = [
        float(said_of(corpus, tmp_path / length, config=config, max_length=length).partition("about ")[2].partition("%")[0])
        for length in ("16", "40")
    ]
    assert cut[0] > cut[1] > 0
    assert "is cut" not in said_of(corpus, tmp_path / "mlm", config=config, objective="mlm")


def test_a_held_out_part_of_one_document_is_refused_before_the_work(tiny_dir: Path, config: str, tmp_path: Path) -> None:
    corpus = write_tiny_corpus(tmp_path / "tokens", tiny_dir, heldout=1)
    with pytest.raises(
        BertwrightError, match=r"its part 'heldout' holds a single document.*; prepare it with a larger --hel"
    ):
        said_of(corpus, tmp_path / "run", config=config)
    assert [path.name for path in tmp_path.iterdir()] == ["tokens"]
