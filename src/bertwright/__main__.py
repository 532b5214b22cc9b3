"""``python -m bertwright``."""

from bertwright.cli import main

main()
