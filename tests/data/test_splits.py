"""Rows set aside: every label keeps its share, and the same seed takes the same rows."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from bertwright.data.splits import grouped_split, stratified_split

labels_of_rows = st.lists(st.sampled_from("aaaaaaabbbc") | st.text(max_size=1), min_size=1, max_size=200)
fractions = st.floats(0.01, 0.9)
seeds = st.integers(0, 2**32 - 1)


@given(labels_of_rows, fractions, seeds)
def test_every_row_is_on_one_side_in_its_order_and_every_label_keeps_its_share(
    labels: list[str], fraction: float, seed: int
) -> None:
    training, aside = stratified_split(labels, fraction, seed)
    assert sorted(training + aside) == list(range(len(labels)))
    assert training == sorted(training)
    assert aside == sorted(aside)
    taken = Counter(labels[row] for row in aside)
    for label, count in Counter(labels).items():
        assert taken[label] < count, "a label must stay in training"
        assert taken[label] == count - 1 or abs(taken[label] - fraction * count) <= 1


@given(st.lists(st.sampled_from("ab"), min_size=40, max_size=300), st.floats(0.05, 0.5), seeds)
def test_the_total_is_right_where_every_label_has_rows_enough(labels: list[str], fraction: float, seed: int) -> None:
    labels += ["a"] * 10 + ["b"] * 10
    _, aside = stratified_split(labels, fraction, seed)
    assert len(aside) == round(fraction * len(labels))


@given(labels_of_rows, fractions, seeds)
def test_the_same_seed_takes_the_same_rows(labels: list[str], fraction: float, seed: int) -> None:
    assert stratified_split(labels, fraction, seed) == stratified_split(list(labels), fraction, seed)


def test_the_rows_of_one_label_do_not_depend_on_what_the_labels_are_called() -> None:
    labels = ["x", "y"] * 50
    renamed = ["1" if label == "x" else "0" for label in labels]
    assert stratified_split(labels, 0.2, 7) == stratified_split(renamed, 0.2, 7)


def test_seeds_differ_and_every_row_is_taken_about_as_often() -> None:
    labels = ["a"] * 30 + ["b"] * 10
    taken: Counter[int] = Counter()
    for seed in range(400):
        taken.update(stratified_split(labels, 0.25, seed)[1])
    # 400 draws of probability 1/4 have a standard deviation of 8.7; five of them are hit once in a million.
    assert all(abs(taken[row] - 100) < 44 for row in range(40))


def test_a_tenth_of_8551_rows_of_cola_is_855() -> None:
    labels = ["1"] * 6023 + ["0"] * 2528
    training, aside = stratified_split(labels, 0.1, 2018)
    assert (len(training), len(aside)) == (7696, 855)
    assert Counter(labels[row] for row in aside) == {"1": 602, "0": 253}


def test_single_rows_stay_in_training() -> None:
    assert stratified_split(["a", "b", "c"], 0.9, 0) == ([0, 1, 2], [])


@given(st.lists(st.integers(0, 12), min_size=1, max_size=120), fractions, seeds)
def test_groups_stay_together_and_no_side_is_empty_where_there_are_two(
    groups: list[int], fraction: float, seed: int
) -> None:
    training, aside = grouped_split(groups, fraction, seed)
    assert sorted(training + aside) == list(range(len(groups)))
    assert training == sorted(training)
    assert aside == sorted(aside)
    assert not {groups[row] for row in training} & {groups[row] for row in aside}
    assert training
    assert bool(aside) == (len(set(groups)) > 1)
    assert (training, aside) == grouped_split(list(groups), fraction, seed)


@given(st.integers(50, 300), st.floats(0.1, 0.5), seeds)
def test_many_small_groups_give_about_the_wanted_fraction(count: int, fraction: float, seed: int) -> None:
    _, aside = grouped_split([row // 3 for row in range(count)], fraction, seed)
    assert abs(len(aside) - fraction * count) <= 2


@given(seeds)
def test_a_group_that_is_most_of_all_rows_stays_in_training(seed: int) -> None:
    groups = ["large"] * 50 + ["b"] * 3 + ["c"] * 2
    training, aside = grouped_split(groups, 0.1, seed)
    assert {"large"} <= {groups[row] for row in training}
    assert len(aside) in (2, 3, 5)  # all but the group that is drawn last


@given(seeds)
def test_large_groups_leave_the_wanted_fraction_to_small_ones(seed: int) -> None:
    groups = [0] * 500 + [1 + row // 5 for row in range(500)]
    assert len(grouped_split(groups, 0.1, seed)[1]) == 100


def test_where_every_group_is_too_large_the_smallest_is_set_aside() -> None:
    groups = ["a"] * 40 + ["b"] * 30 + ["c"] * 50
    assert all(grouped_split(groups, 0.1, seed)[1] == list(range(40, 70)) for seed in range(10))
