"""A pretrained model as a data package: bfloat16 weights in files that fit anywhere, to install like any other package.

    python -m benchmarks.package_weights runs/speedrun/model --out packages/bertwright-speedrun \\
        --results benchmarks/results/speedrun_cuda_20m.json

The folder holds a pyproject.toml, a README that is the model's card, and a module of the folder's name with nothing but
the directory ``model``, which `bertwright` and `transformers` open. `model/SHA256SUMS` pins every file there
(``sha256sum -c SHA256SUMS``), and its own digest, which is printed, pins them all.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import tomli_w
import torch

from benchmarks import records
from bertwright.atomic import atomic_directory
from bertwright.card import pretraining_card
from bertwright.checkpoint import export_tensors, write_weights
from bertwright.errors import BertwrightError
from bertwright.masked_lm import MaskedLM, load_masked_lm
from bertwright.pretraining.run import architecture
from bertwright.training.pretraining_recipe import PretrainingRecipe
from bertwright.version import VERSION

LARGEST_FILE = 16 << 20
"""Bytes that every file stays below."""

_HEADERS = 1 << 17  # of a shard: names, shapes and places of its tensors
SUMS = "SHA256SUMS"


def package(model: str | Path, out: str | Path, *, results: dict[str, Any] | None = None, overwrite: bool = False) -> str:
    """Write a pretrained model directory as a data package, and return the SHA-256 of its `SHA256SUMS`.

    Weights are rounded to bfloat16. The recipe's paths, which no other machine has, become names within the package.

    Args:
        model: what ``pretrain`` wrote.
        out: the package's folder; its name is that of the package.
        results: a record of `benchmarks.speedrun` whose numbers and command go into the card.
        overwrite: replace what `out` holds.

    Raises:
        BertwrightError: it is no pretrained model of this project; a tensor or the tokenizer has no room in a file; the
            name is none for a package; or `out` is taken or cannot be written.
    """
    model, out = Path(model), Path(out)
    name, module = out.name, out.name.replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise BertwrightError(f"{out}: the folder's name becomes the package's; take lower-case words with hyphens between")
    for file in (PretrainingRecipe.FILE, "metrics.json"):
        if not (model / file).is_file():
            raise BertwrightError(f"{model}: has no {file}; give a directory that 'bertwright pretrain' wrote")
    read = PretrainingRecipe.of(PretrainingRecipe.read(model / PretrainingRecipe.FILE))
    recipe = dataclasses.replace(read, corpus="tokens", out=None, config=read.config and "config.json")
    metrics = json.loads((model / "metrics.json").read_text(encoding="utf-8"))
    held = load_masked_lm(model, device="cpu", precision="float32")
    with atomic_directory(out, overwrite=overwrite) as folder:
        target = folder / module / "model"
        target.mkdir(parents=True)
        _write_model(held, target, recipe.objective)
        card = _card(held, recipe, metrics, results, module)
        for path, text in (
            (target / PretrainingRecipe.FILE, recipe.to_toml()),
            (target / "metrics.json", json.dumps(metrics, indent=2) + "\n"),
            (target / "README.md", card),
            (folder / "README.md", card),
            (folder / module / "__init__.py", '"""A pretrained BERT, in the directory model beside this file."""\n'),
            (folder / "pyproject.toml", tomli_w.dumps(_project(name, module))),
        ):
            path.write_text(text, encoding="utf-8")
        _check_sizes(folder)
        return _write_sums(target)


def _write_model(held: MaskedLM, target: Path, objective: str) -> None:
    tensors = {n: t.to(torch.bfloat16) for n, t in export_tensors(held.model, prefix="bert.").items()}
    write_weights(target, tensors, shard_bytes=LARGEST_FILE - _HEADERS)
    config = held.model.config.to_dict() | {"architectures": [architecture(objective)]}
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    held.tokenizer.save(target, max_length=held.model.config.max_position_embeddings)


def _check_sizes(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.stat().st_size >= LARGEST_FILE:
            raise BertwrightError(
                f"{path.name}: {path.stat().st_size:,} bytes, but a file of a data package stays below {LARGEST_FILE:,}; "
                "a smaller vocabulary or a narrower model has smaller embeddings"
            )


def _write_sums(target: Path) -> str:
    names = sorted(path.name for path in target.iterdir())
    lines = [f"{hashlib.sha256((target / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    text = "".join(lines).encode()
    (target / SUMS).write_bytes(text)
    return hashlib.sha256(text).hexdigest()


def _project(name: str, module: str) -> dict[str, Any]:
    return {
        "build-system": {"requires": ["setuptools>=77"], "build-backend": "setuptools.build_meta"},
        "project": {
            "name": name,
            "version": VERSION,
            "description": "A small pretrained BERT for bertwright and transformers: weights, no code",
            "readme": "README.md",
            "requires-python": ">=3.11",
            "license": "Apache-2.0",
        },
        "tool": {"setuptools": {"packages": [module], "package-data": {module: ["model/*"]}}},
    }


def _card(
    held: MaskedLM, recipe: PretrainingRecipe, metrics: dict[str, Any], results: dict[str, Any] | None, module: str
) -> str:
    """The card that pretraining writes, with what a package adds to it."""
    origin = "random weights" if recipe.model is None else recipe.model
    config = held.model.config
    lines = [
        pretraining_card(config, recipe, origin, metrics),
        "`pretraining.toml` takes the prepared corpus from `tokens`"
        + (", and the shape from a copy of `config.json`." if recipe.config else "."),
        "",
        "## The package",
        "",
        f"The weights are rounded to bfloat16, in shards below 16 MiB; `{SUMS}` has the sums of all files.",
        "`transformers` opens their directory too, which an installed package has at",
        "",
        f"    python -c \"import importlib.resources as r; print(r.files('{module}') / 'model')\"",
        "",
    ]
    if config.hidden_dropout_prob == 0:
        lines += ["It was pretrained without dropout, and `config.json` has none: fine-tune it with `--dropout 0.1`.", ""]
    if recipe.objective == "mlm":
        lines += ["Pooler and next-sentence head were not trained: they are random weights, to be fine-tuned.", ""]
    return "\n".join(lines + ([] if results is None else _measured(results)))


def _measured(record: dict[str, Any]) -> list[str]:
    results = record["results"]
    pairs, cola = results["blimp"], results["cola"]
    rows = {
        f"BLiMP, {pairs['sets']} sets, {pairs['score']}": f"{pairs['accuracy']:.1%}",
        **{
            f"CoLA, {where}, {len(cola['seeds'])} seeds at {cola['rate']:g}": records.spread(cola["over_seeds"][part])
            for where, part in (("out of domain", "test"), ("in domain", "validation"))
        },
    }
    return [
        "## What was measured",
        "",
        "| task | value |",
        "| --- | --- |",
        *(f"| {name} | {value} |" for name, value in rows.items()),
        "",
        f"CoLA is Matthews correlation. At commit {record['commit']}, the text read, the corpus prepared, the model trained "
        "and measured by:",
        "",
        f"    {record['command']}",
        "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a directory that pretraining wrote")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--results", type=Path, help="the record of the speedrun that made it")
    parser.add_argument("--overwrite", action="store_true")
    arguments = parser.parse_args()
    results = None if arguments.results is None else json.loads(arguments.results.read_text(encoding="utf-8"))
    digest = package(arguments.model, arguments.out, results=results, overwrite=arguments.overwrite)
    size = sum(path.stat().st_size for path in arguments.out.rglob("*") if path.is_file())
    print(f"{arguments.out}: {size / 1e6:.1f} MB, SHA-256 of its {SUMS}: {digest}")


if __name__ == "__main__":
    main()
