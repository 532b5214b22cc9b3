"""Options: the choices of a run, defined once for command line, file and Python.

A field's name is its flag (``learning_rate`` is ``--learning-rate``), its key in TOML and its keyword in Python.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import tomli_w

from bertwright.errors import BertwrightError, did_you_mean

LARGEST_SEED = 2**32 - 1  # as numpy and scikit-learn have it


def option(default: Any, section: str, text: str, **limits: Any) -> Any:
    """Declare a field with its help text and limits (``low``, ``above``, ``high``, ``choices``)."""
    return field(default=default, metadata={"section": section, "help": text, **limits})


SECTIONS = ("Model", "Data", "Training", "Machine", "Output")


@dataclass(frozen=True)
class Options:
    """What every kind of run can choose; its kinds add their own fields by :func:`option`."""

    COMMAND: ClassVar[str]  # the command that takes these options
    FILE: ClassVar[str]  # where they lie in the model's directory
    # Where and how a run computes, but not what: another choice gives the same model, or one as good.
    FREE: ClassVar[frozenset[str]] = frozenset(
        {"out", "overwrite", "resume", "save_every", "tensorboard", "device", "threads"}
    )
    # What can be given anew halfway; all else would make the saved states mean something else.
    MAY_CHANGE: ClassVar[frozenset[str]] = frozenset({"learning_rate", "warmup", "schedule", "clip", "precision"})

    # Of these, what says how many seeds there are and which is kept: not how one is trained, so that it can be given anew
    # when some of them are finished.
    OF_SEEDS: ClassVar[frozenset[str]] = frozenset()
    # Groups of options that say the same in different ways: one of a flag takes the place of those in a recipe.
    ALTERNATIVES: ClassVar[tuple[frozenset[str], ...]] = ()

    precision: str = option(
        "auto",
        "Machine",
        "auto (bfloat16 on a GPU that has it, else float32), float32, bfloat16, or float16 (on a GPU).",
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    device: str = option("auto", "Machine", "auto, cpu or cuda.", choices=("auto", "cpu", "cuda"))
    threads: int = option(0, "Machine", "CPU threads; 0: one for each core.", low=0)

    out: str | None = option(None, "Output", "Directory of the model that this run makes.")
    overwrite: bool = option(False, "Output", "Replace a run that is there already.")
    resume: bool = option(False, "Output", "Go on with an interrupted run.")
    save_every: int = option(0, "Output", "Save the state every so many steps; 0: after each validation.", low=0)
    tensorboard: bool = option(False, "Output", "Write TensorBoard events too (needs the tensorboard extra).")

    @classmethod
    def of(cls, *sources: Mapping[str, Any], where: str = "") -> Self:
        """Merge ``sources``, later ones winning, and check every value.

        ``where`` is the file that the values come from, for messages; without one they name flags.

        Raises:
            BertwrightError: an unknown name, a wrong type, or a value out of its limits.
        """
        kinds = cls.kinds()
        numbers_too = {f.name for f in dataclasses.fields(cls) if f.metadata.get("number_too")}
        values: dict[str, Any] = {}
        for source in sources:
            for name, value in source.items():
                if name not in kinds:
                    prefix = f"{where}: " if where else ""
                    raise BertwrightError(f"{prefix}no option {name!r}{did_you_mean(name, kinds)}")
                if name in numbers_too and isinstance(value, int | float) and not isinstance(value, bool):
                    value = f"{value:g}" if isinstance(value, float) else str(value)
                values[name] = _converted(_shown(name, where), value, kinds[name])
        recipe = cls(**values)
        for f in dataclasses.fields(cls):
            _check(_shown(f.name, where), getattr(recipe, f.name), f.metadata)
        return recipe

    @classmethod
    def kinds(cls) -> dict[str, Any]:
        """The type of each option, by name."""
        hints = typing.get_type_hints(cls)
        return {f.name: hints[f.name] for f in dataclasses.fields(cls)}

    @classmethod
    def read(cls, path: Path) -> dict[str, Any]:
        """Read and check the options of a file.

        Raises:
            BertwrightError: no such file, or not TOML (with the line), or what :meth:`of` raises for its values.
        """
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise BertwrightError(f"{path}: not a TOML file: {error}") from None
        except OSError as error:
            raise BertwrightError(f"{path}: cannot read this recipe file: {error.strerror}") from None
        cls.of(values, where=str(path))
        return values

    @classmethod
    def in_order(cls) -> list[dataclasses.Field[Any]]:
        """The fields as help texts and files show them: by section."""
        return sorted(dataclasses.fields(cls), key=lambda f: SECTIONS.index(f.metadata["section"]))

    def ineffective(self) -> dict[str, str]:
        """Why options have no effect beside the others, by name: a reason, or an empty string where they have one."""
        return {}

    def idle(self) -> set[str]:
        """The options that have no effect beside the others."""
        return {name for name, reason in self.ineffective().items() if reason}

    @classmethod
    def replaced(cls, given: Mapping[str, Any]) -> set[str]:
        """The options in whose place ``given`` has another (steps in that of epochs), unless it names them too."""
        has = {name for name, value in given.items() if value is not None}
        return {name for group in cls.ALTERNATIVES if group & has for name in group - given.keys()}

    def input_files(self) -> list[tuple[str, str]]:
        """The files that a run reads, each behind the option that names it."""
        raise NotImplementedError

    def without_effect(self, unread: Iterable[str] = ()) -> list[str]:
        """Say of each option that is not at its default, but has no effect beside the others, why that is so.

        ``unread`` names options that nothing reads in this kind of run.
        """
        reasons = self.ineffective() | dict.fromkeys(sorted(unread), "for this --task")
        return [
            f"{flag(name)} has no effect {reason}"
            for name, reason in reasons.items()
            if reason and getattr(self, name) != getattr(type(self)(), name)
        ]

    def to_toml(self) -> str:
        """The recipe as TOML: each option that is set, under its name."""
        values = {f.name: getattr(self, f.name) for f in self.in_order()}
        values = {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
        return tomli_w.dumps({k: v for k, v in values.items() if v is not None})


def flag(name: str) -> str:
    """The flag of a field: ``--learning-rate`` of ``learning_rate``."""
    return "--" + name.replace("_", "-")


def _shown(name: str, where: str) -> str:
    return f"{where}: {name}" if where else flag(name)


def _converted(shown: str, value: Any, kind: Any) -> Any:
    """Bring a value from TOML or Python to its field's type, without guessing."""
    optional = isinstance(kind, types.UnionType)
    if value is None and optional:
        return None
    base = next(k for k in typing.get_args(kind) if k is not type(None)) if optional else kind
    if typing.get_origin(base) is tuple:
        if isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
        if isinstance(value, list | tuple) and all(isinstance(part, str) for part in value):
            return tuple(value)
    elif base in (int, float):  # by what they are in the numeric tower, so that numpy's numbers do too
        if isinstance(value, numbers.Integral if base is int else numbers.Real) and not isinstance(value, bool):
            return base(value)
    elif base is str and isinstance(value, Path):
        return str(value)
    elif isinstance(value, base):
        return value
    wanted = {tuple: "a list of names", float: "a number", int: "a whole number", bool: "true or false", str: "a text"}
    raise BertwrightError(f"{shown} must be {wanted[typing.get_origin(base) or base]}, not {value!r}")


def _check(shown: str, value: Any, limits: Mapping[str, Any]) -> None:
    if value is None:
        return
    if "choices" in limits and value not in limits["choices"]:
        known = limits["choices"]
        raise BertwrightError(f"{shown} is {value!r}{did_you_mean(value, known)} (known: {', '.join(known)})")
    if isinstance(value, float) and not math.isfinite(value):
        raise BertwrightError(f"{shown} must be a finite number, not {value}")
    if "low" in limits and value < limits["low"]:
        raise BertwrightError(f"{shown} must be at least {limits['low']}, not {value}")
    if "above" in limits and value <= limits["above"]:
        raise BertwrightError(f"{shown} must be above {limits['above']}, not {value}")
    if "high" in limits and value > limits["high"]:
        raise BertwrightError(f"{shown} must be at most {limits['high']}, not {value}")
