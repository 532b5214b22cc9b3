"""What a reader gives and a task takes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Example:
    """One row of a data set. ``where`` names its file and line, for messages."""

    text: str
    where: str
    pair: str | None = None
    label: str | None = None
    source: str | None = None


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A line of a stream that holds no text: ``reason`` says why."""

    where: str
    reason: str


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns of a file hold what, and how a delimited file is written."""

    text: str = "text"
    pair: str | None = None
    label: str | None = "label"
    source: str | None = None
    names: tuple[str, ...] = ()
    delimiter: str | None = None
    quoting: str = "auto"

    def wanted(self) -> dict[str, str]:
        """Map the roles that are read to their column names."""
        roles = {"text": self.text, "pair": self.pair, "label": self.label, "source": self.source}
        return {role: name for role, name in roles.items() if name is not None}
