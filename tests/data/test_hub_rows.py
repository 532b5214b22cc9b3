"""Rows of the hub: what names them, what becomes of their classes, and that they are downloaded once and whole."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertwright.data.hub_rows import HubSource, hub_rows, is_hub, local_file, pinned
from bertwright.errors import BertwrightError, BertwrightWarning

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WORDS = st.sampled_from(["a", "B-2", "20231101.en", "_x", "v1.0", "_under_"])


class Classes:
    """As `datasets` describes a column of classes."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def int2str(self, value: int) -> str:
        return self.names[value]


class Rows(list[Any]):
    """As `datasets` streams rows."""

    features: Any = None


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def stand_in(
    monkeypatch: pytest.MonkeyPatch, rows: Sequence[dict[str, Any] | Exception], features: Any = None
) -> list[tuple[Any, ...]]:
    """Put a library in the place of `datasets`, and return the list of its calls."""
    calls: list[tuple[Any, ...]] = []

    class Stream(Rows):
        def __iter__(self) -> Iterator[Any]:
            for row in rows:
                if isinstance(row, Exception):
                    raise row
                yield row

    def load_dataset(name: str, config: str | None, *, split: str, revision: str | None, streaming: bool) -> Rows:
        assert streaming
        calls.append((name, config, split, revision))
        stream = Stream()
        stream.features = features
        return stream

    module = types.ModuleType("datasets")
    module.load_dataset = load_dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)
    return calls


def hub_that(monkeypatch: pytest.MonkeyPatch, answer: str | Exception) -> list[tuple[str, str | None]]:
    """Have the hub's client answer with a commit, or fail; return the list of what it is asked."""
    asked: list[tuple[str, str | None]] = []

    def dataset_info(self: Any, name: str, *, revision: str | None, timeout: float) -> Any:
        asked.append((name, revision))
        if isinstance(answer, Exception):
            raise answer
        return types.SimpleNamespace(sha=answer)

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", dataset_info)
    return asked


# ---------------------------------------------------------------------------------------------------------------- names


@given(
    st.builds(
        HubSource,
        st.one_of(WORDS, st.builds("{}/{}".format, WORDS, WORDS)),
        st.none() | WORDS | st.just("refs/convert/parquet"),
        st.none() | WORDS,
        st.none() | WORDS,
    )
)
def test_a_source_reads_back_from_what_it_is_written_as(source: HubSource) -> None:
    assert HubSource.parse(str(source)) == source
    assert is_hub(str(source))
    assert is_hub(Path(str(source)))
    assert str(Path(str(source))) == str(source)  # recipes and commands pass it through paths


@pytest.mark.parametrize(
    "source", ["hub:", "hub:a/b/c", "hub:a:b:c:d", "hub:a b", "hub:a@", "hub:a:", "hub:a::", "hub:a@/b"]
)
def test_what_names_nothing_is_refused(source: str) -> None:
    with pytest.raises(BertwrightError, match="name a data set as hub:owner/name"):
        HubSource.parse(source)


# ----------------------------------------------------------------------------------------------------------------- rows


def test_classes_come_by_name_wherever_they_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    tags = Classes("O", "B-PER")
    features = {
        "label": Classes("no", "yes"),
        "tags": types.SimpleNamespace(feature=tags),
        "old": [tags],
        "inner": {"kind": Classes("a", "b"), "free": object()},
        "ending": Classes("0", "1", "2"),
    }
    row = {"label": 1, "tags": [0, 1], "old": [1], "inner": {"kind": 0, "free": 7}, "ending": 2, "text": "x"}
    hidden: dict[str, Any] = {"label": -1, "tags": None, "old": [], "inner": None, "ending": 0, "text": "y"}
    stand_in(monkeypatch, [row, hidden], features)
    assert list(hub_rows(HubSource("o/n"))) == [
        {
            "label": "yes", "tags": ["O", "B-PER"], "old": ["B-PER"], "inner": {"kind": "a", "free": 7}, "ending": 2,
            "text": "x",
        },
        {"label": None, "tags": None, "old": [], "inner": None, "ending": 0, "text": "y"},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("Dataset scripts are no longer supported, but found n.py"), "hub:o/n@refs/convert/parquet"),
        (ConnectionError("gone\nmore"), "cannot be read: gone; is the name right"),
        (ValueError(), "cannot be read: ValueError; "),
    ],
)
def test_what_cannot_be_read_ends_in_one_line(monkeypatch: pytest.MonkeyPatch, error: Exception, message: str) -> None:
    stand_in(monkeypatch, [{"a": 1}, error])
    with pytest.raises(BertwrightError) as caught:
        list(hub_rows(HubSource("o/n")))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_the_library_its_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(BertwrightError, match="hub:o/n: reading it needs: pip install datasets"):
        next(hub_rows(HubSource("o/n")))


# ----------------------------------------------------------------------------------------------------------------- files


def test_rows_are_downloaded_once_and_lie_as_json_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = stand_in(monkeypatch, [{"text": "äöü\n", "label": 0}], {"label": Classes("no")})
    asked = hub_that(monkeypatch, COMMIT)
    said: list[str] = []
    file = local_file("hub:o/n:c:test", said.append)
    assert [json.loads(line) for line in file.read_text().splitlines()] == [{"text": "äöü\n", "label": "no"}]
    assert said == [f"downloading hub:o/n:c:test to {file}"]
    assert local_file("hub:o/n:c:test") == local_file(f"hub:o/n@{COMMIT}:c:test") == file
    assert calls == [("o/n", "c", "test", COMMIT)]
    assert asked == [("o/n", None)] * 2  # a commit says all by itself
    other = local_file("hub:o/n::test")
    assert other != file
    assert local_file("hub:o/n@refs/pr/1:c:test") == file
    assert asked[-1] == ("o/n", "refs/pr/1")


def test_a_download_that_fails_leaves_nothing(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    stand_in(monkeypatch, [{"text": "a"}, ConnectionError("gone")])
    with pytest.raises(BertwrightError, match="gone"):
        local_file(f"hub:o/n@{COMMIT}:c:test")
    stand_in(monkeypatch, [])
    with pytest.raises(BertwrightError, match="has no rows"):
        local_file(f"hub:o/n@{COMMIT}:c:test")
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_a_path_is_itself_and_a_source_needs_its_split(tmp_path: Path) -> None:
    assert local_file(tmp_path / "a.tsv") == tmp_path / "a.tsv"
    with pytest.raises(BertwrightError, match="hub:o/n: name its split too, as in hub:o/n::train"):
        local_file("hub:o/n")


def test_a_pin_holds_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as online:
        hub_that(online, COMMIT)
        assert pinned(HubSource("o/n", None, "c", "test")) == HubSource("o/n", COMMIT, "c", "test")
    hub_that(monkeypatch, ConnectionError("no route"))
    with pytest.warns(BertwrightWarning, match="cannot be reached; taking the copy of commit 01234567"):
        assert pinned(HubSource("o/n")).revision == COMMIT
    assert pinned(HubSource("o/n", COMMIT)).revision == COMMIT
    with pytest.raises(BertwrightError, match=r"hub:o/other: the hub cannot be reached \(no route\), and no copy is here"):
        pinned(HubSource("o/other"))
    with pytest.raises(BertwrightError, match="no copy is here"):
        pinned(HubSource("o/n", "v2"))
