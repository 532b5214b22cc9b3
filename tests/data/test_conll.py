"""CoNLL's columns in every detail, and a line for each thing that is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bertwright.data.catalog import KNOWN
from bertwright.data.tag_columns import TagColumns
from bertwright.data.tag_files import read_tagged
from bertwright.errors import BertwrightError, BertwrightWarning

Sentence = tuple[str, list[str], list[str]]

PLAIN = "EU NNP B-ORG\nrejects VBZ O\n\nPeter NNP B-PER\nBlackburn NNP I-PER\n\n"
EXPECTED = [(1, ["EU", "rejects"], ["B-ORG", "O"]), (4, ["Peter", "Blackburn"], ["B-PER", "I-PER"])]


def read(path: Path, content: str | bytes, **how: Any) -> list[Sentence]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    columns = TagColumns(**how)
    return [(one.where, one.words, list(one.tags or ())) for one in read_tagged(path, columns)]


def lines(path: Path, rows: list[tuple[int, list[str], list[str]]]) -> list[Sentence]:
    return [(f"{path}:{number}", words, tags) for number, words, tags in rows]


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace(" ", "\t"),
        PLAIN.replace(" ", " \t  "),
        "\ufeff" + PLAIN,
        PLAIN.replace("\n", "  \n"),
        PLAIN.replace("\n", "\t\n").replace(" ", "\t"),
        PLAIN.rstrip("\n"),
        PLAIN + "\n \n\t\n",
        PLAIN.replace("\n\n", "\n-DOCSTART- -X- O\n", 1),
        PLAIN.replace("\n\n", "\n-DOCSTART- O\n", 1),
    ],
    ids=["blanks", "CRLF", "tabs", "wide", "BOM", "trailing", "trailing tabs", "no last line", "more", "doc", "short doc"],
)
def test_one_file_in_many_guises(tmp_path: Path, content: str) -> None:
    path = tmp_path / "train.conll"
    assert read(path, content) == lines(path, EXPECTED)


def test_documents_begin_anywhere_and_hold_no_words(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    assert read(path, "-DOCSTART- -X- O\n\na O\n-DOCSTART- -X- O\nb O\n\n-DOCSTART- -X- O\n") == lines(
        path, [(3, ["a"], ["O"]), (5, ["b"], ["O"])]
    )


@pytest.mark.parametrize(
    ("how", "word", "tag"),
    [
        ({}, "the", "O"),
        ({"tag": "2"}, "the", "DT"),
        ({"tag": "3"}, "the", "I-NP"),
        ({"token": "2", "tag": "1"}, "DT", "the"),
        ({"names": ("form", "pos", "chunk", "ner"), "tag": "pos"}, "the", "DT"),
        ({"names": ("1", "2", "3", "4"), "tag": "2"}, "the", "DT"),
    ],
)
def test_columns_by_number_and_by_name(tmp_path: Path, how: dict[str, Any], word: str, tag: str) -> None:
    ((_, words, tags),) = read(tmp_path / "a", "the DT I-NP O\n", **how)
    assert (words, tags) == ([word], [tag])


@pytest.mark.parametrize(
    ("content", "delimiter"),
    [("a b,O\n", ","), ("a b;O\n;\n", "semicolon"), ("a b\tO\n\t\n", "tab"), ("a b\tO\n", None), ("a b|O|\n", "|")],
)
def test_delimiters_and_words_with_blanks(tmp_path: Path, content: str, delimiter: str | None) -> None:
    tag = None if content.count("|") < 2 else "2"
    assert read(tmp_path / "a.csv", content, delimiter=delimiter, tag=tag)[0][1:] == (["a b"], ["O"])


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("a.csv", {"delimiter": ","}),
        ("a.csv", {}),
        ("a.txt", {"delimiter": ",", "quoting": "csv"}),
        ("a.txt", {"quoting": "csv"}),
    ],
)
def test_quotes_enclose_fields_in_csv_and_where_that_is_asked_for(tmp_path: Path, name: str, how: dict[str, Any]) -> None:
    path = tmp_path / name
    content = '"-DOCSTART-","",O\n\n"Pa,ris",NNP,B-LOC\r\n",",",",O\n"",,""\n"""",``,"O"\n" ",_SP,O\n,,\n'
    if not how:
        content = content.replace('"-DOCSTART-","",O', "-DOCSTART-")
    begins = lines(path, [(3, ["Pa,ris", ","], ["B-LOC", "O"]), (6, ['"', " "], ["O", "O"])])
    assert read(path, content, **how) == begins


@pytest.mark.parametrize(
    ("name", "content", "how", "words"),
    [
        ("a.conll", '" O\n"" O\n"a b" O\n', {}, None),
        ("a.conll", '"\tO\n""\tO\n', {}, ['"', '""']),
        ("a.txt", '"",O\n', {"delimiter": ","}, ['""']),
        ("a.csv", '"",O\n', {"delimiter": ",", "quoting": "literal"}, ['""']),
        ("a.csv", '" O\n, O\n', {}, ['"', ","]),
        ("a.csv", '""""\tO\n', {}, ['"']),
        ("a.tsv", '""""\tO\n', {"quoting": "csv"}, ['"']),
        ("a.tsv", '"a b"\n","\n', {"quoting": "csv", "labelled": False}, ["a b", ","]),
        ("a.csv", 'a\n","\nb\n', {"delimiter": ",", "labelled": False}, ["a", ",", "b"]),
    ],
)
def test_quotes_are_words_elsewhere(
    tmp_path: Path, name: str, content: str, how: dict[str, Any], words: list[str] | None
) -> None:
    if words is None:
        with pytest.raises(
            BertwrightError, match=r":3: 3 columns where 2 .*see --delimiter; quotes are taken literally here"
        ):
            read(tmp_path / name, content, **how)
    else:
        assert read(tmp_path / name, content, **how)[0][1] == words


HEADED = "word\tpos\tNE tag\nParis\tNNP\tB-LOC\nis\tVBZ\tO\n\nBonn\tNNP\tB-LOC\n"


@pytest.mark.parametrize(
    ("how", "tags"),
    [
        ({"token": "word", "tag": "pos"}, ["NNP", "VBZ"]),
        ({"tag": "NE tag"}, ["B-LOC", "O"]),
        ({"token": "word"}, ["B-LOC", "O"]),
        ({"token": "word", "tag": "2"}, ["NNP", "VBZ"]),
        ({"token": "word", "tag": "pos", "labelled": False}, []),
        ({"tag": "pos", "labelled": False}, []),
    ],
)
def test_a_first_line_with_the_names_of_columns_is_their_header(
    tmp_path: Path, how: dict[str, Any], tags: list[str]
) -> None:
    path = tmp_path / "a.tsv"
    for before in ("", "\ufeff", "\n"):
        begin = 2 + (before == "\n")
        first, second = read(path, before + HEADED, **how)
        assert first == (f"{path}:{begin}", ["Paris", "is"], tags)
        assert second[:2] == (f"{path}:{begin + 3}", ["Bonn"])


def test_words_named_as_columns_are_words(tmp_path: Path) -> None:
    path = tmp_path / "a"
    assert read(path, "text\n\na\n", labelled=False)[0][1] == ["text"]
    assert read(path, "pos\na\n", labelled=False, tag="pos")[0][1] == ["pos", "a"]
    assert read(path, "Label word\n, punct\n")[0][1] == ["Label", ","]
    assert read(path, "Text NN O\n")[0][1] == ["Text"]
    assert read(path, "a X\n\nword pos\n")[1][1] == ["word"]
    assert read(path, "\nword pos\n")[0][1] == ["word"]


@pytest.mark.parametrize(
    ("content", "how", "message"),
    [
        (
            "word\tpos\na\tX\n",
            {},
            "'word', 'pos' look like a header; name the columns with --token-column word --tag-column pos (",
        ),
        (
            "Token NER\na O\n",
            {"labelled": False},
            "'Token', 'NER' look like a header; name the columns with --token-column Tok",
        ),
        (
            HEADED,
            {},
            "'word', 'pos', 'NE tag' look like a header; name the columns with --token-column word --tag-column 'NE tag'",
        ),
        (
            "Sentence #,Word,Tag\n1,a,O\n",
            {"delimiter": ","},
            "'Sentence #', 'Word', 'Tag' look like a header; name the colu",
        ),
        (
            HEADED,
            {"names": ("word", "p", "t")},
            "'word', 'pos', 'NE tag' look like a header; name the columns with --token-col",
        ),
        (
            HEADED,
            {"token": "word", "tag": "ps"},
            "--tag-column is 'ps'; use a number from 1 to 3, or one of word, pos, NE tag",
        ),
        (
            HEADED,
            {"tag": "ps"},
            "--tag-column is 'ps'; use a number from 1 to 3; names are given with --columns or by a header",
        ),
        ("word tag tag\na b O\n", {"tag": "tag"}, "the header has two columns 'tag'; give each its own name"),
        (
            '"a,O\n',
            {"delimiter": ",", "quoting": "csv"},
            "cannot read this row: unexpected end of data; a field in quotes ends",
        ),
        (
            '"a"b,O\n',
            {"delimiter": ",", "quoting": "csv"},
            "cannot read this row: ',' expected after '\"'; a field in quotes e",
        ),
    ],
)
def test_what_is_wrong_with_a_first_line_is_said(tmp_path: Path, content: str, how: dict[str, Any], message: str) -> None:
    with pytest.raises(BertwrightError) as caught:
        read(tmp_path / "a.txt", content, **how)
    assert str(caught.value).startswith(f"{tmp_path}/a.txt:1: {message}")
    assert ("without --columns" in str(caught.value)) == ("names" in how)


def test_a_blank_or_a_wide_space_may_be_a_word(tmp_path: Path) -> None:
    assert read(tmp_path / "a", "a\tO\n \tO\n")[0][1:] == (["a", " "], ["O", "O"])
    assert read(tmp_path / "a", "\u3000 O\n\u2028 O\n\x85 O\n")[0][1] == ["\u3000", "\u2028", "\x85"]


def test_what_is_no_part_of_a_word_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "weibo"
    content = "李0\tB-PER\n20\tO\nk10\tO\n"
    assert read(path, content, drop="(?<=.)[0-9]+$")[0][1] == ["李", "2", "k"]
    assert read(path, content, drop="[0-9]$")[0][1] == ["李", "2", "k1"]


def test_universal_dependencies(tmp_path: Path) -> None:
    rows = ["1-2\tIm\t_\t_", "1\tIn\tin\tADP", "2\tdem\tder\tDET", "2.1\tx\tx\tVERB", "3\tHaus\tHaus\tNOUN"]
    content = "# sent_id = 1\n# text = Im Haus\n" + "".join(row + "\t_" * 6 + "\n" for row in rows) + "\n"
    path = tmp_path / "de.conllu"
    expected = [(f"{path}:4", ["In", "dem", "Haus"], ["ADP", "DET", "NOUN"])]
    assert read(path, content) == expected
    assert read(path, content, tag="3")[0][2] == ["in", "der", "Haus"]


def test_without_labels_tags_are_not_looked_for(tmp_path: Path) -> None:
    path = tmp_path / "a"
    assert read(path, "a\nb\n\nc\n", labelled=False) == lines(path, [(1, ["a", "b"], []), (4, ["c"], [])])
    assert read(path, "a X\n", labelled=False, tag="7")[0][1] == ["a"]
    assert next(iter(read_tagged(path, TagColumns(labelled=False)))).tags is None


@pytest.mark.parametrize(
    ("content", "how", "message"),
    [
        ("", {}, "a.txt: the file has no sentences; is it the right one?"),
        ("\n\n-DOCSTART- O\n", {}, "a.txt: the file has no sentences; is it the right one?"),
        ("a O\nb\n", {}, "a.txt:2: 1 columns where 2 are expected, as in the lines before; they are separated by blanks, "),
        ("a\tO\nb O\n", {}, "a.txt:2: 1 columns where 2 are expected, as in the lines before; they are separated by '\\t'"),
        ("word\n", {}, "a.txt:1: column 1 of 1 would hold both words and tags; see --token-column, --tag-column and --del"),
        ("a O\n", {"tag": "3"}, "a.txt:1: --tag-column is '3'; use a number from 1 to 2; names are given with --columns"),
        ("a O\n", {"token": "0"}, "a.txt:1: --token-column is '0'; use a number from 1 to 2; names are given with --col"),
        ("a O\n", {"tag": "t", "names": ("w", "x")}, "a.txt:1: --tag-column is 't'; use a number from 1 to 2, or one of w"),
        ("a O\n", {"names": ("w",)}, "a.txt:1: 2 columns, but --columns names 1: give each its name"),
        ("a,O\n,O\n", {"delimiter": ","}, "a.txt:2: the word is missing; fill it in"),
        ("a,X,O\nb,,O\n", {"delimiter": ",", "tag": "2"}, "a.txt:2: the tag is missing; fill it in"),
        ("a O\n0 O\n", {"drop": "[0-9]$"}, "a.txt:2: --drop-from-token '[0-9]$' leaves nothing of the word '0'; one that"),
        ("a O\n", {"drop": "["}, "--drop-from-token: '[' is no regular expression: unterminated character set"),
        (b"a O\n\xff O\n", {}, "a.txt:2: byte 0xff at position 1 is not UTF-8; save the file as UTF-8"),
        (b"a O\nb\x00 O\n", {}, "a.txt:2: the line holds a NUL byte"),
        ("a O\n", {"delimiter": "ab"}, "--delimiter must be one character"),
    ],
)
def test_what_is_wrong_with_columns_is_said_in_a_line(
    tmp_path: Path, content: str | bytes, how: dict[str, Any], message: str
) -> None:
    with pytest.raises(BertwrightError) as caught:
        read(tmp_path / "a.txt", content, **how)
    assert str(caught.value).removeprefix(f"{tmp_path}/").startswith(message)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_one_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(BertwrightError, match="cannot be read: No such file"):
        list(read_tagged(tmp_path / "none.conll", TagColumns()))
    with pytest.raises(BertwrightError, match=r"none\.parquet: cannot be read"):
        list(read_tagged(tmp_path / "none.parquet", TagColumns()))


def test_what_has_no_effect_on_the_words_of_a_file_is_told(tmp_path: Path) -> None:
    with pytest.warns(BertwrightWarning, match="--delimiter has no effect on CoNLL-U, whose columns are separated by tabs"):
        read(tmp_path / "a.conllu", "1\ta\ta\tNOUN\n\n", delimiter=",")
    with pytest.warns(BertwrightWarning, match="--quoting csv has no effect on CoNLL-U, where a quote is a character like"):
        assert read(tmp_path / "a.conllu", '1\t"\t"\tPUNCT\n\n', quoting="csv")[0][1] == ['"']


def test_a_table_of_texts_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("sentence\tlabel\n" + "a good film\t1\nthe bad day\t0\n" * 8)
    with pytest.warns(BertwrightWarning, match=r"a\.tsv: 16 of 17 words hold blanks; if each line is a text with its label"):
        list(read_tagged(path, TagColumns()))


def test_line_ends_of_old_macs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.conll"
    path.write_bytes(b"EU B-ORG\rx O\r\rBonn B-LOC\r")
    with pytest.raises(BertwrightError, match=r"a\.conll:1: a carriage return stands inside the line; save the file with"):
        list(read_tagged(path, TagColumns()))


# ------------------------------------------------------------------------------------------------------------ real data


@pytest.mark.shared_data
def test_conll_2003_and_weibo_are_read_to_the_last_sentence(shared: Path) -> None:
    sizes = {
        name: len(list(read_tagged(shared / "ner" / "conll2003" / name, TagColumns())))
        for name in ("eng.testa", "eng.testb")
    }
    assert sizes == {"eng.testa": 3250, "eng.testb": 3453}
    known = KNOWN["weibo_ner"].reading["drop_from_token"]
    weibo = list(read_tagged(shared / "zh/ner_weibo/weiboNER_2nd_conll.dev", TagColumns(drop=known)))
    assert len(weibo) == 270
    assert weibo[0].text == "口腔溃疡加上这玩意～酸酸甜甜好滋味。"
    assert not any(word[-1].isdecimal() and len(word) > 1 for one in weibo for word in one.words)
