"""The command line's frame: one app, what ends it, and how options become flags."""

from __future__ import annotations

import contextlib
import importlib.metadata
import inspect
import io
import os
import platform
import re
import signal
import sys
import types
import typing
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from bertwright.errors import BertwrightError, BertwrightWarning
from bertwright.evaluation.report import literal
from bertwright.interrupts import Stopped
from bertwright.model_files import is_of_model
from bertwright.training.options import Options, flag
from bertwright.version import VERSION

app = typer.Typer(
    name="bertwright",
    help="BERT the whole way: fine-tune it on your texts, judge it, use it, keep it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

Device = Annotated[str, typer.Option(help="auto, cpu or cuda.", rich_help_panel="Machine")]
Precision = Annotated[str, typer.Option(help="auto, float32 or bfloat16.", rich_help_panel="Machine")]
Threads = Annotated[int, typer.Option(help="CPU threads; 0: one for each core.", rich_help_panel="Machine")]
ModelArgument = Annotated[str, typer.Argument(help="A fine-tuned model: its directory or hub id.", show_default=False)]


def _version(asked: bool) -> None:
    if asked:
        torch, python = importlib.metadata.version("torch"), platform.python_version()
        typer.echo(f"bertwright {VERSION}, torch {torch}, Python {python}")
        raise typer.Exit


@app.callback()
def _for_all_commands(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version, and torch's and Python's.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """What can stand before a command."""


# What a wrong command line raises; newer versions of typer bring it themselves, older ones take it from click.
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]


def main() -> None:
    """Run the command line. A user's mistake ends in one line and exit code 2, Ctrl-C in 130, SIGTERM in 143."""
    warnings.simplefilter("always", BertwrightWarning)
    warnings.showwarning = _show_warning
    signal.signal(signal.SIGTERM, _interrupt)
    if sys.stderr is not None:  # as it is where it was closed before the start
        sys.stderr = typing.cast(TextIO, _Lasting(sys.stderr))
    sys.exit(_run(sys.argv[1:] or ["--help"]))


class _Lasting:
    """Standard error that outlives its reader: a run goes on, or saves its state, when its terminal or pipe is closed."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


def _run(arguments: list[str]) -> int:
    # Not typer's own main: it would make a box of an error, and lose what an interrupted run has to say.
    command = typer.main.get_command(app)
    try:
        _check_repeated(command, arguments)
        with command.make_context("bertwright", arguments) as context:
            command.invoke(context)
        sys.stdout.flush()
    except typer.Exit as end:
        return end.exit_code
    except _UsageError as error:
        note("error", _usage(error))
        return 2
    except BertwrightError as error:
        note("error", str(error))
        return 2
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's own, which is not imported for --help
            raise
        note(
            "error", "the GPU's memory is full; lower --batch-size (and raise --accumulate), --micro-tokens or --max-length"
        )
        return 2
    except KeyboardInterrupt as stop:
        note("stopped", str(stop) or "interrupted")
        return 128 + (stop.signal if isinstance(stop, Stopped) else signal.SIGINT)
    except BrokenPipeError:  # the reader of our output has seen enough
        _drop_output()
    except SystemExit:  # what rich makes of the same
        _drop_output()
        return 141  # as where SIGPIPE ends a program
    except OSError as error:  # such as a full disk behind standard output
        try:
            sys.stdout.flush()  # what was said before stays said, if it was not this that failed
        except OSError:
            _drop_output()
        note("error", f"{error.filename or 'the output'}: {error.strerror or error}")
        return 2
    return 0


_ROWS = ("train", "validation", "test", "data", "input", "recipe")


def _check_repeated(command: Any, arguments: Sequence[str]) -> None:
    """Tell of options that are given more than once, of which the last counts; a second file is never left out so."""
    words = list(arguments)
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    options = {name: parameter for parameter in command.params for name in parameter.opts if name.startswith("--")}
    given: dict[str, list[str]] = {}
    while words and (word := words.pop(0)) != "--":
        name, equals, value = word.partition("=")
        parameter = options.get(name)
        if parameter is not None and not parameter.is_flag:
            value = value if equals else words.pop(0) if words else ""
            given.setdefault(name, []).append(value)
    for name, values in given.items():
        values = _counting(values)
        times = f"{name} is given {len(values)} times"
        if len(values) == 1 or options[name].multiple:
            continue
        if options[name].name in _ROWS and len(set(values)) > 1:
            raise BertwrightError(f"{times}, as {' and '.join(values)}, but names one: join the files, or leave one out")
        note("note", f"{times}; the last counts: {values[-1]}")


def _counting(values: Sequence[str]) -> list[str]:
    """Of what an option was given, that which counts: an empty value takes back all before it."""
    after = len(values) - next((n for n, value in enumerate(reversed(values)) if value == ""), len(values))
    return list(values[after:]) or [""]


def _drop_output() -> None:
    """Let the last flush, at the end of the process, not fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _usage(error: Any) -> str:
    message = error.format_message().rstrip(".")
    return message if error.ctx is None else f"{message}; see {error.ctx.command_path} --help"


def _interrupt(number: int, frame: object) -> None:
    raise Stopped("", number)


def note(kind: str, message: str) -> None:
    """Say a line on standard error, such as ``note: …``."""
    print(f"{kind}: {literal(message)}", file=sys.stderr)


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object, **__: object
) -> None:
    if issubclass(category, BertwrightWarning):
        note("note", str(message))
    else:
        note("warning", f"{message} ({Path(filename).name}:{lineno})")


def flags_of(
    kind: type[Options], only: Collection[str] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one flag for each option of ``kind``; those not given stay out of the command's ``options``.

    With ``only``, a flag for these alone, in the place of what a model was trained with.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.kind is not p.VAR_KEYWORD]
        taken = {parameter.name for parameter in own}
        wanted = set(kind.kinds()) if only is None else set(only)
        hints = {name: hint for name, hint in kind.kinds().items() if name in wanted - taken}
        kinds = {name: _plain(hint) for name, hint in hints.items()}
        lists = {name for name, hint in hints.items() if typing.get_origin(hint) is tuple}
        flags = []
        for f in kind.in_order():
            if f.name not in kinds:
                continue
            plain = kinds[f.name]
            choices = f.metadata.get("choices", ())
            text = f.metadata["help"] + (f" One of: {', '.join(choices)}." if choices and "auto" not in choices else "")
            if only is not None:  # what is not given is as in training
                text = re.sub(r"; default: .*?\.(?= |$)", ".", text)
            # As part of the text: were it the flag's own default, one could not tell whether the flag was given.
            default = (
                ""
                if f.default in (None, ()) or plain is bool or only is not None
                else f" [dim]\\[default: {f.default}][/dim]"
            )
            given_as = typer.Option(
                *([flag(f.name)] if plain is bool else []),
                help=text + default,
                rich_help_panel=f.metadata["section"],
                metavar={int: "<int>", float: "<float>"}.get(plain),
            )
            taken_as = list[str] if f.name in lists else bool if plain is bool else str
            annotation: Any = Annotated[taken_as | None, given_as]
            flags.append(inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation))

        def wrapped(**given: Any) -> None:
            for name in lists:  # each time some, with commas between
                given[name] = ",".join(_counting(given[name])) if given[name] else None
            options = {name: _parsed(name, given.pop(name), plain) for name, plain in kinds.items()}
            command(**given, **{name: value for name, value in options.items() if value is not None})

        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + flags
        wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
        wrapped.__doc__ = command.__doc__
        wrapped.__name__ = command.__name__
        return wrapped

    return decorate


def _plain(hint: Any) -> type:
    """The type of a flag: of ``int | None`` it is int, of a tuple of names the text that lists them."""
    if isinstance(hint, types.UnionType):
        hint = next(kind for kind in typing.get_args(hint) if kind is not type(None))
    return str if typing.get_origin(hint) is tuple else hint


def _parsed(name: str, given: str | bool | None, kind: type) -> Any:
    if given is None or isinstance(given, bool) or kind is str or given == "":  # what an empty one means, a command knows
        return given
    try:
        return kind(given)
    except ValueError:
        wanted = "a whole number" if kind is int else "a number"
        raise BertwrightError(f"{flag(name)} must be {wanted}, not {given!r}") from None


def cleared(kind: type[Options], given: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a run as flags gave them; an empty one takes back what a recipe, or training, had there.

    Raises:
        BertwrightError: it is one that cannot be done without.
    """
    kinds = kind.kinds()
    for name, value in given.items():
        if value == "" and kinds[name] is str:
            raise BertwrightError(f"{flag(name)} is empty; give it a value, or leave it out")
    empty = {name for name, value in given.items() if value == "" and isinstance(kinds[name], types.UnionType)}
    return {name: None if name in empty else value for name, value in given.items()}


def check_output(path: Path | None, option: str, read: str | Path | None) -> None:
    """Refuse to write where something would be lost. ``read`` is what is read: a file, or - for standard input.

    Raises:
        BertwrightError: the path is a directory, or the file that is read, or one of a model's.
    """
    if path is None or not path.exists():
        return
    if path.is_dir():
        raise BertwrightError(f"{option} {path} is a directory; name a file in it")
    if not path.is_file():
        return  # a pipe or a device, which is written to as it is
    opened = any(map(path.is_relative_to, ("/dev", "/proc"))) and not path.resolve().is_relative_to("/dev")
    if opened:  # such as /dev/stdout
        raise BertwrightError(f"{option} {path} leads to a file that would be replaced; leave {option} out, or name it")
    if _is_read(path, read):
        raise BertwrightError(f"{option} {path} is the file that is read, and would be lost; name another")
    if is_of_model(path):
        raise BertwrightError(f"{option} {path} is a file of the model in {path.resolve().parent}; name another")


def _is_read(path: Path, read: str | Path | None) -> bool:
    try:
        now = os.fstat(sys.stdin.fileno()) if read == "-" else None if read is None else Path(read).stat()
    except (OSError, ValueError):  # no such file, or no standard input that is one
        return False
    return now is not None and os.path.samestat(now, path.stat())


def note_replaced(path: Path | None) -> None:
    """Tell that a file will be replaced."""
    if path is not None and path.is_file():
        note("note", f"{path} is there and will be replaced")


@contextlib.contextmanager
def writing(path: Path | None) -> Iterator[TextIO]:
    """A file that appears whole or not at all; without a path standard output."""
    if path is None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            # Texts of any script, whatever the terminal's; and somebody may read a pipe as it goes.
            sys.stdout.reconfigure(encoding="utf-8", line_buffering=True)
        yield sys.stdout
        sys.stdout.flush()
        return
    from bertwright.atomic import atomic_write_stream

    note_replaced(path)
    with atomic_write_stream(path) as file:
        yield file
