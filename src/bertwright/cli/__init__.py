"""The command line: thin commands over the functions that Python users call."""

from bertwright.cli import finetuned, looking, pretraining, vectors  # each adds its commands to the app
from bertwright.cli.app import app, main

__all__ = ["app", "finetuned", "looking", "main", "pretraining", "vectors"]
