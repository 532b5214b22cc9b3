"""A pretrained model's head for next sentences as what it is: a classifier of pairs."""

from __future__ import annotations

import dataclasses

from bertwright.checkpoint import TASK_HEADS, Checkpoint
from bertwright.tasks import labels
from bertwright.training.pretraining_recipe import PretrainingRecipe

# Those of transformers whose next-sentence head is trained.
_ARCHITECTURES = ("BertForNextSentencePrediction", "BertForPreTraining")
_HEAD = "cls.seq_relationship."
# What the two logits stand for, by the objective of a pretraining; another model's is BERT's own.
_CLASSES = {"mlm+nsp": ("is next", "is not next"), "mlm+sop": ("in order", "swapped")}


def as_classifier(held: Checkpoint) -> Checkpoint:
    """The same checkpoint as a sequence classifier's, if a head for next sentences is all the head it has."""
    made = held.config.get("architectures")
    known = isinstance(made, list) and any(name in made for name in _ARCHITECTURES)
    fine_tuned = any(name.startswith(TASK_HEADS) for name in held.tensors)
    if fine_tuned or not known or f"{_HEAD}weight" not in held.tensors:
        return held
    recipe = held.directory / PretrainingRecipe.FILE
    classes = _CLASSES.get(PretrainingRecipe.read(recipe).get("objective", "") if recipe.exists() else "mlm+nsp")
    if classes is None:  # of masked words alone: the head is there, but random
        return held
    tensors = {name.replace(_HEAD, "classifier."): tensor for name, tensor in held.tensors.items()}
    config = {"architectures": ["BertForSequenceClassification"], "problem_type": labels.SINGLE_LABEL}
    return dataclasses.replace(held, tensors=tensors, config=held.config | config | labels.to_config(classes))
