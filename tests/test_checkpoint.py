"""Weights in and out: names as transformers has them, damage told in one line, writing that is whole or not at all."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save, save_file
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForNextSentencePrediction,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    PreTrainedModel,
)

from bertwright import checkpoint, model
from bertwright.atomic import atomic_directory
from bertwright.checkpoint import (
    canonical,
    export_tensors,
    load_into,
    write_weights,
)
from bertwright.errors import BertwrightError, BertwrightWarning

TINY = {
    "vocab_size": 50,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 10,
}
ORACLES: dict[str, type[PreTrainedModel]] = {
    oracle.__name__: oracle
    for oracle in (
        BertModel,
        BertForSequenceClassification,
        BertForTokenClassification,
        BertForMultipleChoice,
        BertForQuestionAnswering,
        BertForMaskedLM,
        BertForNextSentencePrediction,
        BertForPreTraining,
    )
}
WORDS = "embeddings.word_embeddings.weight"
DECODER = "cls.predictions.decoder.weight"


class Plain(nn.Module):
    """A module of given weights, under their dotted names, with a tied decoder if it has a masked word head."""

    def __init__(self, tensors: Mapping[str, Tensor], *, tied: bool = False) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            self._put(name, nn.Parameter(torch.zeros_like(tensor)))
        if tied:
            self._put(DECODER, self.get_parameter(WORDS))

    def _put(self, name: str, parameter: nn.Parameter) -> None:
        *path, last = name.split(".")
        module: nn.Module = self
        for part in path:
            if part not in dict(module.named_children()):
                module.add_module(part, nn.Module())
            module = module.get_submodule(part)
        module.register_parameter(last, parameter)


def oracle(name: str, seed: int = 0, **changes: Any) -> PreTrainedModel:
    torch.manual_seed(seed)
    made = ORACLES[name](BertConfig(**{**TINY, **changes}))
    with torch.no_grad():
        for parameter in made.parameters():  # biases and norms too, so that no two weights are alike
            parameter.normal_()
    return made


def saved(made: PreTrainedModel, directory: Path, **options: Any) -> Path:
    made.save_pretrained(directory, **options)
    return directory


def names_of(made: PreTrainedModel) -> set[str]:
    """The canonical names of a transformers model, worked out from its parameters alone."""
    names = {name.removeprefix("bert.") for name, _ in made.named_parameters()}
    return {name.replace(f".self.{part}.", ".self.qkv.") for name in names for part in ("query", "key", "value")} - {
        name for name in names if ".self.query." in name or ".self.key." in name or ".self.value." in name
    }


@pytest.fixture(scope="module")
def classifier_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved BertForSequenceClassification; tests only read it."""
    return saved(oracle("BertForSequenceClassification"), tmp_path_factory.mktemp("classifier"))


@pytest.fixture
def broken(classifier_dir: Path, tmp_path: Path) -> Callable[[Mapping[str, Tensor | None]], Path]:
    """Make a model directory whose weights are the classifier's with some put in place or, for None, taken out."""

    def make(changes: Mapping[str, Tensor | None]) -> Path:
        tensors = {**load_file(classifier_dir / "model.safetensors"), **changes}
        (tmp_path / "config.json").write_bytes((classifier_dir / "config.json").read_bytes())
        save_file({k: v for k, v in tensors.items() if v is not None}, tmp_path / "model.safetensors")
        return tmp_path

    return make


def refused(source: str | Path, match: str) -> str:
    with pytest.raises(BertwrightError, match=match) as error:
        checkpoint.read(source)
    text = str(error.value)
    assert text.isprintable(), "one line"
    return text


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


# Reading


@pytest.mark.parametrize("name", ORACLES)
def test_reads_what_transformers_writes(name: str, tmp_path: Path) -> None:
    made = oracle(name)
    held = checkpoint.read(saved(made, tmp_path))
    assert (held.source, held.directory, held.config_path) == (str(tmp_path), tmp_path, tmp_path / "config.json")
    assert held.config["model_type"] == "bert"
    assert held.tensors.keys() == names_of(made)
    bert = made.base_model
    assert torch.equal(held.tensors[WORDS], bert.embeddings.word_embeddings.weight)
    for number, layer in enumerate(bert.encoder.layer):
        attention = layer.attention.self
        for kind in ("weight", "bias"):
            merged = held.tensors[f"encoder.layer.{number}.attention.self.qkv.{kind}"]
            parts = [getattr(part, kind) for part in (attention.query, attention.key, attention.value)]
            assert torch.equal(merged, torch.cat(parts))


@pytest.mark.parametrize("name", ["BertModel", "BertForPreTraining"])
def test_shards_are_the_same_as_the_whole(name: str, tmp_path: Path) -> None:
    made = oracle(name)
    whole = checkpoint.read(saved(made, tmp_path / "whole"))
    sharded = saved(made, tmp_path / "sharded", max_shard_size="2KB")
    assert len(list(sharded.glob("*.safetensors"))) > 2
    same(checkpoint.read(sharded).tensors, whole.tensors)
    same(checkpoint.read(sharded / "model.safetensors.index.json").tensors, whole.tensors)


def test_minilm(minilm_dir: Path) -> None:
    held = checkpoint.read("minilm")
    assert (held.source, held.directory) == ("minilm", minilm_dir)
    module = model.Bert(model.BertConfig.from_dict(held.config, str(held.config_path)))
    report = load_into(module, held.tensors, where="minilm")
    assert (report.new, report.left) == ((), ())
    assert report.describe() == "every weight loaded"
    file = load_file(minilm_dir / "model.safetensors")
    layer = "encoder.layer.3.attention.self."
    assert torch.equal(module.state_dict()[f"{layer}qkv.weight"][384:768], file[f"{layer}key.weight"])
    exported = export_tensors(module, prefix="")
    assert exported.keys() == file.keys() - {"embeddings.position_ids"}
    assert all(torch.equal(exported[name], file[name]) for name in exported)


def test_old_names_buffers_and_stored_ties() -> None:
    state = oracle("BertForPreTraining").state_dict()
    want = canonical({name: tensor for name, tensor in state.items() if "decoder" not in name}, where="here")
    old = {}
    for name, tensor in state.items():
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        old[name] = tensor.clone()
    assert sum(name.endswith((".gamma", ".beta")) for name in old) == 12
    assert old.keys() >= {DECODER, "cls.predictions.decoder.bias", "cls.predictions.bias"}
    old["bert.embeddings.position_ids"] = torch.arange(10)[None]
    same(canonical(old, where="here"), want)
    del old["cls.predictions.bias"]
    same(canonical(old, where="here"), want)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_become_float32(classifier_dir: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    whole = load_file(classifier_dir / "model.safetensors")
    save_file({name: tensor.to(dtype) for name, tensor in whole.items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    tensors = checkpoint.read(tmp_path).tensors
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert torch.equal(tensors["classifier.weight"], whole["classifier.weight"].to(dtype).float())


@given(st.permutations(range(6)))
def test_canonical_names_stay(order: list[int]) -> None:
    """Applied twice, or to weights in any order, `canonical` gives the same."""
    attention = "encoder.layer.0.attention.self"
    names = ["bert.embeddings.LayerNorm.gamma", "cls.predictions.bias", "classifier.weight"]
    names += [f"{attention}.{part}.bias" for part in ("query", "key", "value")]
    tensors = {names[i]: torch.full((2,), float(i)) for i in order}
    once = canonical(tensors, where="here")
    same(canonical(once, where="here"), once)
    assert once[f"{attention}.qkv.bias"].tolist() == [3, 3, 4, 4, 5, 5]
    assert once.keys() == {"embeddings.LayerNorm.weight", f"{attention}.qkv.bias", *names[1:3]}


# Damage


def test_no_config(classifier_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes((classifier_dir / "model.safetensors").read_bytes())
    assert str(tmp_path / "config.json") in refused(tmp_path, "No such file or directory; a model directory needs")


@pytest.mark.parametrize("text", [b"", b"{", b"nonsense", b"\xff\xfe", b"[" * 100_000, b'{"a": 1' + b"0" * 5000])
def test_config_that_is_no_json(broken: Callable[..., Path], text: bytes) -> None:
    directory = broken({})
    (directory / "config.json").write_bytes(text)
    assert str(directory / "config.json") in refused(directory, "not JSON")


@pytest.mark.parametrize(("text", "kind"), [("[]", "list"), ("3", "int"), ("null", "NoneType"), ('"a"', "str")])
def test_config_that_is_no_object(broken: Callable[..., Path], text: str, kind: str) -> None:
    directory = broken({})
    (directory / "config.json").write_text(text)
    refused(directory, f"holds a JSON {kind} where an object belongs")


def test_no_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    refused(tmp_path, "no weights: neither model.safetensors nor model.safetensors.index.json")
    (tmp_path / "adapter.safetensors").touch()
    refused(tmp_path, r"no model\.safetensors; if adapter\.safetensors is the model, name that file")


def test_pickle_is_read_only_by_name(classifier_dir: Path, tmp_path: Path) -> None:
    state = oracle("BertForSequenceClassification").state_dict()
    (tmp_path / "config.json").write_text("{}")
    path = tmp_path / "pytorch_model.bin"
    torch.save(state, path)
    assert f"name {path} to have its tensors" in refused(tmp_path, "only pickled weights, which can hold code: convert")
    same(checkpoint.read(path).tensors, checkpoint.read(classifier_dir).tensors)
    # Before torch 1.6 a state dict was a bare pickle and not a zip archive.
    torch.save(state, path, _use_new_zipfile_serialization=False)
    same(checkpoint.read(path).tensors, checkpoint.read(classifier_dir).tensors)


def test_pickled_shards_cannot_be_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    shard = tmp_path / "pytorch_model-00001-of-00002.bin"
    torch.save({}, shard)
    assert "or name" not in refused(tmp_path, "only pickled weights")
    refused(shard, "one shard of several; name the directory")


class _Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


def test_code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    for name, write in (("a.bin", torch.save), ("b.bin", lambda o, p: p.write_bytes(pickle.dumps(o)))):
        write({"weight": _Bomb(tmp_path / "ran")}, tmp_path / name)
        refused(tmp_path / name, "more than tensors in it, and nothing else is unpickled")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("held", [[torch.ones(1)], {"model": {"a": torch.ones(1)}}, {3: torch.ones(1)}, torch.ones(1)])
def test_pickle_that_is_no_state_dict(tmp_path: Path, held: object) -> None:
    (tmp_path / "config.json").write_text("{}")
    torch.save(held, tmp_path / "a.pt")
    refused(tmp_path / "a.pt", "not a state dict")


def test_files_that_are_no_weights(broken: Callable[..., Path]) -> None:
    directory = broken({})
    refused(directory / "config.json", "not a weights file")
    shard = directory / "model-00001-of-00003.safetensors"
    shard.touch()
    refused(shard, "one shard of several; name the directory")


def test_git_lfs_pointer(broken: Callable[..., Path]) -> None:
    directory = broken({})
    (directory / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    refused(directory, "a git-lfs pointer, not the weights; run `git lfs pull`")


@settings(max_examples=60)
@given(data=st.data())
def test_truncated_or_altered_files_end_in_one_line(
    classifier_dir: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole = (classifier_dir / "model.safetensors").read_bytes()
    directory = tmp_path_factory.getbasetemp() / "altered"
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text("{}")
    cut = data.draw(st.integers(0, len(whole) - 1))
    (directory / "model.safetensors").write_bytes(whole[:cut])
    refused(directory, "cut short or not safetensors")
    header = 8 + int.from_bytes(whole[:8], "little")
    altered = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        altered[data.draw(st.integers(0, header - 1))] = data.draw(st.integers(0, 255))
    (directory / "model.safetensors").write_bytes(altered)
    try:
        tensors = checkpoint.read(directory).tensors
    except BertwrightError as error:
        text = str(error)
        assert text.isprintable()
        assert str(directory) in text
    else:
        assert all(tensor.dtype == torch.float32 for tensor in tensors.values())


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    return saved(oracle("BertModel"), tmp_path / "sharded", max_shard_size="2KB")


def edit_index(directory: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    path = directory / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    edit(index)
    path.write_text(json.dumps(index))


def test_missing_shard(sharded: Path) -> None:
    shard = sorted(sharded.glob("*.safetensors"))[1]
    shard.unlink()
    assert str(shard) in refused(sharded, "no such file; fetch the model again")


def test_tensor_missing_from_its_shard(sharded: Path) -> None:
    edit_index(sharded, lambda index: index["weight_map"].update({"pooler.x": "model-00001-of-00004.safetensors"}))
    refused(sharded, r"model-00001-of-0000\d.safetensors: lacks 'pooler.x', which .* says it holds")


def test_tensor_that_the_index_does_not_list(sharded: Path) -> None:
    edit_index(sharded, lambda index: index["weight_map"].pop("pooler.dense.bias"))
    refused(sharded, "holds 'pooler.dense.bias', which model.safetensors.index.json does not list")


@pytest.mark.parametrize("index", ["{}", '{"weight_map": []}', '{"weight_map": {"a": 3}}', '{"weight_map": {"a": null}}'])
def test_index_without_a_map(sharded: Path, index: str) -> None:
    (sharded / "model.safetensors.index.json").write_text(index)
    refused(sharded, "has no 'weight_map'")


def test_index_must_not_lead_elsewhere(sharded: Path) -> None:
    shard = sorted(sharded.glob("*.safetensors"))[0]
    outside = sharded.parent / "outside.safetensors"
    shard.rename(outside)
    shard.symlink_to(outside)
    refused(sharded, "a link that leads out of")
    for place in ("../outside.safetensors", str(outside)):
        edit_index(sharded, lambda index, place=place: index.update(weight_map={"a": place}))  # type: ignore[misc]
        refused(sharded, "no plain file name beside it; refused")


def test_whole_and_sharded_at_once(sharded: Path) -> None:
    whole = saved(oracle("BertModel", seed=1), sharded.parent / "whole")
    (whole / "model.safetensors").rename(sharded / "model.safetensors")
    with pytest.warns(BertwrightWarning, match="the former is read"):
        tensors = checkpoint.read(sharded).tensors
    assert torch.equal(tensors[WORDS], oracle("BertModel", seed=1).embeddings.word_embeddings.weight)


@pytest.mark.parametrize("part", ["query", "key", "value"])
@pytest.mark.parametrize("kind", ["weight", "bias"])
def test_query_key_and_value_belong_together(broken: Callable[..., Path], part: str, kind: str) -> None:
    text = refused(broken({f"bert.encoder.layer.1.attention.self.{part}.{kind}": None}), f"{part} missing")
    assert f"encoder.layer.1.attention.self.qkv.{kind}" in text


@pytest.mark.parametrize("shape", [(8, 7), (7, 8), (8,), ()])
def test_query_key_and_value_of_unlike_shapes(broken: Callable[..., Path], shape: tuple[int, ...]) -> None:
    refused(broken({"bert.encoder.layer.0.attention.self.key.weight": torch.zeros(shape)}), "have the shapes")


def test_one_weight_under_two_names(broken: Callable[..., Path]) -> None:
    refused(broken({WORDS: torch.zeros(50, 8)}), f"holds '{WORDS}' twice")
    refused(broken({"encoder.layer.0.attention.self.qkv.bias": torch.zeros(24)}), r"qkv.bias' twice, once as query")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite(broken: Callable[..., Path], value: float) -> None:
    bad = torch.zeros(8, 8)
    bad[2, 3] = bad[5, 6] = value
    name = "bert.encoder.layer.1.attention.self.key.weight"
    text = refused(broken({name: bad, "classifier.bias": torch.tensor([1, value])}), "first of 2 tensors with 3 values")
    assert "model.safetensors" in text
    refused(broken({name: bad}), f"'{name}' is the first of 1 tensors with 2 values")


def test_huge_values_are_finite(broken: Callable[..., Path]) -> None:
    huge = torch.tensor([3e38, 3e38])
    assert huge.sum().isinf()
    assert torch.equal(checkpoint.read(broken({"classifier.bias": huge})).tensors["classifier.bias"], huge)


def test_float64_too_large_for_float32(broken: Callable[..., Path]) -> None:
    refused(broken({"classifier.bias": torch.tensor([1e300, 0], dtype=torch.float64)}), "NaN or infinite")


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool, torch.float8_e4m3fn])
def test_weights_that_are_no_plain_floats(broken: Callable[..., Path], dtype: torch.dtype) -> None:
    name = "bert.pooler.dense.weight"
    assert f"'{name}'" in refused(broken({name: torch.zeros(8, 8).to(dtype)}), f"is a {dtype} tensor, not plain")


def test_names_cannot_break_the_line(broken: Callable[..., Path]) -> None:
    refused(broken({"evil\n\x1b[31mname": torch.zeros(2, dtype=torch.int32)}), "not plain floating point")
    report = checkpoint.LoadReport(new=(), left=("evil\n\x1b[31m.name",))
    assert report.describe().isprintable()


# Into a module


def project_model(name: str, **changes: Any) -> nn.Module:
    config = model.BertConfig.from_dict({**TINY, **changes}, where="here")
    return (
        model.Bert(config)
        if name == "BertModel"
        else (model.Pretraining(config) if name == "BertForPreTraining" else model.SequenceClassifier(config, classes=2))
    )


@pytest.mark.parametrize("name", ["BertModel", "BertForSequenceClassification", "BertForPreTraining"])
def test_into_the_model_and_out_again(name: str, tmp_path: Path) -> None:
    made = oracle(name)
    held = checkpoint.read(saved(made, tmp_path / "in"))
    module = project_model(name)
    report = load_into(module, held.tensors, where="here")
    assert (report.new, report.left) == ((), ())
    same({k: v for k, v in module.state_dict().items() if k != DECODER}, held.tensors)
    exported = export_tensors(module, prefix="" if name == "BertModel" else "bert.")
    same(exported, load_file(tmp_path / "in" / "model.safetensors"))
    with atomic_directory(tmp_path / "out", overwrite=False) as directory:
        write_weights(directory, exported)
        made.config.save_pretrained(directory)
    again, info = ORACLES[name].from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    same(dict(again.named_parameters()), dict(made.named_parameters()))


@pytest.mark.parametrize("name", ORACLES)
@pytest.mark.parametrize("tied", [False, True])
def test_every_head_out_again(name: str, tied: bool, tmp_path: Path) -> None:
    """By name alone, for heads of any module: written weights have the keys that transformers writes, and reads."""
    made = oracle(name)
    held = checkpoint.read(saved(made, tmp_path / "in"))
    module = Plain(held.tensors, tied=tied and "cls.predictions.bias" in held.tensors)
    assert load_into(module, held.tensors, where="here") == checkpoint.LoadReport((), ())
    exported = export_tensors(module, prefix="" if name == "BertModel" else "bert.")
    same(exported, load_file(tmp_path / "in" / "model.safetensors"))
    assert all(tensor.is_contiguous() and not tensor.requires_grad for tensor in exported.values())
    (tmp_path / "out").mkdir()
    write_weights(tmp_path / "out", exported, shard_bytes=2000)
    made.config.save_pretrained(tmp_path / "out")
    again, info = ORACLES[name].from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    same(dict(again.named_parameters()), dict(made.named_parameters()))


def test_written_shards_are_those_of_transformers(tmp_path: Path) -> None:
    made = oracle("BertForSequenceClassification")
    theirs = saved(made, tmp_path / "theirs", max_shard_size="2KB")
    module = project_model("BertForSequenceClassification")
    load_into(module, checkpoint.read(theirs).tensors, where="here")
    (tmp_path / "ours").mkdir()
    write_weights(tmp_path / "ours", export_tensors(module, prefix="bert."), shard_bytes=2000)
    want = json.loads((theirs / "model.safetensors.index.json").read_text())
    got = json.loads((tmp_path / "ours" / "model.safetensors.index.json").read_text())
    assert got["metadata"] == want["metadata"]
    assert got["weight_map"].keys() == want["weight_map"].keys()
    for shard in set(got["weight_map"].values()):
        tensors = load_file(tmp_path / "ours" / shard)
        assert sum(tensor.nbytes for tensor in tensors.values()) <= 2000 or len(tensors) == 1
        assert tensors.keys() == {name for name, file in got["weight_map"].items() if file == shard}


def test_written_file_says_it_is_pytorch(tmp_path: Path) -> None:
    write_weights(tmp_path, {"a": torch.ones(2)})
    assert b'"__metadata__":{"format":"pt"}' in (tmp_path / "model.safetensors").read_bytes()


def test_head_is_new_and_old_head_is_left(tmp_path: Path) -> None:
    held = checkpoint.read(saved(oracle("BertForMaskedLM"), tmp_path))
    module = project_model("BertForSequenceClassification")
    fresh = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    report = load_into(module, held.tensors, where="here")
    assert set(report.new) == {"pooler.dense.weight", "pooler.dense.bias", "classifier.weight", "classifier.bias"}
    assert set(report.left) == {name for name in held.tensors if name.startswith("cls.")}
    assert report.describe() == (
        "freshly initialised: pooler (2 tensors), classifier (2 tensors); in the checkpoint but not used: cls (5 tensors)"
    )
    for name in report.new:
        assert torch.equal(module.state_dict()[name], fresh[name])


def test_loading_shares_no_storage(classifier_dir: Path) -> None:
    held = checkpoint.read(classifier_dir)
    module = project_model("BertForSequenceClassification")
    load_into(module, held.tensors, where="here")
    theirs = {tensor.untyped_storage().data_ptr() for tensor in held.tensors.values()}
    assert theirs.isdisjoint(p.untyped_storage().data_ptr() for p in module.parameters())
    before = {name: tensor.clone() for name, tensor in held.tensors.items()}
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    same(held.tensors, before)
    assert all(p.requires_grad for p in module.parameters())


def test_export_is_a_copy() -> None:
    module = project_model("BertForSequenceClassification")
    exported = export_tensors(module, prefix="bert.")
    before = {name: tensor.clone() for name, tensor in exported.items()}
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(7)
    same(exported, before)


def test_loading_into_half_precision(classifier_dir: Path) -> None:
    held = checkpoint.read(classifier_dir)
    module = project_model("BertForSequenceClassification").to(torch.bfloat16)
    load_into(module, held.tensors, where="here")
    same(module.state_dict(), {name: tensor.to(torch.bfloat16) for name, tensor in held.tensors.items()})


@pytest.mark.parametrize(
    ("changes", "name", "cause"),
    [
        ({"vocab_size": 51}, WORDS, "vocab_size of config.json, or the vocabulary"),
        ({"max_position_embeddings": 9}, "embeddings.position_embeddings.weight", "max_position_embeddings"),
        ({"type_vocab_size": 3}, "embeddings.token_type_embeddings.weight", "type_vocab_size"),
        ({"intermediate_size": 16}, "encoder.layer.0.intermediate.dense.weight", "config.json is of another model"),
    ],
)
def test_shape_mismatch(classifier_dir: Path, changes: dict[str, int], name: str, cause: str) -> None:
    held = checkpoint.read(classifier_dir)
    module = project_model("BertForSequenceClassification", **changes)
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    with pytest.raises(BertwrightError) as error:
        load_into(module, held.tensors, where="runs/x")
    text = str(error.value)
    shapes = [str(tuple(tensors[name].shape)) for tensors in (held.tensors, before)]
    assert text.startswith("runs/x: ")
    assert all(part in text for part in (repr(name), *shapes, cause))
    same(module.state_dict(), before)


def test_another_number_of_labels(classifier_dir: Path) -> None:
    module = model.SequenceClassifier(model.BertConfig.from_dict(TINY, where="here"), classes=5)
    with pytest.raises(BertwrightError, match=r"\(2, 8\), but the model needs \(5, 8\): .* another number of labels"):
        load_into(module, checkpoint.read(classifier_dir).tensors, where="here")


def test_not_a_bert() -> None:
    module = project_model("BertModel")
    for tensors in ({}, {"transformer.h.0.attn.weight": torch.zeros(2)}, {WORDS: torch.zeros(50, 8)}):
        with pytest.raises(BertwrightError, match="no BERT checkpoint"):
            load_into(module, tensors, where="here")


def test_fewer_layers_than_the_model_are_told(classifier_dir: Path) -> None:
    held = checkpoint.read(classifier_dir)
    module = project_model("BertForSequenceClassification", num_hidden_layers=3)
    with pytest.warns(BertwrightWarning, match=r"lacks 12 weights of the encoder.* encoder\.layer\.2\."):
        report = load_into(module, held.tensors, where="here")
    assert all(name.startswith("encoder.layer.2.") for name in report.new)
    shallow = project_model("BertForSequenceClassification", num_hidden_layers=1)
    report = load_into(shallow, held.tensors, where="here")
    assert report.new == ()
    assert all(name.startswith("encoder.layer.1.") for name in report.left)


def test_untied_decoder_is_refused_where_it_matters(tmp_path: Path) -> None:
    held = checkpoint.read(saved(oracle("BertForPreTraining", tie_word_embeddings=False), tmp_path))
    assert DECODER in held.tensors
    with pytest.raises(BertwrightError, match="BERT ties them: cannot be loaded"):
        load_into(project_model("BertForPreTraining"), held.tensors, where="here")
    report = load_into(project_model("BertForSequenceClassification"), held.tensors, where="here")
    assert {DECODER, "cls.predictions.decoder.bias"} <= set(report.left)
    tied = {k: v for k, v in held.tensors.items() if k != DECODER}
    with pytest.raises(BertwrightError, match=r"'cls.predictions.decoder.bias' is not 'cls.predictions.bias'"):
        load_into(project_model("BertForPreTraining"), tied, where="here")
    tied["cls.predictions.bias"] = tied["cls.predictions.decoder.bias"].clone()
    load_into(project_model("BertForPreTraining"), tied | {DECODER: tied[WORDS].clone()}, where="here")


def test_unknown_safetensors_errors_are_not_hidden(tmp_path: Path) -> None:
    shared = torch.zeros(4)
    with pytest.raises(RuntimeError, match="share memory"):
        write_weights(tmp_path, {"a": shared, "b": shared})
    assert save({"a": shared})  # the same tensor once is fine
