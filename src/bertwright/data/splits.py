"""Set rows aside for validation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np


def stratified_split(labels: Sequence[object], fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Return (training, validation) row numbers, each ascending, with every label's share kept.

    ``fraction`` of each label's rows, rounded by largest remainder so that the total is right, goes to validation. A
    label with a single row stays in training.
    """
    rows_of: dict[object, list[int]] = defaultdict(list)
    for row, label in enumerate(labels):
        rows_of[label].append(row)
    groups = list(rows_of.values())
    exact = [min(len(rows) * fraction, len(rows) - 1) for rows in groups]
    take = [int(x) for x in exact]
    missing = round(fraction * len(labels)) - sum(take)
    by_remainder = sorted(range(len(groups)), key=lambda g: take[g] - exact[g])
    for g in by_remainder[: max(missing, 0)]:
        if take[g] < len(groups[g]) - 1:
            take[g] += 1
    random = np.random.Generator(np.random.Philox(key=seed))
    aside = {row for rows, count in zip(groups, take, strict=True) for row in random.permutation(rows)[:count].tolist()}
    training = [row for row in range(len(labels)) if row not in aside]
    return training, sorted(aside)


def grouped_split(groups: Sequence[object], fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Return (training, validation) row numbers, each ascending, with all rows of a group on one side.

    Groups are drawn for validation until it has ``fraction`` of the rows, rounded; one that would overshoot by more than
    it was short is left out. One group at least stays in training, and one, the smallest if need be, goes to validation
    if there are two.
    """
    rows_of: dict[object, list[int]] = defaultdict(list)
    for row, group in enumerate(groups):
        rows_of[group].append(row)
    members = list(rows_of.values())
    wanted = round(fraction * len(groups))
    random = np.random.Generator(np.random.Philox(key=seed))
    aside: set[int] = set()
    for number in random.permutation(len(members)).tolist()[:-1]:
        short = wanted - len(aside)
        if len(members[number]) - short <= short:
            aside.update(members[number])
    if not aside and len(members) > 1:
        smallest = min(members, key=len)
        aside.update(smallest)
    return [row for row in range(len(groups)) if row not in aside], sorted(aside)
