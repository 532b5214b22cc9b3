"""Tags of words: entities (Devlin et al. 2019, section 5.3), parts of speech, chunks.

A word is read at its first piece. Tags that mark spans are learned as IOB2, whatever scheme the data have: nothing is
lost by it, data of several schemes can be mixed, a rare type needs two labels instead of four, and it is what other
tools expect of a model. A model from elsewhere keeps the scheme of its labels, and gets the data written in that.

Shapes: W words of all sentences end to end, which are the R rows that the head reads; C labels.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import RenderableType
from torch import Tensor

from bertwright.arrays import FloatArray, IntArray, softmax
from bertwright.data.examples import Unreadable
from bertwright.data.inputs import Inputs
from bertwright.data.splits import stratified_split
from bertwright.data.streamed import as_texts, stream_lines
from bertwright.data.tag_columns import TagColumns
from bertwright.data.tag_files import read_tagged
from bertwright.data.tagged import TaggedExample, words_of
from bertwright.data.tags import (
    OUTSIDE,
    PLAIN,
    SCHEMES,
    TagSet,
    codes,
    in_full,
    marks_span,
    scheme_of_labels,
    scheme_of_tags,
    write_tags,
)
from bertwright.data.word_windows import encode_words
from bertwright.errors import MANY, BertwrightError, tell
from bertwright.evaluation.spans import SpanCounts, Tagged, plot_types, score, tagging_metrics, tagging_report
from bertwright.model import BertConfig, TokenClassifier
from bertwright.tasks import labels as names
from bertwright.tasks.regularisation import classes_apart, weighted
from bertwright.tasks.tag_forms import are_spans, check_marks, first_with, tell_irregular, tell_of_marks, word_at
from bertwright.tasks.task import Loss, Task, fine
from bertwright.tokenizer import Tokenizer
from bertwright.training.recipe import Recipe

_LEARNED = "IOB2"
_IGNORED = -100  # in place of a target, for torch


@dataclass(frozen=True)
class Tagging(Task):
    """A tag for each word, of ``classes``, which are written in ``scheme`` (PLAIN where they mark no spans)."""

    classes: tuple[str, ...]
    scheme: str

    SUMMARY = "a tag for each word: entities, parts of speech"
    ARCHITECTURE = "BertForTokenClassification"
    PIPELINE = "token-classification"
    METRICS: ClassVar = {
        "f1": "F1 of spans",
        "precision": "precision",
        "recall": "recall",
        "accuracy": "accuracy of words",
        "f1_macro": "F1, macro",
    }
    OPTIONS = frozenset(
        {"text", "columns", "delimiter", "quoting", "token_column", "tag_column", "drop_from_token", "scheme"}
        | {"class_weights", "label_smoothing", "r_drop"}
    )

    # ------------------------------------------------------------------------------------------- examples

    @classmethod
    def read(cls, path: Path, recipe: Recipe, *, labelled: bool) -> Iterator[TaggedExample]:
        """Yield the sentences of a file of columns or of JSON lines."""
        columns = TagColumns(
            token=recipe.token_column,
            tag=recipe.tag_column,
            text=recipe.text,
            names=recipe.columns,
            delimiter=recipe.delimiter,
            quoting=recipe.quoting,
            drop=recipe.drop_from_token,
            labelled=labelled,
        )
        yield from read_tagged(path, columns)

    @classmethod
    def read_stream(cls, file: BinaryIO, name: str, recipe: Recipe) -> Iterator[TaggedExample | Unreadable]:
        """Yield an example, or an Unreadable, for each line: a text, or a JSON list of words."""
        for line in as_texts(stream_lines(file, name)):
            if isinstance(line, Unreadable):
                yield line
                continue
            try:
                yield cls.example(line.text, None, line.where)
            except BertwrightError as error:  # of a list with an empty word
                yield Unreadable(line.where, str(error).removeprefix(f"{line.where}: "))

    @classmethod
    def example(cls, text: Any, second: Any, where: str) -> TaggedExample:
        """Make an example of a text, or of a list of words; a text that is a JSON list of words is one too."""
        if second is not None:
            raise BertwrightError(f"{where} has {second!r} beside it; words are tagged in single texts")
        words = text if isinstance(text, list | tuple) else _json_words(text) if isinstance(text, str) else None
        if words is None:
            if not isinstance(text, str):
                raise BertwrightError(f"{where} is {text!r}, of type {type(text).__name__}, not a string or a list of words")
            return TaggedExample(text, words_of(text), where)
        for number, word in enumerate(words, 1):
            if not (isinstance(word, str) and word):
                raise BertwrightError(f"{where}: word {number} is {word!r}, not a string with a character in it")
        return TaggedExample.of_words(words, where)

    @classmethod
    def split(cls, examples: Sequence[TaggedExample], fraction: float, seed: int) -> tuple[list[int], list[int], str]:
        """Set sentences aside, of those with nothing but O the same part as of the others."""
        some = [any(tag != OUTSIDE for tag in example.tags or ()) for example in examples]
        inside, aside = stratified_split(some, fraction, seed)
        return inside, aside, "of the sentences"

    def check(self, examples: Sequence[TaggedExample], recipe: Recipe, *, labelled: bool) -> None:
        """Raise BertwrightError for sentences without tags, or many with no tag of the model's; tell of odd tags."""
        if labelled:
            for example in examples:
                if example.tags is None:
                    raise BertwrightError(f"{example.where}: there are no tags to measure by; give each word its own")
            self._check_known(examples)
            if self.scheme != PLAIN:
                tell_irregular(examples)

    def content(self, example: TaggedExample) -> tuple[Any, ...]:
        """The text, as words and what stands between them."""
        return (example.text,)

    def is_empty(self, example: TaggedExample) -> bool:
        """Whether there is no word."""
        return not example.places

    def record(self, example: TaggedExample) -> dict[str, Any]:
        """The text."""
        return {"text": example.text}

    def truth(self, example: TaggedExample) -> dict[str, Any]:
        """The tags, written in the scheme of the model."""
        truth = self._truth_of([example])
        return {"true": [truth.labels[code] for code in truth.tagged.code_W]}

    # ----------------------------------------------------------------------------------- task and model

    @classmethod
    def learn(cls, examples: Sequence[TaggedExample], recipe: Recipe) -> Self:
        """Take the labels from training sentences: O and, for each type of span, B and I; or the tags as they stand."""
        counts = Counter(tag for example in examples for tag in example.tags or ())
        if recipe.scheme == "plain" or (recipe.scheme == "auto" and not are_spans(counts, examples)):
            classes, scheme = names.in_order(counts), PLAIN
            tell_of_marks(counts, recipe, examples[0].where)
        else:
            check_marks(counts, examples)
            types = TagSet(tuple(counts)).types
            classes, scheme = (OUTSIDE, *(f"{letter}-{name}" for name in types for letter in "BI")), _LEARNED
        if len(classes) < 2:
            raise BertwrightError(
                f"{examples[0].where}: all {counts.total():,} words of the training rows have the tag {classes[0]!r}; "
                "a tagger needs at least two: does --tag-column name the right column?"
            )
        return cls(classes, scheme)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], where: str) -> Self:
        """Take the labels from a saved ``config.json``, and their scheme from there or from the labels themselves."""
        classes = names.from_config(config, where)
        scheme = config.get("tag_scheme") or scheme_of_labels(classes)
        if not isinstance(scheme, str):
            raise BertwrightError(f"{where}: tag_scheme is {scheme!r}, not the name of a scheme; leave it out")
        if scheme != PLAIN and (scheme not in SCHEMES or scheme_of_labels(classes) == PLAIN):
            raise BertwrightError(f"{where}: tag_scheme is {scheme!r}, which these labels are not written in; leave it out")
        return cls(classes, scheme)

    def to_config(self) -> dict[str, Any]:
        """The fields that a saved ``config.json`` has for this task."""
        return super().to_config() | {"tag_scheme": self.scheme} | names.to_config(self.classes)

    def build(self, config: BertConfig, *, head_layers: int, head_size: int) -> TokenClassifier:
        """The model for this task, with fresh weights."""
        return TokenClassifier(config, len(self.classes), head_layers=head_layers, head_size=head_size)

    @property
    def labels(self) -> tuple[str, ...]:
        """The tags."""
        return self.classes

    @property
    def metrics(self) -> Mapping[str, str]:
        """Scores of spans where tags mark them, else those of words."""
        known = ("accuracy", "f1_macro") if self.scheme == PLAIN else ("f1", "precision", "recall", "accuracy")
        return {name: self.METRICS[name] for name in known}

    @cached_property
    def _tag_set(self) -> TagSet:
        return TagSet(self.classes)

    def encode(self, tokenizer: Tokenizer, examples: Sequence[TaggedExample], recipe: Recipe) -> Inputs:
        """Encode sentences word by word, long ones in windows."""
        return encode_words(tokenizer, examples, recipe.max_length)

    def describe(self, inputs: Inputs) -> str:
        """The scheme, how often each type occurs, and what is not as usual with the words."""
        code_W = self.targets(inputs.examples)
        if self.scheme == PLAIN:
            parts = [f"tags: {names.balance(self.classes, np.bincount(code_W, minlength=len(self.classes)))}"]
        else:
            found, _ = scheme_of_tags([example.tags or () for example in inputs.examples])
            types = self._tag_set.types
            spans_N3 = self._truth_of(inputs.examples).tagged.spans_N3
            counts = names.balance(types, np.bincount(spans_N3[:, 2], minlength=len(types)))
            parts = [f"tags: {found}" + (f", learned as {self.scheme}" if found != self.scheme else "")]
            parts.append(f"{len(spans_N3):,} spans: {counts}")
        if windows := len(inputs.table) - len(inputs.examples):
            split = int((np.diff(inputs.starts) > 1).sum())
            parts.append(f"long sentences: {split:,}, read in {split + windows:,} overlapping windows")
        if without := sum(inputs.details):
            parts.append(f"words without a piece, read as [UNK]: {without:,}")
        return "; ".join(parts)

    # ------------------------------------------------------------------------------------------ training

    def targets(self, examples: Sequence[TaggedExample]) -> IntArray:
        """Return the label of each word of all sentences, code_W; past the model's stand those that it does not have.

        Raises:
            BertwrightError: a tag marks no span where the model's do (names the sentence and the word).
        """
        return self._truth_of(examples).tagged.code_W

    def _truth_of(self, examples: Sequence[TaggedExample]) -> _Truth:
        """The labels that the words have, and the spans as the file has them.

        Not all schemes can tell two spans that touch from one, so these are not found again in the labels.
        """
        flat = [tag for example in examples for tag in example.tags or ()]
        if self.scheme == PLAIN:
            labels = _and_others(self.classes, flat)
            return _Truth(Tagged.word_by_word(codes(flat, labels)), labels, labels)
        known = dict.fromkeys(flat)
        for tag in known:
            if tag != OUTSIDE and not marks_span(tag):
                raise names.unknown(tag, self.classes, first_with(tag, examples))
        given = TagSet(tuple(known))
        lengths = _lengths(examples)
        spans_N3 = given.spans(codes(flat, given.tags), lengths)
        written = write_tags(spans_N3, given.types, lengths, self.scheme)
        labels, types = _and_others(self._in_full, written), _and_others(self._tag_set.types, given.types)
        spans_N3[:, 2] = codes(given.types, types)[spans_N3[:, 2]]
        return _Truth(Tagged(codes(written, labels), spans_N3), self.classes + labels[len(self.classes) :], types)

    @cached_property
    def _in_full(self) -> tuple[str, ...]:
        return tuple(map(in_full, self.classes))

    def _check_known(self, examples: Sequence[TaggedExample]) -> None:
        """Tell of words with a label that the model does not have.

        Raises:
            BertwrightError: many words do, and none has one that marks something: the tags are of something else.
        """
        truth = self._truth_of(examples)
        code_W = truth.tagged.code_W
        unknown = np.flatnonzero(code_W >= len(self.classes))
        if not len(unknown):
            return
        outside = truth.labels.index(OUTSIDE) if self.scheme != PLAIN and OUTSIDE in truth.labels else -1
        strange = [truth.labels[code] for code in dict.fromkeys(code_W[unknown].tolist())]
        where = word_at(int(unknown[0]), examples)
        if len(unknown) >= MANY and not ((code_W < len(self.classes)) & (code_W != outside)).any():
            raise names.unknown(strange[0], self.classes, where)
        shown = ", ".join(strange[:5]) + (", …" if len(strange) > 5 else "")
        tell(
            f"{where}: the model has no label {strange[0]!r}; {len(unknown):,} of {len(code_W):,} words have such "
            f"({shown}); they count as wrong, and the loss leaves them out"
        )

    def class_weights(self, setting: str, inputs: Inputs | None) -> FloatArray:
        """Loss weights of the tags."""
        counts_C = np.zeros(len(self.classes), dtype=np.int64)
        if inputs is not None:
            counts_C = np.bincount(self.targets(inputs.examples), minlength=len(self.classes))
        return names.weights(setting, self.classes, counts_C)

    def loss(self, inputs: Inputs, weights_C: FloatArray) -> Loss:
        """Cross-entropy over words, in float32 or finer; a unit weighs as much as its words together."""
        targets, table = self.targets(inputs.examples), inputs.table
        known_W = targets < len(self.classes)
        targets_W, weights = torch.from_numpy(np.where(known_W, targets, _IGNORED)), torch.from_numpy(weights_C)
        weight_W = np.where(known_W, weights_C[targets * known_W], 0.0)
        before_W = np.concatenate([[0.0], np.cumsum(weight_W)])

        def total(logits_RC: Tensor, units: IntArray, smoothing: float = 0.0) -> Tensor:
            logits_RC = fine(logits_RC)
            targets_R = targets_W[torch.from_numpy(table.outputs(units))].to(logits_RC.device)
            return F.cross_entropy(
                logits_RC,
                targets_R,
                weights.to(logits_RC),
                ignore_index=_IGNORED,
                reduction="sum",
                label_smoothing=smoothing,
            )

        even, divergence = partial(total, smoothing=1.0), weighted(classes_apart, weight_W, table.outputs)
        return Loss(np.diff(before_W[table.read_starts]), total, even, divergence)

    # ---------------------------------------------------------------------------- predictions and measures

    def scores(self, outputs_RC: FloatArray, inputs: Inputs) -> dict[str, float]:
        """Compute each metric that may pick the best epoch."""
        _, counts = self._counts(outputs_RC, inputs)
        return {name: score(counts, name) for name in self.metrics}

    def measure(self, outputs_RC: FloatArray, inputs: Inputs, headline: str) -> dict[str, Any]:
        """The full measurement of an evaluation."""
        truth, counts = self._counts(outputs_RC, inputs)
        return tagging_metrics(truth.tagged, counts, truth.types, list(self.metrics), headline)

    def _counts(self, outputs_RC: FloatArray, inputs: Inputs) -> tuple[_Truth, SpanCounts]:
        lengths_B = _lengths(inputs.examples)
        truth = self._truth_of(inputs.examples)
        predicted = self._tagged(outputs_RC.argmax(1), lengths_B)
        return truth, SpanCounts.of(truth.tagged, predicted, lengths_B, len(truth.types))

    def _tagged(self, code_W: IntArray, lengths_B: IntArray) -> Tagged:
        if self.scheme == PLAIN:
            return Tagged.word_by_word(code_W)
        return Tagged(code_W, self._tag_set.spans(code_W, lengths_B))

    def decode(self, outputs_RC: FloatArray, inputs: Inputs) -> list[dict[str, Any]]:
        """Turn logits into tags by word and, where they mark spans, entities with offsets, text and score.

        An entity's score is the mean probability of its words' tags.
        """
        code_W = outputs_RC.argmax(1)
        score_W = softmax(outputs_RC).max(1)
        lengths_B = _lengths(inputs.examples)
        found: list[list[dict[str, Any]]] = [[] for _ in inputs.examples]
        if self.scheme != PLAIN:
            sentence_W = np.repeat(np.arange(len(lengths_B)), lengths_B)
            first_B = np.cumsum(lengths_B) - lengths_B
            for begin, end, kind in self._tag_set.spans(code_W, lengths_B).tolist():
                sentence = int(sentence_W[begin])
                example, first = inputs.examples[sentence], int(first_B[sentence])
                start, stop = example.places[begin - first][0], example.places[end - first - 1][1]
                found[sentence].append(
                    {
                        "label": self._tag_set.types[kind],
                        "start": start,
                        "end": stop,
                        "text": example.text[start:stop],
                        "score": float(score_W[begin:end].mean()),
                    }
                )
        predictions: list[dict[str, Any]] = []
        begin = 0
        for example, entities in zip(inputs.examples, found, strict=True):
            end = begin + len(example.places)
            tags = [self.classes[code] for code in code_W[begin:end]]
            answer = {"tokens": example.words, "offsets": [list(place) for place in example.places], "predicted": tags}
            answer["probability"] = score_W[begin:end].tolist()
            predictions.append(answer if self.scheme == PLAIN else {"entities": entities} | answer)
            begin = end
        return predictions

    def table(self, records: Iterable[Mapping[str, Any]]) -> Iterator[list[Any]]:
        """Predictions as rows of a CSV file: a row an entity, or a word; ``row`` counts the texts.

        A text without any has one row, so that none is missing.
        """
        what = ("label", "start", "end", "entity", "score")
        word = ("tag", "start", "end", "word", "probability")
        yield ["row", "text", *(word if self.scheme == PLAIN else what), "skipped", "cut"]
        for number, record in enumerate(records, 1):
            begin, end = [number, record.get("text")], [record.get("skipped"), record.get("cut")]
            if self.scheme == PLAIN and record.get("tokens"):
                parts = zip(record["predicted"], record["offsets"], record["tokens"], record["probability"], strict=True)
                cells = [[tag, *place, token, probability] for tag, place, token, probability in parts]
            else:
                found = record.get("entities", ())
                cells = [[one[name] for name in ("label", "start", "end", "text", "score")] for one in found]
            for row in cells or [[None] * 5]:
                yield [*begin, *row, *end]

    def report(self, metrics: Mapping[str, Any], title: str) -> RenderableType:
        """Scores, and those of each type, as tables."""
        return tagging_report(metrics, self.metrics, title, plain=self.scheme == PLAIN)

    def draw(self, metrics: Mapping[str, Any], records: Sequence[Mapping[str, Any]], folder: Path) -> None:
        """Draw the F1 of each type."""
        if metrics["per_class"]:
            plot_types(metrics, folder / "types.png")


@dataclass(frozen=True, slots=True)
class _Truth:
    """What words are tagged with, and what the codes mean: the model's labels and types of spans, then others."""

    tagged: Tagged
    labels: tuple[str, ...]
    types: tuple[str, ...]


def _and_others(known: Sequence[str], found: Iterable[str]) -> tuple[str, ...]:
    places = set(known)
    return (*known, *(one for one in dict.fromkeys(found) if one not in places))


def _lengths(examples: Sequence[TaggedExample]) -> IntArray:
    return np.fromiter((len(example.places) for example in examples), np.int64, len(examples))


def _json_words(text: str) -> list[str] | None:
    """The words of a JSON list of words; None for any other text, such as one that begins with ``[1]``."""
    if not text.lstrip().startswith("["):
        return None
    try:
        words: list[str] = json.loads(text)
        "".join(words).encode()
        return words
    except TypeError:  # a list of something else
        return None
    except (ValueError, RecursionError):  # no JSON, or half a character
        return None
