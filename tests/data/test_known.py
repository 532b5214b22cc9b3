"""The known data sets: that the table makes sense, and that directories are recognised by what they hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bertwright.data.catalog import KNOWN
from bertwright.data.hub_rows import HubSource
from bertwright.data.known import known_name, locate, offline_remedy
from bertwright.errors import BertwrightError
from bertwright.tasks import TASKS, task_class
from bertwright.training.recipe import Recipe

HEADERS = {
    "sst2": "sentence\tlabel",
    "mrpc": "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String",
    "qqp": "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
    "qnli": "index\tquestion\tsentence\tlabel",
    "rte": "index\tsentence1\tsentence2\tlabel",
    "wnli": "index\tsentence1\tsentence2\tlabel",
}
ROWS = {
    "cola": "gj04\t1\t\tA sentence.",
    "sst2": "fine \t1",
    "mrpc": "1\t2\t3\tone\tother",
    "qqp": "1\t2\t3\tone\tother\t0",
    "qnli": "0\twhat?\tthat\tentailment",
    "rte": "0\tone\tother\tnot_entailment",
    "wnli": "0\tone\tother\t1",
}
FOLDERS = {"cola": "CoLA", "sst2": "SST-2", "mrpc": "MRPC", "qqp": "QQP", "qnli": "QNLI", "rte": "RTE", "wnli": "WNLI"}


def put(folder: Path, name: str, *lines: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return folder / name


def glue(root: Path, name: str) -> Path:
    folder = root / FOLDERS[name]
    for file in ("train.tsv", "dev.tsv"):
        put(folder, file, *([HEADERS[name]] if name in HEADERS else []), ROWS[name])
    return folder


# ------------------------------------------------------------------------------------------------------------ the table


@pytest.mark.parametrize("name", KNOWN)
def test_an_entry_makes_a_recipe_that_says_where_the_rows_are(name: str) -> None:
    known = KNOWN[name]
    assert known.source
    assert known.rows[0] > known.rows[1] / 2 > 0
    assert known.hub is not None or known.layouts
    if known.task not in TASKS:
        pytest.skip(f"the task {known.task} is not among those of this version")
    located = locate(name, None)
    recipe = Recipe.of(located.settings, located.reading)
    assert (recipe.dataset, recipe.task, recipe.data) == (name, known.task, None)
    for source in (recipe.train, *recipe.test_sets().values()):
        assert source is not None
        assert HubSource.parse(source).split
    if "metric" in known.settings:
        assert known.settings["metric"] in task_class(known.task).METRICS
    assert not set(known.settings) & set(located.reading)
    for layout in known.layouts:
        Recipe.of(known.settings, known.reading, layout.reading)
        assert len(set(layout.parts.all())) == len(layout.parts.all())
    names = recipe.names_of_labels()
    assert len(set(names.values())) == len(names)


def test_what_the_issue_names_is_there() -> None:
    assert {"cola", "rte", "sst2", "stsb", "mrpc", "qqp", "mnli", "qnli", "wnli"} <= set(KNOWN)
    assert {"squad", "squad_v2", "swag", "conll2003"} <= set(KNOWN)


@pytest.mark.parametrize(
    ("given", "name"), [("SST-2", "sst2"), ("squad-v2", "squad_v2"), ("CoLA", "cola"), ("STS-B", "stsb")]
)
def test_names_are_taken_as_people_write_them(given: str, name: str) -> None:
    assert known_name(given) == name


def test_an_unknown_name_is_refused_with_a_remedy() -> None:
    with pytest.raises(BertwrightError, match=r"'rtt' is no known data set; did you mean 'rte'\? \(known: cola, "):
        known_name("rtt")
    with pytest.raises(BertwrightError, match=r"'mine\.tsv' is no known data set; a file of your own goes to --train"):
        known_name("mine.tsv")


# ---------------------------------------------------------------------------------------------------------- directories


@pytest.mark.parametrize("name", FOLDERS)
def test_the_layout_of_glue_is_recognised_inside_and_from_above(name: str, tmp_path: Path) -> None:
    folder = glue(tmp_path, name)
    for given in (folder, tmp_path):
        reading = locate(name, given).reading
        assert (reading["train"], reading["test"]) == (str(folder / "train.tsv"), str(folder / "dev.tsv"))
        assert reading["validation"] is None
        assert reading["quoting"] == "literal"


@pytest.mark.parametrize("name", FOLDERS)
def test_files_of_another_data_set_are_not_taken_for_its_own(name: str, tmp_path: Path) -> None:
    for other in FOLDERS:
        if {name, other} in ({other}, {"rte", "wnli"}):  # the same columns; RTE's labels are WNLI's too
            continue
        with pytest.raises(BertwrightError, match=f"train.tsv is not of {name}: "):
            locate(name, glue(tmp_path, other))


def test_mnli_has_two_test_sets(tmp_path: Path) -> None:
    header = "index\tsentence1\tsentence2\tgold_label"
    for file in ("train", "dev_matched", "dev_mismatched"):
        put(tmp_path, f"{file}.tsv", header, "0\ta\tb\tneutral")
    located = locate("mnli", tmp_path)
    recipe = Recipe.of(located.reading)
    assert recipe.test_sets() == {
        "test": str(tmp_path / "dev_matched.tsv"),
        "test-mismatched": str(tmp_path / "dev_mismatched.tsv"),
    }
    assert Recipe.of(locate("mnli", None).reading).test_sets() == {
        "test": "hub:nyu-mll/glue:mnli:validation_matched",
        "test-mismatched": "hub:nyu-mll/glue:mnli:validation_mismatched",
    }


def test_a_download_of_the_hubs_repository_is_recognised(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="needs the parquet extra (pyarrow)")
    import pyarrow.parquet as writer

    table = pyarrow.table({"sentence1": ["a"], "sentence2": ["b"], "label": [1], "idx": [0]})
    for name in ("rte/train-00000-of-00001.parquet", "rte/validation-00000-of-00001-0a1b.parquet"):
        (tmp_path / "rte").mkdir(exist_ok=True)
        writer.write_table(table, tmp_path / name)
    reading = locate("rte", tmp_path).reading
    assert Path(reading["train"]).name == "train-00000-of-00001.parquet"
    assert Path(reading["test"]).name == "validation-00000-of-00001-0a1b.parquet"
    with pytest.raises(BertwrightError, match=r"is not of sst2: .*no column 'sentence'"):
        locate("sst2", tmp_path / "rte")
    (tmp_path / "rte" / "train-00000-of-00001.parquet").rename(tmp_path / "rte" / "train-00000-of-00002.parquet")
    with pytest.raises(BertwrightError, match="is missing; expected: "):  # a part of the rows is not the rows
        locate("rte", tmp_path)


@pytest.mark.parametrize("folder", ["data", "default", "."])
def test_names_of_classes_come_with_the_hubs_parquet(tmp_path: Path, folder: str) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="needs the parquet extra (pyarrow)")
    import pyarrow.parquet as writer

    feature = {"names": ["O", "B-PER", "I-PER"], "_type": "ClassLabel"}
    notations = ({"feature": feature, "_type": "List"}, {"feature": feature, "_type": "Sequence"}, [feature])
    for number, tags in enumerate(notations):
        table = pyarrow.table({"id": ["0"], "tokens": [["Ann", "Lee", "left"]], "ner_tags": [[1, 2, 0]]})
        noted = {"huggingface": json.dumps({"info": {"features": {"id": {"_type": "Value"}, "ner_tags": tags}}})}
        for split in ("train", "validation", "test"):
            place = tmp_path / str(number) / folder / f"{split}-00000-of-00001.parquet"
            place.parent.mkdir(parents=True, exist_ok=True)
            writer.write_table(table.replace_schema_metadata(noted), place)
        reading = Recipe.of(locate("conll2003", tmp_path / str(number)).reading)
        (example,) = task_class("tagging").read(Path(str(reading.train)), reading, labelled=True)
        assert list(example.answer) == ["B-PER", "I-PER", "O"]


def test_the_hubs_copy_of_a_script_is_taken_where_there_is_no_other(tmp_path: Path) -> None:
    assert locate("weibo_ner", None).reading["train"] == "hub:hltcoe/weibo_ner@refs/convert/parquet::train"
    for split in ("train", "validation", "test"):
        (tmp_path / "default" / split).mkdir(parents=True)
        (tmp_path / "default" / split / "0000.parquet").touch()
    assert locate("weibo_ner", tmp_path).reading["test"] == str(tmp_path / "default" / "test" / "0000.parquet")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    expected = r"expected: train.tsv and dev.tsv \(there or in RTE\), or the Parquet files of the hub's nyu-mll/glue"
    with pytest.raises(BertwrightError, match=f"holds no files of rte; {expected}$"):
        locate("rte", tmp_path)
    put(tmp_path / "RTE", "train.tsv", HEADERS["rte"], ROWS["rte"])
    with pytest.raises(BertwrightError, match=f"RTE: dev.tsv of rte is missing; {expected}$"):
        locate("rte", tmp_path)
    with pytest.raises(BertwrightError, match=r"glue\.zip: no such directory; --data takes the directory of rte's files"):
        locate("rte", tmp_path / "glue.zip")
    with pytest.raises(BertwrightError, match=r"train\.tsv: a file; --data takes the directory"):
        locate("rte", tmp_path / "RTE" / "train.tsv")
    assert offline_remedy("rte").endswith(
        "train.tsv and dev.tsv (there or in RTE), or the Parquet files of the hub's nyu-mll/glue"
    )


def test_of_two_files_that_fit_a_pattern_none_is_guessed(tmp_path: Path) -> None:
    for name in ("train-v1.1.json", "train-v1.1-part.json", "dev-v1.1.json"):
        put(tmp_path, name, "{}")
    with pytest.raises(BertwrightError, match=r"train-v1.1-part.json, train-v1.1.json all could be train-v1.1\*.json"):
        locate("squad", tmp_path)


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("name", "folder", "train", "test"),
    [
        ("cola", "cola", "raw/in_domain_train.tsv", "raw/out_of_domain_dev.tsv"),
        ("cola", "cola/tokenized", "in_domain_train.tsv", "out_of_domain_dev.tsv"),
        ("rte", "glue", "RTE/train.tsv", "RTE/dev.tsv"),
        ("sst2", "glue/SST-2", "train.tsv", "dev.tsv"),
        ("stsb", "glue", "STS-B/train.tsv", "STS-B/dev.tsv"),
        ("banking77", "textclass", "banking77/train.csv", "banking77/test.csv"),
        ("chnsenticorp", "zh", "chnsenticorp/train.tsv", "chnsenticorp/test.tsv"),
        ("conll2003", "ner", "conll2003/eng.train", "conll2003/eng.testb"),
        ("weibo_ner", "zh", "ner_weibo/weiboNER_2nd_conll.train", "ner_weibo/weiboNER_2nd_conll.test"),
        ("squad", ".", "squad/train-v1.1-partial.json", "squad/dev-v1.1.json"),
        ("squad_v2", "squad", "v2.0-sample-train.json", "v2.0-sample-dev.json"),
        ("swag", "choice", "swag-sample.jsonl", None),
        ("codah", "choice", "codah/train.tsv", "codah/test.tsv"),
    ],
)
def test_published_directories_are_recognised(shared: Path, name: str, folder: str, train: str, test: str | None) -> None:
    reading: dict[str, Any] = locate(name, shared / folder).reading
    assert Path(reading["train"]) == shared / folder / train
    assert reading["test"] == (None if test is None else str(shared / folder / test))
