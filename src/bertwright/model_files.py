"""The files that a model's directory is made of, by name."""

from __future__ import annotations

from pathlib import Path

WHOLE_WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
PICKLE_SUFFIXES = (".bin", ".pt", ".pth")

# What is read of a directory. Never *.bin: a pickle is not even downloaded unless the user fetches and names it.
MODEL_FILES = (
    *("config.json", "*.safetensors", "*.safetensors.index.json"),
    *("vocab.txt", "tokenizer*.json", "special_tokens_map.json", "recipe.toml", "pretraining.toml"),
)
# What else lies there, after a run or from elsewhere.
_BESIDE = (*(f"*{suffix}" for suffix in PICKLE_SUFFIXES), "README.md", "metrics.json", "history.jsonl", "*.png")


def holds_model(folder: Path) -> bool:
    """Whether a model lies in this folder: a config.json alone may be any program's."""
    weights = (f"*{suffix}" for suffix in (".safetensors", *PICKLE_SUFFIXES))
    return (folder / "config.json").exists() and any(any(folder.glob(pattern)) for pattern in weights)


def is_of_model(file: Path) -> bool:
    """Whether a file, links followed, is one of a model's."""
    file = file.resolve()
    return holds_model(file.parent) and any(map(file.match, (*MODEL_FILES, *_BESIDE)))
