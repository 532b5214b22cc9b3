"""Vectors as files, written while they are computed: .npy, Parquet and JSON lines.

Shapes: T tokens of a text, B texts, W width of a vector.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import numpy as np
import numpy.typing as npt

from bertwright.atomic import atomic_binary_stream, atomic_write_stream
from bertwright.data.examples import Example, Unreadable
from bertwright.errors import BertwrightError
from bertwright.text_vectors import Chunk, TokenVectors

ENDINGS = (".npy", ".parquet", ".jsonl")
TokenRows = Iterable[tuple[Example | Unreadable, TokenVectors | None]]


@dataclass
class Counts:
    """What was written."""

    rows: int = 0
    unreadable: int = 0
    cut: int = 0

    def add(self, row: Example | Unreadable, cut: int) -> None:
        """Count a text."""
        self.rows += 1
        self.unreadable += isinstance(row, Unreadable)
        self.cut += cut > 0


def check_target(path: Path | None, *, tokens: bool) -> None:
    """Raise BertwrightError where vectors cannot be written to such a file; None is standard output."""
    ending = ".jsonl" if path is None else path.suffix.lower()
    if ending not in ENDINGS:
        raise BertwrightError(f"--out {path}: vectors go to .npy, .parquet or .jsonl; name such a file")
    if tokens and ending == ".npy":
        raise BertwrightError(f"--out {path}: .npy has no place for tokens and offsets; end its name in .parquet or .jsonl")
    if path is not None and ending == ".npy" and path.exists() and not path.is_file() and not path.is_dir():
        raise BertwrightError(f"--out {path}: a .npy file cannot be a pipe; one of .jsonl or .parquet can")
    if ending == ".parquet":
        _pyarrow(path)


def write_vectors(chunks: Iterable[Chunk], path: Path, width: int, *, half: bool) -> Counts:
    """Write a vector for each text, in their order; a text that could not be read is NaN in .npy, null elsewhere.

    Args:
        chunks: texts and vectors.
        path: its ending says the format: .npy (shape (B, W)), .parquet (columns ``text``, ``vector``, ``cut``), .jsonl.
        width: W.
        half: 16-bit numbers in place of 32-bit ones.

    Raises:
        BertwrightError: the file cannot be written, or Parquet is not installed; no half a file is left.
    """
    dtype = np.dtype(np.float16 if half else np.float32)
    if path.suffix.lower() == ".jsonl":
        with atomic_write_stream(path) as lines:
            return write_vector_lines(chunks, lines, half=half)
    with atomic_binary_stream(path) as file:
        if path.suffix.lower() == ".npy":
            return _write_npy(chunks, file, width, dtype)
        return _write_parquet(chunks, file, path, width, dtype)


def write_vector_lines(chunks: Iterable[Chunk], file: TextIO, *, half: bool) -> Counts:
    """Write a JSON object a line: ``text``, ``vector``, and ``cut`` where tokens were left out."""
    counts, dtype = Counts(), np.dtype(np.float16 if half else np.float32)
    for chunk in chunks:
        for row, vector_W, cut in zip(chunk.rows, chunk.vectors_BW.astype(dtype), chunk.cut, strict=True):
            counts.add(row, cut)
            _write_line(_record(row, {"vector": _short(vector_W)}, cut), file)
    return counts


def write_tokens(rows: TokenRows, path: Path, width: int, *, half: bool) -> Counts:
    """Write the tokens of each text with their vectors: columns or keys ``text``, ``tokens``, ``offsets``, ``vectors``.

    For the arguments and what is raised see :func:`write_vectors`.
    """
    if path.suffix.lower() == ".jsonl":
        with atomic_write_stream(path) as lines:
            return write_token_lines(rows, lines, half=half)
    pyarrow = _pyarrow(path)
    number = pyarrow.float16() if half else pyarrow.float32()
    kinds = {
        "text": pyarrow.string(),
        "tokens": pyarrow.list_(pyarrow.string()),
        "offsets": pyarrow.list_(pyarrow.list_(pyarrow.int32(), 2)),
        "vectors": pyarrow.list_(pyarrow.list_(number, width)),
        "cut": pyarrow.int32(),
    }
    counts, dtype = Counts(), np.dtype(np.float16 if half else np.float32)
    with atomic_binary_stream(path) as file, _table(pyarrow, file, kinds) as writer:
        for row, found in rows:
            counts.add(row, found.cut if found else 0)
            columns: dict[str, Any] = dict.fromkeys(kinds)
            if found is not None and not isinstance(row, Unreadable):
                flat = pyarrow.array(found.vectors_TW.astype(dtype).ravel(), number)
                columns = {
                    "text": row.text,
                    "tokens": found.tokens,
                    "offsets": [list(span) for span in found.offsets],
                    "vectors": pyarrow.FixedSizeListArray.from_arrays(flat, width),
                    "cut": found.cut,
                }
            arrays = [pyarrow.array([columns[name]], kind) for name, kind in kinds.items() if name != "vectors"]
            arrays.insert(3, _list_of_one(pyarrow, columns["vectors"], kinds["vectors"]))
            writer.write_batch(pyarrow.record_batch(arrays, names=list(kinds)))
    return counts


def write_token_lines(rows: TokenRows, file: TextIO, *, half: bool) -> Counts:
    """Write a JSON object a line: ``text``, ``tokens``, ``offsets``, ``vectors``, and ``cut`` where tokens were left out."""
    counts, dtype = Counts(), np.dtype(np.float16 if half else np.float32)
    for row, found in rows:
        cut = found.cut if found else 0
        counts.add(row, cut)
        content: dict[str, Any] = {}
        if found is not None:
            vectors = [_short(vector_W) for vector_W in found.vectors_TW.astype(dtype)]
            content = {"tokens": found.tokens, "offsets": found.offsets, "vectors": vectors}
        _write_line(_record(row, content, cut), file)
    return counts


def _record(row: Example | Unreadable, content: dict[str, Any], cut: int) -> dict[str, Any]:
    if isinstance(row, Unreadable):
        return {"text": None, "skipped": row.reason, "where": row.where}
    return {"text": row.text, **content} | ({"cut": cut} if cut else {})


def _short(vector_W: npt.NDArray[Any]) -> list[float]:
    """As few digits as give each number back at its precision; as Python's floats they would have 17."""
    return [float(number) for number in vector_W.astype(str)]


def _write_line(record: dict[str, Any], file: TextIO) -> None:
    file.write(json.dumps(record, ensure_ascii=False) + "\n")


def _write_npy(chunks: Iterable[Chunk], file: BinaryIO, width: int, dtype: np.dtype[Any]) -> Counts:
    counts = Counts()

    def header() -> None:
        # numpy leaves room in it for any number of rows, so that it can be written again once they are counted.
        about = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (counts.rows, width)}
        np.lib.format.write_array_header_1_0(file, about)

    header()
    for chunk in chunks:
        for row, cut in zip(chunk.rows, chunk.cut, strict=True):
            counts.add(row, cut)
        file.write(chunk.vectors_BW.astype(dtype).tobytes())
    file.seek(0)
    header()
    return counts


def _write_parquet(chunks: Iterable[Chunk], file: BinaryIO, path: Path, width: int, dtype: np.dtype[Any]) -> Counts:
    pyarrow = _pyarrow(path)
    number = pyarrow.from_numpy_dtype(dtype)
    kinds = {"text": pyarrow.string(), "vector": pyarrow.list_(number, width), "cut": pyarrow.int32()}
    counts = Counts()
    with _table(pyarrow, file, kinds) as writer:
        for chunk in chunks:
            for row, cut in zip(chunk.rows, chunk.cut, strict=True):
                counts.add(row, cut)
            unreadable_B = np.array([isinstance(row, Unreadable) for row in chunk.rows])
            flat = pyarrow.array(chunk.vectors_BW.astype(dtype).ravel(), number)
            vectors = pyarrow.FixedSizeListArray.from_arrays(flat, width, mask=pyarrow.array(unreadable_B))
            texts = [None if isinstance(row, Unreadable) else row.text for row in chunk.rows]
            cut_B = pyarrow.array(list(chunk.cut), kinds["cut"])
            arrays = [pyarrow.array(texts, kinds["text"]), vectors, cut_B]
            writer.write_batch(pyarrow.record_batch(arrays, names=list(kinds)))
    return counts


def _list_of_one(pyarrow: Any, items: Any, kind: Any) -> Any:
    """A list column of a single row; written out, since through Python's own lists it takes far longer."""
    if items is None:
        return pyarrow.array([None], kind)
    return pyarrow.ListArray.from_arrays(pyarrow.array([0, len(items)], pyarrow.int32()), items).cast(kind)


@contextlib.contextmanager
def _table(pyarrow: Any, file: BinaryIO, kinds: dict[str, Any]) -> Iterator[Any]:
    with pyarrow.parquet.ParquetWriter(file, pyarrow.schema(list(kinds.items()))) as writer:
        yield writer


def _pyarrow(path: Path | None) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise BertwrightError(f"{path}: writing Parquet needs: pip install pyarrow") from None
    return pyarrow
