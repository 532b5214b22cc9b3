"""bertwright: BERT the whole way.

Names are imported when they are first used, so that ``bertwright --help`` need not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from bertwright.version import VERSION

if TYPE_CHECKING:
    from bertwright.data.corpus import CorpusFormat
    from bertwright.errors import BertwrightError, BertwrightWarning
    from bertwright.finetuning import Run, finetune
    from bertwright.masked_lm import MaskedLM, load_masked_lm
    from bertwright.model import Bert, BertConfig, Pretraining, SequenceClassifier
    from bertwright.predictor import Evaluation, Predictor, load
    from bertwright.preparation.prepare import prepare
    from bertwright.preparation.report import Prepared
    from bertwright.preparation.vocabulary import train_vocabulary
    from bertwright.pretraining.run import PretrainingRun, pretrain
    from bertwright.text_vectors import TextEncoder, TokenVectors, load_encoder, vectors
    from bertwright.tokenizer import Tokenizer
    from bertwright.training.pretraining_recipe import PretrainingRecipe
    from bertwright.training.recipe import Recipe

__version__ = VERSION

_HOME = {
    "Bert": "model",
    "BertConfig": "model",
    "BertwrightError": "errors",
    "BertwrightWarning": "errors",
    "CorpusFormat": "data.corpus",
    "Evaluation": "predictor",
    "MaskedLM": "masked_lm",
    "Predictor": "predictor",
    "Prepared": "preparation.report",
    "Pretraining": "model",
    "PretrainingRecipe": "training.pretraining_recipe",
    "PretrainingRun": "pretraining.run",
    "Recipe": "training.recipe",
    "Run": "finetuning",
    "SequenceClassifier": "model",
    "TextEncoder": "text_vectors",
    "TokenVectors": "text_vectors",
    "Tokenizer": "tokenizer",
    "finetune": "finetuning",
    "load": "predictor",
    "load_encoder": "text_vectors",
    "load_masked_lm": "masked_lm",
    "prepare": "preparation.prepare",
    "pretrain": "pretraining.run",
    "train_vocabulary": "preparation.vocabulary",
    "vectors": "text_vectors",
}

__all__ = [
    "Bert",
    "BertConfig",
    "BertwrightError",
    "BertwrightWarning",
    "CorpusFormat",
    "Evaluation",
    "MaskedLM",
    "Predictor",
    "Prepared",
    "Pretraining",
    "PretrainingRecipe",
    "PretrainingRun",
    "Recipe",
    "Run",
    "SequenceClassifier",
    "TextEncoder",
    "TokenVectors",
    "Tokenizer",
    "finetune",
    "load",
    "load_encoder",
    "load_masked_lm",
    "prepare",
    "pretrain",
    "train_vocabulary",
    "vectors",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'bertwright' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"bertwright.{_HOME[name]}"), name)
    globals()[name] = value
    return value
