"""Raw text from files: every document comes, in order; what is broken is reported with its place, and nothing else lost."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import json
import lzma
import random
import sys
import tracemalloc
import types
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bertwright.data import corpus, lines
from bertwright.data.corpus import (
    CorpusFormat,
    Document,
    Skipped,
    corpus_files,
    input_bytes,
    read_documents,
    refuse,
)
from bertwright.errors import BertwrightError, BertwrightWarning

zstandard = pytest.importorskip("zstandard")

AUTO = CorpusFormat()
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    ".gz": lambda data: gzip.compress(data, mtime=0),
    ".xz": partial(lzma.compress, preset=0),
    ".bz2": partial(bz2.compress, compresslevel=1),
    ".zst": lambda data: zstandard.ZstdCompressor(write_checksum=True).compress(data),
}
TEXT = "One.\nTwo is longer. Three!\n\nFour — «fünf» 六。\n\n\n\nSeven\n"
DOCUMENTS = ["One.\nTwo is longer. Three!", "Four — «fünf» 六。", "Seven"]


def put(folder: Path, content: bytes | str, name: str = "corpus.txt") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path: Path | Sequence[Path], format: CorpusFormat = AUTO) -> tuple[list[Document], list[Skipped]]:
    """All documents and all that was skipped; a corpus without any document is one of none."""
    files = corpus_files([path] if isinstance(path, Path) else path)
    documents: list[Document] = []
    skipped: list[Skipped] = []
    advanced: list[int] = []
    with contextlib.suppress(BertwrightError):
        for document in read_documents(files, format, skipped.append, advanced.append):
            documents.append(document)
    assert documents or skipped
    assert all(count >= 0 for count in advanced)
    assert sum(advanced) == input_bytes(files)
    return documents, skipped


def texts(path: Path | Sequence[Path], format: CorpusFormat = AUTO) -> list[str]:
    documents, skipped = read(path, format)
    assert skipped == []
    return [document.text for document in documents]


def rows(*values: object, field: str = "text") -> str:
    return "".join(json.dumps({"id": 7, field: value}, ensure_ascii=False) + "\n" for value in values)


# --------------------------------------------------------------------------------------------------------------- text


@pytest.mark.parametrize("ending", COMPRESS)
@pytest.mark.parametrize("name", ["corpus.txt", "corpus.text", "corpus", "CORPUS.TXT"])
def test_documents_are_what_stands_between_blank_lines(tmp_path: Path, name: str, ending: str) -> None:
    path = put(tmp_path, COMPRESS[ending](TEXT.encode()), name + ending)
    documents, skipped = read(path)
    assert [document.text for document in documents] == DOCUMENTS
    assert [document.where for document in documents] == [f"{path}:{number}" for number in (1, 4, 8)]
    assert skipped == []


@pytest.mark.parametrize(
    "content",
    [
        TEXT,
        TEXT.replace("\n", "\r\n"),
        "\ufeff" + TEXT,
        TEXT.removesuffix("\n"),
        "\n\n" + TEXT + "\n\n",
        TEXT.replace("\n\n", "\n \t\u3000\n"),
    ],
)
def test_line_ends_a_byte_order_mark_and_more_blank_lines_change_nothing(tmp_path: Path, content: str) -> None:
    assert texts(put(tmp_path, content)) == DOCUMENTS


def test_a_line_ends_at_a_line_feed_and_nowhere_else(tmp_path: Path) -> None:
    line = "a\u2028b\x0bc\x0cd\x85e\x1cf\rg"
    assert texts(put(tmp_path, f"{line}\n\nh")) == [line, "h"]


@pytest.mark.parametrize(
    ("documents", "expected"),
    [
        ("auto", DOCUMENTS),
        ("blank-line", DOCUMENTS),
        ("file", ["\n".join(DOCUMENTS)]),
        ("record", "\n".join(DOCUMENTS).split("\n")),
    ],
)
def test_documents_of_text_are_as_the_format_says(tmp_path: Path, documents: str, expected: list[str]) -> None:
    assert texts(put(tmp_path, TEXT), CorpusFormat(documents=documents)) == expected


@pytest.mark.parametrize(
    ("documents", "expected"),
    [
        ("auto", ["a\nb\nc", "d"]),
        ("record", ["a\nb\nc", "d"]),
        ("blank-line", ["a\nb", "c", "d"]),
        ("file", ["a\nb\nc\nd"]),
    ],
)
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_documents_of_records_are_as_the_format_says(tmp_path: Path, kind: str, documents: str, expected: list[str]) -> None:
    values = ["a\nb\n\nc\n", "d"]
    path = put(tmp_path, rows(*values), "r.jsonl") if kind == "jsonl" else parquet(tmp_path, values)
    assert texts(path, CorpusFormat(documents=documents)) == expected


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00\n\r\ufeff")), max_size=12))
@example(["", "\u3000", "x", "\u2028"])
def test_no_line_is_lost_or_moved(tmp_path_factory: pytest.TempPathFactory, given_lines: list[str]) -> None:
    folder = tmp_path_factory.mktemp("lines")
    kept = [line for line in given_lines if line and not line.isspace()]
    data = "\n".join(given_lines).encode()
    for ending in COMPRESS:
        documents, skipped = read(put(folder, COMPRESS[ending](data), f"a.txt{ending}"))
        assert [line for document in documents for line in document.text.split("\n")] == kept
        assert [skip.reason for skip in skipped] == ([] if kept else ["empty"])
        for document in documents:
            line = int(document.where.rpartition(":")[2])
            assert document.text.split("\n")[0] == given_lines[line - 1]


@pytest.mark.parametrize("name", ["empty.txt", "empty.jsonl", "empty.txt.gz", "blank.txt"])
def test_an_empty_file_is_reported(tmp_path: Path, name: str) -> None:
    path = put(tmp_path, {"empty.txt.gz": gzip.compress(b""), "blank.txt": b"\n \n"}.get(name, b""), name)
    other = put(tmp_path, "text", "other.txt")
    documents, skipped = read([path, other])
    assert [document.text for document in documents] == ["text"]
    assert skipped == [Skipped(str(path), "empty")]


# ----------------------------------------------------------------------------------------- what cannot be read


@pytest.mark.parametrize(
    ("name", "content", "expected", "reported"),
    [
        ("a.txt", b"a\nb\xff\xfe\nc\n\nd", ["a\nc", "d"], [(":2", "byte 0xff at position 2 is not UTF-8")]),
        ("a.txt", b"a\n\xe4\xb8\nb", ["a\nb"], [(":2", "byte 0xe4 at position 1 is not UTF-8")]),
        ("a.txt", b"a\nb\x00\nc", ["a\nc"], [(":2", "holds a NUL byte")]),
        ("a.txt", "a\nb\n".encode("utf-16"), [], [(":1", "the file is UTF-16; save it as UTF-8")]),
        ("a.jsonl", b'{"text": "a"}\n\n{"text": "b"\n{"text": "c"}', ["a", "c"], [(":3", "not JSON: Expecting")]),
        ("a.jsonl", b'["a"]\n{"text": "b"}', ["b"], [(":1", "a JSON list where each line should hold an object")]),
        ("a.json", b'[\n{"text": "b"}\n]', ["b"], [(":1", "not JSON: "), (":3", "not JSON: ")]),
        ("a.jsonl", b'{"txt": "a", "n": 1}', [], [(":1", "no field 'text'; did you mean 'txt'? (fields: txt, n)")]),
        ("a.jsonl", b'{"text": null}\n{"text": "b"}', ["b"], [(":1", "the text is missing")]),
        ("a.jsonl", b'{"text": " \\n"}\n{"text": "b"}', ["b"], [(":1", "the text is empty")]),
        (
            "a.jsonl",
            b'{"text": 12}\n{"text": ["b"]}',
            [],
            [(":1", "the text is 12, of type int"), (":2", "the text is ['b']")],
        ),
        ("a.jsonl", b'{"text": "a\\u0000"}\n{"text": "b"}', ["b"], [(":1", "holds a NUL character")]),
        ("a.jsonl", b'{"text": "\\ud800x"}\n{"text": "b"}', ["b"], [(":1", "holds half a character")]),
        ("a.jsonl", b'{"text": "\\ud83d\\ude00"}', ["\U0001f600"], []),
        ("a.jsonl", b'{"text": "\xff"}\n{"text": "b"}', ["b"], [(":1", "byte 0xff at position 11 is not UTF-8")]),
        ("a.jsonl", b'{"text": ' + b"[" * 100_000, [], [(":1", "not JSON: ")]),
        ("a.jsonl", b'{"text": ' + b"1" * 5000 + b"}", [], [(":1", "not JSON: Exceeds")]),
        ("a.txt.gz", b"no gzip", [], [(":1", "damaged: ")]),
        ("a.txt.xz", b"no xz", [], [(":1", "damaged: ")]),
        ("a.txt.bz2", b"no bzip2", [], [(":1", "damaged: ")]),
        ("a.txt.zst", b"no zstandard", [], [(":1", "damaged: ")]),
        ("a.txt.gz", gzip.compress(b"a\nb") + b"junk", ["a\nb"], [(":2", "damaged: ")]),
        ("a.parquet", b"no Parquet", [], [(": record 1", "not readable as Parquet: ")]),
    ],
)
def test_what_cannot_be_read_is_reported_and_the_rest_is_used(
    tmp_path: Path, name: str, content: bytes, expected: list[str], reported: list[tuple[str, str]]
) -> None:
    path = put(tmp_path, content, name)
    documents, skipped = read(path)
    assert [document.text for document in documents] == expected
    assert len(skipped) == len(reported)
    for skip, (where, reason) in zip(skipped, reported, strict=True):
        assert skip.where == f"{path}{where}"
        assert skip.reason.startswith(reason)
        assert "\n" not in skip.reason
    if reported:
        with pytest.raises(BertwrightError) as caught:
            list(read_documents([path], AUTO, refuse))
        assert str(caught.value).startswith(f"{path}{reported[0][0]}: {reported[0][1]}")


def test_a_corpus_without_any_text_says_what_was_the_first_to_fail(tmp_path: Path) -> None:
    path = put(tmp_path, '{"txt": "a"}\n{"txt": "b"}\n', "a.jsonl")
    skipped: list[Skipped] = []
    with pytest.raises(BertwrightError, match=r"no text in the corpus \(files: 1\); .*a\.jsonl:1: no field 'text'"):
        list(read_documents([path], AUTO, skipped.append))
    assert len(skipped) == 2


@pytest.mark.parametrize("ending", [ending for ending in COMPRESS if ending])
def test_a_stream_cut_off_anywhere_gives_what_it_held_and_is_reported(tmp_path: Path, ending: str) -> None:
    whole = "".join(f"Zeile {number} — 行 {number * 7919 % 1000}\n" + "\n" * (number % 3 == 0) for number in range(40))
    data = COMPRESS[ending](whole.encode())
    for place in [*range(1, len(data), 7), len(data) - 1]:
        documents, skipped = read(put(tmp_path, data[:place], f"cut.txt{ending}"))
        (skip,) = skipped
        assert skip.reason == "cut off: the compressed data ends too early; what comes before is used"
        got = "\n".join(document.text for document in documents)
        assert "\n".join(line for line in whole.split("\n") if line).startswith(got)
    assert len(documents) == 14  # all of it but the checksum was there


@pytest.mark.parametrize("ending", [ending for ending in COMPRESS if ending])
def test_a_line_of_json_that_is_cut_off_is_reported_once(tmp_path: Path, ending: str) -> None:
    data = COMPRESS[ending](rows(*(f"text {number * 7919 % 1000}" for number in range(500))).encode())
    documents, skipped = read(put(tmp_path, data[: len(data) - 12], f"cut.jsonl{ending}"))
    assert [skip.reason.partition(":")[0] for skip in skipped] == ["cut off"]
    assert all(document.text.startswith("text ") for document in documents)


@given(st.integers(0, 400), st.integers(1, 255), st.sampled_from([ending for ending in COMPRESS if ending]))
def test_a_damaged_stream_never_ends_the_reading(
    tmp_path_factory: pytest.TempPathFactory, place: int, change: int, ending: str
) -> None:
    whole = "".join(f"{number * 7919 % 1000} " for number in range(200))
    data = bytearray(COMPRESS[ending](whole.encode()))
    data[place % len(data)] ^= change
    documents, skipped = read(put(tmp_path_factory.getbasetemp(), bytes(data), f"damaged.txt{ending}"))
    # Some bytes of a header mean nothing for the content.
    assert skipped or [document.text for document in documents] == [whole]


@pytest.mark.parametrize("ending", [ending for ending in COMPRESS if ending])
def test_members_one_after_the_other_and_padding_between_are_one_stream(tmp_path: Path, ending: str) -> None:
    compress = COMPRESS[ending]
    data = compress(b"a\nb") + bytes(8) + compress(b"") + compress("c\n\né".encode()) + bytes(4)
    assert texts(put(tmp_path, data, f"a.txt{ending}")) == ["a\nbc", "é"]


def test_a_file_that_cannot_be_opened_is_reported(tmp_path: Path) -> None:
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
    other = put(tmp_path, "text", "other.txt")
    documents, skipped = read(tmp_path)
    assert [document.where for document in documents] == [f"{other}:1"]
    assert skipped == [Skipped(f"{tmp_path / 'gone.txt'}:1", "cannot be read: No such file or directory")]


@pytest.mark.parametrize(
    ("module", "name", "content"),
    [("zstandard", "a.txt.zst", b"x"), ("pyarrow", "a.parquet", b"x"), ("datasets", "hub:owner/name", None)],
)
def test_a_missing_library_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, name: str, content: bytes | None
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    path = Path(name) if content is None else put(tmp_path, content, name)
    with pytest.raises(BertwrightError, match=rf"{name}: reading (it|Parquet) needs: pip install {module}"):
        list(read_documents([path], AUTO, refuse))


# ------------------------------------------------------------------------------------------------------ bounded memory


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> int:
    """Documents and lines of 100 bytes at most."""
    monkeypatch.setattr(lines, "LONGEST_LINE", 100)
    monkeypatch.setattr(corpus, "LARGEST_DOCUMENT", 100)
    return 100


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
@pytest.mark.parametrize("line_break", ["\n", " "])
def test_a_document_that_is_too_large_becomes_several(
    tmp_path: Path, small: int, monkeypatch: pytest.MonkeyPatch, name: str, line_break: str
) -> None:
    sentences = [f"This is sentence number {number}, «ö» 第{number}句." for number in range(30)]
    whole = line_break.join(sentences)
    if name == "a.jsonl":
        monkeypatch.setattr(lines, "LONGEST_LINE", 1 << 20)  # of the file; the record inside is what is too large
        monkeypatch.setattr(corpus, "cut_line", lambda line: cut(line, small))
    path = put(tmp_path, f"{whole}\n\nshort" if name == "a.txt" else rows(whole, "short"), name)
    with pytest.warns(BertwrightWarning, match=rf"{path}:1: this document is longer than .* cut into several") as told:
        documents, skipped = read(path)
    assert len(told) == 1
    assert skipped == []
    assert documents[-1].text == "short"
    assert all(len(document.text.encode()) <= small for document in documents)
    assert [s for document in documents[:-1] for s in document.text.replace(". ", ".\n").splitlines()] == sentences


def cut(line: bytes, limit: int) -> Iterator[bytes]:
    lines.LONGEST_LINE = limit
    yield from list(lines.cut_line(line))
    lines.LONGEST_LINE = 1 << 20


def test_a_line_of_json_that_is_too_long_is_skipped(tmp_path: Path, small: int) -> None:
    path = put(tmp_path, rows("a", "b" * 350, "c", "d" * 1000), "a.jsonl")
    documents, skipped = read(path)
    assert [document.text for document in documents] == ["a", "c"]
    assert [skip.where for skip in skipped] == [f"{path}:2", f"{path}:4"]
    assert all(skip.reason.startswith("longer than") for skip in skipped)


@given(st.text(st.sampled_from("ab .!。é六😀"), min_size=0, max_size=300), st.integers(4, 50))
def test_a_long_line_is_cut_without_loss_between_characters(line: str, limit: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "LONGEST_LINE", limit)
        pieces = list(lines.cut_line(line.encode()))
    assert "".join(piece.decode() for piece in pieces) == line
    assert all(len(piece) <= limit for piece in pieces)
    assert all(pieces[:-1])
    for piece in pieces[:-1]:
        text = piece.decode()
        ends = any(end in text for end in (". ", "! ", "。"))
        assert text.endswith((". ", "! ", "。")) if ends else text.endswith(" ") or " " not in text


@pytest.mark.parametrize("ending", COMPRESS)
def test_memory_does_not_grow_with_the_file(tmp_path: Path, ending: str) -> None:
    generator = random.Random(0)
    paragraphs = [f"{generator.getrandbits(4000)}\n\n".encode() for _ in range(3000)]
    path = put(tmp_path, COMPRESS[ending](b"".join(paragraphs)), f"a.txt{ending}")
    tracemalloc.start()
    try:
        count = sum(1 for _ in read_documents([path], AUTO, refuse))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == len(paragraphs)
    assert peak < 1_800_000  # of a text of 3.6 MB


@pytest.mark.parametrize("ending", [ending for ending in COMPRESS if ending])
def test_a_few_bytes_that_stand_for_very_many_do_not_fill_the_memory(tmp_path: Path, ending: str) -> None:
    path = put(tmp_path, COMPRESS[ending](bytes(30_000_000)), f"a.txt{ending}")
    tracemalloc.start()
    try:
        read(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 200 << 20


# ------------------------------------------------------------------------------------------------------ Parquet and hub


def parquet(folder: Path, values: Sequence[object], name: str = "r.parquet", **columns: Any) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as writer

    folder.mkdir(parents=True, exist_ok=True)
    writer.write_table(pyarrow.table(columns or {"id": list(range(len(values))), "text": values}), folder / name)
    return folder / name


def test_parquet_gives_each_record_with_its_number(tmp_path: Path) -> None:
    values = [f"record {number}" for number in range(200)]
    values[70:72] = ["", "   "]
    path = parquet(tmp_path, [*values, None])
    documents, skipped = read(path)
    assert [document.text for document in documents] == [*values[:70], *values[72:]]
    assert documents[-1] == Document("record 199", f"{path}: record 200")
    assert skipped == [
        *(Skipped(f"{path}: record {number}", "the text is empty") for number in (71, 72)),
        Skipped(f"{path}: record 201", "the text is missing"),
    ]


def test_parquet_with_another_column_or_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = parquet(tmp_path, ["a"])
    skipped = read(path, CorpusFormat(text="texts"))[1]
    assert skipped == [Skipped(f"{path}: record 1", "no column 'texts'; did you mean 'text'? (columns: id, text)")]
    pyarrow = pytest.importorskip("pyarrow")
    offsets = pyarrow.array([0, 1, 3, 4], pyarrow.int32()).buffers()[1]
    broken = pyarrow.Array.from_buffers(pyarrow.string(), 3, [None, offsets, pyarrow.py_buffer(b"a\xff\xfec")])
    path = parquet(tmp_path, [], "broken.parquet", text=broken)
    documents, skipped = read(path)
    assert [document.text for document in documents] == ["a", "c"]
    assert skipped == [Skipped(f"{path}: record 2", "not UTF-8")]


def test_parquet_that_breaks_off_is_used_as_far_as_it_can_be_read(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as writer

    path = tmp_path / "groups.parquet"
    table = pyarrow.table({"text": [f"record {number}" for number in range(1000)]})
    writer.write_table(table, path, row_group_size=250, compression="zstd", use_dictionary=False)
    data = bytearray(path.read_bytes())
    place = writer.ParquetFile(path).metadata.row_group(2).column(0).data_page_offset + 40
    data[place : place + 200] = bytes(200)
    path.write_bytes(data)
    documents, skipped = read(path)
    texts = [document.text for document in documents]
    assert texts == [f"record {number}" for number in range(len(texts))]
    assert 250 <= len(texts) <= 750
    (skip,) = skipped
    assert skip.reason.startswith("not readable as Parquet: ")


def hub_stand_in(rows: Sequence[dict[str, Any] | Exception], calls: list[Any]) -> types.ModuleType:
    def load_dataset(
        name: str, config: str | None, *, split: str, revision: str | None, streaming: bool
    ) -> Iterator[dict[str, Any]]:
        calls.append((name, config, split, revision, streaming))
        for row in rows:
            if isinstance(row, Exception):
                raise row
            yield row

    module = types.ModuleType("datasets")
    module.load_dataset = load_dataset  # type: ignore[attr-defined]
    return module


@pytest.mark.parametrize(
    ("source", "call"),
    [
        ("hub:owner/name", ("owner/name", None, "train", None, True)),
        ("hub:name", ("name", None, "train", None, True)),
        ("hub:owner/name:20231101.en", ("owner/name", "20231101.en", "train", None, True)),
        ("hub:o/n:c:validation", ("o/n", "c", "validation", None, True)),
        ("hub:o/n@refs/pr/1:c", ("o/n", "c", "train", "refs/pr/1", True)),
    ],
)
def test_a_data_set_of_the_hub_streams(monkeypatch: pytest.MonkeyPatch, source: str, call: tuple[Any, ...]) -> None:
    calls: list[Any] = []
    monkeypatch.setitem(sys.modules, "datasets", hub_stand_in([{"text": "a"}, {"text": None}, {"text": "b"}], calls))
    files = corpus_files([source])
    assert input_bytes(files) is None
    skipped: list[Skipped] = []
    documents = list(read_documents(files, AUTO, skipped.append))
    assert documents == [Document("a", f"{source}: record 1"), Document("b", f"{source}: record 3")]
    assert skipped == [Skipped(f"{source}: record 2", "the text is missing")]
    assert calls == [call]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": "a"}, ConnectionError("no network\nat all")], "hub:o/n: cannot be read: no network; is the name right"),
        ([OSError()], "hub:o/n: cannot be read: OSError; is the name right"),
        ([{"content": "a"}], "hub:o/n: no column 'text' (columns: content)"),
    ],
)
def test_a_data_set_that_cannot_be_read_ends_in_one_line(
    monkeypatch: pytest.MonkeyPatch, rows: list[Any], message: str
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", hub_stand_in(rows, []))
    skipped: list[Skipped] = []
    with pytest.raises(BertwrightError) as caught:
        list(read_documents(corpus_files(["hub:o/n"]), AUTO, skipped.append))
    assert str(caught.value).startswith(message)
    assert skipped == []


def test_the_real_library_reads_a_folder_under_a_name_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    pytest.importorskip("datasets", reason="needs the hub extra (datasets)")
    put(tmp_path, rows("first", "second\nline"), "owner/name/train.jsonl")
    monkeypatch.chdir(tmp_path)
    documents = list(read_documents(corpus_files(["hub:owner/name"]), AUTO, refuse))
    assert [document.text for document in documents] == ["first", "second\nline"]


@pytest.mark.parametrize("source", ["hub:", "hub:a/b/c", "hub:a/b:c:d:e", "hub:a b"])
def test_a_name_that_the_hub_cannot_have_is_refused(source: str) -> None:
    with pytest.raises(BertwrightError, match="name a data set as hub:owner/name"):
        corpus_files([source])


# --------------------------------------------------------------------------------------------------------------- files


def test_a_folder_gives_its_files_in_sorted_order_and_tells_what_it_leaves_out(tmp_path: Path) -> None:
    taken = ["A.txt", "b/c.jsonl.gz", "b/d.zst", "b.txt", "e.parquet", "f", "g.ndjson", "z.text.xz", "z.json"]
    left_out = ["notes.md", "table.csv", "x.tar.gz", "y.parquet.gz", "page.html"]
    for name in [*reversed(taken), *left_out, ".hidden.txt", ".git/objects", "b/.ipynb_checkpoints/d.txt"]:
        put(tmp_path, "text", name)
    with pytest.warns(BertwrightWarning, match="left out 5 of its files") as told:
        files = corpus_files([tmp_path])
    assert sorted(files, key=lambda file: file.parts) == files
    assert {str(file.relative_to(tmp_path)) for file in files} == set(taken)
    assert "(.csv, .gz, .html, .md)" in str(told[0].message)


def test_a_file_that_is_named_is_text_whatever_its_ending(tmp_path: Path) -> None:
    assert texts(put(tmp_path, TEXT, "notes.md")) == DOCUMENTS


def test_links_are_followed_and_a_circle_ends(tmp_path: Path) -> None:
    put(tmp_path, "a", "elsewhere/a.txt")
    put(tmp_path, "b", "corpus/b.txt")
    (tmp_path / "corpus" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "corpus")
    assert texts(tmp_path / "corpus") == ["b", "a"]


def test_a_file_that_is_named_twice_is_read_once(tmp_path: Path) -> None:
    first, second = put(tmp_path, "a", "a.txt"), put(tmp_path, "b", "b.txt")
    with pytest.warns(BertwrightWarning, match="1 of the files of the corpus were named twice"):
        assert corpus_files([second, tmp_path]) == [second, first]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing", "no such file or folder"),
        ("a.tar.gz", "an archive; unpack it"),
        ("a.zip", "an archive"),
        ("empty", "no text"),
    ],
)
def test_what_is_no_corpus_is_refused(tmp_path: Path, name: str, message: str) -> None:
    for archive in ("a.tar.gz", "a.zip"):
        put(tmp_path, "x", archive)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BertwrightError, match=message):
        corpus_files([tmp_path / name])


def test_a_single_path_is_one_path_and_not_its_characters(tmp_path: Path) -> None:
    file = put(tmp_path, TEXT, "a.txt")
    assert corpus_files(str(tmp_path)) == corpus_files(tmp_path) == corpus_files([tmp_path]) == [file]


@pytest.mark.parametrize("where", ["listing", "looking at what is inside"])
def test_a_folder_that_may_not_be_read_is_passed_over_and_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    put(tmp_path, "a", "a.txt")
    put(tmp_path, "c", "secret/c.txt")
    put(tmp_path, "d", "z/d.txt")

    def forbidding(method: Callable[[Path], Any], forbidden: Path) -> Callable[[Path], Any]:
        def call(path: Path) -> Any:
            if path == forbidden:
                raise PermissionError(13, "Permission denied", str(path))
            return method(path)

        return call

    if where == "listing":
        monkeypatch.setattr(Path, "iterdir", forbidding(Path.iterdir, tmp_path / "secret"))
    else:
        monkeypatch.setattr(Path, "is_dir", forbidding(Path.is_dir, tmp_path / "secret" / "c.txt"))
    documents, skipped = read(tmp_path)
    assert [document.text for document in documents] == ["a", "d"]
    reason = "a folder that cannot be read; change its rights to have it"
    assert skipped == [Skipped(str(tmp_path / "secret"), reason)]
    with pytest.raises(BertwrightError, match="secret: a folder that cannot be read"):
        list(read_documents(corpus_files(tmp_path), AUTO, refuse))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"documents": "blank-lines"}, "documents is 'blank-lines'; did you mean 'blank-line'?"),
        ({"sentences": "lines"}, "sentences is 'lines'; did you mean 'line'?"),
        ({"language": "English"}, "language is 'English'; use a code"),
    ],
)
def test_a_format_that_is_none_is_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(BertwrightError) as caught:
        CorpusFormat(**options)
    assert str(caught.value).startswith(message)


@pytest.mark.shared_data
def test_real_text_comes_whole(shared: Path, tmp_path: Path) -> None:
    for source in (shared / "zh" / "zhwiki" / "zhwiki.txt.xz", shared / "pretrain" / "enwiki-2018.txt.xz"):
        with lzma.open(source) as file:
            data = file.read(3 << 20)
        data = data[: data.rindex(b"\n\n")]
        expected = [block for block in data.decode().split("\n\n") if block.strip()]
        packed = put(tmp_path, COMPRESS[".zst"](data), "packed.txt.zst")
        assert texts(packed) == expected
        stream = io.StringIO()
        for block in expected:
            stream.write(rows(block, field="article"))
        assert texts(put(tmp_path, stream.getvalue(), "r.jsonl"), CorpusFormat(text="article")) == expected
