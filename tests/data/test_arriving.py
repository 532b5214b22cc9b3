"""Live streams: lines as a file has them, and answers before the stream ends."""

from __future__ import annotations

import io
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bertwright
from bertwright.data.arriving import Arriving, LiveLines, arriving
from bertwright.data.readers import stream_lines
from bertwright.text_vectors import Kind, load_encoder


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=12) | st.just(b"\n"), max_size=8), st.integers(1, 9))
def test_lines_are_those_of_a_file(pieces: list[bytes], limit: int) -> None:
    reading, writing = os.pipe()

    def write() -> None:
        for piece in pieces:
            os.write(writing, piece)
        os.close(writing)

    writer = threading.Thread(target=write)
    writer.start()
    lines, file = LiveLines(reading), io.BytesIO(b"".join(pieces))
    try:
        while line := file.readline(limit):
            assert lines.readline(limit) == line
        assert lines.readline(limit) == lines.readline(limit) == b""
    finally:
        writer.join()
        os.close(reading)


def test_each_line_of_a_pipe_is_answered_as_it_comes(tiny_run: Path) -> None:
    model = bertwright.load(tiny_run, device="cpu", threads=1)
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as file:
        records = model.predict_rows(model.read_stream(file, "pipe"))
        for text in ("a good film", "a bad day"):
            os.write(writing, f"{text}\n".encode())
            assert next(records)["text"] == text  # or it waits for more, for ever
        os.write(writing, b"one\ntwo\nan end without a line feed")
        os.close(writing)
        assert [record["text"] for record in records] == ["one", "two", "an end without a line feed"]


def test_vectors_of_a_pipe_come_with_its_lines(tiny_dir: Path) -> None:
    encoder = load_encoder(tiny_dir, device="cpu", threads=1)
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as file:
        rows = arriving(file, lambda lines: stream_lines(lines, "pipe"))
        chunks = encoder.chunks(rows, Kind())
        os.write(writing, b"good\nbad\n")
        assert len(next(chunks).vectors_BW) == 2
        os.close(writing)
        assert list(chunks) == []


@pytest.mark.parametrize("kind", ["memory", "regular file"])
def test_what_is_not_live_is_read_as_it_is(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "texts"
    path.write_bytes(b"a\nb\n")
    with path.open("rb") if kind == "regular file" else io.BytesIO(b"a\nb\n") as file:
        rows = arriving(file, iter)
        assert not isinstance(rows, Arriving)
        assert list(rows) == [b"a\n", b"b\n"]
