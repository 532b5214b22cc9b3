"""Live streams: lines as a file has them, and answers before the stream ends."""

from __future__ import annotations

import gzip
import io
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bertwright
from bertwright.data.arriving import PATIENCE, Arriving, LiveLines, arriving
from bertwright.data.examples import Example
from bertwright.data.streamed import stream_lines
from bertwright.inference import chunk
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
    with os.fdopen(reading, "rb") as pipe:
        lines, file = LiveLines(pipe), io.BytesIO(b"".join(pieces))
        while line := file.readline(limit):
            assert lines.readline(limit) == line
        assert lines.readline(limit) == lines.readline(limit) == b""
    writer.join()


@pytest.fixture
def pipe() -> Iterator[tuple[io.BufferedReader, io.FileIO]]:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as source, os.fdopen(writing, "wb", buffering=0) as sink:
        yield source, sink


def soon(call: Callable[[], Any]) -> Any:
    """What a call gives, if it does not wait for what never comes."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(call()), daemon=True)
    thread.start()
    thread.join(30)
    assert found, "it waits"
    return found[0]


def test_each_line_of_a_pipe_is_answered_as_it_comes(tiny_run: Path, pipe: tuple[io.BufferedReader, io.FileIO]) -> None:
    model = bertwright.load(tiny_run, device="cpu", threads=1)
    source, sink = pipe
    sink.write(b"a header\nwhat came with it\n")
    assert source.readline() == b"a header\n"  # what the file has read ahead is not lost
    records = model.predict_rows(model.read_stream(source, "pipe", live=True))
    assert soon(lambda: next(records))["text"] == "what came with it"
    for text in ("a good film", "a bad day"):
        sink.write(f"{text}\nhalf of".encode())  # what is not yet a line holds up no answer
        assert soon(lambda: next(records))["text"].endswith(text)
        sink.write(b" ")
    sink.write(b"one\ntwo\nan end without a line feed")
    sink.close()
    assert [record["text"] for record in records] == ["half of one", "two", "an end without a line feed"]


def test_a_steady_stream_is_answered_too(pipe: tuple[io.BufferedReader, io.FileIO]) -> None:
    source, sink = pipe
    done = threading.Event()

    def write() -> None:
        while not done.wait(PATIENCE / 5):
            sink.write(b"x\n")

    writer = threading.Thread(target=write)
    writer.start()
    rows = arriving(source, lambda lines: stream_lines(lines, "pipe"))
    assert 1 <= len(soon(lambda: chunk(rows, 10_000, 10_000_000))) < 1000
    done.set()
    writer.join()


def test_vectors_of_a_pipe_come_with_its_lines(tiny_dir: Path, pipe: tuple[io.BufferedReader, io.FileIO]) -> None:
    encoder = load_encoder(tiny_dir, device="cpu", threads=1)
    source, sink = pipe
    chunks = encoder.chunks(arriving(source, lambda lines: stream_lines(lines, "pipe")), Kind())
    sink.write(b"good\nbad\n")
    assert len(soon(lambda: next(chunks)).vectors_BW) == 2
    sink.close()
    assert list(chunks) == []


def test_a_compressed_pipe_is_read_through_what_opens_it(pipe: tuple[io.BufferedReader, io.FileIO]) -> None:
    source, sink = pipe
    sink.write(gzip.compress(b"a\nb\n"))
    sink.close()
    with gzip.GzipFile(fileobj=source) as file:
        rows = arriving(cast("BinaryIO", file), lambda lines: stream_lines(lines, "pipe"))
        assert not isinstance(rows, Arriving)
        assert [row.text for row in rows if isinstance(row, Example)] == ["a", "b"]


@pytest.mark.parametrize("kind", ["memory", "regular file"])
def test_what_is_not_live_is_read_as_it_is(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "texts"
    path.write_bytes(b"a\nb\n")
    with path.open("rb") if kind == "regular file" else io.BytesIO(b"a\nb\n") as file:
        rows = arriving(file, iter)
        assert not isinstance(rows, Arriving)
        assert list(rows) == [b"a\n", b"b\n"]
