"""Classes that the Hugging Face hub keeps as numbers, by their names."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any


def classes_of(metadata: Mapping[bytes, bytes]) -> dict[str, Sequence[str]]:
    """The names of the classes of each column whose numbers stand for them, as `datasets` notes them in Parquet files.

    A column of lists of such numbers counts too. Metadata of another kind name none.
    """
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        found = {column: _names(feature) for column, feature in features.items()}
    except (ValueError, LookupError, TypeError, AttributeError):
        return {}
    return {column: names for column, names in found.items() if names is not None}


def _names(feature: Any) -> list[str] | None:
    while isinstance(feature, list) or "feature" in feature:  # of a list, in the notations of older and newer releases
        feature = feature[0] if isinstance(feature, list) else feature["feature"]
    return [str(name) for name in feature["names"]] if feature.get("_type") == "ClassLabel" else None


def named(value: Any, names: Sequence[str]) -> Any:
    """A class, or each of a list of classes, by name; -1 is how the hub marks an answer that is kept secret: None."""
    if isinstance(value, list):
        return [named(one, names) for one in value]
    if not isinstance(value, int) or not -1 <= value < len(names):
        return value
    if value == -1:
        return None
    return value if names[value] == str(value) else names[value]  # the number of an ending, say, has no name
