"""bertwright: BERT the whole way.

Names are imported when they are first used, so that ``bertwright --help`` need not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bertwright.errors import BertwrightError, BertwrightWarning
    from bertwright.finetuning import Run, finetune
    from bertwright.model import Bert, BertConfig, SequenceClassifier
    from bertwright.predictor import Evaluation, Predictor, load
    from bertwright.tokenizer import Tokenizer
    from bertwright.training.recipe import Recipe

__version__ = "0.1.0"

_HOME = {
    "Bert": "model",
    "BertConfig": "model",
    "BertwrightError": "errors",
    "BertwrightWarning": "errors",
    "Evaluation": "predictor",
    "Predictor": "predictor",
    "Recipe": "training.recipe",
    "Run": "finetuning",
    "SequenceClassifier": "model",
    "Tokenizer": "tokenizer",
    "finetune": "finetuning",
    "load": "predictor",
}

__all__ = [
    "Bert",
    "BertConfig",
    "BertwrightError",
    "BertwrightWarning",
    "Evaluation",
    "Predictor",
    "Recipe",
    "Run",
    "SequenceClassifier",
    "Tokenizer",
    "finetune",
    "load",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'bertwright' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"bertwright.{_HOME[name]}"), name)
    globals()[name] = value
    return value
