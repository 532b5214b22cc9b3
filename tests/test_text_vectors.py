"""Vectors of texts and tokens: those of transformers, in every layer, pooling and file."""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bertwright
from bertwright import BertwrightError, BertwrightWarning, TextEncoder
from bertwright.data.examples import Example
from bertwright.text_vectors import Kind
from command_line import run
from tiny_model import POSITIONS, rows, write_csv, write_jsonl, write_tiny_model, write_tsv

TEXTS = ["the good film", "", "This DAY was very, very cruel and so was this cat!", "a", "the good film"]


@pytest.fixture(scope="module")
def encoder(tiny_dir: Path) -> TextEncoder:
    return bertwright.load_encoder(tiny_dir, device="cpu", precision="float32", threads=1)


def their_hidden(directory: Path, texts: list[str]) -> tuple[list[np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
    """Hidden states of every layer, padded, and the mask, as transformers gives them."""
    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(directory).eval()
    batch = AutoTokenizer.from_pretrained(directory)(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        states = model(**batch, output_hidden_states=True).hidden_states
    return [state.numpy() for state in states], batch["attention_mask"].numpy()


def their_pooled(hidden_BSH: np.ndarray[Any, Any], mask_BS: np.ndarray[Any, Any], pooling: str) -> np.ndarray[Any, Any]:
    parts = [hidden_SH[mask_S == 1] for hidden_SH, mask_S in zip(hidden_BSH, mask_BS, strict=True)]
    pool = {"mean": lambda part: part.mean(0), "max": lambda part: part.max(0), "cls": lambda part: part[0]}
    return np.stack([pool[pooling](part) for part in parts])


# ---------------------------------------------------------------------------------------------------- beside transformers


@pytest.mark.parametrize("pooling", ["mean", "max", "cls"])
def test_every_layer_and_pooling_is_that_of_transformers(encoder: TextEncoder, tiny_dir: Path, pooling: str) -> None:
    states, mask_BS = their_hidden(tiny_dir, TEXTS)
    each = [their_pooled(state, mask_BS, pooling) for state in states]
    for layer, expected in enumerate(each):
        found = encoder.vectors(TEXTS, pooling=pooling, layers=layer)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)
    np.testing.assert_array_equal(encoder.vectors(TEXTS, pooling=pooling), encoder.vectors(TEXTS, pooling=pooling, layers=2))
    joined = encoder.vectors(TEXTS, pooling=pooling, layers="2, 0,1")
    np.testing.assert_array_equal(encoder.vectors(TEXTS, pooling=pooling, layers=[2, 0, 1]), joined)
    np.testing.assert_allclose(joined, np.concatenate([each[2], each[0], each[1]], 1), atol=1e-5, rtol=0)


def test_the_last_four_layers_of_minilm_are_those_of_transformers(minilm_dir: Path) -> None:
    texts = ["Birds sleep.", "A far longer sentence, about the price of eggs in 1987, and about nothing else."]
    states, mask_BS = their_hidden(minilm_dir, texts)
    ours = bertwright.load_encoder("minilm", device="cpu", precision="float32")
    found = ours.vectors(texts, layers="last4")
    expected = np.concatenate([their_pooled(state, mask_BS, "mean") for state in states[-4:]], 1)
    assert found.shape == (2, 4 * 384)
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)
    np.testing.assert_array_equal(bertwright.vectors("minilm", texts, layers="last4", device="cpu"), found)
    for one, state, mask_S in zip(ours.token_vectors(texts), states[-1], mask_BS, strict=True):
        np.testing.assert_allclose(one.vectors_TW, state[mask_S == 1], atol=1e-5, rtol=0)


def test_tokens_come_with_their_places(encoder: TextEncoder, tiny_dir: Path) -> None:
    states, mask_BS = their_hidden(tiny_dir, TEXTS)
    found = encoder.token_vectors(TEXTS, layers="1,2")
    for text, one, first, second, mask_S in zip(TEXTS, found, states[1], states[2], mask_BS, strict=True):
        expected = np.concatenate([first[mask_S == 1], second[mask_S == 1]], 1)
        np.testing.assert_allclose(one.vectors_TW, expected, atol=1e-5, rtol=0)
        assert len(one.tokens) == len(one.offsets) == len(one.vectors_TW)
        assert (one.tokens[0], one.tokens[-1], one.cut) == ("[CLS]", "[SEP]", 0)
        for token, (begin, end) in list(zip(one.tokens, one.offsets, strict=True))[1:-1]:
            assert text[begin:end].lower() == token.removeprefix("##")


def test_normalized_vectors_have_the_length_1_and_the_same_direction(encoder: TextEncoder) -> None:
    plain, unit = encoder.vectors(TEXTS), encoder.vectors(TEXTS, normalize=True)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(plain / np.linalg.norm(plain, axis=1, keepdims=True), unit, atol=1e-6)


# --------------------------------------------------------------------------------------------------- order, memory, limits


def test_vectors_are_in_text_order_whatever_stands_beside_them(encoder: TextEncoder) -> None:
    texts = [text for text, _ in rows(70)]
    together = encoder.vectors(texts, pooling="max")
    for place in (0, 33, 69):
        np.testing.assert_allclose(together[place], encoder.vectors(texts[place], pooling="max")[0], atol=1e-5)
    assert encoder.vectors([]).shape == (0, 16)


def test_a_stream_is_taken_in_chunks(encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bertwright.text_vectors._TEXTS_AT_ONCE", 10)
    monkeypatch.setattr("bertwright.text_vectors._TOKEN_CHARACTERS_AT_ONCE", 200)
    taken = 0

    def stream() -> Iterator[Example]:
        nonlocal taken
        for text, _ in rows(35):
            taken += 1
            yield Example(text, "row")

    chunks = encoder.chunks(stream(), Kind())
    assert len(next(chunks).vectors_BW) == 10
    assert taken == 10
    assert [len(chunk.vectors_BW) for chunk in chunks] == [10, 10, 5]
    taken = 0
    next(iter(encoder.tokens(stream(), Kind())))
    assert 1 < taken < 35


def test_a_long_text_is_cut_and_told(encoder: TextEncoder) -> None:
    text = "good " * 100
    with pytest.warns(BertwrightWarning, match=f"1 texts are longer than {POSITIONS} tokens and were cut"):
        whole = encoder.vectors([text, "bad"])
    np.testing.assert_array_equal(whole[0], encoder.vectors(["good " * (POSITIONS - 2)])[0])
    with pytest.warns(BertwrightWarning, match="1 texts are longer than 5 tokens"):
        (one,) = encoder.token_vectors(text, max_length=5)
    assert (one.tokens, one.cut) == (["[CLS]", "good", "good", "good", "[SEP]"], 97)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "men"}, "--pooling is 'men'; did you mean 'mean'? (known: mean, cls, max)"),
        ({"layers": "last4"}, "--layers last4: the model has only 2 layers; name some of 0 to 2"),
        ({"layers": 3}, "--layers is '3'; use last, last4, or numbers from 0 (the embeddings) to 2, with commas between"),
        ({"layers": -1}, "--layers is '-1'; use last"),
        ({"layers": None}, "--layers is 'None'; use last"),
        ({"layers": ["last"]}, "--layers is \"['last']\"; use last"),
        ({"layers": ""}, "--layers is ''; use last"),
        ({"max_length": 49}, "--max-length is 49; the model takes 2 to 48 tokens"),
        ({"max_length": 1}, "--max-length is 1; the model takes 2 to 48 tokens"),
    ],
)
def test_what_the_model_has_not_is_refused(encoder: TextEncoder, options: dict[str, Any], message: str) -> None:
    with pytest.raises(BertwrightError) as caught:
        encoder.vectors(["a"], **options)
    assert str(caught.value).startswith(message)


def test_what_is_no_text_is_refused(encoder: TextEncoder) -> None:
    with pytest.raises(BertwrightError, match="text 2 is 3, of type int, not a string"):
        encoder.vectors(["a", 3])  # type: ignore[list-item]


def test_a_fine_tuned_model_gives_its_encoders_vectors(tiny_run: Path) -> None:
    found = bertwright.vectors(tiny_run, TEXTS, device="cpu", precision="float32")
    states, mask_BS = their_hidden(tiny_run, TEXTS)
    np.testing.assert_allclose(found, their_pooled(states[-1], mask_BS, "mean"), atol=1e-5, rtol=0)


def test_a_checkpoint_without_a_layer_is_refused(tiny_dir: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for file in tiny_dir.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(tiny_dir / "model.safetensors")
    save_file({k: v for k, v in tensors.items() if ".layer.1.output.dense" not in k}, tmp_path / "model.safetensors")
    with pytest.raises(BertwrightError, match=r"the weights are incomplete: 'encoder.layer.1.output.dense.weight'"):
        bertwright.load_encoder(tmp_path)


# ------------------------------------------------------------------------------------------------------------------ files


def test_every_file_holds_the_vectors_of_python(encoder: TextEncoder, tiny_dir: Path, tmp_path: Path) -> None:
    import pyarrow.parquet

    data = write_csv(tmp_path / "rows.csv", [(text, "x") for text in TEXTS], ("sentence", "label"))
    expected = encoder.vectors(TEXTS, layers="1,2", normalize=True)
    options = ["--input", data, "--text", "sentence", "--layers", "1,2", "--normalize", "--threads", 1]
    for ending in ("npy", "parquet", "jsonl"):
        said = run("vectors", tiny_dir, *options, "--out", tmp_path / f"v.{ending}")
        assert said.code == 0, said.err
        assert said.err.splitlines()[-1] == (
            f"note: 5 texts, vectors of 32: 0 unreadable, 0 cut; written to {tmp_path / f'v.{ending}'}"
        )
    np.testing.assert_array_equal(np.load(tmp_path / "v.npy"), expected)
    table = pyarrow.parquet.read_table(tmp_path / "v.parquet")
    assert table.column("text").to_pylist() == TEXTS
    np.testing.assert_array_equal(np.array(table.column("vector").to_pylist(), np.float32), expected)
    records = [json.loads(line) for line in (tmp_path / "v.jsonl").read_text().splitlines()]
    assert [record["text"] for record in records] == TEXTS
    np.testing.assert_array_equal(np.array([record["vector"] for record in records], np.float32), expected)
    printed = run("vectors", tiny_dir, *options).out
    assert printed == (tmp_path / "v.jsonl").read_text()


def test_half_takes_half_the_room(encoder: TextEncoder, tiny_dir: Path, tmp_path: Path) -> None:
    import pyarrow.parquet

    expected = encoder.vectors(["a good day"]).astype(np.float16)
    for ending in ("npy", "parquet", "jsonl"):
        assert run("vectors", tiny_dir, "a good day", "--half", "--threads", 1, "--out", tmp_path / f"v.{ending}").code == 0
    found = np.load(tmp_path / "v.npy")
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, expected)
    column = pyarrow.parquet.read_table(tmp_path / "v.parquet").column("vector")
    assert str(column.type.value_type) == "halffloat"
    np.testing.assert_array_equal(np.array(column.to_pylist(), np.float16), expected)
    record = json.loads((tmp_path / "v.jsonl").read_text())
    np.testing.assert_array_equal(np.array([record["vector"]], np.float16), expected)


def test_a_file_of_more_rows_than_one_chunk_is_whole(
    encoder: TextEncoder, tiny_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bertwright.text_vectors._TEXTS_AT_ONCE", 7)
    texts = [text for text, _ in rows(123)]
    data = write_jsonl(tmp_path / "rows.jsonl", [{"text": text} for text in texts])
    assert run("vectors", tiny_dir, "--input", data, "--threads", 1, "--out", tmp_path / "v.npy").code == 0
    np.testing.assert_allclose(np.load(tmp_path / "v.npy"), encoder.vectors(texts), atol=1e-5)


def test_a_stream_keeps_a_place_for_each_line(tiny_dir: Path, tmp_path: Path) -> None:
    import pyarrow.parquet

    lines = b"good\n\nbad \xff byte\n" + b"good " * 60 + b"\n"
    for ending in ("npy", "parquet", "jsonl"):
        said = run("vectors", tiny_dir, "-", "--threads", 1, "--out", tmp_path / f"v.{ending}", stdin=lines)
        assert "4 texts, vectors of 16: 1 unreadable, 1 cut" in said.err
    found = np.load(tmp_path / "v.npy")
    assert np.isnan(found).all(1).tolist() == [False, False, True, False]
    table = pyarrow.parquet.read_table(tmp_path / "v.parquet")
    assert table.column("text").to_pylist()[:3] == ["good", "", None]
    assert table.column("vector").to_pylist()[2] is None
    assert table.column("cut").to_pylist() == [0, 0, 0, 14]
    records = [json.loads(line) for line in (tmp_path / "v.jsonl").read_text().splitlines()]
    assert records[2] == {"text": None, "skipped": "not UTF-8", "where": "standard input:3"}
    assert records[3]["cut"] == 14
    np.testing.assert_array_equal(np.array(records[0]["vector"], np.float32), found[0])
    empty = run("vectors", tiny_dir, "-", "--out", tmp_path / "none.npy", stdin=b"")
    assert empty.code == 0, empty.err
    assert np.load(tmp_path / "none.npy").shape == (0, 16)


@pytest.mark.parametrize("half", [False, True])
def test_token_files_hold_tokens_places_and_vectors(
    encoder: TextEncoder, tiny_dir: Path, tmp_path: Path, half: bool
) -> None:
    import pyarrow.parquet

    stdin = "\n".join(TEXTS).encode() + b"\n\xff\n"
    for ending in ("parquet", "jsonl"):
        options = ("--tokens", "--threads", 1, "--out", tmp_path / f"v.{ending}", *(["--half"] if half else []))
        said = run("vectors", tiny_dir, "-", *options, stdin=stdin)
        assert said.code == 0, said.err
        assert "6 texts, vectors of 16: 1 unreadable" in said.err
    table = pyarrow.parquet.read_table(tmp_path / "v.parquet").to_pylist()
    lines = [json.loads(line) for line in (tmp_path / "v.jsonl").read_text().splitlines()]
    assert set(table[5].values()) == {None}
    assert lines[5] == {"text": None, "skipped": "not UTF-8", "where": "standard input:6"}
    dtype = np.float16 if half else np.float32
    for text, one, row, line in zip(TEXTS, encoder.token_vectors(TEXTS), table, lines, strict=False):
        for found in (row, line):
            assert found["text"] == text
            assert found["tokens"] == one.tokens
            assert [tuple(span) for span in found["offsets"]] == one.offsets
            np.testing.assert_array_equal(np.array(found["vectors"], dtype), one.vectors_TW.astype(dtype))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give texts, or - for standard input, or --input FILE: one of them"),
        (("a", "-"), "give texts, or - for standard input, or --input FILE: one of them"),
        (("a", "--text", "t"), "--text, --columns, --delimiter and --quoting say how to read a file: give it with --input"),
        (("a", "--out", "v.txt"), "--out v.txt: vectors go to .npy, .parquet or .jsonl; name such a file"),
        (
            ("a", "--tokens", "--out", "v.npy"),
            "--out v.npy: .npy has no place for tokens and offsets; end its name in .parquet",
        ),
        (
            ("a", "--tokens", "--pooling", "cls"),
            "--pooling cls makes one vector of a text's tokens, and --tokens wants each",
        ),
        (("a", "--layers", "7"), "--layers is '7'; use last, last4, or numbers from 0 (the embeddings) to 2"),
        (("a", "--pooling", "sum"), "--pooling is 'sum' (known: mean, cls, max)"),
        (("--input", "none.tsv", "--quoting", "odd"), "--quoting is 'odd'; use auto, literal or csv"),
    ],
)
def test_mistakes_end_in_one_line(
    tiny_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("vectors", tiny_dir, *arguments).error.startswith(message)
    assert not list(tmp_path.iterdir())


def test_rows_of_the_hub_are_a_file_too(tiny_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = write_jsonl(tmp_path / "kept.jsonl", [{"text": "the cat sat"}])
    monkeypatch.setattr("bertwright.cli.vectors.local_file", lambda source: {"hub:a/b::train": kept}[str(source)])
    said = run("vectors", tiny_dir, "--input", "hub:a/b::train", "--out", tmp_path / "v.npy")
    assert "1 texts, vectors of 16" in said.err
    assert np.load(tmp_path / "v.npy").shape[0] == 1


def test_a_bad_row_of_a_file_leaves_no_half_a_file(tiny_dir: Path, tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text('{"text": "good"}\n{"texts": "bad"}\n')
    said = run("vectors", tiny_dir, "--input", data, "--out", tmp_path / "v.npy")
    assert said.error.startswith(f"{data}:2: no column 'text' for --text; did you mean 'texts'?")
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_the_example_finds_a_text_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tiny_model.POSITIONS", 256)
    model = write_tiny_model(tmp_path / "model")
    texts = [text for text, _ in rows(12)]
    paragraphs = [{"context": text, "qas": [{"question": text}]} for text in dict.fromkeys(texts)]
    (tmp_path / "squad.json").write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    pairs = [(text, text if number % 2 else "cruel", str(number % 2)) for number, text in enumerate(texts)]
    stsb = write_tsv(tmp_path / "stsb.tsv", pairs, ("sentence1", "sentence2", "score"))
    example = Path(__file__).resolve().parents[1] / "examples" / "retrieval.py"
    options = ["--squad", str(tmp_path / "squad.json"), "--stsb", str(stsb), "--model", str(model)]
    monkeypatch.setattr("sys.argv", [str(example), *options])
    runpy.run_path(str(example), run_name="__main__")
    said = capsys.readouterr().out
    assert "recall@1 1.0000, recall@5 1.0000" in said
    agreement = float(said.partition("score ")[2].partition(",")[0])
    assert agreement > 0.8
