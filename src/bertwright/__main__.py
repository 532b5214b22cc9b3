"""Where the command line begins: ``bertwright``, and ``python -m bertwright``."""

import signal
import sys


def main() -> None:
    """Run the command line; Ctrl-C is one line even while it is imported."""
    try:
        from bertwright.cli import main as run
    except KeyboardInterrupt:
        print("stopped: interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    run()


if __name__ == "__main__":
    main()
