"""The command line: `vectoracl`."""

from vectoracl.cli.app import app, main

__all__ = ["app", "main"]
