"""Saved states: what was saved comes back bit for bit, and damage falls back to the state before."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bertwright.errors import BertwrightError, BertwrightWarning
from bertwright.training.state import State, newest, save


def state_of(step: int) -> State:
    torch.manual_seed(step)
    return State(
        {
            "weights": {"a.weight": torch.randn(3, 4), "a.bias": torch.randn(3), "step": torch.tensor(float(step))},
            "moments": {"a.weight:exp_avg": torch.randn(5, 4).t()},  # as a view, not contiguous
            "best": {},
        },
        {"step": step, "decay": 1 - 1e-7 * step / 3, "best_value": math.nan, "validations": [{"loss": 0.1 + step}]},
    )


def assert_same(got: State, wanted: State) -> None:
    assert {group: list(tensors) for group, tensors in got.tensors.items()} == {
        group: sorted(tensors) for group, tensors in wanted.tensors.items()
    }
    for group, tensors in wanted.tensors.items():
        for name, tensor in tensors.items():
            assert torch.equal(got.tensors[group][name], tensor)
            assert got.tensors[group][name].dtype is tensor.dtype
    assert repr(got.values) == repr(wanted.values)  # as text, in which NaN equals itself


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    save(tmp_path / "states", 7, state_of(7))
    assert_same(newest(tmp_path / "states"), state_of(7))


def test_the_last_two_are_kept_and_the_newest_is_read(tmp_path: Path) -> None:
    for step in (2, 9, 10, 100):  # in numeric order, in which 100 is after 9
        save(tmp_path, step, state_of(step))
        assert_same(newest(tmp_path), state_of(step))
    assert names(tmp_path) == ["step-10", "step-100"]


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    save(tmp_path, 3, state_of(3))
    save(tmp_path, 3, state_of(4))
    assert_same(newest(tmp_path), state_of(4))
    assert names(tmp_path) == ["step-3"]


def test_other_things_in_the_folder_are_passed_over(tmp_path: Path) -> None:
    save(tmp_path, 3, state_of(3))
    (tmp_path / ".step-9.0011aabb.partial").mkdir()
    (tmp_path / "step-99").write_text("a file")
    (tmp_path / "step-last").mkdir()
    assert_same(newest(tmp_path), state_of(3))
    save(tmp_path, 4, state_of(4))
    save(tmp_path, 5, state_of(5))
    assert names(tmp_path) == ["step-4", "step-5", "step-99", "step-last"]


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def put(name: str, content: bytes | str) -> Callable[[Path], None]:
    def damage(state: Path) -> None:
        (state / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return damage


def cut(name: str, size: int) -> Callable[[Path], None]:
    def damage(state: Path) -> None:
        (state / name).write_bytes((state / name).read_bytes()[:size])

    return damage


def empty_the_folder(state: Path) -> None:
    for file in state.iterdir():
        file.unlink()


def put_a_folder_in_place_of_the_weights(state: Path) -> None:
    (state / "weights.safetensors").unlink()
    (state / "weights.safetensors").mkdir()


def swap_two_files(state: Path) -> None:
    shutil.copy(state / "moments.safetensors", state / "weights.safetensors")


DAMAGES: dict[str, Callable[[Path], None]] = {
    "weights gone": lambda state: (state / "weights.safetensors").unlink(),
    "moments cut short": cut("moments.safetensors", -8),
    "one bit of the weights": lambda state: flip_a_bit(state / "weights.safetensors"),
    "one file in place of another": swap_two_files,
    "empty weights": put("weights.safetensors", b""),
    "a folder in place of the weights": put_a_folder_in_place_of_the_weights,
    "no state.json": lambda state: (state / "state.json").unlink(),
    "an empty state.json": put("state.json", b""),
    "half a state.json": cut("state.json", 80),
    "one bit of state.json": lambda state: flip_a_bit(state / "state.json"),
    "zeros for a state.json": put("state.json", b"\0" * 200),
    "bytes that are no text": put("state.json", b"\xff" * 20),
    "a list for a state.json": put("state.json", "[1, 2]"),
    "null for a state.json": put("state.json", "null"),
    "files that are no object": put("state.json", '{"files": [], "values": {}}'),
    "no files at all": put("state.json", '{"values": {}}'),
    "an empty folder": empty_the_folder,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_state_falls_back_to_the_one_before(tmp_path: Path, damage: str) -> None:
    save(tmp_path, 4, state_of(4))
    save(tmp_path, 8, state_of(8))
    DAMAGES[damage](tmp_path / "step-8")
    with pytest.warns(BertwrightWarning, match=r"step-8: damaged state .* trying the one before"):
        got = newest(tmp_path)
    assert_same(got, state_of(4))


def test_a_damaged_state_pushes_no_whole_one_out(tmp_path: Path) -> None:
    for step in (4, 8):
        save(tmp_path, step, state_of(step))
    flip_a_bit(tmp_path / "step-8" / "weights.safetensors")
    with pytest.warns(BertwrightWarning, match="step-8: damaged state"):
        newest(tmp_path)
    save(tmp_path, 5, state_of(5))
    assert names(tmp_path) == ["step-4", "step-5"]
    flip_a_bit(tmp_path / "step-5" / "weights.safetensors")
    with pytest.warns(BertwrightWarning, match="step-5: damaged state") as told:
        assert_same(newest(tmp_path), state_of(4))
    assert len(told) == 1, "what was found damaged once is not tried again"


def test_what_a_killed_saving_left_behind_goes_away(tmp_path: Path) -> None:
    save(tmp_path, 4, state_of(4))
    (tmp_path / ".step-8.0123abcd.partial").mkdir()
    (tmp_path / ".step-8.0123abcd.partial" / "weights.safetensors").write_bytes(b"half")
    save(tmp_path, 8, state_of(8))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-4", "step-8"]


def test_a_damaged_state_is_replaced_when_its_step_comes_again(tmp_path: Path) -> None:
    for step in (4, 8):
        save(tmp_path, step, state_of(step))
    flip_a_bit(tmp_path / "step-8" / "weights.safetensors")
    save(tmp_path, 8, state_of(8))
    assert_same(newest(tmp_path), state_of(8))


@pytest.mark.parametrize("damage", ["weights gone", "an empty state.json"])
def test_nothing_whole_is_an_error(tmp_path: Path, damage: str) -> None:
    save(tmp_path, 4, state_of(4))
    DAMAGES[damage](tmp_path / "step-4")
    with (
        pytest.warns(BertwrightWarning, match="step-4"),
        pytest.raises(BertwrightError, match="no state to resume from; start the run again with --overwrite"),
    ):
        newest(tmp_path)


def test_no_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BertwrightError, match="nowhere: no state to resume from"):
        newest(tmp_path / "nowhere")


@pytest.mark.parametrize("when", ["before the weights", "before state.json"])
def test_a_save_that_is_interrupted_leaves_the_states_as_they_were(
    tmp_path: Path, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (4, 8):
        save(tmp_path, step, state_of(step))

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    target = "bertwright.training.state.save_file" if when == "before the weights" else "pathlib.Path.write_text"
    with monkeypatch.context() as patched:
        patched.setattr(target, interrupt)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, 12, state_of(12))
    assert names(tmp_path) == ["step-4", "step-8"]
    assert_same(newest(tmp_path), state_of(8))
