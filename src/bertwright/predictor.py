"""A trained model that answers: predict, evaluate, save. ``bertwright.load`` gives one."""

from __future__ import annotations

import dataclasses
import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bertwright import atomic, checkpoint, inference
from bertwright.data.examples import Columns, Example, Unreadable
from bertwright.data.packing import TokenTable
from bertwright.data.readers import read_examples
from bertwright.errors import BertwrightError, tell
from bertwright.machine import Machine
from bertwright.model import BertConfig, SequenceClassifier
from bertwright.tasks import Classification
from bertwright.tokenizer import Tokenizer
from bertwright.training.recipe import Recipe

_CHUNK = 2048  # rows that a stream holds at a time
_CHUNK_CHARACTERS = 4_000_000  # and characters, so that a few huge texts do not fill the memory


@dataclass(frozen=True)
class Encodings:
    """Encoded rows and how many of them were cut."""

    table: TokenTable
    cut: npt.NDArray[np.int64]

    def tell_cut(self, name: str, max_length: int) -> None:
        """Warn if texts were cut to the longest length."""
        rows = int((self.cut > 0).sum())
        if rows:
            tell(
                f"{name}: {rows:,} of {len(self.cut):,} texts are longer than --max-length {max_length} and were cut "
                f"({int(self.cut.sum()):,} tokens left out)"
            )


@dataclass(frozen=True)
class Evaluation:
    """What :meth:`Predictor.evaluate` measured, and every row's prediction."""

    metrics: dict[str, Any]
    predictions: list[dict[str, Any]]


@dataclass
class Predictor:
    """Model, tokenizer and task together."""

    model: SequenceClassifier
    tokenizer: Tokenizer
    task: Classification
    recipe: Recipe
    machine: Machine
    directory: Path | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self.task.labels

    @property
    def columns(self) -> Columns:
        """The columns that the model was trained on."""
        return columns_of(self.recipe)

    def encode(self, examples: Sequence[Example]) -> Encodings:
        """Tokenize rows, each cut to the recipe's ``max_length``."""
        return encode(self.tokenizer, examples, self.recipe.max_length)

    def logits(self, table: TokenTable) -> npt.NDArray[np.float64]:
        """Return logits_BC for encoded rows, in their order."""
        return inference.run(self.model, table, self.machine)

    def predict(self, texts: str | Sequence[str], pairs: str | Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Classify texts, or pairs of texts.

        Returns:
            For each text: ``text`` (and ``pair``), ``predicted`` label, its ``probability``, ``probabilities`` by label,
            ``logits``, and ``cut`` if tokens were left out because the text is longer than ``max_length``.

        Raises:
            BertwrightError: texts and pairs differ in number, one is no string, or the model wants pairs and got none.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        seconds = [pairs] if isinstance(pairs, str) else None if pairs is None else list(pairs)
        if seconds is not None and len(seconds) != len(texts):
            raise BertwrightError(f"{len(texts)} texts but {len(seconds)} second texts; each text needs its own")
        for place, text in enumerate((*texts, *(seconds or ()))):
            if not isinstance(text, str):
                raise BertwrightError(f"text {place % len(texts) + 1} is {text!r}, a {type(text).__name__}, not a string")
        examples = [
            Example(text=text, pair=None if seconds is None else seconds[i], where=f"text {i + 1}")
            for i, text in enumerate(texts)
        ]
        return list(self.predict_rows(examples))

    def predict_rows(self, rows: Iterable[Example | Unreadable]) -> Iterator[dict[str, Any]]:
        """Classify a stream of rows of any length in bounded memory, one record for each row, in order.

        An empty text or an unreadable row is not classified: its record has ``"predicted": None`` and says why under
        ``"skipped"``. A text cut to ``max_length`` tells under ``"cut"`` how many tokens were left out.

        Raises:
            BertwrightError: a row is a pair where the model was trained on single texts, or the other way round.
        """
        iterator = iter(rows)
        while chunk := _chunk(iterator):
            yield from self._predict_chunk(chunk)

    def _predict_chunk(self, chunk: Sequence[Example | Unreadable]) -> Iterator[dict[str, Any]]:
        readable = [row for row in chunk if isinstance(row, Example) and (row.text.strip() or row.pair)]
        self._check_pairs(readable)
        encodings = self.encode(readable)
        answers = deque(self.task.decode(self.logits(encodings.table)) if readable else [])
        cut = deque(encodings.cut.tolist())
        for row in chunk:
            if isinstance(row, Unreadable):
                yield {"text": None, "predicted": None, "skipped": row.reason, "where": row.where}
                continue
            record: dict[str, Any] = {"text": row.text} | ({} if row.pair is None else {"pair": row.pair})
            if not (row.text.strip() or row.pair):
                yield record | {"predicted": None, "skipped": "empty"}
                continue
            record |= answers.popleft()
            left_out = cut.popleft()
            yield record | ({"cut": left_out} if left_out else {})

    def _check_pairs(self, rows: Sequence[Example]) -> None:
        # A model that came without a recipe takes what the first row is.
        paired = self.recipe.pair is not None if self.recipe.train else any(row.pair is not None for row in rows[:1])
        for row in rows:
            if paired != (row.pair is not None):
                needs = "pairs: give each text its second text" if paired else "single texts, not pairs"
                raise BertwrightError(f"{row.where}: this model classifies {needs}")

    def evaluate(self, data: str | Path | Sequence[Example], *, metric: str | None = None, **columns: Any) -> Evaluation:
        """Measure the model on labelled rows.

        Args:
            data: a file, or rows that were read already.
            metric: what heads the report; default: the recipe's.
            columns: fields of :class:`~bertwright.data.examples.Columns` that differ from the recipe's.

        Raises:
            BertwrightError: the file cannot be read, or holds a label that training did not have.
        """
        if isinstance(data, str | Path):
            name = str(data)
            known = {f.name for f in dataclasses.fields(Columns)}
            for option in columns:
                if option not in known:
                    raise BertwrightError(f"evaluate: no option {option!r} (known: metric, {', '.join(sorted(known))})")
            columns["names"] = tuple(columns.get("names", self.columns.names))
            data = list(read_examples(data, dataclasses.replace(self.columns, **columns)))
        elif columns:
            raise BertwrightError(f"evaluate: {next(iter(columns))} names a column of a file, but rows were given")
        else:
            name = "rows"
        self._check_pairs(data)
        self.task.targets(data)  # before any arithmetic, so that a wrong label is told at once
        encodings = self.encode(data)
        encodings.tell_cut(name, self.recipe.max_length)
        return self.measure(data, encodings, metric)

    def measure(self, examples: Sequence[Example], encodings: Encodings, metric: str | None = None) -> Evaluation:
        """Measure the model on labelled rows that :meth:`encode` encoded; see :meth:`evaluate`."""
        logits = self.logits(encodings.table)
        metrics = self.task.measure(logits, examples, metric or self.recipe.metric)
        predictions = []
        for row, answer in zip(examples, self.task.decode(logits), strict=True):
            record: dict[str, Any] = {"text": row.text}
            if row.pair is not None:
                record["pair"] = row.pair
            if row.source is not None:
                record["source"] = row.source
            predictions.append(record | {"true": row.label} | answer)
        return Evaluation(metrics, predictions)

    def save(self, directory: Path) -> None:
        """Write what ``transformers`` and :func:`load` open: config, weights, tokenizer, recipe."""
        config = self.model.config.to_dict() | self.task.to_config()
        if len(self.model.head):
            # transformers has no class with such a head; promising one would make it start a random classifier.
            config["architectures"] = ["BertModel"]
        checkpoint.write_weights(directory, checkpoint.export_tensors(self.model, prefix="bert."))
        atomic.atomic_write_text(directory / "config.json", json.dumps(config, indent=2, ensure_ascii=False) + "\n")
        atomic.atomic_write_text(directory / Recipe.FILE, self.recipe.to_toml())
        self.tokenizer.save(directory, max_length=self.model.config.max_position_embeddings)


def columns_of(recipe: Recipe) -> Columns:
    """The columns that a recipe names."""
    return Columns(
        text=recipe.text,
        pair=recipe.pair,
        label=recipe.label,
        source=recipe.source,
        names=recipe.columns,
        delimiter=recipe.delimiter,
        quoting=recipe.quoting,
    )


def encode(tokenizer: Tokenizer, examples: Sequence[Example], max_length: int) -> Encodings:
    """Tokenize rows, each cut to ``max_length``."""
    pairs = None
    if examples and examples[0].pair is not None:
        pairs = [example.pair or "" for example in examples]
    encoded = tokenizer.encode_batch([example.text for example in examples], pairs, max_length=max_length)
    table = TokenTable([e.input_ids for e in encoded], [e.token_type_ids for e in encoded])
    return Encodings(table, np.array([e.cut for e in encoded], dtype=np.int64))


def load(
    directory: str | Path,
    *,
    device: str = "auto",
    precision: str = "auto",
    threads: int = 0,
    revision: str | None = None,
) -> Predictor:
    """Load a fine-tuned model: a directory that bertwright or ``transformers`` wrote, or a hub id of one.

    Raises:
        BertwrightError: it is not there, damaged, or no classifier.
    """
    held = checkpoint.read(directory, revision=revision)
    where = str(held.config_path)
    config = BertConfig.from_dict(held.config, where)
    recipe_file = held.directory / Recipe.FILE
    recipe = (
        Recipe.of(Recipe.read(recipe_file)) if recipe_file.exists() else Recipe(max_length=config.max_position_embeddings)
    )
    if "classifier.weight" not in held.tensors:
        raise BertwrightError(
            f"{directory}: has no classifier; fine-tune it first with: bertwright finetune --model {directory}"
        )
    task = Classification.from_config(held.config, where)
    head_layers = recipe.head_layers if "head.0.weight" in held.tensors else 0
    model = task.build(config, head_layers=head_layers, head_size=recipe.head_size)
    report = checkpoint.load_into(model, held.tensors, where=str(directory))
    if report.new:
        raise BertwrightError(f"{directory}: the weights are incomplete ({report.describe()})")
    tokenizer = Tokenizer.from_directory(held.directory)
    check_vocabulary(tokenizer, config, str(held.directory))
    machine = Machine.choose(device, precision, threads)
    model.to(machine.device).requires_grad_(False)
    recipe = dataclasses.replace(recipe, max_length=min(recipe.max_length, config.max_position_embeddings))
    return Predictor(model, tokenizer, task, recipe, machine, held.directory)


def _chunk(rows: Iterator[Example | Unreadable]) -> list[Example | Unreadable]:
    """Take rows until there are many of them, or much text."""
    chunk: list[Example | Unreadable] = []
    characters = 0
    for row in rows:
        chunk.append(row)
        if isinstance(row, Example):
            characters += len(row.text) + len(row.pair or "")
        if len(chunk) >= _CHUNK or characters >= _CHUNK_CHARACTERS:
            break
    return chunk


def check_vocabulary(tokenizer: Tokenizer, config: BertConfig, where: str) -> None:
    """Raise BertwrightError if the tokenizer has ids that the model has no embedding for."""
    if tokenizer.vocab_size > config.vocab_size:
        raise BertwrightError(
            f"{where}: the vocabulary has {tokenizer.vocab_size:,} entries but the model only {config.vocab_size:,} word "
            "embeddings; take the vocabulary that belongs to the model"
        )
