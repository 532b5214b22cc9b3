"""Vectors at work: find the paragraph that answers a question, and judge how similar two sentences are.

    python examples/retrieval.py --squad path/to/dev-v1.1.json --stsb path/to/STS-B/dev.tsv

Nothing is trained. For each question of SQuAD all paragraphs of the file are ranked by the cosine between their vector
and the question's; recall@k is the part of the questions whose own paragraph is among the first k. For STS-B the cosine
of two sentences is held against the score that people gave them. ``--questions 500`` is a quick look.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

import bertwright as bw
from bertwright.data.examples import Columns
from bertwright.data.readers import read_examples
from bertwright.evaluation.correlation import spearman


def squad(file: Path) -> tuple[list[str], list[str], np.ndarray]:
    """Return the paragraphs, the questions, and the number of each question's paragraph."""
    paragraphs: list[str] = []
    questions: list[str] = []
    own: list[int] = []
    for article in json.loads(file.read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                questions.append(question["question"])
                own.append(len(paragraphs))
            paragraphs.append(paragraph["context"])
    return paragraphs, questions, np.array(own)


def places(questions_QW: np.ndarray, paragraphs_PW: np.ndarray, own_Q: np.ndarray) -> np.ndarray:
    """Return how many paragraphs are nearer to each question than its own; vectors have the length 1."""
    found = []
    for begin in range(0, len(questions_QW), 1000):  # all cosines at once would be a large table
        cosines_QP = questions_QW[begin : begin + 1000] @ paragraphs_PW.T
        own = own_Q[begin : begin + 1000]
        found.append((cosines_QP > cosines_QP[np.arange(len(own)), own][:, None]).sum(1))
    return np.concatenate(found)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description="Retrieval on SQuAD's paragraphs and similarity on STS-B, by vectors.")
    parser.add_argument("--squad", type=Path, help="SQuAD's JSON")
    parser.add_argument("--stsb", type=Path, help="STS-B's rows as GLUE has them")
    parser.add_argument("--model", default="minilm", help="encoder (default: %(default)s)")
    parser.add_argument("--pooling", default="mean", help="mean, max or cls (default: %(default)s)")
    parser.add_argument("--layers", default="last", help="last, last4 or numbers (default: %(default)s)")
    parser.add_argument("--questions", type=int, help="only so many questions, evenly spaced")
    arguments = parser.parse_args()
    if arguments.squad is None and arguments.stsb is None:
        parser.error("give --squad or --stsb or both")

    encoder = bw.load_encoder(arguments.model)

    def vectors(texts: list[str]) -> np.ndarray:
        return encoder.vectors(
            texts, pooling=arguments.pooling, layers=arguments.layers, normalize=True, max_length=256
        )  # as many tokens as all-MiniLM-L6-v2 was tuned with

    if arguments.stsb is not None:
        pairs = list(read_examples(arguments.stsb, Columns(text="sentence1", pair="sentence2", label="score")))
        first, second = vectors([row.text for row in pairs]), vectors([row.pair or "" for row in pairs])
        scores = np.array([float(row.label or "") for row in pairs])
        agreement = spearman(scores, (first * second).sum(1))
        print(f"STS-B: Spearman correlation of cosine and score {agreement:.4f}, {len(pairs):,} pairs")
    if arguments.squad is not None:
        paragraphs, questions, own = squad(arguments.squad)
        some = np.linspace(0, len(questions) - 1, min(arguments.questions or len(questions), len(questions))).astype(int)
        ranks = places(vectors([questions[number] for number in some]), vectors(paragraphs), own[some])
        recall = ", ".join(f"recall@{k} {(ranks < k).mean():.4f}" for k in (1, 5, 20))
        print(f"SQuAD: {recall}, {len(some):,} questions, {len(paragraphs):,} paragraphs")


if __name__ == "__main__":
    main()
