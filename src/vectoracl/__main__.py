"""The entry point of `vectoracl` and `python -m vectoracl`; it imports the rest itself, to handle Ctrl-C there."""

from __future__ import annotations

import sys

INTERRUPTED = 130  # as in cli.common, which is not loaded yet


def main() -> None:
    """Run the command line. Ctrl-C prints one line and exits with the code 130, at any moment."""
    try:
        from vectoracl.cli import main as run

        run()
    except KeyboardInterrupt:
        # Commands report an interruption themselves; this handles Ctrl-C during the import.
        sys.stderr.write("Interrupted.\n")
        raise SystemExit(INTERRUPTED) from None


if __name__ == "__main__":
    main()
