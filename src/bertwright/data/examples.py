"""What a reader gives and a task takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from bertwright.errors import BertwrightError


class AnyExample(Protocol):
    """What every task's examples have: where they come from, what is to be learned from them, and how long they are."""

    @property
    def where(self) -> str:
        """File and line, for messages."""

    @property
    def answer(self) -> Any:
        """What a model should say to it, as JSON can hold it; None where it is not known."""

    @property
    def characters(self) -> int:
        """How much text it holds."""


@dataclass(frozen=True, slots=True)
class Example:
    """A text, or a pair of texts, and its label. ``where`` names its file and line, for messages."""

    text: str
    where: str
    pair: str | None = None
    label: str | None = None
    source: str | None = None

    @property
    def answer(self) -> str | None:
        """The label."""
        return self.label

    @property
    def characters(self) -> int:
        """How much text both parts hold."""
        return len(self.text) + len(self.pair or "")


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A line of a stream that holds no text: ``reason`` says why."""

    where: str
    reason: str


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns of a file hold what (None: not looked for), and how a delimited file is written.

    Raises:
        BertwrightError: two of text, pair and labels are one column.
    """

    text: str | None = "text"
    pair: str | None = None
    label: str | None = "label"
    source: str | None = None
    labels: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    delimiter: str | None = None
    quoting: str = "auto"
    uneven_rows: str = "error"
    label_names: tuple[tuple[str, str], ...] = ()  # what stands in a file, and the name that it gets

    def __post_init__(self) -> None:
        if twice := [name for place, name in enumerate(self.labels) if name in self.labels[:place]]:
            raise BertwrightError(f"--labels names the column {twice[0]!r} twice; name it once")
        role_of: dict[str, str] = {}
        for role, name in self.wanted().items():
            role = role.partition(" ")[0]
            other = role_of.setdefault(name, role)
            if other != role and "source" not in (other, role):
                what = "both texts are the same" if role == "pair" else "the answer would be read with the text"
                raise BertwrightError(f"--{other} and --{role} both name the column {name!r}: {what}; name another")

    def called(self, label: str) -> str:
        """The name of a label that stands in a file."""
        return dict(self.label_names).get(label.strip(), label.strip())

    def wanted(self) -> dict[str, str]:
        """Map the roles that are read to their column names; each of ``labels`` is a role of its own."""
        roles = {"text": self.text, "pair": self.pair, "label": self.label, "source": self.source}
        roles |= {f"labels {name}": name for name in self.labels}
        return {role: name for role, name in roles.items() if name is not None}
