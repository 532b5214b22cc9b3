"""Streams: an item for every line, whatever it holds."""

from __future__ import annotations

import io
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertwright.data import streamed
from bertwright.data.examples import Example, Unreadable
from bertwright.data.streamed import as_pairs, as_pairs_if_tabs, as_texts, stream_lines
from bertwright.errors import BertwrightWarning


def test_every_line_of_a_stream_has_its_item(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed, "LONGEST_LINE", 1 << 20)
    long = b"x" * ((1 << 20) * 5 // 2)
    stream = io.BytesIO(b"\xef\xbb\xbffirst\r\n\nbad \xff\nnul \x00\n" + long + b"\nlast\tone")
    assert list(stream_lines(stream, "standard input")) == [
        Example(text="first", where="standard input:1"),
        Example(text="", where="standard input:2"),
        Unreadable("standard input:3", "not UTF-8"),
        Unreadable("standard input:4", "holds a NUL byte"),
        Unreadable("standard input:5", "longer than 1 MiB"),
        Example(text="last\tone", where="standard input:6"),
    ]


def test_a_stream_of_pairs_has_a_tab_between_them() -> None:
    stream = io.BytesIO(b"a\tb\nno tab\n\nc\td\te\n\tonly second\n")
    assert list(as_pairs(stream_lines(stream, "s"))) == [
        Example(text="a", pair="b", where="s:1"),
        Unreadable("s:2", "no tab between two texts"),
        Example(text="", pair="", where="s:3"),
        Example(text="c", pair="d\te", where="s:4"),
        Example(text="", pair="only second", where="s:5"),
    ]


@pytest.mark.parametrize("blank", [b"", b"\n \t\nnul\x00\t\n"])
def test_where_nothing_says_what_lines_are_the_first_that_is_not_blank_does(blank: bytes) -> None:
    number = blank.count(b"\n") + 1
    with pytest.warns(BertwrightWarning) as told:
        items = list(as_pairs_if_tabs(stream_lines(io.BytesIO(blank + b"a\tb\nno tab\nc\td\n"), "s")))
    assert items[number - 1 :] == [
        Example(text="a", pair="b", where=f"s:{number}"),
        Unreadable(f"s:{number + 1}", "no tab between two texts"),
        Example(text="c", pair="d", where=f"s:{number + 2}"),
    ]
    assert len(told) == 1
    assert str(told[0].message).startswith(f"s:{number}: holds a tab, so each line is read as a pair of texts")
    singles = list(as_pairs_if_tabs(stream_lines(io.BytesIO(blank + b"no tab\na\tb\n"), "s")))
    assert singles[number - 1 :] == [Example("no tab", f"s:{number}"), Example("a\tb", f"s:{number + 1}")]


@given(
    st.binary(max_size=200)
    | st.lists(st.sampled_from([b"\n", b"\r\n", b"\x00", b"\xff", b"a\tb", b"\xe4\xbd\xa0"])).map(b"".join)
)
def test_no_bytes_end_a_stream_early(data: bytes) -> None:
    lines = data.split(b"\n")
    expected = len(lines) - (lines[-1] == b"")
    for taken in (iter, as_pairs, as_texts, as_pairs_if_tabs):
        with warnings.catch_warnings(action="ignore"):  # of tabs
            items = list(taken(stream_lines(io.BytesIO(data), "s")))
        assert [item.where for item in items] == [f"s:{number}" for number in range(1, expected + 1)]


def test_of_the_first_tab_in_a_stream_of_texts_it_is_told() -> None:
    with pytest.warns(BertwrightWarning) as told:
        items = list(as_texts(stream_lines(io.BytesIO(b"a\nb\xff\nc\td\ne\tf\n"), "s")))
    assert items == [Example("a", "s:1"), Unreadable("s:2", "not UTF-8"), Example("c\td", "s:3"), Example("e\tf", "s:4")]
    assert [str(one.message).partition(",")[0] for one in told] == ["s:3: holds a tab"]
