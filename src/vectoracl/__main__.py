"""The entry point, `vectoracl` and `python -m vectoracl`: it loads the rest itself, so that Ctrl-C can end that too."""

from __future__ import annotations

import sys

INTERRUPTED = 130  # as in cli.common, which is not loaded yet


def main() -> None:
    """Run the command line; Ctrl-C, at whatever moment, is one line and the exit code 130."""
    try:
        from vectoracl.cli import main as run

        run()
    except KeyboardInterrupt:
        # A command says it itself, with what it did; this is one that came before there was a command.
        sys.stderr.write("Interrupted.\n")
        raise SystemExit(INTERRUPTED) from None


if __name__ == "__main__":
    main()
