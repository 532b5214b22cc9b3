"""Model directories: read weights from them, put them into a module, and write them so that `transformers` opens them.

Inside this project a weight has one name, whatever wrote it: that of `transformers`' BertModel, but for the last two of
these differences from what files hold.

    in files                                          here
    bert.embeddings.*, bert.encoder.*, bert.pooler.*  the same without "bert."
    *.LayerNorm.gamma, *.LayerNorm.beta               *.LayerNorm.weight, *.LayerNorm.bias
    *.attention.self.{query,key,value}.*              *.attention.self.qkv.*, rows of query, then key, then value
    cls.predictions.decoder.{weight,bias}             left out: embeddings.word_embeddings.weight, cls.predictions.bias

Files are untrusted: whatever they hold ends in tensors or in a `BertwrightError` that names the file.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from bertwright.errors import BertwrightError, tell
from bertwright.hub import ALIASES, resolve, shard_file, weights_file
from bertwright.model_files import PICKLE_SUFFIXES, WEIGHTS_INDEX, WHOLE_WEIGHTS

__all__ = [
    "ALIASES",
    "TASK_HEADS",
    "Checkpoint",
    "LoadReport",
    "canonical",
    "export_tensors",
    "load_into",
    "read",
    "resolve",
    "write_weights",
]

_WORDS = "embeddings.word_embeddings.weight"
_DECODER = "cls.predictions.decoder.weight"
_DECODER_BIAS = "cls.predictions.decoder.bias"
_TIED = {_DECODER: _WORDS, _DECODER_BIAS: "cls.predictions.bias"}
_ENCODER_PARTS = ("embeddings.", "encoder.", "pooler.")
TASK_HEADS = ("classifier.", "qa_outputs.", "head.")  # what a fine-tuned model has above its pooler
_BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")
_QKV = ("query", "key", "value")
_QKV_PART = re.compile(r"(encoder\.layer\.\d+\.attention\.self\.)(query|key|value)(\.weight|\.bias)")
_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


@dataclass(frozen=True)
class Checkpoint:
    """What a model directory holds: its configuration as written, and its weights in float32 by canonical name."""

    source: str
    directory: Path
    config: dict[str, Any]
    tensors: dict[str, Tensor]
    config_path: Path

    @property
    def commit(self) -> str | None:
        """The commit of the hub's repository that this is of; None for what did not come from there."""
        return self.directory.name if self.directory.parent.name == "snapshots" else None


def read(source: str | Path, *, revision: str | None = None) -> Checkpoint:
    """Read the configuration and the weights of a model.

    Safetensors, whole or in shards, are mapped into memory. A pickle is read only if its file is named, and then by
    `torch.load(weights_only=True)`, which builds tensors and runs none of the pickle's code.

    Args:
        source: What `bertwright.hub.resolve` takes: an alias, a directory, a weights file or a hub id.
        revision: Branch, tag or commit, for a hub id.

    Returns:
        The checkpoint, its tensors on the CPU; they may be views of the mapped file, so copy before writing to them.

    Raises:
        BertwrightError: No config.json or no weights there, or a file that is cut short, damaged, inconsistent with
            its index, or holds weights that are not finite floating point numbers.
    """
    path = resolve(source, revision=revision)
    directory = path if path.is_dir() else path.parent
    config_path = directory / "config.json"
    if path.is_file() and not config_path.exists():
        weights_file(path)  # what is no file of weights is told as that
    config = _json_object(config_path, missing="a model directory needs the config.json that its weights came with")
    weights = weights_file(path)
    if weights.name.endswith(".index.json"):
        tensors = _read_shards(weights)
    elif weights.suffix in PICKLE_SUFFIXES:
        tensors = _read_pickle(weights)
    else:
        tensors = _read_safetensors(weights)
    return Checkpoint(str(source), directory, config, canonical(tensors, where=str(weights)), config_path)


def _json_object(path: Path, *, missing: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise BertwrightError(f"{path}: {error.strerror}; {missing}") from error
    except (ValueError, RecursionError) as error:
        raise BertwrightError(f"{path}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise BertwrightError(f"{path}: holds a JSON {type(value).__name__} where an object belongs")
    return value


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - the file is no mapping
    except FileNotFoundError as error:
        raise BertwrightError(f"{path}: no such file; fetch the model again") from error
    except (SafetensorError, OSError) as error:
        with contextlib.suppress(OSError), path.open("rb") as raw:
            if raw.read(24).startswith(b"version https://git-lfs"):
                raise BertwrightError(f"{path}: a git-lfs pointer, not the weights; run `git lfs pull`") from error
        raise BertwrightError(f"{path}: cut short or not safetensors ({error}); fetch or copy it again") from error


def _read_shards(index: Path) -> dict[str, Tensor]:
    weight_map = _json_object(index, missing="fetch the model again").get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise BertwrightError(f"{index}: has no 'weight_map' from tensor names to files")
    tensors: dict[str, Tensor] = {}
    for shard in sorted(set(weight_map.values())):
        path = shard_file(index, shard)
        held = _read_safetensors(path)
        listed = {name for name, file in weight_map.items() if file == shard}
        if absent := sorted(listed - held.keys()):
            raise BertwrightError(f"{path}: lacks {absent[0]!r}, which {index.name} says it holds; fetch both again")
        if unlisted := sorted(held.keys() - listed):
            raise BertwrightError(f"{path}: holds {unlisted[0]!r}, which {index.name} does not list; fetch both again")
        tensors |= held
    return tensors


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    # Untrusted bytes reach every corner of the unpickler, which raises whatever comes up there.
    except Exception as error:
        raise BertwrightError(
            f"{path}: cut short, or more than tensors in it, and nothing else is unpickled "
            f"({type(error).__name__}); convert it to {WHOLE_WEIGHTS} with transformers' save_pretrained"
        ) from error
    if not isinstance(held, dict) or not all(isinstance(v, Tensor) and isinstance(k, str) for k, v in held.items()):
        raise BertwrightError(f"{path}: not a state dict: a mapping of names to tensors is needed")
    return held


def canonical(tensors: Mapping[str, Tensor], *, where: str) -> dict[str, Tensor]:
    """Bring weights to float32 and to this project's names; see the head of this file.

    A decoder that is not tied, to the word embeddings or to the head's bias, stays for `load_into` to refuse or leave.

    Raises:
        BertwrightError: A weight is no dense floating point tensor or not finite, two weights claim one name, or some
            but not all of query, key and value are there.
    """
    named: dict[str, Tensor] = {}
    not_finite: Counter[str] = Counter()
    for name, tensor in tensors.items():
        new_name = _canonical_name(name)
        if new_name in _BUFFERS:
            continue
        if new_name in named:
            raise BertwrightError(f"{where}: holds {new_name!r} twice, once as {name!r}")
        if tensor.dtype not in _FLOATS or tensor.layout is not torch.strided or tensor.is_meta:
            raise BertwrightError(
                f"{where}: {name!r} is a {tensor.dtype} tensor, not plain floating point; "
                "use the checkpoint from before it was quantized or converted"
            )
        values = named[new_name] = tensor.detach().to(torch.float32)
        # A sum is finite only if every term is, and far cheaper than asking each; it may overflow, so a count decides.
        if not values.sum().isfinite() and (count := int(values.isfinite().logical_not().sum())):
            not_finite[name] = count
    if not_finite:
        raise BertwrightError(
            f"{where}: {next(iter(not_finite))!r} is the first of {len(not_finite)} tensors with "
            f"{not_finite.total()} values that are NaN or infinite; the file is damaged or its training diverged"
        )
    _merge_qkv(named, where)
    if _DECODER_BIAS in named:
        named.setdefault(_TIED[_DECODER_BIAS], named[_DECODER_BIAS])
    for name in named.keys() & _TIED.keys() - set(_untied(named)):
        del named[name]
    return named


def _untied(tensors: Mapping[str, Tensor]) -> list[str]:
    pairs = [(name, tensors[name], tensors.get(twin)) for name, twin in _TIED.items() if name in tensors]
    return [name for name, tensor, twin in pairs if twin is None or not torch.equal(tensor, twin)]


def _canonical_name(name: str) -> str:
    name = name.removeprefix("bert.")
    for old, new in ((".LayerNorm.gamma", ".LayerNorm.weight"), (".LayerNorm.beta", ".LayerNorm.bias")):
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def _merge_qkv(named: dict[str, Tensor], where: str) -> None:
    groups: dict[str, dict[str, Tensor]] = {}
    for name in list(named):
        if match := _QKV_PART.fullmatch(name):
            groups.setdefault(f"{match[1]}qkv{match[3]}", {})[match[2]] = named.pop(name)
    for merged, parts in groups.items():
        if absent := [part for part in _QKV if part not in parts]:
            raise BertwrightError(f"{where}: {merged!r} needs query, key and value; {' and '.join(absent)} missing")
        shapes = [tuple(parts[part].shape) for part in _QKV]
        if len(set(shapes)) > 1 or not shapes[0]:
            raise BertwrightError(f"{where}: query, key and value of {merged!r} have the shapes {shapes}")
        if merged in named:
            raise BertwrightError(f"{where}: holds {merged!r} twice, once as query, key and value")
        named[merged] = torch.cat([parts[part] for part in _QKV])


@dataclass(frozen=True)
class LoadReport:
    """What a checkpoint and a module did not share, by canonical name."""

    new: tuple[str, ...]
    """Weights of the module that the checkpoint lacks: they keep their fresh initialisation."""
    left: tuple[str, ...]
    """Weights of the checkpoint that the module has no place for."""

    def describe(self) -> str:
        """Return one line for people, such as ``"freshly initialised: classifier (2 tensors)"``."""
        parts = [
            f"{what}: " + ", ".join(f"{part} ({n} tensor{'s' * (n > 1)})" for part, n in counts.items())
            for what, names in (("freshly initialised", self.new), ("in the checkpoint but not used", self.left))
            if (counts := Counter(name.split(".")[0] if name.isprintable() else ascii(name) for name in names))
        ]
        return "; ".join(parts) or "every weight loaded"


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], *, where: str) -> LoadReport:
    """Copy weights into a module by name; all of them, or on an error none.

    Args:
        module: Its `state_dict` has canonical names; on any device, in any floating point type.
        tensors: Weights by canonical name, as `Checkpoint.tensors`. The module shares no storage with them afterwards.
        where: Which checkpoint it is, for messages.

    Returns:
        The names that only one of the two has. Embeddings or layers that stay fresh are told besides.

    Raises:
        BertwrightError: No weight of the encoder's layers fits by name, or a shape differs, or the module has
            the masked word head and the checkpoint's decoder is not tied to its word embeddings.
    """
    targets: dict[str, Tensor] = module.state_dict(keep_vars=True)
    shared = [name for name in targets if name in tensors]
    if not any(name.startswith("encoder.layer.") for name in shared):
        held = next(iter(tensors), "nothing")
        raise BertwrightError(f"{where}: no BERT checkpoint: holds no weight of a BERT encoder, but {held!r}, ...")
    for name in shared:
        if tensors[name].shape != targets[name].shape:
            raise BertwrightError(_shape_message(name, tensors[name], targets[name], where))
    untied = _untied(tensors)
    if untied and any(name.startswith("cls.predictions.") for name in targets):
        raise BertwrightError(f"{where}: {untied[0]!r} is not {_TIED[untied[0]]!r}; BERT ties them: cannot be loaded")
    with torch.no_grad():
        for name in shared:
            targets[name].copy_(tensors[name])
    # A tied parameter has two names in the module and is loaded by either.
    loaded = {id(targets[name]) for name in shared}
    new = tuple(name for name, target in targets.items() if id(target) not in loaded)
    if missing := [name for name in new if name.startswith(("embeddings.", "encoder."))]:
        tell(f"{where}: lacks {len(missing)} weights of the encoder, which start untrained: {missing[0]}, ...")
    return LoadReport(new, tuple(name for name in tensors if name not in targets))


def _shape_message(name: str, held: Tensor, target: Tensor, where: str) -> str:
    causes = {
        "embeddings.word_embeddings.": "vocab_size of config.json, or the vocabulary, is not that of the weights",
        "embeddings.position_embeddings.": "max_position_embeddings of config.json is not that of the weights",
        "embeddings.token_type_embeddings.": "type_vocab_size of config.json is not that of the weights",
        "classifier.": "the head was trained for another number of labels",
        "qa_outputs.": "the head was trained for another task",
        "head.": "recipe.toml, or the number of labels in config.json, is of another model",
        "cls.predictions.": "vocab_size or hidden_size of config.json is not that of the weights",
    }
    cause = next((text for start, text in causes.items() if name.startswith(start)), "config.json is of another model")
    return f"{where}: {name!r} has the shape {tuple(held.shape)}, but the model needs {tuple(target.shape)}: {cause}"


def export_tensors(module: nn.Module, *, prefix: str) -> dict[str, Tensor]:
    """Return a module's weights under the names that `transformers` gives them, the inverse of `canonical`.

    Args:
        module: Its `state_dict` has canonical names.
        prefix: ``"bert."`` for a model with a head, ``""`` for a plain BertModel; put before the encoder's names only.

    Returns:
        Contiguous copies on the CPU, so that training may go on while they are written. Like `transformers`, without
        what is tied: the decoder's weight and its second bias.
    """
    assert prefix in ("", "bert."), prefix
    state: dict[str, Tensor] = module.state_dict(keep_vars=True)
    exported: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name == _DECODER and tensor is state.get(_WORDS):
            continue
        copy = tensor.detach().to("cpu", copy=True).contiguous()
        full = prefix + name if name.startswith(_ENCODER_PARTS) else name
        if ".attention.self.qkv." in name:
            for part, rows in zip(_QKV, copy.chunk(3), strict=True):
                exported[full.replace(".qkv.", f".{part}.")] = rows.clone()
        else:
            exported[full] = copy
    return exported


def write_weights(directory: Path, tensors: Mapping[str, Tensor], *, shard_bytes: int = 5_000_000_000) -> None:
    """Write weights as `transformers` does: ``model.safetensors``, or shards and ``model.safetensors.index.json``.

    Args:
        directory: Exists; best the one that `atomic_directory` yields.
        tensors: Contiguous CPU tensors by the names to write, none sharing memory with another.
        shard_bytes: Largest shard, in bytes. One tensor larger than that makes a shard of its own.

    Raises:
        OSError: The disk is full or refuses; `atomic_directory` makes one line of it.
    """
    shards: list[dict[str, Tensor]] = [{}]
    room = shard_bytes
    for name, tensor in tensors.items():
        if tensor.nbytes > room and shards[-1]:
            shards.append({})
            room = shard_bytes
        shards[-1][name] = tensor
        room -= tensor.nbytes
    if len(shards) == 1:
        _save(shards[0], directory / WHOLE_WEIGHTS)
        return
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _save(shard, directory / file)
        weight_map |= dict.fromkeys(shard, file)
    total = {
        "total_parameters": sum(tensor.numel() for tensor in tensors.values()),
        "total_size": sum(tensor.nbytes for tensor in tensors.values()),
    }
    index = json.dumps({"metadata": total, "weight_map": weight_map}, indent=2, sort_keys=True)
    (directory / WEIGHTS_INDEX).write_text(index + "\n", encoding="utf-8")


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    try:
        save_file(tensors, path, metadata={"format": "pt"})
        with contextlib.suppress(OSError):  # the library makes it for its owner alone; some file systems know no better
            path.chmod(stat.S_IMODE(path.parent.stat().st_mode) & 0o666)
    except SafetensorError as error:
        # The library hides the system's error number in its message.
        if match := re.search(r"\(os error (\d+)\)", str(error)):
            raise OSError(int(match[1]), os.strerror(int(match[1])), str(path)) from error
        raise
