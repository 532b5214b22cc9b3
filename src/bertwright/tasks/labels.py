"""Names of classes: out of training examples, in a ``config.json``, and with the weights that skewed data need."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bertwright.arrays import FloatArray, IntArray
from bertwright.data.examples import Example
from bertwright.errors import MANY, BertwrightError, did_you_mean, tell

# What a ``config.json`` of transformers calls the losses of a sequence classifier.
SINGLE_LABEL = "single_label_classification"
MULTI_LABEL = "multi_label_classification"
REGRESSION = "regression"

_DECIMAL = re.compile(r"[+-]?\d+(\.\d+)?")
_POINT_ZERO = re.compile(r"(?<=\d)\.0+$")


def in_order(labels: Iterable[str], renamed: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Numbers by value, then names by alphabet; those that something was ``renamed`` to come first, in its order."""
    others = sorted(set(labels), key=_numeric_first)
    first = [renamed[old] for old in sorted(renamed, key=_numeric_first)] if renamed else []
    return tuple(dict.fromkeys([*(name for name in first if name in others), *others]))


def tell_odd(labels: Sequence[str]) -> None:
    """Tell of labels that look like scores, or like one label written in two ways."""
    if len(labels) >= MANY and all(map(_DECIMAL.fullmatch, labels)) and any("." in label for label in labels):
        tell(f"the labels of the training rows are {len(labels):,} numbers; if they are scores, give --task regression")
        return
    first: dict[str, str] = {}
    for label in labels:
        same = first.setdefault(_POINT_ZERO.sub("", label).casefold(), label)
        if same != label:
            tell(f"{same!r} and {label!r} are two labels; if they mean one, --label-names gives both its name")
            return


def tell_unused(names: Mapping[str, str], classes: Sequence[str]) -> None:
    """Tell which names of ``--label-names`` no label got."""
    unused = [f"{label}={name}" for label, name in names.items() if name not in classes]
    if unused:
        tell(f"--label-names: no training row has the label of {', '.join(unused)} (labels: {', '.join(classes)[:200]})")


def to_config(labels: Sequence[str]) -> dict[str, Any]:
    """The fields of a ``config.json`` that name the classes."""
    return {
        "id2label": {str(i): name for i, name in enumerate(labels)},
        "label2id": {name: i for i, name in enumerate(labels)},
    }


def from_config(config: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """Read the names of the classes from a ``config.json``.

    ``transformers`` leaves id2label out where it is its default: two labels named LABEL_0 and LABEL_1.

    Raises:
        BertwrightError: id2label is damaged.
    """
    names = config.get("id2label", {"0": "LABEL_0", "1": "LABEL_1"})
    if not isinstance(names, dict) or set(names) != {str(i) for i in range(len(names))}:
        raise BertwrightError(f"{where}: id2label is damaged: it must map 0, 1, … to names")
    labels = tuple(str(names[str(i)]) for i in range(len(names)))
    if len(set(labels)) < len(labels):
        raise BertwrightError(f"{where}: id2label gives two classes one name; give each its own")
    return labels


def problem_of(config: Mapping[str, Any]) -> str:
    """The problem_type of a ``config.json``; without one, what ``transformers`` takes: with one label regression."""
    names = config.get("id2label")
    one = isinstance(names, Mapping) and len(names) == 1
    return str(config.get("problem_type") or (REGRESSION if one else SINGLE_LABEL))


def unknown(label: str | None, labels: Sequence[str], where: str) -> BertwrightError:
    """The error for a label that training did not have."""
    close = "" if _DECIMAL.fullmatch(label or "") else did_you_mean(label or "", labels)
    known = ", ".join(labels[:8]) + (", …" if len(labels) > 8 else "")
    return BertwrightError(f"{where}: the label {label!r} does not occur in the training rows{close} (known: {known})")


def targets(examples: Sequence[Example], labels: Sequence[str]) -> IntArray:
    """Return the class of each row, its label's place among ``labels``; another label is an error that names the row."""
    index = {name: i for i, name in enumerate(labels)}
    for example in examples:
        if example.label not in index:
            raise unknown(example.label, labels, example.where)
    return np.array([index[example.label or ""] for example in examples], dtype=np.int64)


def weights(setting: str, labels: Sequence[str], counts_C: IntArray) -> FloatArray:
    """Loss weights by ``--class-weights``: ``none``, ``balanced`` (all / (classes * those of the class)) or name=weight,…

    Classes that never occur do not count for ``balanced``; they get 1, which smoothed labels still spread over them.

    Raises:
        BertwrightError: no such class, or no such weight.
    """
    if setting == "none":
        return np.ones(len(labels))
    if setting == "balanced":
        occurring = np.count_nonzero(counts_C)
        return np.where(counts_C > 0, counts_C.sum() / np.maximum(occurring * counts_C, 1), 1.0)
    given = np.ones(len(labels))
    for name, value in _named_numbers(setting):
        if name not in labels:
            raise BertwrightError(
                f"--class-weights: no class {name!r}{did_you_mean(name, labels)} (classes: {', '.join(labels)[:200]}); "
                "use none, balanced, or name=weight,name=weight"
            )
        try:
            weight = float(value)
        except ValueError:
            weight = math.nan
        if not (math.isfinite(weight) and weight > 0):
            raise BertwrightError(f"--class-weights: {value!r} is no weight for {name!r}; use a number above 0")
        given[labels.index(name)] = weight
    return given


def _named_numbers(setting: str) -> Iterator[tuple[str, str]]:
    """Yield (name, value) of ``name=value,name=value``; a comma with no ``=`` before it belongs to a name."""
    begun = ""
    for part in setting.split(","):
        name, equals, value = (begun + part).rpartition("=")
        if equals:
            yield name.strip(), value
        begun = "" if equals else f"{begun}{part},"
    if begun:
        yield begun.removesuffix(",").strip(), ""


def balance(labels: Sequence[str], counts_C: IntArray) -> str:
    """How often each class occurs, most frequent first."""
    counts = sorted(((c, n) for c, n in enumerate(counts_C.tolist()) if n), key=lambda pair: (-pair[1], pair[0]))
    shown = ", ".join(f"{labels[c]} ({n:,})" for c, n in counts[:6])
    return shown + (f", … ({len(counts)} labels)" if len(counts) > 6 else "")


def _numeric_first(label: str) -> tuple[int, float, str]:
    try:
        number = float(label)
    except ValueError:
        number = math.nan
    # "nan" is a name too: as a number it would have no place in an order.
    return (1, 0.0, label) if math.isnan(number) else (0, number, label)
