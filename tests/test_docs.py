"""README and docs against the code: every command, flag, default, link, file, name and rule that they state is true.

Python snippets of README and docs/python.md run, on a tiny model and a few rows that stand in for the real ones.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import io
import json
import random
import re
import runpy
import shlex
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console

import bertwright
from bertwright import checkpoint, hub
from bertwright.cli import app
from bertwright.data import acceptability
from bertwright.data.catalog import KNOWN
from bertwright.describe import token_tables
from bertwright.model import Bert, BertConfig
from bertwright.tokenizer import SPECIAL_TOKENS, Tokenizer
from bertwright.training.options import SECTIONS, Options, flag
from bertwright.training.pretraining_recipe import PretrainingRecipe
from bertwright.training.recipe import Recipe, preset

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "bertwright"
PAGES = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"]
PAGES += sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))

FRONT_DOOR = "pip install -c constraints.txt -e '.[quickstart]' && bertwright quickstart"
ALL_TESTS = "pip install -c constraints.txt -e '.[test]' && pytest"

# ------------------------------------------------------------------------------------------------------ reading Markdown


@dataclasses.dataclass(frozen=True)
class Block:
    """A block of code: its language (empty where none is named, as in an indented block) and its lines."""

    language: str
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        return "\n".join(self.lines) + "\n"


@cache
def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@cache
def blocks(name: str) -> tuple[Block, ...]:
    """Fenced and indented blocks of a page, in order."""
    found: list[Block] = []
    fence: str | None = None
    lines: list[str] = []
    for line in [*page(name).splitlines(), "end"]:
        if fence is not None:
            if line.startswith("```"):
                found.append(Block(fence, tuple(lines)))
                fence, lines = None, []
            else:
                lines.append(line)
        elif line.startswith("    "):
            lines.append(line.removeprefix("    "))
        elif line.strip() or not lines:
            if lines:
                found.append(Block("", tuple(lines)))
                lines = []
            if line.startswith("```"):
                fence = line.removeprefix("```").strip()
        else:
            lines.append("")
    assert fence is None, f"{name}: a fence is not closed"
    return tuple(found)


@cache
def prose(name: str) -> str:
    """A page without its blocks of code."""
    text = re.sub(r"^```.*?^```", "", page(name), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"^    .*$", "", text, flags=re.MULTILINE)


def inline_code(name: str) -> list[str]:
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose(name))]


def simple_commands(block: Block) -> Iterator[list[str]]:
    """The commands of a shell block, without prompts, redirections and what stands between them."""
    text = block.text.replace("\\\n", " ")
    for line in text.splitlines():
        if not re.match(r"(\$ )?(\w+ .*[|&] *)?(bertwright|python|pip) ", line.strip()):
            continue  # output
        lexer = shlex.shlex(line.strip().removeprefix("$ "), posix=True, punctuation_chars="|&;<>")
        lexer.whitespace_split = True
        command: list[str] = []
        redirected = False
        for token in [*lexer, ";"]:
            if token in ("|", "&&", ";"):
                yield command
                command, redirected = [], False
            elif token in (">", "<"):
                redirected = True
            elif not redirected:
                command.append(token)


def shell_commands(program: str) -> list[Any]:
    return [
        pytest.param(command[1:], id=f"{name}: {shlex.join(command)[:90]}")
        for name in PAGES
        for block in blocks(name)
        if block.language in ("", "sh", "console")
        for command in simple_commands(block)
        if command[:1] == [program]
    ]


def table_rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def section(name: str, heading: str) -> str:
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", page(name), flags=re.DOTALL | re.MULTILINE)
    assert found, f"{name} has no section {heading!r}"
    return found[1]


# -------------------------------------------------------------------------------------------------------------- commands


@cache
def commands() -> dict[str, Any]:
    """All commands by what is typed; those of a group by both words."""
    group: Any = typer.main.get_command(app)
    found: dict[str, Any] = {}
    for name, command in group.commands.items():
        inner = getattr(command, "commands", None)
        found |= {name: command} if inner is None else {f"{name} {sub}": one for sub, one in inner.items()}
    return found


def command_of(arguments: list[str]) -> tuple[str, list[str]]:
    """The command of a command line, and what follows it."""
    words = 2 if " ".join(arguments[:2]) in commands() else 1
    return " ".join(arguments[:words]), arguments[words:]


def flags_of(command: str) -> set[str]:
    return {name for p in commands()[command].params for name in (*p.opts, *p.secondary_opts) if name.startswith("--")}


def test_commands_are_found() -> None:
    assert len(shell_commands("bertwright")) > 30
    assert len(shell_commands("python")) > 2


@pytest.mark.parametrize("arguments", shell_commands("bertwright"))
def test_command_lines_parse(arguments: list[str]) -> None:
    name, rest = command_of(arguments)
    assert name in commands(), f"no command {name!r}"
    context = commands()[name].make_context(name, rest)  # raises for an unknown flag or a missing argument
    for kind in (Recipe, PretrainingRecipe):
        if name == kind.COMMAND:
            texts = {option for option, type_ in kind.kinds().items() if type_ in (str, str | None)}
            given = {k: v for k, v in context.params.items() if k in kind.kinds() and v is not None}
            kind.of({option: value if option in texts else number(value) for option, value in given.items()})


def number(value: Any) -> Any:
    for kind in (int, float):
        if isinstance(value, str):
            try:
                return kind(value)
            except ValueError:
                continue
    return value


@pytest.mark.parametrize("name", PAGES)
def test_commands_and_flags_in_the_text_exist(name: str) -> None:
    known = set().union(*map(flags_of, commands())) | {"--help"} | {flag(name) for name in PretrainingRecipe.kinds()}
    for code in inline_code(name):
        if code.startswith("bertwright "):
            command, _ = command_of(code.split()[1:])
            assert command in commands(), code
            assert set(re.findall(r"(?<!\S)--[a-z0-9-]+", code)) <= flags_of(command), code
        else:
            assert set(re.findall(r"(?<!\S)--[a-z0-9-]+", code)) <= known, code


def test_every_command_and_flag_is_documented() -> None:
    documented = "".join(page(name) for name in PAGES if name == "README.md" or name.startswith("docs/"))
    for command in commands():
        assert f"bertwright {command}" in documented
        for name in flags_of(command):
            assert re.search(rf"{name}(?![a-z-])", documented), f"{command} {name} is nowhere explained"


def test_the_front_door() -> None:
    lines = [line for line in page("README.md").splitlines() if "pip install" in line]
    assert [line.strip() for line in lines] == [FRONT_DOOR, ALL_TESTS]
    assert [block.lines[0] for block in blocks("README.md")[:2]] == [FRONT_DOOR, ALL_TESTS]
    # How the continuous integration finds the second.
    assert re.findall(r"^ *(pip install .*\.\[test\].*pytest.*)$", page("README.md"), re.MULTILINE) == [ALL_TESTS]


# --------------------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("kind", "name"),
    [(Recipe, "docs/fine-tuning.md"), (PretrainingRecipe, "docs/pretraining.md")],
    ids=["finetune", "pretrain"],
)
def test_every_option_is_explained_with_its_default(kind: type[Options], name: str) -> None:
    documented: dict[str, tuple[str, str]] = {}
    for heading in SECTIONS:
        for option, default, why in table_rows(section(name, heading))[1:]:
            assert option.strip("`") not in documented
            assert len(why) > 10, f"{option} has no reason"
            documented[option.strip("`")] = (heading, default.strip("`"))
    options = {flag(f.name): f for f in dataclasses.fields(kind)}
    assert documented.keys() == options.keys()
    for option, f in options.items():
        heading, default = documented[option]
        assert heading == f.metadata["section"], option
        if f.default is None or f.default == ():
            assert default == "not set", option
        elif isinstance(f.default, bool):
            assert default == ("on" if f.default else "off"), option
        else:
            assert number(default) == number(f.default), option


def test_how_few_rows_are_few_is_said_as_it_is() -> None:
    from bertwright.tasks.classification import FEW_ROWS
    from bertwright.tasks.question_answering import FEW_QUESTIONS

    for page, few, what in (
        ("fine-tuning.md", FEW_ROWS, "rows"),
        ("small-data.md", FEW_ROWS, "rows"),
        ("fine-tuning.md", FEW_QUESTIONS, "questions"),
        ("task-question-answering.md", FEW_QUESTIONS, "questions"),
    ):
        said = re.findall(rf"fewer than ([\d,]+) training {what}", (ROOT / "docs" / page).read_text(encoding="utf-8"))
        assert said, page
        assert set(said) == {f"{few:,}"}, page


def test_aliases_are_those_of_the_table() -> None:
    documented = {alias.strip("`"): what for alias, what in table_rows(section("docs/checkpoints.md", "Aliases"))[1:]}
    assert documented.keys() == hub.ALIASES.keys()
    for alias, target in hub.ALIASES.items():
        if isinstance(target, str):
            assert documented[alias] == f"hub: `{target}`"
        else:
            assert target.module.replace("_", "-") in documented[alias]
            assert target.requirement.startswith(target.module.replace("_", "-") + "==")


def test_known_data_sets_are_those_of_the_table() -> None:
    documented = {row[0].strip("`"): row[1:] for row in table_rows(section("docs/known-data.md", "The table"))[1:]}
    assert documented.keys() == KNOWN.keys()
    for name, known in KNOWN.items():
        task, rows, metric, on_hub, files = documented[name]
        assert (task, rows) == (known.task, "{:,} / {:,}".format(*known.rows))
        assert metric.strip("`") == known.settings.get("metric", "the task's first")
        assert known.hub is not None
        assert known.hub.name in on_hub
        for part in (part for layout in known.layouts for part in layout.parts.all()):
            assert f"`{part}`" in files
        assert f"- `{name}`: {known.source}\n" in page("docs/known-data.md")


def test_the_chapters_preset_is_shown_as_it_is() -> None:
    shown = [block for block in blocks("docs/bert-chapter.md") if block.language == "toml"]
    assert [tomllib.loads(block.text) for block in shown] == [preset("book")]


# ------------------------------------------------------------------------------------------------------- links and files


def slugs(name: str) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", prose(name), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(name)):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        path = (ROOT / name).parent / file if file else ROOT / name
        assert path.exists(), f"{name} links to {target}"
        if anchor:
            assert anchor in slugs(str(path.resolve().relative_to(ROOT))), f"{name} links to {target}"


@pytest.mark.parametrize("name", [name for name in PAGES if Path(name).name.startswith("task-")])
def test_the_guide_of_a_task_shows_a_command_and_a_picture(name: str) -> None:
    assert re.search(r"^    bertwright ", page(name), flags=re.MULTILINE)
    pictures = re.findall(r"!\[[^\]]+\]\((images/[^)]+\.png)\)", page(name))
    assert pictures
    assert all((ROOT / name).parent.joinpath(picture).read_bytes().startswith(b"\x89PNG") for picture in pictures)


@pytest.mark.parametrize("name", PAGES)
def test_named_source_files_exist(name: str) -> None:
    places = (ROOT, SOURCE, ROOT / "examples")
    for code in inline_code(name):
        if re.fullmatch(r"[\w/]+\.(py|sh)", code):
            assert any((place / code).is_file() for place in places), code
    for module in re.findall(r"python -m (benchmarks[.\w]*)", page(name)):
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), module


def test_blocks_for_numbers_are_whole() -> None:
    marks = re.findall(r"<!-- (/?numbers)", page("README.md"))
    assert marks == ["numbers", "/numbers"] * 4


# ---------------------------------------------------------------------------------------------------------- architecture


def layout() -> set[str]:
    """The files under src/bertwright that ARCHITECTURE.md lists."""
    block = next(block for block in blocks("ARCHITECTURE.md") if block.lines[0] == "src/bertwright/")
    files, folders = set(), [""]
    for line in block.lines[1:]:
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 4
        if depth == 0:
            break
        folders = [*folders[:depth], *([name] if name.endswith("/") else [])]
        if not name.endswith("/"):
            assert len(line.split()) > 1, f"{name} has no line of its own"
            files.add("".join(folders[:depth]) + name)
    return files


def modules() -> dict[str, Path]:
    """All modules by dotted name without ``bertwright.``; a package by its name."""
    names = {}
    for path in SOURCE.rglob("*.py"):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = path
    return names


def test_the_layout_is_that_of_the_source() -> None:
    listed = layout()
    present = {str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*") if path.suffix in (".py", ".toml")}
    assert listed == {name for name in present if not name.endswith("/__init__.py")}


def imported(path: Path) -> set[str]:
    """Modules of bertwright that a file imports, also inside functions and for types only."""
    known = modules()
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name for name in inner if name.removeprefix("bertwright.") in known} or {node.module}
    ours = {name for name in found if name.split(".")[0] == "bertwright"}
    return {name.removeprefix("bertwright.") if "." in name else "__init__" for name in ours}


def test_modules_import_what_they_may() -> None:
    rows = table_rows(section("ARCHITECTURE.md", "What may import what"))[1:]
    part_of = {name: part for part, names, _ in rows for name in re.findall(r"`(\w+)`", names)}
    order = [part for part, _, _ in rows]
    allowed: dict[str, set[str]] = {}
    for part, _, may in rows:
        above = order[: order.index(part)]
        allowed[part] = {part} | (set(above) if may == "every part above" else set(filter(None, may.split(", "))))
        assert allowed[part] <= {*above, part}, f"{part} stands above what it imports"
    assert part_of.keys() == {name.split(".")[0] for name in modules()}
    for module, path in modules().items():
        for other in imported(path):
            here, there = part_of[module.split(".")[0]], part_of[other.split(".")[0]]
            assert there in allowed[here], f"{module} imports {other}: {here} may not import {there}"


def test_the_loop_knows_neither_tasks_nor_models() -> None:
    parts = {name.split(".")[0] for name in imported(modules()["training.loop"])}
    assert "training" in parts
    assert not parts & {"data", "tokenizer", "model", "attention", "tasks", "predictor"}


# ---------------------------------------------------------------------------------------------- snippets, examples, tables


def python_blocks() -> list[Any]:
    found = [(name, block) for name in PAGES for block in blocks(name) if block.language == "python"]
    return [pytest.param(block.text, id=f"{name}-{number}") for number, (name, block) in enumerate(found)]


@pytest.mark.parametrize("source", python_blocks())
def test_names_in_snippets_exist(source: str) -> None:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "bw":
            assert node.attr in bertwright.__all__
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "bertwright":
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                assert hasattr(module, alias.name), f"{node.module} has no {alias.name}"


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plotless: None) -> Path:
    """A working directory with CoLA's files in small, and a tiny model in the place of MiniLM."""
    sentences = acceptability.generate(pairs_per_construction=1).train
    words = sorted({word for s in sentences for word in re.findall(r"\w+|[^\w\s]", s.text.lower())})
    tokenizer = Tokenizer.from_vocab([*SPECIAL_TOKENS.values(), *words, "flight", "##less"])
    config = BertConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=8, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=128,
    )  # fmt: skip
    model = tmp_path / "minilm"
    model.mkdir()
    tokenizer.save(model, max_length=128)
    checkpoint.write_weights(model, checkpoint.export_tensors(Bert(config), prefix=""))
    (model / "config.json").write_text(json.dumps(config.to_dict()))
    rows = [f"made\t{int(s.acceptable)}\t\t{s.text}\n" for s in sentences]
    for file in ("in_domain_train.tsv", "out_of_domain_dev.tsv"):
        (tmp_path / file).write_text("".join(rows))
    (tmp_path / "sentences.txt").write_text("A first line\nand a second\n")
    texts = [s.text for s in sentences]
    for folder in ("corpus", "blimp"):
        (tmp_path / folder).mkdir()
    draw = random.Random(0)
    documents = ["\n".join(draw.sample(texts, 5)) for _ in range(200)]
    (tmp_path / "corpus" / "text.txt").write_text("\n\n".join(documents))
    pair = {"sentence_good": texts[0], "sentence_bad": texts[1], "UID": "made", "linguistics_term": "made", "pairID": "0"}
    (tmp_path / "blimp" / "made.jsonl").write_text(json.dumps(pair))
    monkeypatch.setattr(hub, "ALIASES", {})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_snippets(name: str) -> dict[str, Any]:
    """Run the Python blocks of a page as one program and return its names."""
    program = "\n".join(block.text for block in blocks(name) if block.language == "python")
    names: dict[str, Any] = {}
    exec(compile(program, name, "exec"), names)
    return names


def test_readme_runs_and_tells_every_file_and_field(stand_ins: Path) -> None:
    names = run_snippets("README.md")
    assert names["run"].out == Path("runs/cola")
    files = section("README.md", "What a model directory holds")
    for path in (stand_ins / "runs" / "cola").iterdir():
        assert f"`{path.name}{'/' * path.is_dir()}`" in files
    for path in (stand_ins / "runs" / "cola" / "test").iterdir():
        assert f"`{path.name}`" in files
    for line in (stand_ins / "runs" / "cola" / "history.jsonl").read_text().splitlines():
        for key in json.loads(line):
            assert f"`{key}`" in section("docs/fine-tuning.md", "The fields of history.jsonl")
    fields = section("docs/fine-tuning.md", "The fields of metrics.json")
    metrics = json.loads((stand_ins / "runs" / "cola" / "metrics.json").read_text())
    test = metrics["test"]
    for part in (metrics, metrics["training"], test, test["headline"], test["reliability"][0]):
        for key in part:
            assert f"`{key}`" in fields, key


@pytest.mark.filterwarnings("ignore:the text gives", "ignore:the corpus is too small")
def test_the_python_page_runs(stand_ins: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = run_snippets("docs/python.md")
    assert len(names["answers"]) == 2
    assert names["cls_BH"].shape == (2, 8)
    said = [line.partition("  # ")[2] for block in blocks("docs/python.md") for line in block.lines if "print(" in line]
    printed = capsys.readouterr().out
    for output in filter(None, said):
        assert output in printed


def run_example(path: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(path), *arguments])
    runpy.run_path(str(path), run_name="__main__")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_explain_themselves(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        run_example(path, ["--help"], monkeypatch)
    assert end.value.code == 0
    said = capsys.readouterr().out
    here = re.findall(rf"python examples/{path.name}(.*)", path.read_text() + "".join(map(page, PAGES)))
    assert here, "no command shows how to run it"
    for arguments in here:
        for name in re.findall(r"--[a-z-]+", arguments):
            assert name in said


def test_example_cola(stand_ins: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run_example(ROOT / "examples" / "cola.py", [str(stand_ins), "--steps", "1"], monkeypatch)
    assert "out of domain: Matthews correlation" in capsys.readouterr().out
    assert (stand_ins / "runs" / "cola" / "model.safetensors").exists()


def test_example_frozen_features(
    stand_ins: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = acceptability.generate(pairs_per_construction=2)
    monkeypatch.setattr(acceptability, "generate", lambda: few)
    run_example(ROOT / "examples" / "frozen_features.py", ["--head", "runs/head", "--epochs", "2"], monkeypatch)
    assert len(re.findall(r"accuracy [01]\.\d\d\d", capsys.readouterr().out)) == 2


def test_example_long_documents(
    stand_ins: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    articles = [
        {"title": title, "paragraphs": [{"context": f"the flight {word} " * 8}] * 10}
        for title, word in (("A", "birds"), ("B", "boys"), ("C", "cats"))
    ]
    (stand_ins / "squad.json").write_text(json.dumps({"data": articles}))
    options = ["--words", "40", "--max-length", "32", "--stride", "4", "--epochs", "1", "--out", "runs/long"]
    with pytest.warns(bertwright.BertwrightWarning, match="were cut"):
        run_example(ROOT / "examples" / "long_documents.py", ["squad.json", *options], monkeypatch)
    said = capsys.readouterr().out
    assert re.findall(r"(\w+): accuracy [01]\.\d+ on 3 documents, 9 to train on", said) == ["cut", "windows"]


@pytest.mark.shared_data
def test_example_chinese(shared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    vocabulary = shared / "vocab" / "bert-base-chinese" / "vocab.txt"
    run_example(ROOT / "examples" / "chinese.py", [str(vocabulary)], monkeypatch)
    said = capsys.readouterr().out
    assert "[101, 6506, 6841, 4318, 102, 0] [1, 1, 1, 1, 1, 0]" in said
    assert "[101, 6506, 6841, 5439, 7962, 102] [1, 1, 1, 1, 1, 1]" in said


def assert_shown(name: str, texts: list[str], model: Path) -> None:
    console = Console(file=io.StringIO(), width=80)
    for table in token_tables(texts, str(model), None, None):
        console.print(table)
    assert isinstance(console.file, io.StringIO)
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    shown = "\n".join(line.rstrip() for block in blocks(name) for line in block.lines)
    assert "\n".join(lines) in shown


def test_the_chapters_word_pieces_are_shown_as_they_are(minilm_dir: Path) -> None:
    assert_shown("docs/bert-chapter.md", ["flightless"], minilm_dir)
    first = "our friends wo n't buy this analysis , let alone the next one we propose ."
    assert_shown("docs/bert-chapter.md", [first], minilm_dir)


@pytest.mark.shared_data
def test_the_chapters_chinese_is_shown_as_it_is(shared: Path) -> None:
    assert_shown("docs/bert-chapter.md", ["貓追狗", "貓追老鼠"], shared / "vocab" / "bert-base-chinese" / "vocab.txt")
