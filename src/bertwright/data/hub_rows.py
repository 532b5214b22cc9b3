"""Rows of data sets of the Hugging Face hub, through `datasets`: streamed, or kept as JSON lines that any reader reads.

Only data are read, never code: a data set that is still a script is refused by `datasets` itself.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertwright.atomic import atomic_write_stream, atomic_write_text
from bertwright.data.hub_classes import named
from bertwright.errors import BertwrightError, tell

_SOURCE = re.compile(
    r"hub:(?P<name>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<revision>[\w.-]+(?:/[\w.-]+)*))?"
    r"(?::(?P<config>[\w.-]+|(?=:))(?::(?P<split>[\w.-]+))?)?"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_PATIENCE = 10.0  # seconds for the hub's first answer


@dataclass(frozen=True)
class HubSource:
    """``hub:owner/name``, ``hub:owner/name:config`` or ``hub:owner/name:config:split``; ``@revision`` may follow the name.

    The config may be empty, as in ``hub:owner/name::test``, where there is but one.
    """

    name: str
    revision: str | None = None
    config: str | None = None
    split: str | None = None

    @classmethod
    def parse(cls, source: str) -> HubSource:
        """Read it from how a user names it.

        Raises:
            BertwrightError: it is none of those forms.
        """
        match = _SOURCE.fullmatch(source)
        if match is None:
            raise BertwrightError(
                f"{source}: name a data set as hub:owner/name, hub:owner/name:config[:split] or hub:owner/name@revision:…"
            )
        return cls(match["name"], match["revision"], match["config"] or None, match["split"])

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        split = f":{self.split}" if self.split else ""
        config = f":{self.config or ''}" if self.config or split else ""
        return f"hub:{self.name}{revision}{config}{split}"


def is_hub(source: str | Path) -> bool:
    """Whether a source of rows or texts lies on the hub, by its name."""
    return str(source).startswith("hub:")


def hub_rows(source: HubSource) -> Iterator[dict[str, Any]]:
    """Stream the rows of a split, ``train`` unless named; classes that the hub keeps as numbers come by their names.

    Raises:
        BertwrightError: `datasets` is missing, or the rows cannot be read.
    """
    try:
        import datasets
    except ImportError:
        raise BertwrightError(f"{source}: reading it needs: pip install datasets") from None
    try:
        rows = datasets.load_dataset(
            source.name, source.config, split=source.split or "train", revision=source.revision, streaming=True
        )
        features = getattr(rows, "features", None) or {}
        for row in rows:
            yield {name: _named(value, features.get(name)) for name, value in row.items()}
    except Exception as error:  # the library lets through whatever network, disk and formats raise
        remedy = "is the name right, and the network there?"
        if "scripts are no longer supported" in str(error):
            remedy = f"scripts are never run; a copy as Parquet may be at hub:{source.name}@refs/convert/parquet"
        raise BertwrightError(f"{source}: cannot be read: {_first_line(error)}; {remedy}") from error


def pinned(source: HubSource) -> HubSource:
    """The same source with the commit that its revision stands for now, so that it always means the same rows.

    Without a network, the commit that it was last seen at, which is told.

    Raises:
        BertwrightError: there is no such data set, or it was never seen and the hub cannot be reached.
    """
    if source.revision is not None and _COMMIT.fullmatch(source.revision):
        return source
    from huggingface_hub import HfApi, errors

    revision = source.revision or "main"
    seen = _folder(source) / "revisions" / revision.replace("/", "--")
    try:
        commit = HfApi().dataset_info(source.name, revision=source.revision, timeout=_PATIENCE).sha
    except errors.GatedRepoError:
        raise BertwrightError(f"{source}: gated; ask for access on its page, then log in with: hf auth login") from None
    except errors.RepositoryNotFoundError:
        raise BertwrightError(
            f"{source}: the hub has no such data set; is the name right? If it is private, log in with: hf auth login"
        ) from None
    except errors.RevisionNotFoundError:
        raise BertwrightError(f"{source}: the data set has no revision {revision!r}") from None
    except Exception as error:  # the client lets its transport's own errors through, and that transport changes
        if not seen.is_file():
            raise BertwrightError(
                f"{source}: the hub cannot be reached ({_first_line(error)}), and no copy is here"
            ) from error
        commit = seen.read_text(encoding="utf-8")
        tell(f"{source}: the hub cannot be reached; taking the copy of commit {commit[:8]}")
    else:
        atomic_write_text(seen, str(commit))
    return dataclasses.replace(source, revision=commit)


def local_file(source: str | Path, say: Callable[[str], None] = lambda line: None) -> Path:
    """A file on this machine that holds the rows of ``source``: itself, or what was downloaded of the hub, once.

    Args:
        source: a path, or ``hub:owner/name:config:split``.
        say: called with a line before a download.

    Raises:
        BertwrightError: the hub's data set cannot be read, has no rows there, or its split is not named.
    """
    if not is_hub(source):
        return Path(source)
    given = HubSource.parse(str(source))
    if given.split is None:
        raise BertwrightError(f"{given}: name its split too, as in hub:{given.name}:{given.config or ''}:train")
    commit = pinned(given)
    assert commit.revision is not None
    file = _folder(given) / commit.revision / (given.config or "default") / f"{given.split}.jsonl"
    if not file.is_file():
        say(f"downloading {given} to {file}")
        count = 0
        with atomic_write_stream(file) as lines:
            for row in hub_rows(commit):
                # A date, say, becomes a text; no reader asks for such a column as anything else.
                lines.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
                count += 1
            if not count:
                raise BertwrightError(f"{given}: has no rows")
    return file


def _folder(source: HubSource) -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "bertwright" / "datasets" / source.name.replace("/", "--")


def _named(value: Any, feature: Any) -> Any:
    """A value with its class, or each of its classes, by name."""
    if value is None or feature is None:
        return value
    if hasattr(feature, "int2str"):
        return named(value, feature.names)
    inner = getattr(feature, "feature", None)
    if isinstance(feature, list):
        inner = feature[0]
    if inner is not None and isinstance(value, list):
        return [_named(one, inner) for one in value]
    if isinstance(feature, Mapping) and isinstance(value, dict):
        return {name: _named(one, feature.get(name)) for name, one in value.items()}
    return value


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
