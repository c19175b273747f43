"""Formatting of values as TOML, for the configurations that `vectoracl init` and `vectoracl demo` write."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any


def value(given: Any) -> str:
    """Return *given* (a str, path, number, bool or mapping of these) as a TOML value.

    Raises: TypeError for anything else.
    """
    match given:
        case bool():
            return "true" if given else "false"
        case int() | float():
            return repr(given)
        case str():
            return _text(given)
        case PurePath():
            return _text(given.as_posix())
        case Mapping():
            return "{ " + ", ".join(f"{key} = {value(one)}" for key, one in given.items()) + " }"
    raise TypeError(f"{type(given).__name__} has no form in TOML")


def lines(settings: Mapping[str, Any]) -> str:
    """Return *settings* as lines of `key = value`."""
    return "".join(f"{key} = {value(one)}\n" for key, one in settings.items())


def _text(text: str) -> str:
    escaped = "".join(
        f"\\u{ord(char):04x}" if ord(char) < 0x20 or ord(char) == 0x7F else char
        for char in text.replace("\\", "\\\\").replace('"', '\\"')
    )
    return f'"{escaped}"'


def store_head(adapter: str, dimension: int) -> str:
    """Return the first lines of `[stores.main]`, equal for all adapters."""
    return f"""\
[stores.main]
adapter = "{adapter}"
dimension = {dimension}                 # numbers per vector, equal to the embedder's
metric = "cosine"               # or "inner", "l2"
"""
