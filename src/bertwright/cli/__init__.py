"""The command line: thin commands over the functions that Python users call."""

from bertwright.cli import classifying, looking, pretraining, vectors  # each adds its commands to the app
from bertwright.cli.app import app, main

__all__ = ["app", "classifying", "looking", "main", "pretraining", "vectors"]
