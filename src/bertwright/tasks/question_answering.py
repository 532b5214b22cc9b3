"""Extractive question answering: where in a context the answer to a question stands, or that it does not (section 4.2, 4.3).

Shapes: R rows of the head (all tokens), W windows, E examples, B windows of a batch.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from rich.console import RenderableType
from torch import Tensor

from bertwright.arrays import FloatArray, IntArray
from bertwright.data.examples import Unreadable
from bertwright.data.inputs import Inputs
from bertwright.data.question_windows import Context, encode_questions
from bertwright.data.splits import grouped_split
from bertwright.data.squad import QuestionExample, read_questions
from bertwright.data.streamed import as_pairs, stream_lines
from bertwright.errors import BertwrightError, tell
from bertwright.evaluation.answers import (
    TITLES,
    Judged,
    answer_metrics,
    answers_report,
    best_threshold,
    judge,
    plot_answers,
)
from bertwright.model import BertConfig, SpanClassifier
from bertwright.tasks import labels as names
from bertwright.tasks.spans import Spans, best_spans, no_answer_scores
from bertwright.tasks.task import Loss, Task, fine
from bertwright.tokenizer import Tokenizer
from bertwright.training.recipe import Recipe

BEST = 20  # answers among which probability is shared out, as in the official scripts
SHOWN = 5  # of them, that a prediction tells
CERTAIN = 1e9  # the margin, for the official script, of a question with an empty context
KINDS = ("answer", "no-answer")  # of questions, as ``--class-weights`` names them

# For training; two epochs of a sample of v2.0, which has 5,615, were no better than declining to answer (LOG.md).
FEW_QUESTIONS = 10_000


@dataclass(frozen=True)
class QuestionAnswering(Task):
    """Spans of a context as answers to questions.

    ``threshold`` is how much better "no answer" must score than the best answer to be given; None: an answer is always
    given, as training had no question without one. ``answer_length`` is the longest answer in tokens.
    """

    # Neither is of the head: models that differ in them have the same weights to start from.
    threshold: float | None = field(default=None, compare=False)
    answer_length: int = field(default=30, compare=False)

    SUMMARY: ClassVar = "answers to questions, as spans of a context (SQuAD v1.1 and v2.0)"
    ARCHITECTURE: ClassVar = "BertForQuestionAnswering"
    PIPELINE: ClassVar = "question-answering"
    METRICS: ClassVar = TITLES
    READS: ClassVar = "question"
    ASKED: ClassVar = ('"a question" --pair "its context"', '["a question"], ["its context"]')
    DEFAULTS: ClassVar = {"max_length": 384, "stride": 128, "batch_size": 16}
    OPTIONS: ClassVar = frozenset({"stride", "question_length", "answer_length", "class_weights", "r_drop"})

    # ------------------------------------------------------------------------------------------- examples

    @classmethod
    def read(cls, path: Path, recipe: Recipe, *, labelled: bool) -> Iterator[QuestionExample]:
        """Yield the questions of SQuAD JSON or JSON lines."""
        yield from read_questions(path, labelled=labelled)

    @classmethod
    def read_stream(cls, file: BinaryIO, name: str, recipe: Recipe) -> Iterator[QuestionExample | Unreadable]:
        """Yield a question for each line of a stream: question, tab, context."""
        for line in as_pairs(stream_lines(file, name)):
            yield line if isinstance(line, Unreadable) else QuestionExample(line.where, line.text, line.pair or "")

    @classmethod
    def example(cls, text: Any, second: Any, where: str) -> QuestionExample:
        """Make an example of a question and its context."""
        for value, name in ((text, "question"), (second, "context")):
            if value is None:
                raise BertwrightError(f"{where}: a question needs a context to look for its answer in; give each its own")
            if not isinstance(value, str):
                raise BertwrightError(f"{where}: the {name} is {value!r:.60}, of type {type(value).__name__}, not a string")
        return QuestionExample(where, text, second)

    @classmethod
    def split(cls, examples: Sequence[Any], fraction: float, seed: int) -> tuple[list[int], list[int], str]:
        """Set contexts aside with all their questions: paragraphs seen in training would flatter the scores."""
        inside, aside = grouped_split([example.context for example in examples], fraction, seed)
        return inside, aside, "in whole paragraphs"

    @classmethod
    def epochs(cls, rows: int) -> int:
        """Two, as of SQuAD, and more passes over few questions."""
        return 4 if rows < FEW_QUESTIONS else 2

    def check(self, examples: Sequence[Any], recipe: Recipe, *, labelled: bool) -> None:
        """Raise BertwrightError for a question that must have answers but came without."""
        for example in examples:
            if labelled and example.answers is None:
                raise BertwrightError(f"{example.where}: has no answers to measure by; read it with its answers")

    def content(self, example: QuestionExample) -> tuple[Any, ...]:
        """Question and context."""
        return example.question, example.context

    def tell_empty(self, examples: Sequence[QuestionExample], name: str) -> None:
        """Nothing: the reader of questions has told it."""

    def is_empty(self, example: QuestionExample) -> bool:
        """Whether there is nothing to answer, or nowhere to look."""
        return not (example.question.strip() and example.context.strip())

    def record(self, example: QuestionExample) -> dict[str, Any]:
        """The question with its id; the context is left out, as many questions share one."""
        return ({} if example.id is None else {"id": example.id}) | {"question": example.question}

    def truth(self, example: QuestionExample) -> dict[str, Any]:
        """The article, and the true answers, each once."""
        article = {} if example.title is None else {"title": example.title}
        return article | {"true": list(dict.fromkeys(example.texts))}

    # ----------------------------------------------------------------------------------- task and model

    @classmethod
    def learn(cls, examples: Sequence[Any], recipe: Recipe) -> Self:
        """See whether there are questions without an answer."""
        if not any(_trained_place(example) for example in examples):
            raise BertwrightError(
                f"{examples[0].where}: none of the {len(examples):,} training questions has an answer that stands in its "
                "context; is it the right file?"
            )
        threshold = 0.0 if any(example.is_impossible for example in examples) else None
        return cls(threshold, recipe.answer_length)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], where: str) -> Self:
        """Take threshold and longest answer from a saved ``config.json``; without, an answer is always given."""
        threshold, longest = config.get("no_answer_threshold"), config.get("max_answer_length", cls.answer_length)
        if threshold is not None and (isinstance(threshold, bool) or not isinstance(threshold, int | float)):
            raise BertwrightError(f"{where}: no_answer_threshold is {threshold!r}; make it a number or null")
        if isinstance(longest, bool) or not isinstance(longest, int) or longest < 1:
            raise BertwrightError(f"{where}: max_answer_length is {longest!r}; make it a whole number of tokens")
        return cls(threshold, longest)

    def to_config(self) -> dict[str, Any]:
        """The fields that a saved ``config.json`` has for this task."""
        own = {"no_answer_threshold": self.threshold, "max_answer_length": self.answer_length}
        return super().to_config() | own

    def build(self, config: BertConfig, *, head_layers: int, head_size: int) -> SpanClassifier:
        """The model for this task, with fresh weights."""
        return SpanClassifier(config, head_layers=head_layers, head_size=head_size)

    def encode(self, tokenizer: Tokenizer, examples: Sequence[Any], recipe: Recipe) -> Inputs:
        """Encode questions with their contexts, long contexts as several windows."""
        return encode_questions(
            tokenizer,
            examples,
            max_length=recipe.max_length,
            stride=recipe.stride or 0,
            question_length=recipe.question_length,
        )

    def describe(self, inputs: Inputs) -> str:
        """How many questions and windows there are, and how many without an answer."""
        impossible = sum(example.is_impossible for example in inputs.examples)
        targets_W2, weight_W = targets(inputs)
        empty = int(((targets_W2 == 0).all(1) & (weight_W > 0)).sum())
        contexts = len({example.context for example in inputs.examples})
        said = (
            f"{len(inputs.examples):,} questions on {contexts:,} contexts, {impossible:,} without an answer; "
            f"{len(inputs.table):,} windows, {empty:,} of which show no answer"
        )
        widened = sum(map(_is_widened, inputs.examples, _contexts(inputs)))
        return said + (f"; {widened:,} answers are parts of words, and trained as the whole" if widened else "")

    # ------------------------------------------------------------------------------------------ training

    def class_weights(self, setting: str, inputs: Inputs | None) -> FloatArray:
        """Loss weights of the windows of questions with an answer and of those without."""
        if inputs is None:
            return names.weights(setting, KINDS, np.zeros(len(KINDS), dtype=np.int64))
        counts_C = np.bincount(_kinds(inputs), targets(inputs)[1], len(KINDS)).astype(np.int64)
        if setting != "none" and not counts_C.all():
            lacking = KINDS[int(counts_C.argmin())]
            tell(f"--class-weights {setting} has no effect: no training question is of the kind {lacking!r}")
        return names.weights(setting, KINDS, counts_C)

    def loss(self, inputs: Inputs, weights_C: FloatArray) -> Loss:
        """The mean of the cross-entropies of start and end over the tokens of a window, in float32 or finer.

        The target of a window that shows no answer is [CLS]. Windows of a question whose answer has no known place have
        no weight.
        """
        targets_W2, weight_W = targets(inputs)
        weight_W = weight_W * weights_C[_kinds(inputs)]
        lengths_W = inputs.table.lengths

        def total(outputs_R2: Tensor, units: IntArray) -> Tensor:
            losses_B = span_losses(fine(outputs_R2), lengths_W[units], targets_W2[units])
            return losses_B @ torch.from_numpy(weight_W[units]).to(losses_B)

        def divergence(first_R2: Tensor, second_R2: Tensor, units: IntArray) -> Tensor:
            lengths_B = lengths_W[units]
            first_R2, second_R2 = (_log_softmax(fine(one), lengths_B) for one in (first_R2, second_R2))
            apart_R = ((first_R2.exp() - second_R2.exp()) * (first_R2 - second_R2)).mean(1) / 2
            return apart_R @ torch.from_numpy(np.repeat(weight_W[units], lengths_B)).to(apart_R)

        return Loss(weight_W, total, divergence=divergence)

    # ---------------------------------------------------------------------------- predictions and measures

    def tuned(self, outputs_RC: FloatArray, inputs: Inputs) -> Self:
        """Set the threshold to what gives these questions the best F1; where all have an answer, it stays."""
        impossible = sum(example.is_impossible for example in inputs.examples)
        if self.threshold is None or not 0 < impossible < len(inputs.examples):
            return self
        return replace(self, threshold=self._chosen(outputs_RC, inputs).best_threshold()[0])

    def scores(self, outputs_RC: FloatArray, inputs: Inputs) -> dict[str, float]:
        """Exact match and F1."""
        judged = self._chosen(outputs_RC, inputs).judged(self.threshold)
        return {"f1": float(judged.f1_B.mean()), "exact_match": float(judged.exact_B.mean())}

    def measure(self, outputs_RC: FloatArray, inputs: Inputs, headline: str) -> dict[str, Any]:
        """The full measurement, with the threshold that would be best for these questions if some have no answer."""
        examples: Sequence[QuestionExample] = inputs.examples
        chosen = self._chosen(outputs_RC, inputs)
        metrics = answer_metrics(
            chosen.judged(self.threshold),
            [example.texts for example in examples],
            [example.question for example in examples],
            [example.context for example in examples],
            headline=headline,
        )
        metrics["windows"] = len(inputs.table)
        if "unanswerable" in metrics:
            best, f1 = chosen.best_threshold()
            metrics |= {"threshold": self.threshold, "best_threshold": best, "best_f1": f1}
        return metrics

    def decode(self, outputs_RC: FloatArray, inputs: Inputs) -> list[dict[str, Any]]:
        """Turn scores into answers: text, place, score, probability, what came next, and how "no answer" scored."""
        found = best_spans(outputs_RC, inputs, longest=self.answer_length, count=BEST)
        null_E = no_answer_scores(outputs_RC, inputs)
        return [self._prediction(found, e, float(null_E[e]), context) for e, context in enumerate(_contexts(inputs))]

    def _prediction(self, found: Spans, e: int, null: float, context: Context) -> dict[str, Any]:
        ks = range(int(found.starts_E1[e]), int(found.starts_E1[e + 1]))
        scores = np.array([found.score_K[k] for k in ks] + ([] if self.threshold is None else [null]))
        shares = np.exp(scores - scores.max(initial=-np.inf)) if len(scores) else scores
        shares = shares / shares.sum() if len(shares) else shares
        answers = []
        for k, share in zip(ks[:SHOWN], shares.tolist(), strict=False):
            begin, end = place(context, int(found.first_K[k]), int(found.last_K[k]))
            scored = {"score": float(found.score_K[k]), "probability": share}
            answers.append({"predicted": context.text[begin:end], "start": begin, "end": end} | scored)
        margin = null - float(found.score_K[ks[0]]) if ks else None
        declined = not ks or (self.threshold is not None and margin is not None and margin > self.threshold)
        nothing = {"predicted": "", "start": None, "end": None, "score": null}
        nothing["probability"] = None if self.threshold is None else float(shares[-1])
        best, others = (nothing, answers) if declined else (answers[0], answers[1:])
        return best | {
            "runners_up": [{"text": one.pop("predicted")} | one for one in others],
            "no_answer": {"score": null, "margin": margin, "threshold": self.threshold},
        }

    def table(self, records: Iterable[Mapping[str, Any]]) -> Iterator[list[Any]]:
        """Predictions as rows of a CSV file."""
        columns = ("id", "question", "predicted", "start", "end", "score", "probability")
        yield [*columns, "no-answer margin", "skipped", "cut"]
        for record in records:
            margin = record.get("no_answer", {}).get("margin")
            yield [*(record.get(name) for name in columns), margin, record.get("skipped"), record.get("cut")]

    def report(self, metrics: Mapping[str, Any], title: str) -> RenderableType:
        """Scores, and those of parts of the questions."""
        return answers_report(metrics, title)

    def files(self, records: Iterable[Mapping[str, Any]]) -> dict[str, str | None]:
        """What SQuAD's scripts take: the answers by id, and for v2.0 how sure the model is that there is none."""
        records = list(records)
        files: dict[str, str | None] = {"predictions.json": None, "null_odds.json": None}
        # Questions that share an id have one place in these files.
        if any("id" not in record for record in records) or len({record["id"] for record in records}) < len(records):
            return files
        answers = {record["id"]: record["predicted"] for record in records}
        files["predictions.json"] = json.dumps(answers, ensure_ascii=False, indent=1) + "\n"
        if self.threshold is not None:
            margins = {record["id"]: record["no_answer"]["margin"] for record in records}
            certain = {id: CERTAIN if margin is None else margin for id, margin in margins.items()}
            files["null_odds.json"] = json.dumps(certain, indent=1) + "\n"
        return files

    def draw(self, metrics: Mapping[str, Any], records: Sequence[Mapping[str, Any]], folder: Path) -> None:
        """Draw scores by question word and by length of the answer."""
        plot_answers(metrics, folder / "answers.png")

    # --------------------------------------------------------------------------------------------- inside

    def _chosen(self, outputs_R2: FloatArray, inputs: Inputs) -> _Chosen:
        found = best_spans(outputs_R2, inputs, longest=self.answer_length, count=1)
        texts = [""] * len(inputs.examples)
        margins = np.full(len(texts), np.inf)
        margins[found.example_K] = no_answer_scores(outputs_R2, inputs)[found.example_K] - found.score_K
        contexts = _contexts(inputs)
        for e, first, last in zip(found.example_K.tolist(), found.first_K.tolist(), found.last_K.tolist(), strict=True):
            begin, end = place(contexts[e], first, last)
            texts[e] = contexts[e].text[begin:end]
        return _Chosen(inputs.examples, texts, margins)


@dataclass(frozen=True, slots=True)
class _Chosen:
    """The best answer of each question, and by how much "no answer" scored higher; infinity where there is no text."""

    examples: Sequence[QuestionExample]
    text_E: list[str]
    margin_E: FloatArray

    def judged(self, threshold: float | None) -> Judged:
        """Judge the answers; those whose margin is above the threshold as "no answer"."""
        declined_E = np.zeros(len(self.text_E), dtype=bool) if threshold is None else self.margin_E > threshold
        texts = ["" if declined else text for text, declined in zip(self.text_E, declined_E.tolist(), strict=True)]
        gold = [example.texts for example in self.examples]
        return judge(texts, gold, [example.context for example in self.examples])

    def best_threshold(self) -> tuple[float, float]:
        """The threshold that gives the best F1, and that F1."""
        has_text_E = np.isfinite(self.margin_E)  # without a context there is nothing to decide
        impossible_E = np.array([float(example.is_impossible) for example in self.examples])
        if not has_text_E.any():
            return 0.0, float(impossible_E.mean())
        answered_E = self.judged(None).f1_B
        threshold, f1 = best_threshold(self.margin_E[has_text_E], answered_E[has_text_E], impossible_E[has_text_E])
        in_all = f1 * has_text_E.sum() + impossible_E[~has_text_E].sum()
        return threshold, float(in_all / len(self.margin_E))


def targets(inputs: Inputs) -> tuple[IntArray, FloatArray]:
    """Where in each window the answer begins and ends, (W, 2), or [CLS]; and each window's weight, 1 or 0."""
    targets_W2 = np.zeros((len(inputs.table), 2), dtype=np.int64)
    weight_W = np.ones(len(inputs.table))
    for e, example in enumerate(inputs.examples):
        begin, end = int(inputs.starts[e]), int(inputs.starts[e + 1])
        place = _trained_place(example)
        tokens = None if place is None else inputs.details[begin].context.tokens_of(place)
        if tokens is None:
            weight_W[begin:end] = example.is_impossible
            continue
        for w in range(begin, end):
            window = inputs.details[w]
            if window.begin <= tokens[0] and tokens[1] < window.end:
                targets_W2[w] = np.array(tokens) - window.begin + window.prefix
    return targets_W2, weight_W


def span_losses(logits_R2: Tensor, lengths_B: npt.NDArray[np.int32], targets_B2: IntArray) -> Tensor:
    """The mean of both cross-entropies of each window, B values, for the logits of windows that stand end to end."""
    begins_B1 = (np.cumsum(lengths_B, dtype=np.int64) - lengths_B)[:, None]
    chosen_B2 = torch.from_numpy(begins_B1 + targets_B2).to(logits_R2.device)
    return -_log_softmax(logits_R2, lengths_B).gather(0, chosen_B2).mean(1)


def _log_softmax(logits_R2: Tensor, lengths_B: npt.NDArray[np.int32]) -> Tensor:
    """The logarithm of each window's softmax over its own tokens: no padding, and no loop over windows."""
    B = len(lengths_B)
    owner_R = torch.repeat_interleave(torch.arange(B), torch.from_numpy(lengths_B.astype(np.int64))).to(logits_R2.device)
    # Of each window its own highest logit is taken off, so that no exponential overflows and no sum is 0.
    nothing = logits_R2.new_full((B, 2), -torch.inf)
    top_B2 = nothing.scatter_reduce(0, owner_R[:, None].expand(-1, 2), logits_R2.detach(), "amax")
    shifted_R2 = logits_R2 - top_B2.index_select(0, owner_R)
    sums_B2 = torch.zeros_like(top_B2).index_add(0, owner_R, shifted_R2.exp())
    return shifted_R2 - sums_B2.log().index_select(0, owner_R)


def place(context: Context, first: int, last: int) -> tuple[int, int]:
    """The characters of a span of tokens, with the accents that follow its last one (tokens leave them out)."""
    begin, end = int(context.begins_N[first]), int(context.ends_N[last])
    while end < len(context.text) and unicodedata.category(context.text[end]) == "Mn":
        end += 1
    return begin, end


def _kinds(inputs: Inputs) -> IntArray:
    """Which of KINDS the question of each window is."""
    return np.repeat(np.array([example.is_impossible for example in inputs.examples], dtype=np.int64), inputs.counts)


def _contexts(inputs: Inputs) -> list[Context]:
    return [inputs.details[start].context for start in inputs.starts[:-1].tolist()]


def _is_widened(example: QuestionExample, context: Context) -> bool:
    """Whether the tokens of the answer that is trained hold more than it."""
    answer = _trained_place(example)
    tokens = None if answer is None else context.tokens_of(answer)
    if answer is None or tokens is None:
        return False
    return bool(context.begins_N[tokens[0]] < answer[0] or context.ends_N[tokens[1]] > answer[1])


def _trained_place(example: QuestionExample) -> tuple[int, int] | None:
    """The first answer that has a place."""
    return next((answer.place for answer in example.answers or () if answer.place is not None), None)
