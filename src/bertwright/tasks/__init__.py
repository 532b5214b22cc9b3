"""One file a task."""

from bertwright.tasks.classification import Classification

__all__ = ["Classification"]
